"""What both tabs share: uploads, clicks on a picture, and errors as one line."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from PIL import Image

from ..errors import UserError
from .pictures import Limits, read_picture
from .pointing import with_box, with_click
from .turns import Busy

Corner = tuple[int, int] | None
_P = ParamSpec("_P")
_T = TypeVar("_T")


def shown_errors(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """What the user got wrong, or has to wait for, becomes a message on the page, without a traceback in the log."""

    @functools.wraps(function)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return function(*args, **kwargs)
        except (UserError, Busy) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return guarded


def read_upload(path: str | None, *, limits: Limits) -> Image.Image | None:
    """The picture that a visitor uploaded; Gradio hands over files of its own temporary folder only."""
    return None if path is None else read_picture(Path(path).read_bytes(), limits=limits)


def click_on(pointer: str, pointed: str, corner: Any, place: Any) -> tuple[str, Corner]:
    """A click at `place` (x, y) → the lines of what is pointed at, and the first corner while a box is unfinished."""
    x, y = int(place[0]), int(place[1])
    if not pointer.startswith("box"):
        return with_click(pointed, x, y, beside="beside" in pointer), None
    if corner is None:
        return pointed, (x, y)
    return with_box(pointed, (corner[0], corner[1]), (x, y)), None
