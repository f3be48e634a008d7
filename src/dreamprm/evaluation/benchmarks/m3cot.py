"""M3CoT (arXiv 2405.16473): 2,318 questions with options, on science, commonsense and mathematics.

Judged by the letter that our extraction reads. The benchmark's own script (LightChen233/M3CoT,
utils/metric.py) takes the last letter in parentheses, else the last option whose text stands
anywhere, else a lone letter; `experiments/verdicts.py` tells how often the two agree.
"""

from __future__ import annotations

from dreamprm.data.rows import Row, exact_text, text_list
from dreamprm.evaluation.benchmarks.base import Benchmark, Response, groups_by, with_question


def response_of(row: Row) -> Response:
    """A row of its output: the response is the last of `messages`, or stands in `response`."""
    messages = row.get("messages") or [row.get("response")]
    return with_question(
        row,
        messages[-1],
        "m3cot",
        options=text_list(row, "choices"),
        answer=exact_text(row, "answer"),
        subject=row.get("topic"),
        extra={"field": row["domain"]} if row.get("domain") else {},
    )


M3COT = Benchmark(
    name="m3cot",
    count=2318,
    groups=groups_by("topic", field="field"),
    split="test",
    output=(("id", "choices", "answer", "messages"), ("id", "choices", "answer", "response")),
    response_of=response_of,
)
