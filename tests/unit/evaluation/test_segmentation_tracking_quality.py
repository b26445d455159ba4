"""STQ: deeplab2's own unit cases, its rules on tiny videos, and merging."""

import json
from typing import Any

import numpy as np
import pytest

from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.segmentation_tracking_quality import SegmentationTrackingQuality
from omgvision.evaluation.video_panoptic_quality import PanopticFrame
from tests import golden

THINGS = {0: True, 4: False}


def decoded(codes: list[list[int]], *, shift: int, ignore: int) -> PanopticFrame:
    """deeplab2's maps: class << shift + instance, where instance 0 of a thing is a crowd."""
    ids = np.array(codes) + 1
    labels = {
        identity: SegmentLabel((identity - 1) >> shift, (identity - 1) % 2**shift == 0)
        for identity in np.unique(ids).tolist()
    }
    return PanopticFrame(ids, {identity: label for identity, label in labels.items() if label.category != ignore})


CASES = json.loads((golden.metrics("stq_unit") / "cases.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES)
def test_equal_to_deeplab2(case: dict[str, Any]):
    setup = case["init"]
    metric = SegmentationTrackingQuality(
        {category: category in setup["things_list"] for category in range(setup["num_classes"])}
    )
    videos: dict[str, list[tuple[PanopticFrame, PanopticFrame]]] = {}
    coding = {"shift": setup["label_bit_shift"], "ignore": setup["ignore_label"]}
    for update in case["updates"]:
        pair = decoded(update["y_pred"], **coding), decoded(update["y_true"], **coding)
        videos.setdefault(str(update["sequence_id"]), []).append(pair)
    for name, frames in videos.items():
        metric.update(name, frames)
    numbers, expected = metric.compute(), case["expected"]
    assert [numbers[name] for name in ("STQ", "AQ", "SQ")] == pytest.approx(
        [expected[name] for name in ("STQ", "AQ", "IoU")], abs=1e-12
    )
    of_videos = metric.per_video()
    for position, name in enumerate(expected["ID_per_seq"]):
        assert of_videos[str(name)]["STQ"] == pytest.approx(expected["STQ_per_seq"][position], abs=1e-12)
        assert metric.records[str(name)].frames == expected["Length_per_seq"][position]


def frame(ids: list[int], **labels: SegmentLabel) -> PanopticFrame:
    return PanopticFrame(np.array([ids]), {int(name[1:]): label for name, label in labels.items()})


def measured(*frames: tuple[PanopticFrame, PanopticFrame]) -> dict[str, float]:
    metric = SegmentationTrackingQuality(THINGS)
    metric.update("video", frames)
    return metric.compute()


def test_a_track_that_changes_its_identity_halves_the_association():
    thing = SegmentLabel(0)
    same = measured(*[(frame([3, 3], s3=thing), frame([5, 5], s5=thing))] * 2)
    other = measured(
        (frame([3, 3], s3=thing), frame([5, 5], s5=thing)), (frame([4, 4], s4=thing), frame([5, 5], s5=thing))
    )
    assert same == {"STQ": 1.0, "AQ": 1.0, "SQ": 1.0}
    assert (other["AQ"], other["SQ"]) == (0.5, 1.0)


def test_void_is_free_in_the_target_and_wrong_in_the_prediction():
    stuff = SegmentLabel(4)
    assert measured((frame([3, 3], s3=stuff), frame([5, 9], s5=stuff)))["SQ"] == 1.0
    # The predicted void is a class of its own, without a hit.
    assert measured((frame([3, 0], s3=stuff), frame([5, 5], s5=stuff)))["SQ"] == 0.25


def test_tracks_on_a_crowd_are_no_mistake():
    thing, crowd = SegmentLabel(0), SegmentLabel(0, is_crowd=True)
    assert measured((frame([3, 3], s3=thing), frame([5, 6], s5=thing, s6=crowd)))["AQ"] == 1.0


def test_nothing_at_all():
    assert np.isnan(measured()["SQ"])
    assert measured((frame([0]), frame([0])))["AQ"] == 0.0


def test_faults_are_named():
    with pytest.raises(ValueError, match="prediction: frame 0 of video: segment 3 has the unknown category 1"):
        measured((frame([3], s3=SegmentLabel(1)), frame([0])))
    with pytest.raises(ValueError, match="expected the size of the target"):
        measured((frame([0, 0]), frame([0])))


def test_shares_repeats_and_order_do_not_matter():
    generator = np.random.default_rng(0)
    labels = {identity: SegmentLabel(4 if identity == 3 else 0) for identity in (1, 2, 3)}
    videos = {
        name: [
            tuple(PanopticFrame(ids, labels) for ids in generator.integers(0, 4, (2, 6, 7)).repeat(2, -1))
            for _ in range(3)
        ]
        for name in "abcd"
    }

    def of(names: str) -> SegmentationTrackingQuality:
        metric = SegmentationTrackingQuality(THINGS)
        for name in names:
            metric.update(name, ((guess, truth) for guess, truth in videos[name]))
        return metric

    shares = of("dbd")
    shares.merge(of("cab"))
    assert shares.compute() == of("abcd").compute()
    assert shares.per_video() == of("abcd").per_video()
