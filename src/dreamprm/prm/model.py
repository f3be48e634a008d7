"""The process reward model: a vision-language backbone and a head with one logit per step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import load_backbone, load_processor
from dreamprm.prm.heads import HeadName, TokenHead, linear_head, single_token, token_head
from dreamprm.prm.layout import Batch, Encoder, LayoutConfig
from dreamprm.prm.lora import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    base_name,
    has_adapter,
    load_with_adapter,
    merged_copy,
    save_adapter,
    unwrapped,
)
from dreamprm.prm.turns import reply_ids

CONFIG_FILE, HEAD_FILE = "prm_config.json", "prm_head.safetensors"


@dataclass(frozen=True)
class PRMConfig:
    """What is not in the backbone's own config.

    Attributes:
        head: `value`: linear on the last hidden state at each step's end; `vocab` (the paper's):
            linear on the vocabulary logits there; `token` (VisualPRM's): the logit of the good
            token minus that of the bad one, without parameters; goes with layout `turns`.
        layout: how trajectories become token sequences.
        aggregation: of step logits to one score at inference, a name of `search.AGGREGATIONS`.
        good_token: `token` head: says that a step is right; a single token.
        bad_token: `token` head: says that it is wrong; a single token.
    """

    head: HeadName = "value"
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    aggregation: str = "mean_logit"
    good_token: str = "+"
    bad_token: str = "-"


class PRM(nn.Module):
    """Scores every step of a trajectory in one forward pass.

    Args:
        backbone: any `AutoModelForImageTextToText`, with or without peft adapters.
        processor: its processor.
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
        self.config = config or PRMConfig()
        self.base = base or getattr(unwrapped(backbone), "name_or_path", "")
        self.head: nn.Linear | TokenHead = self._new_head()
        model = unwrapped(backbone)
        output = model.get_output_embeddings()
        tied = output is None or output.weight is model.get_input_embeddings().weight
        if self.config.head == "value" and not tied:
            output.requires_grad_(False)  # unused

    def _new_head(self) -> nn.Linear | TokenHead:
        config, facts = self.config, unwrapped(self.backbone).config
        if config.head != "token":
            text = facts.get_text_config()
            return linear_head(text.hidden_size if config.head == "value" else text.vocab_size)
        good = single_token(self.processor.tokenizer, config.good_token, "good_token")
        bad = single_token(self.processor.tokenizer, config.bad_token, "bad_token")
        if config.layout.name == "turns":
            if config.layout.reply not in (config.good_token, config.bad_token):
                raise DreamPRMError(
                    f"layout.reply {config.layout.reply!r} stands where the model says "
                    f"{config.good_token!r} or {config.bad_token!r}; set it to good_token"
                )
            good, bad = reply_ids(self.processor, config.good_token, config.bad_token)
        if good == bad:
            raise DreamPRMError(f"good_token and bad_token are the same, {config.good_token!r}")
        return token_head(facts, good, bad)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def encoder(self, root: Path | None = None) -> Encoder:
        text = unwrapped(self.backbone).config.get_text_config()
        context = getattr(text, "max_position_embeddings", None)
        return Encoder(self.processor, self.config.layout, root, context)

    def forward(self, batch: Batch) -> Tensor:
        """Step logits, (trajectories, steps); 0 where `batch.mask` is False."""
        model = unwrapped(self.backbone)
        inputs = {
            k: v.to(model.dtype) if v.is_floating_point() else v for k, v in batch.inputs.items()
        }
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
            return self._judge(at_steps)

    def _judge(self, at_steps: Tensor) -> Tensor:
        output = unwrapped(self.backbone).get_output_embeddings()
        if isinstance(self.head, TokenHead):
            found: Tensor = self.head(at_steps, output)
            return found
        if self.config.head == "vocab":
            at_steps = output(at_steps.to(output.weight.dtype))  # (found, vocabulary)
        found = self.head(at_steps.to(self.head.weight.dtype))[:, 0]
        return found

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
        if unwrapped(self.backbone) is not self.backbone:
            # transformers makes the inputs of a model with adapters require gradients, which the
            # reentrant kind needs. Here a frozen vision tower would keep its activations for it.
            model.disable_input_require_grads()

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
        of_backbone, of_head = _split(state)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if adapters and not merged:
                save_adapter(self.backbone, folder, self.base, of_backbone)
            else:
                backbone = merged_copy(self.backbone) if adapters else self.backbone
                backbone.save_pretrained(folder, state_dict=of_backbone)
                for stale in (ADAPTER_CONFIG, ADAPTER_FILE):  # would be added once more
                    (folder / stale).unlink(missing_ok=True)
            self.processor.save_pretrained(folder)
            head = self.head.state_dict() if of_head is None else of_head
            head = {k: v.detach().cpu().contiguous() for k, v in head.items()}
            save_file(head, folder / HEAD_FILE)
            facts = asdict(self.config) | {"domain_weights": domain_weights}
            (folder / CONFIG_FILE).write_text(json.dumps(facts, indent=2) + "\n")
        except (OSError, SafetensorError) as error:
            raise DreamPRMError(f"{folder}: cannot write the model: {error}") from error

    @classmethod
    def from_backbone(cls, path: str, config: PRMConfig | None = None, **kwargs: Any) -> PRM:
        """A new PRM on a pretrained backbone, by path or hub name.

        Raises:
            DreamPRMError: there is no backbone, but perhaps the adapters of a PRM.
        """
        if has_adapter(Path(path)):
            raise DreamPRMError(
                f"{path} holds adapters, not a whole backbone; go on with it as a trained PRM, or "
                "save it with merged=True first"
            )
        return cls(load_backbone(path, **kwargs), load_processor(path), config, base_name(path))

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        trainable: bool = False,
        base_model: str | None = None,
        **kwargs: Any,
    ) -> PRM:
        """Load what `save_pretrained` wrote.

        Args:
            path: the folder.
            trainable: go on training: the adapters where there are any, otherwise all of the model
                that its head uses. Nothing asks for gradients without it.
            base_model: path or hub name of the base of saved adapters, where it has moved.
            kwargs: of `load_backbone`, such as `dtype`.

        Raises:
            DreamPRMError: the folder holds no PRM, or the base of its adapters is gone.
        """
        folder = Path(path)
        if not (folder / CONFIG_FILE).is_file():
            raise DreamPRMError(
                f"{folder} holds no {CONFIG_FILE}: not a PRM saved by dreamprm; "
                "give the folder that `dreamprm train` wrote"
            )
        facts = json.loads((folder / CONFIG_FILE).read_text())
        facts.pop("domain_weights", None)
        config = PRMConfig(**facts | {"layout": LayoutConfig(**facts["layout"])})
        backbone: Any
        if has_adapter(folder):
            backbone, base = load_with_adapter(
                folder, trainable=trainable, base_model=base_model, **kwargs
            )
        else:
            backbone, base = load_backbone(str(folder), **kwargs), base_name(str(folder))
        model = cls(backbone, load_processor(str(folder)), config, base)
        model.head.load_state_dict(load_file(folder / HEAD_FILE))
        if not trainable:
            model.requires_grad_(False)
        elif has_adapter(folder):
            model.fp32_trainables()
        return model


def _split(
    state: dict[str, Tensor] | None,
) -> tuple[dict[str, Tensor] | None, dict[str, Tensor] | None]:
    """A reward model's parameters: the backbone's and the head's, each under its own names."""
    if state is None:
        return None, None
    parts: list[dict[str, Tensor]] = [
        {name.removeprefix(start): v for name, v in state.items() if name.startswith(start)}
        for start in ("backbone.", "head.")
    ]
    return parts[0], parts[1]
