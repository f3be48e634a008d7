"""A run: data order, schedules, settings, and what training does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dreamprm
from dreamprm.bilevel.parallel import Parallel
from dreamprm.data.format import Records
from dreamprm.errors import DataError, DataWarning, DreamPRMError
from dreamprm.prm.lora import Lora
from dreamprm.records import Label, Question, Trajectory
from dreamprm.training.batches import blocks_of, contrasting, domains_at, part_at
from dreamprm.training.checkpoint import checkpoints
from dreamprm.training.config import TrainConfig, preset
from dreamprm.training.data import TrainData, prepare_data
from dreamprm.training.learned import make_weights, read_weights
from dreamprm.training.problem import PRMProblem
from dreamprm.training.run import fit, lr_factor, make_loop
from tests.prm_data import small_data
from tests.tiny_models import random_prm

SMALL = TrainConfig(
    max_steps=6,
    gradient_accumulation_steps=3,
    per_device_train_batch_size=2,
    unroll_steps=2,
    meta_batch_questions=3,
    meta_batch_candidates=2,
    learning_rate=1e-3,
)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_every_round_visits_every_domain_once(count: int, per_step: int, seed: int) -> None:
    steps = count  # count steps of per_step domains are per_step rounds
    visits = [v for step in range(steps) for v in domains_at(step, count, per_step, seed)]
    assert sorted(visits) == sorted((k, r) for k in range(count) for r in range(per_step))


@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_blocks_are_of_one_size_and_hold_every_item(size: int, count: int, by_length: bool) -> None:
    lengths, questions = [i % 3 for i in range(size)], [str(i % 4) for i in range(size)]
    blocks = blocks_of(questions, lengths, count, "key", by_length)
    items = [i for block in blocks for i in block]
    assert set(items) == set(range(size))
    assert {len(block) for block in blocks} == {count}
    assert len(items) - size < max(count, 1)


@given(st.integers(1, 9), st.integers(1, 30))
def test_every_epoch_takes_every_part_once(parts: int, epoch: int) -> None:
    visits = range(epoch * parts, (epoch + 1) * parts)
    assert sorted(part_at(visit, parts, "key") for visit in visits) == list(range(parts))


@given(st.lists(st.booleans(), min_size=2, max_size=9), st.integers(2, 9))
def test_contrasting_candidates_hold_both_outcomes(outcomes: list[bool], count: int) -> None:
    chosen = contrasting(outcomes, count, "key")
    assert len(chosen) == len(set(chosen)) == min(count, len(outcomes))
    assert {outcomes[i] for i in chosen} == set(outcomes)
    alone = {outcomes[contrasting(outcomes, 1, f"key {i}")[0]] for i in range(90)}
    assert alone == set(outcomes), "one candidate of a question is any candidate"


def test_the_public_train_takes_loaded_data_and_writes_the_model(tmp_path: Path) -> None:
    data = small_data()
    loaded = []
    for pairs in (data.items, [pair for group in data.meta for pair in group]):
        questions = {q.id: q for q, _ in pairs}
        loaded.append(Records(list(questions.values()), [t for _, t in pairs], []))
    result = dreamprm.train(random_prm(), *loaded, SMALL, output_dir=str(tmp_path / "prm"))
    assert read_weights(tmp_path / "prm") == result.weights
    assert result.weights == fit(random_prm(), data, SMALL).weights
    with pytest.raises(DataError, match="learning weights needs a meta set"):
        dreamprm.train(random_prm(), loaded[0], config=SMALL)


def test_the_paper_preset_has_the_published_settings() -> None:
    paper = preset("paper")
    assert (paper.learning_rate, paper.meta_learning_rate) == (5e-7, 0.01)
    assert (paper.unroll_steps, paper.max_steps, paper.meta_weight_decay) == (5, 10_000, 1e-3)
    assert (paper.meta_loss, paper.estimator) == ("mse", "finite_difference")
    assert [lr_factor(paper, step) for step in (0, 4999, 5000)] == [1.0, 1.0, 0.5]


def test_training_lowers_the_loss_and_moves_the_weights() -> None:
    config = replace(SMALL, max_steps=24, meta_loss="mse", meta_optimizer="adamw")
    result = fit(random_prm(), small_data(("clean", "inverted", "clean too")), config)
    losses = [row["lower_loss"] for row in result.history]
    assert len(losses) == 12
    assert sum(losses[-4:]) < sum(losses[:4])
    assert max(abs(w - 1.0) for w in result.weights.values()) > 0.05
    assert sum(result.weights.values()) == pytest.approx(3.0, rel=1e-5)


@pytest.mark.parametrize("meta_loss", ["affine_bce", "pairwise", "margin"])
def test_the_method_turns_away_from_a_domain_with_inverted_labels(meta_loss: str) -> None:
    config = replace(
        SMALL,
        max_steps=40,
        gradient_accumulation_steps=2,
        per_device_train_batch_size=4,
        meta_batch_questions=6,
        meta_loss=meta_loss,
    )
    weights = fit(random_prm(), _one_rule_data(), config).weights
    assert weights["inverted"] < 0.6
    assert weights["clean"] > 1.2


def test_fixed_weights_stay_and_a_domain_of_weight_zero_has_no_say() -> None:
    config = replace(SMALL, learn_weights=False)
    zero = {"clean": 2.0, "inverted": 0.0, "noise": 1.0}
    first, second = random_prm(), random_prm()
    result = fit(first, small_data(), config, weights=zero)
    assert result.weights == pytest.approx({"clean": 2.0, "inverted": 0.0, "noise": 1.0})
    data = small_data()
    spoiled = [
        (q, t.model_copy(update={"labels": tuple(Label.of(1, 1) for _ in t.steps)}))
        for q, t in data.lower["inverted"]
    ]
    fit(second, replace(data, lower=data.lower | {"inverted": spoiled}), config, weights=zero)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_killed_run_resumes_to_bit_identical_parameters_and_weights(tmp_path: Path) -> None:
    config = replace(SMALL, max_steps=8, save_steps=2, lr_scheduler_type="cosine", warmup_steps=3)
    whole, resumed = random_prm(), random_prm()
    expected = fit(whole, small_data(), config)

    class KilledError(Exception):
        pass

    done: list[int] = []

    def kill_at_five(steps: int) -> None:
        done.append(steps)
        if sum(done) >= 5:
            raise KilledError

    with pytest.raises(KilledError):
        fit(resumed, small_data(), config, output_dir=tmp_path, progress=kill_at_five)
    names = [p.name for p in checkpoints(tmp_path / "checkpoints")]
    assert names == ["checkpoint-2", "checkpoint-4"]
    fresh = random_prm(seed=9)
    result = fit(fresh, small_data(), config, output_dir=tmp_path)
    assert result.weights == expected.weights
    assert result.history == expected.history
    for a, b in zip(fresh.parameters(), whole.parameters(), strict=True):
        assert torch.equal(a, b)
    assert read_weights(tmp_path) == result.weights


def test_starting_anew_leaves_no_checkpoint_of_the_old_run(tmp_path: Path) -> None:
    old = replace(SMALL, max_steps=6, save_steps=2)
    fit(random_prm(), small_data(), old, output_dir=tmp_path)
    new = replace(old, max_steps=2, seed=7)
    fit(random_prm(), small_data(), new, output_dir=tmp_path, resume=False)
    assert [p.name for p in checkpoints(tmp_path / "checkpoints")] == ["checkpoint-2"]
    found = fit(random_prm(seed=5), small_data(), new, output_dir=tmp_path)
    assert found.history[-1]["step"] == 2


def test_a_checkpoint_of_other_data_or_weights_is_refused(tmp_path: Path) -> None:
    config = replace(SMALL, save_steps=2, learn_weights=False)
    fixed = {"clean": 1.0, "inverted": 1.0, "noise": 1.0}
    fit(random_prm(), small_data(), config, output_dir=tmp_path, weights=fixed)
    with pytest.raises(DreamPRMError, match="a run with another data"):
        fit(random_prm(), small_data(seed=1), config, output_dir=tmp_path, weights=fixed)
    other = fixed | {"clean": 2.0}
    with pytest.raises(DreamPRMError, match="another set of fixed weights"):
        fit(random_prm(), small_data(), config, output_dir=tmp_path, weights=other)


def test_a_damaged_state_of_a_checkpoint_is_one_line_that_names_its_field(tmp_path: Path) -> None:
    config = replace(SMALL, save_steps=2)
    fit(random_prm(), small_data(), config, output_dir=tmp_path)
    path = checkpoints(tmp_path / "checkpoints")[-1] / "state.json"
    state = json.loads(path.read_text())
    for field, value in {"step": 10**400, "history": [{"step": 1}], "slope": float("nan")}.items():
        path.write_text(json.dumps(state | {field: value}))
        with pytest.raises(DreamPRMError, match=f"state.json, field '{field}.*remove this folder"):
            fit(random_prm(), small_data(), config, output_dir=tmp_path)


def test_a_loss_that_is_not_finite_stops_with_step_and_domain(tmp_path: Path) -> None:
    model = random_prm()
    with torch.no_grad():
        model.head.weight.fill_(float("nan"))
    with pytest.raises(DreamPRMError, match=r"loss is nan at step 1 on (clean|inverted|noise)"):
        fit(model, small_data(), SMALL, output_dir=tmp_path)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({"claen": 1.0, "inverted": 1.0, "noise": 1.0}, r"'claen'.*nearest first: clean"),
        ({"clean": 1.0, "inverted": 1.0}, "no weight for domain 'noise'"),
        ({"clean": 0.0, "inverted": 0.0, "noise": 0.0}, "at least one domain must count"),
        ({"clean": -1.0, "inverted": 1.0, "noise": 1.0}, "weight -1.0; need 0 or more"),
    ],
)
def test_weights_of_other_domains_are_refused(weights: dict[str, float], said: str) -> None:
    with pytest.raises(DreamPRMError, match=said):
        fit(random_prm(), small_data(), replace(SMALL, learn_weights=False), weights=weights)


def test_a_question_in_both_sets_is_refused() -> None:
    question = Question(id="a", domain="d", text="t", answer="1")
    t = Trajectory(question_id="a", steps=("s",), labels=(Label.of(1, 1),))
    both = [Trajectory(question_id="a", steps=("s",), outcome=o) for o in (True, False)]
    with pytest.raises(DataError, match="must be disjoint"):
        prepare_data(Records([question], [t, t]), Records([question], both))


def _one_rule_data() -> TrainData:
    """Domains that agree or disagree with one rule: a step that says 'good' is right."""

    def one(question_id: str, domain: str, word: str, **facts: Any) -> tuple[Question, Trajectory]:
        question = Question(id=question_id, domain=domain, text="x", answer="1")
        return question, Trajectory(question_id=question_id, steps=(word,), **facts)

    lower = {
        domain: [
            one(f"{domain}-{i}", domain, word, labels=(Label.of(int(word == right), 1),))
            for i, word in enumerate(["good", "bad"] * 8)
        ]
        for domain, right in (("clean", "good"), ("inverted", "bad"))
    }
    meta = [
        [
            one(f"m{i}", "meta", word, outcome=word == "good", sample_index=index)
            for index, word in enumerate(("good", "bad"))
        ]
        for i in range(8)
    ]
    return TrainData(tuple(lower), lower, meta)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label_correction": True, "lower_loss": "hard"}, "has none by the label"),
        ({"momentum": "window", "meta_gradient_at": "start"}, "set meta_gradient_at end"),
        ({"unroll_steps": 1, "gradient_accumulation_steps": 1}, "sees one domain"),
        ({"weighting": "none"}, "nothing to learn"),
        ({"weighting": "instance_table", "estimator": "inner_product"}, "use ghost or jvp"),
        ({"label_correction": True, "estimator": "ghost"}, "use jvp"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; it must be above 0"),
        ({"instance_weight_max": 1.0}, "instance weights start at 1"),
    ],
)
def test_settings_that_contradict_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(DreamPRMError, match=said):
        replace(SMALL, **changes)  # type: ignore[arg-type]


def test_a_run_that_ends_before_it_learns_weights_says_so() -> None:
    with pytest.warns(DataWarning, match="no weights are learned: the run ends before"):
        fit(random_prm(), small_data(), replace(SMALL, max_steps=2))


def test_every_process_has_as_many_chunks_of_a_meta_batch() -> None:
    """With shards the processes must compute side by side."""
    config = replace(SMALL, meta_batch_questions=3, per_device_meta_batch_size=2)
    counts = []
    for rank in range(2):
        problem = PRMProblem(random_prm(), small_data(), config, Parallel(rank, 2))
        batch = problem.meta_batch(0)
        assert max(len(chunk.mask) for chunk in batch.chunks) <= 2
        counts.append((len(batch.chunks), len(batch.outcomes)))
    assert counts == [(2, 4), (2, 2)]


def test_labels_of_one_question_from_two_sources_are_two_domains() -> None:
    question = Question(id="q", domain="charts", text="What is 2 + 2?", answer="4")
    first = Trajectory(question_id="q", steps=("It is 4.",), labels=(Label(1.0),))
    judged = first.model_copy(update={"domain": "judge", "labels": (Label(0.333333),)})
    data = prepare_data(Records([question], [first, judged]), learn_weights=False)
    by_domain = {name: [t for _, t in pairs] for name, pairs in data.lower.items()}
    assert by_domain == {"charts": [first], "judge": [judged]}
    assert data.label_table()[0].flatten().tolist() == pytest.approx([1.0, 0.333333])


def test_the_learning_rate_warms_up_from_the_first_step_on() -> None:
    config = replace(SMALL, warmup_steps=4)
    assert [lr_factor(config, step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_batches_of_a_run_go_on_from_step_to_step() -> None:
    problem = PRMProblem(random_prm(), small_data(), replace(SMALL, gradient_accumulation_steps=1))
    count = len(problem.data.domains)
    batches = [problem.lower_batches(step)[0] for step in range(2 * count)]
    assert {batch.domain for batch in batches[:count]} == set(range(count))
    items = [batch.items.tolist() for batch in batches if batch.domain == 0]
    assert items[0] != items[1]


def test_the_meta_loss_scores_as_at_inference_and_the_lower_loss_with_dropout() -> None:
    model = random_prm()
    model.add_lora(Lora(r=2, dropout=0.5))
    for p in model.parameters():
        if p.requires_grad:
            torch.nn.init.normal_(p, std=0.1)
    problem = PRMProblem(model.train(), small_data(), replace(SMALL, meta_loss="mse"))
    meta, lower = problem.meta_batch(0), problem.lower_batches(0)[0]
    loss = float(problem.meta_loss(meta).detach())
    assert float(problem.meta_loss(meta).detach()) == loss
    assert problem.meta_backward(meta, 1.0) == pytest.approx(loss)
    assert not torch.equal(problem.lower_losses(lower)[0], problem.lower_losses(lower)[0])


def test_shards_refuse_mixed_questions_and_per_trajectory_estimators() -> None:
    data, shards = small_data(), Parallel(0, 2, sharded=True)
    question, t = data.lower["clean"][0]
    bare = question.model_copy(update={"images": ()})
    mixed = replace(data, lower=data.lower | {"clean": [(bare, t), *data.lower["clean"][1:]]})
    with pytest.raises(DataError, match="question 'clean-0' has no image and others have"):
        PRMProblem(random_prm(), mixed, SMALL, shards)
    config = replace(SMALL, weighting="instance_table")
    problem = PRMProblem(random_prm(), data, config, shards)
    with pytest.raises(DreamPRMError, match=r"cannot run on FSDP shards; use replicas \(DDP\)"):
        make_loop(problem, *make_weights(config, data))
    plain = replace(SMALL, learn_weights=False)
    make_loop(PRMProblem(random_prm(), data, plain, shards), *make_weights(plain, data))


def test_similar_lengths_share_a_batch() -> None:
    lengths = [1, 9, 1, 9, 1, 9, 1, 9]
    blocks = blocks_of([str(i) for i in range(8)], lengths, 2, "key", by_length=True)
    assert all(len({lengths[i] for i in block}) == 1 for block in blocks)


def test_trajectories_of_a_question_share_a_block_but_do_not_fill_it() -> None:
    pairs = blocks_of([str(i // 2) for i in range(32)], [1] * 32, 8, "key", by_length=False)
    assert all(len({i // 2 for i in block}) == 4 for block in pairs)
    many = blocks_of([str(i // 16) for i in range(64)], [1] * 64, 8, "key", by_length=False)
    assert max(len({i // 16 for i in block}) for block in many) > 1
