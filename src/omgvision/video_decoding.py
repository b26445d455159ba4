"""Video files, addresses and webcams through PyAV: pictures with the times at which they are shown."""

import itertools
import logging
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import av
from av.container import InputContainer
from av.error import ExitError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace
from av.video.stream import VideoStream
from PIL import Image

from .errors import UserError
from .inputs import URL_TIMEOUT_SECONDS

logger = logging.getLogger(__name__)

UNKNOWN_RATE = Fraction(25)
"""Frames a second where neither the source nor the user says."""

SILENCE_SECONDS, RETRY_SECONDS = 10.0, 0.01
"""How long a camera may have nothing to give, and after how long it is asked again."""

_BT709, _UNKNOWN_COLORS = 1, 2  # of FFmpeg's colour spaces
_HD_LINES = 720


@dataclass(frozen=True, eq=False)
class Picture:
    """A frame that is decoded but perhaps not yet RGB: skipping it costs nothing more.

    Attributes:
        read: makes the upright RGB image.
        time: seconds; those of one video rise.
        name: of the file that it comes from (without ending), "" for videos.
    """

    read: Callable[[], Image.Image]
    time: float
    name: str = ""


@dataclass(frozen=True, eq=False)
class Sound:
    """Where the sound of a video is.

    Attributes:
        address: file or URL, as PyAV takes it.
        origin: seconds in its own time at which the first frame is shown.
    """

    address: str
    origin: float


@dataclass(frozen=True, eq=False)
class Decoded:
    """A video that is open.

    Attributes:
        pictures: all of it, times counted from the first.
        rate: mean frames a second, if it is known.
        count: about how many frames there are; None where nobody knows.
        at_most: how many there are at most; None where nobody knows.
        sound: None without.
        close: lets the file, the connection or the camera go.
    """

    pictures: Iterator[Picture]
    rate: Fraction | None
    count: int | None
    at_most: int | None
    sound: Sound | None
    close: Callable[[], None]


def open_file(path: Path) -> Decoded:
    """Raises UserError: the file cannot be read or has no video."""
    if path.stat().st_size == 0:
        raise UserError(f"cannot read {path}: the file is empty (0 bytes), expected a video")
    # The prefix keeps names with a colon from being taken for addresses.
    return _open(f"file:{path}", told=str(path))


def open_address(url: str) -> Decoded:
    """Raises UserError: no answer, or no video."""
    return _open(url, told=url, timeout=(URL_TIMEOUT_SECONDS, URL_TIMEOUT_SECONDS))


def open_webcam(device: str) -> Decoded:
    """A camera by its number; on Windows by its name.

    Raises:
        UserError: there is no such camera, or it may not be used.
    """
    system = platform.system()
    if system == "Linux":
        address, driver = (f"/dev/video{device}" if device.isdigit() else device), "v4l2"
    elif system == "Darwin":
        address, driver = device, "avfoundation"
    else:
        address, driver = f"video={device}", "dshow"
    options = {"framerate": "30"} if driver == "avfoundation" else {}  # whose own choice few cameras accept
    told = f"webcam:{device} (is it connected? webcam:0 is the first; on Windows give its name)"
    return _open(address, told=told, format=driver, options=options)


def _open(address: str, *, told: str, **how: Any) -> Decoded:
    """Whatever PyAV opens; `told` is what to call it in a message."""
    try:
        container = av.open(address, "r", **how)
    except (FFmpegError, ValueError) as error:
        raise UserError(f"cannot read {told}: {_reason(error)}") from None
    try:
        stream = _video_stream(container, told)
        rate = stream.average_rate or stream.guessed_rate
        end = _end(stream)
        seconds = None if end is None else end - _start(stream)
        if seconds is None and container.duration is not None:
            seconds = container.duration / av.time_base
        pictures = _decode(container, stream, rate=rate or UNKNOWN_RATE, told=told)
        first = next(pictures, None)
        if first is None:
            raise UserError(f"{told} has no frames that can be decoded: expected at least one")
    except BaseException:
        container.close()
        raise
    heard = container.streams.audio and container.duration is not None  # what has no end is heard only once
    return Decoded(
        pictures=_from_zero(first, pictures),
        rate=rate,
        count=stream.frames or (round(seconds * rate) if seconds and rate else None),
        at_most=stream.frames or None,
        sound=Sound(address, first.time) if heard else None,
        close=container.close,
    )


def _from_zero(first: Picture, others: Iterator[Picture]) -> Iterator[Picture]:
    for picture in itertools.chain([first], others):
        yield Picture(picture.read, picture.time - first.time)


def _video_stream(container: InputContainer, told: str) -> VideoStream:
    # Covers of songs are video streams of one picture; a text file is "video" for FFmpeg as well.
    streams = [each for each in container.streams.video if not each.disposition & Disposition.attached_pic]
    if not streams or container.format.name == "tty":
        sound = "sound" if container.streams.audio else "no pictures"
        raise UserError(f"{told} has no video: it holds {sound}, expected a video file")
    best = container.streams.best("video")
    stream = next((each for each in streams if each is best), streams[0])
    if stream.codec_context is None:
        raise UserError(f"cannot decode the video of {told}: its codec is not known to PyAV {av.__version__}")
    stream.thread_type = "AUTO"
    return stream


def _decode(container: InputContainer, stream: VideoStream, *, rate: Fraction, told: str) -> Iterator[Picture]:
    """All frames that can be decoded, with rising times; what is missing is one warning at the end."""
    packets = _packets(container, stream, told=told)
    time, damaged, broken = None, 0, ""
    while True:
        try:
            packet = next(packets, None)
        except FFmpegError as error:
            broken, packet = _reason(error), None
        try:
            frames = stream.decode(None) if packet is None else packet.decode()
        except FFmpegError:  # the next packets may be sound
            damaged += packet is not None
            frames = []
        for frame in frames:
            own = frame.time
            # Some containers have no times, damaged ones may go back.
            time = own if own is not None and (time is None or own > time) else (time or 0.0) + float(1 / rate)
            yield Picture(lambda frame=frame: _upright(frame), time)
        if packet is None:
            break
    if time is None:
        return
    start, end = _start(stream), _end(stream)
    if not broken and end is not None and time < end - max(0.1, float(2.5 / rate)):
        broken = f"{end - start:.1f} seconds were expected"
    if broken:
        logger.warning("%s breaks off after %.1f seconds (%s): what is there is used", told, time - start, broken)
    if damaged:
        logger.warning("%s is damaged: %d pieces of it could not be decoded and are left out", told, damaged)


def _packets(container: InputContainer, stream: VideoStream, *, told: str) -> Iterator[Packet]:
    """The packets of a stream. A camera that has none yet is asked again.

    Raises:
        UserError: it has none for `SILENCE_SECONDS`.
    """
    packets, heard = container.demux(stream), monotonic()
    while True:
        try:
            packet = next(packets, None)
        except BlockingIOError:
            if monotonic() - heard > SILENCE_SECONDS:
                raise UserError(f"cannot read {told}: no frame came for {SILENCE_SECONDS:g} seconds") from None
            sleep(RETRY_SECONDS)
            packets = container.demux(stream)  # the error has ended the old one
        else:
            if packet is None:
                return
            yield packet
            heard = monotonic()


def _upright(frame: VideoFrame) -> Image.Image:
    quarters = round(frame.rotation / 90) % 4
    # What does not say how its colours are coded is taken as players take it: by BT.709 from 720 lines on.
    coding = _BT709 if frame.colorspace == _UNKNOWN_COLORS and frame.height >= _HD_LINES else frame.colorspace
    image: Image.Image = frame.to_image(src_colorspace=Colorspace.ITU709 if coding == _BT709 else None)
    turns = {1: Image.Transpose.ROTATE_90, 2: Image.Transpose.ROTATE_180, 3: Image.Transpose.ROTATE_270}
    return image.transpose(turns[quarters]) if quarters else image


def _start(stream: VideoStream) -> float:
    return float((stream.start_time or 0) * (stream.time_base or 0))


def _end(stream: VideoStream) -> float | None:
    """When the stream ends, in seconds of its own time: by its header, or by the tag that Matroska's writers leave."""
    if stream.duration is not None and stream.time_base is not None:
        return _start(stream) + float(stream.duration * stream.time_base)
    found = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if found is None:
        return None
    hours, minutes, seconds = (float(part) for part in found.groups())
    return 3600 * hours + 60 * minutes + seconds


def _reason(error: Exception) -> str:
    if isinstance(error, ExitError):  # FFmpeg's word for a time-out
        return f"no answer within {URL_TIMEOUT_SECONDS:.0f} seconds"
    if isinstance(error, InvalidDataError):
        return "it is no video, or damaged, or cut off before its table of contents"
    text = error.strerror if isinstance(error, FFmpegError) and error.strerror else str(error)
    return " ".join(text.split())
