"""Verdicts on published files: they agree with the stored ones, and published figures come out.

`python -m experiments.verdicts` says which others differ and why, row by row; its page must come
out as it is kept. Of the many stored responses every fifth is read here, that command reads all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamprm.answers import Verdict, extract_answer, verdict
from experiments import verdicts
from experiments.verdicts import Compared


def agreement(rows: list[Compared]) -> float:
    """Percent of verdicts that agree."""
    return 100 * sum(row.agrees for row in rows) / len(rows)


def differing(rows: list[Compared]) -> list[str]:
    return [row.row for row in rows if not row.agrees]


def test_every_stored_verdict_of_gsm8k_is_ours(real_data: Path) -> None:
    rows = verdicts.gsm8k(real_data)
    assert len(rows) == 4 * 1319
    assert differing(rows) == []


def test_the_only_other_verdict_on_extracted_math_is_one_the_file_has_wrong(
    real_data: Path,
) -> None:
    rows = verdicts.math(real_data, from_text=False)
    assert len(rows) == 800 and agreement(rows) > 99
    [row] = [row for row in rows if not row.agrees]
    assert (row.answer, row.gold) == ("10000", "10{,}000")
    assert row.ours == Verdict(True, "number")


@pytest.mark.parametrize("file", verdicts.MATHVISTA_FILES)
def test_our_rules_differ_from_mathvista_only_where_those_guess_or_spell(
    real_data: Path, file: str
) -> None:
    theirs = verdicts.mathvista(real_data, file, published_rules=True)
    ours = verdicts.mathvista(real_data, file, published_rules=False)
    for left, right in zip(theirs, ours, strict=True):
        if not right.agrees and left.ours.rule == "nearest_choice":
            assert right.ours.rule == ("no_match" if right.stored else "number"), right
        elif not right.agrees:
            assert (right.row, right.answer, right.gold) == ("849", "(b)", "(b)")
    assert agreement(ours) >= (99 if "bard" in file else 90)


MATHVISION_RIGHT = (474, 248, 436, 442, 437, 259, 218)


@pytest.mark.parametrize(
    ("file", "right"), zip(verdicts.MATHVISION_FILES, MATHVISION_RIGHT, strict=True)
)
def test_every_published_verdict_of_mathvision_follows_from_the_responses(
    real_data: Path, file: str, right: int
) -> None:
    rows = verdicts.mathvision(real_data, file)
    assert differing(rows) == []
    assert (len(rows), sum(row.ours.correct for row in rows)) == (3040, right)


def test_the_page_explains_every_difference(real_data: Path) -> None:
    page = verdicts.to_markdown(real_data)
    assert "not explained" not in page
    kept = Path(__file__).parents[1] / "docs" / "results" / "verdicts.md"
    assert kept.read_text(encoding="utf-8") == page


@pytest.fixture(scope="module")
def responses(real_data: Path) -> dict[str, list[Compared]]:
    if not (real_data / "responses").is_dir():
        pytest.skip("needs the stored responses of many models")
    return verdicts.all_responses(real_data, every=5)


def of(responses: dict[str, list[Compared]], benchmark: str) -> dict[str, list[Compared]]:
    return {name: rows for name, rows in responses.items() if name.startswith(f"{benchmark},")}


def test_mathvista_agrees_on_responses_that_state_an_answer(
    responses: dict[str, list[Compared]],
) -> None:
    files = of(responses, "MathVista").values()
    stating = [[row for row in rows if row.read] for rows in files]
    assert sum(agreement(rows) for rows in files) / len(files) >= 92.5
    assert sum(agreement(rows) for rows in stating) / len(files) >= 97


def test_our_reading_of_mmmu_loses_little_of_what_its_script_counts_and_finds_more(
    responses: dict[str, list[Compared]],
) -> None:
    for name, rows in (of(responses, "MMMU-Pro") | of(responses, "MMMU")).items():
        read = [row for row in rows if not row.guessed]
        lost = sum(row.stored and not row.ours.correct for row in read)
        assert lost <= 0.02 * len(rows) and agreement(read) >= 96, name


def test_m3cot_agrees_with_its_own_careless_rule(responses: dict[str, list[Compared]]) -> None:
    for name, rows in of(responses, "M3CoT").items():
        assert agreement(rows) >= 95, name


def test_small_inputs_of_every_kind_of_fault_are_read_and_judged(real_data: Path) -> None:
    text = (real_data / "responses" / "minimal.jsonl").read_text(encoding="utf-8")
    rows = [row for row in map(json.loads, text.splitlines()) if row["kind"] != "split"]
    assert len(rows) == 252
    assert [row["id"] for row in rows if not _is_as_expected(row)] == []


def _is_as_expected(row: dict[str, Any]) -> bool:
    options, expected = tuple(row.get("options") or ()), row["expected_answer"]
    answer = row["text"] if row["kind"] == "equal" else extract_answer(row["text"], options)
    if verdict(answer, row["gold"], options).correct != row["expected_verdict"]:
        return False
    if row["kind"] == "equal" or expected is None:
        return row["kind"] == "equal" or answer is None
    return verdict(answer, expected, options).correct
