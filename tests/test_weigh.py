"""Data selection on data where the answer is known by hand; files of weights; `dreamprm weigh`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.baselines.features import embeddings_and_quality, reference_losses
from dreamprm.baselines.selection import (
    SELECTORS,
    Pool,
    balanced_information,
    effective_size,
    kept_count,
    select_weights,
    solve_rates,
)
from dreamprm.cli import main, weigh
from dreamprm.data.trajectory_weights import read_weights, write_weights
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.prm.folder import LayoutConfig, PRMConfig
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Label, Question, Trajectory
from tests.cli_samples import make_project, read_rows, save_tiny_model
from tests.tiny_models import STEPS, picture_question, random_prm

SUBSETS = ["random", "s1", "car", "bis"]


def pair(
    name: str,
    correct: Sequence[int],
    *,
    domain: str = "d",
    index: int = 0,
    outcome: bool | None = None,
    text: str = "?",
    steps: Sequence[str] | None = None,
) -> tuple[Question, Trajectory]:
    """A trajectory whose step i has the label correct[i] of 4."""
    question = Question(id=name, domain=domain, text=text, answer="1")
    steps = tuple(steps or (f"step {i}" for i in range(len(correct))))
    return question, Trajectory(
        question_id=name,
        steps=steps,
        labels=tuple(Label.of(c, 4) for c in correct[: len(steps)]),
        outcome=outcome,
        sample_index=index,
    )


def many(counts: dict[str, int], seed: int = 0) -> Pool:
    """So many trajectories of each domain, with figures of all kinds."""
    rng = np.random.default_rng(seed)
    pairs = tuple(
        pair(f"{domain}{i // 2}", rng.integers(0, 5, 3).tolist(), domain=domain, index=i % 2)
        for domain, count in counts.items()
        for i in range(count)
    )
    n = len(pairs)
    return Pool(pairs, rng.normal(size=(n, 5)), rng.normal(size=n), rng.exponential(size=n))


def names(pool: Pool, weights: np.ndarray) -> set[str]:
    return {q.id for (q, _), weight in zip(pool.pairs, weights, strict=True) if weight > 0}


@given(
    st.sampled_from(sorted(SELECTORS)),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 9), min_size=1),
    st.floats(0.01, 1.0),
    st.integers(0, 3),
)
def test_weights_are_not_negative_have_mean_1_and_keep_the_budget(
    name: str, counts: dict[str, int], budget: float, seed: int
) -> None:
    pool = many(counts, seed)
    weights = select_weights(name, pool, budget, seed)
    assert (weights >= 0).all()
    assert weights.mean() == pytest.approx(1)
    if name in SUBSETS:
        assert (weights > 0).sum() == kept_count(len(pool.pairs), budget)
        assert len(set(weights[weights > 0].tolist())) == 1
    else:
        wanted = max(1, budget * len(pool.pairs))
        assert effective_size(weights) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", sorted(SELECTORS))
def test_shuffling_the_trajectories_shuffles_the_weights_alone(name: str) -> None:
    pool = many({"a": 9, "b": 5, "c": 4})
    order = np.random.default_rng(1).permutation(18)
    assert pool.features is not None and pool.quality is not None and pool.losses is not None
    shuffled = Pool(
        tuple(pool.pairs[i] for i in order),
        pool.features[order],
        pool.quality[order],
        pool.losses[order],
    )
    weights = select_weights(name, pool, 0.4, 7)
    np.testing.assert_array_equal(select_weights(name, shuffled, 0.4, 7), weights[order])
    if name in ("random", "s1"):
        assert (weights != select_weights(name, pool, 0.4, 8)).any(), "drawn by the seed"


def test_bis_scores_mixture_times_reliability() -> None:
    def score(*correct: int) -> float:
        return balanced_information(pair("q", correct)[1])

    assert score(4, 4, 0, 0) == pytest.approx(0.25 + 0.05)
    assert score(2, 1, 0, 0) == pytest.approx((0.25 + 0.05) * 0.375)
    assert score(4, 4, 4, 4) == score(0, 0, 0, 0) == pytest.approx(0.05)
    assert score(1, 1, 1, 1) == pytest.approx(0.05 / 4)
    partly = pair("q", [4, 0, 0])[1].model_copy(update={"labels": (Label.of(4, 4), None, None)})
    assert balanced_information(partly) == pytest.approx(0.05)


def test_car_keeps_the_best_of_every_cluster_and_fills_up_with_the_best_of_all() -> None:
    centres = np.repeat([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]], [10, 5, 3], axis=0)
    features = centres + np.random.default_rng(0).normal(size=(18, 2))
    merit = np.array([*range(100, 110), *range(50, 55), *range(3)], dtype=float)
    pool = Pool(tuple(pair(f"q{i:02}", [4]) for i in range(18)), features, merit)
    alike = Pool(pool.pairs, np.ones((18, 4)), merit)  # one cluster, whatever is asked for
    assert names(alike, select_weights("car", alike, 2 / 18)) == {"q09", "q08"}
    # sqrt(18 / 2) = 3 clusters, whose best are 9, 14 and 17; 8 and 7 are the next best of all.
    assert names(pool, select_weights("car", pool, 5 / 18)) == {"q09", "q14", "q17", "q08", "q07"}
    assert names(pool, select_weights("car", pool, 2 / 18)) == {"q09", "q14"}


def test_loss_prefers_the_small_and_says_when_no_temperature_can() -> None:
    pairs = tuple(pair(f"q{i}", [4]) for i in range(4))
    pool = Pool(pairs, losses=np.array([0.1, 0.2, 0.4, 0.8]))
    weights = select_weights("loss", pool, 0.6)
    assert effective_size(weights) == pytest.approx(2.4, rel=1e-9)
    assert (np.diff(weights) < 0).all() and (weights > 0).all()
    logs = np.log(weights)
    assert (logs[0] - logs[2]) / (logs[0] - logs[1]) == pytest.approx(3)  # exp(-loss / t)
    np.testing.assert_allclose(select_weights("loss", pool, 1.0), 1)
    np.testing.assert_allclose(select_weights("loss", pool, 0.25), [4, 0, 0, 0])
    alike = Pool(pairs, losses=np.array([0.1, 0.1 + 1e-8, 0.1, 0.8]))
    with pytest.raises(DreamPRMError, match="3 of 4 .* budget must be at least 0.75"):
        select_weights("loss", alike, 0.5)


def test_s1_draws_domains_evenly_and_favours_long_reasonings() -> None:
    big = [pair(f"big{i:02}", [1] * (1 + i), domain="big") for i in range(80)]
    small = [pair(f"small{i:02}", [1] * (1 + i), domain="small") for i in range(20)]
    pool = Pool((*big, *small))
    drawn: Counter[str] = Counter()
    for seed in range(40):
        drawn.update(names(pool, select_weights("s1", pool, 0.1, seed)))
    from_small = sum(count for name, count in drawn.items() if name.startswith("small"))
    assert from_small / drawn.total() == pytest.approx(0.5, abs=0.08)  # 0.2 of the pool
    assert drawn["big79"] > 30 and drawn["small19"] > 30  # the longest
    assert sum(drawn[f"big{i:02}"] for i in range(60)) < 10


@pytest.mark.parametrize(
    "broken",
    [
        {"text": "What does the figure show?"},  # there is none
        {"steps": ["red is 3", "red  is 3", "so it is 3 and no other number"]},  # says it twice
        {"steps": ["red is 3, as anyone can see in it", "..."]},  # a step without a word
    ],
)
def test_s1_takes_easy_questions_and_broken_texts_last(broken: dict[str, Any]) -> None:
    fit = [pair(f"fit{i}", [1, 1]) for i in range(2)]
    easy = pair("easy", [4] * 9, outcome=True)
    pool = Pool((easy, pair("broken", [1] * 9, **broken), *fit))
    for seed in range(5):
        assert names(pool, select_weights("s1", pool, 0.5, seed)) == {"fit0", "fit1"}
        assert names(pool, select_weights("s1", pool, 0.75, seed)) == {"fit0", "fit1", "easy"}


@pytest.mark.parametrize(
    ("name", "budget", "seed", "said"),
    [
        ("biss", 0.5, 0, "unknown selector 'biss'; did you mean bis"),
        ("zzz", 0.5, 0, "there are: random, s1, car, bis, loss"),
        ("bis", 0.0, 0, "budget is 0.0; it must be above 0"),
        ("bis", 1.5, 0, "at most 1"),
        ("bis", float("nan"), 0, "budget is nan"),
        ("bis", 0.5, -1, "seed is -1"),
        ("car", 0.5, 0, "'car' needs features and quality"),
        ("loss", 0.5, 0, "'loss' needs the losses"),
    ],
)
def test_what_cannot_be_done_is_said(name: str, budget: float, seed: int, said: str) -> None:
    with pytest.raises(DreamPRMError, match=said):
        select_weights(name, Pool((pair("q", [1]), pair("r", [2]))), budget, seed)


def test_a_bad_pool_is_refused() -> None:
    one, bare = pair("q", [1]), pair("r", [1])
    bare = bare[0], bare[1].model_copy(update={"labels": None})
    for pairs, said in (((), "no trajectory"), ((one, one), "comes twice"), ((bare,), "no step")):
        with pytest.raises(DataError, match=said):
            select_weights("random", Pool(pairs), 0.5)
    for losses, said in (([1.0, 2.0], "shape"), ([np.nan], "not finite")):
        with pytest.raises(DreamPRMError, match=said):
            select_weights("loss", Pool((one,), losses=np.array(losses)), 0.5)


def test_bis_keeps_the_mixed_and_reliable_of_every_domain() -> None:
    good = [pair(f"good{i}", [4, 0], domain="good") for i in range(6)]
    poor = [pair(f"poor{i}", [1 + (i == 2)] * 2, domain="poor") for i in range(3)]
    pool = Pool((*good, *poor))
    kept = names(pool, select_weights("bis", pool, 1 / 3))
    assert "poor2" in kept and sum(name.startswith("good") for name in kept) == 2

    pool = many({"a": 7, "b": 3, "c": 2})  # 40%: 2.8, 1.2 and 0.8 of 5, by largest remainders
    weights = select_weights("bis", pool, 0.4)
    shares = Counter(q.domain for (q, _), w in zip(pool.pairs, weights, strict=True) if w > 0)
    assert shares == {"a": 3, "b": 1, "c": 1}


def test_a_solve_rate_pools_first_labels_and_outcomes_of_a_question() -> None:
    pool = Pool((pair("q", [4, 0], outcome=True), pair("q", [1, 0], index=1, outcome=False)))
    assert solve_rates(pool) == {"q": 6 / 10}


torch.set_num_threads(1)


def model_pairs() -> list[tuple[Question, Trajectory]]:
    found = []
    for i, count in enumerate((2, 5, 1)):
        question = picture_question(f"q{i}", i, images=int(i != 2))
        labels = tuple(Label.of(s % 3, 4) if s != 1 else None for s in range(count))
        t = Trajectory(question_id=question.id, steps=tuple(STEPS[:count]), labels=labels)
        found.append((question, t))
    return found


@pytest.mark.parametrize("layout", ["trajectory", "prefix"])
def test_embeddings_and_likelihoods_are_of_the_tokens_of_the_steps_alone(layout: str) -> None:
    model = random_prm(PRMConfig(layout=LayoutConfig(name=layout)))
    pairs = model_pairs()
    together, likely = embeddings_and_quality(model, pairs, 3)
    encode = random_prm().encoder()
    for i, (question, t) in enumerate(pairs):
        batch = encode([(question, t.steps)])
        ids = batch.inputs["input_ids"][0]
        length = sum(len(encode.tokenizer(s).input_ids) + 1 for s in t.steps)
        places = [p for p in range(len(ids) - length, len(ids)) if ids[p] != encode.tag_id]
        with torch.inference_mode():
            out = model.backbone(**batch.inputs, output_hidden_states=True)
        mean = out.hidden_states[-1][0, places].mean(dim=0)
        np.testing.assert_allclose(together[i], mean.numpy(), atol=1e-4)
        logs = out.logits[0].log_softmax(dim=-1)
        expected = np.mean([float(logs[p - 1, ids[p]]) for p in places])
        assert likely[i] == pytest.approx(expected, abs=1e-4)


def test_reference_losses_are_those_of_the_scores_against_the_labels() -> None:
    model, pairs = random_prm(), model_pairs()
    losses = reference_losses(model, pairs, 2)
    scores = {s.question_id: np.array(s.logits) for s in StepScorer(model).score(pairs)}
    for loss, (question, t) in zip(losses, pairs, strict=True):
        p = 1 / (1 + np.exp(-scores[question.id]))
        errors = [(p[i] - x.value) ** 2 for i, x in enumerate(t.labels or ()) if x is not None]
        assert loss == pytest.approx(np.mean(errors), abs=1e-5)


def test_weights_are_written_and_read_back(tmp_path: Path) -> None:
    pairs = [pair("q", [1]), pair("q", [2], index=1), pair("ü", [2])]
    write_weights(tmp_path / "w.jsonl", pairs, np.array([0.0, 1 / 3, 2.5]))
    assert read_weights(tmp_path / "w.jsonl") == {("q", 0): 0.0, ("q", 1): 1 / 3, ("ü", 0): 2.5}
    with pytest.raises(DataError, match="row 2, field 'weight'"):
        write_weights(tmp_path / "w.jsonl", pairs, np.array([1.0, np.nan, 1.0]))
    assert len(read_weights(tmp_path / "w.jsonl")) == 3
    write_weights(tmp_path / "w.jsonl", pairs, np.zeros(3))
    with pytest.raises(DataError, match="no weight above 0"):
        read_weights(tmp_path / "w.jsonl")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weight": -1.0}, "row 2, field 'weight'"),
        ({"weight": float("inf")}, "row 2, field 'weight'"),
        ({"weight": True}, "row 2, field 'weight'"),
        ({"sample_index": 0.5}, "row 2, field 'sample_index'"),
        ({"sample_index": 0}, "row 2, field 'sample_index': .* already in row 1"),
        ({"wieght": 1.0}, "row 2, field 'wieght'"),
    ],
)
def test_a_bad_weight_is_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    row = {"question_id": "q", "sample_index": 0, "domain": "d", "weight": 1.0}
    lines = [json.dumps(row), json.dumps(row | {"sample_index": 1} | changes)]
    (tmp_path / "w.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=f"w.jsonl, {said}"):
        read_weights(tmp_path / "w.jsonl")


def weigh_words(project: Path, *more: str) -> list[str]:
    return [
        *("weigh", "--questions", str(project / "train.jsonl")),
        *("--trajectories", str(project / "train_candidates.jsonl")),
        *("--output", str(project / "w.jsonl"), *more),
    ]


def test_weigh_runs_every_selector_and_says_what_is_left(
    tmp_path: Path, png: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", png)
    backbone = save_tiny_model(tmp_path / "backbone")
    random_prm().save_pretrained(tmp_path / "prm")
    selectors = get_args(get_type_hints(weigh.Config)["selector"])
    assert set(selectors) == set(SELECTORS)
    for name in selectors:
        folder = {"car": backbone, "loss": str(tmp_path / "prm")}.get(name)
        more = ["--model_name_or_path", folder] if folder else []
        # Half of the project's trajectories are alike, and so are their losses.
        more += ["--budget", "0.75" if name == "loss" else "0.25"]
        assert main(weigh_words(project, "--selector", name, *more)) == 0
        found = read_weights(project / "w.jsonl")
        assert len(found) == 16
        assert sum(found.values()) == pytest.approx(16)
        said = capsys.readouterr().out
        assert "weights of 16 trajectories" in said and "bars (" in said
        if name in SUBSETS:
            assert sum(weight > 0 for weight in found.values()) == 4
    assert {row["domain"] for row in read_rows(project / "w.jsonl")} == {"bars", "dials"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--selector", "car"], "needs model_name_or_path"),
        (["--selector", "loss", "--model_name_or_path", "{folder}"], "not a PRM saved"),
        (["--budget", "0"], "budget is 0.0"),
        (["--trajectories", "{folder}/meta_candidates.jsonl"], "meta_candidates.jsonl"),
        (["--output", "{folder}/train.jsonl"], "would be overwritten"),
        (["--output", "{folder}/w.json"], "must be a .jsonl file"),
    ],
)
def test_weigh_refuses_in_one_line(
    tmp_path: Path, png: bytes, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path / "project", png)
    words = weigh_words(project, *(word.format(folder=project) for word in more))
    assert main(words) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error
    assert not (project / "w.jsonl").exists()
