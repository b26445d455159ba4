"""Losses, equal to the original's.

Cheng et al., "Mask2Former" (2022), section 3.3, with the IoU-branch focal loss and the prompt batches of OMG-Seg.

Letters: L predictions (one a decoder layer and one before the first), B pictures or clips, Q queries, K classes,
n masks of one picture, N masks of the batch, T frames, h×w the stride-4 grid, H×W the target grid, P points.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from .matcher_omg_seg import UNKNOWN_CLASS, Assignment, Layered, LossWeights, Predictions, flat_frames
from .points_omg_seg import PointSource, sample_chosen, sample_points


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
    truth = torch.cat([flat_frames(masks) for masks in mask_labels]).float()
    mask_loss, dice_loss = mask_losses(
        [
            flat_frames(predictions.mask_logits[layer][by_layer[0, layer], by_layer[1, layer]])
            for layer in range(layers)
        ],
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
    truth = torch.cat([flat_frames(masks) for masks in mask_labels]).float()
    mask_loss, dice_loss = mask_losses(
        [flat_frames(mask_logits[layer][prompt_mask]) for layer in layers],
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


def _named(class_loss: Tensor, mask_loss: Tensor, dice_loss: Tensor) -> dict[str, Tensor]:
    last = len(class_loss) - 1
    losses = {}
    for layer in range(last + 1):
        prefix = "" if layer == last else f"d{layer}."
        losses[f"{prefix}loss_cls"] = class_loss[layer]
        losses[f"{prefix}loss_mask"] = mask_loss[layer]
        losses[f"{prefix}loss_dice"] = dice_loss[layer]
    return losses


__all__ = ["count_targets", "dense_class_loss", "label_maps", "object_losses", "prompt_losses"]
