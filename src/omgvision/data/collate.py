"""Samples or clips of one dataset → a Batch on a common canvas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .sample import Batch, Clip, Sample
from .transforms import normalise

SIZE_DIVISOR = 32


def collate(samples: Sequence[Sample | Clip], *, size: tuple[int, int] = (1, 1)) -> Batch:
    """Normalises and pads (right and bottom, with 0, to a multiple of 32).

    Args:
        samples: at least one, all with the same vocabulary; images, or clips of equally many frames.
        size: least (height, width) of the canvas.
    Raises:
        ValueError: no sample, samples of different vocabularies, images among clips, clips of different lengths.
    """
    if not samples:
        raise ValueError("samples: expected at least one")
    first = samples[0]
    if any(sample.names != first.names for sample in samples):
        datasets = sorted({sample.dataset for sample in samples})
        raise ValueError(f"samples: one batch takes one vocabulary, got those of {', '.join(datasets)}")
    lengths = {len(sample.frames) if isinstance(sample, Clip) else 0 for sample in samples}
    if len(lengths) > 1:
        found = " and ".join(f"clips of {length} frames" if length else "images" for length in sorted(lengths))
        raise ValueError(f"samples: one batch takes images or clips of one length, got {found}")
    height = _divisible(max(size[0], *(sample.size[0] for sample in samples)))
    width = _divisible(max(size[1], *(sample.size[1] for sample in samples)))
    frames = [sample.frames if isinstance(sample, Clip) else (sample,) for sample in samples]
    pixel_values = torch.zeros((len(samples), len(frames[0]), 3, height, width))
    pixel_mask = torch.zeros((len(samples), height, width), dtype=torch.bool)
    mask_labels = []
    for index, sample in enumerate(samples):
        rows, columns = sample.size
        pixel_mask[index, :rows, :columns] = True
        masks = torch.zeros((len(sample.labels), len(frames[index]), height, width), dtype=torch.bool)
        for time, frame in enumerate(frames[index]):
            pixel_values[index, time, :, :rows, :columns] = normalise(frame.image)
            masks[:, time, :rows, :columns] = frame.masks
        mask_labels.append(masks)
    if isinstance(first, Sample):
        pixel_values, mask_labels = pixel_values[:, 0], [masks[:, 0] for masks in mask_labels]
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
