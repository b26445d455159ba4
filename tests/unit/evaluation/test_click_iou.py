"""Clicks: where the next one goes, IoU per click."""

import math

import numpy as np
import pytest

from omgvision.evaluation.click_iou import ClickIoU, mask_iou, next_click


def test_first_click_is_the_middle_of_the_object():
    target = np.zeros((11, 11), dtype=bool)
    target[2:9, 3:10] = True
    assert next_click(target, np.zeros_like(target)) == (5, 6, True)


def test_the_larger_error_is_clicked():
    target = np.zeros((20, 20), dtype=bool)
    target[2:6, 2:6] = True
    prediction = np.zeros_like(target)
    prediction[8:18, 8:18] = True
    row, column, positive = next_click(target, prediction)
    assert not positive
    assert 8 <= row < 18
    assert 8 <= column < 18


def test_means_over_objects():
    quality = ClickIoU(2)
    quality.update("a", [0.5, 0.9])
    quality.update("b", [0.7, 0.7])
    quality.update("b", [0.1, 0.1])  # a repeated object counts once
    assert quality.compute() == pytest.approx({"IoU@1": 0.6, "IoU@2": 0.8})
    assert quality.number_of_clicks(0.85) == 2
    assert quality.number_of_clicks(0.6) == 1.5


def test_a_sequence_may_end_early():
    quality = ClickIoU(3)
    quality.update("a", [0.5, 0.9])
    assert quality.compute() == pytest.approx({"IoU@1": 0.5, "IoU@2": 0.9, "IoU@3": 0.9})
    assert quality.clicks_needed(0.9) == [2]
    assert quality.clicks_needed(0.95) == [3]


def test_shares_of_processes_are_merged():
    objects = {"a": [0.1], "b": [0.7], "c": [0.2]}

    def score(names: str) -> ClickIoU:
        quality = ClickIoU(1)
        for name in names:
            quality.update(name, objects[name])
        return quality

    left = score("cb")
    left.merge(score("ab"))
    assert left.compute() == score("abc").compute()


def test_no_objects_and_bad_values():
    assert math.isnan(ClickIoU(2).compute()["IoU@2"])
    assert math.isnan(ClickIoU(2).number_of_clicks(0.9))
    for ious, message in (
        ([], "expected 1 to 2"),
        ([0.1, 0.2, 0.3], "got 3"),
        ([math.nan], "got nan"),
        ([1.5], "got 1.5"),
    ):
        with pytest.raises(ValueError, match=message):
            ClickIoU(2).update("a", ious)


def test_two_empty_masks_agree():
    assert mask_iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1.0
