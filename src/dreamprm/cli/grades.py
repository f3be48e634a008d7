"""`dreamprm benchmark`: grades of a judge model, asked for where they are not there yet."""

from __future__ import annotations

import asyncio
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm.data.files import atomic_write, load_json_object
from dreamprm.errors import DataError, DataWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dreamprm.cli.benchmark import Config
    from dreamprm.evaluation.benchmarks.benchmark import Response
    from dreamprm.records import Question


def judged(config: Config, questions: Sequence[Question], responses: Sequence[Response]) -> Path:
    """The file of grades, complete; each grade is on disk before the next is asked for."""
    from dreamprm.cli.terminal import progress
    from dreamprm.evaluation.benchmarks.grading import answer_digest, grade_answers
    from dreamprm.policy.endpoint import EndpointPolicy

    assert config.judge_model is not None and config.responses is not None
    if not config.judge_urls:
        raise DataError("judge_model needs judge_urls: endpoints that serve it")
    path = config.grades or config.responses.with_suffix(".grades.json")
    answers = {r.question_id: r.text or r.answer or "" for r in responses}
    missing = [q.id for q in questions if q.id not in answers]
    if missing and not config.allow_missing:
        raise DataError(
            f"{len(missing):,} questions have no response, '{missing[0]}' first; answer them, or "
            "set allow_missing to grade them as an empty answer",
            file=config.responses,
        )
    answers |= dict.fromkeys(missing, "")
    grades: dict[str, Any] = load_json_object(path) if path.exists() else {}
    for name in (q.id for q in questions if q.id in grades):
        _check_entry(name, grades[name], config, path)

    def save() -> None:
        with atomic_write(path) as file:
            file.write(json.dumps(grades, indent=1, ensure_ascii=False).encode() + b"\n")

    async def session(advance: Any) -> int:
        judge = EndpointPolicy(
            model=str(config.judge_model),
            base_urls=config.judge_urls,
            api_key_env=config.api_key_env,
            prompt="bare",
            temperature=0.0 if config.judge_runs == 1 else 1.0,
            max_new_tokens=2048,  # for judges that think first
            continuation="prompt",
        )
        try:
            return await grade_answers(
                questions,
                answers,
                judge,
                grades,
                runs=config.judge_runs,
                save=save,
                progress=advance,
            )
        finally:
            await judge.close()

    there = sum(
        len(grades[q.id]["score"])
        for q in questions
        if q.id in grades and grades[q.id]["answer"] == answer_digest(answers[q.id])
    )
    with progress("answers graded", len(questions) * config.judge_runs) as advance:
        advance(there)
        unclear = asyncio.run(session(advance))
    if unclear:
        warnings.warn(
            f"{unclear} grades are 0 because the judge gave no number; take a model that replies "
            "with one when told to",
            DataWarning,
            stacklevel=2,
        )
    return path


def _check_entry(name: str, entry: Any, config: Config, path: Path) -> None:
    """Refuse to mix grades of two judges, or of two ways of asking, in one file."""
    other = "give another --grades, or leave --judge_model out to take the file as it is"
    lists = [entry.get(key) for key in ("model", "content", "score")] if _is_ours(entry) else []
    if not lists or not all(isinstance(one, list) and len(one) == len(lists[2]) for one in lists):
        raise DataError(f"grade of '{name}' was not made by this command; {other}", file=path)
    if judges := set(lists[0]) - {config.judge_model}:
        raise DataError(f"grade of '{name}' is of judge '{sorted(judges)[0]}'; {other}", file=path)
    if len(lists[2]) > config.judge_runs:
        raise DataError(
            f"'{name}' has {len(lists[2])} grades, and judge_runs is {config.judge_runs}; {other}",
            file=path,
        )


def _is_ours(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("answer"), str)
