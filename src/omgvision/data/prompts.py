"""Clicks and boxes made from target masks. Correcting clicks follow from predictions: `training.objective.next_clicks`.

Everything random works on whole stacks of masks at once ([N, h, w] tensors) and takes a generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .sample import NO_POINT, Prompts


def random_points(masks: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """A uniformly drawn pixel of each mask.

    Args:
        masks: bool [N, h, w], none empty (of an empty mask the result is meaningless).
        generator: source of randomness, on the masks' device.
    Returns:
        float [N, 2], xy of the pixel's centre (column + 0.5, row + 0.5).
    """
    return _draw(masks, _row_areas(masks), 1, generator)[:, 0]


def central_points(masks: Tensor, *, candidates: int = 8, generator: torch.Generator | None = None) -> Tensor:
    """A pixel of each mask near its middle: of `candidates` random ones that nearest to their mean.

    Arguments and result as of `random_points`.
    """
    points = _draw(masks, _row_areas(masks), candidates, generator)
    nearest = (points - points.mean(1, keepdim=True)).square().sum(2).argmin(1)
    return points[torch.arange(len(masks), device=masks.device), nearest]


def _row_areas(masks: Tensor) -> Tensor:
    """Float [N, h], pixels of each row; a product with ones is ten times faster than a sum of booleans on CPU."""
    return masks.to(torch.float32) @ torch.ones(masks.shape[2], device=masks.device)


def _draw(masks: Tensor, row_areas: Tensor, number: int, generator: torch.Generator | None) -> Tensor:
    """Float [N, number, 2]: uniformly drawn pixels, with repeats."""
    # First the row, by how many pixels it has, then the column within the row: two short sums instead of one over h·w.
    row_ends = row_areas.cumsum(1)
    areas = row_ends[:, -1:]
    drawn = torch.rand(len(masks), number, generator=generator, device=masks.device)
    rank = torch.minimum((drawn * areas).floor(), (areas - 1).clamp(min=0))
    rows = torch.searchsorted(row_ends, rank, right=True).clamp_(max=masks.shape[1] - 1)
    before = (row_ends - row_areas).gather(1, rows)
    lines = masks[torch.arange(len(masks), device=masks.device)[:, None], rows].to(torch.float32).cumsum(2)
    columns = torch.searchsorted(lines, (rank - before)[..., None], right=True)[..., 0].clamp_(max=masks.shape[2] - 1)
    return torch.stack([columns, rows], dim=2) + 0.5


def mask_boxes(masks: Tensor) -> Tensor:
    """Tight boxes: float [N, 4] xyxy (right and bottom exclusive) of bool [N, h, w]; zeros for an empty mask."""
    columns, rows = masks.any(1), masks.any(2)
    first = torch.stack([columns.float().argmax(1), rows.float().argmax(1)], dim=1)
    last = torch.stack(
        [columns.shape[1] - columns.flip(1).float().argmax(1), rows.shape[1] - rows.flip(1).float().argmax(1)], dim=1
    )
    boxes = torch.cat([first, last], dim=1).float()
    return boxes * columns.any(1)[:, None]


def jitter_boxes(
    boxes: Tensor, *, size: tuple[int, int], amount: float = 0.1, generator: torch.Generator | None = None
) -> Tensor:
    """Moves each side by up to ± `amount` times half the box's extent, independently, and clamps to the image.

    Args:
        boxes: float [N, 4] xyxy.
        size: (height, width) of the image.
        amount: 0.1 imitates a hand-drawn box.
        generator: source of randomness.
    """
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    noise = torch.rand(boxes.shape, generator=generator, device=boxes.device) * 2 - 1
    moved = boxes + noise * amount * extent / 2
    limit = torch.tensor([size[1], size[0]] * 2, dtype=boxes.dtype, device=boxes.device)
    return torch.minimum(moved.clamp(min=0), limit)


def shake_boxes(boxes: Tensor, *, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """The original's noise on its prompts: a tremble of the centre and, independently, of the extent.

    The centre moves by up to ± 0.004 (0.4 · 0.01) times half the extent, the extent changes by up to ± 0.004 of itself;
    relative to the image, both are then kept between 0 and 1. Arguments and result as of `jitter_boxes`.
    """
    limit = torch.tensor([size[1], size[0]], dtype=boxes.dtype, device=boxes.device)
    centre, extent = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    noise = (torch.rand(boxes.shape, generator=generator, device=boxes.device) * 2 - 1) * 0.004
    centre = torch.minimum((centre + noise[:, :2] * extent / 2).clamp(min=0), limit)
    extent = torch.minimum((extent + noise[:, 2:] * extent).clamp(min=0), limit)
    return torch.cat([centre - extent / 2, centre + extent / 2], dim=1)


@dataclass(frozen=True)
class PromptSampling:
    """The prompts of a sample in a part of the mixture that trains nothing else. The defaults are the original's.

    Which segments are large enough to be asked for is up to `Augmentation.min_area` (32 in the original).

    Attributes:
        points: clicks an image, each on a random pixel of a segment.
        boxes: boxes an image, around segments, with the original's noise.
    """

    points: int = 20
    boxes: int = 0

    def __post_init__(self) -> None:
        if min(self.points, self.boxes) < 0 or self.points + self.boxes == 0:
            raise ValueError(f"prompts: expected at least one an image, got {self.points} points, {self.boxes} boxes")

    def draw(
        self, mask_labels: Sequence[Tensor], *, sizes: Sequence[tuple[int, int]], generators: Sequence[torch.Generator]
    ) -> Prompts:
        """Segments without repeats until all were taken, then again, for the points and for the boxes.

        Args:
            mask_labels: B tensors, bool [n, H, W]. An image without a segment gets no prompt.
            sizes: (height, width) of each image without padding.
            generators: one an image, so that its prompts do not depend on the batch that it is in.
        """
        images = []
        for masks, size, generator in zip(mask_labels, sizes, generators, strict=True):
            clicked_mask, clicked = _choose_targets([masks], self.points, generator)
            boxed_mask, boxed = _choose_targets([masks], self.boxes, generator)
            points, boxes = torch.zeros((self.points, 2)), torch.zeros((self.boxes, 4))
            if len(clicked[0]):
                points = random_points(clicked[0], generator=generator)
            if len(boxed[0]):
                boxes = shake_boxes(mask_boxes(boxed[0]), size=size, generator=generator)
            images.append((points, boxes, torch.cat([clicked_mask, boxed_mask], dim=1)[0], torch.cat(clicked + boxed)))
        points, boxes, real, targets = zip(*images, strict=True)
        prompt_mask = torch.stack(real)
        labels = torch.where(prompt_mask[:, : self.points], 1, NO_POINT)
        return Prompts(
            points=torch.stack(points)[:, :, None] if self.points else None,
            point_labels=labels[:, :, None] if self.points else None,
            boxes=torch.stack(boxes) if self.boxes else None,
            prompt_mask=prompt_mask,
            mask_labels=list(targets),
        )


def sample_prompts(
    mask_labels: Sequence[Tensor],
    *,
    number: int,
    central_probability: float = 0.5,
    generator: torch.Generator | None = None,
) -> Prompts:
    """First clicks on objects of a batch.

    Args:
        mask_labels: B tensors, bool [n, H, W]; or of clips [n, T, H, W], whose prompts are on the first frame.
        number: N, prompts an image; masks are drawn without repeats until all were taken, then again.
        central_probability: how often a click is near the middle instead of anywhere in the mask.
        generator: source of randomness.
    """
    device = mask_labels[0].device
    points = torch.zeros((len(mask_labels), number, 1, 2), device=device)
    labels = torch.full((len(mask_labels), number, 1), NO_POINT, dtype=torch.int64, device=device)
    prompt_mask, targets = _choose_targets(mask_labels, number, generator)
    for image, chosen in enumerate(targets):
        if len(chosen) == 0:
            continue
        is_central = torch.rand(number, 1, generator=generator, device=device) < central_probability
        shown = first_frames(chosen)
        anywhere = random_points(shown, generator=generator)
        points[image, :, 0] = torch.where(is_central, central_points(shown, generator=generator), anywhere)
        labels[image, :, 0] = 1
    return Prompts(points=points, point_labels=labels, boxes=None, prompt_mask=prompt_mask, mask_labels=targets)


def sample_box_prompts(
    mask_labels: Sequence[Tensor], *, number: int, amount: float = 0.1, generator: torch.Generator | None = None
) -> Prompts:
    """Jittered boxes around objects of a batch; arguments as of `sample_prompts` and `jitter_boxes`."""
    prompt_mask, targets = _choose_targets(mask_labels, number, generator)
    boxes = torch.zeros((len(mask_labels), number, 4), device=mask_labels[0].device)
    for image, chosen in enumerate(targets):
        if len(chosen):
            tight = mask_boxes(first_frames(chosen))
            boxes[image] = jitter_boxes(
                tight, size=(chosen.shape[-2], chosen.shape[-1]), amount=amount, generator=generator
            )
    return Prompts(points=None, point_labels=None, boxes=boxes, prompt_mask=prompt_mask, mask_labels=targets)


def first_frames(masks: Tensor) -> Tensor:
    """The masks themselves, [n, H, W], or of tubes [n, T, H, W] those in the first frame."""
    return masks if masks.dim() == 3 else masks[:, 0]


def _choose_targets(
    mask_labels: Sequence[Tensor], number: int, generator: torch.Generator | None
) -> tuple[Tensor, list[Tensor]]:
    """Bool [B, number] and, an image, [number, …, H, W] drawn masks ([0, …, H, W] without any)."""
    device = mask_labels[0].device
    prompt_mask = torch.zeros((len(mask_labels), number), dtype=torch.bool, device=device)
    targets = []
    for image, masks in enumerate(mask_labels):
        masks = masks.bool()
        masks = masks[first_frames(masks).flatten(1).any(1)]
        if len(masks):
            rounds = max(1, -(-number // len(masks)))
            order = [torch.randperm(len(masks), generator=generator, device=device) for _ in range(rounds)]
            masks = masks[torch.cat(order)[:number]]
            prompt_mask[image] = True
        targets.append(masks)
    return prompt_mask, targets
