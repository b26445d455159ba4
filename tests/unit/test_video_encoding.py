"""The mp4 that is written: pictures, times, sound, and that it is whole whenever writing ends."""

import logging
from fractions import Fraction
from typing import Literal

import av
import numpy as np
import pytest
from av.codec.codec import UnknownCodecError
from PIL import Image

from omgvision import video_encoding
from omgvision.errors import UserError
from omgvision.video_decoding import Sound
from omgvision.video_encoding import Mp4Writer
from omgvision.video_inputs import open_video
from tests.clips import PITCH, read_clip, read_tone, scene, write_clip


def copy(source, target, *, frames: int | None = None) -> None:
    with open_video(source, limit=frames) as video:
        writer = Mp4Writer(target, rate=video.rate, sound=video.sound)
        for frame in video:
            writer.write(frame.image, time=frame.time)
        assert writer.close() == [target]


def pitch(samples: np.ndarray, rate: int) -> float:
    """The strongest frequency."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def test_pictures_and_times(tmp_path):
    times = [0.0, 0.04, 0.3, 0.31, 1.0, 1.5]
    writer = Mp4Writer(tmp_path / "new" / "a.mp4", rate=Fraction(10), sound=None)
    for index, time in enumerate(times):
        writer.write(Image.fromarray(scene(index)), time=time)
    assert [path.suffix for path in (tmp_path / "new").iterdir()] == [".partial"]
    assert writer.close() == [tmp_path / "new" / "a.mp4"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.mp4"]
    pictures, read = read_clip(tmp_path / "new" / "a.mp4")
    assert read == pytest.approx(times, abs=1e-4)
    for index, picture in enumerate(pictures):
        assert np.abs(picture.astype(float) - scene(index)).mean() < 6
    with av.open(str(tmp_path / "new" / "a.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(60)])
def test_times_of_usual_rates_are_kept_exactly(tmp_path, rate):
    writer = Mp4Writer(tmp_path / "a.mp4", rate=rate, sound=None)
    for index in range(5):
        writer.write(Image.fromarray(scene(index)), time=float(index / rate))
    writer.close()
    with av.open(str(tmp_path / "a.mp4")) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    assert times == [index / rate for index in range(5)]


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (64, 47)])
def test_odd_sizes_get_one_more_column_or_row(tmp_path, size):
    writer = Mp4Writer(tmp_path / "a.mp4", rate=None, sound=None)
    writer.write(Image.new("RGB", size, (200, 40, 60)), time=0)
    writer.close()
    (picture,), _ = read_clip(tmp_path / "a.mp4")
    assert picture.shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    assert np.abs(picture.astype(float) - (200, 40, 60)).max() < 12


def test_times_that_do_not_rise_still_make_a_file(tmp_path):
    writer = Mp4Writer(tmp_path / "a.mp4", rate=None, sound=None)
    for time in (0.0, 0.0, 1.0, 0.5):
        writer.write(Image.fromarray(scene(0)), time=time)
    writer.close()
    assert len(read_clip(tmp_path / "a.mp4")[0]) == 4


def test_nothing_without_pictures(tmp_path):
    assert Mp4Writer(tmp_path / "new" / "a.mp4", rate=None, sound=None).close() == []
    assert list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------------------------------------------- sound


@pytest.mark.parametrize(
    ("name", "codec", "sound", "expected"),
    [
        ("a.mp4", "libx264", "aac", "aac"),
        ("a.ts", "libx264", "aac", "aac"),
        ("a.avi", "mpeg4", "libmp3lame", "mp3"),
        ("a.mkv", "libx264", "pcm_s16le", "aac"),
    ],
)
def test_sound_is_copied_or_encoded_anew(tmp_path, name, codec, sound, expected):
    copy(write_clip(tmp_path / name, codec=codec, sound=sound), tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name.removesuffix("float") == expected
    samples, rate, start = read_tone(tmp_path / "out.mp4")
    assert len(samples) / rate == pytest.approx(1.2, abs=0.06)
    assert start == pytest.approx(0, abs=0.05)
    assert pitch(samples, rate) == pytest.approx(PITCH, abs=3)


@pytest.mark.parametrize("sound", ["aac", "pcm_s16le"])
def test_sound_stays_with_the_pictures(tmp_path, sound):
    """The pictures begin two seconds after the sound, whose tone is heard from their third second on."""
    source = write_clip(
        tmp_path / "late.mkv",
        frames=20,
        times=[2 + index / 10 for index in range(20)],
        sound=sound,
        tone_from=3.0,
    )
    copy(source, tmp_path / "out.mp4")
    _, times = read_clip(tmp_path / "out.mp4")
    samples, rate, start = read_tone(tmp_path / "out.mp4")
    assert times[0] == 0
    assert start + np.flatnonzero(np.abs(samples) > 0.1)[0] / rate == pytest.approx(1.0, abs=0.06)
    assert start + len(samples) / rate == pytest.approx(2.0, abs=0.06)


def test_sound_ends_with_the_pictures(tmp_path):
    copy(write_clip(tmp_path / "a.mp4", frames=40, sound="aac"), tmp_path / "out.mp4", frames=10)
    samples, rate, _ = read_tone(tmp_path / "out.mp4")
    assert len(samples) / rate == pytest.approx(1.0, abs=0.06)


def test_sound_that_cannot_be_read_costs_only_itself(tmp_path, caplog):
    writer = Mp4Writer(tmp_path / "a.mp4", rate=None, sound=Sound(str(tmp_path / "none.mp4"), 0.0))
    with caplog.at_level(logging.WARNING):
        writer.write(Image.fromarray(scene(0)), time=0)
    writer.close()
    assert len(read_clip(tmp_path / "a.mp4")[0]) == 1
    assert "the mp4 is silent" in caplog.text


def test_sound_of_a_truncated_file(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    whole = write_clip(tmp_path / "a.mp4", frames=list(noise), options={"movflags": "faststart"}, sound="aac")
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    copy(tmp_path / "cut.mp4", tmp_path / "out.mp4")
    assert len(read_clip(tmp_path / "out.mp4")[0]) > 10
    assert len(read_tone(tmp_path / "out.mp4")[0])


# ------------------------------------------------------------------------------------------------------------- without


def test_without_x264_it_is_mpeg4(tmp_path, monkeypatch, caplog):
    known = video_encoding.Codec

    def codec(name: str, mode: Literal["r", "w"]):
        if name == "libx264":
            raise UnknownCodecError(name)
        return known(name, mode)

    monkeypatch.setattr(video_encoding, "Codec", codec)
    with caplog.at_level(logging.WARNING):
        copy(write_clip(tmp_path / "a.mp4", sound="aac"), tmp_path / "out.mp4")
    assert "cannot write H.264" in caplog.text
    pictures, times = read_clip(tmp_path / "out.mp4")
    assert times == pytest.approx([index / 10 for index in range(12)], abs=1e-4)
    assert np.abs(pictures[3].astype(float) - scene(3)).mean() < 8


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a folder"):
        Mp4Writer(tmp_path / "file" / "a.mp4", rate=None, sound=None).write(Image.fromarray(scene(0)), time=0)
