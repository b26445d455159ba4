"""How good a model in training is on annotated pictures, measured as users would use it: at their full size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor, nn

from omgvision.data.sample import Sample
from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.evaluate import picture
from omgvision.evaluation.mean_iou import MeanIoU
from omgvision.evaluation.panoptic_quality import PanopticQuality
from omgvision.evaluation.panoptic_quality import SegmentLabel as Truth
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.predictor import Predictor
from omgvision.training.objective import SegmentationObjective
from omgvision.training.pictures import column
from omgvision.training.probe import PICTURES
from omgvision.training.words import FixedWords

VOID = -1


class Validation:
    """Mask AP of the countable classes, PQ, and mIoU where a picture is labelled all over.

    Args:
        samples: Annotated pictures of one vocabulary, which is also the one stored with the model.
    """

    def __init__(self, samples: Sequence[Sample]):
        self.samples = samples
        self.names, self.things = samples[0].names, samples[0].things

    def __call__(self, objective: nn.Module) -> dict[str, float]:
        """objective in evaluation mode → metric → fraction."""
        assert isinstance(objective, SegmentationObjective)
        return self.measure(Predictor(objective.model, processor_of(objective)))

    def measure(self, predictor: Predictor) -> dict[str, float]:
        """The same of a model whose own vocabulary is that of the samples."""
        numbers: dict[str, float] = {}
        if any(self.things):
            numbers |= self.average_precision(predictor)
        numbers |= self.panoptic_quality(predictor)
        if not all(self.things):
            numbers["mIoU"] = self.mean_iou(predictor)
        return numbers

    def average_precision(self, predictor: Predictor) -> dict[str, float]:
        """AP and AP50 of the things."""
        precision = AveragePrecision(coco_truth(self.samples))
        for number, sample in enumerate(self.samples, start=1):
            result = predictor.segment(picture(sample), task="instance", threshold=0.0)
            found = [
                {"category_id": segment.label_id, "score": segment.score, "segmentation": run_lengths(segment.mask)}
                for segment in result.segments
            ]
            precision.update(str(number), found)
        numbers = precision.compute()
        return {"AP": numbers["AP"], "AP50": numbers["AP50"]}

    def panoptic_quality(self, predictor: Predictor) -> dict[str, float]:
        """PQ, SQ and RQ; see `panoptic_truth` for what counts where nothing, or several objects, are annotated."""
        quality = PanopticQuality(dict(enumerate(self.things)))
        for number, sample in enumerate(self.samples):
            result = predictor.segment(picture(sample), task="panoptic")
            predicted = {
                segment.id: Truth(segment.label_id) for segment in result.segments if segment.label_id is not None
            }
            quality.update(str(number), result.label_map, predicted, *panoptic_truth(sample))
        numbers = quality.compute()
        return {name: numbers[name] for name in ("PQ", "SQ", "RQ")}

    def mean_iou(self, predictor: Predictor) -> float:
        """Mean IoU of the classes; pixels without a class do not count."""
        quality = MeanIoU(len(self.names), ignore=VOID)
        for number, sample in enumerate(self.samples):
            prediction = predictor.segment(picture(sample), task="semantic").semantic_map()
            classes = torch.cat((torch.tensor([VOID]), sample.labels))
            quality.update(str(number), prediction, classes[flat_segments(sample)].numpy())
        return quality.compute()["mIoU"]

    def pictures(self, objective: nn.Module) -> dict[str, Tensor]:
        """The first samples in columns: annotated above, found below."""
        assert isinstance(objective, SegmentationObjective)
        predictor = Predictor(objective.model, processor_of(objective))
        shown: dict[str, Tensor] = {}
        for sample in self.samples[:PICTURES]:
            image = picture(sample)
            found = [segment.mask for segment in predictor.segment(image, task="panoptic").segments]
            drawn = column(image, list(sample.masks.numpy()), found)
            shown[sample.sample_id] = torch.from_numpy(drawn).permute(2, 0, 1)
        return shown


def processor_of(objective: SegmentationObjective) -> OmgSegProcessor:
    """The processor of the weights that the objective started from; its class names are encoded once, with it."""
    assert isinstance(objective.embed, FixedWords)
    return objective.embed.processor


def flat_segments(sample: Sample) -> Tensor:
    """One layer of the sample's, int64 [H, W]: where segments overlap, the smallest is on top."""
    layers = sample.segment_layers.long()
    # What is no segment lies under all of them.
    areas = torch.cat((torch.tensor([torch.iinfo(torch.int64).max]), sample.areas()))
    return layers.gather(0, areas[layers].argmin(0, keepdim=True))[0]


def panoptic_truth(sample: Sample) -> tuple[np.ndarray, dict[int, Truth]]:
    """The ids of the segments [H, W], and what each is; all of them count, one without a pixel of its own is missed.

    Where all classes are countable, what is not annotated is background: a number without a segment, on which whatever
    is found is wrong. Where there is stuff, everything is annotated but what is void (0), which is passed over.
    """
    target = flat_segments(sample).numpy()
    if all(sample.things):
        target[target == 0] = len(sample.labels) + 1
    return target, {number: Truth(label) for number, label in enumerate(sample.labels.tolist(), start=1)}


def coco_truth(samples: Sequence[Sample]) -> dict[str, Any]:
    """The countable objects of the samples as the content of a COCO instances json; images are numbered from 1."""
    things = samples[0].things
    annotations = []
    for number, sample in enumerate(samples, start=1):
        for mask, label in zip(sample.masks.numpy(), sample.labels.tolist(), strict=True):
            if label < 0 or not things[label]:
                continue
            runs = run_lengths(mask)
            area = int(mask.sum())
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": label,
                    "segmentation": runs,
                    "area": area,
                    "bbox": coco_mask.toBbox(runs).tolist(),
                    "iscrowd": 0,
                }
            )
    images = [
        {"id": number, "height": sample.size[0], "width": sample.size[1]}
        for number, sample in enumerate(samples, start=1)
    ]
    categories = [{"id": label, "name": name} for label, name in enumerate(samples[0].names) if things[label]]
    return {"images": images, "annotations": annotations, "categories": categories}


def run_lengths(mask: np.ndarray) -> Any:
    """Bool [H, W] → COCO's compressed run lengths."""
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
