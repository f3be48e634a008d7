"""Questions about a scene and reasonings about them: right ones, slips, and misconceptions.

A *slip* is a random error of one step. A *misconception* is systematic: it depends on the question
alone, so every sample that falls for it reaches the same wrong answer and voting cannot undo it.
Three are planted, each like one that real vision-language models show:

- similar colours are taken for one another (orange for red, purple for blue),
- large values are read too low (8 as 7, 9 as 7: an axis or a dial read as if it ended early),
- "twice x" is worked out as x + 2.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dreamprm.tiny.scene import MAX_VALUE, Scene

OPERATIONS = ("sum", "difference", "twice", "total", "larger")  # on values seen in a picture
ARITHMETIC = "arithmetic"  # on numbers in the question; no picture needed
LOOKS_LIKE = {"orange": "red", "purple": "blue"}


@dataclass(frozen=True)
class Task:
    """A question in symbols: an operation on the values of two or three colours of a scene.

    Attributes:
        stated: the text itself states the values, so that the picture is not needed.
    """

    scene: Scene
    operation: str
    colours: tuple[str, ...]
    stated: bool = False

    @property
    def text(self) -> str:
        a, b, *rest = self.colours
        if self.operation == ARITHMETIC:
            values = [self.scene.value(colour) for colour in self.colours]
            return "what is " + " plus ".join(str(value) for value in values) + " ?"
        question = {
            "sum": f"what is {a} plus {b} ?",
            "difference": f"how far apart are {a} and {b} ?",
            "twice": f"what is twice {a} plus {b} ?",
            "total": f"what is {a} plus {b} plus {rest[0] if rest else ''} ?",
            "larger": f"which is larger , {a} or {b} ?",
        }[self.operation]
        if not self.stated:
            return question
        facts = " , ".join(f"{colour} is {self.scene.value(colour)}" for colour in self.colours)
        return f"{facts} . {question}"


@dataclass(frozen=True)
class Slips:
    """How a writer errs: probability of each kind of error.

    Attributes:
        misconception: that it falls for a misconception where one applies (once per reasoning).
        reading: of a wrong value, per value read.
        arithmetic: of a wrong result, per calculation.
    """

    misconception: float = 0.0
    reading: float = 0.0
    arithmetic: float = 0.0


FAULTLESS = Slips()


@dataclass(frozen=True)
class Reasoning:
    """Steps, whether each is right in itself given the steps before it, and the final answer."""

    steps: tuple[str, ...]
    right: tuple[bool, ...]
    answer: str


def random_task(rng: random.Random, scene: Scene, operations: tuple[str, ...]) -> Task:
    """A question about the scene; a tie between the two of `larger` is drawn again."""
    while True:
        operation = rng.choice(operations)
        count = 3 if operation in ("total", ARITHMETIC) else 2
        task = Task(scene, operation, tuple(rng.sample(scene.colours, count)))
        if operation != "larger" or scene.value(task.colours[0]) != scene.value(task.colours[1]):
            return task


def misread(scene: Scene, colour: str) -> int:
    """The value that the misconceptions make of a colour."""
    if LOOKS_LIKE.get(colour) in scene.colours:
        return scene.value(LOOKS_LIKE[colour])
    return min(scene.value(colour), 7)


def reason(task: Task, rng: random.Random, slips: Slips = FAULTLESS) -> Reasoning:
    """Write a reasoning about a task, with the given kinds of error."""
    return _Writer(task, rng, slips).write()


def right_answer(task: Task) -> str:
    return reason(task, random.Random(0)).answer


def misconceived_answer(task: Task) -> str:
    """Answer of a writer who always falls for the misconceptions; right where none applies."""
    return reason(task, random.Random(0), Slips(misconception=1.0)).answer


def wrong_rule_answer(task: Task) -> str:
    """Answer of an annotator who takes "twice x" for x + 2, "larger" for smaller, apart for sum."""
    a, b = task.colours
    first, second = task.scene.value(a), task.scene.value(b)
    if task.operation == "larger":
        return a if first < second else b
    return str(first + second + (2 if task.operation == "twice" else 0))


class _Writer:
    def __init__(self, task: Task, rng: random.Random, slips: Slips) -> None:
        self.task, self.rng, self.slips = task, rng, slips
        self.misconceived = rng.random() < slips.misconception
        self.steps: list[str] = []
        self.right: list[bool] = []

    def write(self) -> Reasoning:
        task = self.task
        if task.operation != ARITHMETIC:
            self._say("look at " + " and ".join(task.colours), True)
        answer = self._larger() if task.operation == "larger" else str(self._number())
        steps = tuple(f"Step {i}: {text}" for i, text in enumerate(self.steps, start=1))
        return Reasoning(steps, tuple(self.right), answer)

    def _number(self) -> int:
        if self.task.operation == ARITHMETIC:
            values = [self.task.scene.value(colour) for colour in self.task.colours]
        else:
            values = [self._read(colour) for colour in self.task.colours]
        if self.task.operation == "difference":
            low, high = sorted(values)
            return self._calculate(high, "-", low, high - low)
        if self.task.operation == "twice":
            first = values[0]
            if self.misconceived:
                self._say(f"twice {first} = {first + 2}", first == 2)
                doubled = first + 2
            else:
                doubled = self._slip(2 * first)
                self._say(f"twice {first} = {doubled}", doubled == 2 * first)
            values[0] = doubled
        result = values[0]
        for value in values[1:]:
            result = self._calculate(result, "+", value, result + value)
        return result

    def _larger(self) -> str:
        a, b = self.task.colours
        first, second = self._read(a), self._read(b)
        winner = a if first >= second else b
        if self.rng.random() < self.slips.arithmetic:
            winner = b if winner == a else a
        right = (first > second and winner == a) or (second > first and winner == b)
        self._say(f"{winner} is larger", right)
        return winner

    def _read(self, colour: str) -> int:
        true = self.task.scene.value(colour)
        fooled = self.misconceived and not self.task.stated
        value = misread(self.task.scene, colour) if fooled else true
        if self.rng.random() < self.slips.reading:
            near = [v for v in (value - 1, value + 1) if 1 <= v <= MAX_VALUE]
            others = [v for v in self.task.scene.values if v != value]
            value = self.rng.choice(near + others)
        self._say(f"{colour} is {value}", value == true)
        return value

    def _calculate(self, a: int, sign: str, b: int, true: int) -> int:
        value = self._slip(true)
        self._say(f"{a} {sign} {b} = {value}", value == true)
        return value

    def _slip(self, true: int) -> int:
        if self.rng.random() >= self.slips.arithmetic:
            return true
        return max(0, true + self.rng.choice((-2, -1, 1, 2)))

    def _say(self, text: str, right: bool) -> None:
        self.steps.append(text)
        self.right.append(right)
