"""Rows that cannot be read, hold no response, come twice, or contradict each other."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

from dreamprm.data.audit.account import Finding, Loaded, place, share, shown
from dreamprm.data.claims import Claim
from dreamprm.errors import DataError

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\{[^}]*\}")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def check(loaded: Loaded) -> Iterator[Finding]:
    """All findings of this kind."""
    yield from _unread(loaded.bad)
    for message in loaded.told:
        yield Finding("warning", "told_on_reading", 1, message)
    yield from _without_response(loaded.claims)
    if loaded.repeated:
        yield Finding(
            "warning",
            "repeated_rows",
            len(loaded.repeated),
            f"{len(loaded.repeated)} rows are equal to an earlier row; remove them",
            shown(loaded.repeated),
        )
    yield from _repeated_trajectories(loaded)
    yield from _repeated_scores(loaded)
    yield from _strays(loaded)
    if any(claim.text is not None for _, claim in loaded.claims):
        yield from _contradictions(
            ((claim.text, claim.images, claim.outcome, where) for where, claim in loaded.claims),
            "rows",
        )
    else:
        yield from _contradictory_trajectories(loaded)


def kind_of(error: DataError) -> tuple[str, str]:
    """Field and message of an error without what is particular: numbers and quoted texts."""
    plain = [
        _NUMBER.sub("N", _QUOTED.sub("'...'", text)) for text in (error.field or "", error.message)
    ]
    return plain[0], plain[1]


def _unread(bad: Sequence[DataError]) -> Iterator[Finding]:
    groups: dict[tuple[str, str], list[DataError]] = defaultdict(list)
    for error in bad:
        groups[kind_of(error)].append(error)
    for group in sorted(groups.values(), key=len, reverse=True):
        first = group[0]
        field = f"field '{first.field}': " if first.field else ""
        yield Finding(
            "error",
            "unread_rows",
            len(group),
            f"{_rows(len(group))} cannot be read: {field}{first.message}",
            shown([f"row {error.row}" for error in group if error.row is not None]),
        )


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _without_response(claims: Sequence[tuple[str, Claim]]) -> Iterator[Finding]:
    empty = [(where, claim) for where, claim in claims if not claim.has_response]
    if not empty:
        return
    classes = []
    among = Counter(claim.outcome for _, claim in claims)
    missing = Counter(claim.outcome for _, claim in empty)
    for outcome in (False, True):
        if among[outcome]:
            told = share(missing[outcome], among[outcome])
            classes.append(f"{told} rows whose answer is {'right' if outcome else 'wrong'}")
    uneven = len({missing[o] / among[o] for o in (False, True) if among[o]}) > 1
    message = f"{len(empty)} of {len(claims)} rows hold no response"
    message += f" ({', '.join(classes)})" if classes else ""
    if uneven:
        message += "; a model can tell right from wrong by the absence of steps"
    message += "; add the responses, or leave the rows out (--without_response drop)"
    yield Finding(
        "error", "without_response", len(empty), message, shown([where for where, _ in empty])
    )


def _repeated_trajectories(loaded: Loaded) -> Iterator[Finding]:
    seen: dict[Hashable, str] = {}
    same, numbered = [], []
    ids: set[Hashable] = set()
    for trajectory in loaded.trajectories:
        key = (trajectory.question_id, trajectory.steps, trajectory.answer)
        if key in seen:
            same.append(f"{place(trajectory)} like {seen[key]}")
        seen.setdefault(key, f"candidate {trajectory.sample_index}")
        identity = (trajectory.question_id, trajectory.sample_index)
        if identity in ids:
            numbered.append(place(trajectory))
        ids.add(identity)
    if same:
        message = f"{len(same)} trajectories repeat another one of their question word by word"
        yield Finding("warning", "repeated_trajectories", len(same), message, shown(same))
    if numbered:
        message = (
            f"{len(numbered)} trajectories have the sample_index of an earlier one of their "
            "question, so scores cannot tell them apart; number them anew"
        )
        yield Finding("error", "repeated_sample_index", len(numbered), message, shown(numbered))


def _repeated_scores(loaded: Loaded) -> Iterator[Finding]:
    times = Counter((score.question_id, score.sample_index) for score in loaded.scores)
    twice = [f"question {q}, candidate {i}" for (q, i), count in times.items() if count > 1]
    if twice:
        message = f"{len(twice)} candidates are scored more than once; keep one score of each"
        yield Finding("error", "repeated_scores", len(twice), message, shown(twice))


def _strays(loaded: Loaded) -> Iterator[Finding]:
    if not loaded.is_whole:
        return
    known = loaded.by_id()
    strays = [t for t in loaded.trajectories if t.question_id not in known]
    if strays:
        message = (
            f"{len(strays)} trajectories belong to a question that is not there; add it or remove "
            "them"
        )
        yield Finding(
            "error", "missing_question", len(strays), message, shown([place(t) for t in strays])
        )


def _contradictory_trajectories(loaded: Loaded) -> Iterator[Finding]:
    known = loaded.by_id()

    def told() -> Iterator[tuple[Hashable, Hashable, bool | None, str]]:
        for t in loaded.trajectories:
            q = known.get(t.question_id)
            asked: Hashable = (" ".join(q.text.split()), q.options) if q else t.question_id
            images = q.images if q else ()
            yield (asked, t.steps, t.answer), images, t.outcome, place(t)

    yield from _contradictions(told(), "trajectories")


def _contradictions(
    told: Iterable[tuple[Hashable, Hashable, bool | None, str]], what: str
) -> Iterator[Finding]:
    """Equal texts with both outcomes, by (text, images, outcome, place)."""
    groups: dict[Hashable, list[tuple[Hashable, bool, str]]] = defaultdict(list)
    for text, images, outcome, where in told:
        if outcome is not None:
            groups[text].append((images, outcome, where))
    same: list[str] = []
    other: list[str] = []
    for members in groups.values():
        if len({outcome for _, outcome, _ in members}) == 1:
            continue
        outcomes: dict[Hashable, set[bool]] = defaultdict(set)
        for images, outcome, _ in members:
            outcomes[images].add(outcome)
        line = "; ".join(f"{where} {str(outcome).lower()}" for _, outcome, where in members[:4])
        (same if any(len(both) == 2 for both in outcomes.values()) else other).append(line)
    if same:
        message = (
            f"{_times(len(same))} the same question and response is called both right and wrong "
            f"({what}); correct or remove one"
        )
        yield Finding("error", "contradiction", len(same), message, shown(same))
    if other:
        message = (
            f"{_times(len(other))} the same text is called both right and wrong, with different "
            f"images ({what}); without its image it teaches nothing"
        )
        yield Finding("warning", "contradiction_but_image", len(other), message, shown(other))
