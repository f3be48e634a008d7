"""What would chance alone give? The same run with outcomes that mean nothing.

Outcomes of the meta candidates are permuted within each question, so that every question keeps its
number of right ones, and the run is repeated with the same settings from the same start. What its
weights are is what noise makes of them in this set-up: the null band.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dreamprm.data.files import atomic_write, load_json_object
from dreamprm.prm.model import PRM
from dreamprm.training.checkpoint import FREE
from dreamprm.training.config import TrainConfig
from dreamprm.training.data import Pair, TrainData
from dreamprm.training.learned import TrainResult
from dreamprm.training.run import fit

FOLDER, RUN, BAND = "null_check", "run.json", "null_check.json"
KEPT = {RUN, "history.jsonl"}


@dataclass(frozen=True)
class NullBand:
    """Weights of the real run beside those of null runs.

    Attributes:
        real: weight of each domain.
        null: of each null run, its weights.
        told_apart: weights of null runs whose 95% interval does not hold 1; None where there are no
            intervals. Of twenty about one is expected.
    """

    real: dict[str, float]
    null: list[dict[str, float]]
    told_apart: int | None

    @property
    def values(self) -> list[float]:
        """All weights of the null runs, in order of size."""
        return sorted(w for weights in self.null for w in weights.values())

    def lines(self) -> list[str]:
        """For people."""
        values = self.values
        low, high = values[0], values[-1]
        sure = f"; {self.told_apart} of them told apart from 1" * (self.told_apart is not None)
        outside = [f"{n} {w:.2f}" for n, w in self.real.items() if not low <= w <= high]
        runs = f"{len(self.null)} run{'s' * (len(self.null) > 1)}"
        return [
            f"null check, outcomes permuted within questions, {runs}: "
            f"{len(values)} weights from {low:.2f} to {high:.2f}{sure}",
            f"real weights outside of that: {', '.join(outside) or 'none'}",
        ]


def permuted(meta: Sequence[Sequence[Pair]], seed: int) -> list[list[Pair]]:
    """Outcomes shuffled within each question; all else stays."""
    shuffled = []
    for group in meta:
        outcomes = [t.outcome for _, t in group]
        random.Random(f"{seed}/{group[0][0].id}").shuffle(outcomes)
        pairs = zip(group, outcomes, strict=True)
        shuffled.append([(q, t.model_copy(update={"outcome": o})) for (q, t), o in pairs])
    return shuffled


def null_check(
    make_model: Callable[[], PRM],
    data: TrainData,
    config: TrainConfig,
    real: TrainResult,
    folder: Path,
    runs: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> NullBand:
    """Train `runs` times on permuted outcomes, and write `null_check.json`.

    A null run that is done is not repeated, one that was killed goes on from its checkpoint; of one
    that is done only weights and history are kept.

    Args:
        make_model: the model as the real run began with it.
        data, config, real: of the real run.
        folder: output_dir of the real run; null runs get `null_check/1` and so on.
        progress: called with the number of lower steps done since the last call.

    Raises:
        DreamPRMError: see `fit`.
    """
    settings: dict[str, Any] = {k: v for k, v in asdict(config).items() if k not in FREE}
    rows = [
        [t.question_id, t.sample_index, t.outcome, len(t.steps)] for g in data.meta for _, t in g
    ]
    rows += [[t.question_id, t.sample_index, str(t.labels)] for _, t in data.items]
    settings["data"] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    results = []
    for number in range(1, runs + 1):
        target = folder / FOLDER / str(number)
        noted = load_json_object(target / RUN) if (target / RUN).exists() else {}
        if noted.get("settings") == settings:
            progress(config.max_steps)
        else:
            null = replace(data, meta=permuted(data.meta, number))
            quiet = replace(config, report_to="none")
            result = fit(make_model(), null, quiet, output_dir=target, progress=progress)
            noted = {"settings": settings, "weights": result.weights, "verdicts": result.verdicts}
            if result.is_main:
                for path in target.iterdir():
                    if path.is_dir():
                        shutil.rmtree(path)
                    elif path.name not in KEPT:
                        path.unlink()
                with atomic_write(target / RUN) as file:
                    file.write((json.dumps(noted, indent=2) + "\n").encode())
        results.append(noted)
    verdicts = [v for noted in results for v in noted["verdicts"].values()]
    told_apart = sum(v != "not told apart" for v in verdicts) if verdicts else None
    band = NullBand(real.weights, [noted["weights"] for noted in results], told_apart)
    if real.is_main:
        with atomic_write(folder / BAND) as file:
            file.write((json.dumps(asdict(band), indent=2) + "\n").encode())
    return band
