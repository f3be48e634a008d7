"""What a data file holds: its records, the rows that cannot be read, and their counts."""

from __future__ import annotations

import hashlib
import json
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

from dreamprm.data import known, own
from dreamprm.data.files import BadRow, DataWarning
from dreamprm.data.format import Format, Records, row_place
from dreamprm.data.overlap import ImageHash, hash_image
from dreamprm.data.rows import each_row
from dreamprm.errors import DataError, shortened
from dreamprm.images import check_image, in_threads
from dreamprm.records import UNKNOWN_ANSWER, Label, Question, Trajectory, domain_of
from dreamprm.unread import Unread, unanswered

_AT_ONCE = 16  # questions whose pictures are held
_TOP = 8  # domains, subjects, policies and label totals that are named
Severity = Literal["error", "warning", "note"]
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """A defect and where it is.

    Attributes:
        severity: an error makes the data unfit for use, a warning may, a note does not.
        name: of the kind of defect, for programs.
        count: how many rows, records or pairs have it.
        message: what is wrong, and how to mend it.
        where: the first few.
    """

    severity: Severity
    name: str
    count: int
    message: str
    where: tuple[str, ...] = ()


def finding(
    severity: Severity, name: str, places: Sequence[str], message: str
) -> Iterator[Finding]:
    """One finding about all these places; none where there are none."""
    if places:
        yield Finding(severity, name, len(places), message, tuple(places[:SHOWN]))


def place(record: Question | Trajectory) -> str:
    """How a record is named in a finding."""
    if isinstance(record, Question):
        return f"question {record.id}"
    return f"question {record.question_id}, candidate {record.sample_index}"


def share(count: int, total: int) -> str:
    """'3 of 4', or 'all 4'."""
    return f"all {total}" if count == total else f"{count} of {total}"


@dataclass
class Embedded:
    """Pictures that lie in the data file itself: a digest stands for the bytes of each.

    Attributes:
        decode: read each picture to its end.
        digests: of all.
        hashes: digest -> what it shows, where pictures are decoded.
        damaged: digest -> why it cannot be read.
    """

    decode: bool
    digests: set[str | bytes] = field(default_factory=set)
    hashes: dict[str | bytes, ImageHash] = field(default_factory=dict)
    damaged: dict[str | bytes, str] = field(default_factory=dict)

    def put_aside(self, questions: Iterable[Question]) -> Iterator[Question]:
        """The questions without the bytes of their pictures."""
        questions = iter(questions)
        while some := list(islice(questions, _AT_ONCE)):
            pictures = [i for q in some for i in q.images if isinstance(i, bytes)]
            digests = in_threads(self._look, pictures)
            for question in some:
                images = tuple(
                    next(digests) if isinstance(image, bytes) else image
                    for image in question.images
                )
                yield question.model_copy(update={"images": images})

    def _look(self, picture: bytes) -> bytes:
        digest = hashlib.sha256(picture).digest()
        self.digests.add(digest)
        if self.decode and digest not in self.hashes:
            self.hashes[digest] = hash_image(picture)
            if self.hashes[digest].shape is None and (error := check_image(picture).error):
                self.damaged[digest] = error.message
        return digest


@dataclass(frozen=True)
class Loaded(Records):
    """What was found in one file (`source`), or in files of ours that belong together.

    Attributes:
        format: its name.
        rows: how many there are.
        bad: what the reader said of rows that it could not read.
        told: what the reader warned of.
        repeated: places of rows that are equal to an earlier one.
        is_whole: are questions and trajectories both there, so that none may be missing?
        embedded: what was seen of pictures that lie in the file.
    """

    format: str = ""
    rows: int = 0
    bad: list[DataError] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    is_whole: bool = False
    embedded: Embedded = field(default_factory=lambda: Embedded(decode=False))

    @cached_property
    def unread(self) -> Unread:
        """Trajectories without an answer; labelled ones without outcome may be mere beginnings."""
        whole = [t for t in self.trajectories if t.outcome is not None or t.labels is None]
        return unanswered(self.questions, whole)


def load(
    path: str | Path,
    *,
    format: str | None = None,
    image_root: str | Path | None = None,
    decode: bool = False,
) -> Loaded:
    """Read a file of any format.

    Args:
        path: the file.
        format: name of the format; by default told from the first rows.
        image_root: folder that image paths start from; the file's own by default.
        decode: look into pictures that lie in the file, which are not kept.

    Raises:
        DataError: the file cannot be opened, or its format is not known.
    """
    path = Path(path)
    chosen = known.choose(path, format)
    bad: list[DataError] = []
    embedded = Embedded(decode)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", DataWarning)
        read = _read(chosen, path, image_root, bad.append, embedded)
    messages = [str(w.message) for w in told if issubclass(w.category, DataWarning)]
    rows, repeated = _count_rows(path, read)
    return Loaded(
        **vars(read),
        format=chosen.name,
        rows=rows,
        bad=bad,
        told=[] if read.claims else messages,  # else the claims say the same
        repeated=repeated,
        is_whole=chosen.holds == "pair",
        embedded=embedded,
    )


def _read(
    chosen: Format, path: Path, image_root: str | Path | None, bad_row: BadRow, embedded: Embedded
) -> Records:
    if chosen.own is not Question:
        return chosen.read(path, image_root=image_root, without_response="drop", bad_row=bad_row)
    questions = own.iterate(
        path, Question, image_root=image_root, bad_row=bad_row, large_pictures=embedded.decode
    )
    return Records(list(embedded.put_aside(questions)), source=str(path))


def load_ours(
    questions: Sequence[Path],
    trajectories: Sequence[Path],
    *,
    image_root: str | Path | None = None,
    decode: bool = False,
) -> Loaded:
    """Read questions and trajectories of ours that belong together."""
    loaded = Loaded(
        source=" + ".join(map(str, [*questions, *trajectories])),
        format="questions + trajectories",
        is_whole=bool(questions and trajectories),
        embedded=Embedded(decode),
    )
    count = 0
    for path in [*questions, *trajectories]:
        kind = "questions" if path in questions else "trajectories"
        read = _read(known.find(kind), path, image_root, loaded.bad.append, loaded.embedded)
        ids = loaded.by_id
        for question in read.questions:
            if question.id in ids:
                message = f"question id '{question.id}' is already used in another file"
                loaded.bad.append(DataError(message, file=path, field="id"))
            else:
                loaded.questions.append(question)
        loaded.trajectories.extend(read.trajectories)
        rows, repeated = _count_rows(path, read)
        count += rows
        loaded.repeated.extend(repeated)
    return replace(loaded, rows=count)


def _count_rows(path: Path, read: Records) -> tuple[int, list[str]]:
    """How many rows there are, and the places of those that are equal to an earlier one."""
    if path.suffix.lower() == ".parquet":
        return len(read.questions) + len(read.trajectories) + len(read.scores), []
    first: dict[bytes, int] = {}
    repeated = []
    count = 0
    unread: list[DataError] = []
    for number, row in each_row(path, unread.append):
        count += 1
        written = hashlib.sha256(json.dumps(row, sort_keys=True).encode()).digest()
        if first.setdefault(written, number) != number:
            repeated.append(f"{row_place(number, row)} like row {first[written]}")
    return count + len(unread), repeated


@dataclass(frozen=True)
class LabelFacts:
    """What the labels are."""

    steps: int  # labelled, of all
    of_steps: int
    mean: float  # of the labels' values
    zeros: float  # share that is exactly 0
    ones: float
    totals: dict[int, int]  # completions behind a label -> labels, the most frequent
    with_wrong_step: int  # trajectories with a step labelled 0


@dataclass(frozen=True)
class Facts:
    """What a file holds; ready to be written as JSON."""

    name: str
    format: str
    rows: int
    unread: int  # of the rows, those that could not be read
    unread_answers: dict[str, int]  # why trajectories state no answer -> how many
    questions: int
    trajectories: int
    scores: int
    domains: dict[str, int]  # the most frequent, by questions
    number_of_domains: int
    subjects: dict[str, int]
    number_of_subjects: int
    with_images: int  # questions with an image
    images: int  # counted each time they are named
    with_options: int
    gold_known: int
    steps: tuple[int, float, int] | None  # fewest, median and most of a trajectory
    outcomes: dict[str, int]  # trajectories that are right, wrong, or not verified
    outcomes_of_rows: dict[str, int] | None  # where rows without a response tell more
    labels: LabelFacts | None  # None where no step is labelled
    policies: dict[str, int]  # by trajectories


def labels_of(trajectory: Trajectory) -> list[Label]:
    """The labels of the steps that have one."""
    return [label for label in trajectory.labels or () if label is not None]


def has_wrong_step(trajectory: Trajectory) -> bool:
    """Is a step labelled 0?"""
    return any(label.value == 0 for label in labels_of(trajectory))


def facts(loaded: Loaded) -> Facts:
    """Count what was loaded."""
    questions, trajectories = loaded.questions, loaded.trajectories
    by_id = loaded.by_id
    pairs = [(by_id[t.question_id], t) for t in trajectories if t.question_id in by_id]
    domain_questions = {(question.id, domain_of(question, t)) for question, t in pairs}
    tried = {t.question_id for t in trajectories}
    domain_questions |= {(q.id, q.domain) for q in questions if q.id not in tried}
    domains = Counter(domain for _, domain in domain_questions)
    subjects = Counter(q.subject for q in questions if q.subject is not None)
    lengths = [len(trajectory.steps) for trajectory in trajectories]
    claimed = [claim.outcome for claim in loaded.claims if claim.outcome is not None]
    return Facts(
        name=loaded.source,
        format=loaded.format,
        rows=loaded.rows,
        unread=len(loaded.bad),
        unread_answers=dict(loaded.unread.reasons),
        questions=len(questions),
        trajectories=len(trajectories),
        scores=len(loaded.scores),
        domains=_top(domains),
        number_of_domains=len(domains),
        subjects=_top(subjects),
        number_of_subjects=len(subjects),
        with_images=sum(bool(question.images) for question in questions),
        images=sum(len(question.images) for question in questions),
        with_options=sum(bool(question.options) for question in questions),
        gold_known=sum(question.answer != UNKNOWN_ANSWER for question in questions),
        steps=(min(lengths), statistics.median(lengths), max(lengths)) if lengths else None,
        outcomes=_tally([trajectory.outcome for trajectory in trajectories]),
        outcomes_of_rows=_tally(claimed) if len(claimed) > len(trajectories) else None,
        labels=_labels(loaded),
        policies=_top(Counter(trajectory.policy for trajectory in trajectories)),
    )


def _labels(loaded: Loaded) -> LabelFacts | None:
    labels = [label for trajectory in loaded.trajectories for label in labels_of(trajectory)]
    if not labels:
        return None
    values = [label.value for label in labels]
    return LabelFacts(
        steps=len(labels),
        of_steps=sum(len(trajectory.steps) for trajectory in loaded.trajectories),
        mean=statistics.fmean(values),
        zeros=values.count(0.0) / len(values),
        ones=values.count(1.0) / len(values),
        totals=_top(Counter(label.total for label in labels if label.total)),
        with_wrong_step=sum(map(has_wrong_step, loaded.trajectories)),
    )


def _tally(outcomes: Sequence[bool | None]) -> dict[str, int]:
    names = {True: "right", False: "wrong", None: "unknown"}
    return {name: outcomes.count(outcome) for outcome, name in names.items()}


K = TypeVar("K")


def _top(counts: Counter[K]) -> dict[K, int]:
    return dict(counts.most_common(_TOP))


def lines(facts: Facts, findings: Sequence[Finding]) -> Iterator[str]:
    """The account as lines of text."""
    yield f"{facts.name}: {facts.format}"
    for name, told in _counts(facts):
        yield f"  {name:<15}{told}"
    for finding in findings:
        yield f"{finding.severity}: {shortened(finding.message)}"
        for where in finding.where:
            yield f"    {shortened(where)}"
        if finding.where and finding.count > len(finding.where):
            yield f"    and {finding.count - len(finding.where)} more"
    if not findings:
        yield "nothing wrong was found"


def _counts(facts: Facts) -> Iterator[tuple[str, str]]:
    unread = f", {facts.unread} of them cannot be read" if facts.unread else ""
    yield "rows", f"{facts.rows}{unread}"
    if facts.scores:
        yield "step scores", f"of {facts.scores} trajectories"
    if facts.questions:
        yield "questions", f"{facts.questions}"
        yield "domains", _named(facts.domains, facts.number_of_domains)
        if facts.subjects:
            yield "subjects", _named(facts.subjects, facts.number_of_subjects)
        each = f", {facts.images / facts.with_images:.2f} images each" if facts.images else ""
        yield "with images", f"{facts.with_images}{each}"
        yield "with options", f"{facts.with_options}"
        yield "gold answer", f"known of {facts.gold_known}"
    if facts.steps:
        yield "trajectories", f"{facts.trajectories}"
        yield "policies", _named(facts.policies)
        yield "steps", f"{facts.steps[0]} to {facts.steps[2]}, median {facts.steps[1]:g}"
        yield "outcomes", _shares(facts.outcomes)
    if facts.outcomes_of_rows:
        yield "rows say", _shares(facts.outcomes_of_rows)
    if labels := facts.labels:
        shares = f"mean {labels.mean:.3f}, {labels.zeros:.1%} are 0 and {labels.ones:.1%} are 1"
        yield "labels", f"on {labels.steps} of {labels.of_steps} steps; {shares}"
        yield (
            "",
            f"{labels.with_wrong_step} of {facts.trajectories} trajectories have a step labelled 0",
        )
        yield "completions", "per label: " + _named(labels.totals)


def _shares(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _named(counts: Mapping[Any, int], of: int | None = None) -> str:
    told = ", ".join(f"{name} ({count})" for name, count in counts.items())
    more = (of or len(counts)) - len(counts)
    return f"{told}, and {more} more" if more else told
