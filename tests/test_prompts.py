"""Prompts ask for what the splitter understands; text becomes steps and text again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dreamprm.prompts import PROMPTS
from dreamprm.records import Question
from dreamprm.steps import (
    join_steps,
    opening,
    split_open,
    split_steps,
    starts_over,
    step_end,
    step_stops,
)

CHOICE = Question(id="q", domain="d", text="How many?", options=("7", "8"), answer="B")
OPEN = Question(id="q", domain="d", text="How many?", answer="8")


@pytest.mark.parametrize("name", PROMPTS)
def test_every_prompt_holds_the_question_and_its_lettered_options(name: str) -> None:
    assert PROMPTS[name](CHOICE).startswith("How many?\nOptions: (A) 7 (B) 8")
    assert "(A)" not in PROMPTS[name](OPEN)


def test_the_five_step_prompt_asks_for_five_steps_and_a_final_answer() -> None:
    prompt = PROMPTS["five_steps"](CHOICE)
    assert [f"Step {i}:" in prompt for i in range(1, 7)] == [True] * 5 + [False]
    assert '"Final answer: " followed by the letter of the right option' in prompt
    assert '"Final answer: " followed by the answer' in PROMPTS["plain"](OPEN)


def test_marked_text_is_split_at_its_marks() -> None:
    text = "Step 1: find red\nStep 2: red is 3\nStep 3: 3 + 5 = 8\nFinal answer: 8"
    steps = ["Step 1: find red", "Step 2: red is 3", "Step 3: 3 + 5 = 8"]
    assert split_steps(text) == (steps, "8")
    assert join_steps(steps, "8") == text


@pytest.mark.parametrize(
    "mark",
    [
        "Step 2:",
        "step 2.",
        "**Step 2:**",
        "**Step 2**:",
        "### Step 2",
        "### **Step 2:**",
        "- Step 2)",
    ],
)
def test_marks_are_found_however_they_are_dressed(mark: str) -> None:
    steps, answer = split_steps(f"Step 1: one\n\n{mark} two\n\n**Final Answer:** 8\n")
    if mark == "### Step 2":
        steps, answer = split_steps(f"Step 1: one\n\n{mark}\ntwo\n\n**Final Answer:** 8\n")
        assert steps == ["Step 1: one", "### Step 2\ntwo"]
    else:
        assert steps == ["Step 1: one", f"{mark} two"]
    assert answer == "8"


def test_step_1_is_not_found_inside_step_10() -> None:
    marks = [f"Step {i}: go" for i in range(1, 13)]
    assert split_steps("\n".join(marks)) == (marks, None)


@pytest.mark.parametrize("prose", ["Step 1 gave us 3.", "Step 1.5 is no mark", "as in Step 1: 3"])
def test_prose_about_a_step_is_no_mark(prose: str) -> None:
    assert split_steps(f"Step 1: read\nStep 2: add\n{prose}") == (
        ["Step 1: read", f"Step 2: add\n{prose}"],
        None,
    )


def test_what_stands_before_the_first_mark_belongs_to_the_first_step() -> None:
    assert split_steps("Let us see.\n\nStep 1: one\nStep 2: two")[0] == [
        "Let us see.\n\nStep 1: one",
        "Step 2: two",
    ]


def test_without_marks_paragraphs_are_steps_and_without_paragraphs_lines() -> None:
    assert split_steps("one\nstill one\n\ntwo\nFinal answer: 8") == (["one\nstill one", "two"], "8")
    assert split_steps("one\ntwo\nFinal answer: 8") == (["one", "two"], "8")


def test_a_final_answer_may_stand_in_the_line_below_its_heading() -> None:
    assert split_steps("Step 1: one\n### Final Answer:\nFinal answer: A") == (["Step 1: one"], "A")
    assert split_steps("Step 1: one\n### Final Answer:\nA") == (["Step 1: one"], "A")


def test_a_final_answer_that_was_cut_off_does_not_hide_the_one_before() -> None:
    assert split_steps("Step 1: one\nFinal answer: B\n\nFinal answer") == (["Step 1: one"], "B")


def test_a_text_of_nothing_but_an_answer_has_no_steps() -> None:
    assert split_steps("Final answer: 8") == ([], "8")
    assert split_steps("") == ([], None)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        (
            "<step>a\n\nb</step><step>c</step>\nso d",
            ["<step>a\n\nb</step>", "<step>c</step>", "so d"],
        ),
        ("<think>\na\n\nb\n</think>\n\nc", ["<think>\na", "b\n</think>", "c"]),
        ("Look:\n\n1. a\n\n   b\n2. c\n\nso d", ["Look:\n\n1. a\n\n   b", "2. c", "so d"]),
        ("1. a\n   1. x\n   2. y\n2. b", ["1. a\n   1. x\n   2. y", "2. b"]),
        ("2. a\n3. b\n\nc", ["2. a\n3. b", "c"]),
        ("a\n\nb\n\n1. c\n2. d", ["a", "b", "1. c\n2. d"]),
        ("## A\n1. x\n2. y\n\nz\n## B\nb", ["## A\n1. x\n2. y\n\nz", "## B\nb"]),
        ("**Look**\n\na\n\n**Add:** b\n\nc", ["**Look**\n\na", "**Add:** b\n\nc"]),
        ("# Solution\n\na\n\nb", ["# Solution\n\na", "b"]),
        ("a\n\n***\n\nb\nc\n----", ["a", "b\nc"]),
        (
            "Step 1: a\n```\n# Step 2: no\n```\nStep 2: b",
            ["Step 1: a\n```\n# Step 2: no\n```", "Step 2: b"],
        ),
        ("a\n\\[\n\nx\n\\]\n\nb", ["a\n\\[\n\nx\n\\]", "b"]),
        ("a ```\n\n$$ b\n\nc", ["a ```", "$$ b", "c"]),
    ],
)
def test_the_strongest_evidence_decides_where_steps_begin(text: str, steps: list[str]) -> None:
    assert split_steps(text) == (steps, None)
    assert split_steps(join_steps(steps)) == (steps, None)


@pytest.mark.parametrize(
    "end",
    ["**Final Answer**\n\n8", "Answer: 8", "**Answer:**\nAnswer: 8", "### Answer\n8"]
    + ["<answer>\n8\n</answer>", "Final answer: <answer>8</answer>", "\u7b54\u6848\uff1a8"],
)
def test_an_answer_at_the_end_is_no_step(end: str) -> None:
    assert split_steps(f"one\n\ntwo\n\n{end}") == (["one", "two"], "8")


def test_a_plain_answer_that_is_not_the_end_is_a_step() -> None:
    assert split_steps("Answer: 8\n\nFor 3 + 5 = 8.") == (["Answer: 8", "For 3 + 5 = 8."], None)


def test_written_cases_are_split_as_they_say(real_data: Path) -> None:
    for line in (real_data / "responses" / "minimal.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] != "split":
            continue
        steps, answer = split_steps(row["text"])
        assert len(steps) == len(row["expected_steps"]), row["id"]
        for step, said in zip(steps, row["expected_steps"], strict=True):
            assert said in step and len(step) < len(said) + 20, row["id"]
        assert row["expected_answer"] in (None, answer), row["id"]


def test_a_text_beyond_all_bounds_has_few_steps() -> None:
    assert split_steps("a\n" * 2_000_000) == (["a\n" * 1_999_999 + "a"], None)
    steps, answer = split_steps("a\n\n" * 5000 + "Final answer: 8")
    assert (len(steps), answer) == (2000, "8")


pieces = st.lists(
    st.sampled_from(
        ["Step 1:", "Step 10:", "### Step 2", "**Step 3.**", "Final answer:", "Final answer is"]
        + ["1. ", "2. ", "   2. ", "(1)", "(2)", "## A", "**B**", "**C:** ", "---", "Answer: "]
        + ["<step_1>", "</step_1>", "<think>", "</think>", "<answer>", "</answer>", "8"]
        + ["\u6b65\u9aa41:"]
        + ["```", "$$", "\\[", "\\]", "\\begin{a}", "\\end{a}"]
        + ["\n", "\n\n", " ", "\x0b", "\x85", "**", "- ", "Step 4", "a", ".", ":"]
    )
    | st.text(max_size=3),
    max_size=14,
).map("".join)


@given(pieces)
@example("a\nb\n\nc")
def test_joining_the_steps_and_splitting_them_gives_them_back(text: str) -> None:
    steps, answer = split_steps(text)
    assert split_steps(join_steps(steps, answer)) == (steps, answer)


@given(pieces)
def test_splitting_loses_nothing_but_white_space_rules_and_the_answer(text: str) -> None:
    def without(text: str) -> str:
        return re.sub(r"[\s*=#>_-]", "", text)  # of which rules are made

    steps, _ = split_steps(text)
    assert without(text).startswith(without("".join(steps)))


@pytest.mark.parametrize(
    ("begun", "text", "first"),
    [
        ((), "Step 1: a\nStep 2: b", "Step 1: a\n"),
        ((), "Let us see.\n\nStep 1: a\n**Step 2:** b", "Let us see.\n\nStep 1: a\n"),
        (("Step 1: a",), "Step 2: b\nStep 3: c", "Step 2: b\n"),
        (("Step 1: a",), "and more\nStep 2: b\nStep 3: c", "and more\nStep 2: b\n"),
        ((), "first part\n\nsecond part, which is long", "first part"),
        (("first part",), "second part\n \nthird part, which is long", "second part"),
        ((), "Step 1: a\n\nstill the first step, of two paragraphs", None),
        ((), "Step 1: a\nStep 2", None),  # perhaps "Step 2 gave us"
        ((), "first part\n\nStep 1:", None),  # a preamble
        ((), "first part\n\n", None),
        (("Step 1: a",), "Step 2: b\n\nstill the second, of two paragraphs", None),
        ((), "Step 1: a\nFinal answer: 8", None),
        ((), "one part\nFinal answer: 8\n\nand a word that nobody wants", None),
    ],
)
def test_the_end_of_a_step_is_seen_while_the_text_is_written(
    begun: tuple[str, ...], text: str, first: str | None
) -> None:
    end = step_end(opening(begun), text)
    assert (None if end is None else text[:end]) == first
    if end is not None:
        whole, _ = split_steps(opening(begun) + text)
        alone = split_open(opening(begun) + text[:end])
        assert whole[: len(alone)] == alone


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from(["look at it", "3 + 5 = 8", "so it is\nmore"]), min_size=1),
    st.sampled_from(
        ["Step {}: ", "**Step {}:** ", "### Step {}\n", "- step {}. ", "<step_{}>", "{}. ", ""]
    ),
    st.data(),
)
def test_a_text_read_letter_by_letter_ends_where_its_steps_end(
    said: list[str], mark: str, data: st.DataObject
) -> None:
    steps = [mark.format(i) + words for i, words in enumerate(said, start=1)]
    known = data.draw(st.integers(0, len(steps) - 1))
    begun = opening(steps[:known])
    text = join_steps(steps, "8")[len(begun) :]
    ends = [end for i in range(len(text) + 1) if (end := step_end(begun, text[:i])) is not None]
    if known == len(steps) - 1:
        assert not ends
    elif ends:  # unmarked short paragraphs may be over before they are told apart from a preamble
        assert split_open(begun + text[: ends[0]]) == steps[: known + 1]
    else:
        assert not mark


@pytest.mark.parametrize(
    ("text", "steps", "anew"),
    [
        ("Step 3: 8", ["Step 1: red is 3", "Step 2: blue is 5"], False),
        ("**Step 1**: red is 4", ["Step 1: red is 3"], True),
        ("<think>\nHm.\n</think>\nStep 1: red is 4", ["Step 1: red is 3"], True),
        ("Final answer: 8\n\nAnother question\nStep 1: look", ["Step 1: red is 3"], False),
        ("Step 1: add them", ["Let us begin."], False),
        ("1. add them", ["2. See here:"], False),
        ("We look at the picture.\n\nRed is 4.", ["We look at the picture.", "Red is 3."], True),
        ("<step>two</step>", ["<step>one</step>"], False),
    ],
)
def test_a_text_that_starts_over_is_told_from_one_that_goes_on(
    text: str, steps: list[str], anew: bool
) -> None:
    assert starts_over(text, steps) == anew


def test_a_server_is_told_to_stop_at_the_mark_as_the_model_writes_it() -> None:
    assert step_stops(["### Step 9\nx"], marked=False) == ["\n### Step 11"]
    assert step_stops(["a preamble", "**Step 1:** x"], marked=True) == ["\n**Step 3"]
    assert step_stops(["some words"], marked=True) == ["\n\n"]
