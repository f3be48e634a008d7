"""The meta set of the upper level, chosen from verified candidates as the paper does it.

The learned weights can only be as good as what they are judged by (arXiv 2505.20241). So right and
wrong candidates of one question come first, because only these show whether a reward model tells
reasonings apart rather than questions; then questions that were always or never solved, as many
right as wrong, lest a good guess of the base rate be worth anything; and all subjects alike. A
candidate that states its answer without any reasoning has no process to judge, and stays out.

What is chosen depends on the seed and on the records, never on the order of the files.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal, NamedTuple

from dreamprm.answers import extract_answer
from dreamprm.data.format import question_of
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter
from dreamprm.records import Question, Trajectory
from dreamprm.steps import split_steps

Kind = Literal["contrasting", "always right", "always wrong"]
KINDS: tuple[Kind, ...] = ("contrasting", "always right", "always wrong")
"""What a question's candidates are, of those that can be chosen."""

Unit = tuple[Trajectory, ...]  # what is taken at once: a pair, or a single
Queues = dict[str, deque[Unit]]  # subject -> what can be taken of it, in order

_FILLER = frozenset(
    (
        *("the", "correct", "right", "final", "my", "answer", "choice", "option", "result", "is"),
        *("hence", "so", "thus", "therefore", "it", "that", "this", "step"),
        *("no", "response"),  # what stands for a response that was empty
    )
)
_TOO_FEW = 2  # other words than these; "Paris, France" is an answer and no reasoning
_MARK = re.compile(r"\bstep\s+\d+|\\[a-z]+", re.IGNORECASE)  # and commands of LaTeX
_WORD = re.compile(r"[^\W\d_]+")


class Count(NamedTuple):
    """How many questions, and how many trajectories of them."""

    questions: int
    trajectories: int


@dataclass(frozen=True, kw_only=True)
class Account:
    """How a meta set came about.

    Attributes:
        wanted: trajectories that were asked for.
        right: chosen ones with a right answer.
        wrong: chosen ones with a wrong one.
        kinds: kind of question -> what was chosen.
        subjects: subject -> what was chosen.
        supply: kind of question -> how many questions there were to choose from.
        skipped: reason -> trajectories that could not be chosen.
    """

    wanted: int
    right: int
    wrong: int
    kinds: dict[Kind, Count]
    subjects: dict[str, Count]
    supply: dict[Kind, int]
    skipped: dict[str, int]

    @property
    def missing(self) -> int:
        """How many fewer there are than were wanted."""
        return self.wanted - self.right - self.wrong


@dataclass(frozen=True)
class MetaSet:
    """The chosen questions and their trajectories, question by question, and the account."""

    questions: list[Question]
    trajectories: list[Trajectory]
    account: Account


def choose_meta_set(
    questions: Iterable[Question],
    trajectories: Iterable[Trajectory],
    size: int,
    *,
    per_question: int = 2,
    seed: int = 0,
) -> MetaSet:
    """Choose trajectories with outcomes, as many right as wrong.

    Pairs of a right and a wrong candidate of one question come first; within a subject every
    question gives one before any gives a second. What is still wanted comes from questions whose
    outcomes are all alike. All subjects (domains, where a question has no subject) get the same
    number, as far as their candidates go.

    Args:
        questions: those that may be chosen.
        trajectories: their candidates.
        size: how many to choose; where there are not enough, the account tells how many are
            missing.
        per_question: at most so many right ones of a question, and as many wrong ones.
        seed: of the choice among equals.

    Raises:
        DataError: a size below 1, or a trajectory of an unknown question.
    """
    for name, value in (("size", size), ("per_question", per_question)):
        if value < 1:
            raise DataError(f"{name} is {value}; it must be above 0")
    by_id = {question.id: question for question in questions}
    usable, skipped = _usable(trajectories, by_id)
    rights, wrongs = (_candidates(usable, side, per_question, seed) for side in (True, False))
    ids = sorted(rights.keys() | wrongs.keys(), key=lambda i: _rank(seed, i))
    kinds = {i: _kind(i in rights, i in wrongs) for i in ids}

    def queues(kind: Kind) -> Queues:
        """Subject -> pairs or singles: the first ones of all its questions, then the second."""
        lists: dict[str, list[list[Unit]]] = defaultdict(list)
        for i in ids:
            if kinds[i] == kind:
                sides = [side[i] for side in (rights, wrongs) if i in side]
                lists[_subject(by_id[i])].append(list(zip(*sides, strict=False)))
        return {
            subject: deque(unit for layer in zip_longest(*units) for unit in layer if unit)
            for subject, units in lists.items()
        }

    pairs, always_right, always_wrong = (queues(kind) for kind in KINDS)
    chosen: list[Trajectory] = []
    counts = Counter[str]()  # of each subject

    def take(supply: Queues) -> bool:
        """Take from the subject that has the fewest yet; False when nothing is left."""
        subjects = [subject for subject, queue in supply.items() if queue]
        if not subjects:
            return False
        subject = min(subjects, key=lambda s: (counts[s], _rank(seed, "subject", s)))
        unit = supply[subject].popleft()[: size - len(chosen)]
        chosen.extend(unit)
        counts[subject] += len(unit)
        return True

    while len(chosen) + 2 <= size and take(pairs):
        pass
    balanced = min(sum(map(len, singles.values())) for singles in (always_right, always_wrong))
    for _ in range(min(balanced, (size - len(chosen)) // 2)):
        take(always_right)
        take(always_wrong)
    if len(chosen) < size:  # one more leaves the classes within one of each other
        _ = take(always_right) or take(always_wrong) or take(pairs)
    groups: dict[str, list[Trajectory]] = defaultdict(list)
    for t in chosen:
        groups[t.question_id].append(t)
    right, by_kind = sum(bool(t.outcome) for t in chosen), _count(groups, kinds)
    account = Account(
        wanted=size,
        right=right,
        wrong=len(chosen) - right,
        kinds={kind: by_kind.get(kind, Count(0, 0)) for kind in KINDS},
        subjects=_count(groups, {i: _subject(by_id[i]) for i in groups}),
        supply={kind: sum(k == kind for k in kinds.values()) for kind in KINDS},
        skipped=skipped,
    )
    in_order = [t for group in groups.values() for t in group]
    return MetaSet([by_id[i] for i in groups], in_order, account)


def is_bare_answer(trajectory: Trajectory, question: Question) -> bool:
    """Does a trajectory state its answer, and nothing that leads to it?

    Example:
        >>> question = Question(id="q", domain="d", text="?", answer="8")
        >>> bare = Trajectory(question_id="q", steps=("The answer is **8**.",), answer="8")
        >>> reasoned = Trajectory(question_id="q", steps=("3 red and 5 blue: 8",), answer="8")
        >>> is_bare_answer(bare, question), is_bare_answer(reasoned, question)
        (True, False)
    """
    if len(trajectory.steps) > 1:
        return False
    text = trajectory.steps[0]
    if not split_steps(text)[0]:  # nothing but "Final answer: ..."
        return True
    rest = _MARK.sub(" ", text)
    stated = [extract_answer(text, question.options), trajectory.answer]
    # Any short text with a number in it is an answer.
    stated = [answer for answer in stated if answer != text.strip()]
    for answer in sorted(filter(None, (*stated, *question.options)), key=len, reverse=True):
        rest = re.sub(rf"(?<!\w){re.escape(answer.strip())}(?!\w)", " ", rest)
    letters = {option_letter(i).casefold() for i in range(len(question.options))}
    words = [word for word in _WORD.findall(rest.casefold()) if word not in _FILLER | letters]
    return len(words) <= _TOO_FEW


def _usable(
    trajectories: Iterable[Trajectory], by_id: dict[str, Question]
) -> tuple[list[Trajectory], dict[str, int]]:
    """The candidates that can be chosen, and reason -> number of those that cannot."""
    groups: dict[tuple[str, ...], list[Trajectory]] = defaultdict(list)
    skipped = Counter[str]()
    for t in trajectories:
        question = question_of(t, by_id)
        if t.outcome is None:
            skipped["no outcome"] += 1
        elif is_bare_answer(t, question):
            skipped["an answer without reasoning"] += 1
        else:
            groups[t.question_id, *(" ".join(step.split()) for step in t.steps)].append(t)
    usable = []
    for group in groups.values():
        if len({t.outcome for t in group}) == 2:
            skipped["the same reasoning called right and wrong"] += len(group)
            continue
        # The lowest sample_index; what is then still alike has the same content.
        usable.append(min(group, key=lambda t: (t.sample_index, t.model_dump_json())))
        if len(group) > 1:
            skipped["the same reasoning again"] += len(group) - 1
    return usable, dict(skipped)


def _candidates(
    usable: Iterable[Trajectory], outcome: bool, per_question: int, seed: int
) -> dict[str, list[Trajectory]]:
    """Question id -> its candidates with an outcome; no answer comes again before all came once."""
    answers: dict[str, dict[str, list[Trajectory]]] = defaultdict(lambda: defaultdict(list))
    for t in sorted(usable, key=lambda t: _rank(seed, t.question_id, *t.steps)):
        if t.outcome is outcome:
            answers[t.question_id]["".join((t.answer or "").casefold().split())].append(t)
    return {
        question_id: [t for layer in zip_longest(*groups.values()) for t in layer if t][
            :per_question
        ]
        for question_id, groups in answers.items()
    }


def _count(
    groups: Mapping[str, Sequence[Trajectory]], names: Mapping[str, str]
) -> dict[str, Count]:
    questions = Counter(names[i] for i in groups)
    trajectories = Counter(names[i] for i, group in groups.items() for _ in group)
    return {name: Count(questions[name], trajectories[name]) for name in sorted(questions)}


def _kind(has_right: bool, has_wrong: bool) -> Kind:
    if has_right and has_wrong:
        return "contrasting"
    return "always right" if has_right else "always wrong"


def _subject(question: Question) -> str:
    return question.subject or question.domain


def _rank(seed: int, *parts: str) -> bytes:
    """A place in a shuffled order that depends on what is shuffled, not on where it lay before."""
    return hashlib.sha256("\0".join((str(seed), *parts)).encode("utf-8", "surrogatepass")).digest()
