"""Scores whoever segments on annotated pictures: one function a metric, at the full size of the pictures."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from omgvision.data.class_lists import load_class_list
from omgvision.data.sample import Sample
from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.click_iou import ClickIoU, mask_iou, next_click
from omgvision.evaluation.mean_iou import MeanIoU
from omgvision.evaluation.panoptic_files import read_ids
from omgvision.evaluation.panoptic_quality import PanopticQuality, SegmentLabel
from omgvision.evaluation.trivial import Point, box_of
from omgvision.predictor import Predictor
from omgvision.session import ImageSession

COCO = load_class_list("coco")
COCO_THINGS = load_class_list("coco-things")


class Clicked(Protocol):
    """A picture that answers clicks and boxes."""

    def click(self, points: Sequence[Point]) -> np.ndarray:
        """Bool [H, W] after all clicks so far, (x, y, positive); each call brings one more."""
        ...

    def box(self, box: Sequence[float]) -> np.ndarray:
        """Bool [H, W] of a box x0, y0, x1, y1."""
        ...


class Segmenter(Protocol):
    """Whoever is measured: a model, or a guess that never looks."""

    def panoptic(self, image: Image.Image) -> tuple[np.ndarray, dict[int, int]]:
        """Segment ids [H, W] (0 = none), and the COCO category of each id."""
        ...

    def instances(self, image: Image.Image) -> Iterable[tuple[int, float, np.ndarray]]:
        """COCO category, score and bool [H, W] of each object."""
        ...

    def camvid(self, image: Image.Image) -> np.ndarray:
        """Index of the CamVid class of each pixel [H, W]."""
        ...

    def open(self, image: Image.Image) -> Clicked: ...


class ModelSegmenter:
    """A `Predictor` as a `Segmenter`, with its default thresholds for maps and none for ranked objects."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor

    def panoptic(self, image: Image.Image) -> tuple[np.ndarray, dict[int, int]]:
        result = self.predictor.segment(image, task="panoptic", classes="coco")
        categories = {s.id: COCO.category_ids[s.label_id] for s in result.segments if s.label_id is not None}
        return result.label_map, categories

    def instances(self, image: Image.Image) -> Iterator[tuple[int, float, np.ndarray]]:
        result = self.predictor.segment(image, task="instance", classes="coco-things", threshold=0.0)
        for segment in result.segments:
            assert segment.label_id is not None
            assert segment.score is not None
            yield COCO_THINGS.category_ids[segment.label_id], segment.score, segment.mask

    def camvid(self, image: Image.Image) -> np.ndarray:
        return self.predictor.segment(image, task="semantic", classes="camvid").semantic_map()

    def open(self, image: Image.Image) -> Clicked:
        return ModelClicks(self.predictor.open(image))


class ModelClicks:
    """An `ImageSession` as a `Clicked`."""

    def __init__(self, session: ImageSession):
        self.session = session

    def click(self, points: Sequence[Point]) -> np.ndarray:
        x, y, positive = points[-1]
        if len(points) == 1:
            return self.session.click([(x, y)]).segments[0].mask
        return self.session.refine([(x, y)], labels=[int(positive)]).segments[0].mask

    def box(self, box: Sequence[float]) -> np.ndarray:
        return self.session.click(boxes=[tuple(box)]).segments[0].mask


def picture(sample: Sample) -> Image.Image:
    """The sample's image for a `Segmenter`."""
    return Image.fromarray(sample.image.permute(1, 2, 0).numpy())


def panoptic_quality(segmenter: Segmenter, annotations: Path, *, images: Path) -> dict[str, float]:
    """PQ on a COCO panoptic json, whose PNG folder lies beside it under the same stem."""
    truth = json.loads(annotations.read_text(encoding="utf-8"))
    files = {entry["id"]: entry["file_name"] for entry in truth["images"]}
    quality = PanopticQuality({entry["id"]: bool(entry["isthing"]) for entry in truth["categories"]})
    for entry in truth["annotations"]:
        image = Image.open(images / files[entry["image_id"]]).convert("RGB")
        prediction, categories = segmenter.panoptic(image)
        target = read_ids(annotations.with_suffix("") / entry["file_name"])
        quality.update(
            str(entry["image_id"]),
            prediction,
            {identity: SegmentLabel(category) for identity, category in categories.items()},
            target,
            {
                segment["id"]: SegmentLabel(segment["category_id"], bool(segment.get("iscrowd", 0)))
                for segment in entry["segments_info"]
            },
        )
    return quality.compute()


def average_precision(segmenter: Segmenter, annotations: Path, *, images: Path) -> dict[str, float]:
    """Mask AP on a COCO instances json."""
    truth = json.loads(annotations.read_text(encoding="utf-8"))
    precision = AveragePrecision(truth)
    for entry in truth["images"]:
        image = Image.open(images / entry["file_name"]).convert("RGB")
        precision.update(str(entry["id"]), [_detection(*found) for found in segmenter.instances(image)])
    return precision.compute()


def _detection(category: int, score: float, mask: np.ndarray) -> dict[str, Any]:
    return {
        "category_id": category,
        "score": score,
        "segmentation": coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)),
    }


def mean_iou(
    segmenter: Segmenter, images: Sequence[Path], *, labels: Path, num_classes: int, void: int
) -> dict[str, float]:
    """mIoU and pixel accuracy on pictures with semantic PNG files of the same stem in `labels`."""
    quality = MeanIoU(num_classes, ignore=void)
    for path in images:
        target = np.asarray(Image.open(labels / f"{path.stem}.png"))
        quality.update(path.stem, segmenter.camvid(Image.open(path).convert("RGB")), target)
    return quality.compute()


def click_iou(
    segmenter: Segmenter, samples: Iterable[Sample], *, clicks: int, min_share: float = 0.0
) -> dict[str, float]:
    """IoU after each simulated click, and of the tight box, over the objects of the samples.

    Args:
        min_share: Objects of a smaller share of the picture are left out.
    """
    quality, boxes, pictures = ClickIoU(clicks), [], 0
    for sample in samples:
        masks = [mask for mask in sample.masks.numpy() if mask.mean() >= max(min_share, 1e-9)]
        if not masks:
            continue
        opened = segmenter.open(picture(sample))
        pictures += 1
        for target in masks:
            quality.update(str(len(boxes)), click_through(opened, target, clicks=clicks))
            boxes.append(mask_iou(opened.box(box_of(target)), target))
    count = {"objects": float(len(boxes)), "pictures": float(pictures)}
    return {**quality.compute(), "box IoU": float(np.mean(boxes)), **count}


def click_through(opened: Clicked, target: np.ndarray, *, clicks: int) -> list[float]:
    """IoU after each click on one object; every click goes to the middle of the larger error."""
    return [mask_iou(mask, target) for mask in clicked_masks(opened, target, clicks=clicks)]


def clicked_masks(opened: Clicked, target: np.ndarray, *, clicks: int) -> Iterator[np.ndarray]:
    """The masks after each click on one object, see `click_through`."""
    points: list[Point] = []
    taken: list[tuple[int, int]] = []
    mask = np.zeros_like(target)
    for _ in range(clicks):
        if not np.array_equal(mask, target):  # nothing is left to correct otherwise
            row, column, positive = next_click(target, mask, taken=taken)
            taken.append((row, column))
            points.append((column + 0.5, row + 0.5, positive))
            mask = opened.click(points)
        yield mask
