"""Images as tables hold them -> a path or encoded bytes, and bytes -> one file per image.

Bytes keep their encoding: a JPEG that is decoded and written again is another image. A file is
named by its content, so that an image of twenty questions is written once.
"""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from dreamprm.data.files import atomic_write, image_from_disk
from dreamprm.errors import DataError


def pictures(value: Any, root: Path | None, field: str) -> tuple[str | bytes, ...]:
    """The images of one value of a table: none, one, or a list.

    Args:
        value: None, a path, encoded bytes, a `{"bytes", "path"}` struct, a PIL image, or a list of
            these.
        root: folder that relative paths start from; None where the table lies in no folder.
        field: the column, for the message.

    Raises:
        DataError: it is nothing of that, or no image.
    """
    if isinstance(value, list | tuple):
        return tuple(image for one in value for image in pictures(one, root, field))
    if isinstance(value, dict):
        data = value.get("bytes")
        value = value.get("path") if data is None else data
    if value is None or value in ("", b"") or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, str):
        return (_path(value, root, field),)
    if isinstance(value, Image.Image):
        return (_encoded(value, field),)
    if isinstance(value, bytes):
        suffix_of(value, field)
        return (value,)
    raise DataError(
        f"must be an image (path, bytes, struct of both, or PIL), not {type(value).__name__}",
        field=field,
    )


def save_picture(data: bytes, folder: Path) -> str:
    """Write an image into a folder unless it is there, and give its path."""
    suffix = suffix_of(data, "images")
    path = folder / f"{hashlib.sha256(data).hexdigest()[:32]}.{suffix}"
    if not path.exists():
        with atomic_write(path) as file:
            file.write(data)
    return str(path)


def suffix_of(data: bytes, field: str) -> str:
    """The format of encoded bytes, e.g. `png`. Reads the head only; nothing is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return (image.format or "image").lower()
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        message = f"{len(data)} bytes are no image; correct or remove the row"
    except Image.DecompressionBombError:
        message = "the image has too many pixels; remove the row"
    raise DataError(message, field=field)


def _path(reference: str, root: Path | None, field: str) -> str | bytes:
    if root is None and not Path(reference).is_absolute() and not reference.startswith("data:"):
        raise DataError(
            f"'{reference[:60]}' names a file and the source lies in no folder; download the "
            "images and give their folder as image_root",
            field=field,
        )
    return image_from_disk(reference, root or Path())


def _encoded(image: Image.Image, field: str) -> bytes:
    """PNG, because it loses nothing, and a decoded image no longer knows what it was."""
    buffer = io.BytesIO()
    try:
        image.save(buffer, "PNG")
    except (OSError, ValueError) as error:
        raise DataError(f"the image cannot be written as PNG: {error}", field=field) from error
    return buffer.getvalue()
