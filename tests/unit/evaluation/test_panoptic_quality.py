"""PQ: its rules on tiny maps."""

from collections.abc import Sequence

import numpy as np
import pytest

from omgvision.evaluation.panoptic_quality import PanopticQuality, SegmentLabel

THINGS = {1: True, 2: True, 3: False}


def one_image(prediction, segments, target, truth) -> PanopticQuality:
    quality = PanopticQuality(THINGS)
    quality.update("a", np.array(prediction), segments, np.array(target), truth)
    return quality


def test_a_match_needs_more_than_half():
    half = one_image([[1, 1, 0]], {1: SegmentLabel(1)}, [[1, 2, 2]], {1: SegmentLabel(1), 2: SegmentLabel(3)})
    assert half.totals()[1].true_positives == 0
    assert half.totals()[1].false_positives == half.totals()[1].false_negatives == 1
    most = one_image([[1, 1, 1, 0]], {1: SegmentLabel(1)}, [[1, 1, 2, 2]], {1: SegmentLabel(1), 2: SegmentLabel(3)})
    assert most.totals()[1].iou == pytest.approx(2 / 3)


def test_void_pixels_of_the_target_do_not_count_in_the_union():
    quality = one_image([[1, 1, 1, 1]], {1: SegmentLabel(1)}, [[5, 5, 0, 0]], {5: SegmentLabel(1)})
    assert quality.totals()[1].iou == 1.0


def test_a_prediction_over_void_or_crowd_is_no_false_positive():
    void = one_image([[1, 1, 1]], {1: SegmentLabel(2)}, [[0, 0, 4]], {4: SegmentLabel(1)})
    assert void.totals()[2].false_positives == 0
    crowd = one_image([[1, 1, 1]], {1: SegmentLabel(1)}, [[7, 7, 4]], {7: SegmentLabel(1, True), 4: SegmentLabel(3)})
    assert crowd.totals()[1].false_positives == crowd.totals()[1].false_negatives == 0
    other = one_image([[1, 1, 1]], {1: SegmentLabel(2)}, [[7, 7, 4]], {7: SegmentLabel(1, True), 4: SegmentLabel(3)})
    assert other.totals()[2].false_positives == 1


def test_absent_categories_are_left_out_of_the_mean():
    numbers = one_image([[9]], {9: SegmentLabel(1)}, [[4]], {4: SegmentLabel(1)}).compute()
    assert numbers["PQ"] == numbers["PQ_things"] == 1.0
    assert np.isnan(numbers["PQ_stuff"])


@pytest.mark.parametrize(
    ("segments", "truth", "message"),
    [
        ({1: SegmentLabel(1), 2: SegmentLabel(1)}, {1: SegmentLabel(1)}, "segment 2 is described"),
        ({}, {1: SegmentLabel(1)}, "pixels with id 1"),
        ({1: SegmentLabel(8)}, {1: SegmentLabel(1)}, "unknown category 8"),
    ],
)
def test_inconsistent_input_is_named(segments, truth, message):
    with pytest.raises(ValueError, match=message):
        one_image([[1]], segments, [[1]], truth)


def random_metric(names: Sequence[str]) -> PanopticQuality:
    quality = PanopticQuality(THINGS)
    for name in names:
        generator = np.random.default_rng(ord(name))
        target, prediction = generator.integers(0, 6, (2, 4, 5)).repeat(3, axis=1).repeat(2, axis=2)
        prediction = np.where(generator.random(target.shape) < 0.7, target, prediction)
        labels = {identity: SegmentLabel(1 + identity % 3) for identity in range(1, 6)}
        quality.update(
            name,
            prediction,
            {identity: labels[identity] for identity in np.unique(prediction).tolist() if identity},
            target,
            {identity: labels[identity] for identity in np.unique(target).tolist() if identity},
        )
    return quality


def test_shares_of_processes_and_any_order_are_the_same_to_the_bit():
    whole = random_metric("abcdefgh").compute()
    assert random_metric("hgabcdef").compute() == whole
    merged = random_metric("dc")
    for share in ("ha", "gfd", "eb"):  # d comes twice
        merged.merge(random_metric(share))
    assert merged.compute() == whole
    assert 0 < whole["PQ"] < 1


def test_seen_and_unseen_categories_are_told_apart():
    quality = PanopticQuality(THINGS, unseen=[2])
    segments = {1: SegmentLabel(1), 2: SegmentLabel(2)}
    quality.update("a", np.array([[1, 1, 2, 2, 2]]), segments, np.array([[1, 1, 1, 2, 2]]), segments)
    numbers = quality.compute()
    assert numbers["PQ_seen"] == numbers["PQ_unseen"] == pytest.approx(2 / 3)
    missed = PanopticQuality(THINGS, unseen=[2])
    missed.update("a", np.array([[1, 1, 0]]), {1: SegmentLabel(1)}, np.array([[1, 1, 2]]), segments)
    assert missed.compute()["PQ_seen"] == 1
    assert missed.compute()["PQ_unseen"] == 0
    with pytest.raises(ValueError, match="unseen: expected categories of the data set, got 9"):
        PanopticQuality(THINGS, unseen=[9])


def test_the_ground_truth_is_believed_as_panopticapi_believes_it():
    described = {4: SegmentLabel(1, area=3), 5: SegmentLabel(2)}  # 5 has no pixel, 6 no description
    quality = one_image([[1, 1, 1, 1]], {1: SegmentLabel(1)}, [[4, 4, 4, 6]], described)
    assert quality.totals()[1].iou == 3 / 4
    assert quality.totals()[2].false_negatives == 1
    wrong_area = {4: SegmentLabel(1, area=4)}
    assert one_image([[1, 1, 1]], {1: SegmentLabel(1)}, [[4, 4, 4]], wrong_area).totals()[1].iou == 3 / 4


def test_sizes_have_to_agree():
    with pytest.raises(ValueError, match="expected the size of the target"):
        one_image([[1]], {1: SegmentLabel(1)}, [[1, 1]], {1: SegmentLabel(1)})
