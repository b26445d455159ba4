"""How often the identity that a tracker gives to an object changes: the switches of CLEAR MOT (Bernardin et al. 2008).

In every frame, a true object is followed by the predicted countable segment with which it has an IoU over one half
(there is at most one), whatever class that is said to be: a wrong word is no lost identity. A switch is a frame where
that segment's id differs from the one that followed it last, however long ago.

Letters: H×W pixels.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
        """Adds a video.

        Args:
            frames: Prediction and target of each frame, in order; read one by one.

        Raises:
            ValueError: Different sizes.
        """
        if video_id in self.records:
            return
        found: dict[int, Followed] = {}
        last: dict[int, int] = {}
        length = 0
        for prediction, target in frames:
            length += 1
            followers = self._followers(prediction, target)
            for identity, label in target.segments.items():
                if label.is_crowd or not self.things[label.category]:
                    continue
                one = found.setdefault(identity, Followed())
                one.seen += 1
                if identity in followers:
                    one.followed += 1
                    one.switches += last.get(identity, followers[identity]) != followers[identity]
                    last[identity] = followers[identity]
        self.add(video_id, FollowedObjects(tuple(found.values()), length))

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

    def _followers(self, prediction: PanopticFrame, target: PanopticFrame) -> dict[int, int]:
        """True id → id of the countable prediction of an IoU over one half; void takes no part in the union."""
        truths, guesses, pixels = (values.tolist() for values in overlaps(target.ids, prediction.ids))
        areas: dict[int, int] = {}
        guessed: dict[int, int] = {}
        for truth, guess, count in zip(truths, guesses, pixels, strict=True):
            areas[truth] = areas.get(truth, 0) + count
            if truth != VOID:
                guessed[guess] = guessed.get(guess, 0) + count
        followers = {}
        for truth, guess, shared in zip(truths, guesses, pixels, strict=True):
            label = prediction.segments.get(guess)
            if truth not in target.segments or label is None or not self.things[label.category]:
                continue
            if shared > 0.5 * (areas[truth] + guessed[guess] - shared):
                followers[truth] = guess
        return followers
