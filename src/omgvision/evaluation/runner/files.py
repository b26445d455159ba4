"""Lists of any length, written without holding them; the whole file or nothing."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_list(path: Path, entries: Iterable[Any], *, around: tuple[str, str] = ("", "")) -> None:
    """A json list, entry by entry; `around` is text before and after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as stream:
        stream.write(f"{around[0]}[")
        for number, entry in enumerate(entries):
            stream.write(f"{',' if number else ''}\n{json.dumps(entry)}")
        stream.write(f"\n]{around[1]}\n")
    partial.replace(path)
