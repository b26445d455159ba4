"""Videos frame by frame on a tiny model with random weights: what is fed, what comes back, what is refused."""

import gc
import itertools
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

import omgvision
from omgvision import Predictor, UserError
from omgvision.predictor import VIDEO_TASKS
from omgvision.prompts import ObjectPrompt, checked_object, video_prompts
from omgvision.results import FrameStamp
from omgvision.video_inputs import Frame

POINT = ObjectPrompt(points=((30.0, 30.0),), labels=(1,))


@pytest.fixture(scope="module")
def predictor(tiny_model_dir) -> Predictor:
    return omgvision.load(tiny_model_dir, device="cpu")


@pytest.fixture(scope="module")
def frames() -> list[Image.Image]:
    """Six pictures of 90x60 pixels in which a bright square moves to the right."""
    pictures = []
    for index in range(6):
        pixels = np.full((60, 90, 3), 60, dtype=np.uint8)
        pixels[:30] = (40, 90, 160)
        pixels[20:40, 10 + 8 * index : 30 + 8 * index] = (220, 60, 60)
        pictures.append(Image.fromarray(pixels))
    return pictures


@pytest.mark.parametrize("task", [task for task in VIDEO_TASKS if task != "objects"])
@pytest.mark.parametrize("mode", ["stream", "offline"])
def test_one_result_a_frame(predictor, frames, task, mode):
    results = predictor.track(frames, task=task, mode=mode, threshold=None if task == "semantic" else 0.0)
    assert isinstance(results, Iterator)
    index = -1
    for index, result in enumerate(results):
        assert (result.task, result.model_name, result.name) == (task, "tiny", "video")
        assert result.frame == FrameStamp(index, index / 25)
        assert result.stem == f"{index:05d}"
        assert result.image.size == (90, 60)
        ids = [segment.id for segment in result.segments]
        assert len(set(ids)) == len(ids) and all(number > 0 for number in ids)
        assert set(np.unique(result.label_map).tolist()) - {0} <= set(ids)
    assert index == 5


def test_a_frame_brings_its_number_and_time(predictor, frames):
    result = predictor.open_video(name="street").feed(Frame(frames[0], 12, 0.5, "0012"))
    assert (result.frame, result.name, result.stem) == (FrameStamp(12, 0.5, "0012"), "street", "0012")


def test_words_of_choice(predictor, frames):
    for mode in ("stream", "offline"):
        results = list(predictor.track(frames[:2], task="semantic", classes=["dog", "sea"], mode=mode))
        assert {segment.label for result in results for segment in result.segments} <= {"dog", "sea"}
        assert [category.name for category in results[0].categories] == ["dog", "sea"]
    assert predictor.classes == ["person", "car", "sky", "grass"]


def test_clip_fusion(predictor, frames):
    for mode in ("stream", "offline"):
        with_clip, without = (
            list(predictor.track(frames[:4], task="instance", threshold=0.0, mode=mode, clip_fusion=fusion))
            for fusion in (True, False)
        )
        assert any(one.scores.tolist() != other.scores.tolist() for one, other in zip(with_clip, without, strict=True))


class Camera:
    """Frames without end; `read` of them were asked for."""

    def __init__(self, frames):
        self.frames, self.read = frames, 0

    def __iter__(self):
        for frame in itertools.cycle(self.frames):
            self.read += 1
            yield frame


def test_stream_answers_before_the_end(predictor, frames):
    camera = Camera(frames)
    results = predictor.track(iter(camera), task="semantic")
    next(results)
    assert camera.read <= 2
    next(results)
    assert camera.read <= 3


@pytest.mark.parametrize("task", [task for task in VIDEO_TASKS if task != "objects"])
def test_small_clips(predictor, frames, task):
    """Two clips of four and two frames, which are fed by hand or by `track`."""
    asked = {"task": task} if task == "semantic" else {"task": task, "threshold": 0.0}
    session = predictor.open_video(**asked)
    by_hand = [*session.feed_clip(frames[:4]), *session.feed_clip(iter(frames[4:]))]
    assert session.frames == 6
    results = list(predictor.track(frames, clip_frames=4, **asked))
    assert [result.frame for result in results] == [FrameStamp(index, index / 25) for index in range(6)]
    assert sum(len(result) for result in results) > 0
    for index, (result, other) in enumerate(zip(results, by_hand, strict=True)):
        assert result.frame == other.frame
        assert np.array_equal(np.asarray(result.image), np.asarray(frames[index]))
        assert [segment.id for segment in result] == [segment.id for segment in other]
        assert np.array_equal(result.label_map, other.label_map)


def test_frames_of_a_clip_share_their_queries(predictor, frames):
    """What is one object in a clip has one class and one id there, and the decoder is asked once."""
    decoded = []
    hook = predictor.model.model.mask_decoder.register_forward_hook(lambda *_: decoded.append(1))
    results = list(predictor.track(frames, task="instance", threshold=0.0, clip_frames=3))
    hook.remove()
    assert len(decoded) == 2
    for clip in (results[:3], results[3:]):
        labels: dict[int, int | None] = {}
        for result in clip:
            for segment in result:
                assert labels.setdefault(segment.id, segment.label_id) == segment.label_id
        assert labels


def test_a_clip_answers_when_its_last_frame_has_come(predictor, frames):
    camera = Camera(frames)
    results = predictor.track(iter(camera), task="semantic", clip_frames=3)
    next(results)
    assert camera.read == 3
    next(results)
    next(results)
    assert camera.read == 3
    next(results)
    assert camera.read == 6


@pytest.mark.parametrize("clip_frames", [1, 3])
def test_stream_keeps_no_frames(predictor, frames, clip_frames):
    fed: list[weakref.ref] = []

    def camera():
        for picture in frames * 2:
            one = picture.copy()
            fed.append(weakref.ref(one))
            yield one

    alive = []
    for result in predictor.track(camera(), task="panoptic", clip_frames=clip_frames):
        del result
        gc.collect()
        alive.append(sum(reference() is not None for reference in fed))
    assert len(alive) == 12 and max(alive) <= 2 * clip_frames + 1


def test_memory_of_the_past_is_bounded(predictor, frames):
    session = predictor.open_video(task="instance", threshold=0.0)

    def held() -> int:
        tracks = session._memory.tracks
        return sum(track.mask.numel() + track.features.numel() + track.class_logits.numel() for track in tracks)

    for picture in frames * 3:
        session.feed(picture)
    before = held()
    for picture in frames * 3:
        session.feed(picture)
    assert session.frames == 36
    assert held() <= max(2 * before, before + 1)
    assert session._memory._matched.keys() <= set(range(12))


# -------------------------------------------------------------------------------------------------------------- objects


def test_objects_are_followed(predictor, frames):
    region = np.zeros((60, 90), dtype=bool)
    region[20:40, 10:30] = True
    results = list(predictor.track(frames, masks={7: region}, boxes=[(40, 5, 80, 25)]))
    assert [result.task for result in results] == ["objects"] * 6
    first = results[0]
    assert {segment.id for segment in first.segments} <= {1, 7}
    assert (first.label_map == 7)[22:38, 12:28].mean() > 0.9
    assert first.prompt_boxes == ((40.0, 5.0, 80.0, 25.0),) and results[1].prompt_boxes == ()
    assert all({segment.id for segment in result.segments} <= {1, 7} for result in results)
    areas = sum(segment.area for segment in first.segments)
    assert areas == np.count_nonzero(first.label_map), "masks do not overlap"


def test_prompts_on_later_frames(predictor, frames):
    session = predictor.open_video(task="objects")
    assert len(session.feed(frames[0])) == 0
    pointed = session.prompt({3: POINT})
    assert {segment.id for segment in pointed.segments} <= {3}
    assert pointed.prompt_points == ((30.0, 30.0, True),)
    session.feed(frames[1])
    session.feed(frames[2], objects={1: ObjectPrompt(box=(10, 10, 50, 50))})
    assert session._objects.object_ids == (3, 1)
    same = list(predictor.track(frames[:3], prompts={0: {3: POINT}, 2: {1: ObjectPrompt(box=(10, 10, 50, 50))}}))
    assert np.array_equal(same[0].label_map, pointed.label_map)


def test_offline_follows_masks_of_the_first_frame(predictor, frames):
    region = np.zeros((60, 90), dtype=bool)
    region[20:40, 10:30] = True
    results = list(predictor.track(frames, task="objects", masks={5: region}, mode="offline"))
    assert len(results) == 6
    assert {segment.id for result in results for segment in result.segments} <= {5}
    for prompts in ({0: {1: POINT}}, {2: {1: ObjectPrompt(region=region)}}):
        with pytest.raises(UserError, match="masks in the first frame only"):
            predictor.track(frames, prompts=prompts, mode="offline")


def test_prompts_are_numbered_from_one():
    picture = Image.new("RGB", (90, 60))
    region = np.ones((60, 90))
    found = video_prompts(
        picture, points=[(1, 2)], labels=None, boxes=[(0, 0, 9, 9)], masks=[region], prompts={4: {2: POINT}}
    )
    assert {frame: list(objects) for frame, objects in found.items()} == {0: [1, 2, 3], 4: [2]}
    assert found[0][1].points == ((1.0, 2.0),) and found[0][2].box == (0, 0, 9, 9)
    assert found[0][3].region is not None and found[0][3].region.dtype == bool
    assert video_prompts(picture, points=None, labels=None, boxes=None, masks=None, prompts=None) == {}


def test_a_point_without_label_is_on_the_object():
    assert checked_object(1, ObjectPrompt(points=((1.0, 2.0),)), Image.new("RGB", (9, 9))).labels == (1,)


# ------------------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "poetry"}, "unknown task 'poetry'"),
        ({"mode": "later"}, "unknown mode 'later': expected one of stream, offline"),
        ({"clip_frames": 0}, "clip_frames must be 1 or more, got 0"),
        ({"clip_frames": 2, "mode": "offline"}, "mode offline has clips of its own: leave clip_frames out"),
        ({"clip_frames": 2, "points": [(1, 2)]}, "task objects goes frame by frame: leave clip_frames out"),
        ({"threshold": 2}, "between 0 and 1"),
        ({"task": "panoptic", "points": [(1, 2)]}, "finds its segments by itself"),
        ({"task": "objects"}, "nothing to follow"),
        ({"points": []}, "nothing to follow"),
        ({"points": [(1, 2)], "classes": ["dog"]}, "task objects follows what is pointed at"),
        ({"points": [(1, 2)], "threshold": 0.0}, "task objects follows what is pointed at"),
        ({"points": [(300, 2)]}, "outside of the image"),
        ({"masks": [np.ones((5, 5))]}, r"expected that of the image, \[60, 90\]"),
        ({"masks": {0: np.ones((60, 90))}}, "numbers from 1, got 0"),
        ({"prompts": {6: {1: POINT}}}, "has no frame 6"),
        ({"prompts": {-1: {1: POINT}}}, "has no frame -1"),
        ({"prompts": {0: {1: ObjectPrompt()}}}, "object 1: expected points, a box or a mask, got none"),
        (
            {"prompts": {0: {1: ObjectPrompt(points=((1, 1),), box=(0, 0, 2, 2))}}},
            "object 1: expected points, a box or a mask, got 2",
        ),
        ({"points": [(1, 2)], "prompts": {0: {1: POINT}}}, "object 1 is pointed at twice in frame 0"),
    ],
)
def test_refused_at_once(predictor, frames, arguments, message):
    with pytest.raises(UserError, match=message):
        predictor.track(frames, **arguments)


def test_a_frame_that_a_stream_never_reaches(predictor, frames):
    results = predictor.track((picture for picture in frames), prompts={0: {1: POINT}, 9: {1: POINT}})
    with pytest.raises(UserError, match="no frame 9, in which an object is pointed at: it ended after 6 frames"):
        list(results)


@pytest.mark.parametrize("mode", ["stream", "offline"])
def test_no_frames(predictor, mode):
    with pytest.raises(UserError, match="no frames"):
        predictor.track(iter([]), mode=mode)


@pytest.mark.parametrize("mode", ["stream", "offline"])
def test_frames_of_another_size(predictor, frames, mode):
    with pytest.raises(UserError, match="frame 1 has 45x30 pixels, expected 90x60"):
        list(predictor.track([frames[0], frames[1].resize((45, 30))], mode=mode))


def test_a_frame_of_another_size_leaves_the_session_as_it_is(predictor, frames):
    session = predictor.open_video()
    session.feed(frames[0])
    with pytest.raises(UserError, match="one size, open a new session"):
        session.feed(frames[1].resize((45, 30)))
    assert session.frames == 1
    assert len(session.feed(frames[1])) >= 0


def test_a_faulty_clip_leaves_the_session_as_it_is(predictor, frames):
    session = predictor.open_video()
    for clip, message in [
        ([], "at least one frame, got none"),
        ([frames[0], frames[1].resize((45, 30))], "frame 1 has 45x30 pixels, expected 90x60"),
    ]:
        with pytest.raises(UserError, match=message):
            session.feed_clip(clip)
    assert session.frames == 0
    assert len(session.feed_clip([frame.resize((45, 30)) for frame in frames[:2]])) == 2
    with pytest.raises(UserError, match="frame 2 has 90x60 pixels, expected 45x30"):
        session.feed_clip(frames)
    assert session.frames == 2
    with pytest.raises(UserError, match="task objects is followed frame by frame"):
        predictor.open_video(task="objects").feed_clip(frames)


def test_prompts_at_the_wrong_time(predictor, frames):
    session = predictor.open_video(task="objects")
    with pytest.raises(UserError, match="feed one first"):
        session.prompt({1: POINT})
    session.feed(frames[0])
    with pytest.raises(UserError, match="at least one point"):
        session.prompt({})
    with pytest.raises(UserError, match="outside of the image"):
        session.feed(frames[1], objects={1: ObjectPrompt(points=((200, 2),), labels=(1,))})
    assert session.frames == 1
    session = predictor.open_video(task="panoptic")
    session.feed(frames[0])
    with pytest.raises(UserError, match="takes no prompts"):
        session.prompt({1: POINT})


def test_weights_without_prompts(predictor, frames, monkeypatch):
    monkeypatch.setattr(predictor.model.config, "prompt_queries", False)
    with pytest.raises(UserError, match="takes no prompts"):
        predictor.track(frames, points=[(1, 2)])


def test_inference_leaves_no_gradients(predictor, frames):
    session = predictor.open_video()
    session.feed(frames[0])
    assert not any(track.features.requires_grad for track in session._memory.tracks)
    assert torch.is_grad_enabled()
