r"""A question and its answer out of a chat turn, as instruction-tuning sets keep them.

Published sets of this kind (the_cauldron, LLaVA-OneVision-Data, Geo170K, MathV360K) hold a row per
image with turns such as

    user:      Question: What is 3 + 5?\nChoices:\nA. 7\nB. 8\nAnswer with the letter.
    assistant: Answer: B

The choices become options. What tells the model how to answer ("Answer with the letter.", "Give a
very brief answer.", "Hint: Please answer ...") is dropped, because we ask for reasoning instead.
The gold answer is what the assistant states last; a solution that states none is a DataError.
"""

from __future__ import annotations

import re
from typing import Any

from dreamprm.answers import extract_answer
from dreamprm.data.rows import Row
from dreamprm.data.sources.columns import column
from dreamprm.errors import DataError
from dreamprm.prompts import option_letter

_CHOICES = re.compile(r"^[^\S\n]*(?:Choices|Options):[^\S\n]*\n?", re.MULTILINE)
_CHOICE = re.compile(r"\s*(?:\((?P<round>[A-Z])\)|(?P<plain>[A-Z])[.:)])\s*(?P<text>.*)")
_HOW = re.compile(
    r"\s*(?:hint: please answer|first perform reasoning|answer with the|please answer with"
    r"|answer the question (?:using|with)|based on the image, directly|according to the question"
    r" shown in the image, please first).*",
    re.IGNORECASE,
)
_BRIEF = re.compile(
    r"\b(?:brief\w*|short\w*|concise\w*|succinct\w*|terse\w*|quick|compact|brevity|snappy)\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"\b(?:answer\w*|respon\w+|repl(?:y|ies)|keep it|be)\b", re.IGNORECASE)
_LONGEST_HINT = 16  # words of a line that only asks for a short answer
_LONGEST_ANSWER = 30  # words of an answer that is given without a word around it


def cauldron_turns(row: Row) -> list[dict[str, Any]]:
    """Rows `{"text", "options", "answer", "images"}` of a row `{"images", "texts"}`."""
    return [
        _row(column(turn, "user"), column(turn, "assistant"), column(row, "images"))
        for turn in _turns(row, "texts")
    ]


def conversation_turns(row: Row) -> list[dict[str, Any]]:
    """The same of a row `{"image", "conversations": [{"from", "value"}]}` of LLaVA's form."""
    turns = _turns(row, "conversations")
    rows = []
    for human, gpt in zip(turns[::2], turns[1::2], strict=False):
        if (column(human, "from"), column(gpt, "from")) != ("human", "gpt"):
            raise DataError("must be turns of human and gpt by turns", field="conversations")
        rows.append(_row(column(human, "value"), column(gpt, "value"), column(row, "image")))
    if len(turns) % 2:
        raise DataError("the last turn has no answer; remove it", field="conversations")
    return rows


def split_turn(user: str, assistant: str) -> tuple[str, tuple[str, ...], str]:
    r"""Question, options and gold answer of a turn.

    Raises:
        DataError: the choices are not lettered A, B, ..., or no answer is stated.

    Example:
        >>> split_turn("Question: 3 + 5?\nChoices:\n(A) 7\n(B) 8", "The answer is B")
        ('3 + 5?', ('7', '8'), 'B')
        >>> split_turn("How many bars are there?\nGive a very brief answer.", "4.")
        ('How many bars are there?', (), '4')
    """
    lines = [line for line in user.replace("\r\n", "\n").split("\n") if not _HOW.fullmatch(line)]
    asked = "\n".join(_without_brevity(lines))
    options: tuple[str, ...] = ()
    *_, mark = [None, *_CHOICES.finditer(asked)]
    if mark is not None:
        asked, listed = asked[: mark.start()], asked[mark.end() :]
        options = _choices(listed)
    text = re.sub(r"^(\s*(?:<image>\s*)*)Question:\s*", r"\1", asked).strip()
    return text, options, _stated(assistant, options)


def _row(user: Any, assistant: Any, images: Any) -> dict[str, Any]:
    if not isinstance(user, str) or not isinstance(assistant, str):
        raise DataError("a turn must hold two texts; correct or remove the row", field="turns")
    text, options, answer = split_turn(user, assistant)
    return {"text": text, "options": list(options), "answer": answer, "images": images}


def _turns(row: Row, field: str) -> list[dict[str, Any]]:
    turns = column(row, field)
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise DataError("must be a list of turns", field=field)
    if not turns:
        raise DataError("holds no turn; remove the row", field=field)
    return turns


def _without_brevity(lines: list[str]) -> list[str]:
    """Without a first or last line that only asks for a short answer."""
    while len(lines) > 1 and (not lines[-1].strip() or _asks_for_brevity(lines[-1])):
        lines = lines[:-1]
    if len(lines) > 1 and _asks_for_brevity(lines[0]):
        lines = lines[1:]
    return lines


def _asks_for_brevity(line: str) -> bool:
    if "?" in line or len(line.split()) > _LONGEST_HINT:
        return False
    return _BRIEF.search(line) is not None and _ANSWER.search(line) is not None


def _choices(listed: str) -> tuple[str, ...]:
    """'A. x', 'A: x' or '(A) x' on a line each; a line without its letter goes on with the last."""
    options: list[str] = []
    for line in listed.strip().split("\n"):
        match = _CHOICE.fullmatch(line)
        letter = match and (match["round"] or match["plain"])
        if match and letter == option_letter(len(options)):
            options.append(match["text"].strip())
        elif options and line.strip():
            options[-1] = f"{options[-1]} {line.strip()}".strip()
        elif line.strip():
            raise DataError(f"choices must begin with A, not '{line[:40]}'", field="options")
    if not options:
        raise DataError("'Choices:' is followed by no choice", field="options")
    return tuple(options)


def _stated(assistant: str, options: tuple[str, ...]) -> str:
    text = assistant.strip()
    if options or "answer" in text.casefold():
        answer = extract_answer(text, options)
        if answer:
            return answer
    if "\n" not in text and 0 < len(text.split()) <= _LONGEST_ANSWER:
        return text.removesuffix(".") or text
    raise DataError(
        f"the assistant's text states no final answer ('{text[-60:]}'); remove the row",
        field="answer",
    )
