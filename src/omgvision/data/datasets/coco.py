"""COCO's two layouts: panoptic (json + folder of RGB-coded PNG) and instances (one json)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask

from ..class_lists import ClassListName, plain_names
from ..sample import Sample, layers_from_masks
from .reading import Findings, Listing, Records, read_annotations, read_label_map, read_rgb

FileName = Callable[[Mapping[str, Any]], str]
"""From an entry of a json's images to the file's name in the folder of images."""


def entry_file_name(entry: Mapping[str, Any]) -> str:
    """COCO's own: what the entry says."""
    return entry["file_name"]


class _Categories:
    """A json's categories: vocabulary, countability and the way from category id to label.

    Categories of one name become one label (annotation tools write such files).
    """

    def __init__(self, path: Path, entries: list[dict[str, Any]], *, words: ClassListName | None) -> None:
        spelled = tuple(str(entry["name"]) for entry in entries)
        if words is not None:
            # LVIS gives each category its synonyms: "baby_buggy", "pram".
            spelled = tuple(
                ", ".join(text.replace("_", " ").replace(",", " ") for text in entry["synonyms"])
                if entry.get("synonyms")
                else name
                for entry, name in zip(entries, plain_names(spelled, words), strict=True)
            )
        self.label_of: dict[int, int] = {}
        names: dict[str, int] = {}
        things: list[bool] = []
        ids: list[int] = []
        for entry, name in zip(entries, spelled, strict=True):
            if entry["id"] in self.label_of:
                raise ValueError(f"annotations: {path}: two categories have the id {entry['id']}")
            if name not in names:
                names[name] = len(names)
                things.append(bool(entry.get("isthing", 1)))
                ids.append(entry["id"])
            self.label_of[entry["id"]] = names[name]
        if not names:
            raise ValueError(f"annotations: {path} has no categories")
        self.names, self.things, self.ids = tuple(names), tuple(things), tuple(ids)


class _Photographs:
    """A json's images by id: those that have a possible size and a file."""

    def __init__(
        self, content: dict[str, Any], *, folder: Listing, file_name: FileName, findings: Findings, wanted: set[Any]
    ) -> None:
        self.known = {entry["id"] for entry in content["images"]}
        self.usable: dict[Any, tuple[str, int, int]] = {}
        for entry in content["images"]:
            if entry["id"] not in wanted:
                continue
            height, width, name = entry["height"], entry["width"], file_name(entry)
            if not (isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0):
                findings.skip("images of impossible size in the json", f"{name}: {width}×{height}")
            elif name not in folder:
                findings.skip("images that are missing", folder.folder / name)
            else:
                self.usable[entry["id"]] = (name, height, width)

    def ordered(self) -> Iterator[tuple[Any, tuple[str, int, int]]]:
        return iter(sorted(self.usable.items(), key=lambda item: item[0]))


class CocoPanoptic:
    """Photographs with every pixel's segment. Crowd segments are dropped: their pixels belong to nothing.

    Things come first, both in the json's order.

    Attributes:
        name, names, things, findings, portrait: see `ImageReader`.
        category_ids: the json's id of each name.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        segmentations: str | Path | None = None,
        words: ClassListName | None = "coco",
        file_name: FileName = entry_file_name,
        strict: bool = False,
        name: str = "coco-panoptic",
    ) -> None:
        """Reads the json and leaves out what it cannot use: missing files, segments of unknown category.

        Args:
            annotations: the json.
            images: folder of the photographs.
            segmentations: folder of the PNG files; by default the folder beside the json with its stem.
            words: the bundled list that turns the json's spelling into plain words; None keeps the spelling.
            file_name: which file of `images` an entry means.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: the json or a folder is unusable, no sample remains, or there are faults and `strict`.
        """
        annotations = Path(annotations)
        content = read_annotations(
            annotations,
            keys={
                "images": ("id", "height", "width", *(("file_name",) if file_name is entry_file_name else ())),
                "annotations": ("image_id", "file_name", "segments_info"),
                "categories": ("id", "name", "isthing"),
            },
        )
        categories = _Categories(annotations, content["categories"], words=words)
        self.name = name
        self.names, self.things, self.category_ids = categories.names, categories.things, categories.ids
        self.findings = Findings(name)
        self._images = Path(images)
        self._segmentations = Path(segmentations) if segmentations else annotations.with_suffix("")
        annotated = {annotation["image_id"]: annotation for annotation in content["annotations"]}
        photographs = _Photographs(
            content,
            folder=Listing(images, what="images"),
            file_name=file_name,
            findings=self.findings,
            wanted=set(annotated),
        )
        for annotation in content["annotations"]:
            if annotation["image_id"] not in photographs.known:
                self.findings.skip("annotations of images that the json lacks", annotation["image_id"])
        for entry in content["images"]:
            if entry["id"] not in annotated:
                self.findings.note("images without annotation", entry["id"])
        maps = Listing(self._segmentations, what="segmentations")
        items: list[Any] = []
        self.portrait: list[bool] = []
        for image_id, (file, height, width) in photographs.ordered():
            annotation = annotated[image_id]
            if annotation["file_name"] not in maps:
                self.findings.skip("segmentations that are missing", maps.folder / annotation["file_name"])
                continue
            segments = list(self._segments(annotation, categories))
            if not segments:
                self.findings.note("images without a segment", file)
                continue
            items.append((str(image_id), file, annotation["file_name"], height, width, segments))
            self.portrait.append(height > width)
        self.findings.close(samples=len(items), strict=strict)
        self._items = Records(items)

    def _segments(self, annotation: dict[str, Any], categories: _Categories) -> Iterator[tuple[int, int]]:
        """(id in the PNG, label) of the segments to keep."""
        for segment in annotation["segments_info"]:
            where = f"{segment.get('id')} of {annotation['file_name']}"
            if not {"id", "category_id"} <= segment.keys():
                self.findings.skip("segments without id or category_id", where)
            elif segment["category_id"] not in categories.label_of:
                self.findings.skip("segments of unknown category", f"{where}, category {segment['category_id']}")
            elif segment.get("area") == 0:
                self.findings.skip("segments without a pixel", where)
            elif not segment.get("iscrowd", 0):
                yield segment["id"], categories.label_of[segment["category_id"]]

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Raises ValueError naming the file if one cannot be read or has another size than the json says."""
        sample_id, image, segmentation, height, width, segments = self._items[index]
        path = self._segmentations / segmentation
        coded = read_label_map(path, size=(height, width))
        if coded.ndim != 3 or coded.shape[2] < 3:
            raise ValueError(f"segmentations: {path} is not an RGB file, ids are coded as R + 256 G + 65536 B")
        ids = coded[..., 0].astype(np.int32)
        ids += np.multiply(coded[..., 1], 256, dtype=np.int32)
        ids += np.multiply(coded[..., 2], 65536, dtype=np.int32)
        ordered = sorted(segments, key=lambda segment: not self.things[segment[1]])
        return Sample(
            image=read_rgb(self._images / image, size=(height, width)),
            segment_layers=torch.from_numpy(number_ids(ids, [segment_id for segment_id, _ in ordered])[None]),
            labels=torch.tensor([label for _, label in ordered], dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=sample_id,
            dataset=self.name,
        ).with_areas_of_at_least(1)


def number_ids(ids: np.ndarray, order: list[int]) -> np.ndarray:
    """Replaces order[n] by n + 1 and everything else by 0: integer [H, W] → int16 [H, W]."""
    if not order:
        return np.zeros(ids.shape, dtype=np.int16)
    keys, first = np.unique(order, return_index=True)
    place = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return np.where(keys[place] == ids, (first + 1).astype(np.int16)[place], np.int16(0))


class CocoInstances:
    """Photographs with their objects, as polygons or run lengths; they may overlap. Crowd regions are dropped.

    What is not annotated is background, not void. Images without an object are left out unless `keep_empty`.

    A box is no target here: where a json has boxes only (Objects365), `masks` gives the objects' masks in a second
    file, made by SAM from the boxes for instance.

    Attributes:
        name, names, things, findings, portrait: see `ImageReader`.
        category_ids: the json's id of each name.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        masks: str | Path | None = None,
        keep_empty: bool = False,
        words: ClassListName | None = "coco",
        file_name: FileName = entry_file_name,
        strict: bool = False,
        name: str = "coco-instances",
    ) -> None:
        """Reads the json and leaves out what it cannot use: missing files, unknown categories, empty masks.

        Args:
            annotations: the json.
            images: folder of the photographs.
            masks: a json whose "annotations" (or which itself, if it is a list) has "id" and "segmentation"; they
                replace those of the annotations of the same id.
            keep_empty: images without an object are samples too.
            words: the bundled list that turns the json's spelling into plain words; None keeps the spelling.
            file_name: which file of `images` an entry means.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: the json or a folder is unusable, no sample remains, or there are faults and `strict`.
        """
        annotations = Path(annotations)
        content = read_annotations(
            annotations,
            keys={
                "images": ("id", "height", "width", *(("file_name",) if file_name is entry_file_name else ())),
                "annotations": ("image_id", "category_id"),
                "categories": ("id", "name"),
            },
        )
        if masks is not None:
            given = _masks_by_id(Path(masks))
            for annotation in content["annotations"]:
                annotation["segmentation"] = given.get(annotation.get("id"))
        elif content["annotations"] and not any(entry.get("segmentation") for entry in content["annotations"]):
            raise ValueError(
                f"annotations: {annotations} has boxes and no masks, expected a segmentation for each object: "
                "give them in a second json (masks=…), for example made by SAM from the boxes"
            )
        categories = _Categories(annotations, content["categories"], words=words)
        self.name = name
        self.names, self.things, self.category_ids = categories.names, categories.things, categories.ids
        self.findings = Findings(name)
        self._annotations, self._images = annotations, Path(images)
        objects = self._objects(content, categories)
        photographs = _Photographs(
            content,
            folder=Listing(images, what="images"),
            file_name=file_name,
            findings=self.findings,
            wanted={image_id for image_id, found in objects.items() if found or keep_empty},
        )
        if not keep_empty:
            for image_id in (image_id for image_id, found in objects.items() if not found):
                self.findings.note("images without an object", image_id)
        items = [(str(key), *photograph, objects[key]) for key, photograph in photographs.ordered()]
        self.portrait = [height > width for _, _, height, width, _ in items]
        self.findings.close(samples=len(items), strict=strict)
        self._items = Records(items)

    def _objects(self, content: dict[str, Any], categories: _Categories) -> dict[Any, list[Any]]:
        """Image id → (annotation id, label, segmentation) of the objects to keep."""
        objects: dict[Any, list[Any]] = {entry["id"]: [] for entry in content["images"]}
        for number, annotation in enumerate(content["annotations"]):
            where = f"annotation {annotation.get('id', f'number {number}')}"
            if annotation["image_id"] not in objects:
                self.findings.skip(
                    "annotations of images that the json lacks", f"{where}, image {annotation['image_id']}"
                )
            elif annotation["category_id"] not in categories.label_of:
                self.findings.skip("objects of unknown category", f"{where}, category id {annotation['category_id']}")
            elif annotation.get("iscrowd", 0):
                continue
            elif annotation.get("segmentation") is None:
                self.findings.skip("objects without a mask", where)
            elif _is_empty(annotation["segmentation"]):
                self.findings.skip("empty masks", where)
            else:
                label = categories.label_of[annotation["category_id"]]
                objects[annotation["image_id"]].append((where, label, annotation["segmentation"]))
        return objects

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Raises ValueError naming the file if the image cannot be read, has another size than the json says, or a
        mask cannot be decoded."""
        sample_id, file, height, width, objects = self._items[index]
        masks = []
        for where, _, segmentation in objects:
            try:
                masks.append(decode_segmentation(segmentation, height, width))
            except ValueError as error:
                raise ValueError(f"annotations: {self._annotations}: {where} of image {file}: {error}") from error
        return Sample(
            image=read_rgb(self._images / file, size=(height, width)),
            segment_layers=layers_from_masks(masks, height, width),
            labels=torch.tensor([label for _, label, _ in objects], dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=sample_id,
            dataset=self.name,
        ).with_areas_of_at_least(1)


def _masks_by_id(path: Path) -> dict[Any, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"masks: cannot read {path} as json ({error})") from error
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and {"id", "segmentation"} <= entry.keys() for entry in entries
    ):
        raise ValueError(f"masks: {path}: expected a list of objects with id and segmentation, or annotations of these")
    return {entry["id"]: entry["segmentation"] for entry in entries}


def _is_empty(segmentation: Any) -> bool:
    """Whether a segmentation says by itself that it has no pixel; what is malformed is told when it is decoded."""
    if isinstance(segmentation, list):
        return all(isinstance(polygon, list) and len(polygon) < 6 for polygon in segmentation)
    counts = segmentation.get("counts") if isinstance(segmentation, dict) else None
    return isinstance(counts, str | list) and (len(counts) == 0 or (isinstance(counts, list) and not any(counts[1::2])))


def decode_segmentation(segmentation: list[list[float]] | dict[str, Any], height: int, width: int) -> np.ndarray:
    """COCO polygons (list), or run lengths (dict, compressed or not) → bool [H, W].

    Raises:
        ValueError: neither of them, numbers that are none, run lengths that do not fill the image exactly.
    """
    if isinstance(segmentation, list):
        return _fill_polygons(segmentation, height, width)
    if not isinstance(segmentation, dict) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("a segmentation is neither a list of polygons nor run lengths with size and counts")
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"a run-length mask is {segmentation['size']} (height, width), its image {[height, width]}")
    # pycocotools leaves memory as it was where run lengths end too early; so they are unrolled here.
    runs = _run_lengths(segmentation["counts"])
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"a run-length mask covers {runs.sum()} pixels, its image has {height * width}")
    values = np.zeros(len(runs), dtype=bool)
    values[1::2] = True
    return np.repeat(values, runs).reshape(width, height).T


def _fill_polygons(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    api: Any = coco_mask  # its type stubs know only some of the inputs that it takes
    usable = []
    for polygon in polygons:
        try:
            corners = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            corners = np.zeros(1)
        if corners.ndim != 1 or len(corners) % 2 or not np.isfinite(corners).all():
            raise ValueError(f"a polygon is not a list of x, y, x, y, …: {str(polygon)[:40]}")
        if len(corners) >= 6:
            usable.append(corners.tolist())
    if not usable:
        return np.zeros((height, width), dtype=bool)
    return api.decode(api.merge(api.frPyObjects(usable, height, width))).astype(bool)


def _run_lengths(counts: list[int] | str | bytes) -> np.ndarray:
    """Int64 lengths of the runs of 0, 1, 0, … in columns.

    The compressed text has groups of 5 bits a character, lowest first, from "0" on: bit 5 says that the number goes on,
    bit 4 of its last group is the sign. From the fourth number on they are differences to the last but one (format of
    pycocotools, maskApi.c).
    """
    if isinstance(counts, list):
        if not all(isinstance(count, int) for count in counts):
            raise ValueError("run lengths are not whole numbers")
        return np.array(counts, dtype=np.int64)
    if isinstance(counts, str):
        counts = counts.encode("ascii", errors="replace")
    if not isinstance(counts, bytes):
        raise ValueError(f"run lengths are {type(counts).__name__}, expected text or a list of numbers")
    codes = np.frombuffer(counts, dtype=np.uint8).astype(np.int64) - ord("0")
    if len(codes) == 0:
        return codes
    goes_on = (codes & 0x20) > 0
    ends = np.flatnonzero(~goes_on)
    if codes.min() < 0 or codes.max() > 0x3F or goes_on[-1]:
        raise ValueError("compressed run lengths are broken")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > 8:  # 40 bits are more than any image has
        raise ValueError("compressed run lengths are broken")
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * sizes), 0)
    for parity in (1, 2):
        values[parity::2] = np.cumsum(values[parity::2])
    return values
