"""The form of a folder that vLLM serves: `vllm serve DIR --config DIR/vllm.yaml`.

vLLM (0.32) makes a classifier of any model that writes text: `score.weight` among the model's own
weights, one row without bias. Step pooling gives its product with the last hidden state at every
token that is the step tag. So a head must be one row, and the tag a token that nothing else writes.
"""

from __future__ import annotations

from typing import Any

import torch
import yaml
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import HEAD_TENSOR
from dreamprm.models.plain_text import PlainText
from dreamprm.models.templates import write_chats
from dreamprm.prm.folder import PRMConfig
from dreamprm.prm.heads import TokenHead

# Vision-language models in which vLLM puts the classifier beside the language model, because it
# builds that one without its registry. In others the classifier is a part of the language model.
_BESIDE = {
    "aria", "cohere_compass", "ernie4_5_vl_moe", "granite4_vision", "idefics3", "llama4",
    "paddleocr_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe", "smolvlm",
}  # fmt: skip


def saved_with(head: Tensor, backbone: Any, state: dict[str, Tensor]) -> dict[str, Any]:
    """Arguments of transformers' `save_pretrained` that write a linear head as vLLM reads it.

    Args:
        head: its row, (1, width).
        state: of the backbone.
    """
    config, text = backbone.config, backbone.config.get_text_config()
    config.num_labels = text.num_labels = 1  # the one or the other is read
    beside = text is config or config.model_type in _BESIDE
    name = HEAD_TENSOR if beside else f"language_model.{HEAD_TENSOR}"
    # Names of older checkpoints, under which some models are saved, would take the head along.
    kept = name in revert_weight_conversion(backbone, {name: head})
    return {"state_dict": state | {name: head}, "save_original_format": kept}


def obstacle(config: PRMConfig, plain: PlainText) -> str | None:
    """Why vLLM cannot judge the steps of a PRM, whatever its head is; None where it can."""
    if config.layout.name == "turns":
        return "layout 'turns' judges steps where replies begin, and vLLM at a step tag"
    tag = config.layout.step_tag
    special = {t.content for t in plain.tokenizer.added_tokens_decoder.values() if t.special}
    if tag not in special:
        return (
            f"its step tag {tag!r} is no special token, so prompts and steps hold it too; train "
            "with a tokenizer that has an unused special token (or one as step_tag)"
        )
    content = [{"type": "text", "text": "?"}]
    [chat] = write_chats(plain.processor, [[{"role": "user", "content": content}]], True)
    if str(tag) in chat:
        return f"the chat template writes its step tag {tag!r} into prompts"
    return None


def linear_row(head: nn.Linear | TokenHead, name: str, output: Any) -> Tensor:
    """A head as one row: a step's logit is its product with the hidden state, (1, width).

    Args:
        name: of the head.
        output: the backbone's output embedding, adapters merged.

    Raises:
        DreamPRMError: it is no such product.
    """
    shift = torch.zeros(1)
    if isinstance(head, TokenHead):
        if head.softcap is not None:
            raise DreamPRMError("its logits are capped, so its head 'token' is not linear")
        row = torch.zeros(1, len(output.weight))
        row[0, [head.good, head.bad]] = torch.tensor([1.0, -1.0])
    else:
        row = head.weight.float()
        shift = shift if head.bias is None else head.bias.float()
    if name != "value":  # so far of logits of the vocabulary
        if getattr(output, "bias", None) is not None:
            shift = shift + row @ output.bias.float()
        row = row @ output.weight.float()
    if shift.any():
        raise DreamPRMError(
            "its head has a bias, which vLLM does not take (new ones have none): train it again, "
            "or serve it with `dreamprm serve`"
        )
    return row


def vllm_config(tag_id: int, dtype: torch.dtype, text_only: bool) -> str:
    """The options of `vllm serve`, as YAML.

    Without a dtype vLLM would round float32 weights to 16 bits. Videos are none of ours, and with
    them vLLM would make room for the longest one.
    """
    pooler = {
        "task": "token_classify",
        "tok_pooling_type": "STEP",
        "step_tag_id": tag_id,
        "use_activation": False,
    }
    options: dict[str, Any] = {
        "runner": "pooling",
        "convert": "classify",
        "dtype": str(dtype).removeprefix("torch."),
        "pooler-config": pooler,
    }
    if not text_only:
        options["limit-mm-per-prompt"] = {"video": 0}
    return yaml.safe_dump(options, sort_keys=False)
