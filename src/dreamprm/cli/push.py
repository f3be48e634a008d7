r"""Put a trained PRM on the Hugging Face hub, with a model card.

Reads a folder that `dreamprm train` wrote; writes the card into it as README.md (one that you wrote
yourself is kept) and uploads all but the checkpoints. Log in first: hf auth login.

  dreamprm push --model_name_or_path prm --repo_id me/prm --evaluation result.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dreamprm.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of push.

    Attributes:
        model_name_or_path: folder of a PRM that `dreamprm train` wrote.
        repo_id: where it goes: owner/name.
        evaluation: for the card: a result file of `dreamprm evaluate` or `dreamprm benchmark`, the
            demo's summary.json, or JSON {name: number}.
        private: make a private repository, if it is not there yet.
        card_only: write the card and upload nothing.
    """

    model_name_or_path: Path
    repo_id: str
    evaluation: Path | None = None
    private: bool = False
    card_only: bool = False


def run(config: Config) -> None:
    """Write the card and upload."""
    from dreamprm.data.files import load_json_object
    from dreamprm.training.hub import CARD_FILE, push_to_hub, write_card

    folder = config.model_name_or_path
    evaluation = None
    if config.evaluation is not None:
        if not config.evaluation.is_file():
            raise DataError("no such file", file=config.evaluation)
        evaluation = load_json_object(config.evaluation)
        if "schema" in evaluation:
            from dreamprm.evaluation.results import main_figures, read_result

            evaluation = {"accuracy": main_figures(read_result(config.evaluation))}
    written = write_card(folder, config.repo_id, evaluation)
    print(f"{folder / CARD_FILE}: {'written' if written else 'your own text, kept'}")
    if not config.card_only:
        print(push_to_hub(folder, config.repo_id, config.private or None))
