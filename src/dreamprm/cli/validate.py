r"""An account of data files: what they hold, and what is wrong with them.

Reads any format, on behind rows that cannot be read; ends with exit code 1 if it found errors, with
0 if there are only warnings and notes.

  dreamprm validate --input meta.json
  dreamprm validate --questions questions.jsonl --trajectories candidates.jsonl --images true
  dreamprm validate --input train.json --against.mathvista mathvista.jsonl
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dreamprm.cli.parsing import UsageError
from dreamprm.errors import DataError, DreamPRMError

if TYPE_CHECKING:
    from dreamprm.data.audit import Facts, Finding, LabelFacts, Loaded


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of validate.

    Attributes:
        input: files of any format, each with an account of its own.
        input_format: their format; by default told from the first rows of each.
        questions: files of our questions, which have one account together.
        trajectories: files of our trajectories; each must belong to one of the questions, if given.
        image_root: folder that image paths start from; by default that of each file.
        images: read every image to its end; else images are only looked for.
        against: name -> file whose questions must not be among these, such as a benchmark.
        json: print the account as JSON.
    """

    input: list[Path] = field(default_factory=list)
    input_format: str | None = None
    questions: list[Path] = field(default_factory=list)
    trajectories: list[Path] = field(default_factory=list)
    image_root: Path | None = None
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
    others = {name: _compared(path) for name, path in config.against.items()}
    accounts: list[tuple[Facts, list[Finding]]] = []
    for loaded in _loaded(config):
        if others and not loaded.questions:
            raise DataError("holds no questions to look for in other files", file=loaded.name)
        found = audit.findings(loaded, decode_images=config.images)
        for name, other in others.items():
            found += audit.overlap(loaded, name, other.questions)
            found += _not_compared(name, other)
        accounts.append((audit.facts(loaded), audit.gravest_first(found)))
    if config.json:
        written = [
            {**dataclasses.asdict(facts), "findings": list(map(dataclasses.asdict, found))}
            for facts, found in accounts
        ]
        print(json.dumps({"files": written}, ensure_ascii=False, indent=1))
    else:
        print("\n\n".join("\n".join(lines(facts, found)) for facts, found in accounts))
    errors = sum(finding.severity == "error" for _, found in accounts for finding in found)
    if errors:
        raise DreamPRMError(
            f"the data has {errors} kind{'s' * (errors > 1)} of error, named above; correct them, "
            "or leave out what is wrong"
        )


def _loaded(config: Config) -> Iterator[Loaded]:
    from dreamprm.data.audit import load, load_ours

    for path in config.input:
        yield load(path, format=config.input_format, image_root=config.image_root)
    if config.questions or config.trajectories:
        yield load_ours(config.questions, config.trajectories, image_root=config.image_root)


def _compared(path: Path) -> Loaded:
    """A file whose questions others are compared with."""
    from dreamprm.data.audit import load

    other = load(path)
    if not other.questions:
        raise DataError("holds no questions to compare with", file=path)
    return other


def _not_compared(name: str, other: Loaded) -> list[Finding]:
    """Rows of such a file that cannot be read may hide what is looked for."""
    from dreamprm.data.audit import Finding

    if not other.bad:
        return []
    count = len(other.bad)
    message = f"{count} rows of {name} cannot be read, so nothing was compared with them; mend them"
    return [Finding("error", "not_compared", count, message, tuple(map(str, other.bad[:5])))]


def lines(facts: Facts, found: Sequence[Finding]) -> Iterator[str]:
    """An account for people."""
    yield f"{facts.name}: {facts.format}"
    for name, told in _counts(facts):
        yield f"  {name:<15}{told}"
    for finding in found:
        yield f"{finding.severity}: {' '.join(finding.message.split())}"
        for where in finding.where:
            yield f"    {' '.join(where.split())}"
        if finding.where and finding.count > len(finding.where):
            yield f"    and {finding.count - len(finding.where)} more"
    if not found:
        yield "nothing wrong was found"


def _counts(facts: Facts) -> Iterator[tuple[str, str]]:
    if facts.rows is not None:
        unread = f", {facts.unread} of them cannot be read" if facts.unread else ""
        yield "rows", f"{facts.rows}{unread}"
    if facts.scores:
        yield "step scores", f"of {facts.scores} trajectories"
    if facts.questions:
        yield "questions", f"{facts.questions}"
        yield "domains", _named(facts.domains, facts.number_of_domains)
        if facts.subjects:
            yield "subjects", _named(facts.subjects, facts.number_of_subjects)
        each = f", {facts.images / facts.with_images:.2f} images each" if facts.images else ""
        yield "with images", f"{facts.with_images}{each}"
        yield "with options", f"{facts.with_options}"
        yield "gold answer", f"known of {facts.gold_known}"
    if facts.steps:
        yield "trajectories", f"{facts.trajectories}"
        yield "policies", _named(facts.policies)
        yield "steps", f"{facts.steps[0]} to {facts.steps[2]}, median {facts.steps[1]:g}"
        yield "outcomes", _tally(facts.outcomes)
    if facts.outcomes_of_rows:
        yield "rows say", _tally(facts.outcomes_of_rows)
    if facts.labels:
        yield from _label_counts(facts.labels, facts.trajectories)


def _label_counts(labels: LabelFacts, trajectories: int) -> Iterator[tuple[str, str]]:
    shares = f"mean {labels.mean:.3f}, {labels.zeros:.1%} are 0 and {labels.ones:.1%} are 1"
    yield "labels", f"on {labels.steps} of {labels.of_steps} steps; {shares}"
    yield "", f"{labels.with_wrong_step} of {trajectories} trajectories have a step labelled 0"
    yield "completions", "per label: " + _named(labels.totals)


def _tally(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def _named(counts: Mapping[Any, int], of: int | None = None) -> str:
    told = ", ".join(f"{name} ({count})" for name, count in counts.items())
    more = (of or len(counts)) - len(counts)
    return f"{told}, and {more} more" if more else told
