"""A quick look at a model in training: a few validation images at network size, without post-processing.

The numbers choose between runs; those to report come from `omgvision.evaluation`, at full size.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from omgvision.data.collate import collate
from omgvision.data.mixture import SampleDataset
from omgvision.data.sample import Batch, Sample
from omgvision.data.transforms import resize
from omgvision.evaluation.click_iou import ClickIoU, mask_iou, next_click
from omgvision.evaluation.mean_iou import MeanIoU
from omgvision.training.objective import SegmentationObjective, moved
from omgvision.training.pictures import VOID, row

logger = logging.getLogger(__name__)

PICTURES = 4
"""Samples of each data set that are shown during training."""


class Evaluation(Protocol):
    """What a run measures and shows of a model in training, given in evaluation mode with its averaged weights."""

    def __call__(self, objective: nn.Module) -> dict[str, float]:
        """Metric → number."""
        ...

    def pictures(self, objective: nn.Module) -> dict[str, Tensor]:
        """Name → uint8 [3, H, W]."""
        ...


def evenly(dataset: SampleDataset, count: int, *, strict: bool) -> list[Sample]:
    """`count` samples spread evenly over a data set; those that cannot be read are left out and named in the log.

    Raises:
        ValueError: One cannot be read and `strict`, or none can.
    """
    samples: list[Sample] = []
    faults: list[str] = []
    indices = spread(len(dataset), count)
    for index in indices:
        try:
            samples.append(dataset[index])
        except (OSError, ValueError) as error:
            faults.append(f"sample {index}: {error}")
            if strict or len(faults) == len(indices):
                raise ValueError(f"evaluation: {faults[-1]}") from error
    if faults:
        logger.warning("evaluation: left out %d of %d samples: %s", len(faults), len(indices), "; ".join(faults))
    return samples


def spread(length: int, count: int) -> list[int]:
    """At most `count` numbers from 0 to `length` - 1, evenly spread."""
    return np.linspace(0, length - 1, min(count, length)).astype(int).tolist()


class Probe:
    """Semantic quality and click quality on fixed samples.

    Args:
        semantic: Short name → samples whose every pixel is labelled (or void).
        clicks: Samples with object masks; the largest object of each is clicked.
        size: Height and width of the network input.
        clicks_per_object: Simulated clicks.
        batch_size: Images at once.
    """

    def __init__(
        self,
        semantic: dict[str, Sequence[Sample]],
        clicks: Sequence[Sample],
        *,
        size: tuple[int, int],
        clicks_per_object: int = 3,
        batch_size: int = 8,
    ):
        self.semantic = {name: self._batches(samples, size, batch_size) for name, samples in semantic.items()}
        self.clicks = self._batches([sample for sample in clicks if len(sample.labels)], size, batch_size)
        self.clicks_per_object = clicks_per_object

    @staticmethod
    def _batches(samples: Sequence[Sample], size: tuple[int, int], batch_size: int) -> list[Batch]:
        resized = [resize(sample, size=size, antialias=True) for sample in samples]
        return [collate(resized[start : start + batch_size]) for start in range(0, len(resized), batch_size)]

    def __call__(self, objective: nn.Module) -> dict[str, float]:
        assert isinstance(objective, SegmentationObjective)
        numbers: dict[str, float] = {}
        for name, batches in self.semantic.items():
            quality = MeanIoU(len(batches[0].names), ignore=VOID)
            embeddings = objective.embed(batches[0].names)
            for number, batch in enumerate(batches):
                maps = zip(semantic_maps(objective, batch, embeddings), label_maps(batch), strict=True)
                for index, (prediction, target) in enumerate(maps):
                    quality.update(f"{number} {index}", prediction, target)
            numbers |= {f"{name} {key}": value for key, value in quality.compute().items()}
        return numbers | click_quality(objective, self.clicks, clicks=self.clicks_per_object)

    def pictures(self, objective: nn.Module) -> dict[str, Tensor]:
        """The first samples of each semantic data set in rows of picture, truth and prediction."""
        assert isinstance(objective, SegmentationObjective)
        shown: dict[str, Tensor] = {}
        for name, batches in self.semantic.items():
            batch = batches[0]
            predicted = semantic_maps(objective, batch, objective.embed(batch.names))
            samples = zip(batch.pixel_values, label_maps(batch), predicted, strict=True)
            rows = [row(*one) for one in list(samples)[:PICTURES]]
            shown[name] = torch.from_numpy(np.concatenate(rows)).permute(2, 0, 1)
        return shown


def label_maps(batch: Batch) -> list[np.ndarray]:
    """Class of every pixel at stride 4, `VOID` where no mask is."""
    maps = []
    for masks, labels in zip(batch.mask_labels, batch.class_labels, strict=True):
        target = torch.full(masks.shape[-2:], VOID)
        for mask, label in zip(masks, labels, strict=True):
            target[mask] = label
        maps.append(target[2::4, 2::4].numpy())
    return maps


def semantic_maps(objective: SegmentationObjective, batch: Batch, embeddings: Tensor) -> list[np.ndarray]:
    """Most likely class of every pixel at stride 4: queries' class probabilities weighted by their masks."""
    batch = moved(batch, objective.model.device)
    output = objective.model(pixel_values=batch.pixel_values, pixel_mask=batch.pixel_mask, class_embeddings=embeddings)
    classes = output.class_queries_logits.softmax(-1)[..., :-1]
    scores = torch.einsum("bqk,bqhw->bkhw", classes, output.masks_queries_logits.sigmoid())
    return list(scores.argmax(1).cpu().numpy())


def click_quality(objective: SegmentationObjective, batches: Sequence[Batch], *, clicks: int) -> dict[str, float]:
    """IoU of the largest object of every image after each simulated click, at stride 4."""
    quality = ClickIoU(clicks)
    for number, batch in enumerate(batches):
        batch = moved(batch, objective.model.device)
        largest = [masks[masks.flatten(1).sum(1).argmax()] for masks in batch.mask_labels]
        targets = [mask[2::4, 2::4].cpu().numpy() for mask in largest]
        encoded = objective.model.encode(batch.pixel_values, pixel_mask=batch.pixel_mask)
        masks = [np.zeros_like(target) for target in targets]
        points: list[list[tuple[float, float]]] = [[] for _ in targets]
        labels: list[list[int]] = [[] for _ in targets]
        ious: list[list[float]] = [[] for _ in targets]
        previous: Tensor | None = None
        for _ in range(clicks):
            for index, (target, mask) in enumerate(zip(targets, masks, strict=True)):
                row, column, positive = next_click(target, mask)
                points[index].append((4.0 * column + 2, 4.0 * row + 2))
                labels[index].append(int(positive))
            output = objective.model(
                encoder_outputs=encoded,
                input_points=torch.tensor(points, device=objective.model.device)[:, None],
                input_point_labels=torch.tensor(labels, device=objective.model.device)[:, None],
                previous_mask_logits=previous,
            )
            previous = output.masks_queries_logits
            masks = [mask[0] for mask in (output.masks_queries_logits > 0).cpu().numpy()]
            for index, (target, mask) in enumerate(zip(targets, masks, strict=True)):
                ious[index].append(mask_iou(mask, target))
        for index, one in enumerate(ious):
            quality.update(f"{number} {index}", one)
    return {f"click {name}": value for name, value in quality.compute().items()}
