"""Results of a video to files: an mp4, pictures of every frame, and what the benchmarks of videos read.

Nothing grows with the length of the video, and what is finished early (Ctrl-C) is complete as far as it goes.
"""

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from PIL import Image

from .errors import UserError
from .output_files import ensure_writable, write_image
from .results import Result
from .video_annotations import MotsWriter, VipSegWriter, YouTubeVisWriter, stamp_of
from .video_decoding import Sound
from .video_encoding import Mp4Writer

logger = logging.getLogger(__name__)

VideoFormat = Literal["mp4", "png", "youtube-vis", "vipseg", "vspw", "davis", "mots"]
VIDEO_FORMATS: tuple[VideoFormat, ...] = get_args(VideoFormat)
DAVIS_VOID = 255
MAX_DAVIS_ID = DAVIS_VOID - 1


class VideoWriter(Protocol):
    """One kind of file."""

    def write(self, result: Result) -> None:
        """Append a frame; frames come in order.

        Raises:
            UserError: the files cannot be written.
        """
        ...

    def close(self) -> list[Path]:
        """Finish, and tell what was written: files, or the folder of many. Nothing, if there was no frame."""
        ...


class VideoOutputs:
    """Several writers as one. As a context it closes them, whatever happens inside: what was done is kept.

    Attributes:
        written: files and folders, after `close`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        formats: Sequence[VideoFormat],
        name: str,
        rate: Fraction | None = None,
        sound: Sound | None = None,
        category_ids: Sequence[int] | None = None,
        reads: Iterable[Path] = (),
    ) -> None:
        """Touches nothing before the first frame.

        Args:
            folder: where the files go; it is made if need be.
            formats: "mp4" → overlay.mp4; "png" → frames/00000.png, …, the same pictures; "youtube-vis" →
                youtube_vis/results.json and annotations.json; "vipseg" → vipseg/pred.json and vipseg/pan_pred/NAME/;
                "vspw" → vspw/NAME/00000.png, …, classes; "davis" → davis/NAME/00000.png, …, ids of objects;
                "mots" → mots/NAME.txt.
            name: of the video, NAME above.
            rate, sound: of the video, for the mp4.
            category_ids: the benchmark's numbers of the result's categories. None counts them: from 1 for
                YouTube-VIS and MOTS, from 0 for VIPSeg.
            reads: where the video comes from (`VideoSource.reads`), which must stay as it is.
        Raises:
            UserError: the folder cannot be written to, or the video comes from where results go.
        """
        ensure_writable(folder)
        root = Path(folder)
        places: dict[VideoFormat, Path] = {
            "mp4": root / "overlay.mp4",
            "png": root / "frames",
            "youtube-vis": root / "youtube_vis",
            "vipseg": root / "vipseg",
            "vspw": root / "vspw" / name,
            "davis": root / "davis" / name,
            "mots": root / "mots" / f"{name}.txt",
        }
        for path in reads:
            inside = {path.resolve(), *path.resolve().parents}
            if path.resolve() == root.resolve() or inside & {place.resolve() for place in places.values()}:
                raise UserError(
                    f"cannot write to {root}: the video is read from {path}, which would be written over or mixed with"
                    " results; choose another output folder"
                )
        make: dict[VideoFormat, Callable[[], VideoWriter]] = {
            "mp4": lambda: _Overlay(Mp4Writer(places["mp4"], rate=rate, sound=sound)),
            "png": lambda: PngWriter(places["png"], picture=Result.overlay),
            "youtube-vis": lambda: YouTubeVisWriter(places["youtube-vis"], name=name, category_ids=category_ids),
            "vipseg": lambda: VipSegWriter(places["vipseg"], name=name, category_ids=category_ids),
            "vspw": lambda: PngWriter(places["vspw"], picture=Result.semantic_png),
            "davis": lambda: PngWriter(places["davis"], picture=davis_png),
            "mots": lambda: MotsWriter(places["mots"], category_ids=category_ids),
        }
        self._writers = [make[each]() for each in formats]
        self.written: list[Path] = []

    def __enter__(self) -> "VideoOutputs":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, result: Result) -> None:
        for writer in self._writers:
            writer.write(result)

    def close(self) -> list[Path]:
        """Finish all files, also when one of them fails."""
        with ExitStack() as stack:
            for writer in reversed(self._writers):
                stack.callback(lambda writer=writer: self.written.extend(writer.close()))
            self._writers = []
        return self.written


# ------------------------------------------------------------------------------------------------------------- pictures


class _Overlay:
    """Results as an mp4 of their overlays."""

    def __init__(self, writer: Mp4Writer) -> None:
        self._writer = writer

    def write(self, result: Result) -> None:
        self._writer.write(result.overlay(), time=stamp_of(result).time)

    def close(self) -> list[Path]:
        return self._writer.close()


class PngWriter:
    """A PNG a frame, called as the frame's file or by its number: each is there as soon as its frame is done."""

    def __init__(self, folder: Path, *, picture: Callable[[Result], Image.Image]) -> None:
        """`picture` makes the picture of a result."""
        self._folder, self._picture = folder, picture
        self._count = 0

    def write(self, result: Result) -> None:
        write_image(self._picture(result), self._folder / f"{stamp_of(result).stem}.png")
        self._count += 1

    def close(self) -> list[Path]:
        if not self._count:
            return []
        others = sum(1 for _ in self._folder.glob("*.png")) - self._count
        if others > 0:
            logger.warning("%s holds %d pictures more, of an earlier run: they were left alone", self._folder, others)
        return [self._folder]


def davis_png(result: Result) -> Image.Image:
    """DAVIS' annotation of a frame: the value of a pixel is the id of its object, in the colours of DAVIS."""
    label_map = result.label_map
    highest = int(label_map.max())
    if highest > MAX_DAVIS_ID:
        logger.warning(
            "a DAVIS PNG holds ids up to %d: objects with higher ids (here %d) are left out", MAX_DAVIS_ID, highest
        )
        label_map = np.where(label_map > MAX_DAVIS_ID, 0, label_map)
    image = Image.fromarray(label_map.astype(np.uint8), mode="P")
    image.putpalette(davis_palette())
    return image


def davis_palette() -> bytes:
    """The 256 colours of DAVIS and PASCAL VOC: bit 0, 3, 6, … of a value are the highest bits of red, bit 1, 4, … those
    of green, bit 2, 5, … those of blue (`VOClabelcolormap.m` of the VOC development kit)."""
    values = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((values >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colors.tobytes()
