"""Hidden states of [SEG] tokens and what people point at, as queries of the mask decoder; losses of the masks.

Letters: I pictures, N masks (or prompts), C width of a query, h×w the stride-4 grid, H×W the network input, P points.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

PADDING_LABEL = -10
"""Label of a padded point, as in transformers' SAM."""


class VisualPrompts(NamedTuple):
    """Prompts of I pictures, in pixels of the network input; which are real is in ``slots``.

    Attributes:
        points: [I, N₁, P, 2] xy.
        point_labels: [I, N₁, P], 1 on the object, 0 not on it, -10 padding.
        boxes: [I, N₂, 4] xyxy.
        masks: [I, N₃, H, W] bool.
        slots: [I, N₁ + N₂ + N₃] long, over points, boxes, masks: which of its conversation's placeholders each prompt
            fills, counted from 0; -1 for padding.
    """

    points: Tensor | None
    point_labels: Tensor | None
    boxes: Tensor | None
    masks: Tensor | None
    slots: Tensor


def visual_prompts(
    points: Tensor | None, labels: Tensor | None, boxes: Tensor | None, masks: Tensor | None, slots: Tensor | None
) -> VisualPrompts | None:
    """Prompts from what ``forward`` takes; None without any. Points without labels are positive, prompts without slots
    fill the placeholders in the order points, boxes, masks.

    Raises:
        ValueError: Slots that are not one for each prompt.
    """
    given = [each for each in (points, boxes, masks) if each is not None]
    if not given:
        return None
    if points is not None and labels is None:
        labels = torch.ones(points.shape[:3], dtype=torch.long, device=points.device)
    count = sum(each.shape[1] for each in given)
    if slots is None:
        slots = torch.arange(count, device=given[0].device).expand(len(given[0]), -1)
    if tuple(slots.shape) != (len(given[0]), count):
        raise ValueError(f"prompt_slots: expected {[len(given[0]), count]}, got {list(slots.shape)}")
    return VisualPrompts(points, labels, boxes, masks, slots)


@dataclass
class Windows:
    """Where prompts look: the segmenter's ``AttentionRegion`` with one mask for each of its memories.

    Attributes:
        inside: [I, N, 1, h, w] bool for each memory.
        replaces_prediction: [I, N] bool; True where the window stands instead of the predicted mask.
    """

    inside: tuple[Tensor, ...]
    replaces_prediction: Tensor

    def at(self, level: int) -> Tensor:
        return self.inside[level]


def box_window(boxes: Tensor, canvas: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """The cells of a grid that a box touches.

    Args:
        boxes: [..., 4] xyxy in pixels of the canvas (H, W); what lies outside is cut off.
        shape: (h, w) of the grid.

    Returns:
        [..., h, w] bool.
    """
    (rows, columns), (height, width) = shape, canvas
    limits = boxes.new_tensor((width, height, width, height))
    cells = (boxes.float() / limits).clamp(0, 1) * boxes.new_tensor((columns, rows, columns, rows))
    left, top, right, bottom = cells.floor().unbind(-1)
    x, y = torch.arange(columns, device=boxes.device), torch.arange(rows, device=boxes.device)
    across = (x >= left[..., None]) & (x <= right[..., None])
    down = (y >= top[..., None]) & (y <= bottom[..., None])
    return down[..., :, None] & across[..., None, :]


def centers_as_points(prompts: VisualPrompts) -> tuple[Tensor, Tensor]:
    """Points with the centres of the boxes after them: [I, N₁ + N₂, P, 2] and labels [I, N₁ + N₂, P]."""
    assert prompts.boxes is not None
    low, high = prompts.boxes.chunk(2, dim=-1)
    centers = ((low + high) / 2)[:, :, None]
    labels = torch.ones(centers.shape[:3], dtype=torch.long, device=centers.device)
    if prompts.points is None or prompts.point_labels is None:
        return centers, labels
    more = prompts.points.shape[2] - 1
    return (
        torch.cat((prompts.points.to(centers.dtype), F.pad(centers, (0, 0, 0, more))), dim=1),
        torch.cat((prompts.point_labels, F.pad(labels, (0, more), value=PADDING_LABEL)), dim=1),
    )


def windows(prompts: VisualPrompts, canvas: tuple[int, int], shapes: Sequence[tuple[int, int]]) -> Windows:
    """Points look everywhere, boxes inside of themselves, masks at themselves alone."""
    assert prompts.boxes is not None
    images, boxes = prompts.boxes.shape[:2]
    points = 0 if prompts.points is None else prompts.points.shape[1]
    masks = 0 if prompts.masks is None else prompts.masks.shape[1]
    inside = []
    for shape in shapes:
        parts = [torch.ones(images, points, *shape, dtype=torch.bool, device=prompts.boxes.device)]
        parts.append(box_window(prompts.boxes, canvas, shape))
        if prompts.masks is not None:
            parts.append(F.interpolate(prompts.masks.to(torch.uint8), size=shape, mode="nearest").bool())
        inside.append(torch.cat(parts, dim=1)[:, :, None])
    replaces = torch.zeros(images, points + boxes + masks, dtype=torch.bool, device=prompts.boxes.device)
    replaces[:, points + boxes :] = True
    return Windows(tuple(inside), replaces)


def select_pictures(encoded: Any, rows: Tensor) -> Any:
    """The pictures number ``rows`` of a batch that the segmenter encoded."""
    return dataclasses.replace(
        encoded,
        mask_features=encoded.mask_features[rows],
        memories=tuple(memory[rows] for memory in encoded.memories),
        clip_features=encoded.clip_features[rows],
        image_sizes=encoded.image_sizes[rows],
    )


@dataclass
class Grouping:
    """Queries that come one after the other, laid out picture by picture.

    Attributes:
        pictures: [U] the pictures that have queries.
        row, column: [N] where each query lies in a table [U, most queries of a picture].
    """

    pictures: Tensor
    row: Tensor
    column: Tensor

    def table(self, queries: Tensor) -> Tensor:
        """[N, C] → [U, most, C], zero where a picture has fewer."""
        shape = (len(self.pictures), int(self.column.max()) + 1, queries.shape[-1])
        return queries.new_zeros(shape).index_put((self.row, self.column), queries)


def group_by_picture(picture: Tensor) -> Grouping:
    """``picture`` [N]: the picture of each query."""
    pictures, row = picture.unique(return_inverse=True)
    turn = F.one_hot(row, len(pictures)).cumsum(0)
    return Grouping(pictures, row, turn.gather(1, row[:, None])[:, 0] - 1)


# --- losses -----------------------------------------------------------------------------------------------------------


class LossPoints(Protocol):
    """Chooses where masks are compared."""

    def __call__(self, layer: int, logits: Tensor) -> Tensor:
        """Mask logits [N, h, w] of a decoder layer → [N, P, 2] xy in [0, 1]."""
        ...


@dataclass(frozen=True)
class UncertainPoints:
    """PointRend (Kirillov et al., 2020), section 3.1: most points lie where the prediction is uncertain.

    Of ``count`` points the share ``importance`` are those nearest to logit 0 among ``oversample`` times ``count``
    uniform ones; the rest is uniform.
    """

    count: int
    oversample: float
    importance: float

    @torch.no_grad()
    def __call__(self, layer: int, logits: Tensor) -> Tensor:
        candidates = torch.rand(len(logits), int(self.count * self.oversample), 2, device=logits.device)
        uncertain = int(self.importance * self.count)
        nearest = sample_points(logits, candidates).abs().topk(uncertain, dim=1, largest=False).indices
        chosen = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
        rest = torch.rand(len(logits), self.count - uncertain, 2, device=logits.device)
        return torch.cat((chosen, rest), dim=1)


def sample_points(planes: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of each plane [N, h, w] at its own points [N, P, 2] (xy in [0, 1]), zero outside: [N, P]."""
    sampled = F.grid_sample(planes[:, None], 2 * points[:, :, None] - 1, mode="bilinear", align_corners=False)
    return sampled[:, 0, :, 0]


def mask_losses(
    layers: Sequence[Tensor], truth: Tensor, points: LossPoints, *, total: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice of every prediction at sampled points, summed over the predictions.

    Args:
        layers: Mask logits [N, h, w] of the predictions before, between and after the decoder layers.
        truth: [N, H, W], 0 or 1.
        total: Number of masks that the sums are divided by; None = N.

    Returns:
        Two scalars, mask and dice loss, without weights.
    """
    mask_loss, dice_loss = layers[0].new_zeros(()).float(), layers[0].new_zeros(()).float()
    count = len(truth) if total is None else total
    for layer, logits in enumerate(layers):
        at = points(layer, logits.detach().float())
        predicted = sample_points(logits.float(), at)
        with torch.no_grad():
            target = sample_points(truth.float(), at)
        entropy = F.binary_cross_entropy_with_logits(predicted, target, reduction="none")
        inside = predicted.sigmoid()
        overlap = 2 * (inside * target).sum(-1) + 1
        dice = 1 - overlap / (inside.sum(-1) + target.sum(-1) + 1)
        # The small number is part of the original's formula.
        mask_loss = mask_loss + entropy.sum() / (count * at.shape[1] + 1e-4)
        dice_loss = dice_loss + dice.sum() / (count + 1e-4)
    return mask_loss, dice_loss


__all__ = [
    "Grouping",
    "LossPoints",
    "UncertainPoints",
    "VisualPrompts",
    "Windows",
    "box_window",
    "centers_as_points",
    "group_by_picture",
    "mask_losses",
    "sample_points",
    "select_pictures",
    "visual_prompts",
    "windows",
]
