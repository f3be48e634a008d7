"""The one place that turns an image reference into pixels."""

from __future__ import annotations

import io
import math
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dreamprm.errors import DataError

LARGEST_ASPECT = 200
"""Longer side to shorter; image processors of the Qwen family refuse more."""


def load_image(reference: str | bytes, root: Path | None = None) -> Image.Image:
    """Read an image as RGB.

    Args:
        reference: a path, or the encoded bytes of an image file.
        root: folder that a relative path starts from.

    Returns:
        An RGB image. Transparency is laid over white: many published diagrams are black lines on a
        transparent ground, and dropping alpha would turn them into black squares. Greyscale of more
        than 8 bits is scaled down, and strips beyond `LARGEST_ASPECT` are padded with white.

    Raises:
        DataError: the file is missing or is no image.
    """
    if isinstance(reference, bytes):
        source: Path | io.BytesIO = io.BytesIO(reference)
        name = f"<{len(reference)} bytes>"
    else:
        source = Path(reference) if root is None else root / reference
        name = str(source)
    try:
        with Image.open(source) as image:
            image.load()
            return _padded(_rgb(image))
    except FileNotFoundError:
        raise DataError(
            f"image {name} does not exist; restore the file or correct the path", field="images"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"image {name} cannot be read: {error}", field="images") from None


def image_bytes(reference: str | bytes) -> bytes:
    """An image's bytes as they are in its file.

    Raises:
        DataError: the file cannot be read.
    """
    if isinstance(reference, bytes):
        return reference
    try:
        return Path(reference).read_bytes()
    except OSError as error:
        raise DataError(
            f"image {reference} cannot be read: {error.strerror or error}; restore the file or "
            "correct the path",
            field="images",
        ) from None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 or 32 bits, which Pillow would cut off at 255
        deep = image.convert("I")
        brightest = float(str(deep.getextrema()[1]))
        if image.mode != "I" or brightest > 255:
            scale = 255 / max(brightest, 65535.0)
            deep = deep.point(lambda value: value * scale)
        return deep.convert("L").convert("RGB")
    if image.mode.endswith(("A", "a")) or "transparency" in image.info:
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _padded(image: Image.Image) -> Image.Image:
    """The image in the middle of a white ground that is no thinner than `LARGEST_ASPECT` allows."""
    thinnest = math.ceil(max(image.size) / LARGEST_ASPECT)
    if min(image.size) >= thinnest:
        return image
    width, height = (max(side, thinnest) for side in image.size)
    ground = Image.new("RGB", (width, height), "white")
    ground.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return ground
