"""VPQ: rules on tiny videos, and equality with counting tubes pixel by pixel."""

import itertools

import numpy as np
import pytest

from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.video_panoptic_quality import PanopticFrame, VideoPanopticQuality

THINGS = {1: True, 2: True, 7: False}
Video = list[tuple[PanopticFrame, PanopticFrame]]


def frame(ids: list[list[int]] | np.ndarray, **labels: SegmentLabel) -> PanopticFrame:
    return PanopticFrame(np.array(ids), {int(name[1:]): label for name, label in labels.items()})


def one_video(video: Video, *, windows: tuple[int, ...] = (1, 2)) -> VideoPanopticQuality:
    metric = VideoPanopticQuality(THINGS, windows=windows)
    metric.update("video", video)
    return metric


def counts(metric: VideoPanopticQuality, category: int) -> list[list[float]]:
    return metric.totals()[:, list(THINGS).index(category)].tolist()


def test_a_tube_is_matched_over_the_whole_window():
    label = SegmentLabel(1)
    truth = [frame([[5, 5, 5, 5]], s5=label), frame([[5, 5, 5, 5]], s5=label)]
    guess = [frame([[3, 3, 3, 3]], s3=label), frame([[3, 0, 0, 0]], s3=label)]
    metric = one_video(list(zip(guess, truth, strict=True)))
    # Frame by frame a match and a miss with a surplus; together 5 of 8 pixels.
    assert counts(metric, 1) == [[1.0, 1, 1, 1], [5 / 8, 1, 0, 0]]
    assert metric.compute()["VPQ@2"] == 5 / 8
    assert metric.compute()["VPQ"] == (0.5 + 5 / 8) / 2


def test_another_identity_in_the_next_frame_costs_only_longer_windows():
    label = SegmentLabel(1)
    truth = [frame([[5, 5]], s5=label), frame([[5, 5]], s5=label)]
    guess = [frame([[3, 3]], s3=label), frame([[4, 4]], s4=label)]
    assert counts(one_video(list(zip(guess, truth, strict=True))), 1) == [[2.0, 2, 0, 0], [0, 0, 2, 1]]


def test_a_short_video_adds_nothing_to_long_windows():
    label = SegmentLabel(7)
    numbers = one_video([(frame([[1]], s1=label), frame([[1]], s1=label))]).compute()
    assert numbers["VPQ@1"] == numbers["VPQ@1_stuff"] == 1.0
    assert np.isnan([numbers["VPQ@2"], numbers["VPQ"], numbers["VPQ@1_things"]]).all()


def test_the_area_of_the_json_counts():
    label = SegmentLabel(1)
    metric = one_video([(frame([[1]], s1=label), frame([[1]], s1=SegmentLabel(1, area=2)))])
    assert counts(metric, 1)[0] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("guess", "truth", "message"),
    [
        (frame([[1]]), frame([[0]]), "prediction: frame 0 of video: pixels with id 1, which is not described"),
        (frame([[0]], s1=SegmentLabel(1)), frame([[0]]), "prediction: .* segment 1 is described, but no pixel has it"),
        (frame([[1]], s1=SegmentLabel(9)), frame([[0]]), "prediction: .* unknown category 9"),
        (frame([[0]]), frame([[1]], s1=SegmentLabel(9)), "target: .* unknown category 9"),
        (frame([[0, 0]]), frame([[0]]), "expected the size of the target"),
    ],
)
def test_faults_are_named(guess: PanopticFrame, truth: PanopticFrame, message: str):
    with pytest.raises(ValueError, match=message):
        one_video([(guess, truth)])


def random_video(seed: int, *, length: int) -> Video:
    """Blocky maps with everything that is allowed: crowds, void, undescribed truth, categories that change."""
    generator = np.random.default_rng(seed)
    categories = list(THINGS)
    video = []
    base = np.kron(generator.integers(0, 7, (4, 4)), np.ones((3, 3), int))
    for _ in range(length):
        sides = []
        for side in range(2):
            ids = np.where(generator.random(base.shape) < 0.15, generator.integers(0, 7, base.shape), base)
            segments = {}
            for identity in generator.permutation(np.unique(ids[ids > 0])).tolist():
                stable = categories[identity % 3] if generator.random() < 0.9 else categories[generator.integers(3)]
                if side == 0:
                    segments[identity] = SegmentLabel(stable)
                elif generator.random() < 0.9:
                    segments[identity] = SegmentLabel(stable, bool(generator.random() < 0.3))
            sides.append(PanopticFrame(ids, segments))
        video.append((sides[0], sides[1]))
    return video


def by_the_book(video: Video, size: int) -> np.ndarray:
    """[K, 4]: windows one after the other, tubes as masks."""
    index = {category: row for row, category in enumerate(THINGS)}
    total = np.zeros((len(THINGS), 4))
    for start in range(len(video) - size + 1):
        window = video[start : start + size]
        guess, truth = (np.stack([frames[side].ids for frames in window]) for side in range(2))
        labels: list[dict[int, SegmentLabel]] = [{}, {}]
        described = np.zeros_like(truth, dtype=bool)
        for number, frames in enumerate(window):
            for side in range(2):
                for identity, label in frames[side].segments.items():
                    labels[side].setdefault(identity, label)
            described[number] = np.isin(truth[number], list(frames[1].segments))
        crowds = {label.category: identity for identity, label in labels[1].items() if label.is_crowd}
        matched: tuple[set[int], set[int]] = (set(), set())
        for (one, label), (other, true) in itertools.product(labels[0].items(), labels[1].items()):
            shared = np.sum((guess == one) & (truth == other))
            area = np.sum((truth == other) & described)
            union = np.sum(guess == one) + area - shared - np.sum((guess == one) & (truth == 0))
            if shared and not true.is_crowd and label.category == true.category and shared / union > 0.5:
                total[index[label.category], :2] += shared / union, 1
                matched[0].add(one)
                matched[1].add(other)
        for one, label in labels[0].items():
            free = np.sum((guess == one) & (truth == 0))
            if label.category in crowds:
                free += np.sum((guess == one) & (truth == crowds[label.category]))
            total[index[label.category], 2] += one not in matched[0] and free / np.sum(guess == one) <= 0.5
        for other, label in labels[1].items():
            total[index[label.category], 3] += other not in matched[1] and not label.is_crowd
    return total


@pytest.mark.parametrize("seed", range(12))
def test_equal_to_counting_by_the_book(seed: int):
    windows = (1, 2, 3, 5)
    video = random_video(seed, length=4 + seed % 3)
    found = one_video(video, windows=windows).totals()
    for size, table in zip(windows, found, strict=True):
        np.testing.assert_allclose(table, by_the_book(video, size), atol=1e-12, err_msg=f"window {size}")


def test_shares_repeats_and_order_do_not_matter():
    videos = {f"v{seed}": random_video(seed, length=5) for seed in range(4)}

    def measured(names: str) -> VideoPanopticQuality:
        metric = VideoPanopticQuality(THINGS)
        for name in names.split():
            metric.update(name, iter(videos[name]))
        return metric

    whole = measured("v0 v1 v2 v3")
    shares = measured("v3 v1 v3")
    shares.merge(measured("v2 v0 v1"))
    numbers = whole.compute()
    assert {name: repr(value) for name, value in shares.compute().items()} == {
        name: repr(value) for name, value in numbers.items()
    }
    assert whole.per_category()[2].keys() == THINGS.keys()
