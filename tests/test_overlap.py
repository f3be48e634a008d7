"""Questions that are in two files under two names."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from dreamprm.data import read_questions
from dreamprm.data.overlap import (
    Overlap,
    Reference,
    duplicates,
    find_overlap,
    hash_image,
    hash_images,
    normalise,
    question_key,
)
from dreamprm.images import load_image
from dreamprm.records import Question
from tests.record_strategies import question_lists


def _question(
    number: int | str, text: str, *images: Reference, options: tuple[str, ...] = ()
) -> Question:
    return Question(
        id=str(number), domain="d", text=text, images=images, options=options, answer="1"
    )


def _picture(seed: int, kind: str = "PNG", **settings: int) -> bytes:
    image = Image.new("RGB", (240, 160), "white")
    draw = ImageDraw.Draw(image)
    for i in range(6):
        left, top = (seed * 124 + i * 68) % 160, (seed * 52 + i * 44) % 100
        draw.rectangle((left, top, left + 60, top + 40), fill=(40 * i, seed * 50 % 256, 90))
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def _whys(found: list[Overlap]) -> list[tuple[str, bool]]:
    return [(overlap.why, overlap.counts) for overlap in found]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What is **twice** $x$?", "what is twice x"),
        ("<image1>\nHow many  bricks?", "How many bricks? [image 2]"),
        ('Which one?<br/><img src="a.png">', "Which one? ![figure](a.png)"),
        ("from 3 – 5", "from 3 - 5"),
        (r"a mass of $5\,\mathrm{kg}$", "A mass of 5 kg."),
        ("ｆｕｌｌ ½ &amp; half", "full 1/2 half"),
    ],
)
def test_markup_case_and_punctuation_do_not_hide_a_text(left: str, right: str) -> None:
    assert normalise(left) == normalise(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("What is 2 + 3?", "What is 2 - 3?"),
        ("What is |x| for x = -5?", "What is |x| for x = 5?"),
        ("What is 1.5 times 2?", "What is 15 times 2?"),
        ("Is x < 5?", "Is x > 5?"),
        ("What is x^2?", "What is x?"),
        ("What is 7 * 2?", "What is 7 2?"),
        ("哪个更大？", "哪个更小？"),
        ("???", "!!"),
    ],
)
def test_numbers_operators_and_foreign_words_keep_texts_apart(left: str, right: str) -> None:
    assert normalise(left) != normalise(right)


def test_shuffled_options_are_the_same_and_other_options_are_another_question() -> None:
    mine = [_question(1, "Which is even?", options=("3", "4"))]
    shuffled = _question("a", "Which is even?", options=("4", "3"))
    other = _question("b", "Which is even?", options=("5", "6"))
    openly = _question("c", "Which is even?")
    assert question_key(mine[0], {}) == question_key(shuffled, {}) != question_key(other, {})
    assert find_overlap(mine, [other]) == []
    assert find_overlap(mine, [other, shuffled]) == [
        Overlap("1", 1, "a", 2, "same text, no image", True)
    ]
    assert _whys(find_overlap(mine, [openly])) == [("same text, no image", True)]
    assert _whys(find_overlap([openly], mine)) == [("same text, no image", True)]


def test_an_image_written_anew_is_the_same_and_its_text_alone_is_not(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_picture(1))
    mine = [_question(1, "What is x?", str(tmp_path / "a.png"))]
    again = _question("a", "what is x", _picture(1, "BMP"))
    other = _question("b", "What is x?", _picture(2))
    elsewhere = _question("c", "What is y?", _picture(1))
    nowhere = _question("d", "What is x?")
    assert _whys(find_overlap(mine, [other, elsewhere, again])) == [("same text and image", True)]
    assert _whys(find_overlap(mine, [other, elsewhere])) == [("same text, other image", False)]
    assert _whys(find_overlap(mine, [nowhere])) == [("same text, other image", False)]
    assert _whys(find_overlap(mine, [elsewhere])) == [("same image, other text", False)]
    assert find_overlap(mine, [elsewhere], same_images=False) == []


def test_about_one_image_the_same_words_are_one_question_whatever_the_options() -> None:
    four = _question(1, "Which?", _picture(1), options=("a", "b", "c", "d"))
    ten = _question("a", "Which?", _picture(1), options=tuple("abcdefghij"))
    assert _whys(find_overlap([four], [ten])) == [("same text and image", True)]


def test_a_lossy_copy_is_similar_and_counts_unless_the_text_is_a_template() -> None:
    mine = [_question(1, "What is x?", _picture(1))]
    lossy = _question("a", "What is x?", _picture(1, "JPEG", quality=50))
    other = _question("b", "What is x?", _picture(2))
    assert hash_image(_picture(1)).content != hash_image(lossy.images[0]).content
    assert _whys(find_overlap(mine, [lossy])) == [("same text, similar image", True)]
    assert _whys(find_overlap(mine, [lossy, other])) == [("same text, similar image", False)]


def test_an_image_that_cannot_be_read_leaves_the_words_to_decide(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG and no more")
    mine = [_question(1, "What is x?", _picture(1))]
    for gone in (str(tmp_path / "gone.png"), str(tmp_path / "broken.png"), b"no image"):
        asked = _question("a", "What is x?", gone)
        assert _whys(find_overlap(mine, [asked])) == [("same text, unreadable image", True)]
        template = _question("b", "What is x?", _picture(3))
        found = find_overlap(mine, [asked, template])
        assert _whys(found) == [("same text, unreadable image", False)]
        assert _whys(find_overlap([asked], [asked])) == [("same text and image", True)]


def test_several_images_are_compared_in_any_order() -> None:
    mine = [_question(1, "Which differs?", _picture(1), _picture(2))]
    turned = _question("a", "Which differs?", _picture(2), _picture(1))
    one = _question("b", "Which differs?", _picture(1))
    assert _whys(find_overlap(mine, [turned])) == [("same text and image", True)]
    assert _whys(find_overlap(mine, [one])) == [("same text, other image", False)]


def test_each_file_is_read_once_if_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for seed, path in enumerate(paths):
        Path(path).write_bytes(_picture(seed))
    read: list[object] = []

    def counted(reference: Reference) -> Image.Image:
        read.append(reference)
        return load_image(reference)

    monkeypatch.setattr("dreamprm.data.overlap.load_image", counted)
    hashes = hash_images(paths * 3)
    assert sorted(map(str, read)) == paths
    assert hash_images(paths, hashes) is hashes and len(read) == 3
    read.clear()
    mine = [_question(1, "What is x?", paths[0]), _question(2, "What is y?", paths[1])]
    find_overlap(mine, [_question("a", "What is x?", paths[2])], same_images=False)
    assert sorted(map(str, read)) == [paths[0], paths[2]]


def test_duplicates_within_a_file_point_to_the_first() -> None:
    file = [
        _question(1, "What is x?", _picture(1)),
        _question(2, "What is x?", _picture(2)),
        _question(3, "What is  X?", _picture(1, "BMP")),
        _question(4, "Which is even?", options=("3", "4")),
        _question(5, "Which is even?", options=("5", "6")),
        _question(6, "Which is even?", options=("4", "3")),
    ]
    assert duplicates(file) == [
        Overlap("3", 3, "1", 1, "same text and image", True),
        Overlap("6", 6, "4", 4, "same text, no image", True),
    ]


@given(question_lists, st.data())
def test_a_file_overlaps_with_itself_reordered(
    questions: list[Question], data: st.DataObject
) -> None:
    others = data.draw(st.permutations(questions))
    found = find_overlap(questions, others)
    assert [overlap.question_id for overlap in found] == [q.id for q in questions]
    assert all(o.counts and o.why in ("same text and image", "same text, no image") for o in found)
    assert all(others[o.other_row - 1].id == o.other_id for o in found)


def test_testmini_of_mathvision_is_found_in_its_test_set(real_data: Path) -> None:
    folder = real_data / "mathvision"
    mini, test = (read_questions(folder / name) for name in ("testmini.jsonl", "test.jsonl"))
    bare = [q.model_copy(update={"id": f"mini-{q.id}"}) for q in mini]
    found = find_overlap(bare, test)
    assert len(found) == len(mini) == 304
    assert {overlap.why for overlap in found} == {"same text and image"}
    assert all(f"mini-{overlap.other_id}" == overlap.question_id for overlap in found)


def test_a_lossy_copy_of_a_benchmark_is_found(real_data: Path) -> None:
    mini = read_questions(real_data / "mathvision" / "testmini.jsonl")[:40]
    copies = []
    for q in mini:
        buffer = io.BytesIO()
        load_image(q.images[0]).save(buffer, "JPEG", quality=60)
        update = {"images": (buffer.getvalue(),), "text": f"<image>\n{q.text.upper()}"}
        copies.append(q.model_copy(update=update))
    found = find_overlap(copies, mini)
    assert len(found) == 40
    assert sum(overlap.counts for overlap in found) >= 38  # two may share a template


def test_mathvista_is_found_in_a_models_output_and_not_in_mathvision(real_data: Path) -> None:
    def read(name: str, prefix: str) -> list[Question]:
        rows = json.loads((real_data / "mathvista" / name).read_bytes())
        return [
            _question(f"{prefix}{i}", row["question"], options=tuple(row["choices"] or ()))
            for i, row in rows.items()
        ]

    vista = read("testmini.json", "")
    found = find_overlap(vista, read("output_bard.json", "bard-"))
    assert len(found) == 1000 and all(overlap.counts for overlap in found)
    vision = read_questions(real_data / "mathvision" / "test.jsonl")
    assert find_overlap(vista, vision, same_images=False) == []
