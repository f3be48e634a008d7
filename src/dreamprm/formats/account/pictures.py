"""Images that are missing or damaged, questions asked twice, and overlap with other files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dreamprm.answer_options import option_meant
from dreamprm.answer_text import clean
from dreamprm.errors import DataError
from dreamprm.formats.account.finding import Finding, place, share, shown
from dreamprm.formats.account.loaded import Loaded
from dreamprm.formats.overlap import Overlap, duplicates, find_overlap
from dreamprm.images import load_image
from dreamprm.records import Question


def check(loaded: Loaded, *, decode: bool = False) -> Iterator[Finding]:
    """All findings about images and repeated questions of one file."""
    named = [(question, image) for question in loaded.questions for image in question.images]
    remote = [q for q, image in named if isinstance(image, str) and "://" in image]
    if remote:
        message = f"{len(remote)} images are addresses on the net; fetch them and name the files"
        yield Finding("error", "remote_images", len(remote), message, shown(list(map(place, remote))))
    local = [(q, i) for q, i in named if not (isinstance(i, str) and "://" in i)]
    missing = [(q, i) for q, i in local if isinstance(i, str) and not _is_file(i)]
    if missing:
        message = (
            f"{share(len(missing), len(named))} images are not there; restore the files, or say by "
            "--image_root where the paths start"
        )
        where = shown([f"{place(q)}: {i!s}" for q, i in missing])
        yield Finding("error", "missing_images", len(missing), message, where)
    if decode:
        gone = {i for _, i in missing}
        yield from _damaged([(q, i) for q, i in local if i not in gone])
    twice = duplicates(loaded.questions)
    if twice:
        message = f"{len(twice)} questions ask again what an earlier one of the file asks"
        yield Finding("warning", "repeated_questions", len(twice), message, _pairs(twice))


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except (OSError, ValueError):  # a name that the system cannot take
        return False


def _damaged(images: Sequence[tuple[Question, str | bytes]]) -> Iterator[Finding]:
    """Read every image to its end."""

    def cause(image: str | bytes) -> str | None:
        try:
            load_image(image)
        except DataError as error:
            return error.message
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        causes = pool.map(cause, [image for _, image in images])
        bad = [f"{place(q)}: {told}" for (q, _), told in zip(images, causes, strict=True) if told]
    if bad:
        message = f"{share(len(bad), len(images))} images are damaged; fetch them again"
        yield Finding("error", "damaged_images", len(bad), message, shown(bad))


def overlap(loaded: Loaded, name: str, others: Sequence[Question]) -> Iterator[Finding]:
    """Questions that another file asks, too.

    Args:
        loaded: the file at hand.
        name: of the other file, as the user calls it.
        others: its questions.
    """
    found = find_overlap(loaded.questions, others)
    shared = [one for one in found if one.counts]
    if shared:
        message = (
            f"{share(len(shared), len(loaded.questions))} questions are also in {name}; what was "
            "trained on cannot be tested on, so remove them from one of the two"
        )
        yield Finding("error", "overlap", len(shared), message, _pairs(shared))
    letters = [one for one in shared if _other_letter(loaded, one, others)]
    if letters:
        message = (
            f"{len(letters)} questions that are also in {name} have another letter for the right "
            "answer there, because their options stand in another order; compare answers by the "
            "option's text"
        )
        yield Finding("warning", "other_letters", len(letters), message, _pairs(letters))
    alike = Counter(one.why for one in found if not one.counts)
    for why, count in alike.items():
        message = f"{count} questions are like one of {name}: {why}"
        where = _pairs([one for one in found if not one.counts and one.why == why])
        yield Finding("note", "alike", count, message, where)


def _other_letter(loaded: Loaded, one: Overlap, others: Sequence[Question]) -> bool:
    """Does the right option of a shared question have another letter in the other file?"""
    mine, theirs = loaded.questions[one.row - 1], others[one.other_row - 1]
    if not mine.options or not theirs.options:
        return False
    meant = [option_meant(clean(q.answer), q.options) for q in (mine, theirs)]
    if None in meant or {m.rule for m in meant if m} != {"letter"}:
        return False
    return len({m.position for m in meant if m}) > 1


def _pairs(found: Sequence[Overlap]) -> tuple[str, ...]:
    return shown([f"question {one.question_id} like {one.other_id}" for one in found])
