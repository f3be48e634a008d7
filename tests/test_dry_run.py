"""The plan of a run, held to what torch's own trackers see of a real one."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from dreamprm.prm.folder import PRMConfig
from dreamprm.prm.lora import Lora
from dreamprm.training.config import TrainConfig
from dreamprm.training.dry_run import Plan, plan_run
from dreamprm.training.learned import make_weights
from dreamprm.training.problem import PRMProblem
from dreamprm.training.run import make_loop
from tests.prm_data import small_data
from tests.tiny_models import random_prm

SMALL = TrainConfig(
    max_steps=100,
    gradient_accumulation_steps=2,
    per_device_train_batch_size=4,
    meta_batch_questions=2,
    meta_batch_candidates=2,
)
PLAIN = replace(SMALL, learn_weights=False)
DATA = small_data(("clean", "noise"))


@functools.cache
def plan(config: TrainConfig, **more: Any) -> Plan:
    return plan_run("tiny", PRMConfig(), DATA, config, measure=False, **more)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AutoModelForImageTextToText, "from_pretrained", None)


@pytest.mark.parametrize("bf16", [False, True])
def test_peak_and_flops_are_those_of_a_real_step(bf16: bool) -> None:
    data = small_data(("clean",), per_domain=4)
    config = replace(PLAIN, bf16=bf16, gradient_accumulation_steps=1)
    problem = PRMProblem(random_prm().train(), data, config)
    loop = make_loop(problem, *make_weights(config, data))
    batches = problem.lower_batches(0)
    loop.step(batches)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loop.step(batches)
    with FlopCounterMode(display=False) as flops:
        loop.step(batches)
    events = profiler.profiler.kineto_results.events()
    changes = [event.nbytes() for event in events if event.name() == "[memory]"]
    found = plan_run("tiny", PRMConfig(), data, config, measure=False)
    before = found.weights + found.moments
    assert found.peak == pytest.approx(before + max(itertools.accumulate(changes)), rel=0.05)
    assert found.flops == pytest.approx(flops.get_total_flops(), rel=0.1)


def test_what_the_estimator_keeps_is_counted() -> None:
    plain, start, end = plan(PLAIN), plan(SMALL), plan(replace(SMALL, meta_gradient_at="end"))
    vector = 4 * plain.trainable
    assert plain.weights == pytest.approx(vector, rel=0.01)
    assert plain.moments == pytest.approx(2 * vector, rel=0.01)
    assert (plain.stored, plain.meta_share) == (0, 0.0)
    assert start.stored == pytest.approx(vector, rel=0.01), "the direction"
    assert end.stored == pytest.approx(2 * vector, rel=0.01), "a gradient per domain"
    assert plain.peak < start.peak < end.peak
    assert 0 < start.meta_share < 1
    assert start.flops > plain.flops


@pytest.mark.parametrize("change", [{"weighting": "instance_table"}, {"label_correction": True}])
def test_other_weightings_are_planned_too(change: dict[str, Any]) -> None:
    assert plan(replace(SMALL, **change)).flops > 1.5 * plan(SMALL).flops


def test_options_that_save_memory_do() -> None:
    whole = plan(PLAIN)
    assert plan(replace(PLAIN, gradient_checkpointing=True)).peak < whole.peak
    adapters = plan(PLAIN, lora=Lora(r=4), dtype=torch.bfloat16)
    assert adapters.trainable < whole.trainable / 4
    assert adapters.weights < whole.weights
    assert adapters.moments == pytest.approx(8 * adapters.trainable, rel=0.01)
    shards = plan(PLAIN, world=2, sharded=True)
    assert shards.peak - shards.expected_peak == pytest.approx(6 * shards.trainable, rel=0.05)


def test_a_run_that_goes_on_from_adapters_trains_these(tmp_path: Path) -> None:
    prm = random_prm()
    prm.add_lora(Lora(r=4))
    prm.base = "tiny"
    prm.save_pretrained(tmp_path)
    found = plan_run(str(tmp_path), PRMConfig(), DATA, PLAIN, measure=False)
    assert found.trainable == sum(p.numel() for p in prm.parameters() if p.requires_grad)


def test_the_text_says_what_does_not_fit_and_what_is_guessed() -> None:
    text = str(replace(plan(PLAIN), memory=10_000))
    assert "clean                   8 trajectories" in text
    assert "does not fit this device's 0.01 MB" in text
    assert "Less memory: gradient_checkpointing" in text
    assert "Time: guessed" in text
    assert "Meta set" not in text
    assert "Meta set: 96 meta candidates, 32 questions with both outcomes" in str(plan(SMALL))
    measured = str(plan_run("tiny", PRMConfig(), DATA, PLAIN))
    assert " fits " in measured
    assert "Time: measured" in measured
