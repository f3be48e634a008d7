"""A saved reward model to the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # has no __all__

from dreamprm.data.files import atomic_write
from dreamprm.errors import DreamPRMError
from dreamprm.prm.card import CARD_FILE, MARKER, is_hub_name, model_card, read_facts

IGNORED = ["checkpoints/*", "checkpoints/**/*", ".*", "**/.*"]
# The HTTP library below huggingface_hub changes between its versions; its errors have this base.
_HTTP_ERROR: type[Exception] = HfHubHTTPError.__mro__[1]


class Api(Protocol):
    """What is used of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, *, private: bool | None, exist_ok: bool) -> Any: ...

    def upload_folder(
        self, *, repo_id: str, folder_path: str, commit_message: str, ignore_patterns: list[str]
    ) -> Any: ...


def write_card(
    folder: str | Path, repo_id: str, evaluation: Mapping[str, Any] | None = None
) -> bool:
    """Write the card into the model's folder; a text of somebody's own is kept.

    Returns:
        Whether it was written.

    Raises:
        DreamPRMError: no model there; an evaluation that is none; a name that the hub does not
            allow; a folder that cannot be written.
    """
    _check_name(repo_id)
    path = Path(folder) / CARD_FILE
    card = model_card(read_facts(folder), repo_id, evaluation)
    if path.is_file():
        there = path.read_text(encoding="utf-8", errors="replace")
        if MARKER not in there and "library_name: peft" not in there:  # peft leaves an empty one
            return False
    with atomic_write(path) as file:
        file.write(card.encode())
    return True


def push_to_hub(
    folder: str | Path, repo_id: str, private: bool | None = None, *, api: Api | None = None
) -> str:
    """Upload a model's folder, without its checkpoints.

    Args:
        folder: that `dreamprm train` wrote.
        repo_id: `owner/name`; made if it is not there.
        private: of a repository that is made now; None: the owner's default.
        api: in place of a new `HfApi`.

    Returns:
        The model's address.

    Raises:
        DreamPRMError: no model there; a name that is none; adapters on a base that only this
            machine has; not logged in; no network; refused. The model stays in its folder.
    """
    _check_name(repo_id)
    folder = Path(folder)
    base = read_facts(folder).adapter_base
    if base is not None and not is_hub_name(base):
        raise DreamPRMError(
            f"{folder}: the adapters' base model is '{base}', which others do not have; set "
            "base_model_name_or_path in adapter_config.json to its name on the hub, or save the "
            "model merged"
        )
    safe = f"the model is safe in {folder}"
    hub = api or HfApi()
    try:
        hub.create_repo(repo_id, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=repo_id,
            folder_path=str(folder),
            commit_message="Upload a process reward model",
            ignore_patterns=IGNORED,
        )
    except LocalTokenNotFoundError as error:
        raise DreamPRMError(f"not logged in to the hub: run `hf auth login`; {safe}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        mend = " (run `hf auth login`)" if status in (401, 403) else ""
        reason = str(error).strip().splitlines()[0]
        raise DreamPRMError(f"the hub refused '{repo_id}'{mend}: {reason}; {safe}") from error
    except (_HTTP_ERROR, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DreamPRMError(f"cannot reach the hub: {reason}; {safe}") from error
    return f"https://huggingface.co/{repo_id}"


def _check_name(repo_id: str) -> None:
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise DreamPRMError(f"repo_id: {error}; give owner/name") from error
