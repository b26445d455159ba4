"""Identity over time for frames that arrive one by one or in small clips: a memory of tracks.

Letters: Q queries, K classes, C width, T frames of a clip (1 for a frame by itself), N and M of queries and tracks that
are compared, h×w the stride-4 grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

from .clips_omg_seg import QueryPrediction, mask_ious

FEATURE_WEIGHT, MASK_WEIGHT, CLASS_WEIGHT = 0.4, 0.4, 0.2
"""What makes a query and a track of the frames just before alike: cosine of their query features, IoU of the masks,
overlap of the class probabilities."""

MATCH_THRESHOLD = 0.5
"""Likeness, at most 1, under which a query does not continue a track."""

CONTINUED_SHARE = 0.7
"""A proposal without a class that continues a track is shown from this share of the threshold on: its objectness then
does not have to exceed the threshold in every frame anew."""

WHOLE_OVERLAP = 0.8
"""IoU with the mask that a track had last from which a proposal without a class may continue it as it is."""

PART_OVERLAP = 0.5
"""IoU with that mask from which a part of a proposal continues a track that no whole one does."""

DUPLICATE_OVERLAP = 0.3
"""IoU with one that continues a track from which a proposal is no new object, and no track that is known for less long.
"""

INSIDE_SHARE, INSIDE_FRAMES = 0.8, 8
"""Share of a proposal that lies in places that one followed track had in the last so many frames from which it is no
new object, unless it is surer than the track. Where a model sees two objects as one, it often sees a part of one of
them for some frames as well."""

ACTIVE_FRAMES = 5
"""A track that was not seen for this many frames is lost: its last mask no longer says where to look."""

REIDENTIFICATION_THRESHOLD = 0.8
"""A new segment is a lost track that returns if their likeness by features and classes alone (weighted as above) is at
least this; otherwise a track is born."""

SENIORITY, SENIOR_FRAMES = 0.1, 100
"""By how much likeness, at most, a lost track that was seen in many frames goes before one that was seen in few: half
of it for one that was seen in `SENIOR_FRAMES`. An object that was lost and begun anew is remembered twice."""

TRACK_LIMIT = 256
"""Tracks that are remembered, lost ones included. The one that was not seen for the longest time dies first."""

FEATURE_MOMENTUM = 0.8
"""Share of a track's remembered features that a new frame leaves as they are."""

VOTES = 20
"""Class logits of a track are the mean over the frames that it was seen in; from this number of frames on the oldest
fade exponentially."""


@dataclass(eq=False)
class Track:
    """What is remembered of one object.

    Attributes:
        features: [C], mean direction of its query features.
        class_logits: [K+1], voted over the frames that it was seen in.
        iou_logit: objectness, voted likewise.
        last_seen: number of the last frame of the clip in which it was seen last.
        last_covered: int32 [h,w], number of the last frame in which it covered a place; -1 where it never did.
        times_seen: frames; of a clip in which it was seen, all.
        ids: what it is called, by class: a query that stands for several classes is several instances. None is its
            first name.
    """

    features: Tensor
    class_logits: Tensor
    iou_logit: Tensor
    last_seen: int
    last_covered: Tensor
    times_seen: int
    ids: dict[int | None, int] = field(default_factory=dict)

    @property
    def mask(self) -> Tensor:
        """Bool [h,w], where it was in the frame `last_seen`."""
        return self.last_covered == self.last_seen


class TrackMemory:
    """The tracks of one video. A clip is two calls: `follow` finds the tracks that queries continue and lets the past
    vote on their classes; when it is known which queries are seen in the result, `remember` stores those. A clip is
    joined to those before it by its first frame, and to those after it by its last one.

    Memory and time do not depend on the length of the video: at most `TRACK_LIMIT` tracks of C + K floats and one
    stride-4 grid are held.
    """

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self._clip = range(0)
        self._prediction: QueryPrediction | None = None
        self._matched: dict[int, Track] = {}

    @torch.no_grad()
    def follow(self, prediction: QueryPrediction, *, visible: Sequence[int]) -> QueryPrediction:
        """Starts a clip: matches queries to the tracks of the last frames.

        Args:
            prediction: of this clip, mask logits [Q,T,h,w].
            visible: the queries that would be seen by themselves; only they continue tracks.

        Returns:
            The prediction with the class logits of matched queries dealt out anew: the votes of their tracks say in
            which order of classes. How sure a query is stays its own, so that the same queries win their pixels as
            without votes: voted scores would let a duplicate with a score of its own take an object over.
        """
        self._start(prediction)
        self._matched = self._assign(visible, self._active(but={}), threshold=MATCH_THRESHOLD)
        logits = prediction.class_logits.clone()
        for row, track in self._matched.items():
            own = prediction.class_logits[row, :-1]
            votes = self._vote(track, track.class_logits, prediction.class_logits[row])
            order = votes[:-1].argsort(descending=True, stable=True)
            logits[row, order] = own.sort(descending=True).values
        return replace(prediction, class_logits=logits)

    @torch.no_grad()
    def follow_proposals(self, prediction: QueryPrediction, *, threshold: float) -> QueryPrediction:
        """`follow` for queries without classes, of which many are on one object and hardly surer than `threshold`.

        Such a query often covers several objects that look alike, in one frame and not in the next. So only one that
        covers what a track covered continues it; where there is none, a part of one that lies where the track was does.

        Args:
            threshold: objectness that a new object must exceed.

        Returns:
            The prediction with more queries, the parts that continue a track, and with the objectness of those that are
            to be shown, -inf for the others. One that continues a track has what the track's frames voted, more than
            `CONTINUED_SHARE` of the threshold; one that is new exceeds the threshold. Neither lies where another has
            been followed for longer (`DUPLICATE_OVERLAP`), and none that is new inside of where one that is followed
            was lately, unless it is surer than that (`INSIDE_SHARE`).
        """
        self._start(prediction)
        least = CONTINUED_SHARE * threshold
        likely = (prediction.iou_logits.float().sigmoid() > least).nonzero()[:, 0].tolist()
        active = self._active(but={})
        self._matched = self._assign(likely, active, threshold=MATCH_THRESHOLD, least_overlap=WHOLE_OVERLAP)
        prediction = self._with_parts(likely)
        followed = dict(sorted(self._matched.items(), key=lambda found: -found[1].times_seen))
        rows, ages = list(followed), torch.tensor([track.times_seen for track in followed.values()])
        masks = prediction.mask_logits > 0
        duplicates = (mask_ious(masks, masks[rows]) > DUPLICATE_OVERLAP).cpu()
        logits, shown = torch.full_like(prediction.iou_logits, -torch.inf), torch.zeros(len(followed), dtype=torch.bool)
        for place, (row, track) in enumerate(followed.items()):
            voted = self._vote(track, track.iou_logit, prediction.iou_logits[row])
            of_older = (duplicates[row] & shown & (ages > track.times_seen)).any()
            if float(voted.sigmoid()) > least and not of_older:
                logits[row] = voted
                shown[place] = True
            else:
                del self._matched[row]  # the object may be seen by another proposal
        new = prediction.iou_logits.float().sigmoid().cpu() > threshold
        new[rows] = False
        new &= ~(duplicates & shown).any(1)
        new &= ~self._inside(masks[:, 0], prediction.iou_logits).cpu()
        logits[new] = prediction.iou_logits[new]
        return replace(prediction, iou_logits=logits)

    def _inside(self, masks: Tensor, iou_logits: Tensor) -> Tensor:
        """Bool [Q]: who lies where a followed track was lately, and is no surer than that.

        Args:
            masks: bool [Q,h,w], in the first frame of the clip.
            iou_logits: [Q].
        """
        tracks = list(self._matched.values())
        if not tracks:
            return torch.zeros_like(iou_logits, dtype=torch.bool)
        covered = torch.stack([track.last_covered for track in tracks])
        lately = covered >= max(0, self._clip.start - INSIDE_FRAMES)
        areas = masks.flatten(1).float()
        lies_there = areas @ lately.flatten(1).float().T > INSIDE_SHARE * areas.sum(1, keepdim=True)
        surer = iou_logits[:, None] > torch.stack([track.iou_logit for track in tracks])
        return (lies_there & ~surer).any(1)

    def _with_parts(self, rows: Sequence[int]) -> QueryPrediction:
        """Adds a query for each track of the last frames that none continues as a whole, if a part of one does.

        The part has what the track remembers, so that it says nothing about it but where it is.
        """
        prediction = self._prediction
        assert prediction is not None
        likely = prediction.mask_logits[rows]
        found = [
            (track, part)
            for track in self._active(but=self._matched)
            if (part := best_part(likely, track.mask)) is not None
        ]
        if found:
            first = len(prediction.iou_logits)
            tracks, parts = zip(*found, strict=True)
            self._matched |= dict(enumerate(tracks, start=first))
            prediction = self._prediction = QueryPrediction(
                class_logits=_joined(prediction.class_logits, [track.class_logits for track in tracks]),
                iou_logits=_joined(prediction.iou_logits, [track.iou_logit for track in tracks]),
                mask_logits=_joined(prediction.mask_logits, parts),
                query_features=_joined(prediction.query_features, [track.features for track in tracks]),
            )
        return prediction

    @torch.no_grad()
    def remember(self, seen: Sequence[int]) -> dict[int, Track]:
        """Ends a clip: stores the queries that are seen in the result.

        Returns:
            The track of each of them. One that was not expected to be visible may continue a track all the same;
            otherwise it is one that was lost and returns, if there is one that is alike, or else a new one.
        """
        now = self._prediction
        assert now is not None, "follow comes first"
        found = dict(self._matched)
        active = self._active(but=found)
        found |= self._assign([row for row in seen if row not in found], active, threshold=MATCH_THRESHOLD)
        lost = [track for track in self.tracks if self._clip.start - track.last_seen > ACTIVE_FRAMES]
        unknown = [row for row in seen if row not in found]
        found |= self._assign(unknown, lost, by_mask=False, threshold=REIDENTIFICATION_THRESHOLD)
        tracks, frames, last = {}, len(self._clip), self._clip.stop - 1
        for row in seen:
            track = found.get(row)
            features = F.normalize(now.query_features[row].float(), dim=0)
            if track is None:
                classes, objectness = now.class_logits[row].clone(), now.iou_logits[row].clone()
                nowhere = torch.full_like(now.mask_logits[row, -1], -1, dtype=torch.int32)
                track = Track(features, classes, objectness, last_seen=last, last_covered=nowhere, times_seen=frames)
                self.tracks.append(track)
            else:
                track.features = F.normalize(features.lerp(track.features, FEATURE_MOMENTUM**frames), dim=0)
                track.class_logits = self._vote(track, track.class_logits, now.class_logits[row])
                track.iou_logit = self._vote(track, track.iou_logit, now.iou_logits[row])
                track.last_seen = last
                track.times_seen += frames
            for number, mask in zip(self._clip, now.mask_logits[row] > 0, strict=True):
                track.last_covered[mask] = number
            tracks[row] = track
        if len(self.tracks) > TRACK_LIMIT:
            self.tracks = sorted(self.tracks, key=lambda track: -track.last_seen)[:TRACK_LIMIT]
        return tracks

    def _start(self, prediction: QueryPrediction) -> None:
        self._clip = range(self._clip.stop, self._clip.stop + prediction.mask_logits.shape[1])
        self._prediction = prediction

    def _active(self, *, but: Mapping[int, Track]) -> list[Track]:
        """Tracks of the last frames that are not among those."""
        taken = {id(track) for track in but.values()}
        recent = (track for track in self.tracks if self._clip.start - track.last_seen <= ACTIVE_FRAMES)
        return [track for track in recent if id(track) not in taken]

    def _vote(self, track: Track, past: Tensor, now: Tensor) -> Tensor:
        """What the frames of a track and this clip say together."""
        frames = len(self._clip)
        return past.lerp(now, frames / min(track.times_seen + frames, max(VOTES, frames)))

    def _assign(
        self,
        rows: Sequence[int],
        tracks: Sequence[Track],
        *,
        threshold: float,
        by_mask: bool = True,
        least_overlap: float = 0.0,
    ) -> dict[int, Track]:
        """The tracks that some queries (`rows`) continue: pairs of the largest total likeness over it."""
        prediction = self._prediction
        if prediction is None or not rows or not tracks:
            return {}
        queries = torch.tensor(rows, device=prediction.class_logits.device)
        features = F.normalize(prediction.query_features[queries].float(), dim=-1)
        remembered = torch.stack([track.features for track in tracks])
        classes = _class_shares(prediction.class_logits[queries])
        expected = _class_shares(torch.stack([track.class_logits for track in tracks]))
        likeness = FEATURE_WEIGHT * features @ remembered.T + CLASS_WEIGHT * classes.sqrt() @ expected.sqrt().T
        preference = likeness.new_zeros(len(tracks))
        if by_mask:
            masks = torch.stack([track.mask for track in tracks])
            overlaps = mask_ious(prediction.mask_logits[queries, 0] > 0, masks)
            likeness = torch.where(overlaps < least_overlap, 0.0, likeness + MASK_WEIGHT * overlaps)
        else:
            likeness = likeness / (FEATURE_WEIGHT + CLASS_WEIGHT)
            frames = torch.tensor([track.times_seen for track in tracks]).to(likeness)
            preference = SENIORITY * frames / (frames + SENIOR_FRAMES)
        # Pairs under the threshold are worth nothing, so that they do not cost others their partner.
        worth = torch.where(likeness > threshold, likeness - threshold + preference, 0.0).double().cpu().numpy()
        pairs = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
        return {rows[row]: tracks[column] for row, column in pairs if worth[row, column] > 0}


def best_part(logits: Tensor, before: Tensor) -> Tensor | None:
    """The connected pieces of a mask that lie mostly where something was; of several masks, those that fit it best.

    Args:
        logits: [N,T,h,w], of masks in a clip; a piece may move from frame to frame.
        before: bool [h,w], in the frame before the clip.

    Returns:
        Logits [T,h,w], with the other pieces turned negative; None if none fits by `PART_OVERLAP`.
    """
    was, best, found = before.cpu().numpy(), PART_OVERLAP, None
    shared_areas = (logits[:, 0, before] > 0).sum(1)
    for mask in logits[shared_areas > PART_OVERLAP * before.sum()]:  # the others cannot fit, and pieces take time
        pieces = np.zeros(mask.shape, dtype=np.int32)
        ndimage.label((mask > 0).cpu().numpy(), output=pieces)
        count = int(pieces.max()) + 1
        areas = np.bincount(pieces[0].ravel(), minlength=count)
        shared = np.bincount(pieces[0][was], minlength=count)
        kept = 2 * shared > areas
        kept[0] = False
        overlap = shared[kept].sum() / max(1, was.sum() + (areas - shared)[kept].sum())
        if overlap > best:
            kept[0] = True
            best, found = overlap, torch.where(torch.from_numpy(kept[pieces]).to(mask.device), mask, -mask)
    return found


def _joined(queries: Tensor, more: Sequence[Tensor]) -> Tensor:
    return torch.cat([queries, torch.stack(list(more)).to(queries)])


def _class_shares(logits: Tensor) -> Tensor:
    """[N,K+1] → probabilities of the classes without void [N,K]; without classes all are of one, [N,1]."""
    return logits.float()[:, : max(1, logits.shape[1] - 1)].softmax(-1)
