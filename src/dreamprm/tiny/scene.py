"""The pictures of the embedded world: four coloured things, each showing a value from 1 to 9.

Every quarter of the 56 x 56 picture is one merged visual token of a Qwen2-VL vision tower (patch
14, merge 2), so a model of a million parameters can learn to read it. Four renderings stand for the
paper's four families: a number is shown as dots (science), a bar (chart), the size of a triangle
(geometry) or the hand of a dial (commonsense).
"""

from __future__ import annotations

import io
import math
import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

FAMILIES = ("science", "chart", "geometry", "commonsense")
COLOURS = {
    "red": (220, 30, 30),
    "orange": (255, 150, 20),
    "green": (30, 160, 60),
    "blue": (40, 80, 230),
    "purple": (150, 50, 190),
    "black": (20, 20, 20),
}
CELL = 28  # pixels; one merged visual token
SIZE = 2 * CELL
MAX_VALUE = 9


@dataclass(frozen=True)
class Scene:
    """What a picture shows: `colours[i]` has `values[i]`, placed in quarter i (row by row)."""

    family: str
    colours: tuple[str, ...]
    values: tuple[int, ...]

    def value(self, colour: str) -> int:
        return self.values[self.colours.index(colour)]


def random_scene(rng: random.Random, family: str) -> Scene:
    colours = tuple(rng.sample(sorted(COLOURS), 4))
    while True:
        values = tuple(rng.randint(1, MAX_VALUE) for _ in colours)
        if len(set(values)) > 1:  # so that "which is larger" can always be asked
            return Scene(family, colours, values)


def render(scene: Scene) -> Image.Image:
    """Draw a scene.

    Returns:
        RGB image of 56 x 56 pixels.
    """
    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    for i, (colour, value) in enumerate(zip(scene.colours, scene.values, strict=True)):
        if value == 0:  # an empty quarter; only captions in pretraining have them
            continue
        x, y = (i % 2) * CELL, (i // 2) * CELL
        _DRAW[scene.family](draw, x, y, COLOURS[colour], value)
    return image


def to_png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


Colour = tuple[int, int, int]


def _dots(draw: ImageDraw.ImageDraw, x: int, y: int, colour: Colour, value: int) -> None:
    for i in range(value):
        left, top = x + 2 + (i % 3) * 8, y + 2 + (i // 3) * 8
        draw.ellipse((left, top, left + 6, top + 6), fill=colour)


def _bar(draw: ImageDraw.ImageDraw, x: int, y: int, colour: Colour, value: int) -> None:
    bottom = y + CELL - 1
    draw.line((x + 1, bottom, x + CELL - 2, bottom), fill=(120, 120, 120))
    draw.rectangle((x + 7, bottom - 1 - 2.8 * value, x + 20, bottom - 1), fill=colour)


def _triangle(draw: ImageDraw.ImageDraw, x: int, y: int, colour: Colour, value: int) -> None:
    side = 2.8 * value
    draw.polygon(((x + 1, y + 26), (x + 1 + side, y + 26), (x + 1, y + 26 - side)), fill=colour)


def _dial(draw: ImageDraw.ImageDraw, x: int, y: int, colour: Colour, value: int) -> None:
    centre_x, centre_y, radius = x + CELL / 2, y + CELL / 2, 12
    box = (centre_x - radius, centre_y - radius, centre_x + radius, centre_y + radius)
    draw.ellipse(box, outline=(150, 150, 150))
    angle = 2 * math.pi * value / (MAX_VALUE + 1) - math.pi / 2
    tip = (centre_x + 11 * math.cos(angle), centre_y + 11 * math.sin(angle))
    draw.line((centre_x, centre_y, *tip), fill=colour, width=5)


_DRAW = {"science": _dots, "chart": _bar, "geometry": _triangle, "commonsense": _dial}
