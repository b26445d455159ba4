"""Prompt queries against the original (golden case c): centres of regions, encodings, masks."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omgvision.models.omg_seg.outputs_omg_seg import OmgSegOutput
from omgvision.models.omg_seg.position_omg_seg import box_position
from omgvision.models.omg_seg.prompt_encoder_omg_seg import PromptQueries, _distance_to_background, region_centers
from tests.closeness import assert_features, assert_logits
from tests.golden import load
from tests.models import golden_model

CASES = ["point", "box", "box_bp0", "mixed", "batch2"]


@dataclass
class Run:
    """A recorded case, our output and our initial queries; `order` says which recorded prompt each of ours is."""

    recorded: dict[str, Tensor]
    output: OmgSegOutput
    prompts: PromptQueries
    order: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.recorded[name][:, self.order]


@cache
def run(case: str) -> Run:
    """Row 0 of the prompt embedding is for points, so such recorded prompts go in as the centres of their boxes.

    The case `box_bp0` is the other way to reach row 0: boxes of a model whose `box_prompt_index` is 0.
    """
    everything = load("tiny_io_c_prompts")
    prefix = f"{case}."
    recorded = {key.removeprefix(prefix): value for key, value in everything.items() if key.startswith(prefix)}
    boxes_are_row_0 = case == "box_bp0"
    model = golden_model(box_prompt_index=0 if boxes_are_row_0 else 1)
    if case == "batch2":
        pixels, pixel_mask = load("tiny_io_a_image")["input"], None
    else:
        pixels = everything["input"]
        pixel_mask = torch.zeros(1, *pixels.shape[-2:])
        pixel_mask[:, :90, :120] = 1

    is_box = (recorded["bp"][0] == 1) | boxes_are_row_0
    rectangles = recorded["prompts_xyxy"].float()
    points, boxes = rectangles[:, ~is_box], rectangles[:, is_box]
    centers = ((points[..., :2] + points[..., 2:]) / 2)[:, :, None] if len(points[0]) else None
    given = {"input_points": centers, "input_boxes": boxes if len(boxes[0]) else None}
    with torch.no_grad():
        output = model(pixels, pixel_mask, **given, output_auxiliary=True)
        assert output.encoder_outputs is not None
        prompts = model._encode_prompts(output.encoder_outputs, centers, None, given["input_boxes"], None, None)
    order = torch.cat((torch.where(~is_box)[0], torch.where(is_box)[0]))
    return Run(recorded, output, prompts, order)


def test_points_are_the_originals_pseudo_boxes():
    recorded = load("tiny_io_c_prompts")
    centers = recorded["point.centers_xy"].float()
    pseudo_boxes = torch.cat((centers - 3, centers + 3), dim=-1)
    assert torch.equal(recorded["point.prompts_xyxy"][0].float(), pseudo_boxes)


@pytest.mark.parametrize("case", CASES)
def test_initial_queries(case):
    case = run(case)
    assert_features(case.prompts.features, case["query_feat0"])
    assert_features(case.prompts.positions, case["query_embed"])


@pytest.mark.parametrize("case", CASES)
def test_sine_encoding_of_boxes(case):
    """The record holds inverse sigmoids: what lies outside of the picture is clamped in them."""
    case = run(case)
    encoded = box_position(case.recorded["query_bbox_logit"].sigmoid(), 32)
    assert_features(encoded, case.recorded["query_embed_sine"])


@pytest.mark.parametrize("case", CASES)
def test_every_prediction(case):
    case = run(case)
    assert case.output.auxiliary_logits is not None
    layers = [*case.output.auxiliary_logits, case.output]
    assert len(layers) == 5
    for index, layer in enumerate(layers):
        classes = torch.cat((layer["class_queries_logits"], layer["iou_logits"][..., None]), dim=-1)
        assert_logits(classes, case[f"decoder.cls.{index}"])
    assert_logits(case.output.masks_queries_logits, case["decoder.mask.last"])
    assert_features(case.output.query_features, case["decoder.query_feat"])


@pytest.mark.parametrize("case", CASES)
def test_the_originals_predict(case):
    case = run(case)
    assert_logits(case.output.class_queries_logits, case["predict.cls"])
    assert_logits(case.output.iou_logits, case["predict.iou"][..., 0])


@pytest.mark.parametrize("case", CASES)
def test_result_masks(case):
    """Up to the canvas, cut to the unpadded picture, up to its original size: the same masks.

    Two pixels of the case `box_bp0` have logits of 1e-5 and 2e-5, where the rounding of a processor decides.
    """
    case = run(case)
    output = case.output
    assert output.masks_queries_logits is not None and output.canvas_size is not None
    height, width = output.canvas_size.tolist()
    canvas = F.interpolate(output.masks_queries_logits, size=(height, width), mode="bilinear", align_corners=False)
    expected = case["result_masks"].bool()
    assert output.image_sizes is not None
    rows, columns = output.image_sizes[0].tolist()
    cut = canvas[..., :rows, :columns]
    full = F.interpolate(cut, size=expected.shape[-2:], mode="bilinear", align_corners=False)
    differs = (full > 0) != expected
    assert differs.sum() <= 2
    assert (full[differs].abs() < 1e-4).all()


@pytest.mark.parametrize(("masks", "centers"), [("masks", "xy"), ("masks_rescaled_45x61", "xy_after_rescale_45x61")])
def test_centers_of_regions(masks, centers):
    recorded = load("tiny_io_c_prompts")
    found = region_centers(recorded[f"centers.{masks}"].bool())
    assert torch.equal(found.long(), recorded[f"centers.{centers}"][:, 0])


def test_distance_transform():
    recorded = load("tiny_io_c_prompts")
    for mask, expected in zip(recorded["centers.masks"], recorded["centers.distance_transform"], strict=True):
        assert_features(_distance_to_background(mask.bool()), expected)
