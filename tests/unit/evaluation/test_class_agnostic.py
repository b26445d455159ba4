"""IoU of prompted masks, with and without classes."""

import math

import numpy as np
import pytest

from omgvision.evaluation.class_agnostic import PromptedIoU

HALF, WHOLE, NOTHING = np.array([[1, 0]], bool), np.array([[1, 1]], bool), np.array([[0, 0]], bool)


def test_masks_alone():
    metric = PromptedIoU()
    metric.update("b", np.stack([HALF, WHOLE]), np.stack([WHOLE, WHOLE]))
    metric.update("a", np.stack([NOTHING]), np.stack([NOTHING]))
    metric.update("c", np.zeros((0, 1, 2), bool), np.zeros((0, 1, 2), bool))
    assert metric.compute() == {"mIoU": 0.5}


def test_seen_and_unseen_classes():
    metric, other = PromptedIoU(unseen=[3]), PromptedIoU(unseen=[3])
    masks = np.stack([HALF, WHOLE])
    metric.update("a", masks, masks[::-1], labels=np.array([1, 3]), predicted_labels=np.array([1, 1]))
    other.update("b", masks[1:], masks[1:], labels=np.array([3]), predicted_labels=np.array([3]))
    other.update("a", masks, masks, labels=np.array([1, 3]), predicted_labels=np.array([1, 3]))
    metric.merge(other)  # a was there
    assert metric.compute() == pytest.approx(
        {
            "mIoU": 2 / 3,
            "accuracy": 2 / 3,
            "mIoU_seen": 0.5,
            "mIoU_unseen": 0.75,
            "accuracy_seen": 1.0,
            "accuracy_unseen": 0.5,
        }
    )


def test_nothing_and_bad_input():
    assert math.isnan(PromptedIoU().compute()["mIoU"])
    with pytest.raises(ValueError, match="expected the shape"):
        PromptedIoU().update("a", WHOLE[None], np.zeros((1, 1, 3), bool))
    with pytest.raises(ValueError, match="labels: expected the class of each object, got none"):
        PromptedIoU(unseen=[1]).update("a", WHOLE[None], WHOLE[None])
    with pytest.raises(ValueError, match="expected one for each of 1 objects, got 2"):
        PromptedIoU().update("a", WHOLE[None], WHOLE[None], labels=np.array([1, 2]))
