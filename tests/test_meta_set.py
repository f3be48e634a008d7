"""The meta set: what is chosen from verified candidates, and what is said of it."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dreamprm.data import read_pair
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory
from dreamprm.rollouts.meta_set import KINDS, Count, MetaSet, choose_meta_set, is_bare_answer

Project = tuple[list[Question], list[Trajectory]]


def _question(name: str, subject: str | None = "algebra", options: int = 0) -> Question:
    return Question(
        id=name,
        domain="maths",
        text=f"What is {name}?",
        options=tuple(f"{i} cm" for i in range(options)),
        answer="A" if options else "6",
        subject=subject,
    )


def _candidate(
    name: str, index: int, outcome: bool | None, answer: str | None = None, text: str | None = None
) -> Trajectory:
    answer = answer or ("6" if outcome else str(10 + index))
    steps = (text,) if text else ("Step 1: red is 3", f"Step 2: attempt {index} gives {answer}")
    return Trajectory(
        question_id=name, steps=steps, answer=answer, outcome=outcome, sample_index=index
    )


def _project(**outcomes: str) -> Project:
    """Question name -> its outcomes, '+' right and '-' wrong; the subject is the first letter."""
    questions = [_question(name, subject=name[0]) for name in outcomes]
    trajectories = [
        _candidate(name, index, sign == "+")
        for name, signs in outcomes.items()
        for index, sign in enumerate(signs)
    ]
    return questions, trajectories


def _outcomes(chosen: MetaSet) -> dict[str, str]:
    found: dict[str, str] = {}
    for t in chosen.trajectories:
        found[t.question_id] = found.get(t.question_id, "") + "-+"[bool(t.outcome)]
    return found


def test_contrasting_pairs_come_first_one_of_each_question_before_a_second() -> None:
    project = _project(a1="++--", a2="+-----", a3="++--", b1="++++", b2="----")
    assert _outcomes(choose_meta_set(*project, 6)) == {"a1": "+-", "a2": "+-", "a3": "+-"}
    assert Counter(_outcomes(choose_meta_set(*project, 10)).values()) == {"+-+-": 2, "+-": 1}


def test_then_always_right_and_always_wrong_questions_in_balance() -> None:
    project = _project(a1="+-", b1="++++", b2="+", c1="--", c2="-")
    chosen = choose_meta_set(*project, 8)
    assert Counter(_outcomes(chosen).values()) == Counter(["+-", "++", "+", "--", "-"])
    account = chosen.account
    assert (account.right, account.wrong, account.missing) == (4, 4, 0)
    assert account.kinds == dict(zip(KINDS, (Count(1, 2), Count(2, 3), Count(2, 3)), strict=True))
    assert account.supply == dict(zip(KINDS, (1, 2, 2), strict=True))
    assert account.subjects == {"a": Count(1, 2), "b": Count(2, 3), "c": Count(2, 3)}


def test_subjects_take_turns_and_a_domain_stands_in_for_a_missing_subject() -> None:
    names = [f"a{i}" for i in range(20)] + ["b0", "b1", "c0"]
    chosen = choose_meta_set(*_project(**dict.fromkeys(names, "+-")), 14)
    assert {s: c.questions for s, c in chosen.account.subjects.items()} == {"a": 4, "b": 2, "c": 1}
    question = _question("q", subject=None)
    pair = [_candidate("q", 0, True), _candidate("q", 1, False)]
    assert choose_meta_set([question], pair, 2).account.subjects == {"maths": Count(1, 2)}


def test_single_outcome_questions_make_up_for_subjects_that_came_short() -> None:
    project = _project(a1="+-", a2="+-", a3="+-", a4="+", a5="-", b4="+", b5="-")
    assert choose_meta_set(*project, 8).account.subjects["b"] == Count(2, 2)


def test_wrong_candidates_of_one_question_differ_in_their_answers() -> None:
    wrong = [_candidate("a", i, False, answer="7") for i in range(1, 9)]
    wrong.append(_candidate("a", 9, False, answer="8"))
    right = [_candidate("a", i, True) for i in (20, 21)]
    for seed in range(5):
        chosen = choose_meta_set([_question("a")], wrong + right, 4, seed=seed).trajectories
        assert sorted(t.answer or "" for t in chosen) == ["6", "6", "7", "8"]


def test_the_same_reasoning_is_chosen_once_and_with_two_verdicts_never() -> None:
    questions, trajectories = _project(a1="+-")
    again = trajectories[0].model_copy(update={"sample_index": 7})
    chosen = choose_meta_set(questions, [again, *trajectories], 4)
    assert [t.sample_index for t in chosen.trajectories] == [0, 1]
    assert chosen.account.skipped == {"the same reasoning again": 1}
    denied = trajectories[0].model_copy(update={"outcome": False})
    chosen = choose_meta_set(questions, [denied, *trajectories], 4)
    assert chosen.account.skipped == {"the same reasoning called right and wrong": 2}
    assert [t.sample_index for t in chosen.trajectories] == [1]


def test_candidates_without_outcome_or_reasoning_are_counted_and_left_out() -> None:
    questions, trajectories = _project(a1="+-")
    unknown = _candidate("a1", 5, None)
    bare = _candidate("a1", 6, True, text="Final answer: 6")
    account = choose_meta_set(questions, [*trajectories, unknown, bare], 9).account
    assert account.skipped == {"no outcome": 1, "an answer without reasoning": 1}
    assert (account.right, account.wrong) == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        *("B", "(B)", "B.", "**B**", "1 cm", "(B) 1 cm", "The correct answer is (B) 1 cm."),
        *("Final answer: B", "Step 1: The answer is B.", "\\boxed{B}", "Option B", "Paris"),
        *("1,000", "3 + 5 = 8", r"\frac{\sqrt{3}}{\pi}", "x = 1 cm"),
        *("(no response)", "So the final answer is \\boxed{\\text{1 cm}}."),
    ],
)
def test_a_bare_answer_is_no_reasoning(text: str) -> None:
    assert is_bare_answer(_candidate("a", 0, True, "B", text), _question("a", options=4))


@pytest.mark.parametrize(
    "text",
    [
        "The ruler shows two marks, so the answer is B.",
        "Twice 0.5 cm is 1 cm, which is (B).",
        "B, because the bar ends at 1 cm",
        "3 red and 5 blue: 8",
    ],
)
def test_one_step_that_gives_a_reason_is_reasoning(text: str) -> None:
    assert not is_bare_answer(_candidate("a", 0, True, "B", text), _question("a", options=4))
    two = Trajectory(question_id="a", steps=("A", "B"))
    assert not is_bare_answer(two, _question("a", options=4))


def test_sizes_below_one_and_unknown_questions_are_refused() -> None:
    questions, trajectories = _project(a1="+-")
    with pytest.raises(DataError, match="size is 0"):
        choose_meta_set(questions, trajectories, 0)
    with pytest.raises(DataError, match="per_question is -1"):
        choose_meta_set(questions, trajectories, 2, per_question=-1)
    with pytest.raises(DataError, match="'a1', which is not among the questions"):
        choose_meta_set([], trajectories, 2)


@st.composite
def _projects(draw: st.DrawFn) -> Project:
    names = draw(st.lists(st.from_regex(r"\A[abc][0-9]{1,2}\Z"), max_size=14, unique=True))
    return _project(**{name: draw(st.text("+-", max_size=6)) for name in names})


@given(_projects(), st.integers(1, 40), st.integers(1, 4), st.integers(0, 3), st.randoms())
def test_every_meta_set(
    project: Project, size: int, per_question: int, seed: int, random: object
) -> None:
    questions, trajectories = project
    chosen = choose_meta_set(questions, trajectories, size, per_question=per_question, seed=seed)
    keys = [(t.question_id, t.sample_index) for t in chosen.trajectories]
    assert len(set(keys)) == len(keys) <= size
    assert all(t in trajectories for t in chosen.trajectories)
    assert list(dict.fromkeys(i for i, _ in keys)) == [q.id for q in chosen.questions]
    account = chosen.account
    assert len(keys) == account.right + account.wrong == size - account.missing
    assert abs(account.right - account.wrong) <= 1
    assert sum(count.trajectories for count in account.kinds.values()) == len(keys)
    assert sum(count.trajectories for count in account.subjects.values()) == len(keys)
    supply, took = (
        {q.id: Counter(t.outcome for t in some if t.question_id == q.id) for q in questions}
        for some in (trajectories, chosen.trajectories)
    )
    contrast = [i for i in supply if len(supply[i]) == 2]
    assert abs(sum(took[i][True] - took[i][False] for i in contrast)) <= 1
    assert all(n <= per_question for counts in took.values() for n in counts.values())
    pairs = sum(min(per_question, *supply[i].values()) for i in contrast)
    singles = [
        sum(min(per_question, supply[i][side]) for i in supply if i not in contrast)
        for side in (True, False)
    ]
    possible = 2 * pairs + 2 * min(singles) + (singles[0] != singles[1])
    assert len(keys) == min(size, possible)

    random.shuffle(questions)  # type: ignore[attr-defined]
    random.shuffle(trajectories)  # type: ignore[attr-defined]
    again = choose_meta_set(questions, trajectories, size, per_question=per_question, seed=seed)
    assert again.trajectories == chosen.trajectories and again.questions == chosen.questions


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 40), st.integers(0, 3))
def test_a_subject_has_fewer_pairs_than_another_only_if_it_has_no_more(
    supply: list[int], pairs: int, seed: int
) -> None:
    names = [f"{'abcde'[s]}{i}" for s, count in enumerate(supply) for i in range(count)]
    project = _project(**dict.fromkeys(names, "+-"))
    subjects = choose_meta_set(*project, 2 * pairs, seed=seed).account.subjects
    got = [subjects.get("abcde"[s], Count(0, 0)).questions for s in range(len(supply))]
    assert all(n >= max(got) - 1 or n == have for n, have in zip(got, supply, strict=True))


def test_the_bare_letters_of_dreamprm_1_5_stay_out(real_data: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its turn labels
        pair = read_pair(real_data / "dreamprm_1_5" / "meta_MMMU_Pro.json")
    account = choose_meta_set(*pair, 600).account
    assert account.skipped == {"an answer without reasoning": 896}
    assert (account.right, account.wrong, len(account.subjects)) == (300, 300, 30)
    assert account.supply == dict(zip(KINDS, (50, 158, 150), strict=True))
