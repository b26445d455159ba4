"""Pascal VOC 2012's segmentation part: JPEGImages, SegmentationClass, SegmentationObject, ImageSets/Segmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..class_lists import load_class_list
from .mask_folder import LabelMaps, class_segments, value_counts
from .reading import Findings, Listing, read_label_map

_BACKGROUND = 0
_VOID = 255


class PascalVoc(LabelMaps):
    """Photographs with objects of 20 classes. Background and the void rims of objects belong to nothing.

    `kind="instance"`: the objects of SegmentationObject, each of the class that most of its pixels have in
    SegmentationClass. `kind="semantic"`: one segment a class.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        kind: Literal["instance", "semantic"] = "instance",
        strict: bool = False,
        name: str = "pascal-voc",
    ) -> None:
        """Reads the list of a split.

        Args:
            root: the folder VOC2012.
            split: a file of ImageSets/Segmentation without its suffix ("train", "val", "trainval").
            kind: see above.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: a folder or the list is missing, no sample remains, or there are faults and `strict`.
        """
        root = Path(root)
        listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
        if not listed.is_file():
            raise ValueError(f"split: no such file: {listed}")
        images, maps = (Listing(root / part, what=part) for part in ("JPEGImages", "SegmentationClass"))
        self._objects = Listing(root / "SegmentationObject", what="SegmentationObject") if kind == "instance" else None
        findings = Findings(name)
        pairs: dict[str, tuple[Path, Path]] = {}
        for stem in listed.read_text(encoding="utf-8").split():
            image, label_map = f"{stem}.jpg", f"{stem}.png"
            if image not in images:
                findings.skip("images that are missing", images.folder / image)
            elif label_map not in maps:
                findings.skip("class maps that are missing", maps.folder / label_map)
            elif self._objects is not None and label_map not in self._objects:
                findings.skip("object maps that are missing", self._objects.folder / label_map)
            else:
                pairs[stem] = (images.folder / image, maps.folder / label_map)
        classes = load_class_list("pascal_voc")
        self.category_ids = classes.category_ids
        self._label_of = {category: label for label, category in enumerate(classes.category_ids)}
        super().__init__(pairs, names=classes.names, things=classes.things, findings=findings, strict=strict, name=name)

    def _segments(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        segments, labels = class_segments(values, label_of=self._label_of, void=(_BACKGROUND, _VOID), path=path)
        if self._objects is None:
            return segments, labels
        path = self._objects.folder / path.name
        objects = read_label_map(path, size=(values.shape[0], values.shape[1]))
        if objects.ndim != 2:
            raise ValueError(f"masks: {path} has {objects.shape[2]} channels, expected one (grey or palette)")
        numbers = [value for value in value_counts(objects, path)[0] if value not in (_BACKGROUND, _VOID)]
        object_labels = []
        for number in numbers:
            votes = np.bincount(segments[objects == number], minlength=len(labels) + 1)[1:]
            if not votes.any():
                raise ValueError(f"masks: object {number} of {path} has no class in SegmentationClass")
            object_labels.append(labels[int(votes.argmax())])
        place = {number: number for number in numbers}
        return class_segments(objects, label_of=place, void=(_BACKGROUND, _VOID), path=path)[0], object_labels
