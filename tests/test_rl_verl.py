"""verl's own reward manager with our function; the parts that need no verl are in test_rl.py."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dreamprm.rl import StepReward
from tests.tiny_models import picture_question, processor, random_prm

ANSWERS = ["Step 1: red is 3\nStep 2: so it is 8\nFinal answer: 8", "Step 1: so 9\nFinal answer: 9"]


@pytest.mark.filterwarnings("ignore")
def test_verl_s_reward_manager_gives_each_response_its_reward(tmp_path: Path) -> None:
    naive = pytest.importorskip(
        "verl.experimental.reward_loop.reward_manager.naive", reason="verl is not installed"
    )
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.reward import get_custom_reward_fn

    prm, tokenizer = random_prm(), processor().tokenizer
    prm.save_pretrained(tmp_path)
    function = {
        "path": "pkg://dreamprm.rl.verl_reward",
        "name": "compute_score",
        "reward_kwargs": {"prm": str(tmp_path), "gate": True, "device": "cpu"},
    }
    config = OmegaConf.create({"reward": {"custom_reward_function": function}})
    question = picture_question().model_copy(update={"answer": "8"})
    info = {"question": question.text, "images": [{"bytes": question.images[0]}]}

    def row(text: str) -> Any:
        ids = torch.tensor([tokenizer(text).input_ids])
        facts = {
            "data_source": "world",
            "reward_model": {"ground_truth": "8"},
            "extra_info": dict(info),
        }
        return DataProto.from_dict(
            tensors={"responses": ids, "attention_mask": torch.ones_like(ids)},
            non_tensors={name: np.array([value], dtype=object) for name, value in facts.items()},
        )

    async def rewarded() -> list[Any]:
        manager = naive.NaiveRewardManager(config, tokenizer, get_custom_reward_fn(config))
        return await asyncio.gather(*(manager.run_single(row(text)) for text in ANSWERS))

    right, wrong = asyncio.run(rewarded())
    [expected, _] = StepReward(prm, gate=True)([question] * 2, ANSWERS)
    assert right["reward_score"] == pytest.approx(expected.value, abs=1e-5)
    assert (wrong["reward_score"], wrong["reward_extra_info"]["acc"]) == (0.0, 0.0)
