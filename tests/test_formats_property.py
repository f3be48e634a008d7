"""All formats at once: bad rows and damaged bytes are told in one error each, and nothing worse."""

from __future__ import annotations

import random
from contextlib import suppress
from pathlib import Path

import pytest

from dreamprm.data import known
from dreamprm.data.format import Format
from dreamprm.errors import DataError
from tests.format_rows import mutated, sample_rows, write_rows

FORMATS = list(known.FORMATS.values())
MUTATIONS = 1_000

every = pytest.mark.parametrize("one", FORMATS, ids=lambda one: one.name)
pytestmark = pytest.mark.filterwarnings("ignore::dreamprm.data.DataWarning")


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
    assert (
        len(records.questions) + len(records.trajectories) + len(records.scores) > MUTATIONS // 100
    )


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
        with suppress(DataError):
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
