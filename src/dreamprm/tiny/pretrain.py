"""Makes the embedded checkpoints: `python -m dreamprm.tiny.pretrain --output-dir DIR`.

Three models come out of one run:

- `backbone`: has learned to describe pictures, to solve, and then to judge single steps, as a
  general vision-language model has by the time somebody builds a reward model on it. The order
  matters.
  Solving from the start stays on a plateau where the model names a value that is in the picture,
  but of the wrong colour; describing pictures of one to four things gets it off in 300 steps.
- `policy`: the solver after imitating a writer who slips and holds misconceptions. Its samples are
  about half right, and its wrong answers agree with one another often enough to fool voting.
- `policy-strong`: the same with a more careful writer; the transfer policy.

Weights are stored as fp16 to keep the package small and are trained and used as fp32.
"""

from __future__ import annotations

import argparse
import itertools
import json
import operator
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import Qwen2VLForConditionalGeneration

from dreamprm.models.loading import ImageTextProcessor
from dreamprm.prm.folder import LayoutConfig
from dreamprm.tiny.model import STEP_TAG, build_model, build_processor
from dreamprm.tiny.reasoning import (
    ARITHMETIC,
    FAULTLESS,
    OPERATIONS,
    Slips,
    Task,
    random_task,
    reason,
)
from dreamprm.tiny.scene import FAMILIES, Scene, random_scene, render

SLIPS_READ = Slips(misconception=0.35, reading=0.12, arithmetic=0.12)  # judged first: pictures
SLIPS_WORKED = Slips(misconception=0.3, reading=0.1, arithmetic=0.4)  # then: calculations
SLIPS_POLICY = Slips(misconception=0.6, reading=0.07, arithmetic=0.06)
SLIPS_STRONG = Slips(misconception=0.5, reading=0.03, arithmetic=0.03)
JUDGE = LayoutConfig().instruction
DESCRIBE = "Describe the picture."
Labelled = tuple[dict[str, Tensor], Tensor]  # inputs of the model, target of each token
IGNORE = -100


def sample_task(rng: random.Random) -> Task:
    """A task as pretraining sees them: mostly pictures, some stated values, some arithmetic."""
    scene = random_scene(rng, rng.choice(FAMILIES))
    kind = rng.random()
    if kind < 0.06:
        return random_task(rng, scene, (ARITHMETIC,))
    task = random_task(rng, scene, OPERATIONS)
    if kind < 0.12:
        return replace(task, stated=True)
    return task


class Examples:
    """Batches of (inputs, labels) of one kind, made on the fly from a seed."""

    def __init__(self, processor: ImageTextProcessor, seed: int) -> None:
        self.processor, self.rng = processor, random.Random(seed)
        tokenizer = processor.tokenizer
        self.newline, self.plus, self.minus = (
            tokenizer(text, add_special_tokens=False).input_ids[0] for text in ("\n", "+", "-")
        )

    def describe(self, batch: int) -> Labelled:
        """Captions of pictures with one to four things, in random order."""
        scenes, captions = [], []
        for _ in range(batch):
            scene = random_scene(self.rng, self.rng.choice(FAMILIES))
            shown = self.rng.sample(scene.colours, self.rng.randint(1, 4))
            values = tuple(scene.value(c) if c in shown else 0 for c in scene.colours)
            scenes.append(Scene(scene.family, scene.colours, values))
            captions.append("\n".join(f"{c} is {scene.value(c)}" for c in shown))
        pictures = [render(scene) for scene in scenes]
        return self._next_tokens(pictures, [DESCRIBE] * batch, captions)

    def solve(self, batch: int, slips: Slips = FAULTLESS) -> Labelled:
        """Next-token targets on the reasoning (and nothing before it)."""
        tasks = [sample_task(self.rng) for _ in range(batch)]
        texts = []
        for task in tasks:
            reasoning = reason(task, self.rng, slips)
            texts.append("\n".join([*reasoning.steps, f"Final answer: {reasoning.answer}"]))
        return self._next_tokens(_pictures(tasks), [task.text for task in tasks], texts)

    def _next_tokens(
        self, pictures: Sequence[Image.Image | None], prompts: list[str], answers: list[str]
    ) -> Labelled:
        batch = len(prompts)
        inputs = self._encode(pictures, prompts, [f"{answer}<|end|>" for answer in answers])
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORE)
        assistant = self.processor.tokenizer.convert_tokens_to_ids("<|assistant|>")
        start = (inputs["input_ids"] == assistant).int().argmax(dim=1)  # (batch,)
        place = torch.arange(labels.shape[1])
        labels = labels.masked_fill(place[None] <= start[:, None], IGNORE)
        return inputs, torch.cat([labels[:, 1:], labels.new_full((batch, 1), IGNORE)], dim=1)

    def judge(self, batch: int, slips: Slips, whole: bool = True) -> Labelled:
        """At the end of each step the target is + or -.

        Args:
            whole: + means that all steps so far are right; otherwise, that this one is, given those
                before it.
        """
        tasks = [sample_task(self.rng) for _ in range(batch)]
        reasonings = [reason(task, self.rng, slips) for task in tasks]
        inputs = self._encode(
            _pictures(tasks),
            [f"{task.text}\n{JUDGE}" for task in tasks],
            ["".join(f"{step}\n" for step in r.steps) for r in reasonings],
        )
        labels = torch.full_like(inputs["input_ids"], IGNORE)
        for row, reasoning in enumerate(reasonings):
            places = (inputs["input_ids"][row] == self.newline).nonzero()[
                -len(reasoning.steps) :, 0
            ]
            right = reasoning.right
            if whole:
                right = tuple(itertools.accumulate(right, operator.and_))
            verdicts = [self.plus if r else self.minus for r in right]
            labels[row, places] = torch.tensor(verdicts)
        return inputs, labels

    def _encode(
        self, pictures: Sequence[Image.Image | None], prompts: list[str], answers: list[str]
    ) -> dict[str, Tensor]:
        texts = []
        for picture, prompt, answer in zip(pictures, prompts, answers, strict=True):
            content: list[dict[str, str]] = [{"type": "image"}] if picture else []
            content.append({"type": "text", "text": prompt})
            message: dict[str, Any] = {"role": "user", "content": content}
            head = self.processor.apply_chat_template(
                [message], tokenize=False, add_generation_prompt=True
            )
            texts.append(head + answer)
        images = [[picture] for picture in pictures if picture]
        return dict(self.processor(text=texts, images=images, padding=True, return_tensors="pt"))


def _pictures(tasks: list[Task]) -> list[Image.Image | None]:
    return [None if task.operation == ARITHMETIC else render(task.scene) for task in tasks]


def fit(
    model: Qwen2VLForConditionalGeneration,
    batches: Callable[[], list[Labelled]],
    steps: int,
    learning_rate: float,
) -> None:
    """AdamW with a warm-up of 5% and cosine decay; `batches()` gives the parts of one step.

    The loss is cross-entropy at the labelled places only (labels are already shifted).
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=0.05
    )
    started = time.time()
    for step in range(1, steps + 1):
        losses = []
        for inputs, labels in batches():
            hidden = model.model(**inputs).last_hidden_state  # (batch, tokens, width)
            known = labels != IGNORE
            loss = F.cross_entropy(model.lm_head(hidden[known]), labels[known])
            loss.backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 50 == 0 or step == steps:
            shown = " ".join(f"{loss:.3f}" for loss in losses)
            _say(f"  step {step}/{steps} loss {shown} ({time.time() - started:.0f} s)")


@torch.no_grad()
def solve_accuracy(model: Qwen2VLForConditionalGeneration, examples: Examples) -> float:
    """Share of right solutions of which the model predicts every token, given those before it."""
    hits: list[bool] = []
    for _ in range(4):
        inputs, labels = examples.solve(64)
        said = model(**inputs).logits.argmax(dim=-1)
        hits += ((said == labels) | (labels == IGNORE)).all(dim=1).tolist()
    return sum(hits) / len(hits)


@torch.no_grad()
def judge_accuracy(model: Qwen2VLForConditionalGeneration, examples: Examples) -> dict[str, float]:
    """Share of right and of wrong steps that the model judges rightly."""
    hits: dict[str, list[bool]] = {"right steps": [], "wrong steps": []}
    for _ in range(8):
        inputs, labels = examples.judge(64, SLIPS_WORKED)
        known = labels != IGNORE
        logits = model.lm_head(model.model(**inputs).last_hidden_state[known])
        says_right = logits[:, examples.plus] > logits[:, examples.minus]
        is_right = labels[known] == examples.plus
        hits["right steps"] += says_right[is_right].tolist()
        hits["wrong steps"] += (~says_right[~is_right]).tolist()
    return {name: sum(judged) / len(judged) for name, judged in hits.items()}


def add_step_tag(model: Qwen2VLForConditionalGeneration, processor: ImageTextProcessor) -> None:
    """A special token that ends steps, as real tokenizers have unused ones.

    To the model it is a line's end, which is what ended steps so far.
    """
    tokenizer = processor.tokenizer
    [line] = tokenizer("\n", add_special_tokens=False).input_ids
    tokenizer.add_tokens(STEP_TAG, special_tokens=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = model.model.language_model.embed_tokens.weight.data  # (vocabulary, width)
    rows[-1] = rows[line]


def save(model: Qwen2VLForConditionalGeneration, processor: ImageTextProcessor, path: Path) -> None:
    stored = type(model)(model.config).half()
    stored.load_state_dict(model.state_dict())
    stored.generation_config = model.generation_config
    stored.save_pretrained(path)
    processor.save_pretrained(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    steps = {"describe": 500, "solve": 800, "policy": 350}
    steps |= {"judge": 1200, "judge-more": 800, "judge-whole": 700}
    for stage, count in steps.items():
        parser.add_argument(f"--{stage}-steps", type=int, default=count)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    processor = build_processor()
    model = build_model(processor)
    examples = Examples(processor, args.seed)

    _say("learning to describe")
    fit(model, lambda: [examples.describe(64)], args.describe_steps, 2e-3)
    _say("learning to solve")
    fit(model, lambda: [examples.solve(64)], args.solve_steps, 1.5e-3)
    _say(f"solves without a slip: {solve_accuracy(model, examples):.3f}")
    solver = {name: value.clone() for name, value in model.state_dict().items()}

    for name, slips in (("policy", SLIPS_POLICY), ("policy-strong", SLIPS_STRONG)):
        _say(f"imitating the writer of {name}")
        model.load_state_dict(solver)
        fit(model, partial(_imitation, examples, slips), args.policy_steps, 1e-3)
        save(model, processor, args.output_dir / name)

    # From easy to hard: wrong readings, then wrong calculations (a model that judges pictures
    # perfectly still passes three in four of them), then whether anything so far was wrong.
    model.load_state_dict(solver)
    stages = (
        (args.judge_steps, SLIPS_READ, False),
        (args.judge_more_steps, SLIPS_WORKED, False),
        (args.judge_whole_steps, SLIPS_WORKED, True),
    )
    for count, slips, whole in stages:
        _say("learning to judge")
        fit(model, partial(_judgement, examples, slips, whole), count, 1.5e-3)
    accuracy = judge_accuracy(model, examples)
    _say(f"judges rightly: {json.dumps(accuracy)}")
    add_step_tag(model, processor)
    save(model, processor, args.output_dir / "backbone")


def _imitation(examples: Examples, slips: Slips) -> list[Labelled]:
    return [examples.solve(64, slips)]


def _judgement(examples: Examples, slips: Slips, whole: bool) -> list[Labelled]:
    return [examples.solve(32), examples.judge(48, slips, whole)]


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
