"""Objects of rendered scenes: a shape in a colour with some shading, painted wherever, however large and turned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .synthetic_surfaces import smooth_noise

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (210, 35, 35),
    "orange": (240, 135, 25),
    "yellow": (238, 215, 40),
    "green": (45, 160, 60),
    "blue": (40, 85, 210),
    "purple": (130, 50, 170),
    "pink": (245, 130, 180),
    "brown": (120, 75, 40),
    "white": (240, 240, 240),
    "black": (28, 28, 30),
}

_Mask = Callable[[np.ndarray, np.ndarray], np.ndarray]
_Shading = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # Folded into one of ten equal wedges, the outline is a straight line from a tip (radius 1) to a notch (0.45).
    wedge = np.pi / 5
    angle = np.abs(np.mod(np.arctan2(y, x) + wedge, 2 * wedge) - wedge)
    radius = np.hypot(x, y)
    px, py = radius * np.cos(angle), radius * np.sin(angle)
    notch_x, notch_y = 0.45 * np.cos(wedge), 0.45 * np.sin(wedge)
    return (px - 1) * notch_y - py * (notch_x - 1) <= 0


def _arrow(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    shaft = (np.abs(y) < 0.22) & (x > -0.9) & (x < 0.15)
    return shaft | ((x >= 0.1) & (np.abs(y) < (0.95 - x) * 0.8))


# Each takes coordinates in which the shape fills about -1 … 1.
SHAPES: dict[str, _Mask] = {
    "circle": lambda x, y: x * x + y * y < 0.85,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.75,
    "triangle": lambda x, y: (y < 0.6) & (np.abs(x) * 1.732 - y < 0.95),
    "star": _star,
    "ring": lambda x, y: np.abs(x * x + y * y - 0.6) < 0.32,
    "cross": lambda x, y: np.minimum(np.abs(x), np.abs(y)) + 10 * (np.maximum(np.abs(x), np.abs(y)) > 0.9) < 0.3,
    "ellipse": lambda x, y: x * x + (y / 0.5) ** 2 < 0.95,
    "hexagon": lambda x, y: np.maximum(np.abs(x) * 0.866 + np.abs(y) * 0.5, np.abs(y)) < 0.82,
    "heart": lambda x, y: (1.4 * x * x + (1.2 * y + 0.15) ** 2 - 0.9) ** 3 + 1.6 * x * x * (1.2 * y + 0.15) ** 3 < 0,
    "crescent": lambda x, y: (x * x + y * y < 0.85) & ((x - 0.45) ** 2 + y * y > 0.6),
    "bar": lambda x, y: (np.abs(x) < 0.95) & (np.abs(y) < 0.25),
    "arrow": _arrow,
}

OBJECTS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
_REACH = 1.3
"""No shape goes farther than this from its centre along an axis, in units of its radius."""


@dataclass(frozen=True)
class Pose:
    """Where an object is: centre and radius in pixels, angle in radians."""

    x: float
    y: float
    radius: float
    angle: float


@dataclass(frozen=True)
class Look:
    """What an object looks like wherever it is.

    Attributes:
        kind: index into `OBJECTS`.
        squeeze: how much wider than high, about 1.
        shadow: length of the shadow in units of the radius, 0 for none.
        darkness: brightness factor in the shadow.
        colour: float32 [3], RGB of 0 … 255.
        shading: coordinates in which the shape fills about -1 … 1 → brightness factor.
    """

    kind: int
    squeeze: float
    shadow: float
    darkness: float
    colour: np.ndarray
    shading: _Shading


def draw_object(kind: int, size: tuple[int, int], generator: np.random.Generator) -> tuple[Look, Pose]:
    """An object of `kind` at random, its centre on a picture of `size` (height, width)."""
    height, width = size
    radius = min(height, width) * np.exp(generator.uniform(np.log(0.07), np.log(0.3)))
    y, x = generator.uniform(0.05, 0.95) * height, generator.uniform(0.05, 0.95) * width
    angle, squeeze = generator.uniform(0, 2 * np.pi), generator.uniform(0.93, 1.07)
    shadow = generator.uniform(0.05, 0.2) if generator.random() < 0.5 else 0.0
    darkness = generator.uniform(0.45, 0.8) if shadow else 1.0
    colour = np.array(COLOURS[OBJECTS[kind].split(" ")[0]], dtype=np.float32)
    colour = colour * generator.uniform(0.85, 1.12) + generator.uniform(-10, 10, 3)
    look = Look(kind, squeeze, shadow, darkness, colour.astype(np.float32), _draw_shading(generator))
    return look, Pose(x, y, radius, angle)


def paint(look: Look, pose: Pose, *, pixels: np.ndarray, segments: np.ndarray, number: int) -> int:
    """Paints an object over what is there.

    Args:
        look, pose: of the object, which may lie outside of the picture in part or altogether.
        pixels: float32 [h, w, 3], changed.
        segments: int16 [h, w], changed: `number` where the object is.
        number: of the object.
    Returns:
        how many pixels of the picture it covers.
    """
    height, width = segments.shape
    shadow = int(pose.radius * look.shadow) + 1 if look.shadow else 0
    reach = int(pose.radius * _REACH) + 1
    top, bottom = max(0, int(pose.y) - reach), min(height, int(pose.y) + reach + shadow)
    left, right = max(0, int(pose.x) - reach), min(width, int(pose.x) + reach + shadow)
    if top >= bottom or left >= right:
        return 0
    rows = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(pose.y)) / np.float32(pose.radius)
    columns = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(pose.x)) / np.float32(pose.radius)
    cosine, sine = np.float32(np.cos(pose.angle)), np.float32(np.sin(pose.angle))
    x = (columns * cosine + rows * sine) * np.float32(look.squeeze)
    y = (rows * cosine - columns * sine) / np.float32(look.squeeze)
    mask = SHAPES[OBJECTS[look.kind].split(" ")[1]](x, y)
    window = pixels[top:bottom, left:right]
    if shadow:
        dark = np.zeros_like(mask)
        dark[shadow:, shadow:] = mask[:-shadow, :-shadow]
        window[dark] *= np.float32(look.darkness)
    window[mask] = look.shading(x[mask], y[mask])[:, None] * look.colour
    segments[top:bottom, left:right][mask] = number
    return int(mask.sum())


def _draw_shading(generator: np.random.Generator) -> _Shading:
    """Brightness factor over an object's own coordinates; weak enough to leave the colour its name."""
    depth = np.float32(generator.uniform(0.1, 0.3))
    style = generator.integers(6)
    if style == 0:
        return lambda x, y: np.ones_like(x)
    if style == 1:
        return lambda x, y: 1 + depth * x
    if style == 2:
        return lambda x, y: 1.1 - depth * (x * x + y * y)
    frequency = np.float32(generator.uniform(6, 20))
    if style == 3:
        return lambda x, y: 1 + depth * np.sign(np.sin(frequency * x))
    if style == 4:
        return lambda x, y: 1 + depth * np.sign(np.sin(frequency * x) * np.sin(frequency * y))
    cells = 96
    patch = 1 + depth * smooth_noise(cells, cells, generator, (12, 12))
    cell = np.float32(cells / (2 * _REACH))

    def blotches(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        columns, rows = (np.clip((axis + _REACH) * cell, 0, cells - 1).astype(np.int32) for axis in (x, y))
        return patch[rows, columns]

    return blotches
