"""Windows of boxes, queries picture by picture, mask losses."""

import pytest
import torch

from omgvision.models.omg_llava.grounding_omg_llava import (
    UncertainPoints,
    VisualPrompts,
    box_window,
    group_by_picture,
    mask_losses,
    visual_prompts,
    windows,
)


def test_a_box_opens_the_cells_that_it_touches():
    found = box_window(torch.tensor([[10.0, 20.0, 33.0, 47.0]]), (64, 64), (8, 8))[0]
    assert found.any(0).nonzero().flatten().tolist() == [1, 2, 3, 4]
    assert found.any(1).nonzero().flatten().tolist() == [2, 3, 4, 5]
    everywhere = box_window(torch.tensor([[-5.0, -5.0, 500.0, 500.0]]), (64, 64), (8, 8))
    assert everywhere.all()


def test_windows_of_points_boxes_and_masks():
    prompts = VisualPrompts(
        points=torch.zeros(1, 1, 1, 2),
        point_labels=torch.ones(1, 1, 1),
        boxes=torch.tensor([[[0.0, 0.0, 15.0, 15.0]]]),
        masks=torch.zeros(1, 1, 64, 64, dtype=torch.bool),
        slots=torch.tensor([[0, 1, 2]]),
    )
    found = windows(prompts, (64, 64), [(2, 2), (4, 4)])
    assert [inside.shape for inside in found.inside] == [(1, 3, 1, 2, 2), (1, 3, 1, 4, 4)]
    assert found.at(1)[0].flatten(1).sum(1).tolist() == [16, 1, 0]
    assert found.replaces_prediction.tolist() == [[False, False, True]]


def test_queries_are_laid_out_picture_by_picture():
    grouping = group_by_picture(torch.tensor([2, 0, 2, 2]))
    assert grouping.pictures.tolist() == [0, 2]
    table = grouping.table(torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert table[..., 0].tolist() == [[2, 0, 0], [1, 3, 4]]
    assert table[grouping.row, grouping.column].flatten().tolist() == [1, 2, 3, 4]


def test_right_masks_lose_nothing_and_batches_add_up():
    truth = torch.zeros(4, 32, 32)
    truth[:, 8:24, 8:24] = 1
    right = truth * 200 - 100
    at = torch.rand(4, 50, 2, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.45

    mask, dice = mask_losses([right], truth, lambda layer, logits: at)
    assert mask < 1e-4 and dice < 1e-3
    noise = torch.randn(4, 32, 32, generator=torch.Generator().manual_seed(1))
    whole = mask_losses([noise, right], truth, lambda layer, logits: at)
    total = torch.tensor(4.0)
    parts = [
        mask_losses([noise[part], right[part]], truth[part], lambda layer, logits, part=part: at[part], total=total)
        for part in (slice(0, 1), slice(1, 4))
    ]
    for index in range(2):
        torch.testing.assert_close(parts[0][index] + parts[1][index], whole[index])


def test_uncertain_points_are_near_the_border():
    logits = torch.linspace(-8, 8, 64).expand(2, 64, 64)
    points = UncertainPoints(400, 3.0, 0.75)(0, logits)
    assert points.shape == (2, 400, 2)
    near = (points[..., 0] - 0.5).abs() < 0.2
    assert near.float().mean() > 0.75


def test_prompts_of_a_forward_call():
    assert visual_prompts(None, None, None, None, None) is None
    found = visual_prompts(torch.zeros(2, 1, 3, 2), None, torch.zeros(2, 2, 4), None, None)
    assert found is not None and found.point_labels is not None
    assert found.point_labels.eq(1).all()
    assert found.slots.tolist() == [[0, 1, 2]] * 2
    with pytest.raises(ValueError, match=r"prompt_slots: expected \[2, 1\], got \[2, 3\]"):
        visual_prompts(torch.zeros(2, 1, 3, 2), None, None, None, torch.zeros(2, 3))
