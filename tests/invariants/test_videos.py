"""What must hold of videos, for any weights: one frame is a picture, nothing moves where nothing changes, and a session
is nothing but its frames in order."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image

from omgvision import OmgSegImageProcessor, OmgSegProcessor, Predictor, Result
from omgvision.models.omg_seg.postprocessing_omg_seg import prompt_masks
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
from omgvision.prompts import ObjectPrompt
from omgvision.session import mask_sizes
from tests.models import golden_model

TASKS = ["panoptic", "instance", "semantic", "everything"]
MODES = ["stream", "offline"]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """The recorded tiny model, which finds segments of every kind."""
    image_processor = OmgSegImageProcessor(size={"longest_edge": 128, "shortest_edge": 96})
    return Predictor(golden_model(), OmgSegProcessor(image_processor, build_clip_tokenizer()), name="golden")


@pytest.fixture(scope="module")
def countable(predictor) -> Predictor:
    """The same with countable classes alone."""
    model = copy.deepcopy(predictor.model)
    model.thing_mask = torch.ones_like(model.thing_mask)
    return Predictor(model, predictor.processor, name="countable")


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


def assert_same(one: Result, other: Result, *, ids: bool = True, scores: float = 1e-5, pixels: float = 0.0) -> None:
    """`scores`: by how much these may differ; `pixels`: which share of a mask's."""
    assert [segment.label_id for segment in one] == [segment.label_id for segment in other]
    if ids:
        assert [segment.id for segment in one] == [segment.id for segment in other]
    for first, second in zip(one, other, strict=True):
        assert np.mean(first.mask != second.mask) <= pixels
        assert first.score is second.score is None or first.score == pytest.approx(second.score, abs=scores)


def assert_same_up_to_ids(some: list[Result], others: list[Result]) -> None:
    """Videos with the same masks, classes and scores, in which each id of one stands for one id of the other."""
    names: set[tuple[int, int]] = set()
    for one, other in zip(some, others, strict=True):
        first, second = (
            sorted(each, key=lambda segment: (segment.label_id or 0, segment.mask.tobytes(), segment.score or 0))
            for each in (one, other)
        )
        assert len(first) > 0
        for segment, another in zip(first, second, strict=True):
            assert segment.label_id == another.label_id
            assert np.array_equal(segment.mask, another.mask)
            assert segment.score is another.score is None or segment.score == pytest.approx(another.score, abs=1e-5)
            names.add((segment.id, another.id))
    for side in zip(*names, strict=True):
        assert len(set(side)) == len(names)


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
    """Offline too, which cuts seven frames into clips of 3, 2 and 2: the place of a frame in its clip is the same for
    all its pixels, so it moves attention between frames only, and these are alike. What is left is rounding."""
    first, *others = predictor.track([frames[3]] * 7, mode=mode, **arguments(task))
    assert len(first) > 0
    for other in others:
        assert_same(other, first, pixels=0.0 if mode == "stream" else 1e-3)


@pytest.mark.parametrize(
    ("task", "fusion"), [*((task, False) for task in TASKS), *((task, True) for task in TASKS if task != "everything")]
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_stream_is_whole_where_both_see_one_clip(predictor, frames, task, fusion, count):
    """There is nothing to average and nothing to match; ids are called otherwise."""
    asked = {**arguments(task), "clip_fusion": fusion}
    stream = list(predictor.track(frames[:count], clip_frames=count, **asked))
    whole = list(predictor.track(frames[:count], mode="offline", **asked))
    assert_same_up_to_ids(stream, whole)


@pytest.mark.parametrize("task", TASKS)
def test_a_clip_of_one_frame_is_the_frame(predictor, frames, task):
    session, other = (predictor.open_video(**arguments(task)) for _ in range(2))
    for frame in frames:
        (found,) = session.feed_clip([frame])
        assert_same(found, other.feed(frame), scores=0.0)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_a_session_is_all_that_is_known_of_the_past(predictor, frames, task, cut):
    """Fed up to a frame and copied, it goes on as the whole does, whatever the copied one or another sees meanwhile."""
    expected = list(predictor.track(frames, **arguments(task)))
    session, other = (predictor.open_video(**arguments(task)) for _ in range(2))
    found = [session.feed(frame) for frame in frames[:cut]]
    saved = copy.deepcopy(session, {id(predictor): predictor, id(predictor.model): predictor.model})
    for frame in reversed(frames):
        session.feed(frame)
        other.feed(frame)
    found += [saved.feed(frame) for frame in frames[cut:]]
    for one, another in zip(found, expected, strict=True):
        assert_same(one, another, scores=0.0)


@pytest.mark.parametrize("task", ["panoptic", "instance"])
@pytest.mark.parametrize("cut", [1, 3, 6])
def test_masks_do_not_depend_on_the_past(countable, frames, task, cut):
    """Wherever a video is cut, the frames behind the cut have the masks and scores that they have in the whole."""
    whole = list(countable.track(frames, **arguments(task)))[cut:]
    parts = list(countable.track(frames[cut:], **arguments(task)))
    for one, other in zip(whole, parts, strict=True):
        assert len(one) == len(other)
        pairs = [sorted((segment.mask.tobytes(), segment.score or 0) for segment in each) for each in (one, other)]
        for (mask, score), (other_mask, other_score) in zip(*pairs, strict=True):
            assert mask == other_mask
            assert score == pytest.approx(other_score, abs=1e-5)


def test_proposals_are_those_of_the_frame(predictor, frames):
    """The past chooses among duplicates and says how sure a track is; the masks themselves are the frame's."""
    for result, image in zip(predictor.track(frames, **arguments("everything")), frames, strict=True):
        with torch.inference_mode():
            encoded = predictor._encode(image)
            logits = predictor.model(encoder_outputs=encoded).masks_queries_logits[0]
            own = {mask.numpy().tobytes() for mask in prompt_masks(logits, sizes=mask_sizes(encoded, image))}
        assert len(result) > 0 and {segment.mask.tobytes() for segment in result} <= own


@pytest.mark.parametrize("cut", [1, 3, 6])
def test_what_is_covered_does_not_depend_on_the_past(predictor, frames, cut):
    """With stuff as well, whose segments are merged by class, and classes are voted on."""
    whole = list(predictor.track(frames, **arguments("panoptic")))[cut:]
    for one, other in zip(whole, predictor.track(frames[cut:], **arguments("panoptic")), strict=True):
        assert np.array_equal(one.label_map > 0, other.label_map > 0)


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
