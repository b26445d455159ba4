"""Rendered scenes with exact ground truth: coloured shapes before one or two surfaces, with occlusion, light and noise.

Every pixel belongs to a segment: an object ("red star", the part of it that is visible) or a surface ("brick wall").
A scene depends on (seed, index) only.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFilter

from .sample import Sample
from .synthetic_objects import OBJECTS, draw_object, paint
from .synthetic_surfaces import SURFACES, grain, render_surfaces

NAMES = OBJECTS + tuple(SURFACES)
THINGS = (True,) * len(OBJECTS) + (False,) * len(SURFACES)
MIN_VISIBLE_PIXELS = 20
MIN_VISIBLE_PART = 0.15
"""Of its pixels on the picture, how much of an object others must leave uncovered for it to count as seen."""


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
        self.names, self.things = NAMES, THINGS
        self._seed, self._size, self._length, self._objects = seed, size, length, objects

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        generator = np.random.default_rng((self._seed, index))
        pixels, segments, surfaces = render_surfaces(self._size, generator)
        labels = [self.names.index(surface) for surface in surfaces]
        full_areas: list[int] = []
        for _ in range(int(generator.integers(self._objects[0], self._objects[1] + 1))):
            kind = int(generator.integers(len(OBJECTS)))
            look, pose = draw_object(kind, self._size, generator)
            area = paint(look, pose, pixels=pixels, segments=segments, number=len(labels) + 1)
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
        keep = visible >= MIN_VISIBLE_PIXELS
        keep[surfaces:] &= visible[surfaces:] >= MIN_VISIBLE_PART * full_areas
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


def draw_light(size: tuple[int, int], generator: np.random.Generator) -> np.ndarray:
    """Brightness factor float32 [h, w, 1]: the light falls unevenly."""
    height, width = size
    across, down = generator.uniform(-0.3, 0.3, 2).astype(np.float32)
    light = np.float32(generator.uniform(0.8, 1.1)) + (
        np.linspace(-down, down, height, dtype=np.float32)[:, None]
        + np.linspace(-across, across, width, dtype=np.float32)
    )
    return light[..., None]


def add_sensor_noise(pixels: np.ndarray, strength: float, generator: np.random.Generator) -> None:
    """Adds up to ± `strength` grey levels to float32 [h, w, 3]."""
    height, width = pixels.shape[:2]
    pixels += np.float32(strength) * grain(height, width * 3, generator).reshape(height, width, 3)


def to_bytes(pixels: np.ndarray) -> np.ndarray:
    """Float → uint8 [h, w, 3]."""
    return np.clip(pixels, 0, 255).astype(np.uint8)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    """Uint8 [h, w, 3], as an unsharp lens sees it; `sigma` in pixels."""
    return np.array(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))


def _photograph(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Light across the scene, sensor noise and blur; float → uint8 [h, w, 3]."""
    pixels *= draw_light(pixels.shape[:2], generator)
    if generator.random() < 0.7:
        add_sensor_noise(pixels, generator.uniform(2, 18), generator)
    image = to_bytes(pixels)
    return blur(image, generator.uniform(0.3, 1.0)) if generator.random() < 0.7 else image
