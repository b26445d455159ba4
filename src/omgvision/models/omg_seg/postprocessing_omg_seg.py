"""From the queries of one image to label maps and masks at any size.

Letters: Q queries, N of them kept, K classes, h × w mask logits (stride 4 of the canvas), T tiles.

The original resizes every mask to the canvas, cuts the padding off, resizes again to the size asked for and only then
decides. That is [Q, H, W] floats, and most of a panoptic result's time. The same decisions are made here tile by tile:
both resizes are one small matrix an axis, and because bilinear weights are non-negative and sum to one, the smallest
and the largest low-resolution logit under a tile bound all logits inside it. A query (or class) whose upper bound stays
below another's lower bound cannot win a pixel of that tile and is never resized there. Results equal the plain way
apart from the rounding of the interpolation.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]

# Bounds are compared with this relative slack, far above what rounding moves a resized logit and still nothing in cost.
_SLACK = 1e-4
# Classes that are accumulated at once in semantic segmentation; bounds the memory of a large vocabulary.
_CLASS_CHUNK = 256
# Grid cells whose overlaps are counted at once; keeps [N, cells] floats small.
_GRID_CHUNK = 16384


@dataclass(frozen=True, kw_only=True)
class MaskSizes:
    """Where the mask logits of one image lie, as (height, width) in pixels.

    `canvas`: the padded network input, which the logits cover. `image`: the image inside it, at the top left.
    `target`: the size of the result.
    """

    canvas: Size
    image: Size
    target: Size

    def __post_init__(self) -> None:
        if min(*self.canvas, *self.image, *self.target) < 1 or any(
            inner > outer for inner, outer in zip(self.image, self.canvas, strict=True)
        ):
            raise ValueError(
                f"mask sizes: expected 1 <= image <= canvas and target >= 1 (height, width), got image {self.image}, "
                f"canvas {self.canvas}, target {self.target}"
            )


@dataclass(frozen=True, kw_only=True)
class SegmentInfo:
    """One segment of a panoptic map: `id` is its value in the map, `query` the (first) query that made it, `area` its
    pixels, `was_fused` whether segments of this class are merged into one, as stuff is."""

    id: int
    label_id: int
    score: float
    is_thing: bool
    was_fused: bool
    area: int
    query: int


@dataclass(frozen=True, kw_only=True)
class InstanceMasks:
    """Masks that may overlap, best first: `masks` [N,H,W] bool, `scores` [N], `labels` [N] (-1 = class-agnostic),
    `boxes` [N,4] xyxy around the mask's pixels (x2, y2 exclusive), `queries` [N] the rows they come from."""

    masks: Tensor
    scores: Tensor
    labels: Tensor
    boxes: Tensor
    queries: Tensor


@dataclass(frozen=True)
class _Tile:
    rows: slice  # of the target
    columns: slice
    low_rows: slice  # of the mask logits
    low_columns: slice

    @property
    def area(self) -> int:
        return (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)


class _TiledMasks:
    """Mask logits [N,h,w], resized to the target one tile at a time; `lower`, `upper` [N,T] bound each tile."""

    def __init__(self, mask_logits: Tensor, sizes: MaskSizes) -> None:
        self.low = mask_logits.float()
        self.size = sizes.target
        by_axis = list(zip(mask_logits.shape[-2:], sizes.canvas, sizes.image, sizes.target, strict=True))
        row_matrix, column_matrix = (_resize_matrix(*axis) for axis in by_axis)
        # About 16 low-resolution cells a side: small enough for tight bounds, large enough for the matrix products.
        # Accelerators want fewer and larger pieces.
        least = 64 if mask_logits.device.type == "cpu" else 256
        row_spans, column_spans = (
            _spans(matrix, step=min(256, max(least, round(16 * target / max(1.0, low * image / canvas)))))
            for matrix, (low, canvas, image, target) in zip((row_matrix, column_matrix), by_axis, strict=True)
        )
        self.row_matrix, self.column_matrix = (m.to(self.low.device) for m in (row_matrix, column_matrix.T))
        self.tiles = [_Tile(r, c, lr, lc) for r, lr in row_spans for c, lc in column_spans]
        self.areas = torch.tensor([tile.area for tile in self.tiles], device=self.low.device)
        lower, upper = [], []
        for _, low_rows in row_spans:
            band = self.low[:, low_rows]
            smallest, largest = band.amin(1), band.amax(1)
            lower += [smallest[:, low_columns].amin(1) for _, low_columns in column_spans]
            upper += [largest[:, low_columns].amax(1) for _, low_columns in column_spans]
        self.lower, self.upper = torch.stack(lower, 1), torch.stack(upper, 1)

    def select(self, wanted: Tensor) -> Iterator[tuple[int, _Tile, Tensor]]:
        """Tiles where `wanted` [N,T] names a query at all: (index, tile, those queries in ascending order)."""
        table = wanted.T.cpu()  # one synchronisation, not one a tile
        for index in table.any(1).nonzero()[:, 0].tolist():
            yield index, self.tiles[index], table[index].nonzero()[:, 0].to(self.low.device)

    def logits(self, queries: Tensor, tile: _Tile) -> Tensor:
        """Resized logits [n, rows, columns] of some queries in one tile."""
        patch = self.low[:, tile.low_rows, tile.low_columns].index_select(0, queries)
        rows = self.row_matrix[tile.rows, tile.low_rows]
        return rows @ patch @ self.column_matrix[tile.low_columns, tile.columns]


def _resize_matrix(low: int, canvas: int, image: int, target: int) -> Tensor:
    """[target, low] weights of one axis: bilinear to the canvas, crop to the image, bilinear to the target."""
    weights = F.interpolate(torch.eye(low)[None], size=canvas, mode="linear", align_corners=False)[..., :image]
    if target != image:
        weights = F.interpolate(weights, size=target, mode="linear", align_corners=False)
    return weights[0].T.contiguous()


def _spans(matrix: Tensor, *, step: int) -> list[tuple[slice, slice]]:
    """Cuts the target axis into steps; with each, the stretch of the low-resolution axis that it depends on."""
    spans = []
    for start in range(0, matrix.shape[0], step):
        stop = min(start + step, matrix.shape[0])
        used = matrix[start:stop].any(0).nonzero()[:, 0]
        spans.append((slice(start, stop), slice(int(used[0]), int(used[-1]) + 1)))
    return spans


@torch.no_grad()
def panoptic(
    class_logits: Tensor,
    *,
    mask_logits: Tensor,
    thing_mask: Tensor,
    sizes: MaskSizes,
    threshold: float = 0.0,
    mask_threshold: float = 0.5,
    overlap_threshold: float = 0.8,
    drop_uncertain: bool = True,
) -> tuple[Tensor, list[SegmentInfo]]:
    """Every pixel goes to the query with the highest class score × mask probability; weak queries are then dropped.

    Args:
        class_logits: [Q,K+1], void last.
        mask_logits: [Q,h,w].
        thing_mask: [K] bool; segments of one class that is not a thing become one segment.
        sizes: where the logits lie and the size of the result.
        threshold: queries whose class probability (softmax over classes and void) is not above this take no part.
        mask_threshold: probability from which a pixel counts as inside a query's mask.
        overlap_threshold: a query must win at least this share of the pixels inside its mask to become a segment.
        drop_uncertain: leave pixels empty where the winner's own mask probability is under `mask_threshold`.

    Returns:
        Segment ids, int32 [H,W], 0 where nothing is; and the segments that own at least one pixel. Defaults are the
        settings OMG-Seg is evaluated with (its `object_mask_thr`, `iou_thr` and `filter_low_score`).
    """
    void = class_logits.shape[-1] - 1
    scores, labels = class_logits.float().softmax(-1).max(-1)
    kept = ((labels != void) & (scores > threshold)).nonzero()[:, 0]
    count = len(kept)
    if count == 0:
        return torch.zeros(sizes.target, dtype=torch.int32, device=mask_logits.device), []
    scores, labels = scores[kept], labels[kept]
    masks = _TiledMasks(mask_logits[kept], sizes)
    cut = _logit(mask_threshold)

    lowest, highest = scores[:, None] * masks.lower.sigmoid(), scores[:, None] * masks.upper.sigmoid()
    contenders = highest >= lowest.amax(0) * (1 - _SLACK)
    winners = torch.full(sizes.target, count, dtype=torch.int32, device=mask_logits.device)
    won = scores.new_zeros(count, dtype=torch.long)  # pixels a query wins
    shown = scores.new_zeros(count + 1, dtype=torch.long)  # those that remain; the last entry is empty ground
    # Pixels inside a query's mask: whole tiles follow from the bounds, the others are counted where resized anyway.
    certain = (masks.lower >= cut) & ~contenders
    inside = (certain * masks.areas).sum(1)
    for _, tile, queries in masks.select(contenders):
        logits = masks.logits(queries, tile)
        index = _argmax(logits.sigmoid().mul_(scores[queries, None, None]))
        ids = queries[index]
        won += ids.flatten().bincount(minlength=count)
        inside[queries] += _count(logits, cut)
        if drop_uncertain:
            ids = ids.masked_fill(logits.gather(0, index[None])[0] < cut, count)
        shown += ids.flatten().bincount(minlength=count + 1)
        winners[tile.rows, tile.columns] = ids.int()

    def passes(whole: Tensor) -> Tensor:
        # In float64 on the CPU (not every device has it): in a large picture float32 would round across the threshold.
        return (won.cpu() > 0) & (won.cpu().double() / whole.cpu() >= overlap_threshold)

    # What is left to count are outlines in tiles that others win, and only where that can change the verdict.
    open_tiles = (masks.lower < cut) & (masks.upper >= cut) & ~contenders
    at_most = inside + (open_tiles * masks.areas).sum(1)
    undecided = passes(inside) & (~passes(at_most) | (inside.cpu() == 0))
    for _, tile, queries in masks.select(open_tiles.cpu() & undecided[:, None]):
        inside[queries] += _count(masks.logits(queries, tile), cut)
    accepted = passes(inside) & (inside.cpu() > 0)

    segments: dict[int, SegmentInfo] = {}
    fused: dict[int, int] = {}
    id_of_query = torch.zeros(count + 1, dtype=torch.int32)
    things = thing_mask.tolist()
    rows = zip(accepted.tolist(), scores.tolist(), labels.tolist(), shown.tolist(), kept.tolist(), strict=False)
    for position, (is_segment, score, label, area, query) in enumerate(rows):
        if not is_segment or area == 0:
            continue
        new_id = len(segments) + 1
        segment_id = new_id if things[label] else fused.setdefault(label, new_id)
        id_of_query[position] = segment_id
        earlier = segments.get(segment_id)
        segments[segment_id] = SegmentInfo(
            id=segment_id,
            label_id=label,
            score=score if earlier is None else max(score, earlier.score),
            is_thing=things[label],
            was_fused=not things[label],
            area=area if earlier is None else area + earlier.area,
            query=query if earlier is None else earlier.query,
        )
    segment_map = id_of_query.to(winners.device).index_select(0, winners.flatten()).view(sizes.target)
    return segment_map, list(segments.values())


@dataclass(frozen=True, kw_only=True)
class PastQueries:
    """What a frame's places were taken for before: `class_logits` [P,K+1] and `mask_logits` [P,h,w] of the queries of
    another frame, and what they count at each place, `weight` [h,w], where the frame's own count 1."""

    class_logits: Tensor
    mask_logits: Tensor
    weight: Tensor


@torch.no_grad()
def semantic(class_logits: Tensor, *, mask_logits: Tensor, sizes: MaskSizes, past: PastQueries | None = None) -> Tensor:
    """Per pixel the class with the largest sum over queries of class probability × mask probability: int64 [H,W].

    Class probabilities are the softmax over classes and void, the void column left out (Mask2Former's semantic
    inference). Queries of a `past` are summed as well, times their weight. Other args as in `panoptic`. Classes are
    culled by their bounds, then accumulated a few hundred at a time.
    """
    own, weight = len(class_logits), None
    if past is not None:
        class_logits = torch.cat((class_logits, past.class_logits))
        mask_logits = torch.cat((mask_logits, past.mask_logits))
        weight = _TiledMasks(past.weight[None], sizes)
    probabilities = class_logits.float().softmax(-1)[:, :-1].T.contiguous()  # [K,Q]
    masks = _TiledMasks(mask_logits, sizes)
    lower, upper = masks.lower.sigmoid(), masks.upper.sigmoid()
    if weight is not None:
        lower[own:] *= weight.lower
        upper[own:] *= weight.upper
    labels = torch.empty(sizes.target, dtype=torch.long, device=mask_logits.device)
    strongest = probabilities.amax(0)
    for index, tile in enumerate(masks.tiles):
        best = (probabilities @ lower[:, index]).amax()
        classes = (probabilities @ upper[:, index] >= best * (1 - _SLACK)).nonzero()[:, 0]
        if len(classes) == 1:
            labels[tile.rows, tile.columns] = classes
            continue
        # All that is left out adds up to less than float32 resolves in the winner's score.
        negligible = best * 1e-7 / len(strongest)
        queries = (strongest * upper[:, index] > negligible).nonzero()[:, 0]
        mask = masks.logits(queries, tile).sigmoid().flatten(1)
        if weight is not None:
            mask[queries >= own] *= weight.logits(queries.new_zeros(1), tile).flatten(1)
        values, indices = [], []
        for chunk in classes.split(_CLASS_CHUNK):
            value, winner = (probabilities[chunk[:, None], queries] @ mask).max(0)
            values.append(value)
            indices.append(chunk[winner])
        pick = torch.stack(values).max(0).indices
        ids = torch.stack(indices).gather(0, pick[None])[0]
        labels[tile.rows, tile.columns] = ids.view(tile.rows.stop - tile.rows.start, -1)
    return labels


@torch.no_grad()
def instances(
    class_logits: Tensor,
    *,
    mask_logits: Tensor,
    thing_mask: Tensor,
    sizes: MaskSizes,
    max_instances: int = 100,
    threshold: float = 0.0,
    mask_threshold: float = 0.5,
) -> InstanceMasks:
    """The best (query, class) pairs as overlapping masks; one query may stand for several classes.

    The `max_instances` best class probabilities (softmax over classes and void) are taken first and stuff is dropped
    afterwards, as the original does, so fewer may remain. Score = class probability × mean mask probability inside the
    mask; results with a score not above `threshold`, and so all empty masks, are left out. Other args as in `panoptic`.
    """
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    scores, pairs = probabilities.flatten().topk(min(max_instances, probabilities.numel()))
    labels = pairs % probabilities.shape[1]
    keep = thing_mask.to(labels.device)[labels] & (scores > threshold)  # the mean below is at most 1
    scores, labels, queries = scores[keep], labels[keep], (pairs // probabilities.shape[1])[keep]
    masks, boxes, quality = _render(mask_logits[queries], sizes, cut=_logit(mask_threshold))
    scores = scores * quality
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] > threshold]
    return InstanceMasks(
        masks=masks[order], scores=scores[order], labels=labels[order], boxes=boxes[order], queries=queries[order]
    )


@torch.no_grad()
def proposals(
    iou_logits: Tensor,
    *,
    mask_logits: Tensor,
    sizes: MaskSizes,
    max_proposals: int = 100,
    threshold: float = 0.0,
    nms_threshold: float | None = 0.7,
) -> InstanceMasks:
    """Everything, without classes: masks by falling objectness sigmoid(iou_logits [Q]), labels -1.

    With `nms_threshold`, a mask whose IoU with a better one exceeds it is left out, and so are empty masks;
    None is the original's rule, the best `max_proposals` as they are. Objectness must be above `threshold`.
    """
    objectness = iou_logits.float().sigmoid()
    queries = objectness.argsort(descending=True, stable=True)
    queries = queries[objectness[queries] > threshold]
    if nms_threshold is not None:
        queries = queries[_suppress(mask_logits[queries], sizes, nms_threshold)]
    queries = queries[:max_proposals]
    masks, boxes, _ = _render(mask_logits[queries], sizes, cut=0.0)
    return InstanceMasks(
        masks=masks, scores=objectness[queries], labels=torch.full_like(queries, -1), boxes=boxes, queries=queries
    )


@torch.no_grad()
def prompt_masks(mask_logits: Tensor, *, sizes: MaskSizes) -> Tensor:
    """Masks bool [N,H,W] of prompt queries with logits [N,h,w]: probability above one half."""
    return _render(mask_logits, sizes, cut=0.0)[0]


@torch.no_grad()
def exclusive_map(mask_logits: Tensor, *, sizes: MaskSizes) -> Tensor:
    """Every pixel goes to the mask of the largest logit over 0: its row + 1, or 0 where there is none; int32 [H,W]."""
    out = torch.zeros(sizes.target, dtype=torch.int32, device=mask_logits.device)
    if len(mask_logits) == 0:
        return out
    masks = _TiledMasks(mask_logits, sizes)
    for _, tile, rows in masks.select(masks.upper > 0):
        logits = masks.logits(rows, tile)
        index = _argmax(logits)
        best = logits.gather(0, index[None])[0]
        out[tile.rows, tile.columns] = torch.where(best > 0, rows[index] + 1, 0).int()
    return out


def _logit(probability: float) -> float:
    if not 0 < probability < 1:
        raise ValueError(f"mask_threshold: expected a probability between 0 and 1, got {probability}")
    return math.log(probability / (1 - probability))


def _render(mask_logits: Tensor, sizes: MaskSizes, *, cut: float) -> tuple[Tensor, Tensor, Tensor]:
    """Masks [N,H,W] (logit > cut), their boxes [N,4] (zeros when empty), mean probability inside [N] (0 when empty)."""
    height, width = sizes.target
    count = len(mask_logits)
    out = mask_logits.new_zeros((count, height, width), dtype=torch.bool)
    if count == 0:
        return out, mask_logits.new_zeros((0, 4), dtype=torch.float), mask_logits.new_zeros(0, dtype=torch.float)
    masks = _TiledMasks(mask_logits, sizes)
    rows, columns = out.new_zeros((count, height)), out.new_zeros((count, width))
    total, area = masks.lower.new_zeros(count), masks.lower.new_zeros(count)
    for _, tile, queries in masks.select(masks.upper > cut):
        logits = masks.logits(queries, tile)
        positive = logits > cut
        out[queries, tile.rows, tile.columns] = positive
        rows[queries, tile.rows] |= positive.any(2)
        columns[queries, tile.columns] |= positive.any(1)
        total[queries] += (logits.sigmoid() * positive).sum((1, 2))
        area[queries] += positive.sum((1, 2))
    boxes = torch.stack([*_first(columns, rows), *_end(columns, rows)], 1) * (area > 0)[:, None]
    return out, boxes, total / (area + 1e-6)


def _argmax(values: Tensor) -> Tensor:
    """Argmax over the first axis of [n,H,W], the first of equals.

    On CPU torch's own is several times slower than maxima without indices: so blocks first, then the best block.
    """
    count, block = len(values), 16
    if count <= block:
        return values.max(0).indices
    maxima = torch.stack([rows.amax(0) for rows in values.split(block)])
    start = maxima.max(0).indices * block
    rows = (start + torch.arange(block, device=values.device)[:, None, None]).clamp_(max=count - 1)
    return rows.gather(0, values.gather(0, rows).max(0).indices[None])[0]


def _count(logits: Tensor, cut: float) -> Tensor:
    """Pixels of each [n,H,W] map that reach `cut`; float sums are vectorised and exact for counts this small."""
    return torch.ge(logits, cut, out=torch.empty_like(logits)).sum((1, 2)).long()


def _first(*axes: Tensor) -> list[Tensor]:
    return [axis.float().argmax(1).float() for axis in axes]


def _end(*axes: Tensor) -> list[Tensor]:
    return [axis.shape[1] - axis.flip(1).float().argmax(1).float() for axis in axes]


def _suppress(mask_logits: Tensor, sizes: MaskSizes, threshold: float) -> Tensor:
    """Rows of `mask_logits` [N,h,w] (best first) that greedy non-maximum suppression by mask IoU leaves.

    Overlaps are counted on the grid of the logits, so that the choice does not depend on the size of the result.
    """
    rows, columns = (
        -(-low * image // canvas)
        for low, image, canvas in zip(mask_logits.shape[-2:], sizes.image, sizes.canvas, strict=True)
    )
    inside = (mask_logits[:, :rows, :columns] > 0).flatten(1)
    shared = torch.zeros(len(inside), len(inside), device=inside.device)
    for part in inside.split(_GRID_CHUNK, dim=1):
        shared += part.float() @ part.float().T
    shared = shared.double().cpu()
    area = shared.diagonal()
    overlaps = shared / (area[:, None] + area - shared) > threshold
    kept: list[int] = []
    for row in area.nonzero()[:, 0].tolist():
        if not overlaps[row, kept].any():
            kept.append(row)
    return torch.tensor(kept, dtype=torch.long, device=mask_logits.device)
