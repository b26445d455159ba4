"""Single functions against the original: encodings, deformable attention, sampling, losses, costs."""

import math

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_seg.classifier_omg_seg import class_logits
from omgvision.models.omg_seg.loss_omg_seg import focal_loss, mask_losses, object_losses
from omgvision.models.omg_seg.matcher_omg_seg import LossWeights, Predictions, pairwise_costs
from omgvision.models.omg_seg.pixel_decoder_omg_seg import (
    deformable_attention_embedding_bag,
    deformable_attention_sampling,
    reference_points,
)
from omgvision.models.omg_seg.points_omg_seg import sample_points, sample_shared_points
from omgvision.models.omg_seg.position_omg_seg import _encode, box_position, sine_position_2d, sine_position_3d
from tests.closeness import assert_close
from tests.golden import load
from tests.models import golden_model

UNITS = load("tiny_io_units")
CPU = torch.device("cpu")
DEFORMABLE = [deformable_attention_sampling, deformable_attention_embedding_bag]


@pytest.mark.parametrize(("features", "height", "width"), [(128, 7, 10), (32, 5, 6)])
def test_sine_encoding_of_the_plane(features, height, width):
    expected = UNITS[f"sine2d.nf{features}.{height}x{width}"]
    found = sine_position_2d(height, width, features, device=CPU)
    assert_close(found.T.view(expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("frames", [1, 3])
@pytest.mark.parametrize(("features", "height", "width"), [(128, 7, 10), (32, 5, 6)])
def test_sine_encoding_of_clips(frames, features, height, width):
    expected = UNITS[f"sine3d.nf{features}.{frames}x{height}x{width}"]
    found = sine_position_3d(frames, height, width, features, device=CPU)
    assert_close(found, expected[0].flatten(2).transpose(1, 2).flatten(0, 1), atol=1e-5)


def test_coordinate_encoding_of_boxes():
    found = box_position(UNITS["coord.in"], 128)
    assert_close(found, UNITS["coord.out.nf128"], atol=1e-5)


def test_coordinate_encoding_of_points():
    found = _encode(UNITS["coord2.in"].flip(-1) * (2 * math.pi), 128).flatten(-2)
    assert_close(found, UNITS["coord2.out.nf128"], atol=1e-5)


def test_coordinates_are_clamped_as_by_the_originals_inverse_sigmoid():
    """The original goes through the inverse sigmoid and back, which changes what lies below 1e-5 and above 1 - 1e-5."""
    values = UNITS["invsig.in"]
    clamped = values.clamp(0, 1)
    inverse = torch.log(clamped.clamp_min(1e-5) / (1 - clamped).clamp_min(1e-5))
    assert_close(inverse, UNITS["invsig.out"], atol=1e-5)

    encoder = golden_model().model.prompt_encoder
    assert encoder is not None
    # Boxes around one centre whose width takes each recorded value, in a picture of one pixel.
    boxes = torch.stack([torch.stack((0.5 - values / 2, values * 0, 0.5 + values / 2, values * 0 + 1), -1)])
    centered = torch.stack((values * 0 + 0.5, values * 0 + 0.5, values, values * 0 + 1), dim=-1)
    recorded = torch.where(torch.tensor([False, False, True, False]), UNITS["invsig.out"][:, None].sigmoid(), centered)
    recorded[:, 3] = torch.log(torch.tensor(1 / 1e-5)).sigmoid()
    with torch.no_grad():
        found = encoder._positions(boxes, torch.tensor([[1, 1]]))
        expected = encoder.position_projection(box_position(recorded, 32))
    assert_close(found[0], expected, atol=1e-5)


@pytest.mark.parametrize("attention", DEFORMABLE)
def test_deformable_attention(attention):
    shapes = [(h, w) for h, w in UNITS["msda.shapes"].tolist()]
    found = attention(UNITS["msda.value"], shapes, UNITS["msda.locations"], UNITS["msda.weights"])
    assert_close(found, UNITS["msda.out"], atol=1e-5)


@pytest.mark.parametrize("attention", DEFORMABLE)
def test_deformable_attention_far_outside_is_zero(attention):
    """A point more than one cell outside of its level has no value, however far it is (int32 must not overflow)."""
    shapes = [(h, w) for h, w in UNITS["msda.shapes"].tolist()]
    locations = torch.full_like(UNITS["msda.locations"], 1e9)
    locations[:, ::2] = -1e9
    found = attention(UNITS["msda.value"], shapes, locations, UNITS["msda.weights"])
    assert torch.equal(found, torch.zeros_like(found))


def test_pixel_decoder_layers():
    shapes = [(h, w) for h, w in UNITS["pd_encoder.spatial_shapes"].tolist()]
    references = reference_points(shapes, device=CPU, dtype=torch.float32)
    for level in range(3):
        assert_close(references, UNITS["pd_encoder.reference_points"][0, :, level], atol=1e-5)
    tokens, positions = UNITS["pd_encoder.in.query"], UNITS["pd_encoder.in.query_pos"][0]
    with torch.no_grad():
        for index, layer in enumerate(golden_model().model.pixel_decoder.layers):
            tokens = layer(tokens, positions, references, shapes)
            assert_close(tokens, UNITS[f"pd_encoder.layer{index}.out"], atol=1e-5)


def test_point_sampling():
    planes, points = UNITS["point_sample.in"], UNITS["point_sample.points"]
    assert_close(sample_points(planes[:, 0], points), UNITS["point_sample.out"][:, 0], atol=1e-5)
    assert_close(sample_shared_points(planes, points), UNITS["point_sample.out"], atol=1e-5)


def test_classification():
    model = golden_model()
    found = class_logits(UNITS["forward_logit.in"], model.class_embeddings, model.config.logit_scale)
    assert_close(found, UNITS["forward_logit.out"], atol=1e-4)
    assert torch.equal(found[..., -1], torch.zeros_like(found[..., -1]))


class EveryPixel:
    """Takes each column of a one-row mask as a point."""

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        raise NotImplementedError

    def loss(self, layer: int, logits: Tensor) -> Tensor:
        width = logits.shape[-1]
        x = (torch.arange(width) + 0.5) / width
        return torch.stack((x, torch.full_like(x, 0.5)), dim=-1).expand(len(logits), -1, -1)


def test_mask_losses():
    """The record divides the sum of the cross-entropies by 100, that of the dice losses by 7."""
    logits, truth = UNITS["loss.pred"], UNITS["loss.target"]
    weights = LossWeights(cls=0.0, mask=5.0, dice=5.0, iou=0.0, void=0.1)
    entropy, dice = mask_losses(
        logits[None, :, None], truth[None, :, None], weights, EveryPixel(), num_masks=100 / logits.shape[1]
    )
    assert_close(entropy[0], UNITS["loss.bce_avg100"], rtol=1e-5)
    _, dice = mask_losses(logits[None, :, None], truth[None, :, None], weights, EveryPixel(), num_masks=7)
    assert_close(dice[0], UNITS["loss.dice_avg7"], rtol=1e-5)


def test_class_and_iou_losses():
    """Nine queries of which one is class-agnostic; the record divides by 6."""
    logits, labels = UNITS["loss.cls_logits"], UNITS["loss.cls_labels"]
    known = UNITS["loss.cls_weights"] > 0
    everything = torch.arange(len(labels))
    weights = LossWeights(cls=2.0, mask=0.0, dice=0.0, iou=0.0, void=0.1)
    losses = object_losses(
        Predictions(logits[None, None], torch.zeros(1, 1, 9), torch.zeros(1, 1, 9, 1, 1, 4)),
        [torch.zeros(9, 1, 1, 4)],
        [torch.where(known, labels, -1)],
        [[(everything, everything)]],
        weights,
        EveryPixel(),
    )
    assert_close(losses["loss_cls"] * known.sum() / 6, UNITS["loss.cls_avg6"], rtol=1e-5)

    matched = (labels != 19).float()
    iou = 2.0 * focal_loss(UNITS["loss.iou_logit"][:, 0], matched).sum() / 6
    assert_close(iou, UNITS["loss.iou_avg6"], rtol=1e-5)


@pytest.mark.parametrize(
    ("cost", "weights"),
    [
        ("FlexibleClassificationCost", LossWeights(cls=2.0, mask=0.0, dice=0.0, iou=0.0, void=0.1)),
        ("CrossEntropyLossCost", LossWeights(cls=0.0, mask=5.0, dice=0.0, iou=0.0, void=0.1)),
        ("DiceCost", LossWeights(cls=0.0, mask=0.0, dice=5.0, iou=0.0, void=0.1)),
    ],
)
def test_matching_costs(cost, weights):
    logits = UNITS["cost.scores_with_iou"][..., :-1]
    found = pairwise_costs(
        logits[None], UNITS["cost.masks"][None], UNITS["cost.gt_masks"][None], UNITS["cost.gt_labels"], weights
    )
    assert_close(found[0], UNITS[f"cost.{cost}"], atol=1e-5)
