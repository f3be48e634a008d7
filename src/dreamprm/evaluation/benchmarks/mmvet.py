"""MM-Vet (arXiv 2308.02490): 218 open questions on six capabilities, graded by a judge model.

An answer is graded from 0 to 1 by a language model that sees the gold answer; no rule replaces it.
Grades come from a file: that of the benchmark's own grader (yuweihao/MM-Vet), an entry per question
`{"v1_0": {"model": [...], "content": [...], "score": [0.5, ...]}}` with a score per repetition,
whose mean counts; or plainly `{"v1_0": 0.5}`. `grading` writes such a file with a judge of yours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dreamprm.data.files import image_from_disk, load_json_object
from dreamprm.data.rows import required_text
from dreamprm.errors import DataError
from dreamprm.evaluation.benchmarks.benchmark import (
    Benchmark,
    Groups,
    Response,
    answer_metrics,
)
from dreamprm.evaluation.results import QuestionResult, Result, new_result
from dreamprm.records import Question


def read_questions(path: Path) -> list[Question]:
    """Its mm-vet.json: {"v1_0": {"imagename", "question", "answer", "capability"}}."""
    found = []
    for name, row in load_json_object(path).items():
        try:
            if not isinstance(row, dict) or not isinstance(row.get("capability"), list):
                raise DataError(f"{name} has no list of capabilities", field="capability")
            image = required_text(row, "imagename")
            found.append(
                Question.parse(
                    {
                        "id": name,
                        "domain": "mmvet",
                        "text": required_text(row, "question"),
                        "images": (image_from_disk(f"images/{image}", path.parent),),
                        "answer": required_text(row, "answer"),
                        "extra": {"capability": row["capability"]},
                    }
                )
            )
        except DataError as error:
            raise error.at(file=path) from None
    return found


def groups(question: Question) -> Groups:
    """Every capability that it needs, and all of them together."""
    needed = question.extra.get("capability")
    if not isinstance(needed, list):
        return {}
    names = tuple(sorted(str(one) for one in needed))
    return {"capability": names, "integration": ("+".join(names),)}


def score_grades(
    questions: list[Question],
    grades: Path,
    *,
    name: str,
    settings: Mapping[str, Any],
    left_out: Collection[str] = (),
) -> Result:
    """The benchmark's figures from a judge's grades.

    Args:
        left_out: questions whose grades are not looked at.

    Raises:
        DataError: a grade outside 0-1, of no question, or none for one.
    """
    rows_of_file = load_json_object(grades).items()
    found = {str(k): _grade(k, v, grades) for k, v in rows_of_file if k not in left_out}
    asked = {q.id: q for q in questions}
    if unknown := [k for k in found if k not in asked]:
        raise DataError(f"grade of '{unknown[0]}', which MM-Vet does not have", file=grades)
    if missing := [k for k in asked if k not in found]:
        raise DataError(
            f"{len(missing)} of {len(asked)} questions have no grade, '{missing[0]}' first; give "
            "--judge_model to have them graded",
            file=grades,
        )
    rows = [
        QuestionResult(question_id=q.id, benchmark="mmvet", value=found[q.id], groups=groups(q))
        for q in questions
    ]
    return new_result(
        name=name,
        kind="answers",
        settings=dict(settings),
        metrics={name: answer_metrics(MMVET, rows)},
        questions={name: tuple(rows)},
        details={"benchmark": "mmvet"},
    )


def _grade(name: Any, value: Any, path: Path) -> float:
    scores = value.get("score") if isinstance(value, dict) else value
    values = scores if isinstance(scores, list) else [scores]
    good = values and all(
        isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in values
    )
    if not good:
        raise DataError(f"grade of '{name}' is {scores!r}, not within 0-1", file=path)
    return float(sum(values) / len(values))


def read_responses(path: Path) -> list[Response]:
    """The benchmark's own output: {"v1_0": text}."""
    return [Response(str(k), text=str(v)) for k, v in load_json_object(path).items()]


MMVET = Benchmark(
    name="mmvet",
    about="218 open questions, graded by a judge model (arXiv 2308.02490)",
    count=218,
    groups=groups,
    read_responses=read_responses,
    rules="a judge's grade from 0 to 1",
)
