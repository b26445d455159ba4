"""What must hold of videos, for any weights: one frame is a picture, nothing moves where nothing changes, and a session
is nothing but its frames in order."""

import numpy as np
import pytest
from PIL import Image

from omgvision import OmgSegImageProcessor, OmgSegProcessor, Predictor, Result
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
from omgvision.prompts import ObjectPrompt
from tests.models import golden_model

TASKS = ["panoptic", "instance", "semantic", "everything"]
MODES = ["stream", "offline"]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The recorded tiny model, which finds segments of every kind."""
    image_processor = OmgSegImageProcessor(size={"longest_edge": 128, "shortest_edge": 96})
    return Predictor(golden_model(), OmgSegProcessor(image_processor, build_clip_tokenizer()), name="golden")


@pytest.fixture(scope="module")
def frames() -> list[Image.Image]:
    """Windows of 90x60 pixels that wander over noise of several sizes."""
    generator = np.random.default_rng(5)
    scene = np.zeros((60, 160, 3))
    for cells in (4, 10, 30):
        coarse = generator.integers(0, 255, (cells, 2 * cells, 3)).astype(np.uint8)
        scene += np.asarray(Image.fromarray(coarse).resize((160, 60), Image.Resampling.BICUBIC), dtype=float) / 3
    pixels = scene.clip(0, 255).astype(np.uint8)
    return [Image.fromarray(pixels[:, 8 * index : 8 * index + 90]) for index in range(7)]


def arguments(task: str) -> dict:
    return {"task": task} if task == "semantic" else {"task": task, "threshold": 0.0}


def assert_same(one: Result, other: Result, *, ids: bool = True) -> None:
    assert [segment.label_id for segment in one] == [segment.label_id for segment in other]
    if ids:
        assert [segment.id for segment in one] == [segment.id for segment in other]
    for first, second in zip(one, other, strict=True):
        assert np.array_equal(first.mask, second.mask)
        assert first.score is second.score is None or first.score == pytest.approx(second.score, abs=1e-5)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODES)
def test_one_frame_is_a_picture(predictor, frames, task, mode):
    """In a stream also by the ids of things and stuff; as a whole they are named after their queries."""
    picture = predictor.segment(frames[0], **arguments(task))
    (frame,) = predictor.track(frames[:1], mode=mode, **arguments(task))
    assert len(picture) > 0
    if mode == "stream":
        assert_same(frame, picture, ids=task != "semantic")
    else:
        assert sorted((segment.label_id or 0, segment.area) for segment in frame) == sorted(
            (segment.label_id or 0, segment.area) for segment in picture
        )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mode", MODES)
def test_a_frame_that_repeats_keeps_ids_and_masks(predictor, frames, task, mode):
    first, *others = predictor.track([frames[3]] * 4, mode=mode, **arguments(task))
    for other in others:
        # The frames of one clip differ by their place in time.
        assert_same(other, first) if mode == "stream" else assert_ids(other, first)


def assert_ids(one: Result, other: Result) -> None:
    shared = {segment.id: segment.label_id for segment in one}.items() & {s.id: s.label_id for s in other}.items()
    assert len(shared) >= 0.5 * max(len(one), len(other))


@pytest.mark.parametrize("task", TASKS)
def test_stream_is_whole_where_nothing_moves(predictor, frames, task):
    """Both promise the same of a video of one frame: the averages have nothing to average."""
    (stream,) = predictor.track([frames[0]], **arguments(task))
    (whole,) = predictor.track([frames[0]], mode="offline", **arguments(task))
    assert sorted((segment.label_id or 0, segment.area) for segment in stream) == sorted(
        (segment.label_id or 0, segment.area) for segment in whole
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_video_may_be_fed_in_parts(predictor, frames, task, cut):
    """Also by turns with another video: sessions do not mix."""
    expected = list(predictor.track(frames, **arguments(task)))
    session, other = (predictor.open_video(**arguments(task)) for _ in range(2))
    found = [session.feed(frame) for frame in frames[:cut]]
    for frame in reversed(frames):
        other.feed(frame)
    found += [session.feed(frame) for frame in frames[cut:]]
    for one, another in zip(found, expected, strict=True):
        assert_same(one, another)


def test_the_future_does_not_matter(predictor, frames):
    short, long = (list(predictor.track(frames[:count], **arguments("panoptic"))) for count in (3, 7))
    for one, other in zip(short, long, strict=False):
        assert_same(one, other)


def test_semantic_ids_are_classes(predictor, frames):
    for result in predictor.track(frames, task="semantic"):
        assert all(segment.id == (segment.label_id or 0) + 1 for segment in result)


def test_stuff_has_one_id_for_each_class(predictor, frames):
    names: dict[int, int] = {}
    for result in predictor.track(frames, task="panoptic"):
        for segment in result:
            if not segment.is_thing:
                assert segment.label_id is not None
                assert names.setdefault(segment.label_id, segment.id) == segment.id


def test_sessions_of_objects_do_not_mix(predictor, frames):
    prompts = [{1: ObjectPrompt(box=(10, 10, 40, 40))}, {1: ObjectPrompt(points=((60, 30),), labels=(1,))}]
    alone = [list(predictor.track(frames, prompts={0: each})) for each in prompts]
    sessions = [predictor.open_video(task="objects") for _ in prompts]
    for index, frame in enumerate(frames):
        for session, each, expected in zip(sessions, prompts, alone, strict=True):
            result = session.feed(frame, objects=each if index == 0 else None)
            assert np.array_equal(result.label_map, expected[index].label_map)
