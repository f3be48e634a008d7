"""A transformers model in this process as the policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dreamprm.images import load_image
from dreamprm.loading import load_backbone, load_processor
from dreamprm.policy import Request
from dreamprm.prompts import PROMPTS


class LocalPolicy:
    """Samples with `generate`: batched, left-padded, with a KV cache.

    Args:
        model_name_or_path: any `AutoModelForImageTextToText`.
        prompt: a name of `prompts.PROMPTS`.
        temperature: of sampling (the paper: 1.0).
        max_new_tokens: longest continuation; a reasoning cut here has no final answer.
        batch_size: sequences in one call of `generate`.
        root: folder that relative image paths start from.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        prompt: str = "five_steps",
        temperature: float = 1.0,
        max_new_tokens: int = 1024,
        batch_size: int = 32,
        device: str | None = None,
        root: Path | None = None,
    ) -> None:
        self.name = model_name_or_path
        self.batch_size = batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_backbone(model_name_or_path).to(self.device).eval()
        self.processor = load_processor(model_name_or_path)
        self.prompt, self.temperature = PROMPTS[prompt], temperature
        self.max_new_tokens, self.root = max_new_tokens, root

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request], n: int, seed: int) -> list[list[str]]:
        texts, images = [], []
        for request in requests:
            question = request.question
            content = [{"type": "image"} for _ in question.images]
            content.append({"type": "text", "text": self.prompt(question)})
            prompt = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            texts.append(prompt + "".join(f"{step}\n" for step in request.steps))
            if question.images:
                images.append([load_image(ref, self.root) for ref in question.images])
        inputs = self.processor(
            text=texts,
            **({"images": images} if images else {}),
            padding=True,
            padding_side="left",
            return_tensors="pt",
        ).to(self.device)
        tokenizer = self.processor.tokenizer
        devices = [self.device] if self.device != "cpu" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            output = self.model.generate(
                **inputs,
                do_sample=True,
                temperature=self.temperature,
                top_k=0,
                top_p=1.0,
                num_return_sequences=n,
                max_new_tokens=self.max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
        new = output[:, inputs["input_ids"].shape[1] :]  # (requests * n, new tokens)
        found: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [found[i * n : (i + 1) * n] for i in range(len(requests))]
