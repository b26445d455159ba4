"""Tiny videos for tests, written with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

WIDTH, HEIGHT = 64, 48
TICKS = 1000
PITCH, SOUND_RATE = 440, 44_100


def scene(index: int, *, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Left half red, right half black, top left corner green, and a white square that moves: uint8 [H, W, 3]."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2] = (220, 20, 20)
    pixels[: height // 4, : width // 4] = (20, 220, 20)
    left = 2 * index % (width - 12)
    pixels[height // 2 : height // 2 + 12, left : left + 12] = 255
    return pixels


def write_clip(
    path: Path,
    *,
    frames: int | Sequence[np.ndarray] = 12,
    rate: int = 10,
    times: Sequence[float] | None = None,
    codec: str = "libx264",
    sound: str | None = None,
    tone_from: float = 0.0,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of `scene`s, or of given frames uint8 [H, W, 3], with a tone.

    Args:
        path: its ending says the container.
        times: when frames are shown, in seconds; by default `rate` of them a second.
        sound: codec of the tone; None for silence.
        tone_from: seconds of silence before it; it ends with the pictures.
        rotation: degrees counter-clockwise that a player turns the frames by.
        options: of the container.
    """
    pictures = [scene(index) for index in range(frames)] if isinstance(frames, int) else frames
    times = [index / rate for index in range(len(pictures))] if times is None else times
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=rate)
        assert isinstance(video, VideoStream)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, TICKS)
        if rotation:
            video.set_display_rotation(rotation)
        tone = None if sound is None else container.add_stream(sound, rate=SOUND_RATE)
        for pixels, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time * TICKS), Fraction(1, TICKS)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if isinstance(tone, AudioStream):
            samples = np.arange(int((times[-1] + 1 / rate) * SOUND_RATE)) / SOUND_RATE
            wave = (0.3 * np.sin(2 * np.pi * PITCH * samples) * (samples >= tone_from)).astype(np.float32)
            for start in range(0, len(wave) - 1023, 1024):
                block = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
                container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    return path


def write_tone(path: Path) -> Path:
    """A file with sound and no pictures."""
    with av.open(str(path), "w") as container:
        tone = container.add_stream("aac", rate=SOUND_RATE)
        assert isinstance(tone, AudioStream)
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = SOUND_RATE, 0, Fraction(1, SOUND_RATE)
        container.mux(tone.encode(block))
        container.mux(tone.encode(None))
    return path


def read_clip(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """Pictures uint8 [H, W, 3] and times of a video."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    return [frame.to_ndarray(format="rgb24") for frame in frames], [float(frame.time or 0) for frame in frames]


def read_tone(path: Path) -> tuple[np.ndarray, int, float]:
    """The sound of a video: samples [S] of the first channel, samples a second, and when it starts."""
    with av.open(str(path)) as container:
        blocks = list(container.decode(audio=0))
    samples = np.concatenate([block.to_ndarray()[0] for block in blocks])
    return samples, blocks[0].sample_rate, float(blocks[0].time or 0)
