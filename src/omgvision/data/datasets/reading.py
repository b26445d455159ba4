"""What every reader shares: checked json, images and label maps from files."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from ..sample import Sample

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
Size = tuple[int, int]
"""(height, width)."""

_LYING = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height
# What Pillow raises for files that are cut off, of another kind, or made to harm.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


class ImageReader(Protocol):
    """What all readers of images have in common.

    Attributes:
        name: the dataset's short name.
        names: its vocabulary; empty where masks have no class.
        things: for each name, whether it is countable.
        findings: what was left out at the start, and why.
        portrait: for each sample whether it is higher than wide, known without decoding it.
    """

    name: str
    names: tuple[str, ...]
    things: tuple[bool, ...]
    findings: Findings

    @property
    def portrait(self) -> Sequence[bool]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass
class Findings:
    """What a reader leaves out, by reason, so that it says once what that is.

    Attributes:
        dataset: short name.
        counts: faults of the data ("images that are missing") → how many.
        examples: reason → the first of them.
        notes: what is left out though nothing is wrong with it ("images without an object") → how many.
    """

    dataset: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def skip(self, reason: str, example: object) -> None:
        """Counts a fault."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, str(example))

    def note(self, reason: str, example: object) -> None:
        """Counts something that the data is allowed to have and that is left out all the same."""
        self.notes[reason] = self.notes.get(reason, 0) + 1
        self.examples.setdefault(reason, str(example))

    def lines(self, counts: Mapping[str, int]) -> list[str]:
        """One line a reason of `counts` or `notes`: "images that are missing: 3, the first /data/a.jpg"."""
        return [f"{reason}: {count}, the first {self.examples[reason]}" for reason, count in counts.items()]

    def close(self, *, samples: int, strict: bool) -> None:
        """Logs one line a reason: faults as warnings, the rest as information.

        Raises:
            ValueError: there is a fault and `strict`, or no sample remains.
        """
        faults, notes = self.lines(self.counts), self.lines(self.notes)
        if strict and faults:
            raise ValueError(f"{self.dataset}: {'; '.join(faults)}")
        if not samples:
            raise ValueError(f"{self.dataset}: no sample remains; {'; '.join(faults + notes) or 'there is none'}")
        for line in faults:
            logger.warning("%s: left out %s", self.dataset, line)
        for line in notes:
            logger.info("%s: left out %s", self.dataset, line)


class Listing:
    """Which files a folder holds; each sub-folder that is asked for is read once, which is quicker than looking file
    by file."""

    def __init__(self, folder: str | Path, *, what: str) -> None:
        """Raises ValueError if the folder is missing; `what` is the argument that gave it."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{what}: no such folder: {folder}")
        self._names: dict[str, frozenset[str]] = {}

    def __contains__(self, file_name: str) -> bool:
        """Whether the folder has this file; sub-folders are separated by slashes."""
        parent, _, name = file_name.rpartition("/")
        if parent not in self._names:
            path = self.folder / parent
            self._names[parent] = frozenset(os.listdir(path) if path.is_dir() else ())
        return name in self._names[parent]


class Records(Sequence[Any]):
    """Json values kept as one text: a fraction of the memory of Python objects, and not copied by worker processes
    (looking at a Python object writes to it)."""

    def __init__(self, values: Iterable[Any]) -> None:
        texts = [json.dumps(value, separators=(",", ":")).encode() for value in values]
        self._ends = np.cumsum([0, *map(len, texts)])
        self._text = b"".join(texts)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        number = range(len(self))[index]
        return json.loads(self._text[self._ends[number] : self._ends[number + 1]])


def read_annotations(path: str | Path, *, keys: Mapping[str, Collection[str]]) -> dict[str, Any]:
    """The json object in `path`.

    Args:
        path: the file.
        keys: for each list that the object must have, the keys that its entries must have.
    Raises:
        ValueError: no such file, not json, or a key is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"annotations: no such file: {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"annotations: {path} is not json ({error})") from error
    missing = sorted(set(keys) - set(content)) if isinstance(content, dict) else sorted(keys)
    if missing:
        raise ValueError(f"annotations: {path} lacks {', '.join(missing)}")
    for name, wanted in keys.items():
        if not isinstance(content[name], list):
            raise ValueError(f"annotations: {path}: {name} is no list")
        for number, entry in enumerate(content[name]):
            absent = [key for key in wanted if key not in entry] if isinstance(entry, dict) else wanted
            if absent:
                raise ValueError(f"annotations: {path}: entry {number} of {name} lacks {', '.join(absent)}")
    return content


def read_rgb(path: Path, *, size: Size | None = None) -> Tensor:
    """Decodes to uint8 [3, H, W] (a view of H, W, 3 memory), upright as its EXIF orientation says.

    Annotations may be of the picture as the file stores it: so it is read where it has `size` only like that.

    Raises:
        ValueError: not an image, or not of `size` (height, width).
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(_turned(image, size).convert("RGB"))
    except _UNREADABLE as error:
        raise ValueError(f"image: cannot read {path} ({error})") from error
    if size is not None and pixels.shape[:2] != size:
        raise ValueError(f"image: {path} is {pixels.shape[:2]} (height, width), the annotations say {size}")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_label_map(path: Path, *, size: Size) -> np.ndarray:
    """Integer [H, W] or, from an RGB file, uint8 [H, W, 3]; palette files give their indices.

    It is turned as a picture is, see `read_rgb`.

    Raises:
        ValueError: not an image, or not of `size` (height, width).
    """
    try:
        with Image.open(path) as image:
            labels = np.array(_turned(image, size))
    except _UNREADABLE as error:
        raise ValueError(f"label map: cannot read {path} ({error})") from error
    if labels.dtype == bool:  # files of one bit a pixel
        labels = labels.astype(np.uint8)
    if labels.shape[:2] != size:
        raise ValueError(f"label map: {path} is {labels.shape[:2]} (height, width), its image {size}")
    return labels


def image_sizes(path: Path) -> tuple[Size, Size]:
    """(height, width) upright, and as the file stores it; from its header.

    Raises:
        ValueError: not an image.
    """
    try:
        with Image.open(path) as image:
            return _sizes(image)
    except _UNREADABLE as error:
        raise ValueError(f"image: cannot read {path} ({error})") from error


def image_size(path: Path) -> Size:
    """(height, width) upright, see `image_sizes`."""
    return image_sizes(path)[0]


def common_size(image: Collection[Size], label_map: Collection[Size]) -> Size | None:
    """The first of a picture's `image_sizes` that is among its label map's; None where they are of different size."""
    return next((size for size in image if size in label_map), None)


def _sizes(image: Image.Image) -> tuple[Size, Size]:
    """See `image_sizes`."""
    orientation = None
    with contextlib.suppress(Exception):  # a damaged EXIF block must not cost the picture
        # PNG's own method decodes the whole picture in search of EXIF.
        orientation = Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    stored = image.height, image.width
    return ((image.width, image.height) if orientation in _LYING else stored), stored


def _turned(image: Image.Image, size: Size | None) -> Image.Image:
    """Upright, or as it is stored where it has `size` only like that."""
    upright, stored = _sizes(image)
    if size == upright or size != stored:
        with contextlib.suppress(Exception):
            ImageOps.exif_transpose(image, in_place=True)
    return image
