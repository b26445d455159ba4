"""Pictures and clips through the whole model, against the original (golden cases a, a2, a3, b)."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omgvision.models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput, OmgSegOutput
from tests.closeness import assert_features, assert_logits
from tests.golden import load
from tests.models import attention_masks, golden_model

CASES = ["a_image", "a2_image_90x122", "a3_image_32x64", "b_video"]
ALL_LAYERS = ["a_image", "a3_image_32x64", "b_video"]


@dataclass
class Run:
    """One forward pass beside its record; `attended[i]` is the mask [B, Q, N] that layer i really used."""

    recorded: dict[str, Tensor]
    output: OmgSegOutput
    attended: list[Tensor]

    @property
    def encoded(self) -> OmgSegEncoderOutput:
        assert self.output.encoder_outputs is not None
        return self.output.encoder_outputs

    def layers(self, name: str) -> list[Tensor]:
        """`name` of every prediction, the last one last."""
        assert self.output.auxiliary_logits is not None
        return [layer[name] for layer in self.output.auxiliary_logits] + [self.output[name]]

    def class_layers(self) -> list[Tensor]:
        """In the original's layout: classes, void, IoU score."""
        pairs = zip(self.layers("class_queries_logits"), self.layers("iou_logits"), strict=True)
        return [torch.cat((classes, iou[..., None]), -1) for classes, iou in pairs]


@cache
def run(case: str) -> Run:
    recorded, model = load(f"tiny_io_{case}"), golden_model()
    with torch.no_grad(), attention_masks(model) as attended:
        output = model(recorded["input"], output_auxiliary=True)
    return Run(recorded, output, attended)


@pytest.mark.parametrize("case", ["a_image", "a2_image_90x122", "b_video"])
def test_backbone_features(case):
    recorded = load(f"tiny_io_{case}")
    pixels = recorded["input"].flatten(0, -4)
    with torch.no_grad():
        features = golden_model().model.backbone(pixels).feature_maps
    assert len(features) == 4
    for level, feature in enumerate(features):
        assert_features(feature, recorded[f"backbone.feat{level}"])


@pytest.mark.parametrize("case", CASES)
def test_pixel_decoder(case):
    case = run(case)
    encoded = case.encoded
    assert encoded.mask_features is not None and encoded.memories is not None and encoded.memory_shapes is not None
    mask_features = encoded.mask_features.transpose(1, 2).flatten(0, 1)
    assert_features(mask_features, case.recorded["pixel_decoder.mask_features"])
    for level, memory in enumerate(encoded.memories):
        expected = case.recorded[f"pixel_decoder.memory{level}"]
        frames = memory.reshape(len(expected), -1, memory.shape[-1])
        assert_features(frames, expected.flatten(2).transpose(1, 2))
        assert encoded.memory_shapes[level] == tuple(expected.shape[-2:])


@pytest.mark.parametrize("case", ALL_LAYERS)
def test_every_prediction(case):
    case = run(case)
    assert len(case.class_layers()) == 5
    for layer, (classes, masks) in enumerate(
        zip(case.class_layers(), case.layers("masks_queries_logits"), strict=True)
    ):
        assert_logits(classes, case.recorded[f"decoder.cls.{layer}"])
        assert_logits(masks, case.recorded[f"decoder.mask.{layer}"])


def test_sides_that_32_does_not_divide():
    """Every stage of the backbone rounds down; the original takes such an input as it is."""
    case = run("a2_image_90x122")
    assert_logits(case.class_layers()[-1], case.recorded["decoder.cls.last"])
    assert_logits(case.output.masks_queries_logits, case.recorded["decoder.mask.last"])


@pytest.mark.parametrize("case", CASES)
def test_query_features(case):
    case = run(case)
    assert_features(case.output.query_features, case.recorded["decoder.query_feat"])


@pytest.mark.parametrize("case", ALL_LAYERS)
def test_attention_masks_from_our_mask_logits(case):
    case = run(case)
    shapes = case.encoded.memory_shapes
    assert shapes is not None
    for layer, masks in enumerate(case.layers("masks_queries_logits")):
        planes = masks if masks.dim() == 5 else masks[:, :, None]
        resized = F.interpolate(planes.flatten(0, 1), size=shapes[layer % 3], mode="bilinear", align_corners=False)
        blocked = (resized < 0).unflatten(0, planes.shape[:2]).flatten(2)
        assert torch.equal(blocked, case.recorded[f"decoder.attn_mask.{layer}"].bool()), layer


@pytest.mark.parametrize("case", ALL_LAYERS)
def test_attention_masks_as_the_decoder_used_them(case):
    """The decoder thresholds low-resolution products; they must block what the full-size masks would.

    A query that would see nothing sees everything.
    """
    case = run(case)
    assert len(case.attended) == 4
    for layer, allowed in enumerate(case.attended):
        blocked = case.recorded[f"decoder.attn_mask.{layer}"].bool()
        assert torch.equal(allowed, ~blocked | blocked.all(-1, keepdim=True)), layer


def test_queries_that_would_see_nothing_see_everything():
    """Case a3 is so small (level 0 is 1×2) that this happens to more than half of the queries."""
    case = run("a3_image_32x64")
    nothing = case.recorded["decoder.attn_mask.0"].bool().all(-1)
    assert nothing.sum() == 23
    assert case.attended[0][nothing].all()


@pytest.mark.parametrize("case", ["a_image", "b_video"])
def test_the_originals_predict(case):
    """What post-processing gets: last layer, the IoU score apart, masks at the size of the network input."""
    case = run(case)
    output, recorded = case.output, case.recorded
    assert_logits(output.class_queries_logits, recorded["predict.cls"])
    assert_logits(output.iou_logits, recorded["predict.iou"][..., 0])
    assert_features(output.query_features, recorded["predict.query_feat"])
    masks = output.masks_queries_logits
    assert masks is not None and output.canvas_size is not None
    expected = recorded.get("predict.mask", recorded.get("predict.mask.first3queries"))
    assert expected is not None
    height, width = output.canvas_size.tolist()
    flat = masks[:, : expected.shape[1]].flatten(0, -4) if masks.dim() == 5 else masks
    resized = F.interpolate(flat, size=(height, width), mode="bilinear", align_corners=False)
    assert_logits(resized.view(expected.shape), expected)
