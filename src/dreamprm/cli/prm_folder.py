"""What the folder of a reward model says of itself, without loading it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from dreamprm.data.files import open_for_reading
from dreamprm.errors import DreamPRMError


def trained_aggregation(folder: Path) -> str:
    """The aggregation that the model was trained for."""
    with open_for_reading(folder / "prm_config.json") as file:
        return str(json.loads(file.read())["aggregation"])


def identity(folder: Path) -> str:
    """A name for the very weights: scores of two trainings must not end up in one file.

    The head may have no parameters of its own, and a backbone is too large to read twice: the end
    of each file of weights stands for it, as training moves them all.
    """
    head = folder / "prm_head.safetensors"
    if not head.is_file():
        raise DreamPRMError(
            f"{folder} holds no {head.name}: not a PRM saved by dreamprm; give the folder that "
            "`dreamprm train` wrote"
        )
    return f"{folder.resolve().name} {weights_digest(folder)}"


def weights_digest(folder: Path) -> str:
    """12 digits for the files of weights in a folder; the same for the same names and ends."""
    digest = hashlib.sha256()
    for weights in sorted(folder.glob("*.safetensors")):
        with open_for_reading(weights) as file:
            file.seek(max(0, weights.stat().st_size - 2**20))
            digest.update(weights.name.encode() + file.read())
    return digest.hexdigest()[:12]
