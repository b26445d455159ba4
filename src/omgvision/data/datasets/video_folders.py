"""Videos as two folders, one of frames and one of PNG label maps with the same stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .reading import Findings, common_size, image_sizes, read_label_map
from .video import Video

NO_VALUE = -1
"""In a table: label maps do not have this value."""


@dataclass(frozen=True)
class IndexedVideo(Video):
    """A video whose label maps have one channel (grey or palette).

    Attributes:
        maps: the label map of each frame, relative to `root`.
        root: folder of the label maps.
        table: int16 [256], the object (one-based) of each value; 0 for void, `NO_VALUE` where there is none.
    """

    root: Path
    maps: Sequence[str]
    table: np.ndarray

    def layers(self, frame: int) -> Tensor:
        path = self.root / self.maps[frame]
        values = read_label_map(path, size=self.size)
        if values.ndim != 2:
            raise ValueError(f"label map: {path} has {values.shape[2]} channels, expected one (grey or palette)")
        if values.dtype != np.uint8:
            raise ValueError(f"label map: {path} has values of {values.dtype}, expected 8 bits (grey or palette)")
        numbers = self.table[values]
        if numbers.min() == NO_VALUE:
            wrong = int(values[numbers == NO_VALUE].min())
            raise ValueError(
                f"label map: {path} has value {wrong}, which stands for no class; expected another data set"
            )
        return torch.from_numpy(numbers[None])


def find_video(
    name: str,
    *,
    images: Path,
    frames: str,
    root: Path,
    maps: str,
    table: np.ndarray,
    labels: Sequence[int],
    findings: Findings,
) -> IndexedVideo | None:
    """The frames that have a label map, by stem; None, and a finding, where the video cannot be used.

    Args:
        name: of the video.
        images, frames: where the frames are: `images / frames / *.jpg`.
        root, maps: where the label maps are: `root / maps / *.png`.
        table, labels: see `IndexedVideo`.
        findings: gets what does not fit.
    """
    stems = {path.stem for path in (images / frames).glob("*.jpg")}
    map_stems = {path.stem for path in (root / maps).glob("*.png")}
    if not stems:
        findings.skip("videos without frames", f"{name}: no *.jpg in {images / frames}")
        return None
    for stem in sorted(stems - map_stems):
        findings.skip("frames without an annotation", images / frames / f"{stem}.jpg")
    for stem in sorted(map_stems - stems):
        findings.skip("frames that are missing", images / frames / f"{stem}.jpg")
    kept = sorted(stems & map_stems)
    if not kept:
        findings.skip("videos without an annotation", f"{name}: no *.png of the frames' names in {root / maps}")
        return None
    files, map_files = [f"{frames}/{stem}.jpg" for stem in kept], [f"{maps}/{stem}.png" for stem in kept]
    try:
        sizes, map_sizes = image_sizes(images / files[0]), image_sizes(root / map_files[0])
    except ValueError as error:
        findings.skip("videos whose first frame cannot be read", error)
        return None
    size = common_size(sizes, map_sizes)
    if size is None:
        told = f"{root / map_files[0]} is {map_sizes[0]} (height, width), its frame {sizes[0]}"
        findings.skip("videos whose label maps are of another size", told)
        return None
    return IndexedVideo(name, images, files, size, labels, root, map_files, table)


def read_video_names(path: Path) -> list[str]:
    """The lines of a split file.

    Raises:
        ValueError: no such file, or nothing in it.
    """
    if not path.is_file():
        raise ValueError(f"split: no such file: {path}")
    names = path.read_text(encoding="utf-8").split()
    if not names:
        raise ValueError(f"split: {path} names no video")
    return names
