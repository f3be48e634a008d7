"""What chance alone gives: the size of a meta set before training, permuted outcomes after it."""

import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from dreamprm.errors import DataWarning
from dreamprm.training import null_check as module
from dreamprm.training.config import TrainConfig
from dreamprm.training.learned import TrainResult
from dreamprm.training.null_check import BAND, null_check, permuted
from dreamprm.training.power import (
    needed_questions,
    smallest_share,
    warn_if_too_small,
    what_can_be_found,
)
from tests.prm_data import small_data
from tests.tiny_models import random_prm

DATA = small_data(("clean", "inverted"))
SHORT = TrainConfig(
    max_steps=4,
    unroll_steps=2,
    save_steps=2,
    gradient_accumulation_steps=2,
    per_device_train_batch_size=2,
    meta_batch_questions=2,
)
REAL = TrainResult({"clean": 1.9, "inverted": 0.1}, None, None, [])


def test_more_questions_and_more_windows_find_smaller_shares_of_wrong_labels() -> None:
    by_size = [smallest_share(questions, 99, 16) for questions in (2, 18, 80, 194, 1000)]
    assert by_size == sorted(by_size, reverse=True)
    assert by_size[0] == float("inf"), "too few parts to say how they differ"
    assert by_size[1] < 0.5, "few questions find a domain whose labels are wrong throughout"
    assert smallest_share(194, 999, 16) < by_size[3]
    assert smallest_share(194, 99_999, 16) > 0.06, "questions are not replaced by windows"
    needed = needed_questions(0.2, 99, 16)
    assert needed is not None
    assert smallest_share(needed, 99, 16) <= 0.2 < smallest_share(needed - 10, 99, 16)
    assert needed_questions(0.5, 2, 16) is None


def test_a_small_meta_set_is_said_to_be_too_small_before_training() -> None:
    share, text = what_can_be_found(TrainConfig(), replace(DATA, meta=DATA.meta[:2]))
    assert share > 1
    assert "6 meta candidates, 2 questions with both outcomes, 99 windows: no domain" in text
    with pytest.warns(DataWarning, match="even with all labels wrong"):
        warn_if_too_small(TrainConfig(), replace(DATA, meta=DATA.meta[:2]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_too_small(TrainConfig(), replace(DATA, meta=DATA.meta * 10))
        warn_if_too_small(TrainConfig(weighting="instance_table"), DATA)
    _, text = what_can_be_found(TrainConfig(), replace(DATA, meta=DATA.meta * 10))
    assert "% of labels are wrong" in text


def test_permuted_outcomes_keep_every_question_s_number_of_right_ones() -> None:
    shuffled = permuted(DATA.meta, 1)
    outcomes = [[t.outcome for _, t in group] for group in (*DATA.meta, *shuffled)]
    before, after = outcomes[: len(DATA.meta)], outcomes[len(DATA.meta) :]
    assert before != after and list(map(sorted, before)) == list(map(sorted, after))
    assert after != [[t.outcome for _, t in group] for group in permuted(DATA.meta, 2)]


def test_null_runs_are_kept_apart_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        band = null_check(random_prm, DATA, SHORT, REAL, tmp_path)
    assert {p.name for p in tmp_path.rglob("*") if p.is_file()} == {
        *(BAND, "run.json", "history.jsonl")
    }, "no model and no checkpoint is left of a null run, nothing of the real one is touched"
    assert band.real == REAL.weights and len(band.null) == 1
    assert band.lines()[1] == "real weights outside of that: clean 1.90, inverted 0.10"
    monkeypatch.setattr(module, "fit", None)
    assert null_check(random_prm, DATA, SHORT, REAL, tmp_path) == band
    with pytest.raises(TypeError):  # other settings are another run
        null_check(random_prm, DATA, replace(SHORT, seed=1), REAL, tmp_path)
