r"""Weigh training trajectories by a rule of data selection: what learned weights must beat.

Reads questions and labelled trajectories; writes one weight per labelled trajectory (0: left out;
the mean is 1). Selectors: `random`, `s1` (quality, difficulty, diversity), `car` (the best of each
cluster), `bis` (mixture and reliability of the labels), `loss` (small loss of a reference PRM).

  dreamprm weigh --questions questions.jsonl --trajectories labelled.jsonl \
    --output weights.jsonl --selector bis --budget 0.5
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dreamprm.cli.inputs import candidates_of, read_candidates
from dreamprm.cli.pictures import UsedImages
from dreamprm.cli.terminal import progress
from dreamprm.errors import DataError, DreamPRMError, require_positive
from dreamprm.records import domain_of
from dreamprm.training.config import LowerLoss


@dataclass(frozen=True, kw_only=True)
class Config(UsedImages):
    """Options of weigh.

    Attributes:
        questions: file of the training questions.
        trajectories: file of their labelled trajectories.
        output: .jsonl file of weights.
        selector: `random`, `s1`, `car`, `bis` or `loss`.
        budget: share of the trajectories that is kept, in (0, 1]; for `loss`, which keeps all, the
            effective share.
        seed: of what is drawn.
        model_name_or_path: for `car` any vision-language model, by path or hub name (`tiny` is the
            embedded one); for `loss` the folder of a PRM that `dreamprm train` wrote.
        step_tag: text that ends a step, for a model that is no PRM; a single token of it.
        lower_loss: of the reference PRM: `mse`, `bce` or `hard`.
        per_device_batch_size: trajectories in one forward pass.
        device: cpu, cuda, cuda:1, ...; by default cuda where there is one.
    """

    questions: Path
    trajectories: Path
    output: Path
    selector: Literal["random", "s1", "car", "bis", "loss"] = "bis"
    budget: float = 0.5
    seed: int = 0
    model_name_or_path: str | None = None
    step_tag: str = "\n"
    lower_loss: LowerLoss = "mse"
    per_device_batch_size: int = 16
    device: str | None = None


def run(config: Config) -> None:
    """Read, weigh, write."""
    from dreamprm.baselines.selection import Pool, check_budget, select_weights
    from dreamprm.data.trajectory_weights import write_weights
    from dreamprm.prm.folder import read_config

    check_budget(config.budget, config.seed)
    require_positive(config, "per_device_batch_size")
    if config.output.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError("the output must be a .jsonl file", file=config.output)
    for path in (config.questions, config.trajectories):
        if path.absolute() == config.output.absolute():
            raise DataError("is read, and would be overwritten", file=path, field="output")
    needs_model = config.selector in ("car", "loss")
    if needs_model and config.model_name_or_path is None:
        kind = "a trained PRM" if config.selector == "loss" else "any model"
        raise DreamPRMError(f"selector '{config.selector}' needs model_name_or_path: {kind}")
    questions, trajectories = read_candidates(
        [config.questions], [config.trajectories], config.image_root
    )
    if needs_model:
        model = Path(str(config.model_name_or_path))
        if config.selector == "loss" and model.is_dir():
            read_config(model)  # refuses what is no PRM
        questions = config.usable(questions, config.questions, str(model))
        trajectories = candidates_of(questions, trajectories)
    by_id = {question.id: question for question in questions}
    pairs = tuple(
        (by_id[t.question_id], t)
        for t in trajectories
        if any(label is not None for label in t.labels or ())
    )
    if not pairs:
        raise DataError(
            "no trajectory has a step label; run `dreamprm label` first", file=config.trajectories
        )
    pool = Pool(pairs)
    if needs_model:
        from dreamprm.baselines.features import measured_pool
        from dreamprm.cli.terminal import quiet_transformers

        quiet_transformers()
        with progress("trajectories scored", len(pairs)) as advance:
            pool = measured_pool(
                config.selector,
                pairs,
                str(config.model_name_or_path),
                batch_size=config.per_device_batch_size,
                step_tag=config.step_tag,
                lower_loss=config.lower_loss,
                device=config.device,
                progress=advance,
            )
    try:
        weights = select_weights(config.selector, pool, config.budget, config.seed)
    except DataError as error:
        raise error.at(file=config.trajectories) from error
    write_weights(config.output, pairs, weights.tolist())
    without_label = len(trajectories) - len(pairs)
    left_out = f"; {without_label} without label are left out" if without_label else ""
    print(f"{config.output}: weights of {len(pairs)} trajectories{left_out}")
    domains: dict[str, list[float]] = {}
    for pair, weight in zip(pairs, weights.tolist(), strict=True):
        domains.setdefault(domain_of(*pair), []).append(weight)
    for name, mine in sorted(domains.items(), key=lambda item: -sum(item[1]) / len(item[1])):
        above = sum(weight > 0 for weight in mine)
        print(f"  {sum(mine) / len(mine):6.3f}  {name} ({above} of {len(mine)} above 0)")
