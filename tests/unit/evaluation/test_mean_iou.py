"""Semantic quality on maps small enough to count by hand."""

import math

import numpy as np
import pytest

from omgvision.evaluation.mean_iou import MeanIoU


def test_counts_by_hand():
    quality = MeanIoU(3, ignore=255)
    quality.update("a", np.array([[0, 0, 1], [1, 2, 2]]), np.array([[0, 1, 1], [1, 255, 0]]))
    # class 0: one hit of three; class 1: two hits of three; class 2 is not in the ground truth.
    numbers = quality.compute()
    assert numbers["mIoU"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert numbers["mIoU_all"] == pytest.approx((1 / 3 + 2 / 3) / 3)
    assert numbers["pixel_accuracy"] == pytest.approx(3 / 5)
    assert numbers["mean_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert numbers["FWIoU"] == pytest.approx(2 / 5 * 1 / 3 + 3 / 5 * 2 / 3)
    assert np.isnan(quality.per_class()[2])


def test_images_add_up():
    generator = np.random.default_rng(0)
    predictions, targets = generator.integers(0, 4, (2, 6, 8, 8))
    single = MeanIoU(4)
    single.update("a", np.concatenate(predictions), np.concatenate(targets))
    several = MeanIoU(4)
    for name, prediction, target in zip("badcfe", predictions, targets, strict=True):
        several.update(name, prediction, target)
    assert several.compute() == single.compute()
    shares = [MeanIoU(4) for _ in range(2)]
    for index, (name, prediction, target) in enumerate(zip("badcfe", predictions, targets, strict=True)):
        shares[index % 2].update(name, prediction, target)
        shares[0].update("b", predictions[0], targets[0])  # a repeated sample counts once
    shares[1].merge(shares[0])
    assert shares[1].compute() == single.compute()


def test_no_class_is_a_miss():
    quality = MeanIoU(2)
    quality.update("a", np.array([[-1, 7, 0]]), np.array([[0, 1, 0]]))
    assert quality.compute()["pixel_accuracy"] == pytest.approx(1 / 3)


def test_empty_and_wrong_input():
    assert math.isnan(MeanIoU(2).compute()["mIoU"])
    with pytest.raises(ValueError, match="expected the size"):
        MeanIoU(2).update("a", np.zeros((2, 2)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="got 2"):
        MeanIoU(2).update("a", np.zeros((1, 1)), np.full((1, 1), 2))
