"""Samples of one dataset → a Batch on a common canvas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .sample import Batch, Sample
from .transforms import normalise

SIZE_DIVISOR = 32


def collate(samples: Sequence[Sample]) -> Batch:
    """Normalises and pads (right and bottom, with 0, to a multiple of 32).

    Args:
        samples: at least one, all with the same vocabulary.
    Raises:
        ValueError: no sample, or samples of different vocabularies.
    """
    if not samples:
        raise ValueError("samples: expected at least one")
    first = samples[0]
    if any(sample.names != first.names for sample in samples):
        datasets = sorted({sample.dataset for sample in samples})
        raise ValueError(f"samples: one batch takes one vocabulary, got those of {', '.join(datasets)}")
    height = _divisible(max(sample.size[0] for sample in samples))
    width = _divisible(max(sample.size[1] for sample in samples))
    pixel_values = torch.zeros((len(samples), 3, height, width))
    pixel_mask = torch.zeros((len(samples), height, width), dtype=torch.bool)
    mask_labels = []
    for index, sample in enumerate(samples):
        rows, columns = sample.size
        pixel_values[index, :, :rows, :columns] = normalise(sample.image)
        pixel_mask[index, :rows, :columns] = True
        masks = torch.zeros((len(sample.labels), height, width), dtype=torch.bool)
        masks[:, :rows, :columns] = sample.masks
        mask_labels.append(masks)
    return Batch(
        pixel_values=pixel_values,
        pixel_mask=pixel_mask,
        mask_labels=mask_labels,
        class_labels=[sample.labels for sample in samples],
        names=first.names,
        things=first.things,
        sample_ids=tuple(sample.sample_id for sample in samples),
        dataset=first.dataset,
    )


def _divisible(length: int) -> int:
    return -(-length // SIZE_DIVISOR) * SIZE_DIVISOR
