"""Files of records and of the formats that are read: bytes, fields and types changed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tests.attack import Case

TRIED = "JSON and JSONL files of every format, changed at random"
COUNT = 40


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    for number in range(count):
        path = folder / f"{number}.jsonl"
        good = b'{"id": "q", "domain": "d", "text": "What?", "answer": "1"}\n'
        changed = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        path.write_bytes(bytes(changed))
        yield Case(f"questions.jsonl, bytes, {number}", ["validate", str(path)])
