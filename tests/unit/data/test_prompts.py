"""Clicks lie where they should, as often as they should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omgvision.data.prompts import (
    PromptSampling,
    central_points,
    jitter_boxes,
    mask_boxes,
    random_points,
    sample_box_prompts,
    sample_prompts,
    shake_boxes,
)
from omgvision.data.sample import NO_POINT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def masks() -> Tensor:
    """Seven random masks of 24×31, one of a single pixel in the far corner."""
    stack = torch.rand(7, 24, 31, generator=seeded()) < torch.linspace(0.02, 0.9, 7).view(-1, 1, 1)
    stack[0] = False
    stack[0, 23, 30] = True
    return stack


def values_at(masks: Tensor, points: Tensor) -> Tensor:
    columns, rows = points.long().unbind(1)
    return masks[torch.arange(len(masks)), rows, columns]


@pytest.mark.parametrize("draw", [random_points, central_points])
def test_points_lie_in_their_masks(masks: Tensor, draw) -> None:
    for seed in range(20):
        points = draw(masks, generator=seeded(seed))
        assert points.shape == (7, 2)
        assert bool(values_at(masks, points).all())
        assert points[0].tolist() == [30.5, 23.5]


def test_random_points_are_uniform() -> None:
    mask = torch.zeros(1, 5, 8, dtype=torch.bool)
    mask[0, 1, 2:7] = True
    mask[0, 3, 5] = True
    mask[0, 4, :4] = True
    points = random_points(mask.expand(20_000, -1, -1), generator=seeded())
    columns, rows = points.long().unbind(1)
    counts = torch.bincount(rows * 8 + columns, minlength=40).view(5, 8)
    assert bool((counts[~mask[0]] == 0).all())
    assert bool(((counts[mask[0]] - 2000).abs() < 200).all())


def test_central_points_are_nearer_to_the_middle() -> None:
    mask = torch.ones(500, 41, 41, dtype=torch.bool)
    distances = [(draw(mask, generator=seeded()) - 20.5).norm(dim=1).mean() for draw in (central_points, random_points)]
    assert distances[0] < 0.6 * distances[1]


def test_boxes_are_tight() -> None:
    masks = torch.zeros(2, 10, 12, dtype=torch.bool)
    masks[0, 3:7, 2:12] = True
    assert mask_boxes(masks).tolist() == [[2, 3, 12, 7], [0, 0, 0, 0]]


def test_jittered_boxes_stay_near_and_inside() -> None:
    boxes = torch.tensor([[2.0, 3.0, 12.0, 7.0]]).repeat(200, 1)
    moved = jitter_boxes(boxes, size=(10, 12), amount=0.2, generator=seeded())
    assert bool((moved >= 0).all())
    assert bool((moved[:, [0, 2]] <= 12).all())
    assert bool(((moved - boxes).abs() <= torch.tensor([1.0, 0.4, 1.0, 0.4]) + 1e-5).all())
    assert float((moved - boxes).abs().max()) > 0.5


def test_sampled_prompts(masks: Tensor) -> None:
    nothing = torch.zeros(0, 24, 31, dtype=torch.bool)
    prompts = sample_prompts([masks, nothing, masks[:2]], number=5, generator=seeded())
    assert prompts.points is not None
    assert prompts.point_labels is not None
    assert prompts.points.shape == (3, 5, 1, 2)
    assert prompts.prompt_mask.tolist() == [[True] * 5, [False] * 5, [True] * 5]
    assert [len(targets) for targets in prompts.mask_labels] == [5, 0, 5]
    assert bool(values_at(prompts.mask_labels[0], prompts.points[0, :, 0]).all())
    assert prompts.point_labels[0].tolist() == [[1]] * 5
    assert prompts.point_labels[1].tolist() == [[NO_POINT]] * 5, "an image without masks has no point"
    different = {tuple(targets.flatten().tolist()) for targets in prompts.mask_labels[0]}
    assert len(different) == 5, "no mask twice before all were taken"


def test_sampled_boxes(masks: Tensor) -> None:
    prompts = sample_box_prompts([masks, masks[:1]], number=4, amount=0.0, generator=seeded())
    assert prompts.boxes is not None
    assert torch.equal(prompts.boxes[0], mask_boxes(prompts.mask_labels[0]))
    assert prompts.boxes[1].tolist() == [[30, 23, 31, 24]] * 4


def test_original_noise_trembles_around_the_box() -> None:
    boxes = torch.tensor([[20.0, 30.0, 60.0, 50.0]]).repeat(400, 1)
    moved = shake_boxes(boxes, size=(100, 200), generator=seeded())
    centre, extent = (moved[:, :2] + moved[:, 2:]) / 2, moved[:, 2:] - moved[:, :2]
    off_centre = (centre - torch.tensor([40.0, 40.0])).abs().amax(0)
    off_extent = (extent - torch.tensor([40.0, 20.0])).abs().amax(0)
    # 0.4 · 0.01 of half the extent, and of the extent.
    assert off_centre.tolist() == pytest.approx([0.08, 0.04], rel=0.05)
    assert off_extent.tolist() == pytest.approx([0.16, 0.08], rel=0.05)
    whole = shake_boxes(torch.tensor([[0.0, 0.0, 200.0, 100.0]]).repeat(50, 1), size=(100, 200), generator=seeded())
    assert float((whole[:, 2:] - whole[:, :2]).amax(0)[0]) <= 200


def test_prompts_of_a_part_are_the_originals_by_default(masks: Tensor) -> None:
    nothing = torch.zeros(0, 24, 31, dtype=torch.bool)
    prompts = PromptSampling().draw([masks, nothing], sizes=[(24, 31)] * 2, generators=[seeded(1), seeded(2)])
    assert prompts.points is not None and prompts.point_labels is not None
    assert prompts.boxes is None
    assert prompts.points.shape == (2, 20, 1, 2)
    assert [len(targets) for targets in prompts.mask_labels] == [20, 0]
    assert prompts.prompt_mask.tolist() == [[True] * 20, [False] * 20]
    assert bool(values_at(prompts.mask_labels[0], prompts.points[0, :, 0]).all())
    assert prompts.point_labels[:, :, 0].tolist() == [[1] * 20, [NO_POINT] * 20]
    taken = [sum(bool(torch.equal(mask, target)) for target in prompts.mask_labels[0]) for mask in masks]
    assert sorted(taken) == [2, 3, 3, 3, 3, 3, 3], "tiled, then cut"


def test_prompts_of_an_image_do_not_depend_on_its_batch(masks: Tensor) -> None:
    sampling = PromptSampling(points=3, boxes=2)
    both = sampling.draw([masks, masks[2:]], sizes=[(24, 31)] * 2, generators=[seeded(1), seeded(2)])
    alone = sampling.draw([masks[2:]], sizes=[(24, 31)], generators=[seeded(2)])
    assert both.points is not None and both.boxes is not None
    assert alone.points is not None and alone.boxes is not None
    assert torch.equal(both.points[1], alone.points[0])
    assert torch.equal(both.boxes[1], alone.boxes[0])
    assert torch.equal(both.mask_labels[1], alone.mask_labels[0])
    assert both.prompt_mask.shape == (2, 5)
    assert [len(targets) for targets in both.mask_labels] == [5, 5]
    tight = mask_boxes(both.mask_labels[0][3:])
    assert float((both.boxes[0] - tight).abs().max()) < 0.004 * 31, "boxes come after the points"


def test_boxes_alone_and_nothing_at_all(masks: Tensor) -> None:
    prompts = PromptSampling(points=0, boxes=4).draw([masks], sizes=[(24, 31)], generators=[seeded()])
    assert prompts.points is None and prompts.point_labels is None
    assert prompts.boxes is not None and prompts.boxes.shape == (1, 4, 4)
    with pytest.raises(ValueError, match="at least one"):
        PromptSampling(points=0)
