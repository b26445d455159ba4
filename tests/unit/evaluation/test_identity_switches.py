"""Identity switches: counted per object, remembered through gaps, and only of countable objects."""

import numpy as np
import pytest

from omgvision.evaluation.identity_switches import IdentitySwitches
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.video_panoptic_quality import PanopticFrame

THINGS = {0: True, 1: True, 2: False}


def frame(*rows: tuple[int, int], height: int = 4) -> PanopticFrame:
    """One row of four pixels for each (id, category); id 0 is void."""
    ids = np.zeros((height, 4), dtype=np.int64)
    for row, (identity, _) in enumerate(rows):
        ids[row] = identity
    return PanopticFrame(ids, {identity: SegmentLabel(category) for identity, category in rows if identity})


def test_switches_are_counted_and_survive_gaps() -> None:
    truth = [frame((1, 0), (2, 1))] * 5
    guesses = [
        frame((7, 0), (8, 1)),
        frame((7, 0), (8, 1)),
        frame((9, 0), (0, 1)),  # the first changes its id, the second is lost
        frame((9, 0), (8, 1)),  # and comes back as it was
        frame((7, 0), (5, 1)),  # both change
    ]
    metric = IdentitySwitches(THINGS)
    metric.update("v", zip(guesses, truth, strict=True))
    assert metric.compute() == {
        "switches": 3,
        "objects": 2,
        "followed": pytest.approx(9 / 10),
        "switches_throughout": 3,
        "objects_throughout": 2,
        "followed_throughout": pytest.approx(9 / 10),
    }


def test_a_wrong_class_follows_all_the_same() -> None:
    metric = IdentitySwitches(THINGS)
    metric.update("v", [(frame((4, guess)), frame((1, 0))) for guess in (0, 1, 0)])
    assert (metric.compute()["followed"], metric.compute()["switches"]) == (1, 0)


def test_stuff_crowds_and_small_overlaps_do_not_follow() -> None:
    truth = frame((1, 0), (2, 2), (3, 0))
    crowd = PanopticFrame(truth.ids, {**truth.segments, 3: SegmentLabel(0, is_crowd=True)})
    metric = IdentitySwitches(THINGS)
    metric.update("v", [(frame((4, 2), (5, 2), (6, 0)), crowd), (frame((5, 2), (9, 2), (7, 0)), crowd)])
    assert metric.compute()["objects"] == 1
    assert metric.compute()["followed"] == 0
    assert metric.compute()["switches"] == 0

    half = np.zeros((4, 4), dtype=np.int64)
    half[0, :2] = 4
    other = IdentitySwitches(THINGS)
    other.update("v", [(PanopticFrame(half, {4: SegmentLabel(0)}), truth)])
    assert other.compute()["followed"] == 0, "an IoU of one half is not over one half"


def test_void_is_forgiven() -> None:
    guess = np.zeros((4, 4), dtype=np.int64)
    guess[:3] = 5
    metric = IdentitySwitches(THINGS)
    metric.update("v", [(PanopticFrame(guess, {5: SegmentLabel(0)}), frame((1, 0)))])
    assert metric.compute()["followed"] == 1


def test_objects_that_are_not_seen_in_every_frame_are_told_apart_and_merging_adds_up() -> None:
    first, second = IdentitySwitches(THINGS), IdentitySwitches(THINGS)
    first.update("a", [(frame((3, 0)), frame((1, 0))), (frame((4, 0)), frame((1, 0), (2, 0)))])
    second.update("b", [(frame((3, 0)), frame((1, 0))), (frame((0, 0)), frame((0, 0)))])
    second.update("b", [(frame((0, 0)), frame((0, 0)))])
    first.merge(second)
    numbers = first.compute()
    assert (numbers["switches"], numbers["objects"]) == (1, 3)
    assert (numbers["switches_throughout"], numbers["objects_throughout"]) == (1, 1)
    assert (numbers["followed"], numbers["followed_throughout"]) == (3 / 4, 1)
    assert np.isnan(IdentitySwitches(THINGS).compute()["followed"])


def rows(*chosen: int) -> np.ndarray:
    mask = np.zeros((4, 4), dtype=bool)
    mask[list(chosen)] = True
    return mask


def test_of_masks_that_overlap_the_last_follower_stays_while_it_fits() -> None:
    """The second frame has a better one; in the third the first no longer fits."""
    truth = PanopticFrame(np.where(rows(0, 1, 2), 1, 0), {1: SegmentLabel(0)})
    videos = [
        ({5: rows(0, 1)}, truth),
        ({6: rows(0, 1, 2), 5: rows(0, 1)}, truth),
        ({6: rows(0, 1, 2), 5: rows(0)}, truth),
        ({}, truth),
        ({6: rows(1, 2), 7: rows(0, 1, 2, 3)}, truth),
    ]
    metric = IdentitySwitches(THINGS)
    metric.update_overlapping("v", videos)
    assert (metric.compute()["switches"], metric.compute()["followed"]) == (1, 4 / 5)


def test_masks_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected the size of the target \(4, 4\)"):
        IdentitySwitches(THINGS).update_overlapping("v", [({1: np.ones((2, 4), dtype=bool)}, frame((1, 0)))])


def test_masks_that_exclude_each_other_count_the_same_both_ways() -> None:
    generator = np.random.default_rng(0)
    one, other = IdentitySwitches(THINGS), IdentitySwitches(THINGS)
    truth = [frame((1, 0), (2, 1), (3, 2), (0, 0))] * 40
    guesses = [frame(*((int(identity), 0) for identity in generator.permutation(4)), height=4) for _ in truth]
    one.update("v", zip(guesses, truth, strict=True))
    masks = [{identity: guess.ids == identity for identity in guess.segments} for guess in guesses]
    other.update_overlapping("v", zip(masks, truth, strict=True))
    assert one.compute() == other.compute() and one.compute()["switches"] > 0
