"""Text from a policy is read in linear time, whatever it holds.

Each function reads each kind of nasty text at 2,500 and at 25,000 characters. A quadratic one
needs a hundred times as long for the longer text; ten times is linear, 15 is allowed.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from dreamprm.answers import read_answer, verdict
from dreamprm.answers.text import clean
from dreamprm.steps import join_steps, split_open, split_steps, step_end

SHORT, LONG = 2_500, 25_000
MOST = 1.5 * LONG / SHORT
FLOOR_S = 0.004
"""What takes less at the short length is called this much: a clock's noise is no growth."""

OPTIONS = ("Rome", "Paris", "2", "\u221a2")

READERS: dict[str, Callable[[str], object]] = {
    "split_steps": split_steps,
    "split_open": split_open,
    "step_end": lambda text: step_end("1. one\n\n2. two\n\n", text),
    "read_answer": read_answer,
    "read_answer of a choice": lambda text: read_answer(text + "7", OPTIONS),
    "verdict": lambda text: verdict(text, "8"),
    "verdict on a choice": lambda text: verdict(text, "B", OPTIONS),
    "join_steps": lambda text: join_steps(text.split("\n"), "8"),
}
"""Name -> what reads a text."""

PIECES = [
    *["-", "_", "*", "=", "#", ">", "~", "$", "\\", "(", "[", "{", "<", " ", "\n", "a"],
    *["- ", "> ", "---\n", "\n\n\n---", " \n", "a\n", "a\n\n", "x_", "1.", "1. a\n", "   1. a\n"],
    *["**", "**a:** b\n", "## A\n", "```\n", "```py\n", "$$\n\n", "\\[\n", "\\begin{a}\n\\end{b}"],
    *["\\boxed{", "\\begin", "<answer>", "<answer>8</answer>\n"],
    *["<step_1>", "</step_1>\n", "<step "],
    *["<think>\n</think>\n", "Step 1:\n", "step ", "Step 1 of ", "Final answer:\n", "Answer: 8\n"],
    *["the answer is ", "答案", "第一步", "so ", "A ", "A, ", "(A) ", "\nHuman: ", "one ", "1,"],
    *["is correct ", "option is ", "\\text{", "]", ")", "}", "?", "`", "|"],
]
"""A nasty text is one of these again and again."""


@pytest.mark.parametrize("reader", READERS)
def test_time_grows_as_the_text_does(reader: str) -> None:
    texts = {
        piece: [piece * (length // len(piece)) for length in (SHORT, LONG)] for piece in PIECES
    }
    texts["a gap within a line"] = ["x" + " " * length + "y (" for length in (SHORT, LONG)]
    slow = {name: growth for name, two in texts.items() if (growth := _growth(reader, *two)) > MOST}
    assert slow == {}, f"{LONG // SHORT} times the text took so many times as long"


def _growth(reader: str, short: str, long: str) -> float:
    read = READERS[reader]
    for _ in range(3):  # a busy machine may spoil one measurement
        growth = _seconds(read, long) / max(FLOOR_S, _seconds(read, short))
        if growth <= MOST:
            break
    return growth


def _seconds(read: Callable[[str], object], text: str) -> float:
    clean.cache_clear()
    gc.disable()
    try:
        began = time.process_time()
        read(text)
        return time.process_time() - began
    finally:
        gc.enable()
