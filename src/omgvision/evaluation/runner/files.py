"""Writing: the whole file or nothing, and lists of any length without holding them."""

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


def write_text(path: Path, text: str) -> None:
    """UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Indented, for people."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
