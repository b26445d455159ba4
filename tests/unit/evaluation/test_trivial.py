"""Guesses that never look: each is the best of its kind on the masks it was fitted to."""

import numpy as np
import pytest

from omgvision.evaluation.trivial import (
    BoxPrior,
    Disks,
    MajorityMap,
    box_of,
    disk,
    ellipse_is_better,
    fill_box,
    simulate,
)


def test_majority_map_repeats_a_constant_layout():
    layout = np.zeros((20, 30), dtype=int)
    layout[10:] = 2
    majority = MajorityMap(3, grid=(4, 6))
    for _ in range(2):
        majority.add(layout)
    majority.add(np.ones_like(layout))
    assert np.array_equal(majority.predict((40, 60)), np.repeat(np.repeat(layout, 2, 0), 2, 1))


def test_disks_find_the_radius_of_round_objects():
    masks = [disk((120, 120), 40 + shift, 60, 24) for shift in (0, 10, 20)]
    fitted = Disks.fit(masks, clicks=3)
    assert fitted.first == pytest.approx(24 / 120, rel=0.2)
    ious = simulate(fitted, masks[0], 3)
    assert ious[0] > 0.7
    assert ious[2] >= ious[0] - 0.05


def test_boxes_and_ellipses():
    round_mask = disk((50, 50), 25, 25, 12)
    square = np.zeros((50, 50), dtype=bool)
    square[10:20, 5:35] = True
    assert box_of(square) == (5, 10, 35, 20)
    assert np.array_equal(fill_box((50, 50), box_of(square), ellipse=False), square)
    assert ellipse_is_better([round_mask])
    assert not ellipse_is_better([square])


def test_box_prior_is_the_median_and_ranks_by_frequency():
    prior = BoxPrior()
    for left in (0, 10, 90):
        prior.add(7, (left, 0, 10, 10), size=(100, 100))
    prior.add(8, (0, 0, 50, 50), size=(100, 100))
    (first, score, mask), (second, other, _) = prior.predict((200, 200))
    assert (first, second) == (7, 8)
    assert score > other
    assert box_of(mask) == (20, 0, 40, 20)
