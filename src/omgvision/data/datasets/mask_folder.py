"""A folder of images beside a folder of PNG label maps: the layout that everyone can make."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from ..sample import Sample
from .reading import image_size, read_label_map, read_rgb

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


class MaskFolder:
    """Images and masks paired by file stem.

    `kind="semantic"`: a mask's value is the class index, and a class present gives one segment. Classes in `things`
    have no instances in such files; with `split_things` their connected components (8 neighbours) stand in for them.
    `kind="instance"`: a mask's value is the object's number, 0 is background, and every object is of the one class.
    """

    def __init__(
        self,
        images: str | Path,
        *,
        masks: str | Path,
        classes: Sequence[str],
        kind: Literal["semantic", "instance"] = "semantic",
        things: Sequence[str] = (),
        void: int | None = None,
        split_things: bool = False,
        min_component_area: int = 30,
        stems: Sequence[str] | None = None,
        name: str = "mask-folder",
    ) -> None:
        """Pairs the files and checks that sizes agree (headers only, pixels are read on access).

        Args:
            images: folder of images.
            masks: folder of 8 or 16 bit PNG files of the same stems.
            classes: names; for kind "instance" exactly one.
            kind: see above.
            things: the countable classes; for kind "instance" always the one class.
            void: the semantic value that means nothing (such pixels belong to no segment).
            split_things: connected components of the countable classes as objects.
            min_component_area: components of fewer pixels are dropped.
            stems: take only these files (a train or val part), in this order; by default all, sorted.
            name: the dataset's short name.
        Raises:
            ValueError: a folder or partner is missing, sizes differ, unknown things.
        """
        self._images, self._masks = Path(images), Path(masks)
        for what, folder in (("images", self._images), ("masks", self._masks)):
            if not folder.is_dir():
                raise ValueError(f"{what}: no such folder: {folder}")
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f"classes: expected different names, at least one, got {list(classes)}")
        if kind == "instance" and len(classes) != 1:
            raise ValueError(f"classes: kind 'instance' takes exactly one name, got {len(classes)}")
        unknown = sorted(set(things) - set(classes))
        if unknown:
            raise ValueError(f"things: {', '.join(unknown)} not among the classes {', '.join(classes)}")
        if kind == "semantic" and void is not None and 0 <= void < len(classes):
            raise ValueError(f"void: {void} is the index of class {classes[void]!r}")
        self.name = name
        self.names = tuple(classes)
        self.things = tuple(kind == "instance" or class_name in things for class_name in classes)
        self._kind, self._void, self._split, self._min_area = kind, void, split_things, min_component_area
        image_of = {path.stem: path for path in sorted(self._images.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}
        mask_of = {path.stem: path for path in sorted(self._masks.glob("*.png"))}
        chosen = list(image_of) if stems is None else list(stems)
        if not chosen:
            raise ValueError(f"images: no image in {self._images}")
        for stem in chosen:
            if stem not in image_of:
                raise ValueError(f"images: no image of stem {stem!r} in {self._images}")
            if stem not in mask_of:
                raise ValueError(f"masks: {image_of[stem]} has no partner {self._masks / stem}.png")
        self._items = [(image_of[stem], mask_of[stem], image_size(image_of[stem])) for stem in chosen]
        for image, mask, size in self._items:
            if image_size(mask) != size:
                raise ValueError(f"masks: {mask} is {image_size(mask)} (height, width), its image {image} is {size}")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        image, mask, size = self._items[index]
        values = read_label_map(mask, size=size)
        if values.ndim != 2:
            raise ValueError(f"masks: {mask} has {values.shape[2]} channels, expected one (grey or palette)")
        segments, labels = self._instances(values) if self._kind == "instance" else self._classes(values, mask)
        return Sample(
            image=read_rgb(image, size=size),
            segment_layers=torch.from_numpy(segments[None]),
            labels=torch.tensor(labels, dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=image.stem,
            dataset=self.name,
        )

    def _instances(self, values: np.ndarray) -> tuple[np.ndarray, list[int]]:
        present, inverse = np.unique(values, return_inverse=True)
        numbers = np.cumsum(present != 0) * (present != 0)
        return numbers.astype(np.int16)[inverse].reshape(values.shape), [0] * int((present != 0).sum())

    def _classes(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        segments = np.zeros(values.shape, dtype=np.int16)
        labels: list[int] = []
        for value in np.unique(values).tolist():
            if value == self._void:
                continue
            if value >= len(self.names):
                raise ValueError(
                    f"masks: {path} has value {value}, expected 0..{len(self.names) - 1} or void {self._void}"
                )
            region = values == value
            if not (self._split and self.things[value]):
                labels.append(value)
                segments[region] = len(labels)
                continue
            components = np.empty(region.shape, dtype=np.int32)
            ndimage.label(region, structure=np.ones((3, 3)), output=components)
            for number in np.flatnonzero(np.bincount(components.ravel())[1:] >= self._min_area) + 1:
                labels.append(value)
                segments[components == number] = len(labels)
        return segments, labels
