"""How often the identity that a tracker gives to an object changes: the switches of CLEAR MOT (Bernardin et al. 2008).

In every frame, a true object is followed by a predicted countable segment with which it has an IoU over one half,
whatever class that is said to be: a wrong word is no lost identity. Of segments that exclude each other there is at
most one; of several that overlap it is the one that followed the object last, if that is among them, or else the one
with the largest IoU. A switch is a frame where the follower's id differs from that of the last one, however long ago.

Letters: H×W pixels.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.overlaps import overlaps
from omgvision.evaluation.video_panoptic_quality import VOID, PanopticFrame


@dataclass
class Followed:
    """One true object of a video: in how many frames it is seen, in how many of them it is followed, and switches."""

    seen: int = 0
    followed: int = 0
    switches: int = 0


@dataclass(frozen=True)
class FollowedObjects:
    """What is kept of a video: each of its objects, and its number of frames."""

    objects: tuple[Followed, ...]
    frames: int


class IdentitySwitches(PerSample[FollowedObjects]):
    """Switches over the countable objects of videos; crowds do not count.

    Args:
        things: Category id → whether it is countable, for all categories.
    """

    def __init__(self, things: Mapping[int, bool]) -> None:
        super().__init__()
        self.things = dict(things)

    def update(self, video_id: str, frames: Iterable[tuple[PanopticFrame, PanopticFrame]]) -> None:
        """Adds a video whose segments exclude each other.

        Args:
            frames: Prediction and target of each frame, in order; read one by one.

        Raises:
            ValueError: Different sizes.
        """
        self._count(video_id, ((self._followers(prediction, target), target) for prediction, target in frames))

    def update_overlapping(
        self, video_id: str, frames: Iterable[tuple[Mapping[int, np.ndarray], PanopticFrame]]
    ) -> None:
        """Adds a video whose segments, all of them countable, may overlap.

        Args:
            frames: Of each frame, in order, the predicted masks (bool [H, W]) by id, and the target.

        Raises:
            ValueError: Different sizes.
        """
        self._count(video_id, ((_overlapping(masks, target), target) for masks, target in frames))

    def _count(self, video_id: str, frames: Iterable[tuple[Mapping[int, list[int]], PanopticFrame]]) -> None:
        """Adds a video, given who may follow each true object, best first, in each frame."""
        if video_id in self.records:
            return
        found: dict[int, Followed] = {}
        last: dict[int, int] = {}
        length = 0
        for followers, target in frames:
            length += 1
            for identity in self._countable(target):
                one = found.setdefault(identity, Followed())
                one.seen += 1
                candidates = followers.get(identity)
                if not candidates:
                    continue
                before = last.get(identity, candidates[0])
                one.followed += 1
                one.switches += before not in candidates
                last[identity] = before if before in candidates else candidates[0]
        self.add(video_id, FollowedObjects(tuple(found.values()), length))

    def _countable(self, target: PanopticFrame) -> Iterator[int]:
        """Ids of the true objects that count."""
        for identity, label in target.segments.items():
            if not label.is_crowd and self.things[label.category]:
                yield identity

    def compute(self) -> dict[str, float]:
        """Counts of switches and of objects, and shares of frames.

        `switches` of `objects` objects; `followed`, the share of the frames in which an object is seen that it is
        followed: what nobody follows never switches. The same three with `_throughout` of those that are seen in every
        frame of their video.
        """
        videos = self.ordered()
        objects = [one for video in videos for one in video.objects]
        throughout = [one for video in videos for one in video.objects if one.seen == video.frames]
        numbers: dict[str, float] = {}
        for suffix, group in (("", objects), ("_throughout", throughout)):
            seen = sum(one.seen for one in group)
            numbers[f"switches{suffix}"] = float(sum(one.switches for one in group))
            numbers[f"objects{suffix}"] = float(len(group))
            numbers[f"followed{suffix}"] = sum(one.followed for one in group) / seen if seen else float("nan")
        return numbers

    def _followers(self, prediction: PanopticFrame, target: PanopticFrame) -> dict[int, list[int]]:
        """True id → id of the countable prediction of an IoU over one half."""
        countable = {guess for guess, label in prediction.segments.items() if self.things[label.category]}
        fits = _fits(prediction.ids, target)
        return {truth: [guess] for truth, guess, _ in fits if guess in countable}


def _overlapping(masks: Mapping[int, np.ndarray], target: PanopticFrame) -> dict[int, list[int]]:
    """True id → ids of the masks of an IoU over one half, best first."""
    followers: dict[int, list[tuple[float, int]]] = {}
    for guess, mask in masks.items():
        for truth, inside, iou in _fits(mask, target):
            if inside:
                followers.setdefault(truth, []).append((iou, guess))
    return {truth: [guess for _, guess in sorted(some, reverse=True)] for truth, some in followers.items()}


def _fits(guesses: np.ndarray, target: PanopticFrame) -> Iterator[tuple[int, int, float]]:
    """True id, value of `guesses` [H, W] and IoU of all pairs of an IoU over one half; void is in no union."""
    pairs = list(zip(*(values.tolist() for values in overlaps(target.ids, guesses)), strict=True))
    areas: Counter[int] = Counter()
    guessed: Counter[int] = Counter()
    for truth, guess, count in pairs:
        areas[truth] += count
        if truth != VOID:
            guessed[guess] += count
    for truth, guess, shared in pairs:
        if truth in target.segments and (iou := shared / (areas[truth] + guessed[guess] - shared)) > 0.5:
            yield truth, guess, iou
