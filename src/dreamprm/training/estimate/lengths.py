"""How long trajectories are, in tokens and image patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dreamprm.errors import DreamPRMError
from dreamprm.prm.layout import Encoder
from dreamprm.records import Question, Trajectory
from dreamprm.training.estimate.activations import Pass

_SAMPLE = 64  # trajectories that `measure_lengths` looks at


@dataclass(frozen=True)
class Lengths:
    """Sizes of trajectories, one number each.

    Attributes:
        tokens: of its longest sequence, visual tokens included.
        patches: image patches in it, before merging.
        steps: steps.
        sequences: one, or one per step in the `prefix` layout.
    """

    tokens: tuple[int, ...]
    patches: tuple[int, ...]
    steps: tuple[int, ...]
    sequences: tuple[int, ...]

    def batch(self, size: float, *, largest: bool = False, grouped: bool = False) -> Pass:
        """A batch of `size` trajectories: the largest there can be, or the mean one."""
        if largest:
            return Pass(
                size * max(self.sequences),
                max(self.tokens),
                max(self.patches),
                padded=size * max(self.sequences) > 1 and min(self.tokens) < max(self.tokens),
            )
        padded_to = _mean(self.tokens) if grouped else _mean_of_longest(self.tokens, size)
        return Pass(size * _mean(self.sequences), padded_to, _mean(self.patches))


def measure_lengths(
    encode: Encoder, pairs: Sequence[tuple[Question, Trajectory]], patch_size: int = 14
) -> Lengths:
    """Sizes of an even sample of trajectories, by encoding them.

    Args:
        encode: of the model.
        pairs: questions and trajectories.
        patch_size: side of an image patch, where the processor does not say how many there are.

    Raises:
        DreamPRMError: there are none.
    """
    if not pairs:
        raise DreamPRMError("no trajectories to estimate a run from; give some with labels")
    chosen = [pairs[i * len(pairs) // _SAMPLE] for i in range(_SAMPLE)]
    rows = []
    for question, t in chosen if len(pairs) > _SAMPLE else pairs:
        inputs = encode([(question, t.steps)]).inputs
        sequences, tokens = inputs["input_ids"].shape
        patches = 0
        if (grid := inputs.get("image_grid_thw")) is not None:
            patches = int(grid.prod(dim=1).sum()) // sequences
        elif (pixels := inputs.get("pixel_values")) is not None:
            patches = pixels[..., 0, :, :].numel() // patch_size**2 // sequences
        rows.append((tokens, patches, len(t.steps), sequences))
    return Lengths(*(tuple(column) for column in zip(*rows, strict=True)))


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def _mean_of_longest(values: Sequence[int], size: float) -> float:
    """Mean of the longest of `size` values drawn at random, as padding makes all of them."""
    n = len(values)
    expected: float = sum(
        value * ((i / n) ** size - ((i - 1) / n) ** size)
        for i, value in enumerate(sorted(values), start=1)
    )
    return expected
