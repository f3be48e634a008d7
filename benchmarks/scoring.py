"""Scoring N candidates of a question: one shared prefill against one pass per prefix (the paper's).

    python -m benchmarks.scoring [--output docs/results/scoring.json]
    python -m benchmarks.scoring --memory [--output docs/results/scoring_memory.json]

The model is Qwen2-VL's architecture with random weights, some twenty times the embedded one, on one
thread. All ways score the same candidates with the same weights in one run, in turn:

- `shared`: `StepScorer`, the prompt and its image once, the candidates behind it;
- `trajectory`: one sequence per candidate, all steps in one pass;
- `prefix`: one sequence per prefix, image and all; at the best batch size of those tried;
- `long`: one plain forward pass over a single sequence with as many tokens as `shared` computes
  and the same image: what the count of tokens allows.

The vision tower runs once per image in each sequence of each way, as it does in use; preparing the
pictures is done before the clock starts. `--memory` scores files of 2,000 and of 100,000 candidates
with `dreamprm score` and reports the peak memory of each.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.one_pass import WORDS, make_pairs
from benchmarks.shared_prefix import make_model
from dreamprm.data import write_questions, write_trajectories
from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.layout import Encoder
from dreamprm.prm.model import PRM
from dreamprm.prm.shared_prefix import share
from dreamprm.records import Question, Trajectory
from dreamprm.tiny.model import build_processor

CANDIDATES, STEPS = 8, 5
Run = Callable[[], torch.Tensor]


def build() -> PRM:
    torch.manual_seed(0)
    processor = build_processor()
    model = PRM(make_model(processor), processor).eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    return model


def candidates(words: int) -> list[tuple[str, ...]]:
    rng = random.Random(1)
    return [
        tuple(f"Step {s}: " + " ".join(rng.choices(WORDS, k=words)) for s in range(1, STEPS + 1))
        for _ in range(CANDIDATES)
    ]


def one_pass(model: PRM, question: Question, steps: Sequence[str]) -> Any:
    """A plain batch of one sequence, and its tokens."""
    batch = model.encoder()([(question, steps)])
    return batch, int(batch.inputs["attention_mask"].sum())


def padded_to(model: PRM, question: Question, tokens: int, words: int) -> tuple[Any, int]:
    """One sequence about the same image with nearly as many tokens (never more)."""
    rng, steps = random.Random(2), []
    batch, size = one_pass(model, question, ["Step 1:"])
    while True:
        steps.append(" ".join(rng.choices(WORDS, k=words)))
        longer, grown = one_pass(model, question, steps)
        if grown > tokens:
            return batch, size
        batch, size = longer, grown


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Medians, tokens and ratios."""
    model = build()
    side = 28 * round(args.image_tokens**0.5)
    model.processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": side * side}
    [(question, _)] = make_pairs(1, side, 1)
    texts = candidates(args.words)
    pairs = [(question, steps) for steps in texts]
    shared = share(model.encoder(), [(question, texts)])
    long, long_tokens = padded_to(model, question, shared.tokens, args.words)
    per_candidate = model.encoder()(pairs)
    prefix = Encoder(model.processor, LayoutConfig(name="prefix"))

    def by_prefix(size: int) -> Run:
        # `prefix` lays a trajectory out as one sequence per prefix: `size` trajectories at once.
        batches = [prefix(pairs[i : i + size]) for i in range(0, len(pairs), size)]
        return lambda: torch.cat([model(b) for b in batches])

    runs: dict[str, Run] = {
        "shared": lambda: model(shared),
        "long": lambda: model(long),
        "trajectory": lambda: model(per_candidate),
        "prefix": by_prefix(1),
        "prefix_x2": by_prefix(2),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    logits: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for repeat in range(args.repeats + 1):  # the first warms up
            for name, run in runs.items():
                if name.startswith("prefix") and not 0 < repeat <= args.prefix_repeats:
                    continue  # minutes each
                started = time.perf_counter()
                logits[name] = run()
                print(f"{name}: {time.perf_counter() - started:.1f} s", file=sys.stderr)
                if repeat:
                    seconds[name].append(time.perf_counter() - started)
    difference = max(
        float((logits["shared"] - logits[name]).abs().max()) for name in ("prefix", "trajectory")
    )
    assert difference < 1e-4, f"scores differ by {difference}"
    median = {name: statistics.median(times) for name, times in seconds.items()}
    tokens = {
        "shared": shared.tokens,
        "long": long_tokens,
        "trajectory": int(per_candidate.inputs["attention_mask"].sum()),
        "prefix": int(prefix(pairs).inputs["attention_mask"].sum()),
    }
    naive = min(median["prefix"], median["prefix_x2"])
    return {
        "candidates": CANDIDATES,
        "steps": STEPS,
        "image_tokens": args.image_tokens,
        "prompt_tokens": len(model.encoder().lay_out(question, texts[0]).prompt),
        "tokens": tokens,
        "seconds": median,
        "throughput_against_one_pass_per_prefix": naive / median["shared"],
        "throughput_against_one_pass_per_candidate": median["trajectory"] / median["shared"],
        "share_of_what_the_tokens_allow": (tokens["shared"] / median["shared"])
        / (tokens["long"] / median["long"]),
        "largest_logit_difference": difference,
        "logit_std": float(logits["shared"].std()),
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def memory(counts: Sequence[int]) -> dict[str, Any]:
    """Peak memory of `dreamprm score` on files of so many candidates."""
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        PRM.from_backbone("tiny").save_pretrained(folder / "prm")
        questions = [
            Question(id=f"q{i}", domain="d", text="what is red ?", answer="1") for i in range(125)
        ]
        write_questions(folder / "questions.jsonl", questions)
        for count in counts:
            write_trajectories(folder / f"{count}.jsonl", _many(questions, count))
            words = ["score", "--model_name_or_path", str(folder / "prm")]
            words += ["--questions", str(folder / "questions.jsonl")]
            words += ["--trajectories", str(folder / f"{count}.jsonl")]
            words += ["--output", str(folder / f"{count}.scores.jsonl")]
            words += ["--per_device_batch_size", "256"]
            started = time.perf_counter()
            code = f"import benchmarks.scoring as s; s.peak({words!r})"
            done = subprocess.run(
                [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
            )
            found[str(count)] = {
                "peak_mib": int(done.stdout.split()[-1]) // 1024,
                "seconds": round(time.perf_counter() - started, 1),
            }
    return {"candidates": found}


def _many(questions: Sequence[Question], count: int) -> Any:
    each = count // len(questions)
    for question in questions:
        for i in range(each):
            steps = (f"Step 1: red is {i % 9}", f"Step 2: so {i % 7}")
            yield Trajectory(question_id=question.id, steps=steps, sample_index=i)


def peak(words: list[str]) -> None:
    """Run a verb and print the largest resident size, in KiB."""
    from dreamprm.cli import main as dreamprm

    torch.set_num_threads(1)
    code = dreamprm(words)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image-tokens", type=int, default=1000)
    parser.add_argument("--words", type=int, default=22, help="words in a step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prefix-repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of speed")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    result = memory((2_000, 100_000)) if args.memory else compare(args)
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
