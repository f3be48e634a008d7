"""Response files: our own, the benchmark's own output, VLMEvalKit's sheets, lmms-eval's samples.

A file's form is told by its columns. VLMEvalKit (open-compass/VLMEvalKit) writes sheets, .xlsx or
.tsv, with a number as `index`, the raw response as `prediction`, options in columns A, B, ..., and
with the benchmark's own id in a column beside (MMMU's `id`) or not at all. lmms-eval
(EvolvingLMMs-Lab/lmms-eval) writes JSON lines: `doc_id` is the row's number; the benchmark's id
stands in `doc`, which newer versions leave out, or in a metric's object (`mmmu_acc`); `resps` holds
the raw response, in up to two lists, and is left out where `filtered_resps` is the same. The raw
response is taken where both are there: extraction is ours.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import ascii_uppercase

from dreamprm.data.files import in_row, open_for_reading
from dreamprm.data.rows import Row, each_row
from dreamprm.errors import DataError
from dreamprm.evaluation.benchmarks.base import Benchmark, Response, letter_or_text
from dreamprm.records import Question

_OWN, _SHEET, _SAMPLES = "`dreamprm select` or `sample`", "VLMEvalKit", "lmms-eval"
_COLUMNS = {
    _OWN: (("question_id", "answer"), ("question_id", "steps")),
    _SHEET: (("index", "prediction"),),
    _SAMPLES: (("doc_id", "resps"), ("doc_id", "filtered_resps")),
}
_FAILED = "Failed to obtain answer via API"
"""What VLMEvalKit writes for a response where the model's server gave none."""
SURE = 0.9  # share of gold answers that must agree where rows are matched by their number


def read_responses(
    benchmark: Benchmark, path: Path, questions: Sequence[Question] | None = None
) -> list[Response]:
    """The responses of a file, with the ids of the benchmark's questions.

    Args:
        questions: all of the benchmark, by which rows of other tools find their id; None takes the
            ids that the rows hold.

    Raises:
        DataError: no known form, no rows, or rows of another benchmark.
    """
    rows = list(_rows(path))
    if not rows:
        raise DataError("holds no responses", file=path)
    form = _form(benchmark, set(rows[0][1]), path)
    if form == _SHEET and {"dev", "validation"} <= {row.get("split") for _, row in rows}:
        rows = [(number, row) for number, row in rows if row["split"] == "validation"]
    parsers = {_OWN: _own, _SHEET: _of_sheet, _SAMPLES: _of_samples}
    parse = parsers.get(form, benchmark.response_of)
    assert parse is not None  # a form of the benchmark's own has a reader
    responses = []
    for number, row in rows:
        with in_row(path, number):
            try:
                responses.append(parse({"id": str(number)} | row))
            except KeyError as error:
                raise DataError("is missing", field=error.args[0]) from None
    if form in (_SHEET, _SAMPLES):
        names = _names([row for _, row in rows], questions, path)
        placed = zip(names, responses, strict=True)
        # lmms-eval has a row for each filter, with the same raw response.
        responses = list({(n, r.text): replace(r, question_id=n) for n, r in placed}.values())
    return responses


def check_form(benchmark: Benchmark, path: Path) -> None:
    """Refuse a file of responses by its first row, before any question is fetched.

    Raises:
        DataError: a file of no known form.
    """
    if row := next(_rows(path), (0, {}))[1]:
        _form(benchmark, set(row), path)


def questions_in(benchmark: Benchmark, path: Path) -> list[Question]:
    """The questions that a file of the benchmark's own output holds; may be none."""
    first = next(_rows(path), (0, {}))[1]
    if not any(set(needed) <= first.keys() for needed in benchmark.output):
        return []
    return [r.question for r in read_responses(benchmark, path) if r.question is not None]


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a table, or of JSON: a list, lines, or an object id -> row or id -> response."""
    suffix = path.suffix.lower()
    if suffix in (".xlsx", ".tsv"):
        yield from enumerate(_sheet(path) if suffix == ".xlsx" else _tsv(path), start=2)
        return
    with open_for_reading(path) as file:
        is_object = suffix == ".json" and file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{"
    for number, row in each_row(path):
        kinds = {type(value) for value in row.values()} if is_object else set()
        if kinds in ({dict}, {str}):
            for place, (key, value) in enumerate(row.items(), start=1):
                yield place, {"id": key} | (value if kinds == {dict} else {"response": value})
        else:
            yield number, row


def _sheet(path: Path) -> Iterator[Row]:
    try:
        import openpyxl
    except ImportError:
        raise DataError(
            "needs openpyxl: pip install 'dreamprm[xlsx]', or save the sheet as .tsv", file=path
        ) from None
    with open_for_reading(path) as file:
        try:
            lines = openpyxl.load_workbook(file, read_only=True, data_only=True).worksheets[0]
        except Exception as error:  # zipfile's, openpyxl's and expat's own classes
            message = f"is no sheet that openpyxl can read ({error}); save it again as .tsv"
            raise DataError(message, file=path) from error
        texts = (["" if c is None else str(c) for c in line] for line in lines.values)
        head = next(texts, [])
        yield from (dict(zip(head, line, strict=False)) for line in texts if any(line))


def _tsv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with open_for_reading(path):  # one line for a file that is not there
        pass
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t", restval="")


def _form(benchmark: Benchmark, columns: set[str], path: Path) -> str:
    """The name of the form that has these columns."""
    own = {f"{benchmark.name}'s own output": benchmark.output} if benchmark.output else {}
    forms = _COLUMNS | own
    for form, alternatives in forms.items():
        if any(set(needed) <= columns for needed in alternatives):
            return form
    near, needed = max(
        ((form, one) for form, alternatives in (own | forms).items() for one in alternatives),
        key=lambda pair: len(columns & set(pair[1])) / len(pair[1]),
    )
    missing = ", ".join(name for name in needed if name not in columns)
    raise DataError(
        f"has the columns {', '.join(sorted(columns)) or 'none'}, which are no known form of "
        f"responses; the nearest is that of {near} ({', '.join(needed)}), and {missing} is missing",
        file=path,
    )


def _own(row: Row) -> Response:
    """Of trajectories the text is the steps with the answer behind them."""
    steps, answer = row.get("steps"), row.get("answer")
    text = None
    if isinstance(steps, list):
        lines = [str(step) for step in steps]
        text = "\n".join(lines + ([f"Final answer: {answer}"] if answer is not None else []))
    return Response(str(row["question_id"]), text, answer)


def _of_sheet(row: Row) -> Response:
    text, letter = str(row["prediction"] or ""), str(row.get("answer"))
    letters = [x for x in ascii_uppercase if row.get(x) not in (None, "")]
    options, question = [str(row[x]) for x in letters], None
    if letter in letters and "Other Answers" not in options:  # its stand-in for an open question
        of_row = {"id": row["index"], "domain": "responses", "text": row.get("question") or "?"}
        question = Question.parse(of_row | {"options": options, "answer": letter})
    return Response("", "" if text.startswith(_FAILED) else text, question=question)


def _of_samples(row: Row) -> Response:
    said = row["resps"] if "resps" in row else row["filtered_resps"]
    while isinstance(said, list) and len(said) == 1:
        [said] = said
    if said is not None and not isinstance(said, str):
        raise DataError(
            "must hold one text; choose one of several responses, or ask for text instead of the "
            "likelihoods of options",
            field="resps",
        )
    return Response("", said or "")


# ---- which question a row of another tool belongs to

_ID_COLUMNS = ("id", "pid", "question_id", "index")


def _names(rows: Sequence[Row], questions: Sequence[Question] | None, path: Path) -> list[str]:
    """The question's id of each row.

    The first column that holds nothing but ids of questions; else the row's number, counted from 0
    or 1, if the gold answers there say the same as the questions'.
    """
    told = [_told(row) for row in rows]
    common = [key for key in told[0] if all(key in one for one in told)]
    known = None if questions is None else {q.id: q for q in questions}
    for key in common:
        if known is None or all(one[key] in known for one in told):
            names = [one[key] for one in told]
            if key not in ("index", "doc_id") or known is None or _golds_agree(rows, names, known):
                return names
    assert known is not None
    order = list(known)
    for key in ("index", "doc_id"):
        if key in common and all(one[key].isdecimal() for one in told):
            for first in (0, 1):
                places = [int(one[key]) - first for one in told]
                if min(places) >= 0 and max(places) < len(order):
                    names = [order[place] for place in places]
                    if _golds_agree(rows, names, known, needed=True):
                        return names
    raise DataError(
        f"no column of its rows ({', '.join(common)}) holds ids of the questions, nor the numbers "
        "of questions with the same gold answers; is it of another benchmark, split or version?",
        file=path,
    )


def _told(row: Row) -> dict[str, str]:
    """What may be the question's id, the likeliest first."""
    told = {}
    inside = [("doc", row.get("doc")), *((k, v) for k, v in row.items() if k != "doc")]
    for place, fields in [("", row), *inside]:
        if isinstance(fields, dict):
            if {"ID", "key"} <= fields.keys():
                told[f"{place}.ID/key".lstrip(".")] = f"{fields['ID']}/{fields['key']}"
            for name in _ID_COLUMNS:
                if isinstance(fields.get(name), str | int):
                    told[f"{place}.{name}".lstrip(".")] = str(fields[name])
    numbers = {"index": told.pop("index", None), "doc_id": row.get("doc_id")}
    return told | {name: str(value) for name, value in numbers.items() if value is not None}


def _golds_agree(
    rows: Sequence[Row], names: Sequence[str], known: dict[str, Question], *, needed: bool = False
) -> bool:
    """Do nearly all rows have the gold answer of their question? Rows without one do not count.

    Args:
        needed: a file without gold answers does not agree.
    """
    same = []
    for row, name in zip(rows, names, strict=True):
        gold = row.get("target", row.get("answer"))
        if gold not in (None, ""):
            same.append(_same(str(gold), known[name].answer, letter_or_text(known[name])))
    return sum(same) >= SURE * len(same) if same else not needed


def _same(gold: str, *golds: str) -> bool:
    texts = {one.strip().casefold() for one in golds}
    try:
        return float(gold) in {float(one) for one in texts}
    except ValueError:
        return gold.strip().casefold() in texts
