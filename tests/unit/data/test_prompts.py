"""Clicks lie where they should, as often as they should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omgvision.data.prompts import (
    central_points,
    jitter_boxes,
    mask_boxes,
    random_points,
    sample_box_prompts,
    sample_prompts,
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
