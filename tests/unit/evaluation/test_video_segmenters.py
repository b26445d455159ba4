"""The per-frame baseline: which segments of neighbouring frames become one track."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from PIL import Image

from omgvision.evaluation.video_segmenters import FrameLinker, PerFrameSegmenter, Words, overlap_shares
from omgvision.predictor import Predictor
from omgvision.results import Category, Result, SegmentLabel

CATEGORIES = (Category("cat", True), Category("dog", True), Category("sky", False))
SIZE = (20, 30)


def box(top: int, left: int, height: int = 6, width: int = 6) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def result(*found: tuple[np.ndarray, int], task: Any = "instance") -> Result:
    image = Image.new("RGB", (SIZE[1], SIZE[0]))
    labels = [SegmentLabel(label, 0.5) for _, label in found]
    return Result.from_masks([mask for mask, _ in found], labels, task=task, image=image, categories=CATEGORIES)


def ids(frames: Sequence[Result], threshold: float = 0.5) -> list[list[int]]:
    linker = FrameLinker(threshold)
    return [[segment.id for segment in linker.link(frame, index)] for index, frame in enumerate(frames)]


def test_overlapping_segments_of_a_class_keep_their_id() -> None:
    frames = [
        result((box(2, 2), 0), (box(10, 20), 0)),
        result((box(10, 21), 0), (box(2, 3), 0)),  # the model's order does not matter
        result((box(2, 4), 0), (box(10, 21), 1)),  # another class is another track
        result((box(2, 14), 0)),  # too far
    ]
    assert ids(frames) == [[1, 2], [2, 1], [1, 3], [4]]


def test_an_id_is_given_once_and_the_sum_of_overlaps_is_greatest() -> None:
    # Both old ones overlap the first new one more than the second, which only one of them reaches.
    frames = [result((box(2, 2), 0), (box(2, 3), 0)), result((box(2, 3), 0), (box(2, 2), 0), (box(2, 4), 0))]
    linked = ids(frames, threshold=0.3)
    assert linked == [[1, 2], [2, 1, 3]]


def test_what_leaves_comes_back_as_another_but_stuff_is_always_one_track() -> None:
    frames = [result((box(2, 2), 0), (box(12, 2), 2)), result(), result((box(2, 2), 0), (box(0, 20), 2))]
    assert ids(frames) == [[1, 2], [], [3, 2]]


def test_linked_results_keep_what_they_were() -> None:
    linker = FrameLinker(0.5)
    linker.link(result((box(2, 2), 1)), 0)
    linked = linker.link(result((box(12, 2), 0), (box(2, 2), 1)), 1)
    assert [segment.label for segment in linked] == ["cat", "dog"]
    assert [segment.score for segment in linked] == [0.5, 0.5]
    assert np.array_equal(linked.segments[1].mask, box(2, 2))
    assert linked.frame is not None
    assert linked.frame.index == 1
    assert [segment.id for segment in linked] == [2, 1]


def test_overlap_shares() -> None:
    shares = overlap_shares([box(0, 0), box(0, 3)], [box(0, 0), box(10, 10), box(0, 3)])
    assert np.allclose(shares, [[1, 0, 1 / 3], [1 / 3, 0, 1]])
    assert overlap_shares([], [box(0, 0)]).shape == (0, 1)


class Fake:
    """A predictor that finds what it is told to, frame by frame."""

    def __init__(self, results: Sequence[Result]) -> None:
        self.results, self.asked = iter(results), []

    def segment(self, image: Image.Image, **arguments: Any) -> Result:
        self.asked.append(arguments)
        return next(self.results)


def baseline(fake: Fake) -> PerFrameSegmenter:
    return PerFrameSegmenter(cast(Predictor, fake))


FRAMES = [Image.new("RGB", (SIZE[1], SIZE[0]))] * 3


def test_the_baseline_asks_for_every_frame_by_itself() -> None:
    fake = Fake([result((box(2, 2 + shift), 0)) for shift in range(3)])
    words = Words(["cat", "dog", "sky"], ["cat", "dog"])
    found = list(baseline(fake).segment(FRAMES, task="instance", words=words))
    assert [[segment.id for segment in one] for one in found] == [[1], [1], [1]]
    assert fake.asked == [{"task": "instance", "classes": words.classes, "things": words.things}] * 3


def test_the_baseline_follows_the_best_proposal_and_waits_where_there_is_none() -> None:
    first = np.zeros(SIZE, dtype=np.int64)
    first[box(2, 2)], first[box(10, 20)] = 1, 2
    fake = Fake([result((box(10, 21), 0), (box(2, 4), 0), (box(2, 3), 0), task="everything"), result()])
    given, moved, waited = baseline(fake).follow(FRAMES, first=first)
    assert np.array_equal(given, first)
    assert np.array_equal(moved == 1, box(2, 3))
    assert np.array_equal(moved == 2, box(10, 21))
    assert np.array_equal(waited, moved)
    assert len(fake.asked) == 2, "the first frame is given"
