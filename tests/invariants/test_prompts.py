"""Prompts are independent of each other, of their order and of padding; refinement and regions have an effect."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.closeness import assert_features, assert_logits
from tests.golden import load
from tests.models import attention_masks, golden_model, random_model, random_pixels

PIXELS = load("tiny_io_a_image")["input"]
BOXES = torch.tensor(
    [
        [[10.0, 12, 60, 70], [50, 20, 120, 90], [3, 3, 9, 9]],
        [[64.0, 8, 100, 60], [0, 0, 128, 96], [97, 57, 103, 63]],
    ]
)
POINTS = torch.tensor([[[[20.0, 30]], [[100, 40]]], [[[64.0, 8]], [[5, 90]]]])
NAMES = ("masks_queries_logits", "class_queries_logits", "iou_logits")


@torch.no_grad()
def segment(model, pixels=PIXELS, **named):
    return model(pixels, **named)


def regions() -> Tensor:
    """One rectangle a picture as mask prompts [2, 1, 96, 128]."""
    masks = torch.zeros(2, 1, 96, 128, dtype=torch.bool)
    masks[0, 0, 20:60, 30:90] = True
    masks[1, 0, 50:90, 10:50] = True
    return masks


def test_permuted_prompts_permute_their_masks():
    order = [2, 0, 1]
    plain, permuted = (segment(golden_model(), input_boxes=boxes) for boxes in (BOXES, BOXES[:, order]))
    for name in NAMES:
        assert_logits(permuted[name], plain[name][:, order])


def test_a_prompt_does_not_see_the_others():
    together = segment(golden_model(), input_points=POINTS, input_boxes=BOXES, input_masks=regions())
    alone = [
        segment(golden_model(), input_points=POINTS),
        segment(golden_model(), input_boxes=BOXES),
        segment(golden_model(), input_masks=regions()),
    ]
    for name in NAMES:
        assert_logits(together[name], torch.cat([part[name] for part in alone], dim=1))


def test_padded_prompts_do_not_change_the_real_ones():
    """Ragged batches: the second picture has one point of one click; the first has two, one of them of two clicks."""
    model = golden_model()
    points = torch.tensor([[[[20.0, 30], [24, 34]], [[100, 40], [0, 0]]], [[[64.0, 8], [0, 0]], [[0, 0], [0, 0]]]])
    labels = torch.tensor([[[1, 1], [1, -10]], [[1, -10], [-10, -10]]])
    real = torch.tensor([[True, True], [True, False]])
    output = segment(model, input_points=points, input_point_labels=labels, prompt_mask=real)
    first = segment(model, PIXELS[:1], input_points=points[:1, :1])
    second = segment(model, PIXELS[:1], input_points=points[:1, 1:, :1])
    third = segment(model, PIXELS[1:], input_points=points[1:, :1, :1])
    for name in NAMES:
        assert_logits(output[name][:1], torch.cat((first[name], second[name]), dim=1))
        assert_logits(output[name][1:, :1], third[name])
        assert output[name].isfinite().all()
    assert torch.equal(output.prompt_mask, real)


def test_padded_prompts_have_no_loss():
    model = random_model()
    pixels = random_pixels(2, 3, 64, 64)
    boxes = torch.tensor([[[4.0, 4, 40, 40], [8, 8, 60, 60]], [[10.0, 20, 30, 60], [0, 0, 0, 0]]])
    masks = [torch.zeros(2, 64, 64), torch.zeros(1, 64, 64)]
    for mask in masks:
        mask[:, 8:40, 8:40] = 1
    real = torch.tensor([[True, True], [True, False]])
    losses = []
    for filler in (0.0, 31.0):
        boxes[1, 1] = filler
        torch.manual_seed(0)
        losses.append(model(pixels, input_boxes=boxes, prompt_mask=real, mask_labels=masks).loss)
    assert torch.equal(*losses)
    with pytest.raises(ValueError, match="mask_labels: expected one mask for each of the 2 prompts, got 1"):
        model(pixels, input_boxes=boxes, mask_labels=masks)


def test_prompts_are_relative_to_the_unpadded_picture():
    """The same box on the same canvas is another box of a smaller picture, and the same one when scaled with it."""
    encoder, encoded = golden_model().model.prompt_encoder, golden_model().encode(PIXELS)
    assert encoder is not None
    common = {"canvas_size": (96, 128), "mask_features": encoded.mask_features}
    whole = encoder(image_sizes=torch.tensor([[96, 128]] * 2), boxes=BOXES, **common)
    half = encoder(image_sizes=torch.tensor([[48, 64]] * 2), boxes=BOXES / 2, **common)
    assert_features(half.positions, whole.positions)
    smaller = encoder(image_sizes=torch.tensor([[48, 64]] * 2), boxes=BOXES, **common)
    assert (smaller.positions - whole.positions).abs().max() > 0.1


def test_a_region_limits_where_its_query_looks():
    with attention_masks(golden_model()) as attended:
        output = segment(golden_model(), input_masks=regions())
    shapes = output.encoder_outputs.memory_shapes
    for index, allowed in enumerate(attended):
        expected = F.interpolate(regions().float(), size=shapes[index % 3], mode="nearest").flatten(2)
        assert torch.equal(allowed, expected.bool())


def test_an_empty_region_is_harmless():
    output = segment(golden_model(), input_masks=torch.zeros(2, 1, 96, 128))
    assert output.masks_queries_logits.isfinite().all()


@pytest.mark.parametrize("refinement", [False, True])
def test_a_previous_mask_changes_the_result(refinement):
    model = random_model(point_refinement=refinement)
    pixels, points = random_pixels(1, 3, 128, 128), torch.tensor([[[[20.0, 30]], [[50, 40]]]])
    first = segment(model, pixels, input_points=points, output_auxiliary=True)
    # The opposite of what the first layer would have looked at anyway.
    previous = -first.auxiliary_logits[0]["masks_queries_logits"]
    # Only the first prompt brings one.
    previous[:, 1] = math.nan
    second = segment(model, pixels, input_points=points, previous_mask_logits=previous)
    assert (second.masks_queries_logits[:, 0] - first.masks_queries_logits[:, 0]).abs().max() > 1e-3
    assert_logits(second.masks_queries_logits[:, 1], first.masks_queries_logits[:, 1])


def test_negative_points_speak_with_refinement_alone():
    pixels = random_pixels(1, 3, 64, 64)
    points = torch.tensor([[[[20.0, 30], [50, 40]]]])
    labels = torch.tensor([[[1, 0]]])
    for refinement, speaks in ((False, False), (True, True)):
        model = random_model(point_refinement=refinement)
        one = segment(model, pixels, input_points=points[:, :, :1])
        two = segment(model, pixels, input_points=points, input_point_labels=labels)
        difference = (two.masks_queries_logits - one.masks_queries_logits).abs().max()
        assert (difference > 1e-3) == speaks
        assert two.masks_queries_logits.isfinite().all()


@pytest.mark.parametrize("refinement", [False, True])
def test_the_order_of_points_does_not_matter(refinement):
    model, pixels = random_model(point_refinement=refinement), random_pixels(1, 3, 64, 64)
    points = torch.tensor([[[[20.0, 30], [50, 40], [33, 7], [0, 0]]]])
    labels = torch.tensor([[[1, 0, 1, -10]]])
    order = [2, 3, 1, 0]
    plain = segment(model, pixels, input_points=points, input_point_labels=labels)
    other = segment(model, pixels, input_points=points[:, :, order], input_point_labels=labels[:, :, order])
    assert_logits(other.masks_queries_logits, plain.masks_queries_logits)


def test_points_outside_of_the_picture_are_clamped():
    output = segment(golden_model(), input_points=torch.full((2, 1, 1, 2), -50.0))
    corner = segment(golden_model(), input_points=torch.full((2, 1, 1, 2), -90.0))
    assert output.masks_queries_logits.isfinite().all()
    assert_logits(corner.masks_queries_logits, output.masks_queries_logits)


def test_a_model_without_prompts_says_so():
    with pytest.raises(ValueError, match="trained without prompt queries"):
        random_model(prompt_queries=False)(random_pixels(1, 3, 64, 64), input_points=torch.ones(1, 1, 1, 2))


def test_no_prompt_at_all():
    encoder = golden_model().model.prompt_encoder
    assert encoder is not None
    with pytest.raises(ValueError, match="prompts: expected points, boxes or masks, got none"):
        encoder(image_sizes=torch.ones(1, 2), canvas_size=(64, 64), mask_features=torch.zeros(1, 64, 1, 16, 16))
