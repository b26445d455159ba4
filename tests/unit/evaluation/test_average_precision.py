"""AP: what goes in, and what does not."""

import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omgvision.evaluation.average_precision import AveragePrecision


def truth() -> dict:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, 2:6] = 1
    runs: Any = coco_mask.encode(np.asfortranarray(mask))
    return {
        "images": [{"id": 1, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 16,
                "bbox": [2, 2, 4, 4],
                "segmentation": {"size": [8, 8], "counts": runs["counts"].decode()},
            }
        ],
    }


MASK = truth()["annotations"][0]["segmentation"]


def test_the_truth_is_perfect_and_nothing_is_zero(capsys: pytest.CaptureFixture[str]):
    metric = AveragePrecision(truth())
    nothing = metric.compute()
    assert nothing["AP"] == nothing["AR100"] == 0
    assert math.isnan(nothing["APl"])  # no large object, no number
    metric.update("1", [{"category_id": 1, "score": 0.5, "segmentation": MASK}])
    assert metric.compute()["AP"] == pytest.approx(1)
    assert metric.compute() == metric.compute()
    assert metric.per_category == {1: pytest.approx(1)}
    assert capsys.readouterr().out == ""


def test_boxes_are_found_in_masks_and_a_given_box_decides():
    metric = AveragePrecision(truth(), kind="bbox")
    metric.update("1", [{"category_id": 1, "score": 0.5, "segmentation": MASK}])
    assert metric.compute()["AP"] == pytest.approx(1)
    metric = AveragePrecision(truth(), kind="bbox")
    metric.update("1", [{"category_id": 1, "score": 0.5, "segmentation": MASK, "bbox": [0, 0, 1, 1]}])
    assert metric.compute()["AP"] == 0


def test_plain_run_lengths_and_polygons_are_masks_too():
    plain = {"size": [8, 8], "counts": [18, 4, 4, 4, 4, 4, 4, 4, 18]}
    for segmentation in (plain, [[2, 2, 6, 2, 6, 6, 2, 6]]):
        metric = AveragePrecision(truth())
        metric.update("1", [{"category_id": 1, "score": 0.5, "segmentation": segmentation}])
        assert metric.compute()["AP"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("image", "change", "message"),
    [
        ("7", {}, "expected an image of the ground truth, got 7"),
        ("1", {"score": math.nan}, "score: expected a number, got nan in image 1"),
        (
            "1",
            {"segmentation": {"size": [9, 8], "counts": "1"}},
            r"expected the size of the image \[8, 8\], got \[9, 8\]",
        ),
        ("1", {"segmentation": {"size": [8, 8], "counts": "!!"}}, "a text that does not decode"),
        ("1", {"segmentation": {"size": [8, 8], "counts": "P1"}}, r"expected runs over 64 pixels, got 32"),
        ("1", {"segmentation": None}, "expected run lengths with size and counts, or polygons"),
    ],
)
def test_bad_detections_are_named(image: str, change: dict, message: str):
    detection = {"category_id": 1, "score": 0.5, "segmentation": MASK} | change
    with pytest.raises(ValueError, match=message):
        AveragePrecision(truth()).update(image, [detection])


def test_a_detection_needs_what_is_compared():
    with pytest.raises(ValueError, match="segmentation: expected one in every detection"):
        AveragePrecision(truth()).update("1", [{"category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}])
    with pytest.raises(ValueError, match="bbox: expected x, y, width, height"):
        AveragePrecision(truth(), kind="bbox").update("1", [{"category_id": 1, "score": 0.5, "bbox": [0, 0, 1]}])
