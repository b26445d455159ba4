"""Prompts as queries: points, boxes and masks.

Letters: B pictures, N prompts, P points of one prompt, C width, H×W the padded network input, h×w its stride-4 grid.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mask_decoder_omg_seg import AttentionRegion
from .position_omg_seg import box_position

POINT_HALF_SIZE = 3.0
"""Half the side, in pixels, of the box that stands for a point (the original's pseudo box)."""

PADDING_LABEL = -10
"""Label of a padded point, as in transformers' SAM."""


PLACE_REACH = 1.5
"""Strides from a place to the end of what it sees freely: three cells of the grid across, so that an object on the
border of two cells lies well within the sight of one of them."""

PLACE_FALL = 8.0
"""Logits that are taken away one stride farther."""


class PromptQueries(NamedTuple):
    """Queries made from prompts, in the order points, boxes, masks; or from the places of a grid.

    A tuple, in which DeepSpeed's ZeRO-3 finds the tensors that its hooks must follow.

    Attributes:
        features, positions: [B, N, C].
        region: Where mask prompts look; None without mask prompts.
        first_mask_logits: [B, N, T, h, w] that the first layer looks at; NaN where a prompt brings none and in all
            frames but the first.
        mask_prior: [B, N, T, h, w], added to every predicted mask, zero in all frames but the first; None for models
            without ``point_refinement``.
    """

    features: Tensor
    positions: Tensor
    region: AttentionRegion | None
    first_mask_logits: Tensor | None
    mask_prior: Tensor | None = None


def region_centers(masks: Tensor) -> Tensor:
    """The pixel of each mask that is farthest from its border.

    The distance is the smooth approximation of Pham et al. ("Fast and accurate convolutional distance transform",
    2021; 3×3 kernel, h = 0.35) that the original takes from kornia; the first maximum counts.

    Args:
        masks: [N, H, W] bool.

    Returns:
        [N, 2] xy in pixels; (0, 0) for an empty mask.
    """
    centers = torch.zeros(len(masks), 2, device=masks.device)
    for index, mask in enumerate(masks):
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        if not len(rows):
            continue
        top, left = int(rows[0]), int(columns[0])
        distance = _distance_to_background(mask[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1])
        best = int(distance.argmax())
        centers[index, 0] = left + best % distance.shape[1]
        centers[index, 1] = top + best // distance.shape[1]
    return centers


def _distance_to_background(mask: Tensor) -> Tensor:
    """[H, W] bool → [H, W] float; everything outside of the array is background."""
    smoothness = 0.35
    steps = torch.arange(-1.0, 2.0, device=mask.device)
    kernel = torch.exp(-torch.hypot(steps[:, None], steps[None]) / smoothness)[None, None]
    reached = F.pad((~mask).float(), (1, 1, 1, 1), value=1.0)[None, None]
    distance = torch.zeros_like(reached)
    for step in range(max(reached.shape[-2:])):
        spread = F.conv2d(F.pad(reached, (1, 1, 1, 1), mode="replicate"), kernel)
        front = torch.nan_to_num(-smoothness * torch.log(spread), posinf=0.0)
        new = front > 0
        if not new.any():
            break
        distance = torch.where(new, distance + step + front, distance)
        reached = torch.where(new, torch.ones_like(reached), reached)
    return distance[0, 0, 1:-1, 1:-1]


def cell_centers(canvas_size: tuple[int, int], grid: tuple[int, int], *, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows [h, 1] and columns [1, w] of the cells of a grid (h, w), in pixels of the canvas (H, W)."""
    y = (torch.arange(grid[0], device=device) + 0.5) * (canvas_size[0] / grid[0])
    x = (torch.arange(grid[1], device=device) + 0.5) * (canvas_size[1] / grid[1])
    return y[:, None], x[None]


def box_prior(boxes: Tensor, *, canvas_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """What a box says about its mask before anything is seen, as logits.

    The object fills about the ellipse that touches the sides, and lies within the box.

    Args:
        boxes: [B, N, 4] xyxy pixels of the network input.
        canvas_size: Padded (H, W).
        grid: (h, w) of the result.

    Returns:
        [B, N, h, w], between -8 and 8.
    """
    y, x = cell_centers(canvas_size, grid, device=boxes.device)
    low, high = boxes.float()[..., None, None, :].chunk(2, dim=-1)
    center, half = (low + high) / 2, ((high - low) / 2).clamp_min(1.0)
    across, down = (x - center[..., 0]) / half[..., 0], (y - center[..., 1]) / half[..., 1]
    return 8 * (1.05 - across.square() - down.square()).clamp(-1, 1)


def click_prior(
    points: Tensor, labels: Tensor, *, image_sizes: Tensor, canvas_size: tuple[int, int], grid: tuple[int, int]
) -> Tensor:
    """What clicks say about their mask before anything is seen, as logits.

    Near a positive click the object is likely and far from all of them it is not; right at a click its label is all
    but certain. Lengths are in units of the picture's mean side. The constants are plain choices: half of them or one
    and a half made little difference on training pictures. The network learns what to add.

    Args:
        points: [B, N, P, 2] xy pixels of the network input; labels [B, N, P] 1, 0 or padding.
        image_sizes: [B, 2] unpadded (height, width).
        canvas_size: Padded (H, W).
        grid: (h, w) of the result.

    Returns:
        [B, N, h, w].
    """
    y, x = cell_centers(canvas_size, grid, device=points.device)
    column, row = points.float()[..., None, None, :].unbind(-1)
    side = image_sizes.float().prod(-1).sqrt().view(-1, 1, 1, 1, 1)
    distance = torch.hypot(x - column, y - row) / side
    nowhere = 1e3
    labels = labels[..., None, None]
    positive = distance.masked_fill(labels != 1, nowhere).amin(2)
    negative = distance.masked_fill(labels != 0, nowhere).amin(2)
    broad = 4 * (1 - positive / 0.15).clamp(-1, 1) * (positive < nowhere)
    at_click = 6 * torch.exp(-(positive / 0.04).square()) - 6 * torch.exp(-(negative / 0.04).square())
    return broad + at_click - 2 * (1 - negative / 0.1).clamp(0, 1)


def place_grid(canvas_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of the grid of places over a canvas (H, W)."""
    return math.ceil(canvas_size[0] / stride), math.ceil(canvas_size[1] / stride)


def place_prior(places: Tensor, *, stride: int, canvas_size: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Logits that keep each place to what is near: 0 up to `PLACE_REACH` strides away, then falling.

    Args:
        places: [N, 2] xy pixels of the network input.
        stride: Between two places, in pixels.
        canvas_size: Padded (H, W).
        grid: (h, w) of the result.

    Returns:
        [N, h, w], from -`PLACE_FALL` to 0.
    """
    y, x = cell_centers(canvas_size, grid, device=places.device)
    away = torch.maximum((y - places[:, 1, None, None]).abs(), (x - places[:, 0, None, None]).abs()) / stride
    return -PLACE_FALL * (away - PLACE_REACH).clamp(0, 1)


class PointRefinement(nn.Module):
    """What several points and the previous mask say about one object.

    Each point contributes the mask feature under it, by one projection for positive and one for negative points; the
    contributions of a kind are averaged. A previous mask contributes the mean mask feature inside of it. All is added
    to the initial query feature, so that a first click already knows the colour and texture that it hit. A box is a
    first guess of the mask too.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.positive = nn.Linear(width, width)
        self.negative = nn.Linear(width, width)
        self.previous = nn.Linear(width, width)

    def forward(
        self, points: Tensor, labels: Tensor, mask_features: Tensor, canvas: Tensor, previous: Tensor | None
    ) -> Tensor:
        """What to add to the initial query features.

        Args:
            points: [B, N, P, 2] xy pixels of the network input; labels [B, N, P] 1, 0 or padding.
            mask_features: [B, C, h, w].
            canvas: (W, H) of the network input.
            previous: [B, N, h, w] logits; NaN where a prompt has none.

        Returns:
            [B, N, C].
        """
        grid = 2 * points / canvas - 1
        sampled = F.grid_sample(
            mask_features.float(), grid.flatten(1, 2)[:, None].float(), align_corners=False, padding_mode="border"
        )
        sampled = self.norm(sampled[:, :, 0].transpose(1, 2).unflatten(1, labels.shape[1:]).to(mask_features.dtype))
        added = sampled.new_zeros(())
        for label, projection in ((1, self.positive), (0, self.negative)):
            chosen = (labels == label)[..., None].to(sampled.dtype)
            added = added + (projection(sampled) * chosen).sum(2) / chosen.sum(2).clamp_min(1)
        return added if previous is None else added + self.describe_region(previous, mask_features)

    def describe_region(self, logits: Tensor, mask_features: Tensor) -> Tensor:
        """What a first guess of the mask, [B, N, h, w] logits, adds: [B, N, C], zero for an empty one."""
        inside = (logits > 0).flatten(2).to(mask_features.dtype)
        count = inside.sum(-1, keepdim=True)
        pooled = torch.bmm(inside / count.clamp_min(1), mask_features.flatten(2).transpose(1, 2))
        return self.previous(self.norm(pooled)) * (count > 0)


class PromptEncoder(nn.Module):
    """Prompts → initial queries.

    A point is a box of six pixels; several points of one object are the box around its positive ones. With
    ``point_refinement`` every point, positive or negative, and the previous mask also speak through
    :class:`PointRefinement`, and points and boxes add what they say by their place alone (:func:`click_prior`,
    :func:`box_prior`) to the predicted masks, so that each correction has an effect where it was made. Without it
    (converted checkpoints) negative points have no effect. In both cases the first layer looks where the previous mask
    was.

    Prompts of a clip are on its first frame: there they are read, there alone places count, and the query finds the
    same object in the other frames.

    Args:
        width: C.
        box_prompt_index: Row of ``prompt_embed`` for boxes.
        point_refinement: Whether the parameters of :class:`PointRefinement` exist.
        query_stride: Of the grid of :meth:`places`; 0 for models without.
    """

    def __init__(self, width: int, *, box_prompt_index: int, point_refinement: bool, query_stride: int = 0):
        super().__init__()
        self.query_stride = query_stride
        self.box_prompt_index = box_prompt_index
        self.mask_token = nn.Parameter(torch.empty(1, width))
        self.prompt_embed = nn.Parameter(torch.empty(2, width))
        self.position_projection = nn.Linear(2 * width, width)
        self.refinement = PointRefinement(width) if point_refinement else None
        self.place_embed = nn.Embedding(1, width) if query_stride else None

    def places(self, *, image_sizes: Tensor, canvas_size: tuple[int, int], mask_features: Tensor) -> PromptQueries:
        """A query for every place of a grid, row by row: what is here?

        All share what they have learned. Each begins as a point in the middle of its cell, is told where it is as a box
        of the cell's size is, and predicts a mask near it (:func:`place_prior`), in every frame of a clip.

        Args:
            image_sizes, canvas_size, mask_features: As of :meth:`forward`.
        """
        assert self.place_embed is not None
        rows, columns = place_grid(canvas_size, self.query_stride)
        y, x = cell_centers(canvas_size, (rows, columns), device=mask_features.device)
        centers = torch.stack((x.expand(rows, -1), y.expand(-1, columns)), dim=-1).flatten(0, 1)
        batch, frames = mask_features.shape[0], mask_features.shape[2]
        features = self.place_embed(torch.zeros(batch, len(centers), dtype=torch.long, device=centers.device))
        if self.refinement is not None:
            points = centers[None, :, None].expand(batch, -1, -1, -1)
            labels = torch.ones(points.shape[:3], dtype=torch.long, device=points.device)
            canvas = points.new_tensor((canvas_size[1], canvas_size[0]))
            features = features + self.refinement(points, labels, mask_features[:, :, 0], canvas, None)
        half = self.query_stride / 2
        cells = torch.cat((centers - half, centers + half), dim=-1).expand(batch, -1, -1)
        grid = (mask_features.shape[-2], mask_features.shape[-1])
        prior = place_prior(centers, stride=self.query_stride, canvas_size=canvas_size, grid=grid)
        return PromptQueries(
            features=features,
            positions=self._positions(cells.to(features.dtype), image_sizes),
            region=None,
            first_mask_logits=None,
            mask_prior=prior[None, :, None].to(mask_features.dtype).expand(batch, -1, frames, -1, -1),
        )

    def forward(
        self,
        *,
        image_sizes: Tensor,
        canvas_size: tuple[int, int],
        mask_features: Tensor,
        points: Tensor | None = None,
        labels: Tensor | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        previous_mask_logits: Tensor | None = None,
    ) -> PromptQueries:
        """Encodes the prompts of a batch of pictures or clips.

        Args:
            image_sizes: [B, 2] unpadded (height, width).
            canvas_size: Padded (H, W).
            mask_features: [B, C, T, h, w].
            points: [B, N, P, 2] xy pixels; labels: [B, N, P] (None: all positive).
            boxes: [B, N, 4] xyxy pixels.
            masks: [B, N, H, W] bool; pictures only.
            previous_mask_logits: [B, N, h, w] for the point prompts; NaN where a prompt has none.

        Raises:
            ValueError: When no prompt is given, or a region of a clip.
        """
        rectangles, features, regions = [], [], []
        grid = (mask_features.shape[-2], mask_features.shape[-1])
        priors = []
        start = self.mask_token + self.prompt_embed
        if points is not None:
            if labels is None:
                labels = torch.ones(points.shape[:3], dtype=torch.long, device=points.device)
            rectangles.append(self._span(points, labels))
            feature = start[0].expand(*points.shape[:2], -1)
            if self.refinement is not None:
                canvas = points.new_tensor((canvas_size[1], canvas_size[0]))
                feature = feature + self.refinement(
                    points, labels, mask_features[:, :, 0], canvas, previous_mask_logits
                )
                priors.append(click_prior(points, labels, image_sizes=image_sizes, canvas_size=canvas_size, grid=grid))
            features.append(feature)
        if boxes is not None:
            rectangles.append(boxes)
            feature = start[self.box_prompt_index].expand(*boxes.shape[:2], -1)
            if self.refinement is not None:
                priors.append(box_prior(boxes, canvas_size=canvas_size, grid=grid))
                feature = feature + self.refinement.describe_region(priors[-1], mask_features[:, :, 0])
            features.append(feature)
        frames = mask_features.shape[2]
        if masks is not None:
            if frames > 1:
                raise ValueError(
                    f"input_masks: expected a picture, got a clip of {frames} frames; give points of the region and "
                    "previous_mask_logits instead"
                )
            centers = torch.stack([region_centers(mask) for mask in masks.bool()])
            rectangles.append(torch.cat((centers - POINT_HALF_SIZE, centers + POINT_HALF_SIZE), dim=-1))
            features.append(start[0].expand(*masks.shape[:2], -1))
            regions.append(masks.bool())
        if not rectangles:
            raise ValueError("prompts: expected points, boxes or masks, got none")

        count = sum(rectangle.shape[1] for rectangle in rectangles)
        first_mask_logits = mask_prior = None
        if previous_mask_logits is not None:
            missing = count - previous_mask_logits.shape[1]
            given = previous_mask_logits[:, :, None]
            first_mask_logits = F.pad(given, (0, 0, 0, 0, 0, frames - 1, 0, missing), value=math.nan)
        if priors:
            known = torch.cat(priors, dim=1).to(mask_features.dtype)[:, :, None]
            mask_prior = F.pad(known, (0, 0, 0, 0, 0, frames - 1, 0, count - known.shape[1]))
        positions = self._positions(torch.cat(rectangles, dim=1).to(start.dtype), image_sizes)
        return PromptQueries(
            features=torch.cat(features, dim=1),
            positions=positions,
            region=self._region(regions[0], count) if regions else None,
            first_mask_logits=first_mask_logits,
            mask_prior=mask_prior,
        )

    @staticmethod
    def _span(points: Tensor, labels: Tensor) -> Tensor:
        """Box around the positive points (all real points where none is positive), half a point's side larger."""
        positive = labels == 1
        chosen = torch.where(positive.any(-1, keepdim=True), positive, labels != PADDING_LABEL)[..., None]
        low = points.masked_fill(~chosen, math.inf).amin(2) - POINT_HALF_SIZE
        high = points.masked_fill(~chosen, -math.inf).amax(2) + POINT_HALF_SIZE
        # A prompt of padding alone has no box; its query is masked out later but must stay finite.
        real = chosen.any(2)
        return torch.cat((low.where(real, torch.zeros_like(low)), high.where(real, torch.ones_like(high))), dim=-1)

    def _positions(self, rectangles: Tensor, image_sizes: Tensor) -> Tensor:
        """[B, N, 4] xyxy pixels → [B, N, C]."""
        scale = image_sizes.flip(-1).to(rectangles.dtype).repeat(1, 2)[:, None]
        low, high = (rectangles / scale).chunk(2, dim=-1)
        box = torch.cat(((low + high) / 2, high - low), dim=-1)
        # inverse sigmoid and sigmoid again, as the original: numbers outside of [1e-5, 1 - 1e-5] are clamped.
        box = box.clamp(0, 1)
        box = torch.log(box.clamp_min(1e-5) / (1 - box).clamp_min(1e-5)).sigmoid()
        width = self.mask_token.shape[-1]
        return self.position_projection(box_position(box, width // 2).to(rectangles.dtype))

    @staticmethod
    def _region(masks: Tensor, count: int) -> AttentionRegion:
        """Only the last prompts, the masks, are limited."""
        free = count - masks.shape[1]
        inside = F.pad(masks, (0, 0, 0, 0, free, 0), value=True)[:, :, None]
        replaces = torch.zeros(inside.shape[:2], dtype=torch.bool, device=masks.device)
        replaces[:, free:] = True
        return AttentionRegion(inside=inside, replaces_prediction=replaces)


__all__ = ["PADDING_LABEL", "PromptEncoder", "PromptQueries", "place_grid", "region_centers"]
