"""Files that the house writes and reads again: results, settings, checkpoints, weights, stores."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from dreamprm.cli import main
from dreamprm.prm.model import PRMConfig
from dreamprm.rollouts.store import RolloutStore
from dreamprm.training.config import TrainConfig
from tests.attack import Case
from tests.attack._project import Project
from tests.attack.files import VALUES, damaged
from tests.cli_samples import make_project, save_tiny_model, train_words
from tests.format_rows import mutated

TRIED = "result files, settings, checkpoints, weights, histories and stores: changed, damaged"
COUNT = 600


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    project = Project(folder)
    made = _made(project)
    for number, (name, original, words) in zip(range(count), made, strict=False):
        good = original.read_bytes()
        how = rng.random()
        if original.suffix not in (".json", ".jsonl"):
            data = damaged(good, rng)
        elif how < 0.4:
            data = _with_value(good, rng.choice(VALUES), rng)
        elif how < 0.7:
            parts = good.splitlines() if original.suffix == ".jsonl" else [good]
            data = b"".join(json.dumps(mutated(json.loads(p), rng)).encode() + b"\n" for p in parts)
        else:
            data = damaged(good, rng)
        original.write_bytes(data)
        yield Case(f"{number}: {name}", words)
        original.write_bytes(good)


def _with_value(good: bytes, value: str, rng: random.Random) -> bytes:
    """One of its values is this text."""
    whole = good.startswith(b"{\n") or b"\n" not in good.strip()
    lines = [good] if whole else good.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    facts = json.loads(lines[at])
    parts = [facts]
    while True:
        part = parts[-1]
        keys = list(part) if isinstance(part, dict) else range(len(part))
        key = rng.choice(list(keys)) if keys else None
        if key is None:
            return good
        if isinstance(part[key], dict | list) and part[key] and rng.random() < 0.8:
            parts.append(part[key])
            continue
        part[key] = "@@"
        break
    lines[at] = json.dumps(facts).encode().replace(b'"@@"', value.encode(), 1) + b"\n"
    return b"".join(lines)


def _made(project: Project) -> Iterator[tuple[str, Path, list[str]]]:
    """(what is damaged and who reads it, the file, the command), without end; training is rare."""
    folder = project.folder
    questions, trajectories = (str(project.path(x)) for x in ("questions", "trajectories"))
    both = ["--questions", questions, "--trajectories", trajectories]
    scored = [*both, "--scores.a", str(project.path("scores")), "--n", "2"]
    result, other, html = folder / "result.json", folder / "other.json", str(folder / "out.html")
    _quietly(["evaluate", *scored, "--output", str(result)])
    shutil.copy(result, other)
    settings = folder / "scores.jsonl.settings.json"
    settings.write_text('{"command": "score", "aggregation": "last", "model": {"a": 1}}\n')
    prm, store = _prm(folder / "prm"), folder / "rollouts.db"
    with RolloutStore(store):
        pass
    page = ["report", *scored, "--training_dir", str(prm), "--output", html]
    push = ["push", str(prm), "--repo_id", "me/prm", "--card_only", "true"]
    quick = [
        ("result, compare", result, ["compare", str(result)]),
        ("result, report", result, ["report", str(other), str(result), "--output", html]),
        ("settings, evaluate", settings, ["evaluate", *scored]),
        ("weights.json, report", prm / "weights.json", page),
        ("history.jsonl, report", prm / "history.jsonl", page),
        ("result, push", result, [*push, "--evaluation", str(result)]),
        ("training_config.json, push", prm / "training_config.json", push),
        ("weights.json, push", prm / "weights.json", push),
        ("store, status", store, ["status", str(store)]),
    ]
    for _ in range(3):
        yield from quick
    trained, train = _trained(folder)
    checkpoint = trained / "checkpoints" / "checkpoint-4"
    weights = folder / "weights.jsonl"
    _quietly(["weigh", *both, "--output", str(weights)])
    weighted = [
        *("train", "--train_questions", questions, "--train_trajectories", trajectories),
        *("--model_name_or_path", str(folder / "model"), "--learn_weights", "false"),
        *("--weights_file", str(weights), "--output_dir", str(folder / "no"), "--dry_run", "true"),
    ]
    while True:
        yield ("state.json, train", checkpoint / "state.json", train)
        yield ("state.safetensors, train", checkpoint / "state.safetensors", train)
        yield ("weights.jsonl, train", weights, weighted)
        for _ in range(3):
            yield from quick


def _prm(folder: Path) -> Path:
    """What a training leaves, but for the model."""
    folder.mkdir()
    weights = {"bars": 1.5, "dials": 0.5}
    window = {"step": 2, "lower_loss": 0.5, "meta_loss": None, "trajectories": 8}
    window["weights"] = weights
    trained = {"model_name_or_path": "a/b", "config": asdict(TrainConfig()), "domains": {"bars": 3}}
    config = asdict(PRMConfig()) | {"domain_weights": weights}
    (folder / "prm_config.json").write_text(json.dumps(config, indent=2))
    (folder / "weights.json").write_text(json.dumps(weights, indent=2))
    (folder / "training_config.json").write_text(json.dumps(trained, indent=2))
    (folder / "history.jsonl").write_text(2 * (json.dumps(window) + "\n"))
    return folder


def _trained(folder: Path) -> tuple[Path, list[str]]:
    """Folder of a short training, and the command that goes on with it."""
    picture = (folder / "red.png").read_bytes()
    words = train_words(
        make_project(folder / "training", picture), save_tiny_model(folder / "model")
    )
    _quietly(words)
    return folder / "training" / "prm", words


def _quietly(words: list[str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert main(words) == 0
