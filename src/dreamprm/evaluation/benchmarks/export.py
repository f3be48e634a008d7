"""Result files in the row layouts of other tools, to line figures up question by question.

`vlmevalkit`: a tab-separated table with index, question, answer, prediction and hit, as its result
tables have. `lmms_eval`: one JSON object per line with doc_id, target, filtered_resps and a metric,
as its sample logs have.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from dreamprm.data.files import atomic_write
from dreamprm.errors import DataError
from dreamprm.evaluation.results import Result
from dreamprm.records import Question

Layout = Literal["vlmevalkit", "lmms_eval"]


def export(path: Path, result: Result, questions: Mapping[str, Question], layout: Layout) -> None:
    """Write the rows of the result's one method.

    Raises:
        DataError: the result has several methods.
    """
    if len(result.questions) != 1:
        raise DataError(f"the result has methods {', '.join(result.questions)}; export takes one")
    [rows] = result.questions.values()
    text = io.StringIO()
    if layout == "vlmevalkit":
        table = csv.writer(text, delimiter="\t", lineterminator="\n")
        table.writerow(["index", "category", "question", "answer", "prediction", "hit"])
        for row in rows:
            q = questions[row.question_id]
            category = q.subject or ""
            table.writerow([q.id, category, q.text, q.answer, row.answer or "", f"{row.value:g}"])
    else:
        for row in rows:
            q = questions[row.question_id]
            line = {
                "doc_id": q.id,
                "target": q.answer,
                "filtered_resps": [row.answer or ""],
                row.benchmark: row.value,
            }
            text.write(json.dumps(line, ensure_ascii=False) + "\n")
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())
