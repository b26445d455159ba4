"""Label propagation: a cell of a new frame takes the labels of the cells of remembered frames that resemble it most.

After Jabri et al. 2020, "Space-Time Correspondence as a Contrastive Random Walk", and Caron et al. 2021, "Emerging
Properties in Self-Supervised Vision Transformers"; on the mask features that the segmenter has of a frame anyway.

Letters: N objects, C width of the mask features, h×w the stride-4 grid of the network input, G cells of a coarser grid,
row by row, R of them that are asked about, M cells that they are compared with.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_CELLS = 4096
"""Of the grid, so that the cost has a bound for pictures of any size."""
NEIGHBOURS = 10
"""Cells whose labels a cell takes."""
TEMPERATURE = 0.07
"""Of the softmax over their cosines."""
WINDOW = 5
"""How many cells an object may move from one frame to the next, in each direction."""
ROWS_AT_ONCE = 512
"""Cells of the new frame that are compared at once; bounds the memory of the comparison."""
KNOWN = 8.0
"""Mask logit of pixels inside and, negative, outside of a region that is certain."""


def cell_grid(shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of cells for masks of (h, w)."""
    height, width = shape
    cell = math.ceil(math.sqrt(height * width / MAX_CELLS))
    return math.ceil(height / cell), math.ceil(width / cell)


def cell_features(mask_features: Tensor) -> Tensor:
    """Mask features [C, h, w] → [G, C] of unit length."""
    pooled = F.adaptive_avg_pool2d(F.normalize(mask_features.float(), dim=0), cell_grid(mask_features.shape[-2:]))
    return F.normalize(pooled.flatten(1).T, dim=1)


def cell_shares(masks: Tensor) -> Tensor:
    """How far pixels belong to objects, [N, h, w] from 0 to 1 → how far cells do, [G, N]."""
    return F.adaptive_avg_pool2d(masks, cell_grid(masks.shape[-2:])).flatten(1).T


def share_logits(shares: Tensor, *, grid: Sequence[int]) -> Tensor:
    """How far cells belong to objects, [N, rows, columns] from 0 to 1 → logits [N, h, w] between ∓ `KNOWN`."""
    fine = F.interpolate(shares[None], size=tuple(grid), mode="bilinear", align_corners=False)[0]
    return torch.logit(fine.double(), eps=1 / (1 + math.exp(KNOWN))).to(shares)


def cells_near(cells: Tensor, shape: tuple[int, int]) -> Tensor:
    """Which cells of the frame before each of some `cells` [R] may come from, bool [R, G]; `shape` of the grid."""
    height, width = shape
    index = torch.arange(height * width, device=cells.device)
    y, x = index // width, index % width
    return ((y[cells, None] - y).abs() <= WINDOW) & ((x[cells, None] - x).abs() <= WINDOW)


def labels_of_alike(likeness: Tensor, labels: Tensor) -> Tensor:
    """Cosines [R, M] and the labels [M, N] of what was compared → [R, N]."""
    best, place = likeness.topk(min(NEIGHBOURS, likeness.shape[1]), dim=1)
    weights = (best / TEMPERATURE).softmax(1)
    return (weights[..., None] * labels[place]).sum(1)


def carried_over(masks: Tensor, *, before: Tensor, now: Tensor, least_likeness: float) -> Tensor:
    """Where objects went from one frame to the next.

    Args:
        masks: bool [N, h, w], where they were.
        before, now: cell features [G, C] of both frames.
        least_likeness: cosine with the most alike cell from which a cell may belong to anything: a place that looks
            like nothing that was near it is new.

    Returns:
        Logits [N, h, w].
    """
    grid = cell_grid(masks.shape[-2:])
    labels = cell_shares(masks.float())
    occupied = (labels > 0).any(1).float().unflatten(0, grid)
    reached = F.max_pool2d(occupied[None], 2 * WINDOW + 1, stride=1, padding=WINDOW).flatten().nonzero()[:, 0]
    shares = torch.zeros_like(labels)
    for cells in reached.split(ROWS_AT_ONCE):
        likeness = (now[cells] @ before.T).masked_fill(~cells_near(cells, grid), -math.inf)
        known = likeness.amax(1, keepdim=True) >= least_likeness
        shares[cells] = labels_of_alike(likeness, labels) * known
    return share_logits(shares.T.unflatten(1, grid), grid=masks.shape[-2:])
