"""TRL's GRPOTrainer on a vision-language policy, with a reward model that sees the pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dreamprm.models.loading import load_backbone, load_processor
from dreamprm.rl import StepReward, training_rows, trl_reward
from dreamprm.tiny.world import WorldSize, build_world
from tests.tiny_models import random_prm


def test_three_steps_of_grpo_reward_each_completion_by_its_own_picture(tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="TRL is not installed: pip install 'dreamprm[rl]'")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    questions = build_world(1, WorldSize(per_domain=1, meta=30, per_benchmark=1)).meta[:6]
    prm = random_prm()
    prm_reward = trl_reward(prm, gate=True)
    given: list[tuple[str, str, float]] = []  # question, completion, reward

    def reward(**told: Any) -> list[float]:
        values = prm_reward(**told)
        texts = [turns[-1]["content"] for turns in told["completions"]]
        given.extend(zip(told["question"], texts, values, strict=True))
        return values

    config = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=3,
        per_device_train_batch_size=8,
        num_generations=4,
        max_completion_length=48,
        learning_rate=1e-4,
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        save_strategy="no",
        report_to=[],
    )
    trainer = GRPOTrainer(
        model=load_backbone("tiny/policy"),
        reward_funcs=reward,
        args=config,
        train_dataset=Dataset.from_list(training_rows(questions, prompt="bare")),
        processing_class=load_processor("tiny/policy"),
    )
    trainer.train()

    of_text = {question.text: question for question in questions}
    asked = [of_text[text] for text, _, _ in given]
    expected = StepReward(prm, gate=True)(asked, [completion for _, completion, _ in given])
    assert [value for *_, value in given] == pytest.approx([r.value for r in expected], abs=1e-5)
    assert len(given) == 24 and {0.0} < {value for *_, value in given}  # some right, some wrong
    logs = [entry for entry in trainer.state.log_history if "prm/score" in entry]
    assert [entry["step"] for entry in logs] == [1, 2, 3]
    trained, embedded = trainer.model.state_dict(), load_backbone("tiny/policy").state_dict()
    assert any(not torch.equal(trained[name], embedded[name]) for name in embedded)
