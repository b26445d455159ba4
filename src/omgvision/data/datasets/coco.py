"""COCO's two layouts: panoptic (json + folder of RGB-coded PNG) and instances (one json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ..class_lists import plain_names
from ..sample import Sample, layers_from_masks
from .reading import check_files_exist, read_annotations, read_label_map, read_rgb

_IMAGE_KEYS = ("id", "file_name", "height", "width")


class _Categories:
    """A json's categories: vocabulary, countability and the way from category id to label."""

    def __init__(self, entries: list[dict[str, Any]], *, plain: bool) -> None:
        official = tuple(entry["name"] for entry in entries)
        self.names = plain_names(official) if plain else official
        self.things = tuple(bool(entry.get("isthing", 1)) for entry in entries)
        self.ids = tuple(int(entry["id"]) for entry in entries)
        self.label_of = {category: label for label, category in enumerate(self.ids)}
        if len(self.label_of) != len(self.ids):
            raise ValueError("annotations: two categories share an id")

    def check(self, category: int, *, where: str) -> None:
        if category not in self.label_of:
            raise ValueError(f"annotations: {where} has category id {category}, which is not among the categories")


def _image_entries(content: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The json's images by id, in ascending order of id."""
    return {entry["id"]: entry for entry in sorted(content["images"], key=lambda entry: entry["id"])}


class CocoPanoptic:
    """Photographs with every pixel's segment. Crowd segments are dropped: their pixels belong to nothing.

    Things come first, both in the json's order.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        segmentations: str | Path | None = None,
        plain: bool = True,
        name: str = "coco-panoptic",
    ) -> None:
        """Reads the json and checks that every file is there and every category known.

        Args:
            annotations: the json.
            images: folder of the photographs.
            segmentations: folder of the PNG files; by default the folder beside the json with its stem.
            plain: class names as plain words instead of COCO's spelling.
            name: the dataset's short name.
        Raises:
            ValueError: a file is missing, an image unknown, a category unknown.
        """
        annotations = Path(annotations)
        content = read_annotations(
            annotations,
            keys={
                "images": _IMAGE_KEYS,
                "annotations": ("image_id", "file_name", "segments_info"),
                "categories": ("id", "name", "isthing"),
            },
        )
        categories = _Categories(content["categories"], plain=plain)
        self.name = name
        self.names, self.things, self.category_ids = categories.names, categories.things, categories.ids
        self._label_of = categories.label_of
        self._images = Path(images)
        self._segmentations = Path(segmentations) if segmentations else annotations.with_suffix("")
        entries = _image_entries(content)
        self._items: list[tuple[dict[str, Any], dict[str, Any]]] = []
        for annotation in sorted(content["annotations"], key=lambda entry: entry["image_id"]):
            if annotation["image_id"] not in entries:
                raise ValueError(f"annotations: {annotations} annotates image {annotation['image_id']}, which it lacks")
            for segment in annotation["segments_info"]:
                categories.check(segment["category_id"], where=annotation["file_name"])
            self._items.append((entries[annotation["image_id"]], annotation))
        check_files_exist(self._images, [image["file_name"] for image, _ in self._items], what="images")
        check_files_exist(self._segmentations, [item["file_name"] for _, item in self._items], what="segmentations")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        image, annotation = self._items[index]
        size = (image["height"], image["width"])
        path = self._segmentations / annotation["file_name"]
        coded = read_label_map(path, size=size)
        if coded.ndim != 3:
            raise ValueError(f"segmentations: {path} is not an RGB file, ids are coded as R + 256 G + 65536 B")
        ids = coded[..., :3].astype(np.int32) @ np.array([1, 256, 65536], dtype=np.int32)
        segments = [segment for segment in annotation["segments_info"] if not segment.get("iscrowd", 0)]
        labels = [self._label_of[segment["category_id"]] for segment in segments]
        order = sorted(range(len(segments)), key=lambda number: not self.things[labels[number]])
        present, inverse = np.unique(ids, return_inverse=True)
        number_of = {segments[position]["id"]: number for number, position in enumerate(order, start=1)}
        lookup = np.array([number_of.get(int(value), 0) for value in present], dtype=np.int16)
        return Sample(
            image=read_rgb(self._images / image["file_name"], size=size),
            segment_layers=torch.from_numpy(lookup[inverse].reshape(1, *size)),
            labels=torch.tensor([labels[position] for position in order], dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=str(image["id"]),
            dataset=self.name,
        ).with_areas_of_at_least(1)


class CocoInstances:
    """Photographs with their objects, as polygons or run lengths; they may overlap. Crowd regions are dropped.

    What is not annotated is background, not void. Images without an object are left out unless `keep_empty`.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        keep_empty: bool = False,
        plain: bool = True,
        name: str = "coco-instances",
    ) -> None:
        """Reads the json and checks that every file is there and every category known.

        Raises:
            ValueError: a file is missing, an image unknown, a category unknown.
        """
        annotations = Path(annotations)
        content = read_annotations(
            annotations,
            keys={
                "images": _IMAGE_KEYS,
                "annotations": ("image_id", "category_id", "segmentation"),
                "categories": ("id", "name"),
            },
        )
        categories = _Categories(content["categories"], plain=plain)
        self.name = name
        self.names, self.things, self.category_ids = categories.names, categories.things, categories.ids
        self._label_of = categories.label_of
        self._images = Path(images)
        entries = _image_entries(content)
        objects: dict[int, list[dict[str, Any]]] = {image_id: [] for image_id in entries}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in objects:
                raise ValueError(f"annotations: {annotations} annotates image {annotation['image_id']}, which it lacks")
            categories.check(annotation["category_id"], where=f"annotation {annotation.get('id')}")
            if not annotation.get("iscrowd", 0):
                objects[annotation["image_id"]].append(annotation)
        self._items = [(entries[image_id], found) for image_id, found in objects.items() if found or keep_empty]
        check_files_exist(self._images, [image["file_name"] for image, _ in self._items], what="images")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        image, annotations = self._items[index]
        height, width = image["height"], image["width"]
        masks = [decode_segmentation(annotation["segmentation"], height, width) for annotation in annotations]
        return Sample(
            image=read_rgb(self._images / image["file_name"], size=(height, width)),
            segment_layers=layers_from_masks(masks, height, width),
            labels=torch.tensor([self._label_of[item["category_id"]] for item in annotations], dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=str(image["id"]),
            dataset=self.name,
        ).with_areas_of_at_least(1)


def decode_segmentation(segmentation: list[list[float]] | dict[str, Any], height: int, width: int) -> np.ndarray:
    """COCO polygons (list), or run lengths (dict, compressed or not) → bool [H, W]."""
    api: Any = coco_mask  # its type stubs know only some of the inputs that it takes
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros((height, width), dtype=bool)
        runs = api.merge(api.frPyObjects(polygons, height, width))
    elif isinstance(segmentation["counts"], list):
        runs = api.frPyObjects(segmentation, height, width)
    else:
        runs = segmentation
    mask = api.decode(runs)
    if mask.shape != (height, width):
        raise ValueError(f"annotations: a run-length mask is {mask.shape} (height, width), its image {(height, width)}")
    return mask.astype(bool)
