"""How sure is a weight? Simulated windows, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dreamprm.bilevel import DomainWeights
from dreamprm.bilevel.evidence import Evidence

PARTS, BLOCKS, WINDOWS, RUNS = 12, 10, 96, 150
TRUTH = np.array([0.0, 0.0, 0.6, -0.6])


def run(seed: int, parts: int = PARTS, blocks: int = BLOCKS) -> Evidence:
    """Noise of the windows, of the questions that come again, and of the trajectories that do."""
    draw = np.random.default_rng(seed)
    of_questions = draw.standard_normal((PARTS, len(TRUTH)))
    of_trajectories = draw.standard_normal((BLOCKS, len(TRUTH)))
    evidence, domains = Evidence(len(TRUTH)), range(len(TRUTH))
    for window in range(WINDOWS):
        block = int(draw.integers(BLOCKS))
        noise = draw.standard_normal(len(TRUTH))
        effects = TRUTH + of_questions[window % PARTS] + of_trajectories[block] + noise
        evidence.add(window % parts, domains, [block if blocks > 1 else -1] * 4, effects.tolist())
    return evidence


def held(runs: list[Evidence]) -> NDArray[np.float64]:
    """Share of the runs whose interval holds 0, by domain."""
    ends = [run.interval() for run in runs]
    return np.mean([(low < 0) & (high > 0) for low, high in ends], axis=0)


def test_intervals_hold_zero_where_there_is_nothing_and_leave_it_where_there_is() -> None:
    share = held([run(seed) for seed in range(RUNS)])
    assert share[:2].tolist() == pytest.approx([0.95, 0.95], abs=0.05)
    assert share[2:].max() < 0.9


@pytest.mark.parametrize("clusters", [{"parts": WINDOWS}, {"blocks": 1}])
def test_without_clusters_the_chance_of_what_comes_again_is_not_seen(
    clusters: dict[str, int],
) -> None:
    share = held([run(seed, **clusters) for seed in range(RUNS)])
    assert share[:2].max() < 0.92


def test_what_may_be_chance_moves_nothing_and_what_is_sure_moves_almost_freely() -> None:
    moved = np.array([run(seed).shrunk() for seed in range(RUNS)])
    assert (moved[:, :2] == 0).mean() == pytest.approx(0.88, abs=0.05)
    evidence = Evidence(2)
    for window in range(30):
        flutter = 0.1 * (-1) ** (window // 10)
        evidence.add(window % 10, [0, 1], [-1, -1], [1.0 + flutter, -1.0 + flutter])
    assert evidence.shrunk().tolist() == pytest.approx(evidence.z()[0].tolist(), rel=0.01)


def test_a_domain_that_few_parts_have_seen_is_not_judged() -> None:
    evidence = Evidence(3)
    for part in range(6):
        seen = [0, 1] if part < 2 else [0]
        said = evidence.add(part, seen, [-1] * len(seen), [k + 1 + 0.1 * part for k in seen])
        assert list(said) == seen
    assert evidence.z()[0][0] > 5
    assert evidence.shrunk()[1:].tolist() == [0, 0]


def test_a_window_counts_with_the_square_root_of_its_size() -> None:
    evidence = Evidence(2)
    evidence.add(0, [0, 1], [-1, -1], [4.0, -4.0])
    evidence.add(1, [0, 1], [-1, -1], [1.0, -1.0])
    assert evidence.parts.total.tolist() == [[2, -2], [1, -1]]


def test_a_domain_that_comes_twice_in_a_window_counts_once() -> None:
    evidence = Evidence(2)
    assert evidence.add(0, [0, 1, 0], [0, 0, 1], [1.0, 2.0, 3.0]) == {0: 2.0, 1: 2.0}
    assert evidence.parts.count.tolist() == [[1, 1]]
    assert evidence.blocks.count.tolist() == [[1, 1], [1, 0]]


def test_an_optimiser_of_its_own_is_as_sure_as_the_evidence_that_it_followed() -> None:
    evidence = run(0)
    z = evidence.z()[0]
    low, high = evidence.interval(moved=0.1 * z)
    of_z = evidence.interval()
    assert low.tolist() == pytest.approx((0.1 * of_z[0]).tolist())
    assert high.tolist() == pytest.approx((0.1 * of_z[1]).tolist())
    wider = evidence.interval(moved=0.1 * z + np.array([0.5, -0.5, 0.5, -0.5]))
    assert (wider[1] - wider[0] > 2 * (high - low)).all()


def test_the_end_of_an_interval_stands_beside_the_other_domains_weights() -> None:
    weights = DomainWeights(["a", "b"])
    with torch.no_grad():
        weights.alpha.copy_(torch.tensor([1.0, -1.0]))
        ends = weights.table(torch.tensor([0.0, 0.0]))
    one, other = torch.tensor([1.0, -1.0]).sigmoid().tolist()
    assert ends.tolist() == pytest.approx([1 / (0.5 + other), 1 / (one + 0.5)])
