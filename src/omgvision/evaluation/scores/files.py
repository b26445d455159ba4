"""Reading what others wrote: whatever is wrong with a file becomes one line."""

import json
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

logger = logging.getLogger(__name__)

Content = TypeVar("Content")


def read_json(path: Path, *, keys: Mapping[str, type] | None = None) -> Any:
    """The content of a json file.

    Args:
        keys: What a dictionary must have, and of which type; None = the content is no dictionary or anything will do.

    Raises:
        ValueError: No file, no json, a key that lacks.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: expected a json file, got {_reason(error)}") from None
    if keys is not None:
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected a dictionary with {', '.join(keys)}, got a {type(content).__name__}")
        for key, kind in keys.items():
            if not isinstance(content.get(key), kind):
                raise ValueError(f"{path}: expected a {kind.__name__} {key!r}, got the keys {', '.join(content)}")
    return content


def read(reader: Callable[[Path], Content], path: Path) -> Content:
    """`reader(path)` for a picture.

    Raises:
        ValueError: No file, or one that cannot be read.
    """
    try:
        return reader(path)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f"{path}: expected a PNG file, got {_reason(error)}") from None


def read_labels(path: Path) -> np.ndarray:
    """The values of a grey PNG of 8 or 16 bits, [H, W].

    Raises:
        ValueError: Several channels.
    """
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim != 2:
        raise ValueError(f"{path}: expected one channel, got {values.shape[-1]}")
    return values


@contextmanager
def complete(path: Path) -> Iterator[None]:
    """Inside, an entry that lacks a key or has another form, and any ValueError, become errors that name the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: expected every entry to have {error}, got one without") from None
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected entries of the official form, got another one ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def warn_of_surplus(predictions: Path, surplus: Collection[object], what: str, ground_truth: Path) -> None:
    """Says that predictions of samples that the ground truth lacks were left out, which is all that becomes of them."""
    if surplus:
        logger.warning("%s: left out %d %s that %s lacks", predictions, len(surplus), what, ground_truth.name)


def integer(entry: Mapping[str, Any], key: str) -> int:
    """The whole number at `key`.

    Raises:
        KeyError, ValueError: There is none; for the inside of `complete`.
    """
    value = entry[key]
    if not isinstance(value, int):
        raise ValueError(f"expected a whole number as {key}, got {_short(value)}")
    return value


def number(entry: Mapping[str, Any], key: str) -> float:
    """As `integer`, for any number."""
    value = entry[key]
    if not isinstance(value, int | float):
        raise ValueError(f"expected a number as {key}, got {_short(value)}")
    return value


def identity(entry: Mapping[str, Any], key: str) -> str | int:
    """As `integer`, for a text or a whole number."""
    value = entry[key]
    if not isinstance(value, str | int):
        raise ValueError(f"expected a number or a text as {key}, got {_short(value)}")
    return value


def text(entry: Mapping[str, Any], key: str) -> str:
    """As `integer`, for a text."""
    value = entry[key]
    if not isinstance(value, str):
        raise ValueError(f"expected a text as {key}, got {_short(value)}")
    return value


def entries(entry: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """As `integer`, for a list of dictionaries."""
    value = entry[key]
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError(f"expected a list of dictionaries as {key}, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:60]}…"


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no file"
    return "a folder" if isinstance(error, IsADirectoryError) else f"an unreadable one ({error})"
