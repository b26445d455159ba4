"""The fusion of the model's classes with CLIP's opinion, against the original (golden case d)."""

from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omgvision.models.omg_seg.classifier_omg_seg import class_logits, mask_pool, resize_through_canvas
from omgvision.models.omg_seg.outputs_omg_seg import OmgSegOutput
from tests.closeness import assert_close, assert_features, assert_logits
from tests.golden import load
from tests.models import golden_model

RECORDED = load("tiny_io_d_openvoc")
FILES = {"image": "tiny_io_a_image", "video": "tiny_io_b_video"}


@cache
def run(case: str) -> OmgSegOutput:
    with torch.no_grad():
        return golden_model()(load(FILES[case])["input"], clip_fusion=True)


def clip_stages(output: OmgSegOutput, mask_logits: Tensor) -> dict[str, Tensor]:
    """What CLIP sees and says, step by step; mask_logits [B, Q, T, h, w]."""
    model, encoded = golden_model(), output.encoder_outputs
    assert encoded is not None and encoded.clip_features is not None and encoded.canvas_size is not None
    features = encoded.clip_features.transpose(1, 2)
    height, width = encoded.canvas_size.tolist()
    small = resize_through_canvas(mask_logits, (height, width), (features.shape[-2], features.shape[-1]))
    pooled, _ = mask_pool(features, small)
    assert model.clip_head is not None
    embeddings = model.clip_head(pooled)
    logits = class_logits(embeddings, model.class_embeddings, model.config.logit_scale)
    return {"clip_feat_mask": small, "pooled_feat": pooled, "clip_embed": embeddings, "clip_logit_with_void": logits}


def assert_stages(stages: dict[str, Tensor], case: str) -> None:
    expected = RECORDED[f"{case}.clip_feat_mask"]
    assert_logits(stages["clip_feat_mask"].reshape(expected.shape), expected)
    assert_features(stages["pooled_feat"], RECORDED[f"{case}.pooled_feat"])
    assert_features(stages["clip_embed"], RECORDED[f"{case}.clip_embed"])
    assert_logits(stages["clip_logit_with_void"], RECORDED[f"{case}.clip_logit_with_void"])


def assert_fused(found: Tensor, name: str, case: str) -> None:
    """Equal probabilities, and equal logarithms unless the query is surely void.

    The original scales the classes by 1 - void in float32. Where void is 1 - 1e-5 the rounding of that difference is
    1 % of it: the record itself is up to 1.4 away from float64 there, in logarithms of probabilities under 1e-5.
    """
    expected = RECORDED[f"{case}.{name}"]
    assert_close(found.exp(), expected.exp(), atol=1e-4)
    open_to_classes = RECORDED[f"{case}.in.cls"].softmax(-1)[..., -1] < 0.999
    assert open_to_classes.float().mean() > 0.5
    assert_logits(found[open_to_classes], expected[open_to_classes])


@pytest.mark.parametrize("case", ["image", "video"])
def test_what_clip_sees_and_says(case):
    output = run(case)
    masks = output.masks_queries_logits
    assert masks is not None
    with torch.no_grad():
        stages = clip_stages(output, masks if masks.dim() == 5 else masks[:, :, None])
    assert_stages(stages, case)


@pytest.mark.parametrize("case", ["image", "video"])
def test_fused_logits(case):
    output = run(case)
    assert_logits(output.class_queries_logits, RECORDED[f"{case}.in.cls"])
    assert output.fused_class_logits is not None
    assert_fused(output.fused_class_logits, "fused", case)


@pytest.mark.parametrize("seen", [True, False])
def test_all_classes_seen_or_unseen(seen):
    encoded, model = run("image").encoder_outputs, golden_model()
    flags = torch.full_like(model.seen_mask, seen)
    with torch.no_grad():
        output = model(
            encoder_outputs=encoded, clip_fusion=True, class_embeddings=model.class_embeddings, seen_mask=flags
        )
    assert_fused(output.fused_class_logits, "fused_all_true" if seen else "fused_all_false", "image")


def test_masks_without_a_pixel_keep_their_own_classes():
    output, model = run("image"), golden_model()
    assert output.masks_queries_logits is not None and output.encoder_outputs is not None
    masks = output.masks_queries_logits.clone()
    masks[:, 3], masks[0, 7] = -1.5, -0.2
    masks = masks[:, :, None]
    own = output.class_queries_logits
    assert own is not None
    with torch.no_grad():
        assert_stages(clip_stages(output, masks), "image_forced_empty")
        fused = model._fuse(own, masks, output.encoder_outputs, model.class_embeddings, model.seen_mask)
    assert_fused(fused, "fused", "image_forced_empty")
    assert_close(fused[:, 3].exp(), own[:, 3].softmax(-1), atol=1e-6)


def test_saturated_probabilities_stay_finite():
    """The original multiplies probabilities and gives NaN where one underflows; we add logarithms."""
    output, model = run("image"), golden_model()
    own = output.class_queries_logits
    assert own is not None and output.masks_queries_logits is not None and output.encoder_outputs is not None
    saturated = torch.where(own == own.amax(-1, keepdim=True), 200.0, -200.0)
    fused = model._fuse(
        saturated,
        output.masks_queries_logits[:, :, None],
        output.encoder_outputs,
        model.class_embeddings,
        model.seen_mask,
    )
    assert fused.isfinite().all()


def test_resizing_through_the_canvas_is_exact():
    masks, canvas, target = torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)), (90, 122), (5, 7)
    up = F.interpolate(masks, size=canvas, mode="bilinear", align_corners=False)
    expected = F.interpolate(up, size=target, mode="bilinear", align_corners=False)
    assert_close(resize_through_canvas(masks, canvas, target), expected, atol=1e-5)


def test_mask_pool():
    features, masks = RECORDED["mask_pool.x"], RECORDED["mask_pool.mask"]
    assert_close(mask_pool(features, masks)[0], RECORDED["mask_pool.out"], atol=1e-6)
    # The original resizes masks of another size first.
    other = F.interpolate(
        RECORDED["mask_pool.mask_other_size"], size=features.shape[-2:], mode="bilinear", align_corners=False
    )
    pooled, count = mask_pool(features, other)
    assert_close(pooled, RECORDED["mask_pool.out_other_size"], atol=1e-6)
    assert torch.equal(count, (other > 0).sum((-2, -1)).float())


def test_clip_head():
    model = golden_model()
    assert model.clip_head is not None
    with torch.no_grad():
        embeddings = model.clip_head(RECORDED["clip_head.in"])
        logits = class_logits(embeddings, model.class_embeddings, model.config.logit_scale)
    assert_features(embeddings, RECORDED["clip_head.out"])
    assert_logits(logits, RECORDED["clip_head.logit"])
