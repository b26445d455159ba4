"""Hungarian matching of masks and queries, equal to the original's.

Cheng et al., "Mask2Former" (2022), section 3.3.

Letters: L predictions (one a decoder layer and one before the first), B pictures or clips, Q queries, K classes,
n masks of one picture, T frames, h×w the stride-4 grid, H×W the target grid, P points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from .points_omg_seg import PointSource, neighbours, sample_at_neighbours, sample_shared_points

UNKNOWN_CLASS = -1
"""Label of a class-agnostic mask: it takes part in the mask losses, not in the class loss."""

QUERIES_AT_ONCE = 64
"""Rows of the matching costs that are computed together."""


class Layered(Protocol):
    """One tensor a decoder layer: a tuple of them, or all stacked. Masks are too large to be stacked for nothing."""

    def __len__(self) -> int: ...

    def __getitem__(self, layer: Any, /) -> Tensor: ...


@dataclass
class Predictions:
    """Predictions of L decoder layers.

    Attributes:
        class_logits: [L, B, Q, K + 1], void last.
        iou_logits: [L, B, Q].
        mask_logits: L times [B, Q, T, h, w].
    """

    class_logits: Tensor
    iou_logits: Tensor
    mask_logits: Layered


@dataclass(frozen=True)
class LossWeights:
    """Factors of the losses; those of the matching costs are the same (``cls``, ``mask``, ``dice``)."""

    cls: float
    mask: float
    dice: float
    iou: float
    void: float


Assignment = tuple[Tensor, Tensor]
"""Matched query indices, ascending, and the mask index of each."""


def flat_frames(masks: Tensor) -> Tensor:
    """The frames of a clip below each other: [..., T, h, w] → [..., T·h, w]."""
    return masks.flatten(-3, -2)


def pairwise_costs(
    class_logits: Tensor,
    predicted: Tensor,
    target: Tensor,
    labels: Tensor,
    weights: LossWeights,
) -> Tensor:
    """Matching cost of every query with every mask, for several layers at once.

    Args:
        class_logits: [L, Q, K + 1].
        predicted: [L, Q, P] mask logits at the points.
        target: [L, n, P] ground truth at the same points.
        labels: [n]; a class-agnostic mask costs nothing for the class.

    Returns:
        [L, Q, n].
    """
    known = labels != UNKNOWN_CLASS
    probabilities = class_logits.float().softmax(-1)
    class_cost = -probabilities[..., labels.clamp_min(0)] * known
    predicted, target = predicted.float(), target.float()
    # softplus(-x)·t + softplus(x)·(1 - t) = softplus(x) - x·t
    cross_entropy = F.softplus(predicted).sum(-1, keepdim=True) - predicted @ target.mT
    mask_cost = cross_entropy / predicted.shape[-1]
    inside = predicted.sigmoid()
    overlap = 2 * (inside @ target.mT)
    total = inside.sum(-1)[..., None] + target.sum(-1)[..., None, :]
    dice_cost = 1 - (overlap + 1) / (total + 1)
    return weights.cls * class_cost + weights.mask * mask_cost + weights.dice * dice_cost


def assign(costs: Tensor) -> list[Assignment]:
    """Cheapest one-to-one assignment of each layer: costs [L, Q, n] → L assignments."""
    assignments = []
    # Costs that are not finite must not stop the matching: the loss is not finite either, and says so.
    for cost in costs.detach().nan_to_num().cpu().numpy():
        queries, masks = linear_sum_assignment(cost)
        assignments.append((torch.from_numpy(queries), torch.from_numpy(masks)))
    return assignments


@torch.no_grad()
def match(
    predictions: Predictions,
    mask_labels: Sequence[Tensor],
    class_labels: Sequence[Tensor],
    weights: LossWeights,
    points: PointSource,
) -> list[list[Assignment]]:
    """Assigns masks to queries in every layer and picture.

    Args:
        mask_labels: B tensors [n, T, H, W].
        class_labels: B tensors [n].

    Returns:
        ``assignments[layer][image]``.
    """
    layers, images = predictions.class_logits.shape[:2]
    device = predictions.class_logits.device
    drawn = [[points.matching(layer, image, device) for image in range(images)] for layer in range(layers)]
    by_image = []
    for image, (segments, labels) in enumerate(zip(mask_labels, class_labels, strict=True)):
        if not len(segments):
            empty = torch.empty(0, dtype=torch.long)
            by_image.append([(empty, empty)] * layers)
            continue
        at = torch.stack([drawn[layer][image] for layer in range(layers)])
        truth = sample_shared_points(flat_frames(segments)[None].float(), at.flatten(0, 1)[None])[0]
        truth = truth.unflatten(-1, at.shape[:2])
        costs = []
        for layer in range(layers):
            masks = flat_frames(predictions.mask_logits[layer][image])
            around = neighbours(at[layer], (masks.shape[-2], masks.shape[-1]))
            # The values of all queries at all points are large; those of some stay in the cache of a processor.
            classes = predictions.class_logits[layer, image].split(QUERIES_AT_ONCE)
            rows = [
                pairwise_costs(
                    some_classes[None],
                    sample_at_neighbours(some_masks.float(), *around)[None],
                    truth[None, :, layer],
                    labels,
                    weights,
                )
                for some_classes, some_masks in zip(classes, masks.split(QUERIES_AT_ONCE), strict=True)
            ]
            costs.append(torch.cat(rows, dim=1)[0])
        by_image.append(assign(torch.stack(costs)))
    return [list(layer) for layer in zip(*by_image, strict=True)]


__all__ = ["UNKNOWN_CLASS", "Assignment", "Layered", "LossWeights", "Predictions", "flat_frames", "match"]
