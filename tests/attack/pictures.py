"""Pictures: mutated files of every format, bombs, odd sizes and depths, names of things that are
no pictures. Each goes through three commands, which must agree whether it is a picture; a server
must get the pixels that the reward model sees.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops

from dreamprm.data import write_trajectories
from dreamprm.images import decode_image, encode_image, load_image
from dreamprm.records import Question, Trajectory
from tests.attack import LONGEST_S, Case, Result
from tests.cli_samples import save_tiny_model
from tests.fake_endpoint import FakeEndpoint
from tests.tiny_models import random_prm

TRIED = "pictures of every format, changed at random, huge, tiny, damaged, or none at all"
PICTURES = 130
TURNS = 4
COUNT = TURNS * PICTURES

SHOWN = Image.radial_gradient("L").resize((90, 60)).convert("RGB")
KINDS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nwhile true do\nshowpage\n"


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, depth: int, colour: int, row: bytes, *more: bytes) -> bytes:
    """A file whose rows are all alike, which may claim anything."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packer = zlib.compressobj(1)
    pixels = b"".join(packer.compress(b"\0" + row) for _ in range(min(height, 7000)))
    parts = [chunk(b"IHDR", head), *more, chunk(b"IDAT", pixels + packer.flush())]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IEND", b"")])


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags.tobytes()


def handmade(folder: Path) -> Iterator[tuple[str, str | bytes]]:
    """Names and references, the most telling first."""
    os.mkfifo(folder / "pipe.png")
    code = base64.b64encode(encoded(SHOWN)).decode()
    moving = {"save_all": True, "append_images": [SHOWN.rotate(90 * i) for i in range(3)]}
    deep = np.asarray(SHOWN.convert("L"), dtype=np.uint16) * 16
    floats = np.asarray(SHOWN.convert("L"), dtype=np.float32) / 255
    yield "jpeg turned", encoded(SHOWN, "JPEG", exif=exif(6))
    yield "png cut off", encoded(SHOWN)[:-90]
    yield "a pipe", str(folder / "pipe.png")
    yield "one pixel", encoded(Image.new("RGB", (1, 1)))
    yield "png of 60,000 x 60,000", png(60_000, 60_000, 8, 2, bytes(9))
    yield "12 bits in 16", encoded(Image.fromarray(deep))
    yield "postscript", EPS
    yield "60,000 x 1", encoded(Image.new("RGB", (60_000, 1)))
    yield "data url in lines", "DATA:image/png;BASE64," + code[:40] + "\r\n" + code[40:].rstrip("=")
    yield "jpeg cut off", encoded(SHOWN, "JPEG")[:-90]
    for name, image, kind in (
        ("cmyk", SHOWN.convert("CMYK"), "JPEG"),
        ("lab", SHOWN.convert("LAB"), "TIFF"),
        ("floats", Image.fromarray(floats), "TIFF"),
        ("no numbers", Image.fromarray(floats * np.nan), "TIFF"),
        ("32 bits", Image.fromarray(deep.astype(np.int32) * 9999 - 9), "TIFF"),
        ("bits", SHOWN.convert("1"), "PNG"),
        ("palette", SHOWN.quantize(9), "PNG"),
        ("alpha", Image.new("RGBA", (40, 40), (9, 9, 9, 99)), "PNG"),
        ("ycbcr", SHOWN.convert("YCbCr"), "TIFF"),
        *((f"{w} x {h}", Image.new("RGB", (w, h), "red"), "PNG") for w, h in SIZES),
    ):
        yield name, encoded(image, kind)
    for kind in ("PNG", "GIF", "WEBP", "TIFF", "AVIF"):
        yield f"{kind} that moves", encoded(SHOWN, kind, **moving)
    for o in (0, 1, 2, 5, 8, 9, 65535):
        yield f"webp turned {o}", encoded(SHOWN, "WEBP", exif=exif(o), lossless=True)
        yield f"png turned {o}, behind the pixels", late_exif(o)
    for i, tags in enumerate((b"", b"II*\0", b"MM\0*\0\0\0\x08\xff\xff", b"II*\0\xff\xff\xff\xff")):
        yield f"damaged exif {i}", encoded(SHOWN, "JPEG", exif=b"Exif\0\0" + tags)
    yield "progressive jpeg cut off", encoded(SHOWN, "JPEG", progressive=True)[:-200]
    yield "49 million pixels with alpha", png(7000, 7000, 8, 6, bytes(28_000))
    yield "49 million pixels of 16 bits", png(7000, 7000, 16, 0, bytes(14_000))
    yield "51 million pixels of one bit", png(7200, 7100, 1, 0, bytes(900))
    yield "three times 16 bits", png(40, 40, 16, 2, bytes(range(240)))
    yield "text of a gigabyte", png(9, 9, 8, 2, bytes(27), chunk(b"zTXt", b"a\0\0" + bomb()))
    yield "a profile of a gigabyte", png(9, 9, 8, 2, bytes(27), chunk(b"iCCP", b"a\0\0" + bomb()))
    yield "more pixels than there are", png(5000, 5000, 8, 2, bytes(9))
    yield "gif that claims all", b"GIF89a\xff\xff\xff\xff\x80\0\0" + encoded(SHOWN, "GIF")[13:]
    yield "bmp that claims all", b"BM" + struct.pack("<IIIIiiHH", 99, 0, 54, 40, 2**30, 9, 1, 24)
    yield "ppm that claims all", b"P6 99999999999999999999 99999999999999 255\n" + bytes(99)
    yield "ppm of 16 bits", b"P5 40 40 65535\n" + bytes(3200)
    yield "ppm of no pixels", b"P6 0 0 255\n"
    yield "sparse file of 9 GB", str(sparse(folder / "sparse.png"))
    for name, data in (
        ("svg", b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"),
        ("pdf", b"%PDF-1.7\n"),
        ("html", b"<!DOCTYPE html><title>404</title>"),
        ("gzip", gzip.compress(encoded(SHOWN))),
        ("icon", encoded(SHOWN, "ICO")),
        ("tga", encoded(SHOWN, "TGA")),
        ("git lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"),
        ("nothing", b""),
        ("zeros", bytes(9999)),
    ):
        yield name, data
    yield from (("a folder", str(folder)), ("a device", "/dev/zero"), ("nowhere", "gone.png"))
    yield from (("no name", ""), ("a null", "a\0b.png"), ("a long name", "x" * 5000))
    for address in ("https://example.org/a.png", "http://[", "ftp://h/a", "file:///etc/passwd"):
        yield address, address
    for i, url in enumerate(
        (
            "data:,",
            "data:image/png;base64,",
            "data:image/png;base64,@@@",
            f"data:;base64,{code}",
            f"data:image/png;base64,{code[:-7]}",
            f"data:image/png;charset=x;base64, {code.replace('+', '%2B').replace('/', '%2f')}",
            f"data:image/jpeg;base64,{code.replace('+', '-').replace('/', '_')}",
            encode_image(EPS),
        )
    ):
        yield f"data url {i}", url


SIZES = ((2, 3), (3, 3), (1, 100), (100, 1), (27, 9), (1, 5601), (9, 9000))


def late_exif(orientation: int) -> bytes:
    data = encoded(SHOWN)
    return data[:-12] + chunk(b"eXIf", exif(orientation).removeprefix(b"Exif\0\0")) + data[-12:]


def bomb() -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(1 << 24)) for _ in range(64)) + packer.flush()


def sparse(path: Path) -> Path:
    with path.open("wb") as file:
        file.write(encoded(SHOWN))
        file.truncate(9 * 2**30)
    return path


def mutated(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Files of every format with changed, missing, doubled bytes."""
    for number in range(10**9):
        kind = KINDS[number % len(KINDS)]
        data = bytearray(encoded(SHOWN, kind))
        for _ in range(rng.randint(1, 6)):
            at = rng.choice((rng.randrange(len(data)), rng.randrange(min(99, len(data)))))
            what = rng.random()
            if what < 0.7:
                data[at] = rng.choice((0, 255, 127, rng.randrange(256)))
            elif what < 0.8:
                del data[at : at + rng.randint(1, 40)]
            elif what < 0.9:
                data[at:at] = data[at : at + rng.randint(1, 40)]
            else:
                del data[-rng.randint(1, len(data) // 2) :]
        yield f"{kind} {number}", bytes(data)


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    model, prm = save_tiny_model(folder / "model"), folder / "prm"
    random_prm().save_pretrained(prm)
    made = [*islice(chain(handmade(folder), mutated(rng)), min(count, PICTURES))]
    ended: dict[str, int] = {}  # picture -> exit code of the first command
    with FakeEndpoint() as server:
        todo = [(place, turn) for turn in range(TURNS) for place in range(len(made))]
        for place, turn in todo[:count]:
            name, reference = made[place]
            here = folder / str(place)
            here.mkdir(exist_ok=True)
            if isinstance(reference, bytes):
                (here / "picture.png").write_bytes(reference)
                reference = "picture.png"
                path = str(here / reference)
            else:
                path = reference
            asked = Question(id=name, domain="d", text="?", images=("a",), answer="1")
            row = asked.model_dump_json().replace('"a"', json.dumps(reference))
            (here / "q.jsonl").write_text(row + "\n")
            steps = Trajectory(question_id=name, steps=("Step 1: red is 3",))
            write_trajectories(here / "t.jsonl", [steps])
            verbs: Sequence[Sequence[object]] = (
                ("sample", "--base_urls", server.url, "--model_name_or_path", server.model,
                 "--num_candidates", 2, "--output", here / "c.jsonl"),
                ("score", "--trajectories", here / "t.jsonl", "--model_name_or_path", prm,
                 "--output", here / "s.jsonl"),
                ("validate", "--images", "true"),
                ("sample", "--model_name_or_path", model, "--num_candidates", 1,
                 "--max_new_tokens", 2, "--output", here / "l.jsonl"),
            )  # fmt: skip
            verb, *words = verbs[(place + turn) % TURNS]
            yield Case(
                f"{name}, {verb}",
                [str(word) for word in (verb, "--questions", here / "q.jsonl", *words)],
                _check(path, name, ended, server if server.url in words else None),
                longest_s=20.0 if "million" in name else LONGEST_S,  # to decode twice, and resize
            )


def _check(
    reference: str, name: str, ended: dict[str, int], server: FakeEndpoint | None
) -> Callable[[Result], str | None]:
    def check(result: Result) -> str | None:
        if ended.setdefault(name, result.code) != result.code:
            return "another command takes it for something else"
        if server is not None and result.code == 0:
            [*_, last] = [seen for seen in server.seen if "messages" in seen.body]
            url = last.body["messages"][0]["content"][0]["image_url"]["url"]
            sent = Image.open(io.BytesIO(decode_image(url))).convert("RGB")
            if ImageChops.difference(sent, load_image(reference)).getbbox():
                return "the server sees another picture"
        return None

    return check
