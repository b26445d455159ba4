"""Video files as PyAV reads them: codecs, times, rotation, and what is damaged."""

import errno
import http.server
import logging
import threading
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.error import BlockingIOError as BlockingError
from av.stream import Disposition

from omgvision import video_decoding
from omgvision.errors import UserError
from omgvision.video_decoding import open_address, open_file, open_webcam
from tests.clips import HEIGHT, WIDTH, scene, write_clip, write_tone


def close_to(image, pixels: np.ndarray, *, within: float = 6.0) -> bool:
    """Codecs change pixels a little, most of all at edges."""
    return float(np.abs(np.asarray(image, dtype=float) - pixels).mean()) < within


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.ts", "libx264")]
)
def test_containers_and_codecs(tmp_path, name, codec):
    video = open_file(write_clip(tmp_path / name, codec=codec))
    pictures = list(video.pictures)
    assert [picture.time for picture in pictures] == pytest.approx([index / 10 for index in range(12)])
    assert video.rate == 10
    assert video.count == 12
    for index in (0, 5, 11):
        assert close_to(pictures[index].read(), scene(index))
    video.close()


def test_times_of_a_variable_rate_are_kept(tmp_path):
    times = [0.0, 0.04, 0.3, 0.31, 1.0, 1.5]
    video = open_file(write_clip(tmp_path / "a.mp4", frames=6, times=times))
    assert [picture.time for picture in video.pictures] == pytest.approx(times)


def test_times_count_from_the_first_frame(tmp_path, caplog):
    video = open_file(write_clip(tmp_path / "late.mkv", frames=4, times=[2.0, 2.1, 2.2, 2.3], sound="aac"))
    assert [picture.time for picture in video.pictures] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert video.sound is not None
    assert video.sound.origin == pytest.approx(2.0, abs=0.03)
    assert not caplog.records


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_is_followed(tmp_path, rotation, turns):
    if not hasattr(av.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot write a rotation")
    video = open_file(write_clip(tmp_path / "a.mp4", frames=2, rotation=rotation))
    image = next(video.pictures).read()
    assert image.size == ((HEIGHT, WIDTH) if turns % 2 else (WIDTH, HEIGHT))
    assert close_to(image, np.rot90(scene(0), turns))


def test_colours_of_hd_video_are_those_of_players(tmp_path):
    pixels = np.full((720, 64, 3), (200, 40, 60), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
    with av.open(str(tmp_path / "hd.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, width=64, height=720)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    image = next(open_file(tmp_path / "hd.mp4").pictures).read()
    assert close_to(image, pixels, within=3)


def test_sound_is_found(tmp_path):
    assert open_file(write_clip(tmp_path / "silent.mp4")).sound is None
    sound = open_file(write_clip(tmp_path / "a: loud.mp4", sound="aac")).sound
    assert sound is not None
    assert sound.address.endswith("a: loud.mp4")


# -------------------------------------------------------------------------------------------------------------- damage


def test_truncated_file_is_read_as_far_as_it_goes(tmp_path, caplog):
    noise = np.random.default_rng(0).integers(0, 256, (30, HEIGHT, WIDTH, 3), dtype=np.uint8)
    whole = write_clip(tmp_path / "whole.mp4", frames=list(noise), options={"movflags": "faststart"}, sound="aac")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    with caplog.at_level(logging.WARNING):
        assert len(list(open_file(whole).pictures)) == 30
        assert not caplog.records
        pictures = list(open_file(tmp_path / "cut.mp4").pictures)
    assert 10 < len(pictures) < 30
    assert "cut.mp4 breaks off after" in caplog.text
    assert len(caplog.records) == 1


def test_truncated_file_without_table_of_contents(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut\.mp4: it is no video, or damaged, or cut off"):
        open_file(tmp_path / "cut.mp4")


def test_damage_in_the_middle_costs_only_what_is_damaged(tmp_path, caplog):
    content = bytearray(write_clip(tmp_path / "whole.ts", frames=40).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    (tmp_path / "hurt.ts").write_bytes(content)
    times = [picture.time for picture in open_file(tmp_path / "hurt.ts").pictures]
    assert 15 < len(times) <= 40
    assert all(later > earlier for earlier, later in pairwise(times))


def test_what_is_no_video(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "words.mp4").write_text("these are words")
    (tmp_path / "words.txt").write_text("these are words")
    for path, part in [
        (tmp_path / "empty.mp4", "0 bytes"),
        (tmp_path / "words.mp4", "it is no video"),
        (tmp_path / "words.txt", "no video"),
        (write_tone(tmp_path / "tone.m4a"), "has no video: it holds sound"),
    ]:
        with pytest.raises(UserError, match=part):
            open_file(path)


def test_cover_of_a_song_is_no_video(tmp_path):
    """A stream of one picture that is marked as a cover."""
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1, width=WIDTH, height=HEIGHT, pix_fmt="yuvj420p")
        cover.disposition = Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(scene(0), format="rgb24").reformat(format="yuvj420p")
        container.mux(cover.encode(frame))
        container.mux(cover.encode(None))
    with pytest.raises(UserError, match="has no video"):
        open_file(tmp_path / "song.mp4")


# ------------------------------------------------------------------------------------------------ addresses and cameras


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch) -> Iterator[str]:
    """Serves the files of `tmp_path`."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path))) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()


def test_address(server, tmp_path):
    write_clip(tmp_path / "a.mp4", sound="aac")
    video = open_address(f"{server}/a.mp4")
    assert len(list(video.pictures)) == 12
    assert video.sound is not None
    video.close()


def test_addresses_that_do_not_answer(server, monkeypatch):
    with pytest.raises(UserError, match=r"none\.mp4: .*404"):
        open_address(f"{server}/none.mp4")
    with pytest.raises(UserError, match="Connection refused"):
        open_address("http://127.0.0.1:1/a.mp4")
    with pytest.raises(UserError, match="Connection refused"):
        open_address("rtsp://127.0.0.1:1/a")


def test_server_that_is_silent(monkeypatch):
    import socket

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(video_decoding, "URL_TIMEOUT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(UserError, match="no answer within"):
        open_address(f"http://127.0.0.1:{silent.getsockname()[1]}/a.mp4")


def test_absent_webcam():
    with pytest.raises(UserError, match="cannot read webcam:63"):
        open_webcam("63")


@pytest.mark.parametrize(
    ("system", "address", "driver"),
    [("Linux", "/dev/video1", "v4l2"), ("Darwin", "1", "avfoundation"), ("Windows", "video=1", "dshow")],
)
def test_webcam(monkeypatch, system, address, driver):
    """A camera is a device of the system; here FFmpeg's test picture stands for it."""
    asked = []
    opened = av.open

    def camera(name: str, mode: str, *, format: str, options: dict[str, str]):
        asked.append((name, format))
        return opened("testsrc=size=64x48:rate=10", "r", format="lavfi")

    monkeypatch.setattr(video_decoding.platform, "system", lambda: system)
    monkeypatch.setattr(video_decoding.av, "open", camera)
    video = open_webcam("1")
    assert asked == [(address, driver)]
    assert (video.count, video.at_most, video.sound) == (None, None, None)
    picture = next(video.pictures)
    assert picture.read().size == (64, 48)
    assert next(video.pictures).time == pytest.approx(0.1)
    video.close()


class LiveCamera:
    """A container whose packets come after `pauses` questions each, as those of cameras that do not wait."""

    def __init__(self, container, *, pauses: int) -> None:
        self._container, self._pauses = container, pauses
        self._packets = container.demux(container.streams.video[0])
        self.asked = 0

    def demux(self, stream):
        """Ends with the error, as a generator does."""
        while True:
            self.asked += 1
            if self.asked % (self._pauses + 1):
                raise BlockingError(errno.EAGAIN, "Resource temporarily unavailable")
            yield next(self._packets)

    def __getattr__(self, name: str):
        return getattr(self._container, name)


@pytest.mark.parametrize("pauses", [0, 3])
def test_camera_that_has_no_frame_yet_is_asked_again(monkeypatch, pauses):
    opened = av.open
    monkeypatch.setattr(
        video_decoding.av,
        "open",
        lambda *_, **__: LiveCamera(opened("testsrc=size=64x48:rate=10", "r", format="lavfi"), pauses=pauses),
    )
    video = open_webcam("0")
    assert [next(video.pictures).time for _ in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    video.close()


def test_camera_that_falls_silent(monkeypatch):
    """Time passes between frames as well: only the wait for one counts."""
    opened, slept = av.open, []
    camera = LiveCamera(opened("testsrc=size=64x48:rate=10", "r", format="lavfi"), pauses=0)
    monkeypatch.setattr(video_decoding.av, "open", lambda *_, **__: camera)
    monkeypatch.setattr(video_decoding, "monotonic", lambda: sum(slept))
    monkeypatch.setattr(video_decoding, "sleep", slept.append)
    video = open_webcam("0")
    next(video.pictures)
    slept.append(60.0)
    next(video.pictures)
    camera._pauses = 10**6
    with pytest.raises(UserError, match=r"cannot read webcam:0 .*: no frame came for 10 seconds"):
        next(video.pictures)
    assert sum(slept) == pytest.approx(60 + video_decoding.SILENCE_SECONDS, abs=0.1)
    video.close()
