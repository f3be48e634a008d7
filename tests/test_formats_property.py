"""All formats at once: what they hold survives a round trip; bad rows and bytes are told, not met.

What a format loses is said in the table of formats, so the table is tested here, too: a writer that
lost more than `loses` says would fail, and `dreamprm convert` tells users from the same list.
"""

from __future__ import annotations

import random
import warnings
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from dreamprm.data import DataWarning, known
from dreamprm.data.format import Format
from dreamprm.errors import DataError
from tests.format_records import Pair, fitted, held, pairs
from tests.format_rows import LISTS, mutated, sample_rows, write_rows

FORMATS = list(known.FORMATS.values())
PAIRS = [one for one in FORMATS if one.write and one.holds == "pair"]
MUTATIONS = 10_000

every = pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
written = pytest.mark.parametrize("one", PAIRS, ids=lambda one: one.name)
pytestmark = pytest.mark.filterwarnings("ignore::dreamprm.data.DataWarning")
quick = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def round_trip(one: Format, folder: Path, pair: Pair) -> Pair | None:
    """The records written and read; None if the writer refused them, which leaves no file."""
    path = folder / ("x.json" if one.name in LISTS else "x.jsonl")
    path.unlink(missing_ok=True)
    assert one.write is not None
    try:
        one.write(path, *pair)
    except DataError:
        assert not path.exists()
        assert not list(folder.glob(".x*"))
        return None
    if not pair[1]:
        return [], []  # a file without rows shows no format
    assert known.detect(path) is one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        records = one.read(path)
    return records.questions, records.trajectories


@written
@given(pair=pairs())
@quick
def test_plain_records_come_back_as_far_as_the_format_says(
    one: Format, pair: Pair, tmp_path: Path
) -> None:
    pair = fitted(one, *pair, plain=True)
    again = round_trip(one, tmp_path, pair)
    assert again is not None
    assert held(one, *again, plain=True) == held(one, *pair, plain=True)


@written
@given(pair=pairs())
@quick
def test_records_with_any_text_come_back_or_are_refused(
    one: Format, pair: Pair, tmp_path: Path
) -> None:
    pair = fitted(one, *pair, plain=False)
    if (again := round_trip(one, tmp_path, pair)) is not None:
        assert held(one, *again, plain=False) == held(one, *pair, plain=False)


@written
@given(pair=pairs())
@quick
def test_arbitrary_records_are_written_or_refused_in_one_error(
    one: Format, pair: Pair, tmp_path: Path
) -> None:
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    assert one.write is not None
    try:
        one.write(path, *pair)
    except DataError:
        assert not path.exists()


@every
def test_mutated_rows_give_records_or_are_told_one_by_one(one: Format, tmp_path: Path) -> None:
    rng = random.Random(one.name)
    good = sample_rows(one, tmp_path)
    rows = [mutated(rng.choice(good), rng) for _ in range(MUTATIONS)]
    bad: list[DataError] = []
    records = one.read(write_rows(one, tmp_path, rows), bad_row=bad.append)
    assert bad
    assert all(isinstance(error, DataError) and error.file for error in bad)
    if one.name in ("questions", "mathvision"):
        return  # ids must be unique, and mutations of few rows share theirs
    assert sum(len(part) for part in records) > MUTATIONS // 100


@written
def test_what_was_read_of_mutated_rows_can_be_written_or_is_refused(
    one: Format, tmp_path: Path
) -> None:
    rng = random.Random(f"write {one.name}")
    good = sample_rows(one, tmp_path)
    for _ in range(20):
        rows = [mutated(rng.choice(good), rng) for _ in range(20)]
        records = one.read(write_rows(one, tmp_path, rows), bad_row=lambda error: None)
        for name in (one.name, "questions", "trajectories"):
            path = tmp_path / ("back.json" if name in LISTS else "back.jsonl")
            write = known.find(name).write
            assert write is not None
            with suppress(DataError):
                write(path, records.questions, records.trajectories)


@every
def test_a_file_with_damaged_bytes_is_read_or_refused_in_one_error(
    one: Format, tmp_path: Path
) -> None:
    rng = random.Random(one.name)
    path = write_rows(one, tmp_path, sample_rows(one, tmp_path))
    whole = path.read_bytes()
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 3))):
            damaged[rng.randrange(len(damaged))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        known.detect(path)
        with suppress(DataError):
            one.read(path)


@every
def test_a_file_that_is_cut_off_is_refused_in_one_error(one: Format, tmp_path: Path) -> None:
    rng = random.Random(one.name)
    path = write_rows(one, tmp_path, sample_rows(one, tmp_path))
    whole = path.read_bytes().rstrip()
    ends = {i for i in range(len(whole)) if whole[i : i + 1] == b"\n"}
    cuts = [i for i in range(1, len(whole)) if not {i, i - 1} & ends]
    for at in rng.sample(cuts, 20):
        path.write_bytes(whole[:at])
        with pytest.raises(DataError, match=path.name):
            one.read(path)
