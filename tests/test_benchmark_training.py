"""`benchmarks.training` measures what it says, on a setting that takes seconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.training import QUICK, measure_cost
from benchmarks.training_cost import Bench
from benchmarks.training_exactness import (
    BF16_PARAMETERS,
    FP32,
    compare,
    rounded,
    warmed_up,
)
from benchmarks.training_memory import allocations, highest_sum, peak_bytes
from benchmarks.training_setup import Setting, wide_model
from benchmarks.training_table import render
from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.layout import Encoder
from tests.prm_data import small_data

SMALL = Setting(**QUICK)
OURS = "ours, 2"
MIB = 2**20


@cache
def bench() -> Bench:
    return Bench(SMALL)


@cache
def cost() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:  # memory is measured in a test of its own
        patch.setattr("benchmarks.training.peak_bytes", lambda bench, name: MIB)
        return measure_cost(SMALL, fresh=False)


@cache
def started() -> Any:
    return warmed_up(wide_model(32), small_data(("clean", "inverted", "noise", "a", "b"), 8), 3)


def test_every_procedure_has_its_time_and_tokens() -> None:
    rows = cost()["procedures"]
    assert [name.split(",")[0] for name in rows] == ["plain"] * 2 + ["ours"] * 4 + ["paper"]
    for row in rows.values():
        assert row["seconds_per_labelled_step"] > 0
        assert row["tokens_per_labelled_step"] > 0


def test_ours_adds_a_meta_batch_per_window_to_the_tokens_of_plain_training() -> None:
    """Window 2, meta batch as large as a step: half as many tokens more; the first of the two
    chunks is scored once again.
    """
    rows = cost()["procedures"]
    plain = rows["plain, 2"]["tokens_per_trajectory"]
    at_once = rows["ours, 2, meta at once"]["tokens_per_trajectory"]
    assert at_once == pytest.approx(1.5 * plain, rel=0.02)
    assert rows[OURS]["tokens_per_trajectory"] == pytest.approx(1.75 * plain, rel=0.02)


def test_the_paper_reads_the_question_anew_for_every_prefix() -> None:
    """A row of it is a prefix; a trajectory has three, and each window has five passes more."""
    assert cost()["ratios"]["paper / ours, tokens per labelled step"] > 2
    lengths = sorted(int(row.tokens.inputs["attention_mask"].sum()) for row in bench().rows)
    assert len(lengths) == SMALL.window * SMALL.steps
    assert lengths[0] < lengths[-1]


def test_a_prefix_is_a_row_of_the_paper_s_layout() -> None:
    question, t = bench().data.items[0]
    encode = Encoder(bench().model.processor, LayoutConfig(name="prefix"))
    rows = encode([(question, t.steps)]).inputs
    for n in range(1, len(t.steps) + 1):
        mine = bench()._prefix(question, t.steps[:n])
        row = rows["input_ids"][n - 1][rows["attention_mask"][n - 1].bool()]
        assert mine.inputs["input_ids"][0].tolist() == row.tolist()
        assert mine.positions.tolist() == [[len(row) - 1]]


def test_plain_training_sees_the_trajectories_of_ours() -> None:
    for step, ours in enumerate(bench().steps):
        seen = sorted(i for batch in ours for i in batch.items.tolist())
        for regrouped in bench().mixed.values():
            assert sorted(i for b in regrouped[step] for i in b.items.tolist()) == seen


def test_procedures_train() -> None:
    """No procedure is fast because it does nothing."""
    for procedure in bench().procedures():
        before = [p.detach().clone() for p in bench().model.parameters()]
        unit = procedure.start()
        unit()
        after = list(bench().model.parameters())
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_peak_is_that_of_the_tensors() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        first = torch.zeros(1000)
        second = torch.zeros(500)
        del first
        third = torch.zeros(900)
        del second, third
    assert highest_sum(allocations(profiler)) == pytest.approx(6000, abs=200)  # alignment


def test_peak_memory_holds_parameters_gradients_moments_and_directions() -> None:
    fresh = Bench(SMALL)
    size = sum(p.nbytes for p in fresh.model.parameters())
    plain = peak_bytes(fresh, "plain, 2")
    ours = peak_bytes(Bench(SMALL), OURS)
    assert plain > 4 * size  # parameters, gradients, two moments
    assert ours > plain + size / 2  # a direction, and a gradient apart from the sum


def test_the_inner_product_is_exact_and_differences_of_bf16_parameters_are_not() -> None:
    estimators = [("inner_product", "end"), ("finite_difference", "end"), ("jvp", "end")]
    rows = compare([started()], 1, (FP32, BF16_PARAMETERS), estimators)
    domains = {(r["estimator"], r["precision"]): r["domains"]["median"] for r in rows}
    assert domains["inner_product", FP32.name] > 0.999
    assert domains["finite_difference", FP32.name] > 0.99
    ours = domains["inner_product", BF16_PARAMETERS.name]
    assert ours > 0.9
    assert domains["finite_difference", BF16_PARAMETERS.name] < ours
    inner, _, jvp, *_ = rows
    assert jvp["trajectories"]["lowest"] > 0.999
    assert inner["trajectories"] is None, "it tells domains apart, not trajectories"


def test_rounding_leaves_weights_that_bf16_can_hold() -> None:
    for p in rounded(started(), torch.bfloat16).model.parameters():
        assert p.dtype == torch.float64
        assert torch.equal(p, p.bfloat16().double())


def test_the_table_has_a_row_for_each_procedure_and_estimator() -> None:
    machine = {"device": "CPU", "threads": 1, "torch": "2"}
    half = {"median": 0.5, "lowest": 0.25}
    row = {"estimator": "jvp", "meta_gradient_at": "end", "precision": "fp32", "window": 1}
    row |= {"domains": {"median": 0.99951, "lowest": 0.9}, "trajectories": half}
    exactness = {"seeds": 3, "warm_steps": 9, "estimators": [row]} | machine
    by_size = [row | {"width": 32, "parameters": 96_897}]
    table = render({"cost": cost() | machine, "exactness": exactness | {"by_size": by_size}})
    assert "| jvp, end | 0.9995 [0.90] / 0.50 [0.25] |" in table
    for name in cost()["procedures"]:
        assert f"| {name}" in table
    assert "| paper / ours, seconds per labelled step |" in table
