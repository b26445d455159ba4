"""Rendered scenes with exact ground truth: coloured shapes before one or two surfaces, with occlusion, light and noise.

Every pixel belongs to a segment: an object ("red star", the part of it that is visible) or a surface ("brick wall").
A scene depends on (seed, index) only.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageFilter

from .sample import Sample

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
_Texture = Callable[[int, int, np.random.Generator], np.ndarray]


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


def _noise(height: int, width: int, generator: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in about -1 … 1 whose bumps have the size of one of `cells` (rows, columns) over the image."""
    grid = generator.uniform(-1, 1, size=cells).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def _grain(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Independent noise in -1 … 1, a byte a pixel: six times cheaper than normal numbers."""
    raw = np.frombuffer(generator.bytes(height * width), dtype=np.uint8).reshape(height, width)
    return raw.astype(np.float32) * (2 / 255) - 1


def _tint(value: np.ndarray, colour: tuple[float, float, float], generator: np.random.Generator) -> np.ndarray:
    """Brightness factor [h, w] around 1 → [h, w, 3] of about that colour."""
    shade = np.asarray(colour, dtype=np.float32) * generator.uniform(0.8, 1.2) + generator.uniform(-12, 12, 3)
    return value[..., None] * shade.astype(np.float32)


def _axes(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows [h, 1] and columns [1, w] in units of 1/256 of the longer side."""
    unit = 256 / max(height, width)
    return (
        np.arange(height, dtype=np.float32)[:, None] * unit,
        np.arange(width, dtype=np.float32)[None, :] * unit,
    )


def _sky(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    blue = np.array([90, 150, 225], dtype=np.float32) + generator.uniform(-25, 25, 3).astype(np.float32)
    depth = np.linspace(0, generator.uniform(0.3, 0.9), height, dtype=np.float32)[:, None]
    clouds = _noise(height, width, generator, (5, 4)) + 0.5 * _noise(height, width, generator, (14, 10))
    cover = np.clip(depth * 0.6 + np.clip(clouds - generator.uniform(-0.2, 0.9), 0, 1), 0, 1)[..., None]
    return blue * (1 - cover) + np.float32(generator.uniform(215, 250)) * cover


def _grass(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    blades = _noise(height, width, generator, (40, 128)) * 0.25 + 0.2 * _grain(height, width, generator)
    return _tint(1 + blades + 0.2 * _noise(height, width, generator, (6, 6)), (80, 140, 50), generator)


def _sand(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    rows, columns = _axes(height, width)
    ripples = np.sin(rows * generator.uniform(0.2, 0.5) + columns * 0.05 + 3 * _noise(height, width, generator, (5, 5)))
    return _tint(1 + 0.05 * ripples + 0.07 * _grain(height, width, generator), (215, 185, 135), generator)


def _water(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    rows, columns = _axes(height, width)
    bend = 4 * _noise(height, width, generator, (8, 5))
    waves = np.sin(rows * generator.uniform(0.25, 0.7) + columns * 0.03 + bend)
    glints = np.clip(_noise(height, width, generator, (80, 20)), 0.3, 1) - 0.3
    return _tint(1 + 0.12 * waves + 0.7 * glints, (50, 115, 150), generator)


def _masonry(
    height: int, width: int, generator: np.random.Generator, brick: tuple[float, float], shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mask of the joints and a brightness factor that differs from stone to stone."""
    rows, columns = _axes(height, width)
    tall, wide = brick
    course = np.floor(rows / tall)
    along = columns / wide + shift * np.mod(course, 2)
    joint = max(1.0, tall * 0.09)
    joints = (np.mod(rows, tall) < joint) | (np.mod(along, 1) * wide < joint)
    table = generator.uniform(0.85, 1.1, size=(64, 64)).astype(np.float32)
    return joints, table[course.astype(np.int32) % 64, np.floor(along).astype(np.int32) % 64]


def _brick_wall(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    tall = generator.uniform(9, 24)
    joints, shades = _masonry(height, width, generator, (tall, tall * generator.uniform(1.9, 2.8)), 0.5)
    value = shades + 0.1 * _grain(height, width, generator)
    return np.where(joints[..., None], _tint(value, (190, 182, 170), generator), _tint(value, (165, 80, 60), generator))


def _tile_wall(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    side = generator.uniform(16, 44)
    joints, shades = _masonry(height, width, generator, (side, side), 0.0)
    colour = [(225, 228, 230), (150, 190, 210), (200, 215, 195), (225, 210, 180)][generator.integers(4)]
    return np.where(
        joints[..., None], _tint(shades, (150, 150, 150), generator), _tint(0.4 * shades + 0.6, colour, generator)
    )


def _wood_floor(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    joints, shades = _masonry(height, width, generator, (generator.uniform(14, 34), generator.uniform(90, 200)), 0.37)
    grain = 0.16 * _noise(height, width, generator, (90, 6))
    return _tint((shades + grain) * np.where(joints, 0.55, 1).astype(np.float32), (170, 115, 65), generator)


def _snow(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    drifts = 0.06 * _noise(height, width, generator, (6, 4)) + 0.03 * _grain(height, width, generator)
    return _tint(1 + drifts, (215, 222, 232), generator)


def _road(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    value = 1 + 0.18 * _grain(height, width, generator) + 0.15 * _noise(height, width, generator, (6, 6))
    return _tint(value, (95, 95, 98), generator)


def _gravel(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    cells = int(generator.integers(30, 70))
    stones = _noise(height, width, generator, (cells, cells))
    return _tint(0.95 + 0.4 * stones + 0.1 * _grain(height, width, generator), (150, 142, 132), generator)


def _dirt(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    clumps = 0.25 * _noise(height, width, generator, (9, 9)) + 0.15 * _noise(height, width, generator, (40, 40))
    return _tint(1 + clumps + 0.12 * _grain(height, width, generator), (115, 85, 58), generator)


def _wall(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    colour = tuple(generator.uniform(90, 240, 3))
    value = 1 + 0.08 * _noise(height, width, generator, (4, 4)) + 0.03 * _grain(height, width, generator)
    return _tint(value, (colour[0], colour[1], colour[2]), generator)


def _two_colours(pattern: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    first = generator.uniform(20, 235, 3).astype(np.float32)
    away = generator.uniform(50, 120) * np.where(first > 128, -1, 1)
    return np.where(pattern[..., None], first, first + away.astype(np.float32) * generator.uniform(0.6, 1.0, 3))


def _turned_axes(height: int, width: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = _axes(height, width)
    angle = generator.uniform(0, np.pi)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return rows * cosine - columns * sine, rows * sine + columns * cosine


def _stripes(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    across, _ = _turned_axes(height, width, generator)
    period = generator.uniform(10, 45)
    return _two_colours(np.mod(across, period) < period * generator.uniform(0.35, 0.65), generator)


def _checks(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    across, along = _turned_axes(height, width, generator)
    side = generator.uniform(9, 32)
    return _two_colours((np.floor(across / side) + np.floor(along / side)) % 2 == 0, generator)


def _dots(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    across, along = _turned_axes(height, width, generator)
    side = generator.uniform(12, 36)
    to_centre = (np.mod(across, side) - side / 2) ** 2 + (np.mod(along, side) - side / 2) ** 2
    return _two_colours(to_centre < (side * generator.uniform(0.22, 0.38)) ** 2, generator)


UPRIGHT: dict[str, _Texture] = {
    "sky": _sky,
    "brick wall": _brick_wall,
    "tile wall": _tile_wall,
    "wall": _wall,
    "striped wall": _stripes,
    "checkered wall": _checks,
    "dotted wall": _dots,
}
GROUND: dict[str, _Texture] = {
    "grass": _grass,
    "sand": _sand,
    "water": _water,
    "wood floor": _wood_floor,
    "snow": _snow,
    "road": _road,
    "gravel": _gravel,
    "dirt": _dirt,
}

_THINGS = tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS)
_SURFACES = {**UPRIGHT, **GROUND}
_MIN_VISIBLE_PIXELS = 20
_MIN_VISIBLE_PART = 0.15


class SyntheticScenes:
    """A dataset of rendered scenes.

    Attributes:
        names: 120 objects (colour and shape), then 15 surfaces.
        things: true for the objects.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        size: tuple[int, int] = (256, 256),
        length: int = 10_000,
        objects: tuple[int, int] = (2, 8),
        name: str = "synthetic",
    ) -> None:
        """Args:
            seed: scenes of different seeds have nothing in common.
            size: (height, width) in pixels.
            length: number of scenes.
            objects: fewest and most objects that are drawn; those nearly covered later are left out of the truth.
            name: the dataset's short name.
        Raises:
            ValueError: a size under 32, a negative length, an empty range.
        """
        if min(size) < 32:
            raise ValueError(f"size: expected at least 32 pixels a side, got {size}")
        if length < 0:
            raise ValueError(f"length: expected 0 or more, got {length}")
        if not 0 <= objects[0] <= objects[1]:
            raise ValueError(f"objects: expected 0 <= fewest <= most, got {objects}")
        self.name = name
        self.names = _THINGS + tuple(_SURFACES)
        self.things = (True,) * len(_THINGS) + (False,) * len(_SURFACES)
        self._seed, self._size, self._length, self._objects = seed, size, length, objects

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        generator = np.random.default_rng((self._seed, index))
        pixels, segments, surfaces = _render_surfaces(self._size, generator)
        labels = [self.names.index(surface) for surface in surfaces]
        full_areas: list[int] = []
        for _ in range(int(generator.integers(self._objects[0], self._objects[1] + 1))):
            kind = int(generator.integers(len(_THINGS)))
            colour, shape = _THINGS[kind].split(" ")
            area = _render_object(pixels, segments, len(labels) + 1, colour, shape, generator)
            if area:
                labels.append(kind)
                full_areas.append(area)
        image = _photograph(pixels, generator)
        return self._sample(index, image, segments, np.array(labels), len(surfaces), np.array(full_areas))

    def _sample(
        self,
        index: int,
        image: np.ndarray,
        segments: np.ndarray,
        labels: np.ndarray,
        surfaces: int,
        full_areas: np.ndarray,
    ) -> Sample:
        """Drops what is hardly visible and puts the objects first."""
        visible = np.bincount(segments.ravel(), minlength=len(labels) + 1)[1:]
        keep = visible >= _MIN_VISIBLE_PIXELS
        keep[surfaces:] &= visible[surfaces:] >= _MIN_VISIBLE_PART * full_areas
        order = [number for number in (*range(surfaces, len(labels)), *range(surfaces)) if keep[number]]
        renumber = np.zeros(len(labels) + 1, dtype=np.int16)
        renumber[np.array(order, dtype=np.int64) + 1] = np.arange(1, len(order) + 1)
        return Sample(
            image=torch.from_numpy(image).permute(2, 0, 1),
            segment_layers=torch.from_numpy(renumber[segments][None]),
            labels=torch.from_numpy(labels[order].astype(np.int64)),
            names=self.names,
            things=self.things,
            sample_id=f"{self._seed}-{index}",
            dataset=self.name,
        )


def _render_surfaces(size: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Float32 [h, w, 3], int16 [h, w] with 1 (and 2 below the horizon), and the surfaces' names."""
    height, width = size
    if generator.random() < 0.4:
        surface = list(_SURFACES)[generator.integers(len(_SURFACES))]
        pixels = _SURFACES[surface](height, width, generator).astype(np.float32)
        return pixels, np.ones(size, dtype=np.int16), [surface]
    upright = list(UPRIGHT)[generator.integers(len(UPRIGHT))]
    ground = list(GROUND)[generator.integers(len(GROUND))]
    columns = np.linspace(0, 1, width)
    horizon = generator.uniform(0.3, 0.75) + generator.uniform(-0.12, 0.12) * (columns - 0.5)
    for frequency in (1.5, 4.0):
        swing = generator.uniform(0, 0.06) if upright == "sky" else 0.0
        horizon = horizon + swing / frequency * np.sin(2 * np.pi * (frequency * columns + generator.random()))
    below = np.arange(height)[:, None] >= (horizon * height)[None, :]
    top = min(height - 1, max(0, int(horizon.min() * height)))
    bottom = min(height, max(1, int(np.ceil(horizon.max() * height))))
    pixels = np.empty((height, width, 3), dtype=np.float32)
    pixels[:bottom] = UPRIGHT[upright](bottom, width, generator)
    lower = GROUND[ground](height - top, width, generator)
    np.copyto(pixels[top:], lower, where=below[top:, :, None], casting="same_kind")
    return pixels, np.where(below, 2, 1).astype(np.int16), [upright, ground]


def _render_object(
    pixels: np.ndarray, segments: np.ndarray, number: int, colour: str, shape: str, generator: np.random.Generator
) -> int:
    """Paints one object over what is there and returns how many pixels it covers."""
    height, width = segments.shape
    radius = min(height, width) * np.exp(generator.uniform(np.log(0.07), np.log(0.3)))
    centre_y, centre_x = generator.uniform(0.05, 0.95) * height, generator.uniform(0.05, 0.95) * width
    angle, squeeze = generator.uniform(0, 2 * np.pi), generator.uniform(0.93, 1.07)
    shadow = int(radius * generator.uniform(0.05, 0.2)) + 1 if generator.random() < 0.5 else 0
    reach = int(radius * 1.3) + 1
    top, bottom = max(0, int(centre_y) - reach), min(height, int(centre_y) + reach + shadow)
    left, right = max(0, int(centre_x) - reach), min(width, int(centre_x) + reach + shadow)
    rows = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(centre_y)) / np.float32(radius)
    columns = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(centre_x)) / np.float32(radius)
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    x = (columns * cosine + rows * sine) * np.float32(squeeze)
    y = (rows * cosine - columns * sine) / np.float32(squeeze)
    mask = SHAPES[shape](x, y)
    window = pixels[top:bottom, left:right]
    if shadow:
        dark = np.zeros_like(mask)
        dark[shadow:, shadow:] = mask[:-shadow, :-shadow]
        window[dark] *= np.float32(generator.uniform(0.45, 0.8))
    base = np.array(COLOURS[colour], dtype=np.float32) * generator.uniform(0.85, 1.12) + generator.uniform(-10, 10, 3)
    value = _object_shading(x, y, generator)[mask]
    window[mask] = value[:, None] * base.astype(np.float32)
    segments[top:bottom, left:right][mask] = number
    return int(mask.sum())


def _object_shading(x: np.ndarray, y: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Brightness factor over an object's own coordinates; weak enough to leave the colour its name."""
    depth = np.float32(generator.uniform(0.1, 0.3))
    style = generator.integers(6)
    if style == 0:
        return np.ones_like(x)
    if style == 1:
        return 1 + depth * x
    if style == 2:
        return 1.1 - depth * (x * x + y * y)
    frequency = np.float32(generator.uniform(6, 20))
    if style == 3:
        return 1 + depth * np.sign(np.sin(frequency * x))
    if style == 4:
        return 1 + depth * np.sign(np.sin(frequency * x) * np.sin(frequency * y))
    return 1 + depth * _noise(x.shape[0], x.shape[1], generator, (12, 12))


def _photograph(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Light across the scene, blur and sensor noise; float → uint8 [h, w, 3]."""
    height, width = pixels.shape[:2]
    across, down = generator.uniform(-0.3, 0.3, 2).astype(np.float32)
    light = np.float32(generator.uniform(0.8, 1.1)) + (
        np.linspace(-down, down, height, dtype=np.float32)[:, None]
        + np.linspace(-across, across, width, dtype=np.float32)
    )
    pixels *= light[..., None]
    if generator.random() < 0.7:
        pixels += np.float32(generator.uniform(2, 18)) * _grain(height, width * 3, generator).reshape(height, width, 3)
    image = np.clip(pixels, 0, 255).astype(np.uint8)
    if generator.random() < 0.7:
        blur = ImageFilter.GaussianBlur(generator.uniform(0.3, 1.0))
        image = np.array(Image.fromarray(image).filter(blur))
    return image
