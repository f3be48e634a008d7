"""One forward pass for all steps against the paper's one pass per prefix.

    python benchmarks/one_pass.py [--output docs/results/one_pass.json]

Both score the same trajectories (5 steps each) with the same weights, in one run, alternating, with
each layout at its best batch size of those tried. The picture and prompt are sized like a real
vision-language prompt relative to the steps: `--image-tokens` visual tokens. Reported is the ratio
of the median times, and the largest difference between the scores.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from pathlib import Path

import torch
from PIL import Image

from dreamprm.prm.folder import LayoutConfig
from dreamprm.prm.layout import Encoder
from dreamprm.prm.model import PRM
from dreamprm.records import Question
from dreamprm.tiny.scene import to_png

STEPS = 5
WORDS = ["red", "blue", "green", "is", "plus", "look", "at", "and", "larger", "3", "5", "7"]


def make_pairs(count: int, side: int, words: int) -> list[tuple[Question, tuple[str, ...]]]:
    rng = random.Random(0)
    pairs = []
    for i in range(count):
        noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
        question = Question(
            id=str(i),
            domain="d",
            text="what is red plus blue ?",
            images=(to_png(noise),),
            answer="1",
        )
        steps = tuple(
            f"Step {s}: " + " ".join(rng.choices(WORDS, k=words)) for s in range(1, STEPS + 1)
        )
        pairs.append((question, steps))
    return pairs


@torch.inference_mode()
def run(
    model: PRM,
    pairs: list[tuple[Question, tuple[str, ...]]],
    layout: str,
    batch: int,
) -> tuple[float, torch.Tensor, int]:
    """Seconds of the forward passes alone, logits (trajectories, steps), and tokens computed."""
    encode = Encoder(model.processor, LayoutConfig(name=layout))  # type: ignore[arg-type]
    batches = [encode(pairs[i : i + batch]) for i in range(0, len(pairs), batch)]
    tokens = sum(int(b.inputs["attention_mask"].sum()) for b in batches)
    started = time.perf_counter()
    logits = [model(b) for b in batches]
    return time.perf_counter() - started, torch.cat(logits), tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trajectories", type=int, default=32)
    parser.add_argument("--image-tokens", type=int, default=64)
    parser.add_argument("--words", type=int, default=20, help="words in a step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    model = PRM.from_backbone("tiny").eval()
    torch.nn.init.normal_(model.head.weight, std=0.1)
    side = 28 * round(args.image_tokens**0.5)
    model.processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": side * side}
    pairs = make_pairs(args.trajectories, side, args.words)
    best: dict[str, float] = {}
    scores, tokens = {}, {}
    for layout in ("trajectory", "prefix"):
        times = {}
        for batch in (4, 8, 16, 32):
            run(model, pairs[:batch], layout, batch)  # warm up
            found = [run(model, pairs, layout, batch) for _ in range(args.repeats)]
            times[batch] = statistics.median(seconds for seconds, _, _ in found)
            scores[layout], tokens[layout] = found[0][1], found[0][2]
        best[layout] = min(times.values())
    result = {
        "steps": STEPS,
        "trajectories": args.trajectories,
        "image_tokens": args.image_tokens,
        "words_per_step": args.words,
        "seconds": best,
        "tokens": tokens,
        "speedup": best["prefix"] / best["trajectory"],
        "token_ratio": tokens["prefix"] / tokens["trajectory"],
        "largest_logit_difference": float((scores["trajectory"] - scores["prefix"]).abs().max()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
