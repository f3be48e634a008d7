"""Questions from other people's tables: column maps, where rows come from, published layouts.

The rows of published sets are made here from their documented schemas; none was downloaded.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamprm.answers import verify_answer
from dreamprm.data import DataWarning, read_questions
from dreamprm.data.sources import KNOWN, ColumnMap, find_source, read_known, read_source
from dreamprm.data.sources.chat import split_turn
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.records import Question

ROW = {"question": "2 + 2?", "options": ["3", "4"], "answer": "B"}
COLUMNS = ColumnMap(options="options")


def read(row: dict[str, Any], columns: ColumnMap = COLUMNS, **more: Any) -> Question:
    (question,) = read_source([row], columns, name="sums", **more)
    return question


def known(name: str, *rows: dict[str, Any], **more: Any) -> list[Question]:
    columns = KNOWN[name].columns
    assert columns is not None
    return list(read_source(rows, columns, name=name, **more))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("B", "letter_or_text"),
        ("(B)", "letter_or_text"),
        ("4", "letter_or_text"),
        ("b", "letter"),
        ("4", "text"),
        (1, "index"),
        ("1", "index"),
        (2.0, "index_from_1"),
        (["B"], "letter"),
    ],
)
def test_an_answer_however_it_is_written_becomes_the_letter(answer: Any, kind: Any) -> None:
    question = read(ROW | {"answer": answer}, ColumnMap(options="options", answer_is=kind))
    assert question.answer == "B"


@pytest.mark.parametrize(
    ("change", "kind", "field", "said"),
    [
        ({"answer": "C"}, "letter", "answer", "'C' is none of the 2 options A to B"),
        ({"answer": "5"}, "text", "answer", "none of the 2 options"),
        ({"answer": 2}, "index", "answer", "index 2 is outside 0 to 1"),
        ({"answer": 0}, "index_from_1", "answer", "index 0 is outside 1 to 2"),
        ({"answer": "1.5"}, "index", "answer", "no whole number"),
        ({"answer": None}, "letter", "answer", "is empty"),
        ({"answer": True}, "letter", "answer", "not bool"),
        ({"options": "3, 4 or"}, "letter", "options", "no Python or JSON list"),
        ({"options": ["3", None]}, "letter", "options", "option B is empty"),
        ({"options": {"A": "3"}}, "letter", "options", "not dict"),
        ({"options": [str(i) for i in range(27)]}, "letter", "options", "27 options"),
        ({"question": " "}, "letter", "question", "is empty"),
    ],
)
def test_a_broken_row_names_source_row_and_column(
    change: dict[str, Any], kind: Any, field: str, said: str
) -> None:
    columns = ColumnMap(options="options", answer_is=kind)
    with pytest.raises(DataError) as caught:
        list(
            read_source(
                [ROW | {"answer": {"index": 1}.get(kind, "B")} | change], columns, name="sums"
            )
        )
    assert (caught.value.file, caught.value.row, caught.value.field) == ("sums", 1, field)
    assert said in str(caught.value)


def test_a_missing_column_is_named_with_those_that_there_are() -> None:
    with pytest.raises(DataError, match="did you mean 'question'.*question, options, answer"):
        read(ROW, ColumnMap(text="questions"))


def test_an_answer_that_is_one_options_letter_and_anothers_text_must_be_explained() -> None:
    labels = {"question": "Which label?", "options": ["B", "A"], "answer": "A"}
    with pytest.raises(DataError, match="letter of one option and the text of another"):
        read(labels)
    assert read(labels, ColumnMap(options="options", answer_is="text")).answer == "B"
    assert read(labels, ColumnMap(options="options", answer_is="letter")).answer == "A"


def test_two_options_with_the_gold_text_are_told() -> None:
    with pytest.warns(DataWarning, match="options B and C are both '18'; B is gold"):
        question = read(ROW | {"options": ["9", "18", "18"], "answer": "18"})
    assert question.answer == "B"


def test_options_may_be_a_text_or_several_columns() -> None:
    assert read(ROW | {"options": "['3', \"4's\"]"}).options == ("3", "4's")
    assert read(ROW | {"options": '["3", "4"]'}).options == ("3", "4")
    assert read(ROW | {"options": "[]", "answer": 4}).answer == "4"
    row = {"question": "2 + 2?", "A": "3", "B": "4", "C": "", "answer": "B"}
    assert read(row, ColumnMap(options=("A", "B", "C"))).options == ("3", "4")


def test_a_function_may_stand_for_a_column_and_its_failure_is_a_data_error() -> None:
    columns = ColumnMap(
        text=lambda row: row["question"].upper(), unit="unit", precision="p", extra={"n": "n"}
    )
    row = {"question": "how long?", "answer": 2.5, "unit": "cm", "p": "1", "n": [1]}
    question = read(row, columns)
    assert (question.text, question.answer) == ("HOW LONG?", "2.5")
    assert question.extra == {"n": [1], "unit": "cm", "precision": 1}
    with pytest.raises(DataError, match="row 1, field 'text': its function failed.*AttributeError"):
        read(row | {"question": 3}, columns)


def test_image_marks_do_not_reach_the_policy_as_tokens() -> None:
    text = "<image>How does <image 1> differ from <image 2>?\n<image 3>"
    question = read({"question": text, "options": ["<image 4>", "no"], "answer": "A"})
    assert question.text == "How does [image 1] differ from [image 2]?"
    assert question.options == ("[image 4]", "no")


def test_images_are_read_in_every_form_and_bytes_keep_their_encoding(
    png: bytes, tmp_path: Path
) -> None:
    (tmp_path / "red.png").write_bytes(png)
    jpeg = io.BytesIO()
    Image.new("RGB", (4, 4), "blue").save(jpeg, "JPEG")
    forms = [
        *("red.png", png, {"bytes": jpeg.getvalue(), "path": "x.jpg"}, None),
        *({"bytes": None, "path": "red.png"}, Image.open(io.BytesIO(png))),
    ]
    row = {"question": "2 + 2?", "answer": "4", "images": forms, "image_1": png, "image_2": None}
    columns = ColumnMap(images=("images", "image_1", "image_2"))
    path, first, second, other, pil, last = read(row, columns, image_root=tmp_path).images
    assert path == other == str(tmp_path / "red.png")
    assert (first, second, last) == (png, jpeg.getvalue(), png)
    assert isinstance(pil, bytes) and Image.open(io.BytesIO(pil)).getpixel((0, 0)) == (255, 0, 0)

    stored = read(row, columns, image_root=tmp_path, image_folder=tmp_path / "out").images
    written = sorted((tmp_path / "out").iterdir())
    assert stored[1] == stored[5]  # one content, one file
    assert {p.suffix for p in written} == {".png", ".jpeg"}
    assert Path(str(stored[2])).read_bytes() == jpeg.getvalue()


@pytest.mark.parametrize("image", [b"no image", 3, {"bytes": b"\x89PNG"}, [["x", 2.5]]])
def test_what_is_no_image_is_refused(image: Any) -> None:
    with pytest.raises(DataError, match="row 1, field 'picture'"):
        read({"question": "q", "answer": "a", "picture": image}, ColumnMap(images="picture"))


def test_a_relative_path_needs_a_folder_where_the_table_lies_in_none() -> None:
    with pytest.raises(DataError, match="give their folder as image_root"):
        read({"question": "q", "answer": "a", "picture": "a.png"}, ColumnMap(images="picture"))


def test_every_kind_of_file_gives_the_same_questions(tmp_path: Path) -> None:
    rows: list[dict[str, str]] = [
        {"question": f"1 + {i}?", "A": str(i), "B": str(i + 1), "key": "B", "file": "i/a.png"}
        for i in range(3)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "q.json").write_text(json.dumps(rows))
    (tmp_path / "by_id.json").write_text(json.dumps(dict(enumerate(rows))))
    lines = [",".join(row.values()) for row in ({k: k for k in rows[0]}, *rows)]
    (tmp_path / "q.csv").write_text("\ufeff" + "\n".join(lines))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "saved"))
    columns = ColumnMap(answer="key", options=("A", "B"), images="file")
    found = [
        list(read_source(tmp_path / name, columns, name="s", image_root=tmp_path))
        for name in ("q.jsonl", "q.json", "by_id.json", "q.csv", "q.parquet", "saved")
    ]
    assert found == [found[0]] * 6
    assert [q.id for q in found[0]] == ["s-1", "s-2", "s-3"]
    assert found[0][2].options == ("2", "3") and found[0][0].images == (str(tmp_path / "i/a.png"),)
    (first, *_) = read_source(tmp_path / "q.csv", columns)
    assert first.images == (str(tmp_path / "i/a.png"),) and first.domain == "q"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.json", b'{"a": 1}', "list of objects"),
        ("q.json", b"[1]", "row 1: is no object"),
        ("q.json", b"[{]", "not JSON"),
        ("q.jsonl", b'{"question": "q"', "row 1: the last line is cut off"),
        ("q.csv", b"question,answer\nq,a,b\n", "row 1: has more or fewer cells"),
        ("q.csv", b"question,answer\n\xff,a\n", "not CSV in UTF-8"),
        ("q.parquet", b"PAR1", "not Parquet"),
        ("q.txt", b"q", "no table that can be read"),
    ],
)
def test_a_broken_file_is_named(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        list(read_source(tmp_path / name, COLUMNS))
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_a_folder_of_something_else_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_source(tmp_path / "no.csv", COLUMNS))
    with pytest.raises(DataError, match="no folder written by datasets"):
        list(read_source(tmp_path, COLUMNS))


def test_splits_of_a_saved_folder_are_chosen_and_offered(tmp_path: Path) -> None:
    part = datasets.Dataset.from_list([ROW])
    datasets.DatasetDict(train=part, test=part).save_to_disk(str(tmp_path / "d"))
    (question,) = read_source(tmp_path / "d", COLUMNS, split="test")
    assert question.id == "d-test-1"
    with pytest.raises(DataError, match="no split 'dev'; give one of: train, test"):
        list(read_source(tmp_path / "d", COLUMNS, split="dev"))


def test_the_hub_out_of_reach_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DreamPRMError, match=r"ChartQA \(split train\): cannot be read.*no route;"):
        next(read_known("chartqa"))


def test_a_limit_streams_from_the_hub_and_a_seed_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(name: str, subset: str | None, *, split: str, streaming: bool) -> Any:
        calls.append((name, subset, split, streaming))
        rows = datasets.Dataset.from_list([ROW] * 10)
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    first = list(read_source("owner/sums", COLUMNS, split="train", limit=3))
    assert [q.id for q in first] == ["sums-train-1", "sums-train-2", "sums-train-3"]
    some = list(read_source("owner/sums", COLUMNS, split="train", limit=3, seed=1))
    assert len(some) == 3 and some != first
    assert [streaming for *_, streaming in calls] == [True, False]


def test_a_random_subset_is_uniform_in_order_and_repeatable() -> None:
    rows = [ROW | {"question": f"{i}?"} for i in range(10)]
    picked = Counter(
        q.text
        for seed in range(400)
        for q in read_source(rows, COLUMNS, name="s", limit=3, seed=seed)
    )
    assert len(picked) == 10 and 80 < min(picked.values()) <= max(picked.values()) < 165
    one = [q.id for q in read_source(rows, COLUMNS, name="s", limit=3, seed=7)]
    again = [q.id for q in read_source(rows, COLUMNS, name="s", limit=3, seed=7)]
    assert one == again == sorted(one, key=lambda name: int(name[2:]))


def test_bad_rows_can_be_left_out_and_ids_must_be_unique() -> None:
    rows: list[dict[str, Any]] = [
        ROW | {"n": 1},
        ROW | {"n": 2, "answer": "Z"},
        ROW | {"n": 1},
        ROW | {"n": 4},
    ]
    told: list[DataError] = []
    columns = ColumnMap(id="n", options="options")
    found = list(read_source(rows, columns, name="s", bad_row=told.append))
    assert [q.id for q in found] == ["1", "4"]
    assert [error.row for error in told] == [2, 3] and "already used in row 1" in str(told[1])


def test_text_only_questions_can_be_left_out(png: bytes) -> None:
    rows = [{"question": "q", "answer": "a", "image": image} for image in (None, png)]
    (found,) = read_source(rows, ColumnMap(images="image"), name="s", only_with_images=True)
    assert found.id == "s-2"


# Published layouts


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        (
            "scienceqa",
            {"question": "Which is soft?", "choices": ["stone", "wool"], "answer": 1}
            | {"image": None, "hint": "Select the better answer.", "topic": "physics"},
            {"text": "Select the better answer.\nWhich is soft?", "answer": "B"}
            | {"subject": "physics"},
        ),
        (
            "m3cot",
            {"id": "physical-1", "question": "Why?", "choices": ["x", "y"], "context": ""}
            | {"answer": "A", "image": None, "topic": "physics"},
            {"id": "physical-1", "text": "Why?", "answer": "A"},
        ),
        (
            "chartqa",
            {"image": None, "query": "How much?", "label": ["0.57"]},
            {"answer": "0.57", "options": ()},
        ),
        (
            "ai2d_test",
            {"question": "Which?", "options": ["a", "b"], "answer": "1", "image": None},
            {"answer": "B"},
        ),
        (
            "geometry3k",
            {"images": [], "problem": "<image>Find x.", "answer": "4", "choices": ["3", "4"]}
            | {"ground_truth": "B"},
            {"text": "Find x.", "options": ("3", "4"), "answer": "B"},
        ),
    ],
)
def test_a_published_row_is_read_by_its_documented_columns(
    name: str, row: dict[str, Any], expected: dict[str, Any], png: bytes
) -> None:
    column = "images" if "images" in row else "image"
    (question,) = known(name, row | {column: {"bytes": png, "path": None}})
    assert question.images == (png,)
    assert {field: getattr(question, field) for field in expected} == expected


def test_the_cauldron_keeps_several_questions_per_row(png: bytes) -> None:
    choice = "Question: What is given out?\nChoices:\nA. Oxygen\nB. Heat\nAnswer with the letter."
    row = {
        "images": [{"bytes": png, "path": None}],
        "texts": [
            {"user": choice, "assistant": "Answer: B", "source": "AI2D"},
            {"user": "Is it red?\nAnswer yes or no.", "assistant": "Yes.", "source": "FigureQA"},
            {"user": "How many?\nQuick response, please.", "assistant": "0.5.", "source": "CLEVR"},
        ],
    }
    first, second, third = known("ai2d", row)
    assert (first.id, first.options, first.answer) == ("ai2d-1-1", ("Oxygen", "Heat"), "B")
    assert (second.text, second.answer) == ("Is it red?\nAnswer yes or no.", "Yes")
    assert (third.text, third.answer, third.images) == ("How many?", "0.5", (png,))


@pytest.mark.parametrize(
    ("user", "assistant", "expected"),
    [
        (
            "<image>\nFirst perform reasoning, then finally select the question from the choices "
            "in the following format: Answer: xxx.\nQuestion: How large is x?\n"
            "Choices:\nA: 32\nB: 58",
            "As AB is a diameter, x = 58. Therefore, the answer is: B.\nAnswer:B",
            ("<image>\nHow large is x?", ("32", "58"), "B"),
        ),
        (
            "<image>\nHint: Please answer the question and provide the correct option letter, "
            "e.g., A, B, C, D, at the end.\nQuestion: Find x\nChoices:\n(A) 97\n(B) 102",
            "The answer is A",
            ("<image>\nFind x", ("97", "102"), "A"),
        ),
        (
            "Hint: Please answer the question and provide the final answer at the end.\n"
            "Question: How many cubes are left?",
            "The answer is 6",
            ("How many cubes are left?", (), "6"),
        ),
        (
            "Find the area. Round computations to 2 decimal places.",
            "The side is 3, so the area is 3 * 3 = 9. Therefore the final answer is 9.",
            ("Find the area. Round computations to 2 decimal places.", (), "9"),
        ),
        (
            "Lecture: Long.\nQuestion: Which?\nChoices:\nA. one\nline\nB. two\n"
            "Answer with the letter.",
            "Answer: A",
            ("Lecture: Long.\nQuestion: Which?", ("one line", "two"), "A"),
        ),
        ("Which is the short bar?", "Vitamin C.", ("Which is the short bar?", (), "Vitamin C")),
        ("AB = 3.\nFind the shorter side.", "3", ("AB = 3.\nFind the shorter side.", (), "3")),
        (
            "Question: Which?\nChoices:\nA. vitamin\nC. as in fruit\nB. none",
            "Answer: A",
            ("Which?", ("vitamin C. as in fruit", "none"), "A"),
        ),
    ],
)
def test_a_chat_turn_is_split(user: str, assistant: str, expected: Any) -> None:
    assert split_turn(user, assistant) == expected


def test_a_solution_without_an_answer_is_refused_not_guessed() -> None:
    with pytest.raises(DataError, match="states no final answer"):
        split_turn("Find x.", "First we see a line.\nThen we see another.")
    with pytest.raises(DataError, match="must begin with A"):
        split_turn("Which?\nChoices:\nx\ny", "Answer: A")


def test_llava_conversations_are_read(png: bytes) -> None:
    turns = [
        {"from": "human", "value": "<image>\nQuestion: x?\nChoices:\n(A) 1\n(B) 2"},
        {"from": "gpt", "value": "The answer is B"},
    ]
    row = {"id": "1", "image": png, "conversations": turns, "data_source": "UniGeo"}
    (question,) = known("unigeo", row)
    assert (question.text, question.answer, question.images) == ("x?", "B", (png,))
    with pytest.raises(DataError, match="row 1, field 'conversations': the last turn has no"):
        known("unigeo", row | {"conversations": turns[:1]})


def mmmu_row(**changes: Any) -> dict[str, Any]:
    empty = {f"image_{i}": None for i in range(2, 8)}
    return {
        "id": "validation_Art_Theory_3",
        "question": "Who painted <image 1>?",
        "options": "['Goya', \"Turner's pupil\"]",
        "image_1": None,
        **empty,
        "answer": "B",
        "question_type": "multiple-choice",
        "subfield": "Painting",
        **changes,
    }


def test_mmmu_has_options_as_text_seven_image_columns_and_open_questions(png: bytes) -> None:
    row = mmmu_row(image_1={"bytes": png, "path": "a.png"}, image_3={"bytes": png, "path": None})
    opened = mmmu_row(id="validation_Math_1", options="[]", answer="['0.5', '1/2']")
    interval = mmmu_row(id="validation_Math_2", options="[]", answer="[0, 1)")
    choice, several, one = known("mmmu", row, opened, interval)
    assert (choice.text, choice.options) == ("Who painted [image 1]?", ("Goya", "Turner's pupil"))
    assert (choice.answer, choice.subject, len(choice.images)) == ("B", "Art_Theory", 2)
    assert (several.answer, several.extra["answers"]) == ("0.5", ["0.5", "1/2"])
    assert (one.answer, "answers" in one.extra) == ("[0, 1)", False)
    with pytest.raises(DataError, match="not published for this split"):
        known("mmmu", mmmu_row(answer="?"))


def test_all_thirty_subjects_of_mmmu_are_read_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def load(_: str, subset: str, **__: Any) -> Any:
        asked.append(subset)
        return datasets.Dataset.from_list([mmmu_row(id=f"validation_{subset}_1")])

    monkeypatch.setattr(datasets, "load_dataset", load)
    found = list(read_known("mmmu"))
    assert len(found) == len(set(asked)) == 30
    assert [q.subject for q in found] == asked


def test_mmmu_pro_vision_asks_in_the_image(png: bytes) -> None:
    row = {"id": "test_1", "image": png, "options": "['a', 'b']", "answer": "A", "subject": "Art"}
    (question,) = known("mmmu_pro_vision", row)
    assert question.text == "Answer the question in the image."


def test_mathvista_is_read_whole(real_data: Path) -> None:
    path = real_data / "mathvista" / "testmini.json"
    with pytest.warns(DataWarning, match="mathvista-781: options C and D are both '18'"):
        questions = list(read_known("MathVista", path=path))
    rows = json.loads(path.read_text())
    assert len(questions) == 1000
    assert sum(bool(q.options) for q in questions) == 540
    assert Counter(q.extra.get("precision") for q in questions) == {None: 960, 1: 20, 2: 20}
    assert sum(q.extra.get("unit") == "years" for q in questions) == 49
    for question in questions:  # the file's own answer is right by ours
        row = rows[question.id]
        assert verify_answer(row["answer"], question.answer, question.options), question.id
        assert question.images == (str(path.parent / row["image"]),)


def test_mathvision_is_known_through_its_own_reader(real_data: Path) -> None:
    path = real_data / "mathvision" / "testmini.jsonl"
    assert list(read_known("math-vision", path=path)) == read_questions(path)
    assert len(list(read_known("mathvision", path=path, limit=5, seed=3))) == 5


def test_names_are_found_whatever_their_spelling_and_offered_when_wrong() -> None:
    assert [find_source(name) for name in ("CLEVR-Math", "MMMU Pro")] == ["clevr_math", "mmmu_pro"]
    assert find_source("HuggingFaceM4/ChartQA") == "chartqa"
    assert find_source("HuggingFaceM4/the_cauldron", "mapqa") == "mapqa"
    assert find_source("HuggingFaceM4/the_cauldron") is None
    with pytest.raises(DreamPRMError, match="did you mean chartqa"):
        find_source("chart_qas")
    with pytest.raises(DreamPRMError, match="read from a file: give testmini.json"):
        read_known("mathvista")


def test_every_set_of_the_paper_is_known_and_documented() -> None:
    families = Counter(k.family for n, k in KNOWN.items() if n != "geo170k_original")
    del families["benchmark"]
    assert families == {"science": 3, "chart": 4, "geometry": 5, "commonsense": 3}
    page = (Path(__file__).parents[1] / "docs" / "SOURCES.md").read_text()
    rows = {row.split(" | ")[0].strip("| "): row for row in page.splitlines() if "| " in row}
    for name, known_set in KNOWN.items():
        assert (known_set.hub or "a file") in rows[name]
        assert known_set.status.split()[0] in rows[name]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["bytes", "path", "user", "from", "value", "x"]), inner)
    ),
    max_leaves=6,
)
TURN = {"user": "Question: x?\nChoices:\nA. 1\nB. 2", "assistant": "Answer: A"}
TALK = [{"from": "human", "value": TURN["user"]}, {"from": "gpt", "value": "Answer: A"}]
SOUND: dict[str, dict[str, Any]] = {
    "scienceqa": {"question": "x?", "hint": "", "choices": ["1"], "answer": 0, "topic": "t"},
    "mmmu": mmmu_row(),
    "ai2d": {"images": [], "texts": [TURN]},
    "geo170k": {"image": None, "conversations": TALK},
    "mathvista": {
        **{"pid": "1", "question": "x?", "image": None, "choices": ["1"], "answer": "1"},
        **{"unit": "cm", "precision": 1, "metadata": {"task": "t"}},
        **{"question_type": "multi_choice", "answer_type": "text"},
    },
}


@given(st.sampled_from(sorted(SOUND)), st.data())
def test_a_mutated_row_is_read_or_refused_with_a_data_error(name: str, data: st.DataObject) -> None:
    row: dict[str, Any] = {"image": None} | SOUND[name]
    for field in data.draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[field] = data.draw(values, label=field)
    refused: list[DataError] = []
    read = known(name, row, bad_row=refused.append)
    assert [error.row for error in refused] == [1] * (not read)
    assert all(question.answer and question.text for question in read)


@given(st.text(), st.text())
def test_any_two_texts_are_split_or_refused(user: str, assistant: str) -> None:
    try:
        text, options, answer = split_turn(f"Choices:\n{user}", assistant)
    except DataError:
        return
    assert answer and options and "Choices:" not in text
