"""Every image file becomes RGB pixels that show what the file shows."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from dreamprm.images import LARGEST_ASPECT, load_image


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_what_is_transparent_becomes_white() -> None:
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    for data in (
        encoded(Image.new("RGBA", (2, 1), (0, 0, 0, 0))),
        encoded(Image.new("LA", (2, 1), (0, 0))),
        encoded(palette, transparency=1),
    ):
        assert load_image(data).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I", "TIFF")])
@pytest.mark.parametrize(("value", "shown"), [(0, 0), (32896, 128), (65535, 255)])
def test_deep_greyscale_keeps_its_shades(mode: str, kind: str, value: int, shown: int) -> None:
    image = load_image(encoded(Image.new(mode, (3, 2), value), kind))
    assert image.mode == "RGB"
    assert image.getpixel((0, 0)) == (shown, shown, shown)


def test_a_strip_is_padded_until_image_processors_take_it() -> None:
    for size in ((LARGEST_ASPECT * 5 + 1, 2), (2, LARGEST_ASPECT * 5 + 1)):
        image = load_image(encoded(Image.new("RGB", size, "red")))
        assert max(image.size) / min(image.size) <= LARGEST_ASPECT
        middle = (image.width // 2, image.height // 2)
        assert image.getpixel(middle) == (255, 0, 0)
        assert image.getpixel((0, 0)) == (255, 255, 255)
    for size in ((LARGEST_ASPECT, 1), (1, 1), (7, 900)):
        assert load_image(encoded(Image.new("RGB", size))).size == size
