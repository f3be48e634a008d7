"""K completions of one prefix: read once and expanded, against read K times by `generate`.

    python benchmarks/shared_prefix.py [--output docs/results/shared_prefix.json]

Monte Carlo labels ask for K short completions of every prefix of a reasoning, and most of a prefix
is its image. Both ways sample the same number of tokens with the same model (Qwen2-VL's
architecture, random weights, a few times the embedded one), in one run, in turn, on one thread.
Reported is the ratio of the median times.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import Qwen2VLForConditionalGeneration

from dreamprm.models.generation import decode, prefill, sampler
from dreamprm.tiny.model import build_model, build_processor

TEXT = {"hidden_size": 512, "intermediate_size": 1280, "num_hidden_layers": 6}
HEADS = {"num_attention_heads": 16, "num_key_value_heads": 4}
VISION = {"hidden_size": 512, "embed_dim": 256, "num_heads": 8, "depth": 4}


def make_model(processor: Any) -> Any:
    """The embedded architecture, wider and deeper, with random weights."""
    config: Any = build_model(processor).config
    config.text_config.update(TEXT | HEADS | {"layer_types": None})
    config.vision_config.update(VISION)
    config = type(config).from_dict(config.to_dict())
    model: Any = Qwen2VLForConditionalGeneration(config)
    return model.eval()


def make_inputs(processor: Any, image_tokens: int, words: int) -> dict[str, torch.Tensor]:
    """One prompt: an image of noise, a question and the beginning of an answer."""
    rng = random.Random(0)
    side = 28 * round(image_tokens**0.5)
    processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": side * side}
    noise = Image.frombytes("RGB", (side, side), rng.randbytes(3 * side * side))
    text = " ".join(rng.choices(["red", "blue", "is", "plus", "look", "3", "5"], k=words))
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    return dict(processor(text=[prompt], images=[[noise]], return_tensors="pt"))


def shared(model: Any, inputs: dict[str, torch.Tensor], k: int, new: int) -> int:
    """Tokens sampled by our loop, which never ends early here."""
    pick = sampler(np.random.default_rng(0).random((k, new)), 1.0, "cpu")
    found = decode(model, prefill(model, inputs), [k], pick, new, eos=())
    return sum(one.sampled for one in found)


def repeated(model: Any, inputs: dict[str, torch.Tensor], k: int, new: int) -> int:
    """Tokens sampled by `generate`, kept from ending early."""
    output = model.generate(
        **inputs,
        do_sample=True,
        top_k=0,
        num_return_sequences=k,
        max_new_tokens=new,
        eos_token_id=None,
    )
    return int(output[:, inputs["input_ids"].shape[1] :].numel())


def seconds(run: Callable[[], int], expected: int) -> float:
    started = time.perf_counter()
    sampled = run()
    took = time.perf_counter() - started
    assert sampled == expected, f"{sampled} tokens sampled, not {expected}"
    return took


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--completions", type=int, default=8, help="K")
    parser.add_argument("--image-tokens", type=int, default=576)
    parser.add_argument("--words", type=int, default=60, help="of question and steps so far")
    parser.add_argument("--new-tokens", type=int, default=32, help="of each completion")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    processor = build_processor()
    model = make_model(processor)
    inputs = make_inputs(processor, args.image_tokens, args.words)
    k, new = args.completions, args.new_tokens
    times: dict[str, list[float]] = {"shared": [], "repeated": []}
    for repeat in range(args.repeats + 1):
        for name, run in (("shared", shared), ("repeated", repeated)):
            took = seconds(partial(run, model, inputs, k, new), k * new)
            if repeat:  # the first is to warm up
                times[name].append(took)
    median = {name: statistics.median(found) for name, found in times.items()}
    prompt = inputs["input_ids"].shape[1]
    result = {
        "completions": k,
        "prompt_tokens": prompt,
        "image_tokens": int((inputs["input_ids"] == model.config.image_token_id).sum()),
        "new_tokens": new,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": median,
        "all_seconds": times,
        "speedup": median["repeated"] / median["shared"],
        "token_ratio": k * (prompt + new) / (prompt + k * new),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps(result, indent=2))
    if args.output:
        args.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
