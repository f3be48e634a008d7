"""What turns the backbone's state at a judged position into one logit.

`value` and `vocab` are linear layers that start from nothing. `token` has no parameters: a step's
logit is that of the good token minus that of the bad one, so its score is the softmax over the two
(VisualPRM, arXiv 2503.10291; DreamPRM-1.5, arXiv 2509.05542), and a trained backbone is an ordinary
checkpoint of its architecture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import HEAD_TENSOR, reading
from dreamprm.models.templates import tokenizer_of
from dreamprm.prm.folder import HEAD_FILE, LayoutConfig
from dreamprm.prm.layout import reply_ids

# Architectures that squeeze their logits, where the config says so. Others (Gemma 3) carry the
# field in their config and do not read it.
_SOFTCAPPED = {
    "beam", "gemma2", "gemma3_text", "gemma3n", "gemma3n_text", "gemma4", "gemma4_text",
    "gemma4_unified", "gemma4_unified_text", "mistral_large4", "nanochat", "paligemma",
    "vaultgemma",
}  # fmt: skip
# Architectures that do something else to their logits.
_RESCALED = {
    "cohere", "cohere2", "cohere2_moe", "cohere_compass", "cohere_compass_text", "diffusion_gemma",
    "falcon_h1", "granite", "granite4_vision", "granite_docling", "granite_swa", "granitemoe",
    "granitemoe_swa", "granitemoehybrid", "granitemoeshared", "hyperclovax",
    "hyperclovax_vision_v2", "inkling2", "inkling2_text", "inkling_mm_model", "inkling_text",
    "muse_glimmer", "muse_spark", "t5gemma2",
}  # fmt: skip


def saved_head(folder: Path) -> dict[str, Tensor]:
    """The parameters of the head in a folder, by name; none for a `token` head.

    Raises:
        DreamPRMError: the file is damaged.
    """
    with reading(f"the head in {folder}"):
        if (folder / HEAD_FILE).is_file():
            return load_file(folder / HEAD_FILE)
        for path in sorted(folder.glob("model*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a dictionary)
                    if name.endswith(HEAD_TENSOR):
                        return {"weight": file.get_tensor(name)}
    return {}


class TokenHead(nn.Module):
    """z = logit(good) - logit(bad), so that sigmoid(z) is the softmax over the two tokens.

    `softcap` is the backbone's final logit softcapping: logits become cap * tanh(logit / cap).
    """

    def __init__(self, good: int, bad: int, softcap: float | None = None) -> None:
        super().__init__()
        self.good, self.bad, self.softcap = good, bad, softcap

    def forward(self, hidden: Tensor, output: nn.Module) -> Tensor:
        """Last hidden states at the judged positions, (found, width), to logits, (found,).

        `output` is the backbone's output embedding.
        """
        ids = [self.good, self.bad]
        if type(output) is nn.Linear:
            # Two rows of a vocabulary of hundreds of thousands, in fp32 or better: the difference
            # of two nearby bf16 logits has few digits left.
            dtype = torch.promote_types(output.weight.dtype, torch.float32)
            bias = None if output.bias is None else output.bias[ids].to(dtype)
            rows = output.weight[ids].to(dtype)  # (2, width)
            logits = nn.functional.linear(hidden.to(dtype), rows, bias)  # (found, 2)
        else:  # an adapter or quantisation: only the layer itself knows its rows
            dtype = next(p.dtype for p in output.parameters() if p.is_floating_point())
            logits = output(hidden.to(dtype))[:, ids].float()  # (found, 2)
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits[:, 0] - logits[:, 1]


def token_head(
    config: Any, processor: Any, tokens: tuple[str, str], layout: LayoutConfig
) -> TokenHead:
    """The `token` head of a backbone with this config, for the texts of a good and a bad token.

    Raises:
        DreamPRMError: a text is no single token, or the backbone changes its logits in a way that
            this head does not know.
    """
    good, bad = (
        _single_token(tokenizer_of(processor), text, field)
        for text, field in zip(tokens, ("good_token", "bad_token"), strict=True)
    )
    if layout.name == "turns":
        if layout.reply not in tokens:
            raise DreamPRMError(
                f"layout.reply {layout.reply!r} stands where the model says "
                f"{tokens[0]!r} or {tokens[1]!r}; set it to good_token"
            )
        good, bad = reply_ids(processor, *tokens)
    if good == bad:
        raise DreamPRMError(f"good_token and bad_token are the same, {tokens[0]!r}")
    if config.model_type in _RESCALED:
        raise DreamPRMError(
            f"head 'token' does not know how '{config.model_type}' rescales its logits; "
            "use head 'value'"
        )
    cap = getattr(config.get_text_config(), "final_logit_softcapping", None)
    return TokenHead(good, bad, cap if config.model_type in _SOFTCAPPED else None)


def linear_head(width: int, bias: bool = False) -> nn.Linear:
    """A fresh `value` or `vocab` head.

    Zero: every step starts at a score of 0.5, and the backbone's features decide the rest. Without
    bias, as vLLM serves it; models that were trained before 2026-12 have one.
    """
    head = nn.Linear(width, 1, bias=bias, dtype=torch.float32)
    for parameter in head.parameters():
        nn.init.zeros_(parameter)
    return head


def _single_token(tokenizer: Any, text: str, field: str) -> int:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise DreamPRMError(
            f"{field} {text!r} is {len(ids)} tokens of this backbone's tokenizer, and must be one; "
            "choose a text that the tokenizer knows as a whole"
        )
    return ids[0]
