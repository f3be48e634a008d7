"""Records become a `datasets.Dataset` and come back the same."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dreamprm.data.arrow import from_dataset, to_dataset
from dreamprm.errors import DataError
from dreamprm.records import Label, Question, Record, Trajectory
from tests.record_strategies import LISTS

datasets = pytest.importorskip("datasets")

FEW = settings(max_examples=25, deadline=None)
QUESTION = {"id": "q", "domain": "d", "text": "How many?", "answer": "8"}


@pytest.mark.parametrize("kind", LISTS)
@FEW
@given(data=st.data())
def test_records_come_back_the_same(kind: type[Record], data: st.DataObject) -> None:
    records = data.draw(LISTS[kind])
    assert from_dataset(to_dataset(records, kind), kind) == records


@pytest.mark.parametrize("kind", LISTS)
def test_a_set_without_rows_has_all_columns(kind: type[Record]) -> None:
    dataset = to_dataset([], kind)
    assert dataset.column_names == list(kind.model_fields)
    assert from_dataset(dataset, kind) == []


def test_the_library_shows_our_images(png: bytes) -> None:
    dataset = to_dataset([Question(**QUESTION, images=(png,))], Question)
    assert isinstance(dataset.features["images"].feature, datasets.Image)
    assert dataset[0]["images"][0].getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("several", [True, False])
def test_pil_images_become_image_files(several: bool) -> None:
    red = Image.new("RGB", (4, 3), "red")
    rows = [QUESTION | {"images": [red, red] if several else red}]
    [question] = from_dataset(datasets.Dataset.from_list(rows), Question)
    assert len(question.images) == 1 + several
    for image in question.images:
        assert isinstance(image, bytes)
        with Image.open(io.BytesIO(image)) as opened:
            assert (opened.size, opened.getpixel((0, 0))) == ((4, 3), (255, 0, 0))


def test_stored_bytes_are_not_encoded_again(png: bytes) -> None:
    rows = [QUESTION | {"images": [{"bytes": png + b"tail", "path": "a.png"}]}]
    features = datasets.Features(
        {name: datasets.Value("string") for name in QUESTION}
        | {"images": datasets.List(datasets.Image())}
    )
    [question] = from_dataset(datasets.Dataset.from_list(rows, features=features), Question)
    assert question.images == (png + b"tail",)


def test_an_unknown_column_is_named() -> None:
    dataset = datasets.Dataset.from_list([QUESTION | {"image": "a.png"}])
    with pytest.raises(DataError, match="unknown column 'image'; remove or rename it") as caught:
        from_dataset(dataset, Question)
    assert "\n" not in str(caught.value)


def test_splits_must_be_chosen() -> None:
    splits = datasets.DatasetDict({"train": to_dataset([Question(**QUESTION)], Question)})
    with pytest.raises(DataError, match="single split"):
        from_dataset(splits, Question)


BAD: list[dict[str, Any]] = [
    {"text": None},
    {"extra": "{"},
    {"extra": "[1]"},
    {"options": [None]},
]


@pytest.mark.parametrize("wrong", BAD)
def test_a_bad_row_is_named(wrong: dict[str, Any]) -> None:
    field = next(iter(wrong))
    good: dict[str, Any] = QUESTION | {"extra": "{}", "options": ["7"]}
    dataset = datasets.Dataset.from_list([good, good | {"id": "r"} | wrong])
    with pytest.raises(DataError, match=rf"dataset, row 2, field '{field}"):
        from_dataset(dataset, Question)


def test_one_id_twice_is_refused() -> None:
    with pytest.raises(DataError, match="row 2, field 'id': question id 'q' is already used"):
        to_dataset([Question(**QUESTION)] * 2, Question)
    dataset = datasets.Dataset.from_list([QUESTION, QUESTION])
    with pytest.raises(DataError, match="row 2, field 'id'"):
        from_dataset(dataset, Question)


def test_counts_beyond_64_bits_are_refused() -> None:
    label = Label.of(1, 2**63)
    with pytest.raises(DataError, match="row 1, field 'labels': is too large"):
        to_dataset([Trajectory(question_id="q", steps=("a",), labels=(label,))], Trajectory)
