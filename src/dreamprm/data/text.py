"""Question and response as one text, as outside files hold them, and back."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dreamprm.prompts import option_letter, question_text
from dreamprm.records import Question
from dreamprm.steps import join_steps, split_steps

_HEAD = re.compile(r"\A(?:<image>\s*)*(?:### Question:\s*)?(?:<image>\s*)*(?:Question:\s)?")
_OPTIONS = re.compile(r"\n\s*Options:\s*(?=\(A\))")


def parse_question(text: str) -> tuple[str, tuple[str, ...]]:
    """Split 'Question: ... Options: (A) ... (B) ...' into the question and its options."""
    text = text[_head_length(text) :].strip()
    *_, last = [None, *_OPTIONS.finditer(text)]
    if last is None:
        return text, ()
    options: list[str] = []
    rest = text[last.end() :].removeprefix("(A)")
    while True:
        before, mark, rest = rest.partition(f"({option_letter(len(options) + 1)})")
        options.append(before.strip())
        if not mark:
            break
    return text[: last.start()].strip(), tuple(options)


def render_question(question: Question) -> str:
    """The text that `parse_question` reads."""
    return f"Question: {question_text(question)}"


def split_response(text: str) -> tuple[str, str]:
    """Split a question and the response that follows it after an empty line.

    The first empty line behind the options is the border. Without options it is the first empty
    line, provided that a step mark or a final answer follows (else it is taken for a paragraph of
    the question).
    """
    options = _OPTIONS.search(text)
    border = text.find("\n\n", options.end() if options else _head_length(text))
    if border < 0:
        return text, ""
    response = text[border:].strip()
    if options is None:
        _, answer = split_steps(response)
        if answer is None and not re.search(
            r"^\W*step\s+1\b", response, re.IGNORECASE | re.MULTILINE
        ):
            return text, ""
    return text[:border], response


def parse_response(response: str) -> tuple[str, ...]:
    """The steps of a response; one that holds nothing but an answer is itself the only step."""
    steps, _ = split_steps(response)
    return tuple(steps) or (response.strip(),)


def render_response(steps: Sequence[str], answer: str | None) -> str:
    """The text from which `parse_response` reads these steps."""
    if len(steps) == 1 and not split_steps(steps[0])[0]:
        return steps[0]
    return join_steps(steps, answer)


def _head_length(text: str) -> int:
    match = _HEAD.match(text)
    return match.end() if match else 0
