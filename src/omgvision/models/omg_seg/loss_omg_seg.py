"""Hungarian matching and losses, equal to the original's.

Cheng et al., "Mask2Former" (2022), section 3.3, with the IoU-branch focal loss and the prompt batches of OMG-Seg.

Letters: L predictions (one a decoder layer and one before the first), B pictures or clips, Q queries, K classes,
n masks of one picture, N masks of the batch, T frames, h×w the stride-4 grid, H×W the target grid, P points.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

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

    Attributes:
        generators: One for each picture, so that what is drawn for it does not depend on the others of its batch; None
            takes all from torch's own.
        masks: How many masks of each picture take part in the losses; needed with ``generators``.
    """

    count: int
    oversample: float
    importance: float
    generators: Sequence[torch.Generator] | None = None
    masks: Sequence[int] = ()

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        """Uniform [P, 2]."""
        generator = None if self.generators is None else self.generators[image]
        return torch.rand(self.count, 2, generator=generator, device=device)

    @torch.no_grad()
    def loss(self, layer: int, logits: Tensor) -> Tensor:
        """Uncertain and uniform points [N, P, 2]."""
        candidates = self._uniform(logits, int(self.count * self.oversample))
        uncertain = int(self.importance * self.count)
        nearest = smallest(sample_points(logits, candidates).abs(), uncertain)
        chosen = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
        return torch.cat((chosen, self._uniform(logits, self.count - uncertain)), dim=1)

    def _uniform(self, logits: Tensor, points: int) -> Tensor:
        """[N, points, 2] for the masks [N, h, w]."""
        if self.generators is None:
            return torch.rand(len(logits), points, 2, device=logits.device)
        drawn = [
            torch.rand(masks, points, 2, generator=generator, device=logits.device)
            for masks, generator in zip(self.masks, self.generators, strict=True)
        ]
        return torch.cat(drawn)


def smallest(values: Tensor, count: int) -> Tensor:
    """Indices [N, count] of the smallest values [N, M] of each row, in any order."""
    if values.device.type == "cpu":
        # A fifth of the time that topk takes.
        return torch.from_numpy(np.argpartition(values.numpy(), count - 1, axis=1)[:, :count])
    return values.topk(count, dim=1, largest=False, sorted=False).indices


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


def sample_chosen(planes: Tensor, points: Tensor, chosen: Tensor | None) -> Tensor:
    """As :func:`sample_points`, of the planes ``chosen`` [N], none twice; None = all in their order.

    There are far fewer points than pixels, so the points are brought into the order of the planes.
    """
    if chosen is None:
        return sample_points(planes, points)
    order = chosen.argsort()
    if len(chosen) < len(planes):
        planes = planes[chosen[order]]
    return torch.empty_like(points[..., 0]).index_copy(0, order, sample_points(planes, points[order]))


def sample_shared_points(planes: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of all planes [G, X, h, w] at points [G, P, 2] shared by a group's X planes → [G, X, P]."""
    size = (planes.shape[-2], planes.shape[-1])
    pairs = zip(planes, points, strict=True)
    return torch.stack([sample_at_neighbours(group, *neighbours(at, size)) for group, at in pairs])


def neighbours(points: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The four cells around each point, which make its bilinear value.

    Args:
        points: [P, 2] xy in [0, 1].
        size: (h, w) of the grid.

    Returns:
        Cell numbers int32 [P, 4], row by row, and their weights [P, 4], zero outside of the grid.
    """

    def along(place: Tensor, cells: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # In the order of operations that grid_sample has, which decides the last digits.
        place = ((2 * place - 1 + 1) * cells - 1) / 2
        low = place.floor()
        far = place - low
        near = (1 - far) * (low >= 0)
        return low.clamp_min(0).int(), (low + 1).clamp_max(cells - 1).int(), near, far * (low < cells - 1)

    height, width = size
    left, right, at_left, at_right = along(points[:, 0], width)
    top, bottom, at_top, at_bottom = along(points[:, 1], height)
    cells = (top * width + left, top * width + right, bottom * width + left, bottom * width + right)
    weights = (at_top * at_left, at_top * at_right, at_bottom * at_left, at_bottom * at_right)
    return torch.stack(cells, dim=-1), torch.stack(weights, dim=-1)


def sample_at_neighbours(planes: Tensor, cells: Tensor, weights: Tensor) -> Tensor:
    """Bilinear values of planes [X, h, w] at points given by their :func:`neighbours` → [X, P].

    Equal to ``grid_sample``. With the planes last, the values of a cell in all of them lie side by side, so that a
    point is a sum of four rows: many times faster.
    """
    table = planes.flatten(1).T.contiguous()
    return F.embedding_bag(cells, table, per_sample_weights=weights.to(table.dtype), mode="sum").T


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
    device = predictions.class_logits.device
    drawn = [[points.matching(layer, image, device) for image in range(images)] for layer in range(layers)]
    by_image = []
    for image, (segments, labels) in enumerate(zip(mask_labels, class_labels, strict=True)):
        if not len(segments):
            empty = torch.empty(0, dtype=torch.long)
            by_image.append([(empty, empty)] * layers)
            continue
        at = torch.stack([drawn[layer][image] for layer in range(layers)])
        truth = sample_shared_points(_flat(segments)[None].float(), at.flatten(0, 1)[None])[0]
        truth = truth.unflatten(-1, at.shape[:2])
        costs = []
        for layer in range(layers):
            masks = _flat(predictions.mask_logits[layer][image])
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


def count_targets(
    mask_labels: Sequence[Tensor],
    class_labels: Sequence[Tensor],
    *,
    queries: int,
    void: float,
    grid: tuple[int, int],
    pixels: int,
) -> dict[str, Tensor]:
    """What the losses of object queries are divided by, known from the labels before anything is predicted.

    The counts of several batches add up; losses divided by the sum add up to the loss of one large batch.

    Args:
        mask_labels: B tensors [n, T, H, W].
        class_labels: B tensors [n].
        queries: Q.
        void: Weight of an unmatched query in the class loss.
        grid: (h, w) that the dense loss looks at.
        pixels: How many of its cells it draws from each picture.

    Returns:
        Float64 scalars. ``masks``: matched masks. ``classes``: weights of all queries in the class loss. ``regions``:
        masks of a class. ``pixels``: labelled cells that the dense loss is expected to draw; how many it does draw is
        known too late, and as the divisor of a sum the expected number makes the mean over many draws right.
    """
    matched = [min(len(labels), queries) for labels in class_labels]
    known = [int((labels != UNKNOWN_CLASS).sum()) for labels in class_labels]
    classes = sum(
        # Where masks outnumber the queries it is not known which are matched: their share in all is.
        known * matched / max(len(labels), 1) + void * (queries - matched)
        for matched, known, labels in zip(matched, known, class_labels, strict=True)
    )
    maps = label_maps(mask_labels, class_labels, grid)
    labelled = (maps != UNKNOWN_CLASS).flatten(1).double().mean(1).sum()
    counts = {"masks": sum(matched), "classes": classes, "regions": sum(known), "pixels": pixels * float(labelled)}
    return {name: torch.tensor(count, dtype=torch.float64) for name, count in counts.items()}


def object_losses(
    predictions: Predictions,
    mask_labels: Sequence[Tensor],
    class_labels: Sequence[Tensor],
    assignments: Sequence[Sequence[Assignment]],
    weights: LossWeights,
    points: PointSource,
    *,
    normalizers: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Class, IoU-branch, mask and dice losses of object queries.

    Args:
        normalizers: ``masks`` and ``classes`` of the whole step, see :func:`count_targets`; for what is missing, those
            of this batch.

    Returns:
        ``loss_cls`` (with the IoU branch in it), ``loss_mask`` and ``loss_dice`` of the last layer, and the same with
        the prefix ``d0.``, ``d1.``, … for the earlier ones.
    """
    normalizers = normalizers or {}
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
    total = importance.sum((1, 2)) if "classes" not in normalizers else normalizers["classes"].to(importance)
    divisor = total.clamp_min(1) + torch.finfo(torch.float32).eps
    class_loss = weights.cls * (entropy * importance).sum((1, 2)) / divisor
    focal = focal_loss(predictions.iou_logits.float(), matched.float()).sum((1, 2))
    iou_loss = weights.iou * focal / divisor

    masks = len(at[0]) // layers
    by_layer = torch.stack(at[1:]).view(2, layers, masks)
    first = [0, *accumulate(map(len, mask_labels))]
    chosen = [torch.cat([first[image] + mask for image, (_, mask) in enumerate(row)]).to(device) for row in assignments]
    truth = torch.cat([_flat(masks) for masks in mask_labels]).float()
    mask_loss, dice_loss = mask_losses(
        [_flat(predictions.mask_logits[layer][by_layer[0, layer], by_layer[1, layer]]) for layer in range(layers)],
        [truth] * layers,
        weights,
        points,
        chosen=chosen,
        num_masks=max(1.0, float(masks)) if "masks" not in normalizers else normalizers["masks"].clamp_min(1),
    )
    return _named(class_loss + iou_loss, mask_loss, dice_loss)


def prompt_losses(
    mask_logits: Layered,
    mask_labels: Sequence[Tensor],
    prompt_mask: Tensor,
    weights: LossWeights,
    points: PointSource,
    *,
    normalizers: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Losses of prompt queries: prompt i is compared with mask i, nothing is matched or classified.

    Args:
        mask_logits: L times [B, Q, T, h, w].
        mask_labels: B tensors [n, T, H, W], one mask for every real prompt.
        prompt_mask: [B, Q] bool, which prompts are real.
        normalizers: ``prompts``, the number to divide the sums by; without, as in the original, the number of prompts
            of one picture, not of the batch.
    """
    normalizers = normalizers or {}
    counts = prompt_mask.sum(1).tolist()
    for count, masks in zip(counts, mask_labels, strict=True):
        if count != len(masks):
            raise ValueError(f"mask_labels: expected one mask for each of the {count} prompts, got {len(masks)}")
    layers = range(len(mask_logits))
    truth = torch.cat([_flat(masks) for masks in mask_labels]).float()
    mask_loss, dice_loss = mask_losses(
        [_flat(mask_logits[layer][prompt_mask]) for layer in layers],
        [truth for _ in layers],
        weights,
        points,
        num_masks=max(1.0, sum(counts) / len(counts))
        if "prompts" not in normalizers
        else normalizers["prompts"].clamp_min(1),
    )
    return _named(torch.zeros_like(mask_loss), mask_loss, dice_loss)


def mask_losses(
    logits: Iterable[Tensor],
    truth: Iterable[Tensor],
    weights: LossWeights,
    points: PointSource,
    *,
    chosen: Sequence[Tensor] | None = None,
    num_masks: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice at sampled points.

    Args:
        logits: L times [N, h, w] of the matched queries.
        truth: L times the masks [n, H, W].
        chosen: L times [N], which of the masks each query is compared with, none twice; None = one after the other.
        num_masks: What the sums are divided by.

    Returns:
        Two tensors [L].
    """
    mask_loss, dice_loss = [], []
    for layer, (planes, masks) in enumerate(zip(logits, truth, strict=True)):
        planes = planes.float()
        if not len(planes):
            mask_loss.append(planes.sum())
            dice_loss.append(planes.sum())
            continue
        at = points.loss(layer, planes.detach())
        predicted = sample_points(planes, at)
        with torch.no_grad():
            target = sample_chosen(masks.float(), at, None if chosen is None else chosen[layer])
        entropy = F.binary_cross_entropy_with_logits(predicted, target, reduction="none").mean(-1)
        inside = predicted.sigmoid()
        overlap = (inside * target).sum(-1)
        dice = 1 - (2 * overlap + 1) / (inside.sum(-1) + target.sum(-1) + 1)
        mask_loss.append(entropy.sum())
        dice_loss.append(dice.sum())
    return weights.mask * torch.stack(mask_loss) / num_masks, weights.dice * torch.stack(dice_loss) / num_masks


def focal_loss(logits: Tensor, targets: Tensor, *, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Element-wise sigmoid focal loss (Lin et al., 2017, equation 5)."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    probability = logits.sigmoid()
    wrong = probability + targets - 2 * probability * targets
    balance = (1 - alpha) + (2 * alpha - 1) * targets
    return balance * wrong**gamma * entropy


def dense_class_loss(pixel_logits: Tensor, labels: Tensor, *, total: Tensor | None = None) -> Tensor:
    """Cross-entropy of pixel logits [..., K + 1] with labels [...]; pixels without a class (-1) do not count.

    Args:
        total: What the sum is divided by; None = the number of pixels with a class.
    """
    known = labels != UNKNOWN_CLASS
    entropy = F.cross_entropy(pixel_logits.float().flatten(0, -2), (labels * known).flatten(), reduction="none")
    summed = (entropy * known.flatten()).sum()
    return summed / (known.sum() if total is None else total).to(summed).clamp_min(1)


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
    "count_targets",
    "dense_class_loss",
    "label_maps",
    "match",
    "object_losses",
    "prompt_losses",
]
