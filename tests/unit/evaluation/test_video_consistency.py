"""VSPW's numbers on maps small enough to count by hand, and as its script counts clips."""

import numpy as np
import pytest

from omgvision.evaluation.video_consistency import VideoConsistency

Video = list[tuple[np.ndarray, np.ndarray]]


def random_video(seed: int, *, length: int) -> Video:
    generator = np.random.default_rng(seed)
    start = generator.integers(0, 3, (2, 5, 6))
    video = []
    for _ in range(length):
        change = generator.random(start.shape) < 0.08
        start = np.where(change, generator.integers(0, 3, start.shape), start)
        video.append((start[0].astype(np.uint8), np.where(start[1] == 2, 255, start[1]).astype(np.uint8)))
    return video


@pytest.mark.parametrize("length", [1, 3, 4, 9])
def test_clips_as_defined(length: int):
    video = random_video(length, length=length)
    metric = VideoConsistency(3, clips=(3, 5))
    metric.update("video", video)
    guess, truth = (np.stack(side) for side in zip(*video, strict=True))
    for size, values in zip((3, 5), metric.records["video"].clips, strict=True):
        expected = []
        for start in range(max(length - size, 0)):  # the script's range: the last clip is left out
            steady, kept = ((side[start : start + size] == side[start]).all(0) for side in (truth, guess))
            expected.append((steady & kept).sum() / steady.sum())
        assert values.tolist() == expected


def test_long_clips_do_not_overflow():
    still = np.zeros((1, 1), np.uint8)
    metric = VideoConsistency(1, clips=(2, 400))
    metric.update("video", [(still, still)] * 402)
    assert [len(values) for values in metric.records["video"].clips] == [400, 2]
    assert metric.compute()["VC400"] == 1.0


def test_counts_by_hand():
    metric = VideoConsistency(3)
    metric.update(
        "a", [(np.array([[0, 0, 1]]), np.array([[0, 1, 1]])), (np.array([[9, 0, 2]]), np.array([[255, 1, 1]]))]
    )
    numbers = metric.compute()
    # Class 0: one hit, three predicted. Class 1: one hit of four. Class 2 is never true.
    assert numbers["mIoU"] == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert numbers["FWIoU"] == pytest.approx(1 / 5 * 1 / 3 + 4 / 5 * 1 / 4)
    assert numbers["pixel_accuracy"] == pytest.approx(2 / 5)
    assert np.isnan(numbers["VC8"])
    assert np.isnan(metric.per_class()[2])
    assert metric.per_video() == {"a": numbers["mIoU"]}
    assert np.isnan(VideoConsistency(2).compute()["mIoU"])


def test_shares_repeats_and_order_do_not_matter():
    videos = {name: random_video(seed, length=10) for seed, name in enumerate("abcd")}

    def of(names: str) -> VideoConsistency:
        metric = VideoConsistency(3, clips=(2, 4))
        for name in names:
            metric.update(name, iter(videos[name]))
        return metric

    shares = of("dbd")
    shares.merge(of("cab"))
    assert shares.compute() == of("abcd").compute()


def test_faults_are_named():
    with pytest.raises(ValueError, match="frame 0 of a: expected classes 0 to 1, got 2"):
        VideoConsistency(2).update("a", [(np.array([[2]]), np.array([[1]]))])
    with pytest.raises(ValueError, match="expected the size of the target"):
        VideoConsistency(2).update("a", [(np.zeros((1, 2), int), np.zeros((2, 1), int))])
