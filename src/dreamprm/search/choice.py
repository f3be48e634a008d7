"""What was chosen for a question: a row of what `dreamprm select` writes."""

from __future__ import annotations

from dreamprm.records import Record


class Change(Record):
    """From here on, until the next one, this was the answer.

    Attributes:
        tokens: that had been sampled for the question.
        sample_index: of the candidate.
    """

    tokens: int
    sample_index: int
    outcome: bool | None = None


class Choice(Record):
    """What was chosen for a question.

    Attributes:
        score: aggregated score of the candidate, a logit; None without scores.
        step_scores: of its steps, each in 0-1; None without scores.
        tokens: sampled for this question, by the reward model's tokenizer; None without one, or
            where candidates were given.
        completions: sampled for it, single steps included.
        outcome: is the answer right; None where that is not known.
        changes: the answer as the search went on; none where tokens were not counted.
    """

    question_id: str
    answer: str | None
    sample_index: int
    score: float | None
    step_scores: tuple[float, ...] | None
    tokens: int | None = None
    completions: int | None = None
    outcome: bool | None = None
    steps: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
