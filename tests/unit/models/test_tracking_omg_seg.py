"""The memory of tracks, on queries made by hand: squares with directions for features."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_seg import tracking_omg_seg as tracking
from omgvision.models.omg_seg.clips_omg_seg import QueryPrediction
from omgvision.models.omg_seg.tracking_omg_seg import Track, TrackMemory

GRID, WIDTH, CLASSES = 16, 8, 3


def square(row: int, column: int, *, side: int = 4) -> Tensor:
    """Mask logits [h, w], positive in a square."""
    logits = torch.full((GRID, GRID), -5.0)
    logits[row : row + side, column : column + side] = 5.0
    return logits


def clip(*frames: QueryPrediction) -> QueryPrediction:
    """Queries whose masks move: those of frames made by `frame`, with the classes and features of the last."""
    return frames[-1].with_masks(torch.cat([each.mask_logits for each in frames], dim=1))


def frame(*queries: tuple[Tensor, int, int], certainty: float = 6.0) -> QueryPrediction:
    """Queries given as mask, direction of the feature, class; a clip of one frame."""
    classes = torch.zeros(len(queries), CLASSES + 1)
    features = torch.zeros(len(queries), WIDTH)
    for index, (_, direction, label) in enumerate(queries):
        classes[index, label] = certainty
        features[index, direction] = 2.0
    return QueryPrediction(
        class_logits=classes,
        iou_logits=torch.zeros(len(queries)),
        mask_logits=torch.stack([mask[None] for mask, _, _ in queries]),
        query_features=features,
    )


def step(memory: TrackMemory, prediction: QueryPrediction, seen: Sequence[int] | None = None) -> list[Track]:
    """One frame in which the queries `seen` (None: all) are visible."""
    rows = list(range(len(prediction.class_logits))) if seen is None else list(seen)
    memory.follow(prediction, visible=rows)
    tracks = memory.remember(rows)
    return [tracks[row] for row in rows]


LEFT, RIGHT = (square(2, 2), 0, 0), (square(2, 10), 1, 1)
NOTHING = (torch.full((GRID, GRID), -5.0), 7, CLASSES)


def test_tracks_do_not_depend_on_the_order_of_the_queries():
    memory = TrackMemory()
    left, right = step(memory, frame(LEFT, RIGHT))
    assert left is not right
    assert step(memory, frame(RIGHT, LEFT)) == [right, left]
    assert len(memory.tracks) == 2 and left.times_seen == 2


def test_the_mask_decides_between_queries_of_one_direction():
    memory = TrackMemory()
    left, right = step(memory, frame((square(2, 2), 0, 0), (square(2, 10), 0, 0)))
    assert step(memory, frame((square(3, 9), 0, 0), (square(3, 3), 0, 0))) == [right, left]


def test_the_feature_decides_where_masks_overlap():
    memory = TrackMemory()
    first, second = step(memory, frame((square(4, 4), 0, 0), (square(4, 6), 1, 0)))
    assert step(memory, frame((square(4, 5), 1, 0), (square(4, 5), 0, 0))) == [second, first]


def test_another_object_in_another_place_is_new():
    memory = TrackMemory()
    (left,) = step(memory, frame(LEFT))
    (other,) = step(memory, frame(RIGHT))
    assert other is not left and len(memory.tracks) == 2


def test_a_hidden_object_keeps_its_track_for_a_while():
    memory = TrackMemory()
    left, _ = step(memory, frame(LEFT, RIGHT))
    for _ in range(tracking.ACTIVE_FRAMES - 1):
        step(memory, frame(RIGHT))
    assert step(memory, frame(LEFT, RIGHT))[0] is left


@pytest.mark.parametrize(("direction", "label", "returns"), [(0, 0, True), (2, 0, False), (0, 2, False)])
def test_a_lost_object_that_returns_elsewhere(direction, label, returns):
    """Its features and classes must both be alike."""
    memory = TrackMemory()
    left, _ = step(memory, frame(LEFT, RIGHT))
    for _ in range(3 * tracking.ACTIVE_FRAMES):
        step(memory, frame(RIGHT))
    found, _ = step(memory, frame((square(11, 2), direction, label), RIGHT))
    assert (found is left) == returns
    assert found.times_seen == (2 if returns else 1)


def test_of_two_lost_tracks_that_are_alike_the_one_known_for_longer_returns():
    """An object that was lost and begun anew is remembered twice, and the later memory may be the more alike."""

    def turned(degrees: float) -> QueryPrediction:
        direction = torch.zeros(1, WIDTH)
        direction[0, :2] = torch.tensor([math.cos(math.radians(degrees)), math.sin(math.radians(degrees))])
        return replace(frame(LEFT), query_features=direction)

    def wait() -> None:
        for _ in range(tracking.ACTIVE_FRAMES + 1):
            step(memory, frame(NOTHING), seen=[])

    memory = TrackMemory()
    (old,) = [step(memory, turned(0)) for _ in range(50)][-1]
    wait()
    (young,) = step(memory, turned(50))
    assert young is not old
    wait()
    assert step(memory, turned(27)) == [old], "23 degrees from the young one"


def test_only_what_is_visible_continues_a_track():
    """A hidden duplicate that is nearer does not take the track from the query that is seen."""
    memory = TrackMemory()
    (left,) = step(memory, frame(LEFT))
    assert step(memory, frame((square(2, 3), 0, 0), LEFT), [0]) == [left]
    assert len(memory.tracks) == 1


def test_what_turns_out_to_be_seen_continues_its_track():
    """Decided at the full size, a few queries are seen that were not visible on the grid."""
    memory = TrackMemory()
    left, right = step(memory, frame(LEFT, RIGHT))
    memory.follow(frame(LEFT, RIGHT), visible=[0])
    assert memory.remember([0, 1]) == {0: left, 1: right}


def test_votes_decide_the_class_and_the_frame_how_sure_it_is():
    memory = TrackMemory()
    step(memory, frame(LEFT))
    step(memory, frame(LEFT))
    mistaken = frame((LEFT[0], LEFT[1], 1), RIGHT, certainty=2.0)
    voted = memory.follow(mistaken, visible=[0, 1])
    assert torch.equal(voted.class_logits, torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]))
    assert torch.equal(mistaken.class_logits[0], torch.tensor([0.0, 2.0, 0.0, 0.0])), "the argument is left alone"
    memory.remember([0, 1])
    torch.testing.assert_close(memory.tracks[0].class_logits, torch.tensor([4.0, 2 / 3, 0.0, 0.0]))


def test_old_votes_fade():
    memory = TrackMemory()
    for _ in range(5):
        step(memory, frame(LEFT))
    for _ in range(6 * tracking.VOTES):
        step(memory, frame((LEFT[0], LEFT[1], 1)))
    assert memory.tracks[0].class_logits.argmax() == 1
    assert memory.tracks[0].class_logits[0] < 0.1


def test_behind_the_window_of_votes_the_past_is_forgotten():
    """A memory that begins where a video is cut has the same tracks from there on, and after `VOTES` frames the same
    classes, even if all that was seen before the cut spoke for others."""
    whole, begun = TrackMemory(), TrackMemory()
    for _ in range(5 * tracking.VOTES):
        step(whole, frame((LEFT[0], LEFT[1], 2), (RIGHT[0], RIGHT[1], 0), (square(10, 4), 2, 0)))
    names: dict[int, Track] = {}
    for index in range(2 * tracking.VOTES):
        now = frame((square(2 + index % 3, 2), 0, 0), (square(2, 10 - index % 2), 1, 1))
        (logits, tracks), (others_logits, others) = (
            (memory.follow(now, visible=[0, 1]).class_logits, memory.remember([0, 1])) for memory in (whole, begun)
        )
        for row in (0, 1):
            assert names.setdefault(id(tracks[row]), others[row]) is others[row]
        if index == 0 or index + 1 >= tracking.VOTES:
            assert torch.equal(logits, others_logits) == (index > 0)
    assert len(names) == len(begun.tracks) == 2


def test_a_frame_that_repeats_changes_nothing():
    memory = TrackMemory()
    prediction = frame(LEFT, RIGHT, NOTHING)
    tracks = step(memory, prediction, [0, 1])
    for _ in range(3):
        voted = memory.follow(prediction, visible=[0, 1])
        assert torch.equal(voted.class_logits, prediction.class_logits)
        assert list(memory.remember([0, 1]).values()) == tracks


def test_the_number_of_tracks_is_bounded(monkeypatch):
    """The one that was not seen for the longest time dies."""
    monkeypatch.setattr(tracking, "TRACK_LIMIT", 4)
    memory = TrackMemory()
    (oldest,) = step(memory, frame(LEFT))
    for column in range(1, 8):
        step(memory, frame((square(10, 2 * column - 2, side=2), column, 2)))
    assert len(memory.tracks) == 4
    assert not any(track is oldest for track in memory.tracks)


def test_nothing_to_see():
    memory = TrackMemory()
    assert step(memory, frame(NOTHING), []) == []
    assert memory.tracks == []


def test_without_classes_features_and_masks_decide():
    memory = TrackMemory()
    both = frame(LEFT, RIGHT)
    bare = QueryPrediction(
        class_logits=torch.zeros(2, 1),
        iou_logits=both.iou_logits,
        mask_logits=both.mask_logits,
        query_features=both.query_features,
    )
    tracks = step(memory, bare)
    assert step(memory, bare) == tracks


# ----------------------------------------------------------------------------------------------------------- proposals

THRESHOLD = 0.5


def proposal_step(memory: TrackMemory, *queries: tuple[Tensor, int, float]) -> dict[int, Track]:
    """One frame of proposals given as mask, direction of the feature, objectness; those shown, by row, with tracks."""
    prediction = replace(
        frame(*((mask, direction, 0) for mask, direction, _ in queries)),
        class_logits=torch.zeros(len(queries), 1),
        iou_logits=torch.tensor([objectness for *_, objectness in queries]).logit(),
    )
    voted = memory.follow_proposals(prediction, threshold=THRESHOLD)
    shown = voted.iou_logits.sigmoid() > tracking.CONTINUED_SHARE * THRESHOLD
    return memory.remember(shown.nonzero()[:, 0].tolist())


def test_a_track_goes_on_where_nothing_new_would_begin():
    """Objectness that hovers about the threshold does not make an object come and go."""
    memory = TrackMemory()
    assert proposal_step(memory, (square(2, 2), 0, 0.45)) == {}
    (track,) = proposal_step(memory, (square(2, 2), 0, 0.55)).values()
    for objectness in (0.45, 0.55, 0.4, 0.45):
        assert proposal_step(memory, (square(2, 2), 0, objectness)) == {0: track}
    assert float(track.iou_logit.sigmoid()) == pytest.approx(0.48, abs=0.01), "the mean of its logits"
    assert proposal_step(memory, (square(2, 2), 0, 0.3)) == {}, "under the share it is gone"


def test_a_duplicate_of_what_is_followed_is_no_new_object():
    memory = TrackMemory()
    (track,) = proposal_step(memory, (square(2, 2), 0, 0.6)).values()
    both = ((square(2, 2), 0, 0.5), (square(2, 3), 3, 0.9))
    assert proposal_step(memory, *both) == {0: track}
    beside = proposal_step(memory, (square(2, 2), 0, 0.5), (square(2, 5), 3, 0.9))
    assert beside[0] is track and len(beside) == 2


def test_without_a_past_proposals_are_as_they_are():
    memory = TrackMemory()
    assert list(proposal_step(memory, (square(2, 2), 0, 0.6), (square(2, 3), 1, 0.7), (square(9, 9), 2, 0.4))) == [0, 1]


BOTH = torch.maximum(square(2, 2), square(2, 10))


def test_a_proposal_that_covers_more_continues_a_track_with_its_part_alone():
    """Two objects that look alike are one proposal in some frames; who was followed alone goes on alone."""
    memory = TrackMemory()
    (track,) = proposal_step(memory, (square(2, 2), 0, 0.6)).values()
    for _ in range(2 * tracking.ACTIVE_FRAMES):
        shown = proposal_step(memory, (BOTH, 0, 0.4))
        assert shown == {1: track} and torch.equal(track.mask, square(2, 2) > 0)
    assert proposal_step(memory, (square(2, 2), 0, 0.4)) == {0: track}


def test_a_part_says_nothing_about_a_track_but_where_it_is():
    memory = TrackMemory()
    (track,) = proposal_step(memory, (square(2, 2), 0, 0.6)).values()
    proposal_step(memory, (torch.maximum(square(2, 3), square(10, 10)), 4, 0.9))
    assert torch.equal(track.mask, square(2, 3) > 0)
    assert track.features.argmax() == 0 and float(track.iou_logit.sigmoid()) == pytest.approx(0.6)


def test_both_objects_of_a_proposal_go_on_by_their_parts():
    memory = TrackMemory()
    left, right = proposal_step(memory, (square(2, 2), 0, 0.6), (square(2, 10), 1, 0.6)).values()
    assert proposal_step(memory, (BOTH, 2, 0.9)) == {1: left, 2: right}


def test_of_two_that_come_to_overlap_the_one_known_for_longer_is_shown():
    memory = TrackMemory()
    (older,) = proposal_step(memory, (square(2, 2), 0, 0.6)).values()
    for column in (7, 6):
        _, younger = proposal_step(memory, (square(2, 2), 0, 0.5), (square(2, column), 1, 0.9)).values()
    assert older.times_seen > younger.times_seen
    near = proposal_step(memory, (square(2, 2), 0, 0.5), (square(2, 5), 1, 0.9))
    assert list(near.values()) == [older, younger]
    assert proposal_step(memory, (square(2, 2), 0, 0.5), (square(2, 4), 1, 0.9)) == {0: older}


def test_a_track_whose_proposal_is_not_shown_goes_on_with_another():
    """The proposal most like what it covered came to overlap an older track; the object itself is seen all the same."""
    memory = TrackMemory()
    old, young, wide, beside = (square(0, column, side=8) for column in (0, 5, 5, 6))
    wide[:8, 4] = 5.0
    (older,) = proposal_step(memory, (old, 0, 0.6)).values()
    _, younger = proposal_step(memory, (old, 0, 0.6), (young, 1, 0.9)).values()
    assert older.times_seen > younger.times_seen
    assert proposal_step(memory, (old, 0, 0.6), (wide, 1, 0.9), (beside, 1, 0.9)) == {0: older, 2: younger}


def test_inside_of_where_a_followed_track_was_lately_nothing_new_begins():
    """Two objects were seen as one: a part of one of them that is seen as well is not an object that came."""
    memory = TrackMemory()
    wide, edge = square(2, 2, side=8), torch.full((GRID, GRID), -5.0)
    edge[2:10, 9] = 5.0
    narrow = torch.where(edge > 0, -5.0, wide)
    (track,) = proposal_step(memory, (wide, 0, 0.6)).values()
    for mask in (wide, *[narrow] * tracking.INSIDE_FRAMES):
        assert proposal_step(memory, (mask, 0, 0.6), (edge, 3, 0.55)) == {0: track}
    assert len(proposal_step(memory, (narrow, 0, 0.6), (edge, 3, 0.55))) == 2, "it stays where the other was"


def test_what_is_surer_than_the_track_that_it_lies_in_is_a_new_object():
    memory = TrackMemory()
    (track,) = proposal_step(memory, (square(2, 2, side=8), 0, 0.6)).values()
    shown = proposal_step(memory, (square(2, 2, side=8), 0, 0.6), (square(4, 4), 3, 0.65))
    assert shown[0] is track and len(shown) == 2


def test_those_that_began_together_may_overlap():
    """So that a frame that repeats shows what it showed."""
    memory = TrackMemory()
    both = ((square(2, 2), 0, 0.6), (square(2, 4), 1, 0.7))
    assert [proposal_step(memory, *both).keys() for _ in range(3)] == [{0, 1}] * 3


def test_the_best_part_follows_a_piece_through_a_clip():
    was = square(2, 2) > 0
    moving = torch.stack([square(2, 2 + shift) for shift in range(4)])
    with_another = torch.maximum(moving, 0.6 * square(10, 10))
    whole = torch.ones_like(moving)
    part = tracking.best_part(torch.stack([whole, with_another]), was)
    assert part is not None
    assert torch.equal(part > 0, moving > 0)
    assert torch.equal(part[moving > 0], moving[moving > 0]), "certain where the proposal is"
    assert tracking.best_part(whole[None], was) is None, "nothing to tell it apart by"
    assert tracking.best_part(moving[None, 3:], was) is None, "mostly elsewhere"
    assert tracking.best_part(torch.zeros(0, 1, GRID, GRID), was) is None


# --------------------------------------------------------------------------------------------------------------- clips


def test_a_clip_is_joined_by_its_first_frame_and_its_last():
    """Two objects of one look change places while they are decoded together; their masks alone say who is who."""
    here, there = (square(2, 2), 0, 0), (square(2, 10), 0, 0)
    memory = TrackMemory()
    first, second = step(memory, frame(here, there))
    assert step(memory, clip(frame(here, there), frame(there, here))) == [first, second]
    assert step(memory, frame(here, there)) == [second, first]


@pytest.mark.parametrize(("direction", "label"), [(0, 1), (3, 0)])
def test_a_clip_counts_as_its_frames(direction, label):
    one, many = TrackMemory(), TrackMemory()
    changed = frame((LEFT[0], direction, label))
    for memory in (one, many):
        step(memory, frame(LEFT))
    for _ in range(3):
        step(one, changed)
    step(many, clip(changed, changed, changed))
    (expected,), (found,) = one.tracks, many.tracks
    assert (found.times_seen, found.last_seen) == (expected.times_seen, expected.last_seen) == (4, 3)
    torch.testing.assert_close(found.class_logits, expected.class_logits)
    assert float(found.features @ expected.features) > 0.99  # between frames they are made of unit length again


def test_a_clip_longer_than_the_memory_of_places_finds_the_track_before_it():
    """How long a track was not seen counts until the clip's first frame."""
    memory = TrackMemory()
    (left,) = step(memory, frame(LEFT))
    assert step(memory, clip(*[frame((LEFT[0], 3, 0))] * (3 * tracking.ACTIVE_FRAMES))) == [left]


def test_votes_of_a_clip_longer_than_the_memory_of_votes():
    memory = TrackMemory()
    step(memory, frame(LEFT))
    step(memory, clip(*[frame((LEFT[0], LEFT[1], 1))] * (2 * tracking.VOTES)))
    torch.testing.assert_close(memory.tracks[0].class_logits, torch.tensor([0.0, 6.0, 0.0, 0.0]))
