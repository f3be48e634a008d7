"""How sure is a weight? Simulated windows, whose truth is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dreamprm.bilevel import DomainWeights
from dreamprm.bilevel.evidence import Evidence

PARTS, WINDOWS, RUNS = 12, 96, 200
TRUTH = torch.tensor([0.0, 0.0, 0.6, -0.6])


def run(seed: int, of_questions: float = 1.0, parts: int = PARTS) -> Evidence:
    """Effects with noise of the windows, and of the questions that come again with their part."""
    draw = torch.Generator().manual_seed(seed)
    peculiar = of_questions * torch.randn(PARTS, len(TRUTH), generator=draw)
    evidence = Evidence(len(TRUTH))
    for window in range(WINDOWS):
        noise = torch.randn(len(TRUTH), generator=draw)
        evidence.add(window % parts, TRUTH + peculiar[window % PARTS] + noise)
    return evidence


def held(runs: list[Evidence]) -> Tensor:
    """Share of the runs whose interval holds 0, by domain."""
    ends = [run.interval() for run in runs]
    return torch.stack([(low < 0) & (high > 0) for low, high in ends]).double().mean(dim=0)


def test_intervals_hold_zero_where_there_is_nothing_and_leave_it_where_there_is() -> None:
    share = held([run(seed) for seed in range(RUNS)])
    assert share[:2].tolist() == pytest.approx([0.95, 0.95], abs=0.04)
    assert share[2:].max() < 0.6


def test_windows_alone_would_not_see_the_chance_of_the_meta_questions() -> None:
    """Each window as a part of its own: what `evidence.py` is there to avoid."""
    share = held([run(seed, parts=WINDOWS) for seed in range(RUNS)])
    assert share[:2].max() < 0.75


def test_what_may_be_chance_moves_nothing_and_what_is_sure_moves_almost_freely() -> None:
    moved = torch.stack([run(seed).shrunk() for seed in range(RUNS)])
    assert (moved[:, :2] == 0).double().mean() == pytest.approx(0.9, abs=0.04)
    evidence = Evidence(2)
    for window in range(30):
        evidence.add(window % 10, torch.tensor([1.0, -1.0]) + 0.1 * (-1) ** (window // 10))
    z, shrunk = evidence.z()[0], evidence.shrunk()
    assert shrunk.tolist() == pytest.approx(z.tolist(), rel=0.01)


def test_a_domain_that_few_parts_have_seen_is_not_judged() -> None:
    evidence = Evidence(3)
    for part in range(6):
        seen = torch.tensor([1.0 + 0.1 * part, 2.0 + 0.1 * part, torch.nan])
        if part > 1:
            seen[1] = torch.nan
        evidence.add(part, seen)
    assert evidence.visits.sum(dim=0).tolist() == [6, 2, 0]
    assert evidence.z()[0][0] > 5
    assert evidence.shrunk()[1:].tolist() == [0, 0]


def test_a_window_counts_with_the_square_root_of_its_size() -> None:
    evidence = Evidence(2)
    evidence.add(0, torch.tensor([4.0, -4.0]))
    evidence.add(1, torch.tensor([1.0, -1.0]))
    assert evidence.sums.tolist() == [[2, -2], [1, -1]]


def test_an_optimiser_of_its_own_is_as_sure_as_the_evidence_that_it_followed() -> None:
    evidence = run(0)
    z = evidence.z()[0]
    low, high = evidence.interval(moved=0.1 * z)
    of_z = evidence.interval()
    assert low.tolist() == pytest.approx((0.1 * of_z[0]).tolist())
    assert high.tolist() == pytest.approx((0.1 * of_z[1]).tolist())
    wider = evidence.interval(moved=0.1 * z + torch.tensor([0.5, -0.5, 0.5, -0.5]))
    assert (wider[1] - wider[0] > 2 * (high - low)).all()


def test_the_end_of_an_interval_stands_beside_the_other_domains_weights() -> None:
    weights = DomainWeights(["a", "b"])
    with torch.no_grad():
        weights.alpha.copy_(torch.tensor([1.0, -1.0]))
        ends = weights.table(torch.tensor([0.0, 0.0]))
    one, other = torch.tensor([1.0, -1.0]).sigmoid().tolist()
    assert ends.tolist() == pytest.approx([1 / (0.5 + other), 1 / (one + 0.5)])
