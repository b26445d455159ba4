"""Post-processing against the original's fusion head (golden tiny_io_e_fusion) and prompt masks (tiny_io_c_prompts)."""

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_seg.postprocessing_omg_seg import (
    InstanceMasks,
    MaskSizes,
    SegmentInfo,
    instances,
    panoptic,
    prompt_masks,
    proposals,
)
from tests.golden import load, read_json

META = read_json("tiny_meta")["meta"]
RECORDED = load("tiny_io_e_fusion")
MASK_LOGITS = load("tiny_io_a_image")["decoder.mask.4"]
VOID = 19
THINGS = torch.arange(VOID) < 12
METAS = {name: tuple(size) for name, size in META["e"]["metas"].items()}
RESCALED = MaskSizes(canvas=METAS["batch_input_shape"], image=METAS["img_shape"], target=METAS["ori_shape"])
NOT_RESCALED = MaskSizes(canvas=METAS["batch_input_shape"], image=METAS["img_shape"], target=METAS["img_shape"])
NAMES = sorted(name for name in RECORDED if not name.startswith("in."))


def class_logits(kind: str, image: int) -> Tensor:
    return RECORDED["in.cls" if kind == "cls" else "in.fused_cls"][image]


def original_ids(segment_map: Tensor, segments: list[SegmentInfo]) -> Tensor:
    """class + 1000 · number of the thing, void = number of classes, as the original writes it."""
    ids = torch.full_like(segment_map, VOID)
    things = 0
    for segment in segments:
        things += segment.is_thing
        ids[segment_map == segment.id] = segment.label_id + (1000 * things if segment.is_thing else 0)
    return ids


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".panoptic")])
def test_panoptic(name: str):
    parts = name.split(".")
    image = int(parts[-2].removeprefix("img"))
    variant = name.split(".cls.")[0].split(".fused.")[0]
    settings = META["e"]["variants"][variant]
    segment_map, segments = panoptic(
        class_logits("fused" if ".fused." in name else "cls", image),
        mask_logits=MASK_LOGITS[image],
        thing_mask=THINGS,
        sizes=NOT_RESCALED if "norescale" in name else RESCALED,
        threshold=settings.get("object_mask_thr", 0.8),
        overlap_threshold=settings.get("iou_thr", 0.8),
        drop_uncertain=settings.get("filter_low_score", False),
    )
    expected = RECORDED[name].int()
    ours = original_ids(segment_map, segments)
    if variant == "p_iou0":
        # Accepted things without a pixel take a number in the original; we number what can be seen.
        ours, expected = numbered_by_rank(ours), numbered_by_rank(expected)
    assert torch.equal(ours, expected)
    assert {segment.id: segment.area for segment in segments} == {
        segment.id: int((segment_map == segment.id).sum()) for segment in segments
    }


def numbered_by_rank(ids: Tensor) -> Tensor:
    ranked = ids.clone()
    for rank, value in enumerate(sorted(int(value) for value in ids.unique() if value >= 1000), start=1):
        ranked[ids == value] = value % 1000 + 1000 * rank
    return ranked


@pytest.mark.parametrize("variant", ["i12.cls", "i12.fused", "i100.cls"])
@pytest.mark.parametrize("image", [0, 1])
def test_instances(variant: str, image: int):
    recorded = {name.rsplit(".", 1)[1]: value for name, value in RECORDED.items() if f"{variant}.img{image}." in name}
    count, kind = variant.split(".")
    found = instances(
        class_logits(kind, image),
        mask_logits=MASK_LOGITS[image],
        thing_mask=THINGS,
        sizes=RESCALED,
        max_instances=int(count[1:]),
        threshold=-1.0,
    )
    ours, theirs = sorted_rows(found), sorted_rows(recorded)
    assert torch.equal(ours["labels"], theirs["labels"])
    torch.testing.assert_close(ours["scores"], theirs["scores"], atol=1e-5, rtol=1e-4)
    assert torch.equal(ours["bboxes"], theirs["bboxes"])
    for name in {"masks", "mask_areas"} & set(recorded):
        assert torch.equal(ours[name].long(), theirs[name].long())


def sorted_rows(found: InstanceMasks | dict[str, Tensor]) -> dict[str, Tensor]:
    """By score, then label: the original's order is not defined."""
    if isinstance(found, InstanceMasks):
        rows = {"labels": found.labels, "scores": found.scores, "bboxes": found.boxes, "masks": found.masks}
        rows["mask_areas"] = found.masks.flatten(1).sum(1)
    else:
        rows = found
    keys = list(zip((-rows["scores"]).double().round(decimals=5).tolist(), rows["labels"].tolist(), strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return {name: value[order] for name, value in rows.items()}


@pytest.mark.parametrize("image", [0, 1])
def test_proposals(image: int):
    found = proposals(
        RECORDED["in.iou"][image, :, 0],
        mask_logits=MASK_LOGITS[image],
        sizes=RESCALED,
        max_proposals=10,
        nms_threshold=None,
    )
    expected = RECORDED[f"pro10.cls.img{image}.proposals"].bool().flip(0)  # stored lowest first
    assert torch.equal(found.masks, expected)
    assert (found.labels == -1).all() and (found.scores.diff() <= 0).all()


@pytest.mark.parametrize("case", ["point", "box", "box_bp0", "mixed", "batch2"])
def test_prompt_masks(case: str):
    recorded = load("tiny_io_c_prompts")
    logits, expected = recorded[f"{case}.decoder.mask.last"], recorded[f"{case}.result_masks"].bool()
    image, target = (tuple(META["c"][case][name]) for name in ("img_shape", "ori_shape"))
    sizes = MaskSizes(canvas=(96, 128), image=image, target=target)
    for masks, truth in zip(logits, expected, strict=True):
        assert torch.equal(prompt_masks(masks, sizes=sizes), truth)


def test_resized_logits():
    """The two resizes as two matrices give the original's numbers."""
    from omgvision.models.omg_seg.postprocessing_omg_seg import _TiledMasks

    masks = _TiledMasks(MASK_LOGITS[0][:4], RESCALED)
    resized = torch.empty(4, *RESCALED.target)
    for tile in masks.tiles:
        resized[:, tile.rows, tile.columns] = masks.logits(torch.arange(4), tile)
    torch.testing.assert_close(resized, RECORDED["rescaled_mask_logits.img0.first4"], atol=2e-5, rtol=1e-5)
