"""ADE20K as the folder ADEChallengeData2016: semantic PNG of 150 classes, and the panoptic and instance files made of
the full set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..class_lists import load_class_list
from .coco import CocoInstances, CocoPanoptic
from .mask_folder import LabelMaps, class_segments
from .reading import IMAGE_SUFFIXES, Findings

Split = Literal["train", "val"]
_FOLDERS = {"train": "training", "val": "validation"}


def _images(root: str | Path, split: Split) -> Path:
    if split not in _FOLDERS:
        raise ValueError(f"split: expected 'train' or 'val', got {split!r}")
    return Path(root) / "images" / _FOLDERS[split]


class Ade20kPanoptic(CocoPanoptic):
    """`ade20k_panoptic_{train,val}.json`, the PNG folder of the same stem, and `images/{training,validation}`."""

    def __init__(
        self, root: str | Path, *, split: Split = "train", strict: bool = False, name: str = "ade20k-panoptic"
    ) -> None:
        """As `CocoPanoptic`; `root` is the folder ADEChallengeData2016."""
        images = _images(root, split)
        annotations = Path(root) / f"ade20k_panoptic_{split}.json"
        super().__init__(annotations, images=images, words="ade20k", strict=strict, name=name)


class Ade20kInstances(CocoInstances):
    """`ade20k_instance_{train,val}.json` (100 classes) and `images/{training,validation}`."""

    def __init__(
        self, root: str | Path, *, split: Split = "train", strict: bool = False, name: str = "ade20k-instances"
    ) -> None:
        """As `CocoInstances`; `root` is the folder ADEChallengeData2016."""
        images = _images(root, split)
        annotations = Path(root) / f"ade20k_instance_{split}.json"
        super().__init__(annotations, images=images, words="ade20k", strict=strict, name=name)


class Ade20kSemantic(LabelMaps):
    """`annotations/{training,validation}/*.png`: 0 is void, n the n-th of the 150 classes; one segment a class."""

    def __init__(
        self, root: str | Path, *, split: Split = "train", strict: bool = False, name: str = "ade20k-semantic"
    ) -> None:
        """Pairs images and maps.

        Args:
            root: the folder ADEChallengeData2016.
            split: which part.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: a folder is missing, no sample remains, or there are faults and `strict`.
        """
        images = _images(root, split)
        maps = Path(root) / "annotations" / _FOLDERS[split]
        for what, folder in (("images", images), ("annotations", maps)):
            if not folder.is_dir():
                raise ValueError(f"{what}: no such folder: {folder}")
        classes = load_class_list("ade20k")
        self.category_ids = classes.category_ids
        self._label_of = {category + 1: label for label, category in enumerate(classes.category_ids)}
        findings = Findings(name)
        map_of = {path.stem: path for path in maps.glob("*.png")}
        pairs: dict[str, tuple[Path, Path]] = {}
        for image in sorted(images.iterdir()):
            if image.suffix.lower() not in IMAGE_SUFFIXES:
                continue
            if image.stem in map_of:
                pairs[image.stem] = (image, map_of[image.stem])
            else:
                findings.skip("images without an annotation", image)
        super().__init__(pairs, names=classes.names, things=classes.things, findings=findings, strict=strict, name=name)

    def _segments(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        return class_segments(values, label_of=self._label_of, void=(0,), path=path)
