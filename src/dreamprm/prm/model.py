"""The process reward model: a vision-language backbone and a head with one logit per step."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dreamprm.errors import DreamPRMError
from dreamprm.loading import load_backbone, load_processor
from dreamprm.prm.layout import Batch, Encoder, LayoutConfig

HeadName = Literal["value", "vocab"]
CONFIG_FILE, HEAD_FILE = "prm_config.json", "prm_head.safetensors"


@dataclass(frozen=True)
class PRMConfig:
    """What is not in the backbone's own config.

    Attributes:
        head: `value`: linear on the last hidden state at each step's end; `vocab` (the paper's):
            linear on the vocabulary logits there.
        layout: how trajectories become token sequences.
        aggregation: of step logits to one score at inference, a name of `search.AGGREGATIONS`.
    """

    head: HeadName = "value"
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    aggregation: str = "mean_logit"


class ProcessRewardModel(nn.Module):
    """Scores every step of a trajectory in one forward pass.

    Args:
        backbone: any `AutoModelForImageTextToText`.
        processor: its processor.
        config: head, layout and aggregation.
    """

    def __init__(self, backbone: Any, processor: Any, config: PRMConfig | None = None) -> None:
        super().__init__()
        self.backbone, self.processor = backbone, processor
        self.config = config or PRMConfig()
        text = backbone.config.get_text_config()
        width = text.hidden_size if self.config.head == "value" else text.vocab_size
        # Zero: every step starts at a score of 0.5, and the backbone's features decide the rest.
        self.head = nn.Linear(width, 1, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        output = backbone.get_output_embeddings()
        tied = output is None or output.weight is backbone.get_input_embeddings().weight
        if self.config.head == "value" and not tied:
            output.requires_grad_(False)  # unused

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def encoder(self, root: Path | None = None) -> Encoder:
        return Encoder(self.processor, self.config.layout, root)

    def forward(self, batch: Batch) -> Tensor:
        """Step logits, (trajectories, steps); 0 where `batch.mask` is False."""
        # No cache: positions are judged, nothing is generated.
        hidden = self.backbone.base_model(**batch.inputs, use_cache=False).last_hidden_state
        at_steps = hidden[batch.rows[batch.mask], batch.positions[batch.mask]]  # (found, width)
        if self.config.head == "vocab":
            at_steps = self.backbone.get_output_embeddings()(at_steps)  # (found, vocabulary)
        found = self.head(at_steps.to(self.head.weight.dtype))[:, 0]  # (found,)
        logits: Tensor = found.new_zeros(batch.mask.shape)
        logits[batch.mask] = found
        return logits

    def save_pretrained(
        self, path: str | Path, domain_weights: dict[str, float] | None = None
    ) -> None:
        """Write backbone, processor, head and config; `domain_weights` go along if given."""
        folder = Path(path)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.backbone.save_pretrained(folder)
            self.processor.save_pretrained(folder)
            head = {k: v.detach().cpu().contiguous() for k, v in self.head.state_dict().items()}
            save_file(head, folder / HEAD_FILE)
            facts = asdict(self.config) | {"domain_weights": domain_weights}
            (folder / CONFIG_FILE).write_text(json.dumps(facts, indent=2) + "\n")
        except (OSError, SafetensorError) as error:
            raise DreamPRMError(f"{folder}: cannot write the model: {error}") from error

    @classmethod
    def from_backbone(
        cls, path: str, config: PRMConfig | None = None, **kwargs: Any
    ) -> ProcessRewardModel:
        """A new PRM on a pretrained backbone, by path or hub name."""
        return cls(load_backbone(path, **kwargs), load_processor(path), config)

    @classmethod
    def from_pretrained(cls, path: str | Path, **kwargs: Any) -> ProcessRewardModel:
        """Load what `save_pretrained` wrote.

        Raises:
            DreamPRMError: the folder holds no PRM.
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
        model = cls(load_backbone(str(folder), **kwargs), load_processor(str(folder)), config)
        model.head.load_state_dict(load_file(folder / HEAD_FILE))
        return model
