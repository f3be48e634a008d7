"""The process reward model: a backbone and a head with one logit per step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from dreamprm.errors import DreamPRMError, offer
from dreamprm.models.generation import has_cache, positions_in
from dreamprm.models.loading import (
    device_of,
    load_backbone,
    load_processor,
    placed,
    reading,
    resolve,
)
from dreamprm.models.plain_text import PlainText
from dreamprm.prm.conventions import TEXT_CONVENTIONS, TextPRM
from dreamprm.prm.folder import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    CONFIG_FILE,
    HEAD_FILE,
    VLLM_FILE,
    HeadName,
    LayoutConfig,
    LayoutName,
    PRMConfig,
    has_adapter,
    is_prm,
    read_config,
)
from dreamprm.prm.heads import TokenHead, linear_head, saved_head, token_head
from dreamprm.prm.layout import Batch, Encoder, with_tag
from dreamprm.prm.lora import (
    Lora,
    base_name,
    load_with_adapter,
    merged_copy,
    save_adapter,
    unwrapped,
    with_adapters,
)
from dreamprm.prm.scorer import Logits, Plain, Shared, Steps, score_question
from dreamprm.prm.shared_prefix import Group, SharedBatch, share, states_at_steps
from dreamprm.prm.vllm import linear_row, obstacle, saved_with, vllm_config
from dreamprm.records import Question

CONVENTIONS = (*TEXT_CONVENTIONS, "visualprm")
Dtype = Literal["float32", "bfloat16", "float16"] | torch.dtype


class PRM(nn.Module):
    """A process reward model: scores every step of a trajectory in one forward pass.

    Make one with `PRM.from_backbone` to train it, or load one with `PRM.from_pretrained`.

    >>> prm = PRM.from_backbone("tiny")  # not trained yet, so every step has the score 0.5
    >>> prm.score("What is 2 + 3?", [["2 + 3 = 5", "so it is 5"], ["it is 6"]])
    [[0.5, 0.5], [0.5]]

    Args:
        backbone: any `AutoModelForImageTextToText` or `AutoModelForCausalLM`, with or without peft
            adapters.
        processor: its processor; of a text model its tokenizer, with a chat template.
        config: head, layout and aggregation.
        base: where the backbone was loaded from, path or hub name; a saved adapter names it.

    Raises:
        DreamPRMError: `token` head: a token that is none, or a backbone it cannot read.
    """

    def __init__(
        self, backbone: Any, processor: Any, config: PRMConfig | None = None, base: str = ""
    ) -> None:
        super().__init__()
        self.backbone, self.processor = backbone, processor
        self.base = base or getattr(unwrapped(backbone), "name_or_path", "")
        model, text = unwrapped(backbone), unwrapped(backbone).config.get_text_config()
        config = config or PRMConfig()
        self.config = replace(config, layout=with_tag(config.layout, processor, text.vocab_size))
        self.head: nn.Linear | TokenHead
        if self.config.head == "token":
            tokens, layout = (self.config.good_token, self.config.bad_token), self.config.layout
            self.head = token_head(model.config, processor, tokens, layout)
        else:
            self.head = linear_head(
                text.hidden_size if self.config.head == "value" else text.vocab_size
            )
        output = model.get_output_embeddings()
        tied = output is None or output.weight is model.get_input_embeddings().weight
        if self.config.head == "value" and not tied:
            output.requires_grad_(False)  # unused

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    # --- Scores ---

    def score(
        self, question: Question | str, candidates: Sequence[Steps], batch_size: int = 16
    ) -> list[list[float]]:
        """The probability that each step is right so far, for several reasonings on a question.

        For files or streams of trajectories use `StepScorer`, which batches over questions.

        Args:
            question: with its images, or its text alone.
            candidates: the steps of each reasoning, whole or not; at least one step each.
            batch_size: reasonings in one forward pass.

        Returns:
            One score in (0, 1) per step of each candidate; fewer where steps are beyond the
            backbone's context.
        """
        training = self.training
        scores = score_question(self, question, candidates, batch_size)
        self.train(training)
        return scores

    def passes(self) -> tuple[Plain, Shared | None]:
        """See `scorer.StepModel`."""
        self.eval()
        encode = self.encoder()
        encode.warn_cut = False  # whoever asked for the scores sees that some are missing

        @torch.inference_mode()
        def plain(pairs: Sequence[tuple[Question, Steps]]) -> list[Logits]:
            return self._rows(encode(pairs))

        @torch.inference_mode()
        def shared(groups: Sequence[Group]) -> list[Logits]:
            return self._rows(share(encode, groups))

        # Recurrent and hybrid backbones keep a state in place of keys and values, which
        # transformers marks as stateful: they cannot go on from an expanded cache.
        model = unwrapped(self.backbone)
        shares = has_cache(model) and not getattr(model, "_is_stateful", False)
        return plain, shared if shares else None

    def _rows(self, batch: Batch | SharedBatch) -> list[Logits]:
        logits = self(batch.to(self.device)).float().cpu()  # (trajectories, steps)
        return [tuple(row[m].tolist()) for row, m in zip(logits, batch.mask, strict=True)]

    def encoder(self, root: Path | None = None) -> Encoder:
        """What turns questions and steps into batches for this model."""
        text = unwrapped(self.backbone).config.get_text_config()
        context = getattr(text, "max_position_embeddings", None)
        return Encoder(self.processor, self.config.layout, root, context, self.plain)

    @cached_property
    def plain(self) -> PlainText:
        """Keeps text and control tokens apart, and says which questions the model can read."""
        return PlainText(self.processor, self.config.layout.step_tag)

    def forward(self, batch: Batch | SharedBatch) -> Tensor:
        """Step logits, (trajectories, steps); 0 where `batch.mask` is False."""
        model = unwrapped(self.backbone)
        inputs = {
            k: v.to(model.dtype) if v.is_floating_point() else v for k, v in batch.inputs.items()
        }
        if isinstance(batch, SharedBatch):
            at_steps = states_at_steps(model, replace(batch, inputs=inputs))  # (found, width)
        else:
            if self.plain.text_only:  # absolute positions must not count padding at the left
                inputs["position_ids"] = positions_in(inputs["attention_mask"])
            # No cache: positions are judged, nothing is generated.
            hidden = model.base_model(**inputs, use_cache=False).last_hidden_state
            at_steps = hidden[batch.rows[batch.mask], batch.positions[batch.mask]]  # (found, width)
        found = self.judge(at_steps)  # (found,)
        logits: Tensor = found.new_zeros(batch.mask.shape)
        logits[batch.mask] = found
        return logits

    def judge(self, at_steps: Tensor) -> Tensor:
        """Hidden states at steps' ends, (found, width), to logits, (found,)."""
        # Neither the bf16 of autocast nor that of the base: near 0 or 1 scores would tie.
        with torch.autocast(at_steps.device.type, enabled=False):
            output = unwrapped(self.backbone).get_output_embeddings()
            if isinstance(self.head, TokenHead):
                logits: Tensor = self.head(at_steps, output)
                return logits
            if self.config.head == "vocab":
                at_steps = output(at_steps.to(output.weight.dtype))  # (found, vocabulary)
            logits = self.head(at_steps.to(self.head.weight.dtype))[:, 0]
            return logits

    # --- Training ---

    def add_lora(self, options: Lora | None = None) -> None:
        """Freeze the backbone and put trainable adapters on it; the head stays trainable.

        Adapters are fp32, whatever the base is: AdamW's steps are lost in bf16.

        Raises:
            DreamPRMError: there are adapters already; no layer has one of the names.
        """
        self.backbone = with_adapters(self.backbone, options or Lora())
        self.fp32_trainables()  # peft does so for adapters, not for modules_to_save

    def fp32_trainables(self) -> None:
        """Cast what is trained to fp32; the frozen rest keeps its dtype.

        Small steps are lost in bf16 parameters. Parameters stay the same objects, so this may come
        before or after an optimiser was made.
        """
        for p in self.parameters():
            if p.requires_grad and p.is_floating_point() and p.dtype.itemsize < 4:
                p.data = p.data.float()

    def gradient_checkpointing_enable(self) -> None:
        """Recompute activations in the backward pass (arXiv 1604.06174): less memory, more time.

        Non-reentrant, so that a frozen base with adapters needs no gradient at its input.

        Raises:
            DreamPRMError: this architecture has none.
        """
        model = unwrapped(self.backbone)
        # transformers 5 renamed it on the way.
        enable = getattr(model, "activation_checkpointing_enable", None)
        try:
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
        except ValueError as error:
            raise DreamPRMError(f"gradient checkpointing: {error}") from error
        if model is not self.backbone:
            # transformers makes the inputs of a model with adapters require gradients, which the
            # reentrant kind needs. Here a frozen vision tower would keep its activations for it.
            model.disable_input_require_grads()

    # --- Loading and saving ---

    @classmethod
    def from_backbone(
        cls,
        name_or_path: str,
        config: PRMConfig | None = None,
        *,
        lora: Lora | None = None,
        head: HeadName | None = None,
        layout: LayoutConfig | LayoutName | None = None,
        dtype: Dtype = "float32",
        gradient_checkpointing: bool = False,
        device: str | None = "cpu",
        **kwargs: Any,
    ) -> PRM:
        """A new PRM, to be trained, on a pretrained backbone.

        >>> prm = PRM.from_backbone("tiny", lora=Lora(r=4), head="vocab", dtype="bfloat16")
        >>> sum(p.numel() for p in prm.parameters() if p.requires_grad) < 100_000
        True

        Args:
            name_or_path: hub name or folder; `tiny` is the embedded model.
            config: head, layout, aggregation; `head` and `layout` stand in place of its own.
            lora: train these adapters and the head instead of the whole model.
            layout: a name, or a `LayoutConfig` with its settings.
            dtype: of what is not trained; what is trained is float32.
            gradient_checkpointing: less memory in training, more time.
            device: such as `cuda:1`; None: a GPU where there is one.
            kwargs: of transformers' `from_pretrained`.

        Raises:
            DreamPRMError: there is no backbone, but perhaps the adapters of a PRM.
        """
        if has_adapter(name_or_path):
            raise DreamPRMError(
                f"{name_or_path} holds adapters, not a whole backbone; go on with it as a trained "
                "PRM (PRM.from_pretrained), or save it with merged=True first"
            )
        config = config or PRMConfig()
        if isinstance(layout, str):
            layout = LayoutConfig.named(layout)
        config = replace(config, head=head or config.head, layout=layout or config.layout)
        backbone = load_backbone(name_or_path, _dtype(dtype), **kwargs)
        model = cls(backbone, load_processor(name_or_path), config, base_name(name_or_path))
        if lora is not None:
            model.add_lora(lora)
        model.fp32_trainables()
        if gradient_checkpointing:
            model.gradient_checkpointing_enable()
        return placed(model, device_of(device), name_or_path)

    @overload
    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        convention: None = None,
        trainable: bool = False,
        lora: Lora | None = None,
        base_model: str | None = None,
        dtype: Dtype = "float32",
        device: str | None = "cpu",
        **kwargs: Any,
    ) -> PRM: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        convention: str | None,
        dtype: Dtype = "float32",
        device: str | None = "cpu",
        **kwargs: Any,
    ) -> PRM | TextPRM: ...

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        convention: str | None = None,
        trainable: bool = False,
        lora: Lora | None = None,
        base_model: str | None = None,
        dtype: Dtype = "float32",
        device: str | None = "cpu",
        **kwargs: Any,
    ) -> PRM | TextPRM:
        """Load what `save_pretrained` wrote, or a reward model of others.

        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> PRM.from_backbone("tiny").save_pretrained(folder)
        >>> PRM.from_pretrained(folder).score("What is 2 + 3?", [["so 5"]])
        [[0.5]]

        Args:
            path: the folder; with a convention, a hub name too.
            convention: whose model it is: `visualprm`, or one of `conventions`, which read text
                only and give a `TextPRM`, with `score`; None: a PRM of ours.
            trainable: go on training: the adapters where there are any, otherwise all of the model
                that its head uses. Nothing asks for gradients without it.
            lora: with `trainable`: put these adapters on a model that has none.
            base_model: path or hub name of the base of saved adapters, where it has moved.
            dtype: of the weights; of those that are not trained, where it has adapters.
            device: such as `cuda:1`; None: a GPU where there is one.
            kwargs: of transformers' `from_pretrained`.

        Raises:
            DreamPRMError: the folder holds no such model, or the base of its adapters is gone.
        """
        device, options = device_of(device), {"dtype": _dtype(dtype), **kwargs}
        if convention is not None:
            if convention in TEXT_CONVENTIONS:
                return TEXT_CONVENTIONS[convention](str(path), device, **options)
            if convention != "visualprm":
                said = offer(convention, CONVENTIONS)
                raise DreamPRMError(f"there is no convention '{convention}'; {said}")
            config = PRMConfig(head="token", layout=LayoutConfig(name="turns"))
            backbone = load_backbone(str(path), **options)
            model = cls(backbone, load_processor(str(path)), config, base_name(str(path)))
            return placed(model, device, str(path))
        folder = Path(path if is_prm(path) else resolve(str(path)))
        config = read_config(folder)
        adapted = has_adapter(folder)
        if adapted:
            backbone, base = load_with_adapter(
                folder, trainable=trainable, base_model=base_model, **options
            )
        else:
            backbone = load_backbone(str(folder), all_read=True, **options)
            base = base_name(str(folder))
        model = cls(backbone, load_processor(str(folder)), config, base)
        head = saved_head(folder)
        if "bias" in head:
            model.head = linear_head(head["weight"].shape[1], bias=True)
        with reading(f"the head in {folder}"):
            model.head.load_state_dict(head)
        if not trainable:
            model.requires_grad_(False)
        elif lora is not None and not adapted:
            model.add_lora(lora)
        elif adapted:
            model.fp32_trainables()
        return placed(model, device, str(folder))

    def save_pretrained(
        self,
        path: str | Path,
        domain_weights: dict[str, float] | None = None,
        *,
        merged: bool = False,
        state: dict[str, Tensor] | None = None,
    ) -> None:
        """Write backbone, processor, head and config.

        Args:
            path: the folder.
            domain_weights: go along if given.
            merged: write adapters into a full copy of the backbone; otherwise the adapters alone
                are written, and the name of their base.
            state: what to write in place of the model's own parameters, under their names: where
                these are sharded over processes, the whole.

        Raises:
            DreamPRMError: the disk refuses; adapters whose base has no name.
        """
        folder = Path(path)
        adapters = unwrapped(self.backbone) is not self.backbone
        of_backbone = None if state is None else _below("backbone.", state)
        head = self.head.state_dict() if state is None else _below("head.", state)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / CONFIG_FILE).unlink(missing_ok=True)  # the last: without it this is no PRM
            for left in folder.glob(".tmp??????"):  # by safetensors, where it was killed
                left.unlink(missing_ok=True)
            head = {k: v.detach().cpu().contiguous() for k, v in head.items()}
            (folder / HEAD_FILE).unlink(missing_ok=True)
            if adapters and not merged:
                save_adapter(self.backbone, folder, self.base, of_backbone)
            else:
                backbone = merged_copy(self.backbone) if adapters else self.backbone
                options: dict[str, Any] = {"state_dict": of_backbone}
                if self.config.head == "value" and head.keys() == {"weight"}:
                    whole = of_backbone or backbone.state_dict()
                    options = saved_with(head.pop("weight"), backbone, whole)
                backbone.save_pretrained(folder, **options)
                for stale in (ADAPTER_CONFIG, ADAPTER_FILE):  # would be added once more
                    (folder / stale).unlink(missing_ok=True)
            self.processor.save_pretrained(folder)
            if head:
                save_file(head, folder / HEAD_FILE)
            (folder / VLLM_FILE).unlink(missing_ok=True)
            whole_value = self.config.head == "value" and not head and (merged or not adapters)
            if whole_value and obstacle(self.config, self.plain) is None:
                tag_id, dtype = self.encoder().tag_id, unwrapped(self.backbone).dtype
                facts_of_server = vllm_config(tag_id, dtype, self.plain.text_only)
                (folder / VLLM_FILE).write_text(facts_of_server)
            facts = asdict(self.config) | {"domain_weights": domain_weights}
            (folder / CONFIG_FILE).write_text(json.dumps(facts, indent=2) + "\n")
        except (OSError, SafetensorError) as error:
            raise DreamPRMError(f"{folder}: cannot write the model: {error}") from error


def export(model: PRM, path: str | Path, domain_weights: dict[str, float] | None = None) -> None:
    """Write a model as vLLM serves it: adapters merged, and any head as one row of its weights.

    Its scores are the same. Layout `prefix` becomes `trajectory`, which judges at the same tokens.

    Raises:
        DreamPRMError: vLLM cannot serve it, and why.
    """
    reason = obstacle(model.config, model.plain)
    if reason is not None:
        raise DreamPRMError(f"vLLM cannot serve this PRM: {reason}")
    adapted = unwrapped(model.backbone) is not model.backbone
    backbone = merged_copy(model.backbone) if adapted else model.backbone
    row = linear_row(model.head, model.config.head, backbone.get_output_embeddings())
    layout = replace(model.config.layout, name="trajectory")
    served = PRM(backbone, model.processor, replace(model.config, head="value", layout=layout))
    served.head.weight.data = row
    served.save_pretrained(path, domain_weights)


def trainable_prm(
    name_or_path: str,
    config: PRMConfig | None = None,
    *,
    lora: Lora | None = None,
    dtype: Dtype = "float32",
    device: str | None = "cpu",
) -> PRM:
    """A PRM to train: new on a backbone, or the PRM of a folder, whose own config stands."""
    if not is_prm(name_or_path):
        return PRM.from_backbone(name_or_path, config, lora=lora, dtype=dtype, device=device)
    model = PRM.from_pretrained(name_or_path, trainable=True, lora=lora, dtype=dtype, device=device)
    model.fp32_trainables()
    return model


def _dtype(dtype: Dtype) -> torch.dtype:
    return getattr(torch, dtype) if isinstance(dtype, str) else dtype


def _below(start: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of one part of the model, under the part's own names."""
    return {name.removeprefix(start): v for name, v in state.items() if name.startswith(start)}
