"""The held-out numbers of `omg-seg-nano`, beside the same model untrained and the best trivial baseline.

    python -m omgvision.evaluation.card_numbers --data shared/data --weights FOLDER --out docs/results/nano.json

One command makes the file from which README and model card take their tables.
"""

import argparse
import copy
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from omgvision.data.datasets import CocoInstances, YouTubeVisFrames
from omgvision.data.mixture import SampleDataset
from omgvision.evaluation.evaluate import (
    ModelSegmenter,
    Segmenter,
    average_precision,
    click_iou,
    mean_iou,
    panoptic_quality,
)
from omgvision.evaluation.machine import machine
from omgvision.evaluation.trivial import (
    BoxPrior,
    Disks,
    MajorityMap,
    Point,
    ellipse_is_better,
    fill_box,
)
from omgvision.hub import load
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.output_files import write_json
from omgvision.predictor import Predictor

logger = logging.getLogger(__name__)

CLICKS = 5
MIN_SHARE = 0.005
DAVIS_EVERY = 8

T = TypeVar("T")


class Trivial:
    """The best guess for each task that never looks at a pixel, fitted on the train parts."""

    def __init__(self, data: Path):
        coco, camvid = data / "coco_mini", data / "camvid"
        self.category, self.category_name = self._best_category(coco / "panoptic_train.json")
        truth = json.loads((coco / "instances_train.json").read_text(encoding="utf-8"))
        sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in truth["images"]}
        self.prior = BoxPrior()
        for entry in truth["annotations"]:
            self.prior.add(entry["category_id"], entry["bbox"], size=sizes[entry["image_id"]])
        classes = json.loads((camvid / "classes.json").read_text(encoding="utf-8"))["classes"]
        self.majority = MajorityMap(len(classes))
        for path in sorted((camvid / "labels" / "train").glob("*.png")):
            self.majority.add(np.asarray(Image.open(path)))
        self.fit_clicks(CocoInstances(coco / "instances_train.json", images=coco / "images"))

    def fit_clicks(self, dataset: SampleDataset) -> "Trivial":
        """Chooses the shapes that answer clicks and boxes on every third object of a train part."""
        masks = (mask for index in range(len(dataset)) for mask in dataset[index].masks.numpy())
        chosen = [mask for mask in masks if mask.mean() >= MIN_SHARE][::3]
        self.disks = Disks.fit(chosen, clicks=CLICKS)
        self.ellipse = ellipse_is_better(chosen)
        return self

    @staticmethod
    def _best_category(annotations: Path) -> tuple[int, str]:
        """The category with the best PQ when it covers every picture whole; ties go to the larger area."""
        truth = json.loads(annotations.read_text(encoding="utf-8"))
        areas = {entry["id"]: entry["height"] * entry["width"] for entry in truth["images"]}
        scores: dict[int, tuple[float, int]] = {}
        for category in (entry["id"] for entry in truth["categories"]):
            shares = [
                segment["area"] / areas[entry["image_id"]]
                for entry in truth["annotations"]
                for segment in entry["segments_info"]
                if segment["category_id"] == category and not segment.get("iscrowd", 0)
            ]
            matched = [share for share in shares if share > 0.5]
            surplus = len(truth["annotations"]) - len(matched)
            missed = len(shares) - len(matched)
            quality = sum(matched) / max(len(matched) + (surplus + missed) / 2, 1)
            scores[category] = (quality, round(1e6 * sum(shares)))
        best = max(scores, key=lambda category: scores[category])
        names = {entry["id"]: entry["name"] for entry in truth["categories"]}
        return best, names[best]

    def panoptic(self, image: Image.Image) -> tuple[np.ndarray, dict[int, int]]:
        return np.ones((image.height, image.width), dtype=np.int64), {1: self.category}

    def instances(self, image: Image.Image) -> Iterable[tuple[int, float, np.ndarray]]:
        return self.prior.predict((image.height, image.width))

    def camvid(self, image: Image.Image) -> np.ndarray:
        return self.majority.predict((image.height, image.width))

    def open(self, image: Image.Image) -> "_TrivialClicks":
        return _TrivialClicks(self, (image.height, image.width))


class _TrivialClicks:
    def __init__(self, trivial: Trivial, size: tuple[int, int]):
        self.trivial, self.size = trivial, size

    def click(self, points: Sequence[Point]) -> np.ndarray:
        return self.trivial.disks.predict(self.size, points)

    def box(self, box: Sequence[float]) -> np.ndarray:
        return fill_box(self.size, box, ellipse=self.trivial.ellipse)


def untrained(trained: Predictor, *, seed: int = 0) -> Predictor:
    """The same configuration at random initialisation."""
    torch.manual_seed(seed)
    config = OmgSegConfig.from_dict(trained.model.config.to_dict())
    return Predictor(OmgSegForUniversalSegmentation(config), trained.processor, name="random initialisation")


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` items, spread evenly."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).astype(int).tolist()]


def measure(
    segmenter: Segmenter, data: Path, *, on_davis: Segmenter | None = None, limit: int | None = None
) -> dict[str, float]:
    """Every number of the table, on the val parts.

    Args:
        on_davis: Who answers on DAVIS; None = the same.
        limit: At most so many pictures for CamVid and for the clicks of each data set; None = all. PQ and AP always
            take all, as their official form is a whole json.
    """
    coco, camvid, davis = data / "coco_mini", data / "camvid", data / "davis2016_mini"
    classes = json.loads((camvid / "classes.json").read_text(encoding="utf-8"))
    objects = CocoInstances(coco / "instances_val.json", images=coco / "images")
    frames = YouTubeVisFrames(davis / "instances_val.json", images=davis / "JPEGImages", every=DAVIS_EVERY)
    numbers: dict[str, float] = {}
    steps: dict[str, Callable[[], dict[str, float]]] = {
        "coco panoptic": lambda: panoptic_quality(segmenter, coco / "panoptic_val.json", images=coco / "images"),
        "coco instances": lambda: average_precision(segmenter, coco / "instances_val.json", images=coco / "images"),
        "camvid": lambda: mean_iou(
            segmenter,
            evenly(sorted((camvid / "images" / "val").iterdir()), limit),
            labels=camvid / "labels" / "val",
            num_classes=len(classes["classes"]),
            void=classes["void"],
        ),
        "davis": lambda: click_iou(
            on_davis or segmenter, (frames[index] for index in evenly(range(len(frames)), limit)), clicks=CLICKS
        ),
        "coco clicks": lambda: click_iou(
            segmenter,
            (objects[index] for index in evenly(range(len(objects)), limit)),
            clicks=CLICKS,
            min_share=MIN_SHARE,
        ),
    }
    for name, step in steps.items():
        found = step()
        logger.info("%s: %s", name, {key: round(value, 4) for key, value in found.items()})
        numbers |= {f"{name} {key}": value for key, value in found.items()}
    return numbers


def report(
    weights: Path, data: Path, *, runs: Sequence[Path], earlier: dict[str, Any] | None, limit: int | None
) -> dict[str, Any]:
    """Everything that README and model card say about the weights, measured now.

    Args:
        weights: Exported folder.
        data: Folder of the data sets.
        runs: Folders of the training runs, one after another, for steps and minutes.
        earlier: What this function returned for the weights that the first run started from; the baselines, which do
            not depend on the weights, are taken from it.
        limit: As of `measure`.
    """
    trained = load(weights)
    trivial = Trivial(data)
    davis = data / "davis2016_mini"
    frames = YouTubeVisFrames(davis / "instances_train.json", images=davis / "JPEGImages", every=DAVIS_EVERY)
    on_davis = copy.copy(trivial).fit_clicks(frames)
    numbers = {"trained": measure(ModelSegmenter(trained), data, limit=limit)}
    if earlier is None:
        numbers["untrained"] = measure(ModelSegmenter(untrained(trained)), data, limit=limit)
        numbers["trivial"] = measure(trivial, data, on_davis=on_davis, limit=limit)
    else:
        numbers |= {who: earlier["numbers"][who] for who in ("untrained", "trivial")}
    counts = {
        "davis": (int(numbers["trained"]["davis objects"]), int(numbers["trained"]["davis pictures"])),
        "coco": (int(numbers["trained"]["coco clicks objects"]), int(numbers["trained"]["coco clicks pictures"])),
    }
    video = f"DAVIS 2016 val, {counts['davis'][1]} frames"
    clicked = f"COCO val, {counts['coco'][0]} objects in {counts['coco'][1]} images"
    camvid = "CamVid val, 101 images" if limit is None or limit >= 101 else f"CamVid val, {limit} of 101 images"
    whole = f"the whole picture as {trivial.category_name}"
    disk = "a disk around the click, radii fitted on train"
    layout = [
        ("PQ", "COCO panoptic val, 68 images", "coco panoptic PQ", whole),
        ("PQ, things", "COCO panoptic val, 68 images", "coco panoptic PQ_things", whole),
        ("PQ, stuff", "COCO panoptic val, 68 images", "coco panoptic PQ_stuff", whole),
        ("mask AP", "COCO instances val, 120 images", "coco instances AP", "each class at its median box"),
        ("mask AP50", "COCO instances val, 120 images", "coco instances AP50", "each class at its median box"),
        ("mIoU, 11 classes", camvid, "camvid mIoU", "the most frequent class at each place"),
        ("pixel accuracy", camvid, "camvid pixel_accuracy", "the most frequent class at each place"),
        *[(f"IoU after click {count}", video, f"davis IoU@{count}", disk) for count in (1, 3, 5)],
        ("IoU of a box", video, "davis box IoU", shape_of(on_davis)),
        *[(f"IoU after click {count}", clicked, f"coco clicks IoU@{count}", disk) for count in (1, 3, 5)],
        ("IoU of a box", clicked, "coco clicks box IoU", shape_of(trivial)),
    ]
    rows = [
        {
            "metric": metric,
            "data": where,
            **{who: _number(found[key]) for who, found in numbers.items()},
            "earlier": None if earlier is None else earlier["numbers"]["trained"][key],
            "trivial_is": what,
        }
        for metric, where, key, what in layout
    ]
    return {
        "rows": rows,
        "note": (
            "Val parts of the data sets, never trained on, at the full size of the pictures. Clicks are simulated: "
            "each goes to the middle of the larger error; DAVIS by every eighth frame, COCO by objects of at least "
            "0.5 % of the picture. The trivial baselines were fitted on the train parts."
        ),
        "numbers": {who: {key: _number(value) for key, value in found.items()} for who, found in numbers.items()},
        "training": [*(earlier["training"] if earlier else ()), *map(training_of, runs)],
        "machine": machine(),
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
    }


def shape_of(trivial: Trivial) -> str:
    return "the ellipse in the box" if trivial.ellipse else "the box itself"


def _number(value: float) -> float:
    """Tables hold numbers; a mean over nothing is zero there."""
    return 0.0 if math.isnan(value) else round(value, 6)


def training_of(run: Path) -> dict[str, Any]:
    """Steps, hours and images of a training run, from its log."""
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    entries = [entry for entry in entries if "loss" in entry]
    return {"steps": entries[-1]["step"], "minutes": round(entries[-1]["elapsed"] / 60, 1), "loss": entries[-1]["loss"]}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--weights", type=Path, required=True, help="exported folder")
    parser.add_argument(
        "--run", type=Path, action="append", help="folder of a training run, for steps and hours; one after another"
    )
    parser.add_argument("--earlier", type=Path, help="result file of the weights that the first run started from")
    parser.add_argument("--limit", type=int, help="at most so many pictures for CamVid and for clicks")
    parser.add_argument("--out", type=Path, required=True, help="result file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    earlier = None if options.earlier is None else json.loads(options.earlier.read_text(encoding="utf-8"))
    made = report(options.weights, options.data, runs=options.run or (), earlier=earlier, limit=options.limit)
    write_json(options.out, made)


if __name__ == "__main__":
    main()
