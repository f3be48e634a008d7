"""Images that are missing or damaged, questions asked twice, and overlap with other files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from dreamprm.answers.options import option_meant
from dreamprm.answers.text import clean, same_text
from dreamprm.data.audit.account import Embedded, Finding, Loaded, finding, place, share
from dreamprm.data.overlap import Overlap, duplicates, find_overlap, normalise
from dreamprm.images import (
    Reference,
    check_image,
    fitted_images,
    in_threads,
    is_remote,
    may_be_fetched,
)
from dreamprm.prompts import option_letter
from dreamprm.records import Question


def check(loaded: Loaded, *, decode: bool = False) -> Iterator[Finding]:
    """All findings about images and repeated questions of one file."""
    named = [(question, image) for question in loaded.questions for image in question.images]
    remote: list[tuple[Question, Reference]] = []
    local: list[tuple[Question, Reference]] = []
    for q, image in named:
        is_outside = isinstance(image, str) and is_remote(image) and not may_be_fetched(image)
        (remote if is_outside else local).append((q, image))
    message = f"{len(remote)} images are addresses on the net; fetch them and name the files, or"
    message += " name their hosts by --allow_remote_images"
    yield from finding("error", "remote_images", [place(q) for q, _ in remote], message)
    missing = {i for _, i in local if isinstance(i, str) and _is_missing(i)}
    places = [f"{place(q)}: {i!s}" for q, i in local if i in missing]
    message = f"{share(len(places), len(named))} images are not there; restore the files, or say"
    message += " by --image_root where the paths start"
    yield from finding("error", "missing_images", places, message)
    if decode:
        there = [(q, i) for q, i in local if i not in missing]
        yield from _damaged(there, loaded.embedded)
    twice = duplicates(loaded.questions, dict(loaded.embedded.hashes))
    message = f"{len(twice)} questions ask again what an earlier one of the file asks"
    yield from finding("warning", "repeated_questions", _pairs(twice), message)


def _is_missing(path: str) -> bool:
    if is_remote(path):
        return False
    try:
        return not Path(path).exists()
    except (OSError, ValueError):  # a name that the system cannot take
        return True


def _damaged(images: Sequence[tuple[Question, Reference]], embedded: Embedded) -> Iterator[Finding]:
    """Read every image to its end; of those in the file it is known."""
    references = dict.fromkeys(image for _, image in images if image not in embedded.digests)
    checked = dict(zip(references, in_threads(check_image, references), strict=True))
    causes = {i: c.error.message for i, c in checked.items() if c.error} | embedded.damaged
    bad = [f"{place(q)}: {causes[image]}" for q, image in images if image in causes]
    message = f"{share(len(bad), len(images))} images are damaged; fetch them again"
    yield from finding("error", "damaged_images", bad, message)
    fitted = [f"{place(q)}: {c.was}" for q, i in images if (c := checked.get(i)) and c.was]
    yield from finding("note", "fitted_images", fitted, fitted_images(len(fitted)))


def overlap(loaded: Loaded, name: str, other: Loaded) -> Iterator[Finding]:
    """Questions that another file asks, too; `name` is what the user calls it."""
    hashes = loaded.embedded.hashes | other.embedded.hashes
    pairs = find_overlap(loaded.questions, other.questions, hashes=hashes)
    yield from _shared(loaded.questions, name, pairs)
    letters = list(_other_letters(loaded.questions, other.questions))
    message = f"{len(letters)} questions are worded as one of {name}, with the same right option"
    message += " under another letter; compare answers across the two by the option's text"
    yield from finding("warning", "other_letters", letters, message)
    for why in dict.fromkeys(pair.why for pair in pairs if not pair.counts):
        alike = [pair for pair in pairs if not pair.counts and pair.why == why]
        message = f"{len(alike)} questions are like one of {name}: {why}"
        yield from finding("note", "alike", _pairs(alike), message)
    # What cannot be read may hide a shared question.
    message = f"{len(other.bad)} rows of {name} cannot be read, so nothing was compared with them;"
    yield from finding("error", "not_compared", list(map(str, other.bad)), f"{message} mend them")


def shared(
    questions: Sequence[Question], name: str, others: Sequence[Question]
) -> Iterator[Finding]:
    """The questions that are among others; images are read only where texts are the same."""
    yield from _shared(questions, name, find_overlap(questions, others, same_images=False))


def _shared(
    questions: Sequence[Question], name: str, pairs: Sequence[Overlap]
) -> Iterator[Finding]:
    same = [pair for pair in pairs if pair.counts]
    message = f"{share(len(same), len(questions))} questions are also in {name}; what was"
    message += " trained on cannot be tested on, so remove them from one of the two"
    yield from finding("error", "overlap", _pairs(same), message)


def _other_letters(questions: Sequence[Question], others: Sequence[Question]) -> Iterator[str]:
    """Questions whose right option has another letter in the other file."""
    theirs: dict[str, list[tuple[Question, int]]] = defaultdict(list)
    for other in others:
        if (at := _right_letter(other)) is not None:
            theirs[normalise(other.text)].append((other, at))
    for question in questions:
        if (mine := _right_letter(question)) is None:
            continue
        option = clean(question.options[mine])
        for other, at in theirs.get(normalise(question.text), ()):
            if same_text(option, clean(other.options[at])):  # the first such decides
                if at != mine:
                    letters = f"{option_letter(mine)}, there {option_letter(at)}"
                    yield f"{place(question)}: {letters} ({other.id})"
                break


def _right_letter(question: Question) -> int | None:
    """Position of the right option, where the gold answer names it by its letter."""
    meant = option_meant(clean(question.answer), question.options) if question.options else None
    return meant.position if meant and meant.rule == "letter" else None


def _pairs(pairs: Sequence[Overlap]) -> list[str]:
    return [f"question {pair.question_id} like {pair.other_id}" for pair in pairs]
