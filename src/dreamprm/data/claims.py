"""What rows of outside formats say that no record holds, for the account of `dreamprm validate`.

A row without a response cannot become a trajectory, and labels that carry nothing are left out on
reading; both are defects that a user must be told. So they are looked for in the rows themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from dreamprm.data.text import split_response


class Claim(NamedTuple):
    """What a row says.

    Attributes:
        has_response: does it hold a response?
        outcome: is its answer right? None where the row does not say.
        text: question and response, by which rows are compared; None where records do that.
        images: those of the question, as text.
        labels: was each step called right? None where records hold the labels.
    """

    has_response: bool = True
    outcome: bool | None = None
    text: str | None = None
    images: str = ""
    labels: tuple[bool, ...] | None = None


def meta_claim(row: Mapping[str, Any]) -> Claim:
    """Of a row of DreamPRM's meta.json."""
    text = row.get("input")
    if not isinstance(text, str):
        return Claim()
    return Claim(
        has_response=bool(split_response(text)[1]),
        outcome=_bool(row.get("true_false")),
        text=" ".join(text.split()),
        images=json.dumps(row.get("image_path")),
    )


def train_claim(row: Mapping[str, Any]) -> Claim:
    """Of a row of DreamPRM's train.json."""
    add = row.get("add")
    return Claim(has_response=bool(isinstance(add, str) and add.strip()))


def visualprm_claim(row: Mapping[str, Any]) -> Claim:
    """Of a conversation, whose labels are left out on reading where they carry nothing."""
    turns = row.get("conversations")
    said = [
        turn["value"].strip() == "+"
        for turn in (turns if isinstance(turns, list) else ())
        if isinstance(turn, dict)
        and turn.get("from") == "gpt"
        and isinstance(turn.get("value"), str)
    ]
    return Claim(outcome=_bool(row.get("true_false")), labels=tuple(said))


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None
