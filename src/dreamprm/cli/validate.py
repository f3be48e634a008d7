r"""An account of data files: what they hold, and what is wrong with them.

Reads any format, on behind rows that cannot be read; ends with exit code 1 if it found errors, with
0 if there are only warnings and notes.

  dreamprm validate --input meta.json
  dreamprm validate --questions questions.jsonl --trajectories candidates.jsonl --images true
  dreamprm validate --input train.json --against.mathvista mathvista.jsonl
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm.cli.parsing import UsageError
from dreamprm.cli.pictures import ImageOptions
from dreamprm.errors import DreamPRMError

if TYPE_CHECKING:
    from dreamprm.data.audit import Facts, Finding, Loaded


@dataclass(frozen=True, kw_only=True)
class Config(ImageOptions):
    """Options of validate.

    Attributes:
        input: files of any format, each with an account of its own.
        input_format: their format; by default told from the first rows of each.
        questions: files of our questions, which have one account together.
        trajectories: files of our trajectories; each must belong to one of the questions, if given.
        images: read every image to its end; else images are only looked for.
        against: name -> file whose questions must not be among these, such as a benchmark.
        json: print the account as JSON.
    """

    input: list[Path] = field(default_factory=list)
    input_format: str | None = None
    questions: list[Path] = field(default_factory=list)
    trajectories: list[Path] = field(default_factory=list)
    images: bool = False
    against: dict[str, Path] = field(default_factory=dict)
    json: bool = False


def run(config: Config) -> None:
    """Print the accounts.

    Raises:
        DreamPRMError: there are errors in the data; says how many.
    """
    from dreamprm.data import audit

    if not (config.input or config.questions or config.trajectories):
        raise UsageError("validate: give --input, or --questions and --trajectories")
    config.limit_images()
    others = {name: audit.load_other(path) for name, path in config.against.items()}
    accounts: list[tuple[Facts, list[Finding]]] = []

    def add(loaded: Loaded) -> None:
        findings = audit.findings(loaded, decode_images=config.images, others=others)
        accounts.append((audit.facts(loaded), findings))

    how: dict[str, Any] = {"image_root": config.image_root}
    how["decode"] = config.images or bool(others)
    for path in config.input:
        add(audit.load(path, format=config.input_format, **how))
    if config.questions or config.trajectories:
        add(audit.load_ours(config.questions, config.trajectories, **how))
    if config.json:
        files = [
            {**asdict(facts), "findings": list(map(asdict, findings))}
            for facts, findings in accounts
        ]
        print(json.dumps({"files": files}, ensure_ascii=False, indent=1))
    else:
        print("\n\n".join("\n".join(audit.lines(*account)) for account in accounts))
    errors = sum(finding.severity == "error" for _, findings in accounts for finding in findings)
    if errors:
        raise DreamPRMError(
            f"the data has {errors} kind{'s' * (errors > 1)} of error, named above; correct them, "
            "or leave out what is wrong"
        )
