"""J and F: rules on small maps, the boundary measure by its definition, protocols, merging."""

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import ndimage

from omgvision.evaluation.davis import ObjectQuality, Protocol, dilate

Video = Sequence[tuple[np.ndarray | None, np.ndarray]]


def measured(video: Video, *, protocol: Protocol = "semi-supervised") -> ObjectQuality:
    metric = ObjectQuality(protocol)
    metric.update("video", video)
    return metric


def square(rows: slice, columns: slice, *, size: tuple[int, int] = (200, 200), label: int = 1) -> np.ndarray:
    labels = np.zeros(size, np.uint8)
    labels[rows, columns] = label
    return labels


def disk(radius: int) -> np.ndarray:
    rows, columns = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    return rows**2 + columns**2 <= radius**2


@pytest.mark.parametrize("radius", [0, 1, 2, 3, 7, 8, 12])
@pytest.mark.parametrize("shape", [(5, 7), (40, 50), (3, 60)])
def test_bits_are_dilated_by_disks(radius: int, shape: tuple[int, int]):
    generator = np.random.default_rng(radius)
    masks = generator.random((3, *shape)) < 0.02
    planes = sum(mask.astype(np.uint8) << bit for bit, mask in enumerate(masks))
    spread = dilate(np.asarray(planes), radius)
    for bit, mask in enumerate(masks):
        assert np.array_equal(spread >> bit & 1, ndimage.binary_dilation(mask, disk(radius)))


def test_void_pixels_do_not_count():
    # davis2017-evaluation's own test: half of the mask lies on void.
    truth = square(slice(100, 150), slice(100, 150))
    guess = square(slice(50, 150), slice(100, 150))
    plain = measured([(None, truth), (guess, truth), (None, truth)])
    assert plain.compute()["J"] == 0.5
    assert plain.compute()["F"] == pytest.approx(0.628, abs=5e-4)
    truth = truth + square(slice(50, 100), slice(100, 150), label=255)
    assert measured([(None, truth), (guess, truth), (None, truth)]).compute()["J&F"] == 1.0


def boundary(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, lower, corner = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask != right) | (mask != lower) | (mask != corner)


def distance_to(points: np.ndarray) -> np.ndarray:
    return np.asarray(ndimage.distance_transform_edt(~points))


def f_measure(guess: np.ndarray, truth: np.ndarray) -> float:
    """By the distance to the other boundary."""
    radius = np.ceil(0.008 * np.hypot(*guess.shape))
    one, other = boundary(guess), boundary(truth)
    if not one.any() or not other.any():
        return float(one.any() == other.any())
    precision = (distance_to(other)[one] <= radius).mean()
    recall = (distance_to(one)[other] <= radius).mean()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_definition(seed: int):
    generator = np.random.default_rng(seed)
    noise = [ndimage.gaussian_filter(generator.normal(size=(90, 140)), 8) for _ in range(4)]
    truth, guess = (np.digitize(one / one.std(), [-0.8, 0.2, 1.2]).astype(np.uint8) for one in noise[:2])
    first = truth.copy()
    first[0, 0] = 3
    record = measured([(None, first), (guess, truth), (None, truth)]).records["video"]
    for index in range(3):
        mine, theirs = guess == index + 1, truth == index + 1
        assert record.region[index, 0] == (mine & theirs).sum() / (mine | theirs).sum()
        assert record.boundary[index, 0] == pytest.approx(f_measure(mine, theirs), abs=1e-12)


def test_an_absent_object_is_right_when_nothing_is_predicted():
    truth = square(slice(5, 9), slice(5, 9), size=(20, 20), label=2)
    empty = np.zeros((20, 20), np.uint8)
    record = measured([(None, truth), (empty, empty), (truth, empty), (None, truth)]).records["video"]
    assert record.region.tolist() == record.boundary.tolist() == [[1.0, 1.0], [1.0, 0.0]]


def test_objects_that_appear_later_do_not_count():
    first, later = square(slice(5, 9), slice(5, 9)), square(slice(5, 9), slice(5, 9)) * 2
    metric = measured([(None, first), (first, first + later[::-1]), (None, first)])
    assert metric.per_object().keys() == {"video_1"}
    assert metric.compute()["J&F"] == 1.0


def test_recall_and_decay():
    frames = [square(slice(0, 10), slice(0, width)) for width in (10, 10, 8, 4, 2)]
    video: Video = [(None, frames[0]), *((frame, frames[0]) for frame in frames[1:]), (None, frames[0])]
    numbers = measured(video).compute()
    assert numbers["J"] == pytest.approx((1 + 0.8 + 0.4 + 0.2) / 4)
    assert numbers["J-Recall"] == 0.5
    # Four frames: quarters of one frame and the next.
    assert numbers["J-Decay"] == pytest.approx((1 + 0.8) / 2 - (0.4 + 0.2) / 2)


def test_proposals_are_assigned():
    left, right = square(slice(0, 90), slice(0, 60)), square(slice(0, 90), slice(100, 160))
    truth = left + 2 * right
    guess = 17 * left + 4 * right
    metric = measured([(guess, truth)] * 2, protocol="unsupervised")
    assert metric.records["video"].region.shape == (2, 2)
    assert metric.compute()["J&F"] == 1.0
    # Fewer proposals than objects: the other one is missed.
    assert measured([(17 * left, truth)], protocol="unsupervised").compute()["J"] == 0.5


def test_faults_are_named():
    truth = square(slice(0, 9), slice(0, 9))
    faults: list[tuple[Video, str]] = [
        ([(None, truth), (2 * truth, truth), (None, truth)], "frame 1 of video: expected labels up to 1, got 2"),
        ([(None, truth), (None, truth), (None, truth)], "frame 1 of video: expected one, got none"),
        ([(None, truth), (None, truth)], "expected three frames or more"),
        ([], "expected frames, got none"),
        ([(None, 65 * truth)], "expected at most 64 objects, got 65"),
        ([(None, truth), (truth[1:], truth), (None, truth)], "expected the size of the target"),
    ]
    for video, message in faults:
        with pytest.raises(ValueError, match=message):
            measured(video)
    with pytest.raises(ValueError, match="frame 0 of video: expected labels up to 20, got 21"):
        measured([(21 * truth, truth)], protocol="unsupervised")


def test_shares_repeats_and_order_do_not_matter():
    generator = np.random.default_rng(0)
    videos = {name: list(generator.integers(0, 3, (5, 2, 12, 14)).astype(np.uint8)) for name in "abcd"}

    def of(names: str) -> ObjectQuality:
        metric = ObjectQuality()
        for name in names:
            metric.update(name, ((frame[0], frame[1]) for frame in videos[name]))
        return metric

    shares = of("dbd")
    shares.merge(of("cab"))
    assert shares.compute() == of("abcd").compute()
    assert np.isnan(ObjectQuality().compute()["J&F"])
