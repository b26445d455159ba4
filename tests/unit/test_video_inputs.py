"""Sources of videos as frames: folders, patterns, arrays, iterables; leaving frames out; what cannot be a video."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from omgvision.errors import UserError
from omgvision.results import FrameStamp
from omgvision.video_inputs import Frame, open_video
from tests.clips import HEIGHT, WIDTH, scene, write_clip


@pytest.fixture
def folder(tmp_path):
    """Frames whose numbers have no leading zeros, and files that are none."""
    path = tmp_path / "horse"
    path.mkdir()
    for index in range(12):
        Image.fromarray(scene(index)).save(path / f"frame{index}.png")
    (path / "notes.txt").write_text("x")
    (path / ".hidden.png").write_bytes(b"x")
    return path


def test_video_file(tmp_path):
    with open_video(write_clip(tmp_path / "clip.mp4", sound="aac")) as video:
        assert video.reads == {tmp_path / "clip.mp4"}
        assert (video.name, video.size, video.rate, video.length) == ("clip", (HEIGHT, WIDTH), 10, 12)
        assert video.sound is not None
        frames = list(video)
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.time for frame in frames] == pytest.approx([index / 10 for index in range(12)])
    assert frames[3].stamp == FrameStamp(3, frames[3].time)
    assert frames[3].stamp.stem == "00003"


@pytest.mark.parametrize("pattern", [False, True])
def test_folder_and_pattern_in_natural_order(folder, pattern):
    video = open_video(str(folder / "*.png") if pattern else folder, rate=10)
    assert (video.name, video.size, video.length, video.sound) == ("horse", (HEIGHT, WIDTH), 12, None)
    assert video.reads == {folder}
    frames = list(video)
    assert [frame.stamp.stem for frame in frames] == [f"frame{index}" for index in range(12)]
    assert [frame.time for frame in frames] == pytest.approx([index / 10 for index in range(12)])
    assert np.array_equal(np.asarray(frames[10].image), scene(10))


def test_pattern_over_folders_with_the_same_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(scene(0)).save(tmp_path / name / "0.png")
    video = open_video(str(tmp_path / "*" / "0.png"))
    assert video.reads == {tmp_path / "a", tmp_path / "b"}
    assert [frame.stamp.stem for frame in video] == ["00000", "00001"]


def test_one_picture_is_a_video_of_one_frame(folder):
    video = open_video(folder / "frame3.png")
    assert (video.name, video.length) == ("frame3", 1)
    assert [frame.name for frame in video] == ["frame3"]


def test_animated_gif(tmp_path):
    pictures = [Image.fromarray(scene(index)) for index in range(3)]
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:], duration=200)
    frames = list(open_video(tmp_path / "moving.gif"))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4])


def test_upright_by_exif(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for index in range(2):
        Image.fromarray(scene(index)).save(tmp_path / f"{index}.jpg", exif=exif)
    assert open_video(tmp_path).size == (WIDTH, HEIGHT)
    Image.fromarray(np.rot90(scene(2))).save(tmp_path / "2.jpg")
    assert len(list(open_video(tmp_path))) == 3


@pytest.mark.parametrize(
    "source",
    [
        np.stack([scene(index) for index in range(4)]),
        torch.stack([torch.from_numpy(scene(index)).permute(2, 0, 1) for index in range(4)]),
        [Image.fromarray(scene(index)) for index in range(4)],
        (scene(index) for index in range(4)),
    ],
    ids=["array", "tensor", "list", "generator"],
)
def test_arrays_and_iterables(source):
    video = open_video(source)
    assert video.size == (HEIGHT, WIDTH)
    frames = list(video)
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12])
    assert np.array_equal(np.asarray(frames[2].image), scene(2))


def test_endless_iterable_is_read_frame_by_frame():
    """No frame is read before it is asked for, the first apart."""
    read = []

    def endless():
        for index in itertools.count():
            read.append(index)
            yield scene(index)

    video = open_video(endless())
    assert (video.length, read) == (None, [0])
    assert [frame.index for frame in itertools.islice(video, 3)] == [0, 1, 2]
    assert read == [0, 1, 2]


def test_frames_and_open_videos_pass_through():
    frames = [Frame(Image.fromarray(scene(0)), 0, 0.0, "a"), Frame(Image.fromarray(scene(1)), 1, 0.7, "b")]
    video = open_video(frames)
    assert [(frame.time, frame.name) for frame in video] == [(0.0, "a"), (0.7, "b")]
    assert open_video(video) is video


def test_every_and_limit(tmp_path, folder):
    path = write_clip(tmp_path / "clip.mp4")
    for source in (path, folder):
        video = open_video(source, every=3, limit=3)
        assert video.length == 3
        assert [frame.index for frame in video] == [0, 3, 6]
        assert open_video(source, every=5).length == 3
        assert len(list(open_video(source, every=5))) == 3
    assert [frame.time for frame in open_video(path, every=4)] == pytest.approx([0, 0.4, 0.8])


def test_expected_frames(folder):
    video = open_video(folder, every=2, limit=4)
    for index in (0, 2, 6):
        video.expect(index)
    for index, part in [(12, "0 to 11"), (-1, "no frame -1"), (3, "every 2th"), (8, "last of 4")]:
        with pytest.raises(UserError, match=part):
            video.expect(index)
    open_video(scene(index) for index in range(3)).expect(1000)  # nobody knows yet


def test_frames_are_read_once(folder):
    video = open_video(folder)
    list(video)
    with pytest.raises(UserError, match="open the video again"):
        iter(video)


# ------------------------------------------------------------------------------------------------------------- refused


def test_what_cannot_be_a_video(tmp_path, folder):
    (tmp_path / "none").mkdir()
    for source, part in [
        (tmp_path / "missing.mp4", "does not exist"),
        (tmp_path / "none", "holds no frames"),
        (str(tmp_path / "*.bmp"), "holds no frames"),
        ("", "path is empty"),
        ("ftp://host/a.mp4", "http, https or rtsp"),
        ("x" * 5000, "cannot read"),
        ([], "no frames"),
        (np.zeros((4, 5, 3), np.uint8), r"\[T, H, W, 3\]"),
        (3, "cannot read a video from int"),
        ([3], "cannot read an image from int"),
    ]:
        with pytest.raises(UserError, match=part):
            open_video(source)  # type: ignore[arg-type]
    for arguments, part in [({"every": 0}, "every"), ({"limit": 0}, "limit"), ({"rate": 0}, "rate")]:
        with pytest.raises(UserError, match=part):
            open_video(folder, **arguments)
    with pytest.raises(UserError, match="times of its own"):
        open_video(write_clip(tmp_path / "clip.mp4"), rate=10)


def test_frames_of_changing_size_in_a_folder_are_noticed_at_once(folder):
    Image.fromarray(scene(0, width=80)).save(folder / "frame12.png")
    with pytest.raises(UserError, match=r"frame12\.png has 80x48 pixels, expected 64x48"):
        open_video(folder)
    open_video(folder, limit=12)


def test_frames_of_changing_size_in_a_stream(tmp_path):
    frames = iter(open_video([scene(0), scene(1), scene(2, height=60)]))
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(UserError, match="frame 2 has 64x60 pixels, expected 64x48"):
        next(frames)
    parts = [
        write_clip(tmp_path / f"{height}.ts", frames=[scene(i, height=height) for i in range(6)]) for height in (48, 96)
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    video = open_video(tmp_path / "both.ts")
    with pytest.raises(UserError, match="64x96 pixels, expected 64x48"):
        list(video)


def test_damaged_frame_of_a_folder(folder):
    (folder / "frame7.png").write_bytes(b"x")
    frames = iter(open_video(folder))
    for _ in range(7):
        next(frames)
    with pytest.raises(UserError, match=r"frame7\.png"):
        next(frames)
