"""Labels that go from the cells of a frame to those of the next that look alike."""

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_seg import label_propagation_omg_seg as propagation
from omgvision.models.omg_seg.label_propagation_omg_seg import WINDOW, carried_over, cell_features, cell_grid

SIDE = 24


def square(row: int, column: int, *, side: int = 4) -> Tensor:
    """bool [h, w]."""
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[row : row + side, column : column + side] = True
    return mask


def looks(*masks: Tensor) -> Tensor:
    """Cell features of a frame in which each mask has a direction of its own, and what is around too."""
    planes = torch.zeros(6, SIDE, SIDE)
    planes[0] = 1
    for direction, mask in enumerate(masks, start=1):
        planes[:, mask] = 0
        planes[direction, mask] = 1
    return cell_features(planes)


def carried(masks: Tensor, before: Tensor, now: Tensor) -> Tensor:
    return carried_over(masks, before=before, now=now, least_likeness=0.8) > 0


def test_objects_go_where_their_looks_go():
    before, now = (square(2, 2), square(12, 12)), (square(4, 2 + WINDOW - 2), square(10, 14))
    found = carried(torch.stack(before), looks(*before), looks(*now))
    assert torch.equal(found, torch.stack(now))


def test_of_two_that_look_alike_each_stays_near_where_it_was():
    before, now = (square(2, 2), square(2, 16)), (square(2, 4), square(2, 14))
    alike_before, alike_now = looks(before[0] | before[1]), looks(now[0] | now[1])
    assert torch.equal(carried(torch.stack(before), alike_before, alike_now), torch.stack(now))


def test_none_goes_further_than_the_window():
    was, far = square(2, 2), square(2, 2 + 4 + WINDOW)
    assert not carried(was[None], looks(was), looks(far)).any()
    near = square(2, 2 + 4)
    assert carried(was[None], looks(was), looks(near)).any()


def test_a_place_that_looks_like_nothing_before_belongs_to_nothing():
    was = square(2, 2)
    new = looks(was)[:, [4, 5, 2, 3, 0, 1]]
    assert not carried(was[None], looks(was), new).any()
    anyhow = carried_over(was[None], before=looks(was), now=new, least_likeness=-1.0)
    assert torch.equal(anyhow, anyhow.clamp(-propagation.KNOWN - 1e-3, propagation.KNOWN + 1e-3)), "still logits"


def test_the_grid_is_bounded(monkeypatch: pytest.MonkeyPatch):
    assert cell_grid((SIDE, SIDE)) == (SIDE, SIDE)
    rows, columns = cell_grid((270, 480))
    assert rows * columns <= propagation.MAX_CELLS and rows / columns == pytest.approx(270 / 480, rel=0.05)
    monkeypatch.setattr(propagation, "MAX_CELLS", SIDE * SIDE // 4)
    was, moved = square(4, 4, side=8), square(6, 8, side=8)
    assert torch.equal(carried(was[None], looks(was), looks(moved))[0], moved)


def test_cells_compared_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch):
    was, moved = square(2, 2), square(4, 5)
    whole = carried_over(was[None], before=looks(was), now=looks(moved), least_likeness=0.8)
    monkeypatch.setattr(propagation, "ROWS_AT_ONCE", 7)
    in_parts = carried_over(was[None], before=looks(was), now=looks(moved), least_likeness=0.8)
    torch.testing.assert_close(in_parts, whole)
