"""Everything that can be tracked, as frames one by one: videos, folders of pictures, addresses, webcams, arrays."""

import glob
import itertools
import math
import os
import re
import urllib.parse
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .errors import UserError
from .inputs import IMAGE_SUFFIXES, ImageSource, load_image
from .results import FrameStamp
from .video_decoding import UNKNOWN_RATE, Decoded, Picture, Sound, open_address, open_file, open_webcam

WEBCAM = "webcam"
URL_SCHEMES = frozenset({"http", "https", "rtsp"})
_MOVING_SUFFIXES = frozenset({".gif"})  # pictures that are videos
_GLOB_CHARACTERS = frozenset("*?[")
_EXIF_ORIENTATION = 0x0112
_LYING = frozenset({5, 6, 7, 8})  # EXIF orientations that swap width and height


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video.

    Attributes:
        image: upright RGB.
        index: from 0, counted over all frames of the video, those that are left out included.
        time: seconds since the first frame.
        name: of the picture that it comes from (without ending), "" for videos.
    """

    image: Image.Image
    index: int
    time: float
    name: str = ""

    @property
    def stamp(self) -> FrameStamp:
        """What a `Result` keeps of it."""
        return FrameStamp(self.index, self.time, self.name)


class VideoSource:
    """The frames of a video, decoded one by one when they are asked for; nothing is kept. Can be gone through once.

    Attributes:
        name: of the file, folder or address, without ending.
        size: (height, width) of every frame, upright.
        rate: mean frames a second of the source (before any are left out); None where it is not known.
        length: how many frames there will be, as far as the source says; None for streams.
        sound: of the source; None without.
        reads: what is read from the disk: the video file, or the folders of the frames.
    """

    def __init__(
        self,
        pictures: Iterator[Picture],
        *,
        name: str,
        rate: Fraction | None,
        count: int | None,
        at_most: int | None,
        every: int,
        limit: int | None,
        sound: Sound | None = None,
        reads: frozenset[Path] = frozenset(),
        close: Callable[[], None] = lambda: None,
    ) -> None:
        """Decodes the first frame.

        Args:
            pictures: all frames.
            name, rate: see above.
            count: how many there are, or about how many; None if nobody knows.
            at_most: how many there are at most; None if nobody knows.
            every, limit: see `open_video`.
            sound, reads: see above.
            close: frees what `pictures` reads from.
        Raises:
            UserError: there is no frame, or the first cannot be decoded.
        """
        self.name = name
        self.rate = rate
        self.sound = sound
        self.reads = reads
        self._every, self._limit, self._at_most = every, limit, at_most
        self._close = close
        self._iterated = False
        if count is not None:
            count = math.ceil(count / every)
            count = count if limit is None else min(count, limit)
        self.length = count
        self._frames = self._read(pictures)
        try:
            first = next(self._frames, None)
            if first is None:
                raise UserError(f"{name} has no frames: expected at least one")
        except BaseException:
            close()
            raise
        self._first = first
        self.size = (first.image.height, first.image.width)

    def __iter__(self) -> Iterator[Frame]:
        if self._iterated:
            raise UserError(f"the frames of {self.name} have been read: open the video again")
        self._iterated = True
        return itertools.chain([self._first], self._frames)

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the file, the connection or the camera go."""
        self._frames.close()
        self._close()

    def expect(self, index: int) -> None:
        """Raise a `UserError` if it is clear already that frame `index` will not be among the frames."""
        if index < 0 or (self._at_most is not None and index >= self._at_most):
            count = "" if self._at_most is None else f" of 0 to {self._at_most - 1}"
            raise UserError(f"{self.name} has no frame {index}: expected one{count} (the first is 0)")
        if index % self._every:
            raise UserError(f"frame {index} is left out: only every {self._every}th is looked at, counted from 0")
        if self._limit is not None and index // self._every >= self._limit:
            raise UserError(
                f"frame {index} comes after the last of {self._limit} frames that are looked at: raise the limit"
            )

    def _read(self, pictures: Iterator[Picture]) -> Generator[Frame, None, None]:
        size = None
        for index, picture in enumerate(itertools.islice(pictures, self._last)):
            if index % self._every:
                continue
            image = picture.read()
            size = image.size if size is None else size
            if image.size != size:
                raise UserError(
                    f"{self.name}: frame {index} has {image.width}x{image.height} pixels, expected {size[0]}x{size[1]}"
                    " as in the first: frames of one video have one size"
                )
            yield Frame(image, index, picture.time, picture.name)

    @property
    def _last(self) -> int | None:
        """How many frames of the source are needed; None for all."""
        return None if self._limit is None else (self._limit - 1) * self._every + 1


VideoInput = str | os.PathLike[str] | np.ndarray | Tensor | VideoSource | Iterable[ImageSource | Frame]


def open_video(
    source: VideoInput, *, every: int = 1, limit: int | None = None, rate: Fraction | float | None = None
) -> VideoSource:
    """Open a video and decode its first frame.

    Args:
        source: a video file, in any container and codec that PyAV reads; a folder of pictures or a pattern such as
            `"frames/*.jpg"`, in natural order (2 before 10); an address (http, https, rtsp), which may be a stream
            without end; "webcam:0", "webcam:1", …; an array [T, H, W, 3] or a tensor [T, 3, H, W]; any iterable of
            pictures (arrays, tensors, PIL images, file names), which may be endless; or an open `VideoSource`, which
            is returned as it is.
        every: look at every n-th frame only.
        limit: stop after so many frames.
        rate: frames a second of pictures and arrays, by default 25. Videos bring their own times.

    Returns:
        The frames, turned upright as the file's rotation says, with the times at which they are shown.

    Raises:
        UserError: there is no such source, no video in it, no frame; or an argument is not as described. While it is
            read: a frame has another size, or a picture cannot be read. A video that breaks off is read as far as it
            goes, with a warning.
    """
    if isinstance(source, VideoSource):
        return source
    if every < 1:
        raise UserError(f"every must be 1 or more, got {every}")
    if limit is not None and limit < 1:
        raise UserError(f"limit must be 1 or more, got {limit}")
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise UserError(f"rate must be positive, got {rate}")
    opener = _Opener(every, limit, None if rate is None else Fraction(rate).limit_denominator(1001))
    if isinstance(source, str | os.PathLike):
        return opener.text(os.fspath(source))
    if isinstance(source, np.ndarray | Tensor) and source.ndim != 4:
        raise UserError(
            f"cannot read a video from an array of shape {list(source.shape)}: expected [T, H, W, 3]"
            " (a tensor [T, 3, H, W])"
        )
    if isinstance(source, Iterable):
        return opener.iterable(source)
    raise UserError(
        f"cannot read a video from {type(source).__name__}: expected a file, folder, pattern, address, webcam:0,"
        " array [T, H, W, 3] or an iterable of pictures"
    )


@dataclass(frozen=True)
class _Opener:
    """The arguments of `open_video`, checked, and the kinds of sources."""

    every: int
    limit: int | None
    rate: Fraction | None

    def text(self, text: str) -> VideoSource:
        if not text.strip():
            raise UserError("the video's path is empty: expected a file, a folder, a pattern, an address or webcam:0")
        kind, _, device = text.partition(":")
        if kind == WEBCAM:
            return self.decoded(open_webcam, device or "0", name=WEBCAM)
        if "://" in text:
            scheme = text.split("://", 1)[0].lower()
            if scheme not in URL_SCHEMES:
                raise UserError(f"cannot read {text}: expected an http, https or rtsp address, got {scheme}://")
            return self.decoded(open_address, text, name=_url_name(text))
        path = Path(text).expanduser()
        try:
            if path.is_dir():
                paths = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
                return self.pictures(paths, told=f"the folder {path}")
            if path.exists():
                if path.suffix.lower() in IMAGE_SUFFIXES - _MOVING_SUFFIXES:
                    return self.pictures([path], told=str(path), name=path.stem)
                return self.decoded(open_file, path, name=path.stem, reads=frozenset({path}))
        except OSError as error:
            raise UserError(f"cannot read {text[:200]}: {error.strerror or error}") from None
        if _GLOB_CHARACTERS & set(text):
            matches = [Path(match) for match in glob.glob(str(path), recursive=True)]
            return self.pictures(matches, told=f"the pattern {text!r}")
        raise UserError(
            f"{text[:200]} does not exist: expected a video, a folder of frames, a pattern, an address or webcam:0"
        )

    def decoded(
        self, opener: Callable[[Any], Decoded], what: Any, *, name: str, reads: frozenset[Path] = frozenset()
    ) -> VideoSource:
        if self.rate is not None:
            raise UserError(f"{what} has times of its own: a rate belongs to pictures, leave it out")
        video = opener(what)
        return self._source(
            video.pictures,
            name=name,
            rate=video.rate,
            count=video.count,
            at_most=video.at_most,
            sound=video.sound,
            reads=reads,
            close=video.close,
        )

    def pictures(self, paths: Sequence[Path], *, told: str, name: str = "") -> VideoSource:
        """Files in natural order. Their sizes are compared at once: an hour's work should not end at the last frame."""
        files = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]
        if not files:
            raise UserError(f"{told} holds no frames: expected pictures such as .jpg or .png, or name a video file")
        files.sort(key=lambda path: _natural(str(path)))
        used = files[:: self.every][: self.limit]
        expected = _size_in_header(used[0])
        for path in used[1:]:
            size = _size_in_header(path)
            if size is not None and expected is not None and size != expected:
                raise UserError(
                    f"{path} has {size[0]}x{size[1]} pixels, expected {expected[0]}x{expected[1]} as in {used[0].name}:"
                    " frames of one video have one size"
                )
        rate = self.rate or UNKNOWN_RATE
        unique = len({path.stem for path in files}) == len(files)  # those of a pattern may come from several folders
        pictures = (
            Picture(lambda path=path: load_image(path), float(index / rate), path.stem if unique else "")
            for index, path in enumerate(files)
        )
        name = name or files[0].parent.resolve().name
        folders = frozenset(path.parent for path in files)
        return self._source(pictures, name=name, rate=rate, count=len(files), at_most=len(files), reads=folders)

    def iterable(self, items: Iterable[Any]) -> VideoSource:
        rate = self.rate or UNKNOWN_RATE

        def pictures() -> Iterator[Picture]:
            for index, item in enumerate(items):
                if isinstance(item, Frame):
                    yield Picture(lambda item=item: item.image, item.time, item.name)
                else:
                    name = Path(item).stem if isinstance(item, str | os.PathLike) else ""
                    yield Picture(lambda item=item: load_image(item), float(index / rate), name)

        count = len(items) if isinstance(items, Sequence | np.ndarray | Tensor) else None
        return self._source(pictures(), name="video", rate=rate, count=count, at_most=count)

    def _source(self, pictures: Iterator[Picture], **about: Any) -> VideoSource:
        return VideoSource(pictures, every=self.every, limit=self.limit, **about)


def _size_in_header(path: Path) -> tuple[int, int] | None:
    """(width, height), upright; None where the file cannot be read, which `load_image` says better."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(_EXIF_ORIENTATION) in _LYING else (width, height)
    except Exception:  # Pillow raises almost anything on damaged files
        return None


def _natural(text: str) -> list[tuple[int, str]]:
    """Sorts "frame2" before "frame10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", text)]


def _url_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return Path(urllib.parse.unquote(parts.path)).stem or parts.hostname or "video"
