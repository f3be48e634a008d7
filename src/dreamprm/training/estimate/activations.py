"""Bytes that a forward pass keeps for its backward pass, and the FLOPs of both.

The formulas count, operation by operation, what autograd saves in the decoders and vision towers of
transformers with SDPA attention, which keeps no score matrix. They were written down from, and
tests hold them to, what `torch.autograd.graph.saved_tensors_hooks` sees.

Symbols: h width, i inner width of the MLP, q and k widths of all query and key heads, T tokens of a
sequence, c bytes of the compute dtype. Per token of a language model's layer, trained whole:

    norms      4 h fp32     (RMSNorm keeps what it normalises and what it scales)
    inputs     2 h + i      of linear layers; under autocast 5 h + i, each layer casting for itself
    attention  2 q + 2 k    queries, output, keys, values; 4 q and T where padding needs a mask
    MLP        3 i          SiLU's input, and the two factors

all but the norms times c. A frozen layer with adapters needs the adapters' inputs only.
"""

from __future__ import annotations

from dataclasses import dataclass

from dreamprm.training.estimate.shapes import Shapes, Stack

# Which of a layer's linear layers read the same tensor, by the names that transformers gives them.
_READS = {
    "q_proj": "attention", "k_proj": "attention", "v_proj": "attention", "qkv": "attention",
    "qkv_proj": "attention", "o_proj": "mixed", "out_proj": "mixed", "proj": "mixed",
    "projection_layer": "mixed",
    "gate_proj": "mlp", "up_proj": "mlp", "gate_up_proj": "mlp", "fc1": "mlp", "linear_fc1": "mlp",
    "down_proj": "inner", "fc2": "inner", "linear_fc2": "inner",
}  # fmt: skip


@dataclass(frozen=True)
class Pass:
    """Sequences that go through the model at once.

    Attributes:
        sequences: their number.
        tokens: of the longest; the others are padded to it.
        patches: image patches of each sequence, before merging.
        padded: whether some are shorter, so that attention needs a mask.
        bf16: autocast to bfloat16.
        frozen_bf16: what adapters are on is in bfloat16.
        checkpointing: each layer keeps its input only.
        cuda: on a GPU; False: on the CPU, whose autocast and dropout keep other tensors.
    """

    sequences: float
    tokens: float
    patches: float
    padded: bool = False
    bf16: bool = False
    frozen_bf16: bool = False
    checkpointing: bool = False
    cuda: bool = True

    @property
    def c(self) -> int:
        """Bytes of a number in the compute dtype."""
        return 2 if self.bf16 or self.frozen_bf16 else 4


def saved_bytes(shapes: Shapes, run: Pass) -> float:
    """Bytes alive when the forward pass is done, without parameters and the head.

    Copies of weights that autocast makes are in it where they are kept, i.e. without checkpointing.
    """
    text, vision, c = shapes.text, shapes.vision, run.c
    residual = 2 if shapes.lora and run.frozen_bf16 else 4
    per_token = text.layers * _text_layer(shapes, run)
    if run.checkpointing:
        per_token = text.layers * residual * text.width
    final_norm = 4 * text.width * (2 if text.norms else 1)
    rotary = 2 * residual * text.query / text.heads * (not run.checkpointing)
    found = run.sequences * run.tokens * (per_token + final_norm + rotary)
    if vision and passes_vision(shapes, run):
        per_patch: float = vision.layers * _vision_layer(shapes, vision, run)
        if run.checkpointing:
            per_patch = vision.layers * c * vision.width
        # Its merger keeps what its norm and non-linearity read, and trained linear layers.
        per_patch += 2 * c * vision.width
        if vision.learns:
            per_patch += 2 * (2 if run.bf16 else 4) * vision.width
        per_patch += 8 * vision.width / vision.heads * (not run.checkpointing)
        if _trained_whole(vision):
            per_patch += c * vision.patch_values
        found += run.sequences * run.patches * per_patch
    if run.bf16 and not run.checkpointing:
        found += 2 * shapes.cast
        if shapes.lora and not run.frozen_bf16:  # copies of what is frozen are kept as well
            found += 2 * text.layers * text.matrices
            if vision and vision.learns:
                found += 2 * (vision.layers * vision.matrices + vision.outside)
    elif run.bf16 and vision and passes_vision(shapes, run):
        if _trained_whole(vision):
            found += 2 * vision.outside  # outside the checkpointed layers
        elif not run.frozen_bf16:
            found += 2 * (vision.outside - vision.patch_values * vision.width)
    return found


def recomputed_bytes(shapes: Shapes, run: Pass) -> float:
    """What checkpointing adds at its worst.

    Either one layer's activations, computed again, or autocast's copies of all weights, which live
    to the end of the forward pass.
    """
    if not run.checkpointing:
        return 0.0
    text, vision = shapes.text, shapes.vision
    layer = run.sequences * run.tokens * _text_layer(shapes, run)
    if vision and passes_vision(shapes, run):
        block = run.sequences * run.patches * _vision_layer(shapes, vision, run)
        layer = max(layer, block)
    weights = text.matrices if _trained_whole(text) else text.adapters
    return max(layer + 2 * weights * run.bf16, 2.0 * shapes.cast * run.bf16)


def passes_vision(shapes: Shapes, run: Pass) -> bool:
    """Whether gradients go through the vision tower: not where it is frozen."""
    return shapes.vision is not None and shapes.vision.learns


def _text_layer(shapes: Shapes, run: Pass) -> float:
    """Per token."""
    text, c = shapes.text, run.c
    masked = run.padded or text.masked
    kept = 2 if text.norms else 1  # what is normalised; what is scaled
    norms = (4 * kept * text.width + 8) * text.residual_norms
    if text.head_norms:
        norms += 4 * kept * (text.query + text.key)
    inputs = _inputs(text, shapes, run)
    key = text.query if masked else text.key
    attention = c * (2 * text.query + 2 * key + (run.tokens if masked else 0)) + 4 * text.heads
    return norms + inputs + attention + c * text.saved_activations * text.inner


def _vision_layer(shapes: Shapes, vision: Stack, run: Pass) -> float:
    """Per image patch. Images are attended one by one, and never padded."""
    c, e = run.c, vision.width
    if vision.rms:
        norms = 4 * e * (4 if vision.norms else 2) + 16
    else:
        norms = 2 * e * (4 if run.cuda else c) + 16  # autocast on a GPU normalises in fp32
    # Queries, keys and output; values are a view of the fused projection, which stays whole.
    fused = any(name.startswith("qkv") for name in vision.trained)
    attention = c * e * (6 if fused else 4) + 4 * vision.heads
    mixed = c * e if "proj" in vision.trained else 0  # images are put together again
    inside = c * vision.saved_activations * vision.inner
    return norms + _inputs(vision, shapes, run) + attention + mixed + inside


def _inputs(stack: Stack, shapes: Shapes, run: Pass) -> float:
    """What trained linear layers of one layer read, per token."""
    lora, c = shapes.lora, 2 if run.bf16 else 4  # adapters are fp32 without autocast
    widths = {"attention": stack.width, "mixed": stack.query, "mlp": stack.width}
    own_copy = bool(lora and (run.bf16 or run.frozen_bf16 or lora.dropout)) or (
        run.bf16 and stack.rms
    )
    found, read = 0.0, set()
    for name in stack.trained:
        what = _READS.get(name, name)
        width = widths.get(what, stack.inner)
        if what == "mixed" and not (lora and own_copy):
            continue  # attention keeps its output itself
        if own_copy or what not in read:
            found += c * width
        read.add(what)
        if lora:
            found += c * lora.r
            found += width * (1 if run.cuda else 4) * bool(lora.dropout)  # what is dropped
    return found


def _trained_whole(stack: Stack) -> bool:
    return stack.norms and not stack.adapters


def forward_flops(shapes: Shapes, run: Pass) -> tuple[float, float]:
    """FLOPs of a forward pass in the language model and in the vision tower.

    Two per weight and token, and attention: 4 q T^2 per layer, half of it under a causal mask.
    """
    text, vision = shapes.text, shapes.vision
    dense = 3 * text.width * text.inner + 2 * text.width * (text.query + text.key)
    per_token = text.layers * (2 * (dense + text.adapters) + 2 * text.query * run.tokens)
    in_vision: float = 0.0
    if vision:
        embedding = vision.patch_values * vision.width  # per patch; the merger works per token
        weights: float = vision.layers * (vision.matrices + vision.adapters) + embedding
        weights += (vision.outside - embedding) / shapes.merge
        in_vision = 2 * weights + vision.layers * 4 * vision.width * run.patches
    return run.sequences * run.tokens * per_token, run.sequences * run.patches * in_vision


def backward_flops(shapes: Shapes, run: Pass) -> float:
    """FLOPs of the backward pass, and of the second forward pass under checkpointing.

    Twice the forward pass where weights are trained; once where they only pass gradients on.
    """
    found = 0.0
    for stack, forward in zip(
        (shapes.text, shapes.vision), forward_flops(shapes, run), strict=True
    ):
        passed = passes_vision(shapes, run) if stack is shapes.vision else True
        if stack is not None and passed:
            share = stack.adapters / max(1, stack.matrices + stack.adapters)
            found += forward * (2 if _trained_whole(stack) else 1 + share)
            found += forward * run.checkpointing
    return found
