"""What the folder of a saved reward model says of itself, without loading the model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dreamprm.data.files import load_json_object, open_for_reading
from dreamprm.errors import DreamPRMError

CONFIG_FILE, HEAD_FILE = "prm_config.json", "prm_head.safetensors"


def is_prm(path: str | Path) -> bool:
    """Whether a path is the folder of a reward model that `save_pretrained` wrote."""
    return (Path(path) / CONFIG_FILE).is_file()


def no_prm(folder: Path, missing: str) -> DreamPRMError:
    """The error for a folder that holds no reward model."""
    return DreamPRMError(
        f"{folder} holds no {missing}: not a PRM saved by dreamprm; give the folder that "
        "`dreamprm train` wrote"
    )


def trained_aggregation(folder: Path) -> str:
    """The aggregation that the model was trained for."""
    return str(load_json_object(folder / CONFIG_FILE)["aggregation"])


def identity(folder: Path) -> str:
    """The folder's name and a digest of its weights, which tells one training from another.

    Scores of two trainings must not end up in one file.
    """
    if not (folder / HEAD_FILE).is_file():
        raise no_prm(folder, HEAD_FILE)
    return f"{folder.resolve().name} {weights_digest(folder)}"


def weights_digest(folder: Path) -> str:
    """12 hexadecimal digits for the files of weights: their names and last MiB.

    A backbone is too large to read twice, and training moves all of it.
    """
    digest = hashlib.sha256()
    for weights in sorted(folder.glob("*.safetensors")):
        with open_for_reading(weights) as file:
            file.seek(max(0, weights.stat().st_size - 2**20))
            digest.update(weights.name.encode() + file.read())
    return digest.hexdigest()[:12]
