"""COCO-Stuff: `stuffthingmaps` PNG beside COCO's photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..class_lists import load_class_list
from .mask_folder import LabelMaps, class_segments
from .reading import IMAGE_SUFFIXES, Findings

VALUES = 182
"""Of the classes: value n is the n-th name of `labels.txt` after "unlabeled"; 255 is void."""


class CocoStuff(LabelMaps):
    """One segment a class, of those whose names have no dash ("wall-brick" and its like are void), as OMG-LLaVA."""

    def __init__(self, images: str | Path, *, maps: str | Path, strict: bool = False, name: str = "coco_stuff") -> None:
        """Pairs images and maps.

        Args:
            images: COCO's train2017 or val2017.
            maps: the folder of the same name in `stuffthingmaps_trainval2017`.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: a folder is missing, no sample remains, or there are faults and `strict`.
        """
        images, maps = Path(images), Path(maps)
        for what, folder in (("images", images), ("maps", maps)):
            if not folder.is_dir():
                raise ValueError(f"{what}: no such folder: {folder}")
        classes = load_class_list("coco_stuff")
        self._label_of = {value: label for label, value in enumerate(classes.category_ids)}
        self._void = {*range(VALUES), 255} - set(self._label_of)
        findings = Findings(name)
        image_of = {path.stem: path for path in images.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
        pairs: dict[str, tuple[Path, Path]] = {}
        for label_map in sorted(maps.glob("*.png")):
            if label_map.stem in image_of:
                pairs[label_map.stem] = (image_of[label_map.stem], label_map)
            else:
                findings.skip("annotations without an image", label_map)
        super().__init__(pairs, names=classes.names, things=classes.things, findings=findings, strict=strict, name=name)

    def _segments(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        return class_segments(values, label_of=self._label_of, void=self._void, path=path)
