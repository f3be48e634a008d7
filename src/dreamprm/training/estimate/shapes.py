"""A reward model's shapes, without its weights.

The backbone is built on torch's `meta` device, which has shapes and no data; sizes that modules do
not tell (heads, patches) come from its config.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText

from dreamprm.errors import DreamPRMError
from dreamprm.models.loading import resolve
from dreamprm.prm.heads import HeadName
from dreamprm.prm.lora import Lora, unwrapped
from dreamprm.prm.model import PRM, PRMConfig


@dataclass(frozen=True)
class Stack:
    """The layers of a language model or vision tower.

    Attributes:
        layers: their number; all alike.
        width: of the residual stream.
        query: width of all query heads.
        key: width of all key heads, and of all value heads.
        heads: query heads.
        inner: width of the MLP's inside.
        matrices: elements of a layer's weight matrices.
        parameters: of a layer.
        trained: names of linear layers whose input the backward pass needs.
        norms: whether the norms are trained.
        residual_norms: norms of a layer that are as wide as the stream.
        head_norms: queries and keys are normalised too.
        masked: attention is not plainly causal and always has a mask (Gemma's images).
        rms: RMSNorm, not LayerNorm.
        gated: the MLP has a gate.
        saved_activations: inner-width tensors that the MLP's non-linearity keeps.
        adapters: elements of a layer's LoRA matrices.
        outside: elements of matrices before and after the layers (patches, merger).
        patch_values: numbers in one image patch; 0 in a language model.
    """

    layers: int
    width: int
    query: int
    key: int
    heads: int
    inner: int
    matrices: int
    parameters: int
    trained: tuple[str, ...]
    norms: bool
    residual_norms: int
    head_norms: bool
    masked: bool
    rms: bool
    gated: bool
    saved_activations: int
    adapters: int
    outside: int
    patch_values: int

    @property
    def learns(self) -> bool:
        """Whether the backward pass goes through it at all."""
        return bool(self.trained) or self.norms


@dataclass(frozen=True)
class Shapes:
    """A reward model without its weights.

    Attributes:
        total: parameters, the head's included; tied ones once.
        trainable: of these, how many are trained.
        cast: trained fp32 elements that autocast copies to bf16 for a forward pass.
        embedding: elements of the input embedding.
        vocabulary: its size.
        text: the language model.
        vision: the vision tower; None without one.
        merge: image patches that become one token.
        lora: the adapters' options.
    """

    total: int
    trainable: int
    cast: int
    embedding: int
    vocabulary: int
    text: Stack
    vision: Stack | None
    merge: int
    lora: Lora | None


def read_shapes(backbone: Any, prm: PRMConfig, lora: Lora | None = None) -> Shapes:
    """Shapes of a reward model.

    Args:
        backbone: hub name, folder, or a config of transformers.
        prm: its head.
        lora: adapters; None: everything is trained.

    Raises:
        DreamPRMError: there is no such model, or it is not a vision-language model.
    """
    try:
        facts = (
            AutoConfig.from_pretrained(resolve(backbone)) if isinstance(backbone, str) else backbone
        )
        with torch.device("meta"):
            bare = AutoModelForImageTextToText.from_config(facts)
            # The token head needs a tokenizer and has no parameters; it trains the same backbone
            # as the vocabulary's head does.
            head: HeadName = "value" if prm.head == "value" else "vocab"
            model = PRM(bare, None, PRMConfig(head=head))
            if lora:
                model.add_lora(lora)
    except (OSError, ValueError) as error:
        raise DreamPRMError(f"cannot read the config of '{backbone}': {error}") from error
    if prm.head == "token":
        model.head = nn.Identity()  # type: ignore[assignment]
    whole = unwrapped(model.backbone)
    decoder, text = whole.get_decoder(), facts.get_text_config()
    tower = _tower(whole)
    output = whole.get_output_embeddings()
    matrices = [
        m.weight for m in whole.modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Conv3d)
    ]
    sizes = [p.numel() for p in matrices if p.requires_grad and p is not output.weight]
    vision = None if tower is None else _vision(tower, facts.vision_config)
    merge = getattr(getattr(facts, "vision_config", None), "spatial_merge_size", 1)
    return Shapes(
        total=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
        cast=sum(sizes),
        embedding=whole.get_input_embeddings().weight.numel(),
        vocabulary=text.vocab_size,
        text=_text(decoder, text),
        vision=vision,
        merge=merge**2,
        lora=lora,
    )


def _tower(whole: nn.Module) -> nn.Module | None:
    names = ("visual", "vision_tower", "vision_model")
    found = (m for n, m in whole.named_modules() if n.rpartition(".")[2] in names)
    return next(found, None)


def _text(decoder: nn.Module, facts: Any) -> Stack:
    heads = facts.num_attention_heads
    per_head = getattr(facts, "head_dim", None) or facts.hidden_size // heads
    inner = facts.intermediate_size
    if experts := getattr(facts, "num_experts_per_tok", None):  # each token goes through these
        inner = experts * facts.moe_intermediate_size
    return _stack(
        decoder,
        layers=facts.num_hidden_layers,
        width=facts.hidden_size,
        query=heads * per_head,
        key=(getattr(facts, "num_key_value_heads", None) or heads) * per_head,
        heads=heads,
        inner=inner,
        activation=str(getattr(facts, "hidden_act", "silu")),
        masked="gemma" in facts.model_type,
        patch_values=0,
    )


def _vision(tower: nn.Module, facts: Any) -> Stack:
    # Qwen2-VL calls its width embed_dim, and hidden_size what it hands to the language model.
    width = getattr(facts, "embed_dim", None) or facts.hidden_size
    inner = getattr(facts, "intermediate_size", None) or int(width * facts.mlp_ratio)
    side = facts.patch_size if isinstance(facts.patch_size, int) else facts.patch_size[0]
    return _stack(
        tower,
        layers=getattr(facts, "depth", None) or facts.num_hidden_layers,
        width=width,
        query=width,
        key=width,
        heads=getattr(facts, "num_heads", None) or facts.num_attention_heads,
        inner=inner,
        activation=str(getattr(facts, "hidden_act", "gelu")),
        patch_values=3 * side**2 * getattr(facts, "temporal_patch_size", 1),
    )


def _stack(
    part: nn.Module, *, layers: int, inner: int, activation: str, masked: bool = False, **sizes: int
) -> Stack:
    """Sizes from the config; what is trained, and how many matrices there are, from the modules."""
    lists = [m for m in part.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]
    if not lists:
        raise DreamPRMError(f"cannot find the {layers} layers of {type(part).__name__}")
    layer = lists[0][0]
    linear = {
        name.removesuffix(".base_layer").rpartition(".")[2]: module
        for name, module in layer.named_modules()
        if isinstance(module, nn.Linear) and ".lora_" not in name
    }
    adapted = {n.rpartition(".")[2] for n, m in layer.named_modules() if isinstance(m, LoraLayer)}
    gated = any(name.startswith("gate") for name in linear)
    plain = [p for n, p in part.named_parameters() if p.dim() > 1 and "lora_" not in n]
    in_layers = [p for n, p in lists[0].named_parameters() if p.dim() > 1 and "lora_" not in n]
    named = {n: m for n, m in layer.named_modules() if "norm" in n.rpartition(".")[2].lower()}
    of_heads = {n for n in named if n.endswith(("q_norm", "k_norm"))}
    norms = list(named.values())
    return Stack(
        layers=layers,
        inner=inner,
        masked=masked,
        matrices=sum(m.weight.numel() for m in linear.values()),
        parameters=sum(p.numel() for p in layer.parameters()),
        trained=tuple(n for n, m in linear.items() if m.weight.requires_grad or n in adapted),
        norms=any(p.requires_grad for m in norms for p in m.parameters()),
        residual_norms=len(named.keys() - of_heads),
        head_norms=bool(of_heads),
        rms=any("RMS" in type(m).__name__ for m in norms),
        gated=gated,
        saved_activations=3 if gated else 2 if activation == "quick_gelu" else 1,
        adapters=sum(p.numel() for n, p in layer.named_parameters() if "lora_" in n),
        outside=sum(p.numel() for p in plain) - sum(p.numel() for p in in_layers),
        **sizes,
    )
