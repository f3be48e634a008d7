"""Published files with known defects: `dreamprm validate` must report every one of them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamprm.cli import main
from dreamprm.data.audit import facts, findings, load

Found = dict[str, dict[str, Any]]
Validate = Callable[..., tuple[dict[str, Any], Found, int]]


@pytest.fixture
def validate(capsys: pytest.CaptureFixture[str]) -> Validate:
    """Run `dreamprm validate --json true`: gives account, findings by name, and exit code."""

    def run(*words: str | Path) -> tuple[dict[str, Any], Found, int]:
        capsys.readouterr()
        code = main(["validate", *map(str, words), "--json", "true"])
        [account] = json.loads(capsys.readouterr().out)["files"]
        return account, {finding["name"]: finding for finding in account["findings"]}, code

    return run


def test_the_papers_meta_set_has_all_its_defects_reported(
    real_data: Path, validate: Validate
) -> None:
    account, found, code = validate("--input", real_data / "dreamprm" / "meta.json")
    assert code == 1
    assert account["rows"] == 500
    assert account["outcomes_of_rows"] == {"right": 249, "wrong": 251, "unknown": 0}
    assert found["without_response"]["count"] == 371
    assert "all 251 rows whose answer is wrong" in found["without_response"]["message"]
    assert "120 of 249 rows whose answer is right" in found["without_response"]["message"]
    [line] = found["contradiction_but_image"]["where"]
    assert line == "row 415 (id 246) false; row 432 (id 271) true; row 453 (id 324) true"
    assert "contradiction" not in found
    assert found["one_class"]["severity"] == "error"
    assert found["missing_images"]["count"] == 129


def test_dreamprm_1_5_has_all_its_defects_reported(real_data: Path, validate: Validate) -> None:
    path = real_data / "dreamprm_1_5" / "meta_MMMU_Pro.json"
    account, found, code = validate("--input", path)
    assert code == 1
    assert account["outcomes"] == {"right": 834, "wrong": 822, "unknown": 0}
    assert found["constant_labels"]["severity"] == "error"
    assert "in all 822 whose answer is wrong" in found["constant_labels"]["message"]
    assert found["bare_letter"]["count"] == 896


@pytest.mark.parametrize(
    ("name", "rows", "erroneous", "right_but_wrong"),
    [("gsm8k", 400, 207, 7), ("math", 1000, 594, 94)],
)
def test_processbench_has_its_figures(
    name: str, rows: int, erroneous: int, right_but_wrong: int, real_data: Path
) -> None:
    loaded = load(real_data / "processbench" / f"{name}.json")
    labels = facts(loaded).labels
    assert labels is not None
    assert (facts(loaded).rows, labels.with_wrong_step) == (rows, erroneous)
    found = {finding.name: finding for finding in findings(loaded)}
    assert found["right_answer_wrong_step"].count == right_but_wrong


def test_letters_of_mmmu_pro_do_not_carry_over_to_four_options(
    real_data: Path, validate: Validate
) -> None:
    path = real_data / "mmmu_pro" / "gpt-4o_standard_10_options_cot.jsonl"
    other = real_data / "dreamprm_1_5" / "meta_MMMU_Pro.json"
    account, found, _ = validate("--input", path, "--against.four", other)
    assert account["outcomes"] == {"right": 952, "wrong": 778, "unknown": 0}
    assert "unread_rows" not in found
    assert found["other_letters"]["count"] > 200
    assert "question test_History_134: J, there B" in found["other_letters"]["where"][0]


def test_the_real_questions_of_mathvision_are_in_order(real_data: Path, validate: Validate) -> None:
    _, found, code = validate("--input", real_data / "mathvision" / "testmini.jsonl")
    assert (code, found) == (0, {})


def test_readers_warnings_do_not_leak(real_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(real_data / "dreamprm" / "meta.json")
