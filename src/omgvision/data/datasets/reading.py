"""What every reader shares: checked json, images and label maps from files."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

logger = logging.getLogger(__name__)


@dataclass
class Findings:
    """What a reader found wrong at its start, by reason, so that it says once what it leaves out.

    Attributes:
        dataset: short name.
        counts: reason ("images that are missing") → how many.
        examples: reason → the first of them.
    """

    dataset: str
    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, example: object) -> None:
        """Counts something that is left out."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        self.examples.setdefault(reason, str(example))

    def close(self, *, samples: int, strict: bool) -> None:
        """Logs one line a reason.

        Raises:
            ValueError: something was left out and `strict`, or no sample remains.
        """
        lines = [f"{count} {reason}, the first: {self.examples[reason]}" for reason, count in self.counts.items()]
        if strict and lines:
            raise ValueError(f"{self.dataset}: {lines[0]}")
        if not samples:
            raise ValueError(f"{self.dataset}: no sample to train on" + "".join(f"; {line}" for line in lines))
        for line in lines:
            logger.warning("%s: left out %s", self.dataset, line)


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"annotations: {path} is not json ({error})") from error
    missing = sorted(set(keys) - set(content)) if isinstance(content, dict) else sorted(keys)
    if missing:
        raise ValueError(f"annotations: {path} lacks {', '.join(missing)}")
    for name, wanted in keys.items():
        for number, entry in enumerate(content[name]):
            absent = [key for key in wanted if key not in entry]
            if absent:
                raise ValueError(f"annotations: {path}: entry {number} of {name} lacks {', '.join(absent)}")
    return content


def check_files_exist(folder: Path, file_names: Collection[str], *, what: str) -> None:
    """Raises ValueError naming the first of `file_names` that is not in `folder`."""
    if not folder.is_dir():
        raise ValueError(f"{what}: no such folder: {folder}")
    missing = [name for name in file_names if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"{what}: {len(missing)} of {len(file_names)} files are missing, the first: {folder / missing[0]}"
        )


def read_rgb(path: Path, *, size: tuple[int, int] | None = None) -> Tensor:
    """Decodes to uint8 [3, H, W] (a view of H, W, 3 memory).

    Raises:
        ValueError: not an image, or not of `size` (height, width).
    """
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"image: cannot read {path} ({error})") from error
    if size is not None and pixels.shape[:2] != size:
        raise ValueError(f"image: {path} is {pixels.shape[:2]} (height, width), the annotations say {size}")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_label_map(path: Path, *, size: tuple[int, int]) -> np.ndarray:
    """Integer [H, W] or, from an RGB file, uint8 [H, W, 3]; palette files give their indices.

    Raises:
        ValueError: not an image, or not of `size` (height, width).
    """
    try:
        with Image.open(path) as image:
            labels = np.array(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"label map: cannot read {path} ({error})") from error
    if labels.shape[:2] != size:
        raise ValueError(f"label map: {path} is {labels.shape[:2]} (height, width), its image {size}")
    return labels


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the file's header.

    Raises:
        ValueError: not an image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"image: cannot read {path} ({error})") from error
