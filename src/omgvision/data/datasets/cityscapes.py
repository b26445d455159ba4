"""Cityscapes: `leftImg8bit/<split>/<city>` with the maps of `gtFine/<split>/<city>`, or the panoptic json and PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..class_lists import load_class_list
from .coco import CocoPanoptic
from .mask_folder import LabelMaps, class_segments, value_counts
from .reading import Findings

Kind = Literal["panoptic", "instance", "semantic"]
_IMAGE = "_leftImg8bit.png"
_LAST_ID = 33
"""Of the official label ids; those that are none of the 19 classes are void."""
_VOID = 255
_OBJECTS_A_CLASS = 1000
"""In instanceIds: 24003 is person number 3; 24 is a group of persons, 7 is road."""


class Cityscapes(LabelMaps):
    """Street scenes with 19 classes, from the label maps that come with the dataset.

    `kind="panoptic"`: from `instanceIds`, one segment a stuff class and one an object, things first. Groups of things
    belong to nothing. The same segments as those of the official panoptic files, which are made of these maps.
    `kind="instance"`: the objects alone.
    `kind="semantic"`: one segment a class, from `labelIds`, or from `labelTrainIds` where the former are missing.

    Attributes:
        name, names, things, findings, portrait: see `ImageReader`.
        category_ids: the official label id of each name.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        kind: Kind = "panoptic",
        strict: bool = False,
        name: str = "cityscapes",
    ) -> None:
        """Pairs images and maps.

        Args:
            root: the folder with leftImg8bit and gtFine.
            split: "train" or "val".
            kind: see above.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: a folder is missing, no sample remains, or there are faults and `strict`.
        """
        images, maps = _folder(root, "leftImg8bit", split), _folder(root, "gtFine", split)
        suffixes = ("_gtFine_instanceIds.png",)
        if kind == "semantic":
            suffixes = ("_gtFine_labelIds.png", "_gtFine_labelTrainIds.png")
        classes = load_class_list("cityscapes")
        labels = range(len(classes.names))
        self._kind = kind
        self._label_of = dict(zip(classes.category_ids, labels, strict=True))
        self._void = {*range(_LAST_ID + 1), _VOID} - set(self._label_of)
        self._train_ids = {label: label for label in labels}
        kept = [label for label in labels if kind != "instance" or classes.things[label]]
        self.category_ids = tuple(classes.category_ids[label] for label in kept)
        self._place = {label: place for place, label in enumerate(kept)}
        findings = Findings(name)
        present = {str(path.relative_to(maps)): path for path in maps.glob("*/*_gtFine_*.png")}
        pairs: dict[str, tuple[Path, Path]] = {}
        for image in sorted(images.glob(f"*/*{_IMAGE}")):
            stem = image.name.removesuffix(_IMAGE)
            found = [present[key] for suffix in suffixes if (key := f"{image.parent.name}/{stem}{suffix}") in present]
            if found:
                pairs[stem] = (image, found[0])
            else:
                findings.skip(f"images without a map {suffixes[0].removeprefix('_')}", image)
        super().__init__(
            pairs,
            names=[classes.names[label] for label in kept],
            things=[classes.things[label] for label in kept],
            findings=findings,
            strict=strict,
            name=name,
        )

    def _segments(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        if self._kind == "semantic":
            if path.name.endswith("labelTrainIds.png"):
                return class_segments(values, label_of=self._train_ids, void=(_VOID,), path=path)
            return class_segments(values, label_of=self._label_of, void=self._void, path=path)
        # Things first, by number; a thing's class alone is a group.
        things, stuff, void = {}, {}, set()
        for value in value_counts(values, path)[0]:
            category = value // _OBJECTS_A_CLASS if value >= _OBJECTS_A_CLASS else value
            label = self._label_of.get(category)
            place = None if label is None else self._place.get(label)
            if category not in self._label_of and category not in self._void:
                raise ValueError(f"masks: {path} has value {value}, which is no label id and no object of one")
            if place is None or self.things[place] != (value >= _OBJECTS_A_CLASS):
                void.add(value)
            elif self.things[place]:
                things[value] = place
            else:
                stuff[value] = place
        segments, _ = class_segments(values, label_of=things | stuff, void=void, path=path)
        # class_segments numbers by ascending value, which has stuff (under 1000) first.
        shift = np.array([0, *range(len(things) + 1, len(things) + len(stuff) + 1), *range(1, len(things) + 1)])
        return shift.astype(np.int16)[segments], [*things.values(), *stuff.values()]


class CityscapesPanoptic(CocoPanoptic):
    """The official `gtFine/cityscapes_panoptic_<split>.json` with its PNG folder."""

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        train_ids: bool = False,
        strict: bool = False,
        name: str = "cityscapes",
    ) -> None:
        """As `CocoPanoptic`.

        Args:
            root: the folder with leftImg8bit and gtFine.
            split: "train" or "val".
            train_ids: take the files `cityscapes_panoptic_<split>_trainId`, whose categories are numbered from 0.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        """
        super().__init__(
            _panoptic_json(root, split, train_ids=train_ids),
            images=_folder(root, "leftImg8bit", split),
            words="cityscapes",
            file_name=_city_and_name,
            strict=strict,
            name=name,
        )


def cityscapes_panoptic(
    root: str | Path, *, split: str = "train", strict: bool = False, name: str = "cityscapes"
) -> Cityscapes | CityscapesPanoptic:
    """The panoptic json of a split where there is one, else the same segments from its instanceIds."""
    for train_ids in (False, True):
        if _panoptic_json(root, split, train_ids=train_ids).is_file():
            return CityscapesPanoptic(root, split=split, train_ids=train_ids, strict=strict, name=name)
    return Cityscapes(root, split=split, strict=strict, name=name)


def _panoptic_json(root: str | Path, split: str, *, train_ids: bool) -> Path:
    return Path(root) / "gtFine" / f"cityscapes_panoptic_{split}{'_trainId' if train_ids else ''}.json"


def _folder(root: str | Path, part: str, split: str) -> Path:
    folder = Path(root) / part / split
    if not folder.is_dir():
        raise ValueError(f"cityscapes: no such folder: {folder}")
    return folder


def _city_and_name(entry: Mapping[str, Any]) -> str:
    """The json's "x_gtFine_leftImg8bit.png" is "city/x_leftImg8bit.png" on disk, x being the id."""
    return f"{str(entry['id']).split('_')[0]}/{entry['id']}{_IMAGE}"
