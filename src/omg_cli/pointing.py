"""What the shell points with in a video: --point, --negative, --box, --mask."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import options

if TYPE_CHECKING:
    from omgvision.prompts import ObjectPrompt
    from omgvision.video_inputs import VideoSource

Pointer = Literal["--point", "--negative", "--box", "--mask"]
_FORMS: dict[Pointer, tuple[str, int]] = {"--point": ("X,Y", 2), "--negative": ("X,Y", 2), "--box": ("X0,Y0,X1,Y1", 4)}


@dataclass(frozen=True)
class Pointed:
    """One --point, --negative, --box or --mask.

    Attributes:
        text: as it was given.
        number: of the object; None if it was not given.
        frame: counted from 0.
        values: coordinates; empty for masks.
        file: of a mask; empty for others.
    """

    option: Pointer
    text: str
    number: int | None
    frame: int
    values: tuple[float, ...] = ()
    file: str = ""

    @classmethod
    def read(cls, text: str, option: Pointer) -> "Pointed":
        """ "2:120,80@40" → object 2 at (120, 80) in frame 40."""
        found = re.fullmatch(r"(?:(?P<number>\d+):)?(?P<what>.+?)(?:@(?P<frame>\d+))?", text)
        if found is None:
            raise options.complain(f"{option}: expected something to point at, got nothing")
        number = None if found["number"] is None else int(found["number"])
        if number == 0:
            raise options.complain(f"{option} {text}: objects are numbered from 1")
        frame = int(found["frame"] or 0)
        if option == "--mask":
            return cls(option, text, number, frame, file=found["what"])
        form, count = _FORMS[option]
        try:
            values = tuple(float(part) for part in found["what"].split(","))
        except ValueError:
            values = ()
        if len(values) != count:
            raise options.complain(
                f"{option} {text}: expected {form} in pixels, if need be with the object before and the frame behind,"
                f" as in 2:{form}@40"
            )
        return cls(option, text, number, frame, values)


def read_prompts(pointed: Sequence[Pointed], video: "VideoSource") -> "dict[int, dict[int, ObjectPrompt]]":
    """{frame: {object: prompt}}.

    What has no number gets the next free one: all points and negatives together, each box, each mask.

    Raises:
        UserError: a mask that cannot be read, a frame that does not exist, a prompt that does not fit the frames, two
            prompts of an object in one frame.
    """
    from PIL import Image

    from omgvision.errors import UserError
    from omgvision.prompts import ObjectPrompt, video_prompts

    taken = {each.number for each in pointed if each.number is not None}
    masks = {each: _read_masks(each) for each in pointed if each.option == "--mask"}
    for regions in masks.values():
        taken |= {number for number in regions if number is not None}

    def free() -> int:
        number = min(set(range(1, len(taken) + 2)) - taken)
        taken.add(number)
        return number

    clicked: int | None = None  # the object of all points without a number
    found: dict[int, dict[int, ObjectPrompt]] = {}
    for each in pointed:
        objects = found.setdefault(each.frame, {})
        if each.option in ("--point", "--negative"):
            if each.number is None and clicked is None:
                clicked = free()
            number = each.number or clicked or 0
            known = objects.get(number, ObjectPrompt())
            x, y = each.values
            new = {number: ObjectPrompt((*known.points, (x, y)), (*known.labels, int(each.option == "--point")))}
            if known.box is not None or known.region is not None:
                raise UserError(f"{each.option} {each.text}: object {number} has another prompt in this frame")
        elif each.option == "--box":
            x0, y0, x1, y1 = each.values
            new = {each.number or free(): ObjectPrompt(box=(x0, y0, x1, y1))}
        else:
            new = {number or free(): ObjectPrompt(region=region) for number, region in masks[each].items()}
        twice = sorted(new.keys() & objects.keys()) if each.option in ("--box", "--mask") else []
        if twice:
            raise UserError(f"{each.option} {each.text}: object {twice[0]} has another prompt in this frame")
        objects |= new
    for frame in found:
        video.expect(frame)
    height, width = video.size
    image = Image.new("1", (width, height))
    return video_prompts(image, points=None, labels=None, boxes=None, masks=None, prompts=found)


def _read_masks(mask: Pointed) -> dict:
    """Object → bool [H, W]; the object is None where the file does not number it."""
    import numpy as np
    from PIL import Image

    from omgvision.errors import UserError
    from omgvision.inputs import load_image
    from omgvision.video_outputs import DAVIS_VOID

    path = Path(mask.file).expanduser()
    image = load_image(mask.file)  # whatever is wrong with the file is said here
    if path.is_file():
        with Image.open(path) as stored:
            if stored.mode == "P":
                values = np.asarray(stored)
                numbers = [int(value) for value in np.unique(values) if value not in (0, DAVIS_VOID)]
                if len(numbers) > 1 and mask.number is not None:
                    raise UserError(
                        f"--mask {mask.text}: the file numbers its {len(numbers)} objects: leave the ID out"
                    )
                return {mask.number or number: values == number for number in numbers} or {None: values > DAVIS_VOID}
    return {mask.number: np.asarray(image).max(axis=2) > 0}
