"""Files that are written whole or not at all."""

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from .errors import UserError


def ensure_writable(folder: str | os.PathLike[str]) -> None:
    """Raise a `UserError` unless results can be written into `folder`, existing or yet to be made. Changes nothing."""
    path = Path(folder)
    existing = path
    while not _exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UserError(f"cannot write to {path}: {existing} is not a folder")
    # Root may write anywhere; a folder without any write permission is meant to stay as it is all the same.
    if not existing.stat().st_mode & 0o222 or not os.access(existing, os.W_OK | os.X_OK):
        raise UserError(f"cannot write to {path}: {existing} is read-only, choose another output folder")


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8, whole or not at all; its folder is made if need be."""
    return write_files(path.parent, {path.name: text.encode})[0]


def write_json(path: Path, content: Any) -> Path:
    """Write JSON, indented for people."""
    return write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_image(image: Image.Image, path: Path) -> Path:
    """Write one picture as PNG, whole or not at all; its folder is made if need be."""
    return write_files(path.parent, {path.name: lambda: png_bytes(image)})[0]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None


def write_files(folder: Path, contents: dict[str, Callable[[], bytes]]) -> list[Path]:
    """Write {file name: what makes its content} into a folder, which is made if need be: all of them or none.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    ensure_writable(folder)
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    temporary: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in contents.items():
            handle, partial = tempfile.mkstemp(prefix=f".{name}.", suffix=".partial", dir=folder)
            temporary[folder / name] = Path(partial)
            with os.fdopen(handle, "wb") as stream:
                stream.write(make())
        umask = os.umask(0)
        os.umask(umask)
        for final, partial in temporary.items():
            partial.chmod(0o666 & ~umask)  # mkstemp's files are private
            os.replace(partial, final)
    except BaseException as error:
        for partial in temporary.values():
            partial.unlink(missing_ok=True)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise UserError(f"cannot write to {folder}: {error.strerror or error}") from None
        raise
    return list(temporary)


def png_bytes(image: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    stream = io.BytesIO()
    # Photographs hardly compress: five times the time of level 1 saves a sixth of the size.
    image.save(stream, format="PNG", compress_level=1)
    return stream.getvalue()
