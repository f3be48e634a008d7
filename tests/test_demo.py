"""The demo at its smallest: every stage runs, the summary has its form, a rerun does nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.tiny.world import BENCHMARKS, DOMAINS

METHODS = {
    "first_sample",
    "self_consistency",
    "orm",
    "prm_uniform",
    "prm_oracle",
    "dreamprm",
    "any_right",
}
SMALL = [
    "--questions_per_domain=2",
    "--meta_questions=12",
    "--questions_per_benchmark=2",
    "--completions=2",
    "--bilevel.max_steps=6",
    "--bilevel.save_steps=3",
    "--bilevel.per_device_train_batch_size=2",
    "--bilevel.meta_batch_questions=4",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo")
    assert main(["demo", "--output-dir", str(out), *SMALL]) == 0
    return out


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def test_the_summary_has_the_promised_form(folder: Path) -> None:
    found = summary(folder)
    assert {"version", "seed", "wall_s", "accuracy", "domains", "scaling", "report"} <= set(found)
    assert set(found["accuracy"]) == {b.name for b in BENCHMARKS}
    for by_method in found["accuracy"].values():
        assert set(by_method) == METHODS
        for figure in by_method.values():
            assert set(figure) == {"n", "mean", "ci95"}
            assert 0 <= figure["ci95"][0] <= figure["mean"] <= figure["ci95"][1] <= 1
    assert set(found["scaling"]) == METHODS
    assert list(found["scaling"]["dreamprm"]) == ["1", "2", "4", "8", "16"]
    assert (folder / found["report"]).stat().st_size > 100_000


def test_every_domain_is_listed_with_what_was_planted_and_what_was_learned(folder: Path) -> None:
    domains = summary(folder)["domains"]
    assert [d["name"] for d in domains] == [d.name for d in DOMAINS]
    assert {d["name"]: d["planted"] for d in domains} == {d.name: d.planted for d in DOMAINS}
    weights = [d["weight"] for d in domains]
    assert sum(weights) == pytest.approx(15, rel=1e-4)


def test_labels_come_from_rollouts_and_keep_their_counts(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "train.labelled.jsonl").read_text().splitlines()]
    assert len(rows) == 15 * 2 * 2
    totals = {label[1] for row in rows for label in row["labels"]}
    assert totals == {1, 2}, "one completion in the few_rollouts domains, two elsewhere"
    assert {label[0] for row in rows for label in row["labels"]} == {0, 1, 2}


def test_a_second_run_makes_nothing_again(folder: Path) -> None:
    watched = [*folder.glob("*.jsonl"), *folder.glob("scores/*.jsonl"), *folder.glob("models/*/*")]
    watched = [p for p in watched if p.is_file() and p.name not in ("train.jsonl",)]
    made_anew = {"train.jsonl", "meta.jsonl", "test.jsonl"}  # the questions: a second's work
    before = {p: p.read_bytes() for p in watched if p.name not in made_anew}
    assert main(["demo", "--output-dir", str(folder), *SMALL]) == 0
    assert {p: p.read_bytes() for p in before} == before
