"""A transformers model in this process as the policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from dreamprm.answers import extract_answer
from dreamprm.images import load_image
from dreamprm.loading import load_backbone, load_processor
from dreamprm.policy import Request
from dreamprm.prompts import PROMPTS, opening
from dreamprm.records import Question


class LocalPolicy:
    """Samples with `generate`: batched, left-padded, with a KV cache.

    Args:
        model_name_or_path: any `AutoModelForImageTextToText`.
        prompt: a name of `prompts.PROMPTS`.
        temperature: of sampling (the paper: 1.0).
        max_new_tokens: longest continuation; a reasoning cut here has no final answer.
        answer_tokens: where a text states no answer, "Final answer:" is put behind it and up to so
            many more tokens are sampled (budget forcing, arXiv 2501.19393); 0 leaves it as it is.
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
        answer_tokens: int = 0,
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
        self.max_new_tokens, self.answer_tokens, self.root = max_new_tokens, answer_tokens, root

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request], n: int, seed: int) -> list[list[str]]:
        begun = [opening(request.steps) for request in requests]
        devices = [self.device] if self.device != "cpu" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            questions = [request.question for request in requests]
            found = self._continue(questions, begun, n, self.max_new_tokens)
            if self.answer_tokens:
                self._make_answer(questions, begun, found)
        return found

    def _make_answer(
        self, questions: Sequence[Question], begun: Sequence[str], found: list[list[str]]
    ) -> None:
        """Ask once more where a text has no final answer; changes `found`."""
        missing = [
            (i, j)
            for i, texts in enumerate(found)
            for j, text in enumerate(texts)
            if extract_answer(text, questions[i].options) is None
        ]
        for start in range(0, len(missing), self.batch_size):
            part = missing[start : start + self.batch_size]
            asked = [f"{found[i][j].rstrip()}\nFinal answer:".lstrip("\n") for i, j in part]
            texts = [begun[i] + text for (i, _), text in zip(part, asked, strict=True)]
            answers = self._continue([questions[i] for i, _ in part], texts, 1, self.answer_tokens)
            for (i, j), text, [answer] in zip(part, asked, answers, strict=True):
                found[i][j] = text + answer

    def _continue(
        self, questions: Sequence[Question], begun: Sequence[str], n: int, max_new_tokens: int
    ) -> list[list[str]]:
        """N continuations of each prompt and the text that its answer begins with."""
        texts, images = [], []
        for question, start in zip(questions, begun, strict=True):
            content = [{"type": "image"} for _ in question.images]
            content.append({"type": "text", "text": self.prompt(question)})
            prompt = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            texts.append(prompt + start)
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
        output = self.model.generate(
            **inputs,
            do_sample=True,
            temperature=self.temperature,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,  # a checkpoint's own would bend the distribution
            num_return_sequences=n,
            max_new_tokens=max_new_tokens,
            pad_token_id=tokenizer.pad_token_id,
        )
        new = output[:, inputs["input_ids"].shape[1] :]  # (questions * n, new tokens)
        found: list[str] = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [found[i * n : (i + 1) * n] for i in range(len(questions))]
