"""Rows that cannot be read, hold no response, come twice, or contradict each other."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator

from dreamprm.data.audit.account import SHOWN, Finding, Loaded, finding, place, share
from dreamprm.data.format import contradictions
from dreamprm.errors import DataError

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def check(loaded: Loaded) -> Iterator[Finding]:
    """All findings of this kind."""
    yield from _unread(loaded)
    for message in loaded.told:
        yield Finding("warning", "told_on_reading", 1, message)
    yield from _without_response(loaded)
    message = f"{len(loaded.repeated)} rows are equal to an earlier row; remove them"
    yield from finding("warning", "repeated_rows", loaded.repeated, message)
    yield from _repeated_records(loaded)
    if loaded.is_whole:
        ids = loaded.by_id
        strays = [place(t) for t in loaded.trajectories if t.question_id not in ids]
        message = f"{len(strays)} trajectories belong to a question that is not there; add it or"
        yield from finding("error", "missing_question", strays, f"{message} remove them")
    yield from _contradictions(loaded)


def kind_of(error: DataError) -> tuple[str, str]:
    """Field and message of an error without what is particular: numbers and quoted texts."""
    plain = [
        _NUMBER.sub("N", _QUOTED.sub("'...'", text)) for text in (error.field or "", error.message)
    ]
    return plain[0], plain[1]


def _unread(loaded: Loaded) -> Iterator[Finding]:
    groups: dict[tuple[str, str], list[DataError]] = defaultdict(list)
    for error in loaded.bad:
        groups[kind_of(error)].append(error)
    for group in sorted(groups.values(), key=len, reverse=True):
        first = group[0]
        rows = "1 row" if len(group) == 1 else f"{len(group)} rows"
        field = f"field '{first.field}': " if first.field else ""
        message = f"{rows} cannot be read: {field}{first.message}"
        where = tuple(f"row {error.row}" for error in group if error.row is not None)
        yield Finding("error", "unread_rows", len(group), message, where[:SHOWN])


def _without_response(loaded: Loaded) -> Iterator[Finding]:
    empty = [claim for claim in loaded.claims if not claim.has_response]
    classes, shares = [], set()
    for outcome, told in ((False, "wrong"), (True, "right")):
        of_class = [claim.has_response for claim in loaded.claims if claim.outcome is outcome]
        if of_class:
            missing = of_class.count(False)
            classes.append(f"{share(missing, len(of_class))} rows whose answer is {told}")
            shares.add(missing / len(of_class))
    message = f"{len(empty)} of {len(loaded.claims)} rows hold no response"
    message += f" ({', '.join(classes)})" if classes else ""
    if len(shares) > 1:
        message += "; a model can tell right from wrong by the absence of steps"
    message += "; add the responses, or leave the rows out (--without_response drop)"
    yield from finding("error", "without_response", [claim.place for claim in empty], message)


def _repeated_records(loaded: Loaded) -> Iterator[Finding]:
    first: dict[Hashable, int] = {}
    ids: set[Hashable] = set()
    same, numbered = [], []
    for t in loaded.trajectories:
        key, identity = (
            (t.question_id, t.steps, t.answer),
            (t.question_id, t.sample_index, t.domain),
        )
        if key in first:
            same.append(f"{place(t)} like candidate {first[key]}")
        first.setdefault(key, t.sample_index)
        if identity in ids:
            numbered.append(place(t))
        ids.add(identity)
    message = f"{len(same)} trajectories repeat another one of their question word by word"
    yield from finding("warning", "repeated_trajectories", same, message)
    message = f"{len(numbered)} trajectories have the sample_index of an earlier one of their"
    message += " question and domain, so nothing can tell them apart; number them anew"
    yield from finding("error", "repeated_sample_index", numbered, message)
    times = Counter((score.question_id, score.sample_index) for score in loaded.scores)
    twice = [f"question {q}, candidate {i}" for (q, i), count in times.items() if count > 1]
    message = f"{len(twice)} candidates are scored more than once; keep one score of each"
    yield from finding("error", "repeated_scores", twice, message)


def _contradictions(loaded: Loaded) -> Iterator[Finding]:
    """Equal texts with both outcomes: of rows where they say more than records, else of these."""
    what = "rows"
    told: list[tuple[Hashable, Hashable, bool | None, str]]
    told = [(c.text, c.images, c.outcome, c.place) for c in loaded.claims if c.text is not None]
    if not told:
        what, known = "trajectories", loaded.by_id
        for t in loaded.trajectories:
            q = known.get(t.question_id)
            asked: Hashable = (" ".join(q.text.split()), q.options) if q else t.question_id
            told.append(((asked, t.steps, t.answer), q.images if q else (), t.outcome, place(t)))
    lines: dict[bool, list[str]] = {True: [], False: []}
    for same_images, members in contradictions(told):
        line = [f"{where} {str(outcome).lower()}" for where, outcome in members[:4]]
        lines[same_images].append("; ".join(line))
    times = {same: "once" if len(of) == 1 else f"{len(of)} times" for same, of in lines.items()}
    message = f"{times[True]} the same question and response is called both right and wrong"
    message += f" ({what}); correct or remove one"
    yield from finding("error", "contradiction", lines[True], message)
    message = f"{times[False]} the same text is called both right and wrong, with different images"
    message += f" ({what}); without its image it teaches nothing"
    yield from finding("warning", "contradiction_but_image", lines[False], message)
