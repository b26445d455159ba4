"""Whole clips against the original's MinVIS path (golden case f): cut, decoded, matched, averaged, post-processed.

The fixture holds the recorded tensors with maps and masks in fewer bytes: panoptic maps as class + 20 · number (the
original: 1000), masks as packed bits.
"""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omgvision.models.omg_seg.clips_omg_seg import (
    QueryPrediction,
    clip_instances,
    clip_panoptic,
    follow_first_masks,
    fuse_whole,
    join_clips,
    join_frames,
    match_queries,
    restarted_panoptic,
    split_frames,
)
from omgvision.models.omg_seg.postprocessing_omg_seg import MaskSizes
from tests.closeness import assert_close, assert_features, assert_logits
from tests.golden import load, read_json
from tests.models import CLASSES, THINGS, golden_model

RECORDED = load("tiny_io_f_minvis")
SIZES = MaskSizes(canvas=(64, 96), image=(60, 90), target=(90, 135))
THING_MASK = torch.arange(CLASSES) < THINGS
PANOPTIC: Any = {"thing_mask": THING_MASK, "sizes": SIZES, "overlap_threshold": 0.3}


@cache
def parts(case: str, length: int = 3) -> tuple[QueryPrediction, ...]:
    """Each clip of a recorded video, decoded by itself."""
    pixels = RECORDED[f"{case}.input"]
    model, predictions = golden_model(), []
    for part in split_frames(pixels.shape[1], length=length):
        with torch.no_grad():
            output = model(pixels[:, part])
        predictions.append(
            QueryPrediction(
                class_logits=output.class_queries_logits[0],
                iou_logits=output.iou_logits[0],
                mask_logits=output.masks_queries_logits[0],
                query_features=output.query_features[0],
            )
        )
    return tuple(predictions)


def masks_of(name: str) -> Tensor:
    packed = RECORDED[f"{name}.packed"].numpy()
    return torch.from_numpy(np.unpackbits(packed, axis=1, count=90 * 135)).view(-1, 90, 135).bool()


def test_cutting():
    for key, ends in read_json("minvis_video_split").items():
        count, length, _ = map(int, key.split(","))
        found = split_frames(count, length=length)
        assert [part.stop for part in found] == ends, key
        assert [part.start for part in found] == [0, *ends[:-1]]


def test_cutting_nothing():
    for count, length in ((0, 3), (3, 0)):
        with pytest.raises(ValueError, match="at least one frame"):
            split_frames(count, length=length)


def test_matching_alone():
    found = match_queries(RECORDED["match.tgt"][0], RECORDED["match.cur"][0])
    assert torch.equal(found, RECORDED["match.indices"])


def test_frames_encoded_one_by_one_are_the_clip():
    model, pixels = golden_model(), RECORDED["v6.input"][:, :3]
    with torch.no_grad():
        joined = join_frames([model.encode(pixels[:, frame]) for frame in range(3)])
        assert joined.clip_features is not None and joined.clip_features.shape[:2] == (1, 3)
        output = model(encoder_outputs=joined)
    assert_logits(output.class_queries_logits, RECORDED["v6.tube0.cls"])
    assert_features(output.query_features, RECORDED["v6.tube0.query_feat"])


@pytest.mark.parametrize("tube", [0, 1])
def test_clips(tube):
    """The second is recorded in its own order."""
    found = parts("v6")[tube]
    assert_logits(found.class_logits, RECORDED[f"v6.tube{tube}.cls"][0])
    assert_logits(found.iou_logits, RECORDED[f"v6.tube{tube}.iou"][0, :, 0])
    assert_features(found.query_features, RECORDED[f"v6.tube{tube}.query_feat"][0])


@pytest.mark.parametrize("case", ["v6", "v5_vos"])
def test_joined(case):
    first, second = parts(case)
    order = match_queries(first.query_features, second.query_features)
    assert torch.equal(order, RECORDED[f"{case}.match_indices.tube1"])
    joined = join_clips(parts(case))
    assert_logits(joined.class_logits, RECORDED[f"{case}.cls_avg"][0])
    assert_logits(joined.iou_logits, RECORDED[f"{case}.iou_avg"][0, :, 0])
    assert joined.mask_logits.shape[:2] == (20, RECORDED[f"{case}.input"].shape[1])


def test_nothing_to_join():
    with pytest.raises(ValueError, match="at least one clip"):
        join_clips([])


def fused() -> Tensor:
    """The averaged classes mixed with CLIP's opinion of the masks over all frames."""
    model = golden_model()
    with torch.no_grad():
        features = model.encode(RECORDED["v6.input"]).clip_features
        assert features is not None
        return fuse_whole(
            model,
            join_clips(parts("v6")),
            clip_features=features,
            canvas=SIZES.canvas,
            class_embeddings=model.class_embeddings,
            seen_mask=model.seen_mask,
        ).class_logits


@pytest.mark.parametrize("case", ["v6", "v6_ov"])
def test_panoptic_maps(case):
    """With the numbers of the original, which start over in every frame."""
    logits = join_clips(parts("v6")).class_logits
    if case == "v6_ov":
        logits = fused()
        assert_close(logits.exp(), RECORDED["v6_ov.fused"][0].exp(), atol=1e-4)
    masks = join_clips(parts("v6")).mask_logits
    for frame in range(masks.shape[1]):
        ids = restarted_panoptic(logits, mask_logits=masks[:, frame], **PANOPTIC)
        assert torch.equal(ids // 1000 * 20 + ids % 1000, RECORDED[f"{case}.frame{frame}.panoptic"].int()), frame


def test_panoptic_ids_follow_the_query():
    """What users get: one id is one query (or one class of stuff) in all frames."""
    classes: dict[int, int] = {}
    queries: dict[int, int] = {}
    joined = join_clips(parts("v6"))
    for label_map, segments in clip_panoptic(joined.class_logits, mask_logits=joined.mask_logits, **PANOPTIC):
        assert {segment.id for segment in segments} == set(label_map.unique().tolist()) - {0}
        for segment in segments:
            assert classes.setdefault(segment.id, segment.label_id) == segment.label_id
            if segment.is_thing:
                assert queries.setdefault(segment.id, segment.query) == segment.query
                assert segment.id == segment.query + 1
    assert len(classes) > 8


def test_instances():
    joined = join_clips(parts("v6"))
    frames = clip_instances(
        joined.class_logits,
        mask_logits=joined.mask_logits,
        thing_mask=THING_MASK,
        sizes=SIZES,
        max_instances=10,
        threshold=-1.0,
    )
    for frame, (ids, found) in enumerate(frames):
        name = f"v6.frame{frame}"
        assert torch.equal(ids, RECORDED[f"{name}.instances_id"]), frame
        assert torch.equal(found.labels, RECORDED[f"{name}.labels"])
        assert torch.equal(found.masks, masks_of(f"{name}.masks"))
        assert torch.equal(found.boxes, RECORDED[f"{name}.bboxes"])
        torch.testing.assert_close(found.scores, RECORDED[f"{name}.scores"], atol=1e-4, rtol=1e-4)


def test_instances_keep_their_ids_where_others_are_missing():
    joined = join_clips(parts("v6"))

    def frames(threshold: float):
        return clip_instances(
            joined.class_logits,
            mask_logits=joined.mask_logits,
            thing_mask=THING_MASK,
            sizes=SIZES,
            max_instances=10,
            threshold=threshold,
        )

    for (all_ids, every), (some_ids, some) in zip(frames(-1.0), frames(0.45), strict=True):
        expected = every.scores > 0.45
        assert 0 < expected.sum() < len(all_ids)
        assert torch.equal(some_ids, all_ids[expected])
        assert torch.equal(some.masks, every.masks[expected])


def test_objects_of_the_first_frame():
    joined = join_clips(parts("v5_vos"))
    frames = follow_first_masks(
        joined.iou_logits,
        mask_logits=joined.mask_logits,
        first_masks=masks_of("v5_vos.gt_masks_frame0"),
        ids=RECORDED["v5_vos.gt_ids"].tolist(),
        sizes=SIZES,
        max_proposals=8,
    )
    for frame, ids in enumerate(frames):
        assert torch.equal(ids, RECORDED[f"v5_vos.frame{frame}.proposal_map"].int()), frame
