"""The one place that turns an image reference into pixels."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dreamprm.errors import DataError


def load_image(reference: str | bytes, root: Path | None = None) -> Image.Image:
    """Read an image as RGB.

    Args:
        reference: a path, or the encoded bytes of an image file.
        root: folder that a relative path starts from.

    Returns:
        An RGB image. Transparency is laid over white: many published diagrams are black lines on a
        transparent ground, and dropping alpha would turn them into black squares.

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
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                ground = Image.new("RGBA", rgba.size, "white")
                return Image.alpha_composite(ground, rgba).convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError:
        raise DataError(
            f"image {name} does not exist; restore the file or correct the path", field="images"
        ) from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"image {name} cannot be read: {error}", field="images") from None
