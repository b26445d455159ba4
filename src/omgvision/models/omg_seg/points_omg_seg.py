"""Where masks are compared, and their values there: a few points stand for all pixels.

Letters: N masks, X planes, h×w a grid, P points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


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


__all__ = [
    "PointSource",
    "RandomPoints",
    "neighbours",
    "sample_at_neighbours",
    "sample_chosen",
    "sample_points",
    "sample_shared_points",
]
