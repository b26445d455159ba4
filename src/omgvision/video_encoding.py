"""Pictures to an mp4 that plays everywhere, with the times and the sound of the video that they come from."""

import logging
import os
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.codec import Codec
from av.codec.codec import UnknownCodecError
from av.container import OutputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from PIL import Image

from .errors import UserError
from .inputs import URL_TIMEOUT_SECONDS
from .output_files import ensure_writable
from .video_decoding import UNKNOWN_RATE, Sound

logger = logging.getLogger(__name__)

TICKS = 60_000
"""A second in the times of the mp4: whole numbers for 24, 25, 30, 50, 60 and 30000/1001 frames a second and for
milliseconds, and few enough for MPEG-4 (at most 65,535)."""
COPIED_SOUND = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
"""Codecs that players expect in an mp4; other sound becomes AAC."""
_LAYOUTS = {1: "mono", 6: "5.1", 8: "7.1"}  # of channels; all others become stereo
_BT709, _LIMITED = 1, 1  # of FFmpeg's colour spaces, primaries and transfers; of its ranges


class Mp4Writer:
    """Writes pictures as H.264 (yuv420p) under a temporary name, which becomes `path` when it is closed.

    Pictures of odd width or height get one more column or row, which the format wants: a copy of the last. Where FFmpeg
    was built without x264, the pictures become MPEG-4 part 2.
    """

    def __init__(self, path: Path, *, rate: Fraction | None, sound: Sound | None) -> None:
        """Nothing is opened before the first picture.

        Args:
            path: of the mp4.
            rate: about how many pictures a second, for the encoder.
            sound: copied as far as the pictures go; what mp4 cannot hold is encoded anew.
        """
        self.path = path
        self._rate = rate or UNKNOWN_RATE
        self._sound = sound
        self._encoder: _Encoder | None = None

    def write(self, image: Image.Image, *, time: float) -> None:
        """Append a picture that is shown at `time`, in seconds; times rise.

        Raises:
            UserError: the file cannot be written.
        """
        try:
            if self._encoder is None:
                self._encoder = _Encoder(self.path, image.size, rate=self._rate, sound=self._sound)
            self._encoder.write(image, time)
        except (FFmpegError, OSError) as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from None

    def close(self) -> list[Path]:
        """Finish the file; it is playable, however many pictures it has. Without any there is none."""
        if self._encoder is None:
            return []
        encoder, self._encoder = self._encoder, None
        try:
            encoder.close()
        except (FFmpegError, OSError) as error:
            raise UserError(f"cannot write {self.path}: {error.strerror or error}") from None
        return [self.path]


class _Encoder:
    """An mp4 that is open under a temporary name."""

    def __init__(self, path: Path, size: tuple[int, int], *, rate: Fraction, sound: Sound | None) -> None:
        ensure_writable(path.parent)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        self._path, self._partial = path, Path(name)
        self._last = -1
        try:
            try:
                self._begin(size, rate, sound)
            except FFmpegError as error:
                if sound is None:
                    raise
                logger.warning("the sound of the video cannot be copied (%s): the mp4 is silent", error.strerror)
                self._begin(size, rate, None)
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise
        self._shown = float(1 / rate)

    def _begin(self, size: tuple[int, int], rate: Fraction, sound: Sound | None) -> None:
        # The table of contents goes to the front, so that the file plays while it is being downloaded.
        self._container = av.open(f"file:{self._partial}", "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = _add_video(self._container, size, rate)
        self._sound = None if sound is None else _SoundCopy(sound, self._container)

    def write(self, image: Image.Image, time: float) -> None:
        ticks = max(round(time * TICKS), self._last + 1)
        if self._last >= 0:
            self._shown = (ticks - self._last) / TICKS
        self._last = ticks
        frame = VideoFrame.from_ndarray(_even(np.asarray(image.convert("RGB"))), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=_LIMITED)
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))
        self._hear(time)

    def close(self) -> None:
        try:
            self._hear(self._last / TICKS + self._shown)  # the last picture is shown as long as the one before
            if self._sound is not None:
                self._sound.close()
            self._container.mux(self._stream.encode(None))
            self._container.close()
            umask = os.umask(0)
            os.umask(umask)
            self._partial.chmod(0o666 & ~umask)  # mkstemp's files are private
            os.replace(self._partial, self._path)
        except BaseException:
            self._partial.unlink(missing_ok=True)
            raise

    def _hear(self, until: float) -> None:
        """Sound that breaks off must not cost the pictures."""
        try:
            if self._sound is not None:
                self._sound.copy(until=until)
        except FFmpegError as error:
            logger.warning("the sound of the video breaks off before %.1f seconds (%s)", until, error.strerror)
            self._sound = None


def _add_video(container: OutputContainer, size: tuple[int, int], rate: Fraction) -> VideoStream:
    try:
        codec, options = Codec("libx264", "w").name, {"preset": "veryfast", "crf": "20"}
    except UnknownCodecError:
        codec, options = "mpeg4", {"qscale": "4"}
        logger.warning("this PyAV cannot write H.264: the mp4 is MPEG-4 part 2, which browsers do not play")
    stream = container.add_stream(codec, rate=rate, options=options)
    assert isinstance(stream, VideoStream)
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"
    context = stream.codec_context
    context.time_base = Fraction(1, TICKS)
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED
    return stream


def _even(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return pixels


class _SoundCopy:
    """The sound of a video, a piece at a time: it is read once more, beside the pictures."""

    def __init__(self, sound: Sound, output: OutputContainer) -> None:
        """Raises FFmpegError: it cannot be read, or mp4 cannot hold it."""
        self._output = output
        self._input = av.open(sound.address, "r", timeout=(URL_TIMEOUT_SECONDS, URL_TIMEOUT_SECONDS))
        source = self._input.streams.audio[0]
        self._encoded: AudioStream | None = None
        if source.codec_context.name.removesuffix("float") in COPIED_SOUND:  # FFmpeg decodes mp3 by "mp3float"
            self._stream = output.add_stream_from_template(source)
        else:
            layout = _LAYOUTS.get(source.layout.nb_channels, "stereo")
            self._stream = self._encoded = output.add_stream("aac", rate=source.rate, layout=layout)
        self._pieces = self._read(source, sound.origin)
        self._next = next(self._pieces, None)

    def copy(self, *, until: float) -> None:
        """What is heard before `until`, in seconds of the pictures."""
        while self._next is not None and self._next[0] < until:
            self._output.mux(self._next[1])
            self._next = next(self._pieces, None)

    def close(self) -> None:
        if self._encoded is not None:
            self._output.mux(self._encoded.encode(None))
        self._input.close()

    def _read(self, source: AudioStream, origin: float) -> Iterator[tuple[float, list[Packet]]]:
        """Pieces and when they are heard. What is heard before the first picture is left out."""
        for packet in self._input.demux(source):
            if packet.dts is None or packet.pts is None or packet.is_corrupt:  # the mark of the end, half a piece
                continue
            assert packet.time_base is not None
            if float((packet.pts + (packet.duration or 0)) * packet.time_base) <= origin:
                continue
            shift = round(origin / packet.time_base)
            if self._encoded is None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = self._stream
                yield float(packet.dts * packet.time_base), [packet]
                continue
            for frame in packet.decode():
                if frame.pts is not None and frame.time_base is not None:
                    frame.pts -= round(origin / frame.time_base)
                yield frame.time or 0.0, self._encoded.encode(frame)
