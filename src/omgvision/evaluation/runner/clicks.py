"""Objects that are pointed at: simulated clicks, each at the middle of the larger error, and tight boxes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omgvision.data.sample import Sample, SampleDataset
from omgvision.evaluation.click_iou import mask_iou
from omgvision.evaluation.evaluate import ModelClicks, clicked_masks, picture
from omgvision.evaluation.runner.files import write_list
from omgvision.evaluation.runner.task import (
    Graded,
    Outcome,
    Panel,
    Records,
    Settings,
    Task,
    decoded,
    run_lengths,
)
from omgvision.evaluation.scores import click_iou
from omgvision.evaluation.trivial import box_of
from omgvision.predictor import Predictor


class ClickedObjects(Task):
    """IoU after every click, number of clicks, IoU of a box. A sample is a picture with all its objects."""

    quality = "IoU@1"

    def __init__(self, samples: SampleDataset, *, predictor: Predictor, settings: Settings):
        self.samples, self.predictor, self.settings = samples, predictor, settings
        self.sample_ids = [f"{index:06d}" for index in range(len(samples))]

    def name(self, sample_id: str, record: Mapping[str, Any]) -> str:
        return record["name"]

    def predict(self, sample_id: str, out: Path) -> Outcome:
        del out
        sample = self.samples[int(sample_id)]
        opened = ModelClicks(self.predictor.open(picture(sample))) if len(sample.labels) else None
        objects, ious = [], []
        for number, target in enumerate(self._targets(sample)):
            assert opened is not None
            masks = list(clicked_masks(opened, target, clicks=self.settings.clicks))
            ious.append(mask_iou(masks[0], target))
            objects.append(
                {
                    "id": f"{sample_id}/{number}",
                    "gt": run_lengths(target),
                    "masks": [run_lengths(mask) for mask in masks],
                    "box": run_lengths(opened.box(box_of(target))),
                }
            )
        return Outcome({"name": sample.sample_id, "objects": objects}, float(np.mean(ious)) if ious else None)

    def _targets(self, sample: Sample) -> Iterator[np.ndarray]:
        for mask in sample.masks.numpy():
            if mask.mean() >= max(self.settings.min_share, 1e-9):
                yield mask

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del workers
        truth, clicks, boxes = (out / f"{name}.json" for name in ("ground_truth", "clicks", "boxes"))

        def objects() -> Iterator[dict[str, Any]]:
            return (one for sample_id in sample_ids for one in records[sample_id]["objects"])

        around = ('{"samples": ', "}")
        write_list(truth, ({"id": one["id"], "gt": one["gt"]} for one in objects()), around=around)
        write_list(clicks, ({"id": one["id"], "masks": one["masks"]} for one in objects()), around=around)
        write_list(boxes, ({"id": one["id"], "masks": [one["box"]]} for one in objects()), around=around)
        most = self.settings.clicks
        numbers = click_iou.score(truth, clicks, clicks=most)
        numbers["box IoU"] = click_iou.score(truth, boxes, clicks=1)["IoU@1"]
        words = ("clicks", "--gt", str(truth), "--pred", str(clicks), "--max-clicks", str(most))
        return Graded(numbers, words, note=f"NoC and over_max count clicks, {most} at most, and are no fractions.")

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del out
        objects = list(enumerate(record["objects"]))
        return Panel(
            picture(self.samples[int(sample_id)]),
            [(decoded(one["gt"]), number) for number, one in objects],
            [(decoded(one["masks"][0]), number) for number, one in objects],
        )
