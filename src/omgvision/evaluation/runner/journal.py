"""What has been predicted so far, one line of json a sample, written as soon as it is known.

Every process appends to a file of its own; together they are the run. A process that dies leaves at most one torn line,
the last of its file: that sample is predicted again. Lines are found again by their place in the files, so that memory
grows by a few numbers a sample.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omgvision.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Place:
    path: Path
    offset: int
    quality: float | None


class Journal:
    """The files `*.jsonl` in a folder.

    Args:
        folder: Made if need be.
        writer: This process's file, without the suffix; nothing is written before the first `append`.

    Raises:
        UserError: A line that cannot be read and is not the last of its file.
    """

    def __init__(self, folder: Path, *, writer: str):
        self.folder, self._writer = folder, folder / f"{writer}.jsonl"
        self._places: dict[str, _Place] = {}
        for path in sorted(folder.glob("*.jsonl")):
            end = self._read(path)
            if end < path.stat().st_size:
                logger.warning("%s: the last line is torn; its sample is predicted again", path)
                if path == self._writer:
                    with path.open("r+b") as stream:
                        stream.truncate(end)

    def _read(self, path: Path) -> int:
        """Takes the entries over; returns where the last whole line ends."""
        offset = 0
        with path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    entry = json.loads(line) if line.endswith(b"\n") else None
                    if entry is not None:
                        place = _Place(path, offset, entry["quality"])
                        self._places.setdefault(str(entry["id"]), place)
                except (ValueError, KeyError, TypeError):
                    entry = None
                if entry is None:
                    if stream.read(1):
                        raise UserError(
                            f"{path}: line {number} cannot be read: delete it and its sample is predicted again, or"
                            " start anew without --resume in another --out"
                        )
                    return offset
                offset += len(line)
        return offset

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, sample_id: str) -> bool:
        return sample_id in self._places

    def __getitem__(self, sample_id: str) -> dict[str, Any]:
        """The sample's record, read from disk."""
        place = self._places[sample_id]
        with place.path.open("rb") as stream:
            stream.seek(place.offset)
            return json.loads(stream.readline())["record"]

    def quality(self, sample_id: str) -> float | None:
        """The sample's own number."""
        return self._places[sample_id].quality

    def append(self, sample_id: str, record: dict[str, Any], quality: float | None) -> None:
        """Writes a sample; of a repeated one the first stays."""
        if sample_id in self._places:
            return
        line = json.dumps({"id": sample_id, "quality": quality, "record": record}, allow_nan=False).encode() + b"\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._writer.open("ab") as stream:
            offset = stream.seek(0, 2)
            stream.write(line)
        self._places[sample_id] = _Place(self._writer, offset, quality)
