"""What the policy is asked.

The five-step prompt is the paper's structured thinking (arXiv 2505.20241, appendix) in our words.
"""

# ruff: noqa: F401 - the functions of `steps` go by this module's name too

from __future__ import annotations

from collections.abc import Callable

from dreamprm.records import Question
from dreamprm.steps import (
    is_marked,
    join_steps,
    opening,
    split_open,
    split_steps,
    step_end,
    step_stops,
)

_FIVE_STEPS = """Solve the task in exactly five steps, each on its own line and begun with its mark:
Step 1: say in your own words what is asked.
Step 2: collect the facts that the image shows and that matter here.
Step 3: name the background knowledge that is needed.
Step 4: reason from these facts and this knowledge.
Step 5: sum up and draw the conclusion.
Then close with one more line: "Final answer: " followed by {answer} and nothing else."""

_PLAIN = (
    "Think step by step. "
    'Close with the line "Final answer: " followed by {answer} and nothing else.'
)


def question_text(question: Question) -> str:
    """The question and, where there are any, its options as '(A) ... (B) ...'."""
    if not question.options:
        return question.text
    options = " ".join(
        f"({option_letter(i)}) {option}" for i, option in enumerate(question.options)
    )
    return f"{question.text}\nOptions: {options}"


def option_letter(index: int) -> str:
    """0 -> A, 1 -> B, ..."""
    return chr(ord("A") + index)


def _with(instruction: str) -> Callable[[Question], str]:
    def prompt(question: Question) -> str:
        answer = "the letter of the right option" if question.options else "the answer"
        return f"{question_text(question)}\n\n{instruction.format(answer=answer)}"

    return prompt


MARKED = frozenset({"five_steps"})
"""Names of those that ask for step marks."""

PROMPTS: dict[str, Callable[[Question], str]] = {
    "five_steps": _with(_FIVE_STEPS),
    "plain": _with(_PLAIN),
    "bare": question_text,  # the embedded tiny policy has learned its format and needs no telling
}
"""Name -> function from a question to the text that the policy is sent."""
