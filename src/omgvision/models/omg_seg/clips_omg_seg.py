"""Clips as the original joins them: a video is cut, each clip is decoded by itself, and the queries of neighbouring
clips are matched by their features (its MinVIS path; Huang et al. 2022, "MinVIS"). All functions take tensors.

Letters: Q queries, K classes, C width, T frames, h×w the stride-4 grid, H×W the size of the result.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from .classifier_omg_seg import class_logits as classify
from .classifier_omg_seg import fuse_with_clip, mask_pool, resize_through_canvas
from .modeling_omg_seg import OmgSegForUniversalSegmentation
from .outputs_omg_seg import OmgSegEncoderOutput
from .postprocessing_omg_seg import InstanceMasks, MaskSizes, SegmentInfo, instances, panoptic, proposals


@dataclass(frozen=True, kw_only=True)
class QueryPrediction:
    """Queries of a frame or a clip: `class_logits` [Q,K+1] void last, `iou_logits` [Q], `mask_logits` [Q,h,w] or for
    clips [Q,T,h,w], `query_features` [Q,C] of the last decoder layer, before its norm."""

    class_logits: Tensor
    iou_logits: Tensor
    mask_logits: Tensor
    query_features: Tensor

    def with_masks(self, mask_logits: Tensor) -> "QueryPrediction":
        """The same queries with other masks: one frame of a clip."""
        return replace(self, mask_logits=mask_logits)

    def frames(self) -> "list[QueryPrediction]":
        """The queries of a clip on each of its frames."""
        return [self.with_masks(masks) for masks in self.mask_logits.unbind(1)]


def join_frames(frames: Sequence[OmgSegEncoderOutput]) -> OmgSegEncoderOutput:
    """Encoded pictures of one size, as one encoded clip: the same as encoding them together."""
    first = frames[0]
    masks, memories, features = [], [], []
    for frame in frames:
        assert frame.mask_features is not None and frame.memories is not None and frame.clip_features is not None
        masks.append(frame.mask_features)
        memories.append(frame.memories)
        features.append(frame.clip_features)
    return OmgSegEncoderOutput(
        mask_features=torch.cat(masks, dim=2),
        memories=tuple(torch.cat(level, dim=1) for level in zip(*memories, strict=True)),
        memory_shapes=first.memory_shapes,
        clip_features=torch.cat(features, dim=1),
        image_sizes=first.image_sizes,
        canvas_size=first.canvas_size,
    )


def split_frames(count: int, *, length: int) -> list[slice]:
    """Cuts `count` frames into as few clips of at most `length` as possible.

    What is missing to full clips is taken from the last clips, one frame each; where there are not enough clips for
    that, all of it from the last one (7 frames by 3 → 3, 2, 2; 7 by 5 → 5, 2), as the original does.
    """
    if count < 1 or length < 1:
        raise ValueError(f"expected at least one frame and clips of at least one, got {count} frames by {length}")
    clips = -(-count // length)
    missing = clips * length - count
    spread = missing < clips
    parts, start = [], 0
    for index in range(clips):
        last = index == clips - 1
        shorter = int(index >= clips - missing) if spread else missing * last
        parts.append(slice(start, start + length - shorter))
        start = parts[-1].stop
    return parts


def match_queries(previous: Tensor, current: Tensor) -> Tensor:
    """The rows of `current` [Q,C] in the order of their best partners among `previous` [Q,C]: int64 [Q].

    The sum of cosines is the largest possible (Hungarian method).
    """
    cosine = F.normalize(previous.float(), dim=-1) @ F.normalize(current.float(), dim=-1).T
    _, columns = linear_sum_assignment(1 - cosine.double().cpu().numpy())
    return torch.from_numpy(columns).to(current.device)


def join_clips(clips: Iterable[QueryPrediction]) -> QueryPrediction:
    """One prediction for a whole video from those of its clips, in order.

    The queries of each clip are put in the order of the clip before it; class and IoU logits are means over the clips,
    each of the same weight whatever its length. Holds the mask logits of all frames: Q·h·w floats a frame.

    Returns:
        The joined prediction, whose query features are those of the last clip.

    Raises:
        ValueError: no clip at all.
    """
    masks: list[Tensor] = []
    classes = ious = features = None
    for clip in clips:
        if features is None or classes is None or ious is None:
            features, classes, ious = clip.query_features, clip.class_logits, clip.iou_logits
            masks.append(clip.mask_logits)
            continue
        order = match_queries(features, clip.query_features)
        features = clip.query_features[order]
        classes = classes + clip.class_logits[order]
        ious = ious + clip.iou_logits[order]
        masks.append(clip.mask_logits[order])
    if features is None or classes is None or ious is None:
        raise ValueError("expected at least one clip, got none")
    return QueryPrediction(
        class_logits=classes / len(masks),
        iou_logits=ious / len(masks),
        mask_logits=torch.cat(masks, dim=1),
        query_features=features,
    )


def fuse_whole(
    model: OmgSegForUniversalSegmentation,
    whole: QueryPrediction,
    *,
    clip_features: Tensor,
    canvas: tuple[int, int],
    class_embeddings: Tensor,
    seen_mask: Tensor,
) -> QueryPrediction:
    """The averaged classes of a whole video, mixed with CLIP's opinion of the masks over all its frames.

    Args:
        model: with a CLIP head.
        whole: of `join_clips`.
        clip_features: [1, T, channels, H/32, W/32], the last backbone stage.
        canvas: padded (H, W) of the network input.
        class_embeddings: [K, P, D] unit norm.
        seen_mask: bool [K].
    """
    assert model.clip_head is not None
    features = clip_features.transpose(1, 2)
    grid = (features.shape[-2], features.shape[-1])
    small = resize_through_canvas(whole.mask_logits[None], canvas, grid)
    pooled, count = mask_pool(features, small.to(features.dtype))
    clip = classify(model.clip_head(pooled), class_embeddings, model.config.logit_scale)[..., :-1].float()
    visible = (count > 0).float()  # a mask without a pixel on CLIP's grid has no CLIP opinion
    fused = fuse_with_clip(
        whole.class_logits[None],
        clip,
        seen_mask,
        model.config.fusion_alpha * visible,
        model.config.fusion_beta * visible,
    )
    return replace(whole, class_logits=fused[0])


def clip_panoptic(
    class_logits: Tensor,
    *,
    mask_logits: Tensor,
    thing_mask: Tensor,
    sizes: MaskSizes,
    threshold: float = 0.0,
    overlap_threshold: float = 0.8,
) -> Iterator[tuple[Tensor, list[SegmentInfo]]]:
    """Panoptic maps of the frames of a clip, in which a segment has the same id in every frame.

    A thing's id is its query's number + 1; stuff of class k, whose queries are merged, has Q + 1 + k.

    Args:
        class_logits: [Q,K+1] of the whole clip.
        mask_logits: [Q,T,h,w].
        Others: as of `panoptic`.

    Yields:
        For each frame ids int32 [H,W], 0 where nothing is, and the segments in it.
    """
    queries = len(class_logits)
    for frame in range(mask_logits.shape[1]):
        label_map, segments = panoptic(
            class_logits,
            mask_logits=mask_logits[:, frame],
            thing_mask=thing_mask,
            sizes=sizes,
            threshold=threshold,
            overlap_threshold=overlap_threshold,
        )
        ids = [segment.query + 1 if segment.is_thing else queries + 1 + segment.label_id for segment in segments]
        yield renumber(label_map, segments, ids=ids)


def renumber(
    label_map: Tensor, segments: Sequence[SegmentInfo], *, ids: Sequence[int]
) -> tuple[Tensor, list[SegmentInfo]]:
    """A panoptic map (int32 [H,W]) and its segments with other ids, one for each segment."""
    table = torch.zeros(len(segments) + 1, dtype=torch.int32)
    for segment, new in zip(segments, ids, strict=True):
        table[segment.id] = new
    renamed = [replace(segment, id=new) for segment, new in zip(segments, ids, strict=True)]
    return table.to(label_map.device)[label_map.long()], renamed


def restarted_panoptic(
    class_logits: Tensor,
    *,
    mask_logits: Tensor,
    thing_mask: Tensor,
    sizes: MaskSizes,
    threshold: float = 0.0,
    overlap_threshold: float = 0.8,
) -> Tensor:
    """One frame's panoptic map as the original writes it: class + 1000 · number for things, void = K; int32 [H,W].

    The original counts things anew in each frame, also those that end up without a pixel, so the same object is called
    differently from frame to frame. For comparison with its files; `clip_panoptic` keeps identity. Args as `panoptic`.
    """
    shown, accepted = (
        panoptic(
            class_logits,
            mask_logits=mask_logits,
            thing_mask=thing_mask,
            sizes=sizes,
            threshold=threshold,
            overlap_threshold=overlap_threshold,
            drop_uncertain=drop_uncertain,
        )
        for drop_uncertain in (True, False)
    )
    numbers: dict[int, int] = {}
    for segment in accepted[1]:
        if segment.is_thing:
            numbers[segment.query] = len(numbers) + 1
    classes = class_logits.shape[-1] - 1
    out = torch.full_like(shown[0], classes)
    for segment in shown[1]:
        number = 1000 * numbers[segment.query] if segment.is_thing else 0
        out[shown[0] == segment.id] = segment.label_id + number
    return out


def clip_instances(
    class_logits: Tensor,
    *,
    mask_logits: Tensor,
    thing_mask: Tensor,
    sizes: MaskSizes,
    max_instances: int = 100,
    threshold: float = 0.0,
) -> Iterator[tuple[Tensor, InstanceMasks]]:
    """Instances of the frames of a clip; an instance is a (query, class) pair and has the same id in every frame.

    Args:
        class_logits: [Q,K+1] of the whole clip.
        mask_logits: [Q,T,h,w].
        threshold: an instance is left out of the frames in which its score is not above this.
        Others: as of `instances`.

    Yields:
        For each frame ids int64 [n], counted from 1 in the order in which the original finds the pairs, and the
        instances of that frame by rising id. Scores differ from frame to frame with the quality of the mask.
    """
    probabilities = class_logits.float().softmax(-1)[:, :-1]
    # The original numbers its results as `topk` happens to leave them.
    best = probabilities.flatten().topk(min(max_instances, probabilities.numel()), sorted=False).indices
    labels = best % probabilities.shape[1]
    numbers = torch.zeros(probabilities.numel(), dtype=torch.long, device=best.device)
    countable = best[thing_mask.to(best.device)[labels]]
    numbers[countable] = torch.arange(1, len(countable) + 1, device=best.device)
    for frame in range(mask_logits.shape[1]):
        found = instances(
            class_logits,
            mask_logits=mask_logits[:, frame],
            thing_mask=thing_mask,
            sizes=sizes,
            max_instances=max_instances,
            threshold=threshold,
        )
        ids, order = numbers[found.queries * probabilities.shape[1] + found.labels].sort()
        yield ids, select_instances(found, order)


def select_instances(found: InstanceMasks, rows: Tensor) -> InstanceMasks:
    """Some rows (int64 or bool), in that order."""
    return InstanceMasks(
        masks=found.masks[rows],
        scores=found.scores[rows],
        labels=found.labels[rows],
        boxes=found.boxes[rows],
        queries=found.queries[rows],
    )


def follow_first_masks(
    iou_logits: Tensor,
    *,
    mask_logits: Tensor,
    first_masks: Tensor,
    ids: Sequence[int],
    sizes: MaskSizes,
    max_proposals: int = 25,
) -> Iterator[Tensor]:
    """Objects of the first frame in all frames, as the original does it: the id of a mask follows the best proposal.

    The `max_proposals` queries of the highest objectness are matched to the masks by IoU in the first frame (Hungarian
    method, however small the IoU). Where proposals overlap, the one of higher objectness is on top.

    Args:
        iou_logits: [Q] of the whole clip.
        mask_logits: [Q,T,h,w].
        first_masks: bool [N,H,W] in the first frame, at the size of the result.
        ids: N numbers over 0.

    Yields:
        For each frame ids int32 [H,W], 0 where there is none.
    """
    chosen: Sequence[tuple[int, int]] = ()
    for frame in range(mask_logits.shape[1]):
        found = proposals(
            iou_logits,
            mask_logits=mask_logits[:, frame],
            sizes=sizes,
            max_proposals=max_proposals,
            nms_threshold=None,
        )
        if frame == 0:
            overlap = mask_ious(found.masks, first_masks)
            rows, columns = linear_sum_assignment(overlap.double().cpu().numpy(), maximize=True)
            # Best proposals come first here; painted in reverse, they end up on top.
            chosen = sorted(zip(rows.tolist(), (ids[column] for column in columns), strict=True), reverse=True)
        out = torch.zeros(sizes.target, dtype=torch.int32, device=mask_logits.device)
        for row, number in chosen:
            out[found.masks[row]] = number
        yield out


def mask_ious(masks: Tensor, others: Tensor) -> Tensor:
    """IoU of every pair of two stacks of masks, bool [N,…] and [M,…] of one size: float32 [N,M], 0 for empty pairs."""
    first, second = masks.flatten(1).float(), others.flatten(1).float()
    shared = first @ second.T
    union = first.sum(1)[:, None] + second.sum(1) - shared
    return shared / union.clamp_min(1)
