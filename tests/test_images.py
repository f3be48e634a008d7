"""Every image file becomes upright RGB pixels that show what it shows, for everyone alike."""

from __future__ import annotations

import base64
import io
import os
import threading
import urllib.parse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from dreamprm.data import check_images
from dreamprm.data.overlap import hash_image
from dreamprm.errors import DataError, DataWarning
from dreamprm.images import (
    LARGEST_ASPECT,
    SMALLEST_SIDE,
    Reference,
    check_image,
    data_url,
    decode_image,
    encode_image,
    load_image,
    set_image_limits,
)
from dreamprm.prm.scorer import StepScorer
from dreamprm.records import Question
from dreamprm.rollouts.store import question_key
from tests.tiny_models import picture_question, random_prm

TURNED = {  # orientation -> what turns an upright picture so that this tag brings it back
    **{2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"},
    **{6: "ROTATE_90", 7: "TRANSVERSE", 8: "ROTATE_270"},
}
SHOWN = Image.radial_gradient("L").resize((80, 40)).rotate(20, fillcolor=255)
"""Not symmetric, grey (so that depth can be shown), from 0 to 255."""


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int, kind: str = "PNG", **options: Any) -> bytes:
    """The picture, lying as a camera writes it."""
    lying = SHOWN.convert("RGB").transpose(Image.Transpose[TURNED[orientation]])
    exif = Image.Exif()
    exif[0x112] = orientation
    return encoded(lying, kind, exif=exif, **options)


def deep(top: int) -> Image.Image:
    """The picture with grey values from 0 to `top` in 16 bits."""
    return Image.fromarray(np.rint(np.asarray(SHOWN, dtype=float) * top / 255).astype(np.uint16))


def with_alpha() -> Image.Image:
    """Black, and as much of it as the picture is dark."""
    image = Image.new("RGBA", SHOWN.size, (0, 0, 0, 0))
    image.putalpha(ImageOps.invert(SHOWN))
    return image


PNG = encoded(SHOWN.convert("RGB"))
SAME = {
    **{f"png turned {o}": turned(o) for o in TURNED},
    "webp turned": turned(6, "WEBP", lossless=True),
    "tiff turned": turned(8, "TIFF"),
    "png of 16 bits": encoded(deep(65535)),
    "png of 12 bits in 16": encoded(deep(4095)),
    "tiff of 16 bits": encoded(deep(65535), "TIFF"),
    "tiff of floats": encoded(Image.fromarray(np.asarray(SHOWN, dtype=np.float32) / 255), "TIFF"),
    "tiff of floats to 255": encoded(SHOWN.convert("F"), "TIFF"),
    "png with alpha": encoded(with_alpha()),
    "webp with alpha": encoded(with_alpha(), "WEBP", lossless=True, exact=True),
    "grey and alpha": encoded(with_alpha().convert("LA")),
    "cmyk": encoded(SHOWN.convert("RGB").convert("CMYK"), "TIFF"),
    "palette": encoded(SHOWN.convert("P")),
    "gif that moves": encoded(
        SHOWN, "GIF", save_all=True, append_images=[Image.new("L", (80, 40), 9)]
    ),
    "png that moves": encoded(
        SHOWN, "PNG", save_all=True, append_images=[Image.new("L", (80, 40), 9)]
    ),
    "bmp": encoded(SHOWN, "BMP"),
}
"""The picture in files of other kinds, none of which loses anything."""
LOSSY = {
    "jpeg": encoded(SHOWN.convert("RGB"), "JPEG"),
    "jpeg turned 6": turned(6, "JPEG"),
    "jpeg of cmyk": encoded(SHOWN.convert("CMYK"), "JPEG"),
}


@pytest.fixture(autouse=True)
def limits_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """`set_image_limits` writes into the environment."""
    for name in ("DREAMPRM_MAX_IMAGE_PIXELS", "DREAMPRM_REMOTE_IMAGES"):
        monkeypatch.setenv(name, "")
    set_image_limits()


def differs(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of two pixels."""
    assert one.size == other.size
    a, b = (np.asarray(image.convert("RGB"), dtype=int) for image in (one, other))
    return int(np.abs(a - b).max())


@pytest.mark.parametrize("kind", SAME)
def test_the_same_picture_has_the_same_pixels_whatever_file_it_is_in(kind: str) -> None:
    assert differs(load_image(SAME[kind]), load_image(PNG)) == 0
    assert hash_image(SAME[kind]) == hash_image(PNG)


@pytest.mark.parametrize("kind", [*SAME, *LOSSY])
def test_what_a_server_decodes_is_what_everyone_sees(kind: str) -> None:
    data = (SAME | LOSSY)[kind]
    sent = Image.open(io.BytesIO(decode_image(data_url(data))))
    assert differs(sent, load_image(data)) == 0
    assert not sent.getexif()


def test_plain_upright_pictures_are_sent_as_they_are() -> None:
    for data in (PNG, LOSSY["jpeg"], encoded(SHOWN.convert("RGB"), "WEBP")):
        assert decode_image(data_url(data)) == data


def references(data: bytes, folder: Path) -> Iterator[Reference]:
    """All ways to name an image."""
    path = folder / str(hash(data))  # prompts are kept by the names of their images
    path.write_bytes(data)
    yield from (str(path), data, encode_image(data), base64_as_people_write_it(data))


def base64_as_people_write_it(data: bytes) -> str:
    code = base64.urlsafe_b64encode(data).decode().rstrip("=")
    lines = "\n".join(code[i : i + 76] for i in range(0, len(code), 76))
    return "DATA:image/PNG;charset=utf-8;Base64," + lines.replace("-", "%2B")


def test_logits_are_those_of_the_upright_png_of_8_bits(tmp_path: Path) -> None:
    scorer = StepScorer(random_prm())
    asked = picture_question()

    def logits(reference: Reference) -> list[float]:
        # Built without a check, as in Python; files are read by `image_from_disk`.
        question = asked.model_copy(update={"images": (reference,)})
        [row] = scorer.score_steps(question, [["Step 1: red is 3", "Step 2: so 8"]])
        return list(row)

    expected = logits(PNG)
    assert logits(encoded(ImageOps.invert(SHOWN))) != pytest.approx(expected, abs=1e-3)
    for data in SAME.values():
        for reference in references(data, tmp_path):
            assert logits(reference) == pytest.approx(expected, abs=1e-5)
    for data in LOSSY.values():
        decoded = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        for reference in references(data, tmp_path):
            assert logits(reference) == pytest.approx(logits(encoded(decoded)), abs=1e-5)


def test_a_store_knows_a_picture_by_its_bytes_whatever_names_it(tmp_path: Path) -> None:
    def key(image: Reference) -> str:
        return question_key(Question(id="q", domain="d", text="?", images=(image,), answer="1"))

    assert len({key(reference) for reference in references(PNG, tmp_path)}) == 1
    assert key(SAME["png turned 6"]) != key(PNG)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF")])
@pytest.mark.parametrize(("value", "shown"), [(0, 0), (200, 200), (32896, 128), (65535, 255)])
def test_deep_greyscale_keeps_its_shades(mode: str, kind: str, value: int, shown: int) -> None:
    assert load_image(encoded(Image.new(mode, (30, 30), value), kind)).getpixel((9, 9)) == (
        (shown,) * 3
    )


def test_not_a_number_and_infinity_are_black() -> None:
    values = np.full((30, 30), 0.5, dtype=np.float32)
    values[0, :3] = (np.nan, np.inf, -np.inf)
    image = load_image(encoded(Image.fromarray(values), "TIFF"))
    assert [image.getpixel((x, 0)) for x in range(4)] == [(0,) * 3] * 3 + [(128,) * 3]


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    for damaged in (exif.tobytes(), b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0"):
        data = encoded(SHOWN.convert("RGB"), exif=damaged)
        assert differs(load_image(data), SHOWN.convert("RGB")) == 0


def test_a_strip_is_padded_until_image_processors_take_it() -> None:
    for size in ((LARGEST_ASPECT * 50 + 1, 30), (30, LARGEST_ASPECT * 50 + 1)):
        image = load_image(encoded(Image.new("RGB", size, "red")))
        assert max(image.size) / min(image.size) <= LARGEST_ASPECT
        middle = (image.width // 2, image.height // 2)
        assert image.getpixel(middle) == (255, 0, 0)
        assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("size", "becomes"),
    [
        ((1, 1), (28, 28)),
        ((2, 3), (28, 42)),
        ((1, LARGEST_ASPECT), (28, 28 * LARGEST_ASPECT)),
        ((28, 900), (28, 900)),
    ],
)
def test_a_small_picture_is_enlarged_and_that_is_told(
    size: tuple[int, int], becomes: tuple[int, int]
) -> None:
    image = encoded(Image.new("RGB", size, "red"))
    assert load_image(image).size == becomes
    question = Question(id="q", domain="d", text="?", images=(image,), answer="1")
    with warnings.catch_warnings(record=True) as told:
        check_images([question], "q.jsonl")
    text = f"a side below {SMALLEST_SIDE} pixels"
    assert [text in str(w.message) for w in told if w.category is DataWarning] == (
        [] if size == becomes else [True]
    )


def test_limits_hold_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    set_image_limits(max_pixels=3000)
    with pytest.raises(DataError, match=r"80 x 40 pixels; the limit is 3,000\); shrink it"):
        load_image(PNG)
    large = tmp_path / "large.png"
    large.write_bytes(PNG + b" " * 24_000)
    with pytest.raises(DataError, match="has 2[0-9],[0-9]+ bytes"):
        load_image(str(large))
    with pytest.raises(DataError, match="too many pixels"):  # padding counts
        load_image(encoded(Image.new("L", (2000, 1))))


def test_pillows_own_limit_is_not_the_narrower_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    set_image_limits(max_pixels=10_000)
    assert load_image(PNG).size == SHOWN.size


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is none of PNG, JPEG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is none of PNG, JPEG"),
        (b"", "is none of PNG, JPEG"),
        (PNG[:-200], "truncated"),
        (LOSSY["jpeg"][:-200], "truncated"),
        ("gone.png", "gone.png does not exist; restore the file"),
        ("no\0name", "cannot be read"),
        ("x" * 9999, "cannot be read"),
        ("/dev/zero", "is no file"),
        ("data:image/png;base64,@@", "not valid base64"),
        ("data:image/svg+xml,<svg/>", "a data URL must be"),
        ("https://example.org/a.png", "name its host by --allow_remote_images"),
        ("http://[", "name its host by --allow_remote_images"),
        ("ftp://example.org/a.png", "is an address on the net"),
    ],
)
def test_what_is_no_picture_is_named_in_one_line(reference: Reference, said: str) -> None:
    for read in (load_image, data_url):
        if read is data_url and said == "truncated":
            continue  # its head is good; `check_images` has read it to its end
        with pytest.raises(DataError, match=said) as error:
            read(reference)
        assert "\n" not in str(error.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "is no file" in str(check_image(str(tmp_path / "pipe.png")).error)


class Pictures(BaseHTTPRequestHandler):
    """Serves `/a.png`, an endless one, and ways to other hosts."""

    def do_GET(self) -> None:
        name = self.path.removeprefix("/")
        if name.startswith("to/"):
            self.send_response(302)
            self.send_header("Location", urllib.parse.unquote(name.removeprefix("to/")))
            self.end_headers()
        elif name == "a.png":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PNG)
        elif name == "endless":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                pass
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def served() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pictures)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_pictures_come_from_the_net_only_from_hosts_that_are_named() -> None:
    with served() as host:
        names = ["a.png", "to//a.png", "gone.png", "endless"]
        names.append("to/" + urllib.parse.quote(f"{host.replace('127.0.0.1', 'localhost')}/a.png"))
        names.append("to/" + urllib.parse.quote("file:///etc/hostname", safe=""))
        asked = [
            Question(id=name, domain="d", text="?", images=(f"{host}/{name}",), answer="1")
            for name in names
        ]
        with pytest.raises(DataError, match="row 1, field 'images': question 'a.png': image http"):
            check_images(asked, "q.jsonl")
        set_image_limits(max_pixels=100_000, remote_hosts=["127.0.0.1"])
        bad: list[DataError] = []
        usable = check_images(asked, "q.jsonl", bad.append)
    assert [(q.id, q.images) for q in usable] == [(name, (PNG,)) for name in names[:2]]
    assert [error.row for error in bad] == [3, 4, 5, 6]
    for error, said in zip(bad, ["404", "has 8", "not allowed", "not allowed"], strict=True):
        assert said in error.message
