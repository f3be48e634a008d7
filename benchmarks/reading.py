"""How long reading answers and judging them takes, against math-verify's reader on the same texts.

    python -m benchmarks.reading [--output docs/results/reading.json]

Responses of about 180 characters in the forms that models write: options named and lettered, boxed
values, numbers in words and units, reasoning without an answer. Each is read, and read and judged
against a gold answer, the three taking turns in one run; medians. Ours must know the options of a
question and reject what only looks like an answer; math-verify looks for values alone, so that the
ratio says what the order of evidence costs and not who reads better (docs/ANSWERS.md does).
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import math_verify

from dreamprm.answers import read_answer, verdict_on
from dreamprm.data.files import atomic_write
from dreamprm.records import Question

ENDS = (
    "So the answer is ({letter}).",
    "Final answer: {letter}. {option}",
    "Therefore \\boxed{{{value}}}.",
    "The total length is {value} cm.",
    "**Answer:** {option}",
    "It cannot be told from the picture.",
)
WORDS = ["the", "bar", "of", "red", "is", "near", "where", "blue", "was", "and", "we", "look"]


def make(count: int) -> list[tuple[Question, str]]:
    """Questions with a response each."""
    rng = random.Random(0)
    pairs = []
    for i in range(count):
        options = tuple(f"{value} m" for value in rng.sample(range(10, 99), 4))
        right = rng.randrange(4)
        value = rng.randint(2, 999)
        has_options = i % 2 == 0
        question = Question(
            id=str(i),
            domain="d",
            text="What is it?",
            options=options if has_options else (),
            answer="ABCD"[right] if has_options else str(value),
        )
        said = " ".join(rng.choices(WORDS, k=35))
        end = rng.choice(ENDS).format(letter="ABCD"[right], option=options[right], value=value)
        pairs.append((question, f"Step 1: {said}.\n\n{end}"))
    return pairs


def read_and_judge(question: Question, text: str) -> object:
    return verdict_on(question, read_answer(text, question.options).answer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--responses", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/results/reading.json"))
    args = parser.parse_args()
    pairs = make(args.responses)
    work: dict[str, Callable[[Question, str], object]] = {
        "read": lambda question, text: read_answer(text, question.options),
        "read and judged": read_and_judge,
        "math-verify's reader": lambda _, text: math_verify.parse(text, parsing_timeout=None),
    }
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(args.repeats):
        for name, do in work.items():
            start = time.process_time()
            for question, text in pairs:
                do(question, text)
            seconds[name].append(time.process_time() - start)
    each = {name: 1e3 * statistics.median(took) / len(pairs) for name, took in seconds.items()}
    peer = each["math-verify's reader"]
    result = {
        "characters": statistics.mean(len(text) for _, text in pairs),
        "milliseconds": each,
        "against_math_verify": {name: took / peer for name, took in each.items()},
    }
    with atomic_write(args.output) as file:
        file.write(json.dumps(result, indent=2).encode() + b"\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
