"""Folders of backbones, policies, reward models and adapters, damaged file by file."""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from dreamprm.cli.terminal import quiet_transformers
from dreamprm.models.loading import HEAD_TENSOR, resolve
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from tests.attack import Case, Check, Result
from tests.cli_samples import make_project, train_words

TRIED = "folders of models and adapters with a file damaged, missing, foreign or hostile"
COUNT = 240

Damage = Callable[[Path], None]
WEIGHTS, CONFIG, PRM_CONFIG = "model.safetensors", "config.json", "prm_config.json"
ADAPTER, ADAPTER_CONFIG, HEAD = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "prm_head.safetensors",
)
DRY_RUN = "train --dry_run"
TEMPLATE, BASE = "chat_template.jinja", "base_model_name_or_path"
ABSURD: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 10**12, 10**400, float("nan"), "", "ü", "9" * 50, [], [[]], ["x"] * 3,
    {}, {"a": 1},
)  # fmt: skip
HOSTILE = {
    "nested loops": "{% for a in range(9**5) %}{% for b in range(9**5) %}x{% endfor %}{% endfor %}",
    "silent loops": "{% for a in range(9**5) %}{% for b in range(9**5) %}{% endfor %}{% endfor %}",
    "doubled text": "{% set ns = namespace(s='x') %}{% for a in range(99) %}"
    "{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
    "a large product": "{{ 'x' * 10**10 }}",
    "a large power": "{{ 10**(10**10) }}",
    "recursion": "{% macro m(n) %}{{ m(n) }}{% endmacro %}{{ m(1) }}",
    "branching recursion": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(60) }}",
    "a long output": "{% for a in range(99999) %}{{ 'x' * 999 }}{% endfor %}",
    "python's insides": "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    "a global's insides": "{{ cycler.__init__.__globals__.os.system('touch hacked') }}",
    "an unknown filter": "{{ messages | unknown }}",
    "no syntax": "{% for",
    "an unknown name": "{{ nothing.at.all }}",
    "an exception of its own": "{{ raise_exception('no') }}",
    "a division by zero": "{{ 1 // 0 }}",
    "a wrong type": "{{ messages + 1 }}",
    "nothing": "",
    "loops over a longer text": "{% if messages[0]['content'][-1]['text'] | length > 20 %}"
    "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}{% endif %}",
}


@dataclass(frozen=True)
class Attacked:
    """A kind of folder, and the verbs that read one."""

    name: str
    folder: Path
    verbs: dict[str, Callable[[Path], list[str]]]


def cases(folder: Path, count: int, rng: random.Random) -> Iterator[Case]:
    yield from (case for _, case in zip(range(count), _cases(folder, rng), strict=False))


def _cases(folder: Path, rng: random.Random) -> Iterator[Case]:
    kinds = {kind.name: kind for kind in _make(folder)}
    number = 0

    def case(kind: str, verb: str, name: str, damage: Damage, check: Check) -> Case:
        nonlocal number
        number += 1
        target = folder / "damaged" / str(number)
        shutil.copytree(kinds[kind].folder, target, copy_function=os.link)
        damage(target)
        return Case(f"{kind}, {verb}: {name}", kinds[kind].verbs[verb](target), check)

    known = _known()
    for kind, verb, name, damage in itertools.islice(known, 10):
        yield case(kind, verb, name, damage, _is_refused)
    rest = list(known)
    rng.shuffle(rest)
    while True:
        if rest:
            kind, verb, name, damage = rest.pop()
            yield case(kind, verb, name, damage, _is_refused)
        attacked = rng.choice(list(kinds.values()))
        # A dry run that is not refused counts operations for longer than a case may take.
        verb = rng.choice([verb for verb in attacked.verbs if verb != DRY_RUN])
        file = rng.choice(sorted(p.name for p in attacked.folder.iterdir()))
        name, damage = _at_random(attacked.folder / file, rng)
        yield case(attacked.name, verb, f"{file} {name}", damage, lambda _: None)


def _is_refused(result: Result) -> str | None:
    return None if result.code else "taken for good"


# --- The folders ---


def _make(folder: Path) -> Iterator[Attacked]:
    """One of each kind, with the commands that read it."""
    quiet_transformers()
    picture = io.BytesIO()
    Image.new("RGB", (28, 28), "red").save(picture, "PNG")
    project = make_project(folder / "project", picture.getvalue())
    questions = ("--questions", str(project / "test.jsonl"))
    backbone = folder / "backbone"
    shutil.copytree(resolve("tiny"), backbone)
    torch.manual_seed(0)
    whole, adapters = folder / "prm", folder / "adapters"
    PRM.from_backbone("tiny").save_pretrained(whole)
    PRM.from_backbone(str(backbone), lora=Lora(r=2), head="vocab").save_pretrained(adapters)

    def score(model: Path) -> list[str]:
        trajectories = ("--trajectories", str(project / "test_candidates.jsonl"))
        output = ("--output", f"{model}.scores.jsonl")
        return ["score", "--model_name_or_path", str(model), *questions, *trajectories, *output]

    def sample(model: Path) -> list[str]:
        return [
            *("sample", "--model_name_or_path", str(model), *questions, "--n", "1"),
            *("--max_new_tokens", "4", "--output", f"{model}.candidates.jsonl"),
        ]

    def select(model: Path) -> list[str]:
        return [
            *("select", *questions, "--model_name_or_path", str(backbone), "--prm", str(model)),
            *("--n", "2", "--max_new_tokens", "4", "--output", f"{model}.selected.jsonl"),
        ]

    def train(model: Path, *more: str) -> list[str]:
        words = train_words(project, str(model), "--max_steps", "2", *more)
        return [*words, "--output_dir", f"{model}.trained"]

    reward = {
        "score": score,
        "select": select,
        "train": train,
        DRY_RUN: lambda model: train(model, "--dry_run", "true"),
    }
    trained = {name: reward[name] for name in ("train", DRY_RUN)}
    yield Attacked("reward model", whole, reward)
    yield Attacked("adapters", adapters, reward)
    yield Attacked("backbone", backbone, {"sample": sample} | trained)


# --- What is done to them ---


def _known() -> Iterator[tuple[str, str, str, Damage]]:
    """Kind of folder, verb, what is done: none of these may pass for a good model."""
    prm, adapters, backbone = "reward model", "adapters", "backbone"
    yield prm, "score", "a shape", partial(_tensors, WEIGHTS, _shape)
    yield prm, "score", "a template that never ends", _template("nested loops")
    yield backbone, "sample", "weights that are not numbers", partial(_tensors, WEIGHTS, _nan)
    yield prm, "score", "an unknown layout", _field(PRM_CONFIG, "layout", "name", "spiral")
    yield adapters, "score", "another base", _field(ADAPTER_CONFIG, BASE, "../gone")
    yield backbone, "sample", "pickled weights", partial(_pickle, WEIGHTS, "pytorch_model.bin")
    yield prm, "score", "a tensor missing", partial(_tensors, WEIGHTS, _missing)
    yield adapters, "score", "a tensor too many", partial(_tensors, ADAPTER, _extra)
    yield backbone, DRY_RUN, "code of its own", _code
    yield prm, "select", "a head of another shape", partial(_head, _shape)
    turns = itertools.cycle(("score", "select", "train", DRY_RUN))
    for kind in (prm, adapters):
        for *path, value in (
            ("aggregation", "best"),
            ("aggregation", 1),
            ("head", "tail"),
            ("good_token", None),
            ("layout", "padding_side", "top"),
            ("layout", "max_length", "many"),
            ("layout", None),
            ("layout", "more", 1),
            ("colour", "red"),
        ):
            name = f"{'.'.join(path)} {value!r}"
            yield kind, next(turns), name, _field(PRM_CONFIG, *path, value)
        loaded_by = itertools.cycle(("score", "select", "train"))
        yield kind, next(loaded_by), "no head", partial(_head, _missing)
        for change in (_nan, _infinite, _missing, _extra, _shape):
            name = f"head {change.__name__}"
            yield kind, next(loaded_by), name, partial(_head, change)
    for kind, file, pickled, verbs in (
        (prm, WEIGHTS, "pytorch_model.bin", ("score", "train")),
        (adapters, ADAPTER, "adapter_model.bin", ("score", "train")),
        (backbone, WEIGHTS, "pytorch_model.bin", ("sample", "train")),
    ):
        loaded_by = itertools.cycle(verbs)
        for change in (_nan, _infinite, _missing, _shape):
            name = f"{file} {change.__name__}"
            yield kind, next(loaded_by), name, partial(_tensors, file, change)
        yield kind, next(loaded_by), f"no {file}", partial(_remove, file)
        yield kind, next(loaded_by), f"{file} cut", partial(_cut, file, 0.5)
        yield kind, next(loaded_by), f"{file} empty", partial(_cut, file, 0.0)
        yield kind, next(loaded_by), pickled, partial(_pickle, file, pickled)
        yield kind, next(loaded_by), "model.pt", partial(_pickle, file, "model.pt")
    yield adapters, "train", "a base of another size", _narrow_base
    for verb in ("sample", "train", DRY_RUN):
        yield backbone, verb, "no config.json", partial(_remove, CONFIG)
        yield backbone, verb, "no tokenizer", partial(_remove, "tokenizer.json")
        yield backbone, verb, "no processor", partial(_remove, "processor_config.json")
        yield backbone, verb, "code of its own", _code
        yield backbone, verb, "a text model", _field(CONFIG, "model_type", "qwen2")
        yield backbone, verb, "an unknown model", _field(CONFIG, "model_type", "of_tomorrow")
    for template in HOSTILE:
        if template not in ("nothing", "an unknown name"):
            reader = (backbone, "sample") if next(turns) in ("score", "train") else (prm, "score")
            yield *reader, f"template with {template}", _template(template)


def _at_random(file: Path, rng: random.Random) -> tuple[str, Damage]:
    ways = ["removed", "cut", "bytes", "a folder", "a link to itself", "empty", "foreign"]
    if file.suffix == ".json":
        ways += ["field"] * 12
    if file.suffix == ".jinja":
        ways += ["hostile"] * 6
    way = rng.choice(ways)
    name = file.name
    if way == "removed":
        return way, partial(_remove, name)
    if way == "cut":
        share = rng.random()
        return f"cut at {share:.2f}", partial(_cut, name, share)
    if way == "bytes":
        return way, partial(_bytes, name, rng.randrange(2**31))
    if way == "field":
        return _random_field(file, rng)
    if way == "hostile":
        what = rng.choice(list(HOSTILE))
        return f"with {what}", _template(what)
    return way, partial(_replace, name, way)


def _change(folder: Path, name: str, data: bytes) -> None:
    """Write a file that was a link to the good one."""
    (folder / name).unlink()
    (folder / name).write_bytes(data)


def _remove(name: str, folder: Path) -> None:
    (folder / name).unlink()


def _cut(name: str, share: float, folder: Path) -> None:
    data = (folder / name).read_bytes()
    _change(folder, name, data[: int(share * len(data))])


def _bytes(name: str, seed: int, folder: Path) -> None:
    rng = random.Random(seed)
    data = bytearray((folder / name).read_bytes())
    start = rng.choice([0, 0, len(data)])  # heads of binary files are what is parsed
    for _ in range(rng.randint(1, 8)):
        data[rng.randrange(len(data)) if start else rng.randrange(min(len(data), 400))] = (
            rng.randrange(256)
        )
    _change(folder, name, bytes(data))


def _replace(name: str, way: str, folder: Path) -> None:
    path = folder / name
    path.unlink()
    if way == "a folder":
        path.mkdir()
    elif way == "a link to itself":
        path.symlink_to(path)
    else:
        path.write_bytes(b"" if way == "empty" else b'["a list"]')


def _pickle(old: str, name: str, folder: Path) -> None:
    torch.save(load_file(folder / old), folder / name)
    (folder / old).unlink()


def _code(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig"}}
    _change(folder, CONFIG, json.dumps(config).encode())
    (folder / "mine.py").write_text("raise SystemExit('this ran')")


def _narrow_base(folder: Path) -> None:
    """Another backbone, in place of the adapters' own."""
    config = Qwen2VLConfig(**json.loads((folder / CONFIG).read_text()))
    config.text_config.num_hidden_layers = 2
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder / "base")
    for name in (TEMPLATE, "processor_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, folder / "base" / name)
    _field(ADAPTER_CONFIG, BASE, str(folder / "base"))(folder)


def _template(name: str) -> Damage:
    def damage(folder: Path) -> None:
        good = (folder / TEMPLATE).read_text()
        _change(folder, TEMPLATE, (HOSTILE[name] + good if name != "nothing" else "").encode())

    return damage


def _field(file: str, *path_and_value: Any) -> Damage:
    *path, value = path_and_value

    def damage(folder: Path) -> None:
        facts = json.loads((folder / file).read_text())
        holder = facts
        for name in path[:-1]:
            holder = holder[name]
        holder[path[-1]] = value
        _change(folder, file, json.dumps(facts).encode())

    return damage


def _random_field(file: Path, rng: random.Random) -> tuple[str, Damage]:
    facts = json.loads(file.read_text())
    places: list[tuple[Any, ...]] = []

    def collect(value: Any, path: tuple[Any, ...]) -> None:
        items = (
            value.items()
            if isinstance(value, dict)
            else enumerate(value[:3])
            if isinstance(value, list)
            else ()
        )
        for key, inner in items:
            places.append((*path, key))
            collect(inner, (*path, key))

    collect(facts, ())
    # Large tables, as a tokenizer's vocabulary, must not hide the fields above them.
    depth = rng.randint(1, max(map(len, places)))
    path = rng.choice([place for place in places if len(place) <= depth])
    value = rng.choice(ABSURD)
    if rng.random() < 0.2:
        return f"without {path}", partial(_drop, file.name, path)
    return f"{path} = {str(value)[:20]!r}", _field(file.name, *path, copy.copy(value))


def _drop(file: str, path: tuple[Any, ...], folder: Path) -> None:
    facts = json.loads((folder / file).read_text())
    holder = facts
    for name in path[:-1]:
        holder = holder[name]
    del holder[path[-1]]
    _change(folder, file, json.dumps(facts).encode())


Tensors = dict[str, Tensor]


def _tensors(name: str, change: Callable[[Tensors, str], None], folder: Path) -> None:
    tensors = load_file(folder / name)
    change(tensors, sorted(tensors)[len(tensors) // 2])
    (folder / name).unlink()
    save_file(tensors, folder / name, metadata={"format": "pt"})


def _head(change: Callable[[Tensors, str], None], folder: Path) -> None:
    """Beside adapters the head has a file of its own; otherwise it lies among the weights."""
    name = HEAD if (folder / HEAD).exists() else WEIGHTS
    tensors = load_file(folder / name)
    change(tensors, next(key for key in tensors if name == HEAD or key.endswith(HEAD_TENSOR)))
    (folder / name).unlink()
    save_file(tensors, folder / name, metadata={"format": "pt"})


def _nan(tensors: Tensors, key: str) -> None:
    tensors[key].flatten()[-1] = float("nan")


def _infinite(tensors: Tensors, key: str) -> None:
    tensors[key].flatten()[0] = float("inf")


def _missing(tensors: Tensors, key: str) -> None:
    del tensors[key]


def _extra(tensors: Tensors, key: str) -> None:
    tensors[f"{key}.more"] = torch.zeros(3)


def _shape(tensors: Tensors, key: str) -> None:
    tensors[key] = torch.cat([tensors[key], tensors[key]])
