"""How well a model in training answers clicks and boxes, where objects have no classes, at the pictures' full size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from omgvision.data.sample import Sample
from omgvision.evaluation.evaluate import ModelSegmenter, click_iou, clicked_masks, picture
from omgvision.predictor import Predictor
from omgvision.training.objective import SegmentationObjective
from omgvision.training.pictures import column
from omgvision.training.probe import PICTURES, spread
from omgvision.training.validation import processor_of

CLICKS = 3

OBJECTS = 4
"""Of a picture that are asked for, evenly spread: some have a hundred."""


class PromptValidation:
    """IoU after each simulated click, and of tight boxes.

    Args:
        samples: Annotated pictures; those without an object are left out.

    Raises:
        ValueError: None has an object.
    """

    def __init__(self, samples: Sequence[Sample]):
        self.samples = [with_few_objects(sample) for sample in samples if len(sample.labels)]
        if not self.samples:
            raise ValueError(
                f"evaluation: expected pictures with objects, got {len(samples)} without; give others as val="
            )

    def __call__(self, objective: nn.Module) -> dict[str, float]:
        """objective in evaluation mode → metric → fraction."""
        numbers = click_iou(segmenter_of(objective), self.samples, clicks=CLICKS)
        clicks = {f"click IoU@{count}": numbers[f"IoU@{count}"] for count in range(1, CLICKS + 1)}
        return clicks | {"box IoU": numbers["box IoU"]}

    def pictures(self, objective: nn.Module) -> dict[str, Tensor]:
        """The first samples in columns: annotated above, found with a click on each object below."""
        segmenter = segmenter_of(objective)
        shown: dict[str, Tensor] = {}
        for sample in self.samples[:PICTURES]:
            opened, annotated = segmenter.open(picture(sample)), list(sample.masks.numpy())
            found = [next(clicked_masks(opened, mask, clicks=1)) for mask in annotated]
            shown[sample.sample_id] = torch.from_numpy(column(picture(sample), annotated, found)).permute(2, 0, 1)
        return shown


def segmenter_of(objective: nn.Module) -> ModelSegmenter:
    assert isinstance(objective, SegmentationObjective)
    return ModelSegmenter(Predictor(objective.model, processor_of(objective)))


def with_few_objects(sample: Sample) -> Sample:
    """The sample with `OBJECTS` of its objects at most."""
    keep = torch.zeros(len(sample.labels), dtype=torch.bool)
    keep[spread(len(keep), OBJECTS)] = True
    return sample.keeping(keep)
