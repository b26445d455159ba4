"""Hungarian matching and losses, equal to the original's.

Cheng et al., "Mask2Former" (2022), section 3.3, with the IoU-branch focal loss and the prompt batches of OMG-Seg.

Letters: L predictions (one a decoder layer and one before the first), B pictures or clips, Q queries, K classes,
n masks of one picture, N masks of the batch, T frames, h×w the stride-4 grid, H×W the target grid, P points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

UNKNOWN_CLASS = -1
"""Label of a class-agnostic mask: it takes part in the mask losses, not in the class loss."""


@dataclass
class Predictions:
    """Stacked predictions of L decoder layers.

    Attributes:
        class_logits: [L, B, Q, K + 1], void last.
        iou_logits: [L, B, Q].
        mask_logits: [L, B, Q, T, h, w].
    """

    class_logits: Tensor
    iou_logits: Tensor
    mask_logits: Tensor


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


class PointSource(Protocol):
    """Chooses where masks are compared; coordinates are xy in [0, 1]."""

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        """[P, 2], shared by all queries and masks of one picture."""
        ...

    def loss(self, layer: int, logits: Tensor) -> Tensor:
        """[N, P, 2] for the matched mask logits [N, h, w]."""
        ...


@dataclass(frozen=True)
class RandomPoints:
    """Uniform points for the matching; for the losses most of the points lie where the prediction is uncertain.

    PointRend (Kirillov et al., 2020), section 3.1: ``oversample`` times as many candidates are drawn, the share
    ``importance`` of the points are the candidates nearest to logit 0, the rest is uniform.
    """

    count: int
    oversample: float
    importance: float

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        """Uniform [P, 2]."""
        return torch.rand(self.count, 2, device=device)

    @torch.no_grad()
    def loss(self, layer: int, logits: Tensor) -> Tensor:
        """Uncertain and uniform points [N, P, 2]."""
        masks = len(logits)
        candidates = torch.rand(masks, int(self.count * self.oversample), 2, device=logits.device)
        uncertain = int(self.importance * self.count)
        nearest = sample_points(logits, candidates).abs().topk(uncertain, dim=1, largest=False).indices
        chosen = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
        uniform = torch.rand(masks, self.count - uncertain, 2, device=logits.device)
        return torch.cat((chosen, uniform), dim=1)


def sample_points(planes: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of each plane at its own points, zero outside.

    Args:
        planes: [N, h, w].
        points: [N, P, 2] xy in [0, 1].

    Returns:
        [N, P].
    """
    sampled = F.grid_sample(planes[:, None], 2 * points[:, :, None] - 1, mode="bilinear", align_corners=False)
    return sampled[:, 0, :, 0]


def sample_shared_points(planes: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of all planes [G, X, h, w] at points [G, P, 2] shared by a group's X planes → [G, X, P]."""
    return F.grid_sample(planes, 2 * points[:, None] - 1, mode="bilinear", align_corners=False)[:, :, 0]


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
    overlap = 2 * inside @ target.mT
    total = inside.sum(-1)[..., None] + target.sum(-1)[..., None, :]
    dice_cost = 1 - (overlap + 1) / (total + 1)
    return weights.cls * class_cost + weights.mask * mask_cost + weights.dice * dice_cost


def assign(costs: Tensor) -> list[Assignment]:
    """Cheapest one-to-one assignment of each layer: costs [L, Q, n] → L assignments."""
    assignments = []
    for cost in costs.detach().cpu().numpy():
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
    device = predictions.mask_logits.device
    drawn = [[points.matching(layer, image, device) for image in range(images)] for layer in range(layers)]
    by_image = []
    for image, (masks, labels) in enumerate(zip(mask_labels, class_labels, strict=True)):
        if not len(masks):
            empty = torch.empty(0, dtype=torch.long)
            by_image.append([(empty, empty)] * layers)
            continue
        at = torch.stack([drawn[layer][image] for layer in range(layers)])
        predicted = sample_shared_points(_flat(predictions.mask_logits[:, image]).float(), at)
        target = sample_shared_points(_flat(masks)[None].to(predicted.dtype), at.flatten(0, 1)[None])
        target = target[0].unflatten(-1, at.shape[:2]).transpose(0, 1)
        by_image.append(assign(pairwise_costs(predictions.class_logits[:, image], predicted, target, labels, weights)))
    return [list(layer) for layer in zip(*by_image, strict=True)]


def object_losses(
    predictions: Predictions,
    mask_labels: Sequence[Tensor],
    class_labels: Sequence[Tensor],
    assignments: Sequence[Sequence[Assignment]],
    weights: LossWeights,
    points: PointSource,
    *,
    num_masks: float | None = None,
) -> dict[str, Tensor]:
    """Class, IoU-branch, mask and dice losses of object queries.

    Args:
        num_masks: Number of masks to divide by, where a trainer averages it over processes; None = those of this batch.

    Returns:
        ``loss_cls`` (with the IoU branch in it), ``loss_mask`` and ``loss_dice`` of the last layer, and the same with
        the prefix ``d0.``, ``d1.``, … for the earlier ones.
    """
    logits, device = predictions.class_logits.float(), predictions.class_logits.device
    layers, images, queries, classes = logits.shape
    void = classes - 1
    pairs = [(layer, image, *pair) for layer, row in enumerate(assignments) for image, pair in enumerate(row)]
    # One gather for all layers and images: indexing them one by one would cost a full-size gradient each.
    at = (
        torch.cat([torch.full_like(query, layer) for layer, _, query, _ in pairs]).to(device),
        torch.cat([torch.full_like(query, image) for _, image, query, _ in pairs]).to(device),
        torch.cat([query for _, _, query, _ in pairs]).to(device),
    )
    targets = torch.full((layers, images, queries), void, device=device)
    targets[at] = torch.cat([class_labels[image].to(device)[mask.to(device)] for _, image, _, mask in pairs])
    matched = targets != void
    known = targets != UNKNOWN_CLASS
    importance = torch.where(targets == void, weights.void, 1.0) * known
    entropy = F.cross_entropy(logits.flatten(0, 2), (targets * known).flatten(), reduction="none").view(targets.shape)
    normalizer = importance.sum((1, 2)).clamp_min(1) + torch.finfo(torch.float32).eps
    class_loss = weights.cls * (entropy * importance).sum((1, 2)) / normalizer
    focal = focal_loss(predictions.iou_logits.float(), matched.float()).sum((1, 2))
    iou_loss = weights.iou * focal / normalizer

    total = len(at[0]) // layers
    truth = torch.cat([_flat(mask_labels[image])[mask.to(device)] for _, image, _, mask in pairs])
    mask_loss, dice_loss = mask_losses(
        _flat(predictions.mask_logits[at]).unflatten(0, (layers, total)),
        truth.unflatten(0, (layers, total)),
        weights,
        points,
        num_masks=max(1.0, total if num_masks is None else num_masks),
    )
    return _named(class_loss + iou_loss, mask_loss, dice_loss)


def prompt_losses(
    mask_logits: Tensor,
    mask_labels: Sequence[Tensor],
    prompt_mask: Tensor | None,
    weights: LossWeights,
    points: PointSource,
) -> dict[str, Tensor]:
    """Losses of prompt queries: prompt i is compared with mask i, nothing is matched or classified.

    As in the original the sums are divided by the number of prompts of one picture, not of the batch.

    Args:
        mask_logits: [L, B, Q, T, h, w].
        mask_labels: B tensors [n, T, H, W], one mask for every real prompt.
        prompt_mask: [B, Q] bool, which prompts are real; None = all.
    """
    layers, images, prompts = mask_logits.shape[:3]
    if prompt_mask is None:
        prompt_mask = torch.ones(images, prompts, dtype=torch.bool, device=mask_logits.device)
    counts = prompt_mask.sum(1).tolist()
    for count, masks in zip(counts, mask_labels, strict=True):
        if count != len(masks):
            raise ValueError(f"mask_labels: expected one mask for each of the {count} prompts, got {len(masks)}")
    truth = torch.cat([_flat(masks) for masks in mask_labels])
    mask_loss, dice_loss = mask_losses(
        _flat(mask_logits[:, prompt_mask]),
        truth.expand(layers, *truth.shape),
        weights,
        points,
        num_masks=max(1.0, sum(counts) / images),
    )
    return _named(torch.zeros_like(mask_loss), mask_loss, dice_loss)


def mask_losses(
    logits: Tensor, truth: Tensor, weights: LossWeights, points: PointSource, *, num_masks: float
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice at sampled points.

    Args:
        logits: [L, N, h, w] of the matched queries.
        truth: [L, N, H, W].

    Returns:
        Two tensors [L].
    """
    layers, masks = logits.shape[:2]
    if not masks:
        nothing = logits.sum((1, 2, 3))
        return nothing, nothing
    logits = logits.float()
    at = torch.stack([points.loss(layer, logits[layer].detach()) for layer in range(layers)]).flatten(0, 1)
    predicted = sample_points(logits.flatten(0, 1), at).unflatten(0, (layers, masks))
    with torch.no_grad():
        target = sample_points(truth.flatten(0, 1).to(predicted.dtype), at).unflatten(0, (layers, masks))
    entropy = F.binary_cross_entropy_with_logits(predicted, target, reduction="none").mean(-1)
    inside = predicted.sigmoid()
    overlap = (inside * target).sum(-1)
    dice = 1 - (2 * overlap + 1) / (inside.sum(-1) + target.sum(-1) + 1)
    return weights.mask * entropy.sum(1) / num_masks, weights.dice * dice.sum(1) / num_masks


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Element-wise sigmoid focal loss (Lin et al., 2017, equation 5)."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets
    balance = (1 - alpha) + (2 * alpha - 1) * targets
    return balance * wrong**gamma * entropy


def dense_class_loss(pixel_logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of pixel logits [..., K + 1] with labels [...]; pixels without a class (-1) do not count."""
    known = labels != UNKNOWN_CLASS
    entropy = F.cross_entropy(pixel_logits.float().flatten(0, -2), (labels * known).flatten(), reduction="none")
    return (entropy * known.flatten()).sum() / known.sum().clamp_min(1)


def label_maps(mask_labels: Sequence[Tensor], class_labels: Sequence[Tensor], shape: tuple[int, int]) -> Tensor:
    """Class of every cell, the smallest mask on top, -1 where none is: [B, T, *shape]."""
    maps = []
    for masks, labels in zip(mask_labels, class_labels, strict=True):
        small = F.interpolate(masks.to(torch.uint8), size=shape, mode="nearest").bool()
        order = masks.flatten(1).sum(1).argsort(descending=True)
        result = torch.full(small.shape[1:], UNKNOWN_CLASS, device=masks.device)
        for index in order.tolist():
            result = torch.where(small[index], labels[index].to(result.dtype), result)
        maps.append(result)
    return torch.stack(maps)


def _flat(masks: Tensor) -> Tensor:
    """The frames of a clip below each other: [..., T, h, w] → [..., T·h, w]."""
    return masks.flatten(-3, -2)


def _named(class_loss: Tensor, mask_loss: Tensor, dice_loss: Tensor) -> dict[str, Tensor]:
    last = len(class_loss) - 1
    losses = {}
    for layer in range(last + 1):
        prefix = "" if layer == last else f"d{layer}."
        losses[f"{prefix}loss_cls"] = class_loss[layer]
        losses[f"{prefix}loss_mask"] = mask_loss[layer]
        losses[f"{prefix}loss_dice"] = dice_loss[layer]
    return losses


__all__ = [
    "LossWeights",
    "Predictions",
    "PointSource",
    "RandomPoints",
    "dense_class_loss",
    "label_maps",
    "match",
    "object_losses",
    "prompt_losses",
]
