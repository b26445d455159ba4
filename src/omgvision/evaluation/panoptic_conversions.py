"""From and to COCO's panoptic format: detections, semantic PNG, two-channel PNG, instance ids of Cityscapes.

The files are those of panopticapi's converters and of cityscapesScripts' `createPanopticImgs.py`. Where panopticapi
draws segment ids at random, ours are other ones for the same segments, and the same at each run.

Letters: H×W pixels.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from scipy import ndimage

from omgvision.evaluation.cityscapes_labels import CITYSCAPES_LABELS, label_of
from omgvision.evaluation.panoptic_files import read_ids, write_ids
from omgvision.evaluation.run_lengths import compressed

Segment = dict[str, Any]
"""An entry of `segments_info`: `id`, `category_id` and whatever else is known of it."""

OTHER_CATEGORY = 183
"""All things, where a semantic map is of stuff alone."""
_COLOR_DISTANCE = 30


def panoptic_to_detections(ids: np.ndarray, segments: Iterable[Segment], *, image_id: Any) -> list[dict[str, Any]]:
    """Segment ids [H, W] → one annotation with a run-length mask for each segment, without `id`."""
    tools: Any = coco_mask
    detections = []
    for segment in segments:
        runs = tools.encode(np.asfortranarray(ids == segment["id"], dtype=np.uint8))
        kept = {key: value for key, value in segment.items() if key != "id"}
        segmentation = {"size": list(runs["size"]), "counts": runs["counts"].decode()}
        detections.append({**kept, "image_id": image_id, "segmentation": segmentation})
    return detections


def detections_to_panoptic(
    detections: Iterable[Mapping[str, Any]], *, size: tuple[int, int], categories: Mapping[int, Mapping[str, Any]]
) -> tuple[np.ndarray, list[Segment]]:
    """Annotations with masks → segment ids uint32 [H, W] and what they are.

    Args:
        size: H, W.
        categories: Id → `isthing` and `color`.

    Raises:
        ValueError: Masks that overlap or do not decode, an unknown category.
    """
    tools: Any = coco_mask
    ids = np.zeros(size, dtype=np.uint32)
    segments: list[Segment] = []
    generator = _IdGenerator(categories)
    for one in detections:
        mask = tools.decode(compressed(one["segmentation"], size=size)).astype(bool)
        if ids[mask].any():
            raise ValueError("detections: expected masks that do not overlap, got some that do")
        identity = generator(one["category_id"])
        ids[mask] = identity
        kept = {key: value for key, value in one.items() if key not in {"segmentation", "image_id"}}
        segments.append({**kept, "id": identity})
    return ids, segments


def panoptic_to_semantic(
    ids: np.ndarray, segments: Iterable[Segment], *, things: Iterable[int] | None = None
) -> np.ndarray:
    """Segment ids [H, W] → category ids uint8 [H, W], 0 where no segment is.

    Args:
        things: Categories that become `OTHER_CATEGORY`; None = none.

    Raises:
        ValueError: A category over 255.
    """
    others = frozenset(things or ())
    values, places = np.unique(ids, return_inverse=True)
    of_segment = {segment["id"]: segment["category_id"] for segment in segments}
    categories = np.array([of_segment.get(value, 0) for value in values.tolist()])
    if categories.max(initial=0) > 255:
        raise ValueError(f"category: expected 1 to 255 in a semantic PNG, got {categories.max()}")
    categories[np.isin(categories, list(others))] = OTHER_CATEGORY
    return categories.astype(np.uint8)[places].reshape(ids.shape)


def two_channels_to_panoptic(
    values: np.ndarray, *, categories: Mapping[int, Mapping[str, Any]], void: int = 0
) -> tuple[np.ndarray, list[Segment]]:
    """The paper's two-channel map → segment ids uint32 [H, W] and what they are.

    Args:
        values: [H, W, 2 or more]: category and number of the object, which does not matter for stuff.
        categories: Id → `isthing` and `color`.
        void: Category of pixels without a segment.

    Raises:
        ValueError: One channel, or an unknown category.
    """
    if values.ndim != 3 or values.shape[-1] < 2:
        raise ValueError(f"map: expected two channels or more, got the shape {values.shape}")
    pairs, places = np.unique(values[..., 0].astype(np.int64) << 32 | values[..., 1], return_inverse=True)
    generator = _IdGenerator(categories)
    found, segments = np.zeros(len(pairs), dtype=np.uint32), []
    for index, category in enumerate((pairs >> 32).tolist()):
        if category == void:
            continue
        found[index] = identity = generator(category)
        if not any(segment["id"] == identity for segment in segments):  # stuff has one id
            segments.append({"id": identity, "category_id": category})
    return found[places].reshape(values.shape[:2]), segments


def instance_ids_to_panoptic(instances: np.ndarray, *, train_ids: bool = False) -> tuple[np.ndarray, list[Segment]]:
    """Cityscapes' `instanceIds` [H, W] → segment ids uint32 [H, W] and what they are.

    Segments keep their instance ids; labels that are not evaluated become void, groups of things crowds.

    Args:
        train_ids: Number the categories 0 to 18 instead of by their label ids.

    Raises:
        ValueError: An id that is none.
    """
    values, places, areas = np.unique(instances, return_inverse=True, return_counts=True)
    boxes = ndimage.find_objects(places.reshape(instances.shape) + 1)
    segments: list[Segment] = []
    ids = np.zeros(len(values), dtype=np.uint32)
    for index, (value, area, box) in enumerate(zip(values.tolist(), areas.tolist(), boxes, strict=True)):
        label = label_of(value)
        if not label.evaluated:
            continue
        ids[index] = value
        assert box is not None
        rows, columns = box
        segment = {
            "id": value,
            "category_id": label.train_id if train_ids else label.id,
            "area": area,
            "bbox": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
            "iscrowd": int(label.is_thing and value < 1000),
        }
        segments.append(segment)
    return ids[places].reshape(instances.shape), segments


def convert_panoptic_to_detections(source: Path, target: Path, *, things_only: bool = False) -> None:
    """`source` json with its PNG folder of the same stem → `target`, a json with run-length masks.

    Args:
        things_only: Leave stuff out.
    """
    content = json.loads(source.read_text(encoding="utf-8"))
    kept = [entry for entry in content["categories"] if entry["isthing"] or not things_only]
    wanted = {entry["id"] for entry in kept}
    annotations = [
        detection
        for entry in content["annotations"]
        for detection in panoptic_to_detections(
            read_ids(source.with_suffix("") / _png(entry["file_name"])),
            [segment for segment in entry["segments_info"] if segment["category_id"] in wanted],
            image_id=entry["image_id"],
        )
    ]
    content["annotations"] = [{**one, "id": index} for index, one in enumerate(annotations)]
    plain = [{key: value for key, value in entry.items() if key not in {"isthing", "color"}} for entry in kept]
    content["categories"] = plain
    _write_json(content, target)


def convert_detections_to_panoptic(source: Path, target: Path, *, categories: Sequence[Mapping[str, Any]]) -> None:
    """`source`, a json of images and annotations with masks → `target` json with its PNG folder of the same stem.

    Args:
        categories: As in COCO's `panoptic_coco_categories.json`: `id`, `name`, `isthing`, `color`.

    Raises:
        ValueError: As `detections_to_panoptic`, with the image.
    """
    content = json.loads(source.read_text(encoding="utf-8"))
    by_image: dict[Any, list[dict[str, Any]]] = {}
    for one in content["annotations"]:
        by_image.setdefault(one["image_id"], []).append(one)
    known = {entry["id"]: entry for entry in categories}
    annotations = []
    for image in content["images"]:
        size = (image["height"], image["width"])
        try:
            ids, segments = detections_to_panoptic(by_image.get(image["id"], []), size=size, categories=known)
        except ValueError as error:
            raise ValueError(f"{source}: image {image['id']}: {error}") from error
        annotations.append(_write_panoptic(ids, segments, target, name=_png(image["file_name"]), image_id=image["id"]))
    _write_json({**content, "annotations": annotations, "categories": list(categories)}, target)


def convert_panoptic_to_semantic(source: Path, target: Path, *, things_as_other: bool = False) -> None:
    """`source` json with its PNG folder of the same stem → grey PNG files of the same names in the folder `target`.

    Args:
        things_as_other: Give all things the category 183.
    """
    content = json.loads(source.read_text(encoding="utf-8"))
    things = [entry["id"] for entry in content["categories"] if entry["isthing"]] if things_as_other else None
    target.mkdir(parents=True, exist_ok=True)
    for entry in content["annotations"]:
        ids = read_ids(source.with_suffix("") / entry["file_name"])
        semantic = panoptic_to_semantic(ids, entry["segments_info"], things=things)
        Image.fromarray(semantic).save(target / entry["file_name"])


def convert_two_channels_to_panoptic(
    source: Path, target: Path, *, images: Path, categories: Sequence[Mapping[str, Any]], void: int = 0
) -> None:
    """Two-channel PNG files in the folder `source` → `target` json with its PNG folder of the same stem.

    Args:
        images: Json whose `images` are converted; a PNG is called like its image.
        categories: As in `convert_detections_to_panoptic`.
        void: Category of pixels without a segment.
    """
    content = json.loads(images.read_text(encoding="utf-8"))
    known = {entry["id"]: entry for entry in categories}
    annotations = []
    for image in content["images"]:
        with Image.open(source / _png(image["file_name"])) as opened:
            ids, segments = two_channels_to_panoptic(np.asarray(opened), categories=known, void=void)
        annotations.append(_write_panoptic(ids, segments, target, name=_png(image["file_name"]), image_id=image["id"]))
    _write_json({**content, "annotations": annotations}, target)


def convert_cityscapes(source: Path, target: Path, *, train_ids: bool = False) -> None:
    """Cityscapes' `instanceIds` → panoptic files.

    Args:
        source: A split of the ground truth, `gtFine/val`, with a folder a city.
        target: `cityscapes_panoptic_val.json` (officially in `gtFine`); the PNG files go to the folder of its stem.
        train_ids: Number the categories 0 to 18 (officially called `cityscapes_panoptic_val_trainId.json`).

    Raises:
        ValueError: No files.
    """
    suffix = "_gtFine_instanceIds.png"
    paths = sorted(source.glob(f"*/*{suffix}"))
    if not paths:
        raise ValueError(f"{source}: expected files */*{suffix}, got none")
    images, annotations = [], []
    for path in paths:
        with Image.open(path) as opened:
            ids, segments = instance_ids_to_panoptic(np.asarray(opened), train_ids=train_ids)
        name = path.name.removesuffix(suffix)
        height, width = ids.shape
        photograph = f"{name}_gtFine_leftImg8bit.png"  # sic
        images.append({"id": name, "width": width, "height": height, "file_name": photograph})
        file_name = f"{name}_gtFine_panoptic.png"
        annotations.append(_write_panoptic(ids, segments, target, name=file_name, image_id=name))
    categories = [
        {
            "id": label.train_id if train_ids else label.id,
            "name": label.name,
            "color": label.color,
            "supercategory": label.category,
            "isthing": int(label.is_thing),
        }
        for label in CITYSCAPES_LABELS
        if label.evaluated
    ]
    content = {"images": images, "annotations": annotations, "categories": categories}
    target.write_text(json.dumps(content, sort_keys=True, indent=4), encoding="utf-8")


class _IdGenerator:
    """Segment ids whose colours look like their categories: stuff has its category's, things one near to it."""

    def __init__(self, categories: Mapping[int, Mapping[str, Any]]):
        self.categories = categories
        self.taken = {(0, 0, 0)} | {tuple(entry["color"]) for entry in categories.values() if not entry["isthing"]}
        self.random = np.random.default_rng(0)

    def __call__(self, category: int) -> int:
        if category not in self.categories:
            raise ValueError(f"category: expected one of the given {len(self.categories)}, got {category}")
        entry = self.categories[category]
        color = tuple(entry["color"])
        if entry["isthing"]:
            color = next(near for near in self._near(color) if near not in self.taken)
            self.taken.add(color)
        red, green, blue = color
        return red + 256 * green + 256**2 * blue

    def _near(self, color: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        yield color
        while True:
            shift = self.random.integers(-_COLOR_DISTANCE, _COLOR_DISTANCE + 1, 3)
            yield tuple((np.array(color) + shift).clip(0, 255).tolist())


def _write_panoptic(
    ids: np.ndarray, segments: list[Segment], target: Path, *, name: str, image_id: Any
) -> dict[str, Any]:
    path = target.with_suffix("") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_ids(ids, path)
    return {"image_id": image_id, "file_name": name, "segments_info": segments}


def _png(name: str) -> str:
    """Of a picture or a PNG, up to the first full stop, as panopticapi names it."""
    return f"{name.split('.')[0]}.png"


def _write_json(content: Any, path: Path) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
