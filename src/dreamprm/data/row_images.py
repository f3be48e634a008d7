"""How rows name images, kept as it was while the question still has those images."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from dreamprm.data.fields import Row, cannot_hold
from dreamprm.data.rows import outside_image
from dreamprm.errors import DataError
from dreamprm.records import Question, Trajectory


def image_references(row: Row, field: str) -> list[str]:
    """The image paths of a row: a path, a list of them, or `datasets` images that name a path."""
    value = row.get(field)
    values = value if isinstance(value, list) else [] if value in (None, "") else [value]
    paths = [item.get("path") if isinstance(item, dict) else item for item in values]
    if not all(isinstance(path, str) and path.strip() and "\0" not in path for path in paths):
        raise DataError("must be a path or a list of paths", field=field)
    if any(isinstance(item, dict) and item.get("bytes") for item in values):
        raise DataError("holds bytes; name a path, or use a data URL", field=field)
    return [str(path) for path in paths]


def kept_images(row: Row, field: str) -> list[Any] | None:
    """How a row names its images, for `images_of`: [value], or None for no such field."""

    def short(value: Any) -> Any:  # the bytes of a data URL are in the question already
        if isinstance(value, list):
            return [short(item) for item in value]
        is_url = isinstance(value, str) and value.startswith("data:")
        return value.partition(",")[0] + "," if is_url else value

    return [short(row[field])] if field in row else None


def images_of(
    question: Question,
    trajectory: Trajectory,
    field: str,
    layout: Row,
    folder: Path,
    *,
    as_list: bool = False,
) -> Row:
    """The image field of a row: as it was read while it still names the question's images."""
    kept = layout.get("images")
    if isinstance(kept, list) and kept:
        value = kept[0]
        values = value if isinstance(value, list) else [value] if value else []
        if len(values) == len(question.images) and all(map(_names, values, question.images)):
            whole = [_url(item, image) for item, image in zip(values, question.images, strict=True)]
            return {field: whole if isinstance(value, list) else whole[0] if whole else value}
    if not question.images:
        return {}
    if any(isinstance(image, bytes) for image in question.images):
        message = "has a question with image bytes, and this format takes paths; save them as files"
        raise cannot_hold(trajectory, message, field="images")
    found = outside_image(question, folder)
    return {field: [found] if as_list and isinstance(found, str) else found}


def _names(reference: Any, image: str | bytes) -> bool:
    """Does a reference end like the path that it became, whatever folder it started from?"""
    path = reference.get("path") if isinstance(reference, dict) else reference
    if not isinstance(path, str) or isinstance(image, bytes):
        return isinstance(image, bytes) and str(path).startswith("data:")
    if "://" in path:
        return path == image
    tail = [part for part in Path(os.path.normpath(path)).parts if part != ".."]
    return list(Path(image).parts[len(Path(image).parts) - len(tail) :]) == tail


def _url(reference: Any, image: str | bytes) -> Any:
    return reference + base64.b64encode(image).decode() if isinstance(image, bytes) else reference
