"""Tracks of a video in the files of benchmarks: YouTube-VIS, VIPSeg, MOTS."""

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from .errors import UserError
from .output_files import ensure_writable, write_image
from .results import CLASS_AGNOSTIC_LABEL, Category, FrameStamp, Result, Segment
from .run_lengths import RunLengthMask

VIDEO_ID = 1
"""Of the only video of a YouTube-VIS file."""


def stamp_of(result: Result) -> FrameStamp:
    assert result.frame is not None, "video writers take the results of frames"
    return result.frame


class VipSegWriter:
    """VIPSeg's and VPS' results: `pred.json`, and `pan_pred/NAME/00000.png` with ids as colours (R + 256 G + 65536 B).

    The json has `videos` and `categories` as well, as annotations do: `omg score vpq` reads it, and so does
    `omgvision.data.VipSeg`.
    """

    def __init__(self, folder: Path, *, name: str, category_ids: Sequence[int] | None) -> None:
        self._folder, self._name, self._category_ids = folder, name, category_ids
        self._categories: Sequence[Category] = ()
        self._spool: Path | None = None

    def write(self, result: Result) -> None:
        stamp = stamp_of(result)
        file = f"{stamp.stem}.png"
        write_image(result.panoptic_png(), self._folder / "pan_pred" / self._name / file)
        records = [{**record, "category_id": self._id(record["category_id"])} for record in result.segments_info()]
        line = {"image_id": stamp.index, "file_name": file, "size": [result.height, result.width], "segments": records}
        with _disk(self._folder):
            if self._spool is None:
                self._spool = _partial(self._folder, "pred.json")
                self._categories = _categories(result)
            with self._spool.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def close(self) -> list[Path]:
        if self._spool is None:
            return []
        spool, self._spool = self._spool, None
        path = self._folder / "pred.json"
        try:
            with _replacing(path) as stream:
                video = json.dumps(self._name)
                frames = (
                    {
                        "image_id": frame["image_id"],
                        "file_name": frame["file_name"],
                        "segments_info": frame["segments"],
                    }
                    for frame in _lines(spool)
                )
                stream.write(f'{{"annotations": [{{"video_id": {video}, "annotations": ')
                _write_list(stream, frames)
                images = (
                    {
                        "id": frame["image_id"],
                        "file_name": frame["file_name"],
                        "height": frame["size"][0],
                        "width": frame["size"][1],
                    }
                    for frame in _lines(spool)
                )
                stream.write(f'}}], "videos": [{{"video_id": {video}, "images": ')
                _write_list(stream, images)
                categories = [
                    {"id": self._id(index), "name": category.name, "isthing": int(category.is_thing)}
                    for index, category in enumerate(self._categories)
                ]
                stream.write(f'}}], "categories": {json.dumps(categories)}}}')
        finally:
            spool.unlink(missing_ok=True)
        return [path, self._folder / "pan_pred" / self._name]

    def _id(self, label_id: int) -> int:
        return label_id if self._category_ids is None else self._category_ids[label_id]


class YouTubeVisWriter:
    """YouTube-VIS' tracks of countable things, twice: `results.json`, a list as its server and `omg score youtube-vis`
    take it, and `annotations.json`, with the names of classes and frames, as `omgvision.data.YouTubeVis` reads it.

    A track's class is the one with the largest sum of scores, its score the mean over the frames where it is seen. The
    masks wait in a database on disk, since the files have them track by track.
    """

    def __init__(self, folder: Path, *, name: str, category_ids: Sequence[int] | None) -> None:
        self._folder, self._name, self._category_ids = folder, name, category_ids
        self._categories: Sequence[Category] = ()
        self._size = (0, 0)
        self._frames = 0
        self._database: sqlite3.Connection | None = None
        self._spool = folder

    def write(self, result: Result) -> None:
        with _disk(self._folder):
            if self._database is None:
                self._database = self._open()
                self._categories, self._size = _categories(result), (result.height, result.width)
            self._database.execute("INSERT INTO frames VALUES (?, ?)", (self._frames, stamp_of(result).stem))
            self._database.executemany(
                "INSERT INTO masks VALUES (?, ?, ?, ?, ?)",
                [(segment.id, self._frames, *_row(segment)) for segment in result if segment.is_thing],
            )
            self._database.commit()
            self._frames += 1

    def close(self) -> list[Path]:
        if self._database is None:
            return []
        database, self._database = self._database, None
        paths = [self._folder / "results.json", self._folder / "annotations.json"]
        try:
            with _replacing(paths[0]) as stream:
                _write_list(stream, self._tracks(database, annotations=False))
            files = [f"{self._name}/{stem}.jpg" for (stem,) in database.execute("SELECT stem FROM frames ORDER BY id")]
            video = {"id": VIDEO_ID, "height": self._size[0], "width": self._size[1], "length": len(files)}
            categories = [
                {"id": self._id(index), "name": category.name} for index, category in enumerate(self._categories)
            ]
            with _replacing(paths[1]) as stream:
                stream.write(f'{{"videos": {json.dumps([video | {"file_names": files}])}')
                stream.write(f', "categories": {json.dumps(categories)}, "annotations": ')
                _write_list(stream, self._tracks(database, annotations=True))
                stream.write("}")
        finally:
            database.close()
            self._spool.unlink(missing_ok=True)
        return paths

    def _open(self) -> sqlite3.Connection:
        self._spool = _partial(self._folder, "results.json")
        database = sqlite3.connect(self._spool)
        # Nobody reads it after a crash: no journal, no waiting for the disk.
        database.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            "CREATE TABLE frames (id INTEGER PRIMARY KEY, stem TEXT);"
            "CREATE TABLE masks (track INTEGER, frame INTEGER, label INTEGER, score REAL, counts TEXT,"
            " PRIMARY KEY (track, frame)) WITHOUT ROWID;"
        )
        return database

    def _tracks(self, database: sqlite3.Connection, *, annotations: bool) -> Iterator[dict[str, Any]]:
        """The entries of either file, one at a time."""
        labels = database.execute(
            "SELECT track, label, max(total), sum(total) / sum(seen) FROM"
            " (SELECT track, label, sum(score) AS total, count(*) AS seen FROM masks GROUP BY track, label)"
            " GROUP BY track ORDER BY track"
        )
        for track, label, _, score in labels.fetchall():
            masks: list[RunLengthMask | None] = [None] * self._frames
            for frame, counts in database.execute("SELECT frame, counts FROM masks WHERE track = ?", (track,)):
                masks[frame] = RunLengthMask(*self._size, counts.encode("ascii"))
            entry: dict[str, Any] = {
                "video_id": VIDEO_ID,
                "category_id": self._id(label),
                "score": round(score, 6),
                "segmentations": [None if mask is None else mask.to_coco() for mask in masks],
            }
            if annotations:
                entry |= {
                    "id": track,
                    "iscrowd": 0,
                    "height": self._size[0],
                    "width": self._size[1],
                    "areas": [None if mask is None else mask.area for mask in masks],
                    "bboxes": [None if mask is None else list(mask.box) for mask in masks],
                }
            yield entry

    def _id(self, label_id: int) -> int:
        return label_id + 1 if self._category_ids is None else self._category_ids[label_id]


class MotsWriter:
    """MOTS' text: a line for each countable thing of a frame, "frame id class height width mask".

    Frames count as their files do, or from 0. Masks do not overlap, as MOTS wants it: the better score is on top. With
    the classes "car, person" their numbers are those of the challenge, 1 and 2.
    """

    def __init__(self, path: Path, *, category_ids: Sequence[int] | None) -> None:
        self._path, self._category_ids = path, category_ids
        self._partial: Path | None = None

    def write(self, result: Result) -> None:
        stamp = stamp_of(result)
        frame = int(stamp.name) if stamp.name.isdecimal() else stamp.index
        lines = []
        for segment in sorted(result, key=lambda segment: segment.id):
            mask = RunLengthMask.encode(result.label_map == segment.id) if segment.is_thing else None
            if mask is not None and mask.area:
                size = f"{result.height} {result.width}"
                lines.append(f"{frame} {segment.id} {self._id(segment)} {size} {mask.counts.decode('ascii')}\n")
        with _disk(self._path.parent):
            if self._partial is None:
                self._partial = _partial(self._path.parent, self._path.name)
            with self._partial.open("a", encoding="ascii", newline="\n") as stream:
                stream.writelines(lines)

    def close(self) -> list[Path]:
        if self._partial is None:
            return []
        partial, self._partial = self._partial, None
        with _disk(self._path.parent):
            _publish(partial, self._path)
        return [self._path]

    def _id(self, segment: Segment) -> int:
        label = segment.label_id or 0
        return label + 1 if self._category_ids is None else self._category_ids[label]


# -------------------------------------------------------------------------------------------------------------- writing


def _row(segment: Segment) -> tuple[int, float, str]:
    """Label, score and mask, as the database has them."""
    counts = RunLengthMask.encode(segment.mask).counts.decode("ascii")
    return segment.label_id or 0, 1.0 if segment.score is None else segment.score, counts


def _categories(result: Result) -> Sequence[Category]:
    return result.categories or (Category(CLASS_AGNOSTIC_LABEL, True),)


def _write_list(stream: TextIO, entries: Iterator[dict[str, Any]]) -> None:
    """A json list whose entries are never in memory together."""
    stream.write("[")
    for number, entry in enumerate(entries):
        stream.write((",\n" if number else "\n") + json.dumps(entry))
    stream.write("\n]")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        yield from map(json.loads, stream)


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        raise UserError(f"cannot write to {folder}: {error}") from None


def _partial(folder: Path, name: str) -> Path:
    """A new empty file that will be `name`, or helps to make it."""
    ensure_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    handle, path = tempfile.mkstemp(prefix=f".{name}.", suffix=".partial", dir=folder)
    os.close(handle)
    return Path(path)


def _publish(partial: Path, path: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    partial.chmod(0o666 & ~umask)  # mkstemp's files are private
    os.replace(partial, path)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A text file that is there, whole, when the context ends without an error."""
    with _disk(path.parent):
        partial = _partial(path.parent, path.name)
        try:
            with partial.open("w", encoding="utf-8") as stream:
                yield stream
            _publish(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
