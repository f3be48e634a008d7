"""A transformers model in this process.

Requests that wait at the same time are answered in one batch (`batching`); a request's prompt and
image are read once for all its samples (`models.generation`). A bad image or too long a prompt
costs its own request, not the others of its batch. A sample's text depends on the request, the seed
and its number alone, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from dreamprm.answers import extract_answer
from dreamprm.errors import DataError, DreamPRMError
from dreamprm.images import image_area, load_image
from dreamprm.models.generation import Ends, Pick, decode, greedy, has_cache, prefill, sampler
from dreamprm.models.loading import (
    PROCESSOR_ERRORS,
    device_of,
    load_backbone,
    load_processor,
    placed,
)
from dreamprm.models.plain_text import PlainText
from dreamprm.models.templates import write_chats
from dreamprm.policy import Completion, Reply, Request, RequestRefused
from dreamprm.policy.batching import Batcher, Wanted
from dreamprm.policy.options import PolicyOptions
from dreamprm.prompts import PROMPTS
from dreamprm.records import Question
from dreamprm.steps import opening, step_end

Pictures = Mapping[int, list[Image.Image]]
"""The images of those prompts that are still good, by the prompt's number."""


@dataclass(frozen=True)
class Prompt:
    """What the model reads.

    Attributes:
        text: in the model's chat template, with what the answer begins with; guarded.
        images: as in `Question`.
        room: tokens that must fit behind it; 0 where that is known.
    """

    text: str
    images: tuple[str | bytes, ...] = ()
    room: int = 0


class PromptEncoder:
    """Encodes batches of prompts, all with images or all without.

    Args:
        plain: holds the processor of the model; its tokenizer must have a padding token.
        longest: tokens that the model can hold, prompt and answer together; None: no limit known.
    """

    def __init__(
        self, plain: PlainText, *, longest: int | None, device: str, dtype: torch.dtype
    ) -> None:
        self.plain, self.longest = plain, longest
        self.device, self.dtype = device, dtype

    def __call__(self, prompts: Sequence[Prompt]) -> tuple[Any, dict[int, Exception]]:
        """Encode what can be encoded.

        Returns:
            The model's inputs for the good prompts, in order (None where there are none), and what
            is wrong with the others, by number.
        """
        refused: dict[int, Exception] = {}
        pictures: dict[int, list[Image.Image]] = {}
        for i, prompt in enumerate(prompts):
            try:
                pictures[i] = [load_image(reference) for reference in prompt.images]
            except DataError as error:
                refused[i] = RequestRefused(str(error))
        inputs = None
        while pictures:
            try:
                inputs = self._process(prompts, pictures)
            except Exception:
                wrong = self._culprits(prompts, pictures)
                if not wrong:
                    raise
            else:
                wrong = self._too_long(prompts, pictures, inputs)
                if not wrong:
                    return inputs, refused
            refused |= wrong
            pictures = {i: images for i, images in pictures.items() if i not in wrong}
        return None, refused

    def _process(self, prompts: Sequence[Prompt], pictures: Pictures) -> Any:
        texts = [prompts[i].text for i in pictures]
        inputs = self.plain.inputs(
            texts, list(pictures.values()), padding=True, padding_side="left"
        )
        return {
            name: v.to(self.device, self.dtype if v.is_floating_point() else v.dtype)
            for name, v in inputs.items()
        }

    def _culprits(self, prompts: Sequence[Prompt], pictures: Pictures) -> dict[int, Exception]:
        """The processor refuses the batch: which of them does it refuse alone?"""
        refused: dict[int, Exception] = {}
        for i, images in pictures.items():
            try:
                self._process(prompts, {i: images})
            except PROCESSOR_ERRORS as error:
                refused[i] = RequestRefused(f"the model's processor refuses it: {error}")
            except Exception as error:
                refused[i] = error
        return refused

    def _too_long(
        self, prompts: Sequence[Prompt], pictures: Pictures, inputs: Any
    ) -> dict[int, Exception]:
        """Those behind which the longest answer would not fit."""
        refused: dict[int, Exception] = {}
        for i, size in zip(pictures, inputs["attention_mask"].sum(1).tolist(), strict=True):
            room = prompts[i].room
            if self.longest is not None and room and size + room > self.longest:
                refused[i] = RequestRefused(
                    f"a prompt of {size} tokens and an answer of up to {room} pass the "
                    f"{self.longest} that the model can hold; shorten the question, shrink its "
                    "images or lower max_new_tokens"
                )
        return refused


def rough_length(prompt: Prompt) -> int:
    """About how many tokens a prompt has, without reading more of its images than their headers.

    Only good for putting prompts of similar length together.
    """
    return len(prompt.text) // 4 + sum(
        image_area(reference) // 28**2 for reference in prompt.images
    )


_FINAL = "Final answer:"


@dataclass(frozen=True)
class _Job:
    """Some samples of one prompt, by their numbers."""

    prompt: Prompt
    samples: range
    seed: int
    max_new_tokens: int
    begun: str | None = None  # text that one more step is to follow; None: write to the end


@dataclass(frozen=True)
class _Loaded:
    """A model and what goes with it."""

    model: Any
    plain: PlainText
    eos: list[int]
    room: int  # tokens that an answer may take
    encode: PromptEncoder


class LocalPolicy:
    """Samples with a key-value cache, many requests at once.

    The model is any decoder that is an `AutoModelForImageTextToText` or `AutoModelForCausalLM`; at
    temperature 0 it takes the likeliest token. Forced answers (`answer_tokens`) are budget forcing,
    arXiv 2501.19393.
    """

    def __init__(self, options: PolicyOptions) -> None:
        self.name, self.temperature = options.model_name_or_path, options.temperature
        self.slots = self.batch_size = options.per_device_batch_size
        self.max_new_tokens, self.answer_tokens = options.max_new_tokens, options.answer_tokens
        self.settings = options.settings_of_all() | {
            "answer_tokens": self.answer_tokens,
            "dtype": options.dtype,
            "continuation": "prefill",  # the steps are the beginning of the model's own answer
        }
        self.prompt = PROMPTS[options.prompt_name()]
        self.device = device_of(options.device)
        self._dtype: Any = "auto" if options.dtype == "auto" else getattr(torch, options.dtype)
        self._batcher = Batcher(self._run, capacity=self.batch_size)

    @property
    def model(self) -> Any:
        """The model."""
        return self._loaded.model

    @property
    def processor(self) -> Any:
        """Its processor."""
        return self._loaded.plain.processor

    @cached_property
    def _loaded(self) -> _Loaded:
        """Loaded when the first text is asked for: a finished job asks for none."""
        model = placed(load_backbone(self.name, dtype=self._dtype), self.device, self.name).eval()
        if getattr(model.config, "is_encoder_decoder", False) or not has_cache(model):
            raise DreamPRMError(
                f"'{self.name}' cannot go on with a begun answer: it is an encoder-decoder, or "
                "keeps no keys and values of what it has read; take a decoder"
            )
        plain = PlainText(load_processor(self.name))
        tokenizer = plain.tokenizer
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        room = self.max_new_tokens
        if self.answer_tokens:
            forced = tokenizer(f"\n{_FINAL}", add_special_tokens=False)["input_ids"]
            room += len(forced) + self.answer_tokens
        text_config = model.config.get_text_config()
        encode = PromptEncoder(
            plain,
            longest=getattr(text_config, "max_position_embeddings", None),
            device=self.device,
            dtype=model.dtype,
        )
        return _Loaded(model, plain, _eos_tokens(model, tokenizer), room, encode)

    async def sample(self, request: Request, n: int, seed: int) -> Reply:
        """N continuations; number j is the same for every n above j.

        Raises:
            DataError: a text model is given images.
            RequestRefused: an image cannot be read, or prompt and answer pass the model's context.
        """
        question = request.question
        self._loaded.plain.check(question)
        begun = opening(request.steps)
        text = self._ask(question) + self._loaded.plain.guard(begun)
        step_of = begun if request.one_step else None
        prompt = Prompt(text, question.images, self._loaded.room)
        parts = [
            range(n)[start : start + self.batch_size] for start in range(0, n, self.batch_size)
        ]
        drawn = await self._draw(
            [_Job(prompt, part, seed, self.max_new_tokens, step_of) for part in parts]
        )
        completions = [completion for part in drawn for completion in part.completions]
        tokens = sum(part.completion_tokens for part in drawn)
        if self.answer_tokens:
            tokens += await self._force_answers(completions, prompt, seed, question)
        return Reply(tuple(completions), drawn[0].prompt_tokens, tokens)

    async def close(self) -> None:
        """End the worker thread."""
        await self._batcher.close()

    async def _force_answers(
        self, completions: list[Completion], prompt: Prompt, seed: int, question: Question
    ) -> int:
        """Ask once more where a text has no final answer; changes the list, gives the tokens."""
        asked = {
            j: f"{done.text.rstrip()}\n{_FINAL}".lstrip("\n")
            for j, done in enumerate(completions)
            if done.finish_reason != "step" and extract_answer(done.text, question.options) is None
        }
        jobs = [
            _Job(
                Prompt(prompt.text + self._loaded.plain.guard(text), prompt.images),
                range(j, j + 1),
                seed,
                self.answer_tokens,
            )
            for j, text in asked.items()
        ]
        drawn = await self._draw(jobs)
        for (j, text), part in zip(asked.items(), drawn, strict=True):
            [answer] = part.completions
            completions[j] = Completion(text + answer.text, answer.finish_reason)
        return sum(part.completion_tokens for part in drawn)

    async def _draw(self, jobs: Sequence[_Job]) -> list[Reply]:
        # Not every processor takes a mixed batch, and short answers should not wait for long texts.
        return await asyncio.gather(
            *(
                self._batcher.submit(
                    job,
                    size=len(job.samples),
                    kind=(bool(job.prompt.images), job.max_new_tokens, job.begun is None),
                    length=rough_length(job.prompt),
                )
                for job in jobs
            )
        )

    def _ask(self, question: Question) -> str:
        """The prompt in the model's chat template, up to where its answer begins."""
        content: list[dict[str, str]] = [{"type": "image"} for _ in question.images]
        text = self._loaded.plain.guard(self.prompt(question))
        content.append({"type": "text", "text": text})
        [text] = write_chats(self.processor, [[{"role": "user", "content": content}]], True)
        return text

    @torch.inference_mode()
    def _run(self, jobs: Sequence[_Job], wanted: Wanted) -> list[Reply | Exception]:
        """One batch, in the worker thread."""
        inputs, refused = self._loaded.encode([job.prompt for job in jobs])
        good = [job for i, job in enumerate(jobs) if i not in refused]
        drawn = iter(self._decode(good, inputs, wanted) if good else ())
        return [refused[i] if i in refused else next(drawn) for i in range(len(jobs))]

    def _decode(self, jobs: Sequence[_Job], inputs: Any, wanted: Wanted) -> list[Reply]:
        limit = jobs[0].max_new_tokens
        pick: Pick = greedy
        if self.temperature:
            streams = [_stream(job, j) for job in jobs for j in job.samples]
            uniforms = np.stack([stream.random(limit) for stream in streams])
            pick = sampler(uniforms, self.temperature, self.device)
        copies = [len(job.samples) for job in jobs]
        try:
            start = prefill(self.model, dict(inputs))
            eos, ends = self._loaded.eos, self._step_ends(jobs)
            rows = decode(self.model, start, copies, pick, limit, eos, wanted, ends)
        except torch.OutOfMemoryError as error:
            raise DreamPRMError(
                f"out of memory with {sum(copies)} sequences at once; lower the batch size"
            ) from error
        texts = self._loaded.plain.tokenizer.batch_decode(
            [row.tokens for row in rows], skip_special_tokens=True
        )
        written = zip(texts, rows, strict=True)
        drawn = []
        sizes = inputs["attention_mask"].sum(1).tolist()
        for n, size in zip(copies, sizes, strict=True):
            mine = list(itertools.islice(written, n))
            done = tuple(Completion(text, row.reason) for text, row in mine)
            drawn.append(Reply(done, size, sum(row.sampled for _, row in mine)))
        return drawn

    def _step_ends(self, jobs: Sequence[_Job]) -> Ends | None:
        """Tells of each row whether its step is written; None where whole texts are wanted."""
        begun = [job.begun for job in jobs for _ in job.samples]
        if begun[0] is None:  # jobs of a batch are of one kind
            return None
        decode_text = self._loaded.plain.tokenizer.decode

        def ends(row: int, tokens: list[int]) -> bool:
            text = decode_text(tokens, skip_special_tokens=True)
            return step_end(begun[row] or "", text) is not None

        return ends


def _stream(job: _Job, sample: int) -> np.random.Generator:
    """Random numbers of one sample: other prompts with the same seed have others."""
    return np.random.default_rng([zlib.crc32(job.prompt.text.encode()), job.seed % 2**64, sample])


def _eos_tokens(model: Any, tokenizer: Any) -> list[int]:
    """All that end a text."""
    eos = model.generation_config.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    return [] if eos is None else [eos] if isinstance(eos, int) else list(eos)
