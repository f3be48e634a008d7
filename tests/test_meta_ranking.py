"""Does the model rank the meta set, and is it told apart from chance?"""

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from dreamprm.errors import DataWarning
from dreamprm.report.build import meta_facts
from dreamprm.training.config import TrainConfig
from dreamprm.training.meta_ranking import FILE, ranking_of, read_ranking, sample_of
from dreamprm.training.run import fit
from tests.prm_data import small_data
from tests.tiny_models import random_prm

DATA = small_data()
SHORT = TrainConfig(
    max_steps=4,
    unroll_steps=2,
    save_steps=2,
    gradient_accumulation_steps=3,
    per_device_train_batch_size=2,
    meta_batch_questions=2,
)


def test_pairs_are_of_one_question_and_a_tie_counts_half() -> None:
    found = ranking_of([3.0, 2.0, 2.0, 9.0, 8.0, 1.0], [1, 0, 1, 0, 0, 1], [0, 0, 0, 1, 1, 2])
    assert found.pairs is not None
    assert (found.pairs.n, found.pairs.mean) == (1, 0.75), "question 1 and 2 have one outcome"
    assert (found.best.mean, found.random) == (pytest.approx(2 / 3), pytest.approx(5 / 9))
    right, wrong = [3.0, 2.0, 1.0], [2.0, 9.0, 8.0]
    expected = mannwhitneyu(right, wrong).statistic / 9
    assert found.auc.mean == pytest.approx(expected)


def test_intervals_cover_chance_where_scores_are_chance_and_candidates_are_alike() -> None:
    rng = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(150):
        question = np.repeat(np.arange(25), 4)
        outcomes = rng.random(100) < np.repeat(rng.random(25), 4)  # of one question they are alike,
        scores = rng.normal(size=100) + 2 * rng.normal(size=25)[question]  # and so are scores
        found = ranking_of(scores, outcomes, question)
        assert found.pairs is not None
        covered += found.pairs.is_chance, found.auc.is_chance
    assert (covered / 150 > 0.9).all() and (covered / 150 < 0.99).all(), covered / 150


def test_a_sample_takes_what_a_run_can_afford_and_questions_with_both_outcomes_first() -> None:
    one_kind = [[(q, t.model_copy(update={"outcome": True})) for q, t in g] for g in DATA.meta]
    meta = one_kind * 20 + DATA.meta
    config = TrainConfig(max_steps=100)
    sample = sample_of(meta, config)
    assert len(sample) == pytest.approx(0.04 * 100 * 40, abs=3), "candidates, of 4,000 trajectories"
    assert {q for q, _ in sample} >= set(range(len(one_kind) * 20, len(meta))), (
        "those with both outcomes"
    )
    assert len(sample_of(DATA.meta, config)) == 3 * len(DATA.meta), "all, where there are few"


def test_a_run_notes_the_ranking_before_and_after_and_a_resumed_one_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(DataWarning, match="not told apart from chance"):
        whole = fit(random_prm(), DATA, SHORT, output_dir=tmp_path / "whole")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shutil.copytree(tmp_path / "whole", tmp_path / "half")
        shutil.rmtree(tmp_path / "half" / "checkpoints" / "checkpoint-4")
        resumed = fit(random_prm(), DATA, SHORT, output_dir=tmp_path / "half")
        plain = fit(random_prm(), DATA, replace(SHORT, learn_weights=False))
        monkeypatch.setattr("dreamprm.training.run.ranking_before", lambda *_: None)
        unmeasured = fit(random_prm(), DATA, SHORT)
    assert whole.meta_ranking is not None and whole.meta_ranking.before is not None
    assert whole.meta_ranking.before != whole.meta_ranking.after
    assert resumed.meta_ranking == whole.meta_ranking == read_ranking(tmp_path / "whole" / FILE)
    assert plain.meta_ranking is None
    assert unmeasured.history == whole.history, "measuring changes nothing of training"
    facts = meta_facts(tmp_path / "whole")
    assert "66 candidates of 22 meta questions, 22 with both" in next(iter(facts.values()))
    assert meta_facts(tmp_path) == {}
