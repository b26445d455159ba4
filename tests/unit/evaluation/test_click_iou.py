"""Clicks: RITM's rule on its recorded sequences, IoU per click."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omgvision.evaluation.click_iou import ClickIoU, mask_iou, next_click


def decode(runs: Any) -> np.ndarray | None:
    return None if runs is None else coco_mask.decode(runs).astype(bool)


def shifted(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    moved = np.zeros_like(mask)
    height, width = mask.shape
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = mask[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def test_clicks_and_ious_equal_to_ritm(recorded: Path):
    expected = json.loads((recorded / "interactive" / "expected.json").read_text())
    for sample in expected["samples"]:
        target, ignore = decode(sample["gt"]), decode(sample["ignore"])
        assert target is not None
        prediction = np.zeros_like(target)
        guess = shifted(target, 15, -20)
        rows, columns = np.ogrid[: target.shape[0], : target.shape[1]]
        taken: list[tuple[int, int]] = []
        for click, iou in zip(sample["clicks_yx_positive"], sample["ious"], strict=True):
            row, column, positive = next_click(target, prediction, taken=taken, ignore=ignore)
            assert [row, column, positive] == click, sample["id"]
            taken.append((row, column))
            disk = (rows - row) ** 2 + (columns - column) ** 2 <= sample["disk_radius"] ** 2
            guess[disk] = target[disk]
            prediction = guess
            assert mask_iou(prediction, target, ignore=ignore) == pytest.approx(iou, abs=1e-6)


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
    quality.update([0.5, 0.9])
    quality.update([0.7, 0.7])
    assert quality.compute() == pytest.approx({"IoU@1": 0.6, "IoU@2": 0.8})
    assert quality.number_of_clicks(0.85) == 2
    assert quality.number_of_clicks(0.6) == 1.5
    with pytest.raises(ValueError, match="each of 2 clicks"):
        quality.update([0.1])


def test_two_empty_masks_agree():
    assert mask_iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1.0
