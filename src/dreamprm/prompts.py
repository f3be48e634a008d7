"""What the policy is asked, and how its text becomes steps.

The five-step prompt is the paper's structured thinking (arXiv 2505.20241, appendix) in our words.
A step keeps the mark the model wrote ("Step 2: ..."), because a prefix must be continued exactly as
it was written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

from dreamprm.records import Question

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


# A mark opens a line: "Step 1:", "Step 1.", "**Step 1:** ...", "### Step 1", "- Step 1)". After the
# number there must be a delimiter or the line's end, so "Step 1" is never found inside "Step 10"
# and prose such as "Step 1 gave us 5" is no mark.
_MARK = re.compile(
    r"^[^\S\n]*(?:[#>*_-]+[^\S\n]*)*step[^\S\n]+(?P<number>\d+)(?!\d)"
    r"(?:[*_]*[^\S\n]*(?:[:)\u2013\u2014-]|\.(?!\d))|[*_]*[^\S\n]*$)",
    re.IGNORECASE | re.MULTILINE,
)
_FINAL = re.compile(
    r"^[^\S\n]*(?:[#>*_-]+[^\S\n]*)*(?:the[^\S\n]+)?final[^\S\n]+answer[*_]*"
    r"(?:[^\S\n]+is\b[^\S\n]*:?|[^\S\n]*:)[*_]*[^\S\n]*",
    re.IGNORECASE | re.MULTILINE,
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_TELLING = 16  # characters of a paragraph that show whether it begins with a mark


def split_steps(text: str) -> tuple[list[str], str | None]:
    r"""Split a response into its steps and the text of its final answer.

    Steps begin at lines with a step mark; what comes before the first mark belongs to the first
    step. Without marks, paragraphs are the steps; without paragraphs, lines. The final-answer line
    and all that follows it is no step.

    Returns:
        The steps in order (none when the text holds nothing but an answer), and what stands after
        the last "Final answer:" (None when there is no such line or it is empty).

    Example:
        >>> split_steps("Step 1: red is 3\nStep 2: 3 + 5 = 8\nFinal answer: 8")
        (['Step 1: red is 3', 'Step 2: 3 + 5 = 8'], '8')
    """
    marks = [match.start() for match in _MARK.finditer(text)]
    finals = list(_FINAL.finditer(text, marks[-1] if marks else 0))
    answer = None
    if finals:
        after = text[finals[-1].end() :].strip()
        answer = after.split("\n", 1)[0].strip() or None
        text = text[: finals[0].start()]
    if marks:
        bounds = [0, *marks[1:], len(text)]
        parts = [text[start:end] for start, end in pairwise(bounds)]
    else:
        parts = _PARAGRAPH.split(text.strip())
        if len(parts) == 1:
            parts = parts[0].split("\n")
    return [step for part in parts if (step := part.strip())], answer


def step_end(begun: str, text: str) -> int | None:
    r"""Where in a text that is still being written its first whole step ends; None if it has not.

    Decided by what `split_steps` will make of it: a marked step ends before the next mark, an
    unmarked one at the end of its paragraph once the next one is seen not to begin with a mark.
    The last step, which a final answer follows, has no such end: the policy ends it.

    Args:
        begun: `opening` of the steps that it goes on behind.

    Example:
        >>> text = "Step 2: add them\nStep 3: 4"
        >>> text[:step_end("Step 1: look\n", text)]
        'Step 2: add them\n'
    """
    # A mark counts once something stands behind it: "Step 1" may become prose, or "Step 10".
    marks = [m.start() for m in _MARK.finditer(text) if m.end() < len(text)]
    if marks:
        return marks[1] if len(marks) > 1 else None
    if _MARK.search(begun) or _FINAL.search(text):
        return None
    paragraph = _PARAGRAPH.search(text, len(text) - len(text.lstrip()))
    if paragraph is None or len(text) - paragraph.end() < _TELLING:
        return None
    return paragraph.start()


def split_open(text: str) -> list[str]:
    r"""Steps of a text that was stopped at the end of one, as if the next one had begun.

    The line of a final answer that is still to come is the last of them, so that it can follow.

    Example:
        >>> split_open("one paragraph\nof two lines")
        ['one paragraph\nof two lines']
    """
    finals = list(_FINAL.finditer(text))
    if finals and not text[finals[-1].end() :].strip():
        return [*split_open(text[: finals[-1].start()]), finals[-1][0].strip()]
    return split_steps(text + ("\nStep 0: on" if _MARK.search(text) else "\n\non"))[0][:-1]


def step_stops(steps: Sequence[str], marked: bool) -> list[str]:
    """Texts at which a server is to stop so that it writes one step; at most four, as OpenAI takes.

    Args:
        steps: that it goes on behind. The next mark is expected as their last one is written.
        marked: are marks asked for? It decides where there are no steps to look at.
    """
    marks = [m for step in steps for m in _MARK.finditer(step)]
    if marks:
        last = marks[-1]
        mark = last[0][: last.start("number") - last.start()]
        return [f"\n{mark}{int(last['number']) + 2}"]
    if steps or not marked:
        return ["\n\n"]
    return [f"\n{ornament}Step 2" for ornament in ("", "**", "### ", "## ")]


def opening(steps: Sequence[str]) -> str:
    """Steps as the beginning of an answer that a policy is to continue; "" for none."""
    if not steps:
        return ""
    return join_steps(steps) + ("\n" if is_marked(steps) else "\n\n")


def is_marked(steps: Sequence[str]) -> bool:
    """Does one of them bear a step mark?"""
    return any(map(_MARK.search, steps))


def join_steps(steps: Sequence[str], answer: str | None = None) -> str:
    """Steps and answer as one text; `split_steps` of it gives them back.

    Marked steps stand on lines of their own; steps without marks are set apart by an empty line,
    because each may hold several lines.
    """
    body = ("\n" if is_marked(steps) else "\n\n").join(steps)
    if answer is None:
        return body
    return f"{body}\nFinal answer: {answer}" if body else f"Final answer: {answer}"
