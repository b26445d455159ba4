"""Surfaces of rendered scenes: sky, walls and grounds, each a texture drawn at random."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image

_Texture = Callable[[int, int, np.random.Generator], np.ndarray]


def smooth_noise(height: int, width: int, generator: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise in about -1 … 1 whose bumps have the size of one of `cells` (rows, columns) over the image."""
    grid = generator.uniform(-1, 1, size=cells).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def grain(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
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
    clouds = smooth_noise(height, width, generator, (5, 4)) + 0.5 * smooth_noise(height, width, generator, (14, 10))
    cover = np.clip(depth * 0.6 + np.clip(clouds - generator.uniform(-0.2, 0.9), 0, 1), 0, 1)[..., None]
    return blue * (1 - cover) + np.float32(generator.uniform(215, 250)) * cover


def _grass(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    blades = smooth_noise(height, width, generator, (40, 128)) * 0.25 + 0.2 * grain(height, width, generator)
    return _tint(1 + blades + 0.2 * smooth_noise(height, width, generator, (6, 6)), (80, 140, 50), generator)


def _sand(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    rows, columns = _axes(height, width)
    ripples = np.sin(
        rows * generator.uniform(0.2, 0.5) + columns * 0.05 + 3 * smooth_noise(height, width, generator, (5, 5))
    )
    return _tint(1 + 0.05 * ripples + 0.07 * grain(height, width, generator), (215, 185, 135), generator)


def _water(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    rows, columns = _axes(height, width)
    bend = 4 * smooth_noise(height, width, generator, (8, 5))
    waves = np.sin(rows * generator.uniform(0.25, 0.7) + columns * 0.03 + bend)
    glints = np.clip(smooth_noise(height, width, generator, (80, 20)), 0.3, 1) - 0.3
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
    value = shades + 0.1 * grain(height, width, generator)
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
    grain = 0.16 * smooth_noise(height, width, generator, (90, 6))
    return _tint((shades + grain) * np.where(joints, 0.55, 1).astype(np.float32), (170, 115, 65), generator)


def _snow(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    drifts = 0.06 * smooth_noise(height, width, generator, (6, 4)) + 0.03 * grain(height, width, generator)
    return _tint(1 + drifts, (215, 222, 232), generator)


def _road(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    value = 1 + 0.18 * grain(height, width, generator) + 0.15 * smooth_noise(height, width, generator, (6, 6))
    return _tint(value, (95, 95, 98), generator)


def _gravel(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    cells = int(generator.integers(30, 70))
    stones = smooth_noise(height, width, generator, (cells, cells))
    return _tint(0.95 + 0.4 * stones + 0.1 * grain(height, width, generator), (150, 142, 132), generator)


def _dirt(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    clumps = 0.25 * smooth_noise(height, width, generator, (9, 9)) + 0.15 * smooth_noise(
        height, width, generator, (40, 40)
    )
    return _tint(1 + clumps + 0.12 * grain(height, width, generator), (115, 85, 58), generator)


def _wall(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    colour = tuple(generator.uniform(90, 240, 3))
    value = 1 + 0.08 * smooth_noise(height, width, generator, (4, 4)) + 0.03 * grain(height, width, generator)
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
SURFACES = {**UPRIGHT, **GROUND}


def render_surfaces(size: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Float32 [h, w, 3], int16 [h, w] with 1 (and 2 below the horizon), and the surfaces' names."""
    height, width = size
    if generator.random() < 0.4:
        surface = list(SURFACES)[generator.integers(len(SURFACES))]
        pixels = SURFACES[surface](height, width, generator).astype(np.float32)
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
