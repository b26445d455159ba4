"""PQ: rules on tiny maps, and the numbers of panopticapi on a hundred COCO annotations."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omgvision.evaluation.panoptic_quality import PanopticQuality, SegmentLabel

THINGS = {1: True, 2: True, 3: False}


def one_image(prediction, segments, target, truth) -> PanopticQuality:
    quality = PanopticQuality(THINGS)
    quality.update(np.array(prediction), segments, np.array(target), truth)
    return quality


def test_a_match_needs_more_than_half():
    half = one_image([[1, 1, 0]], {1: SegmentLabel(1)}, [[1, 2, 2]], {1: SegmentLabel(1), 2: SegmentLabel(3)})
    assert half.counts[1].true_positives == 0
    assert half.counts[1].false_positives == half.counts[1].false_negatives == 1
    most = one_image([[1, 1, 1, 0]], {1: SegmentLabel(1)}, [[1, 1, 2, 2]], {1: SegmentLabel(1), 2: SegmentLabel(3)})
    assert most.counts[1].iou == pytest.approx(2 / 3)


def test_void_pixels_of_the_target_do_not_count_in_the_union():
    quality = one_image([[1, 1, 1, 1]], {1: SegmentLabel(1)}, [[5, 5, 0, 0]], {5: SegmentLabel(1)})
    assert quality.counts[1].iou == 1.0


def test_a_prediction_over_void_or_crowd_is_no_false_positive():
    void = one_image([[1, 1, 1]], {1: SegmentLabel(2)}, [[0, 0, 4]], {4: SegmentLabel(1)})
    assert void.counts[2].false_positives == 0
    crowd = one_image([[1, 1, 1]], {1: SegmentLabel(1)}, [[7, 7, 4]], {7: SegmentLabel(1, True), 4: SegmentLabel(3)})
    assert crowd.counts[1].false_positives == crowd.counts[1].false_negatives == 0
    other = one_image([[1, 1, 1]], {1: SegmentLabel(2)}, [[7, 7, 4]], {7: SegmentLabel(1, True), 4: SegmentLabel(3)})
    assert other.counts[2].false_positives == 1


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


def read_ids(path: Path) -> np.ndarray:
    colours = np.asarray(Image.open(path).convert("RGB")).astype(np.int64)
    return colours[..., 0] + 256 * colours[..., 1] + 256**2 * colours[..., 2]


def score(folder: Path, *, prediction: str) -> PanopticQuality:
    truth = json.loads((folder / "panoptic_gt.json").read_text())
    guesses = json.loads((folder / f"{prediction}.json").read_text())
    by_image = {entry["image_id"]: entry for entry in guesses["annotations"]}
    quality = PanopticQuality({entry["id"]: bool(entry["isthing"]) for entry in truth["categories"]})
    for entry in truth["annotations"]:
        guess = by_image[entry["image_id"]]
        quality.update(
            read_ids(folder / prediction / guess["file_name"]),
            {segment["id"]: SegmentLabel(segment["category_id"]) for segment in guess["segments_info"]},
            read_ids(folder / "panoptic_gt" / entry["file_name"]),
            {
                segment["id"]: SegmentLabel(segment["category_id"], bool(segment["iscrowd"]))
                for segment in entry["segments_info"]
            },
        )
    return quality


@pytest.mark.parametrize(("prediction", "key"), [("panoptic_pred", "pred"), ("panoptic_gt", "gt_vs_gt")])
def test_equal_to_panopticapi(recorded: Path, prediction: str, key: str):
    folder = recorded / "coco_panoptic"
    expected = json.loads((folder / "expected.json").read_text())[key]
    quality = score(folder, prediction=prediction)
    numbers = quality.compute()
    for kind, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert numbers[f"{name.upper()}{suffix}"] == pytest.approx(expected[kind][name], abs=1e-9), (kind, name)
    assert sum(counts.occurs for counts in quality.counts.values()) == expected["All"]["n"]
    rows = quality.per_category()
    for category, row in expected.get("per_class", {}).items():
        assert rows[int(category)] == pytest.approx((row["pq"], row["sq"], row["rq"]), abs=1e-9)
