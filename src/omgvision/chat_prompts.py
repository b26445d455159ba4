"""What is pointed at in a question, and the words that stand for it."""

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

from .errors import UserError
from .models.omg_llava.answers_omg_llava import MARK, REGION
from .models.omg_llava.prompts_omg_llava import PLACEHOLDERS, Prompt
from .prompts import checked_prompts

_PLACEHOLDER = re.compile(f"{re.escape(MARK)}|{re.escape(REGION)}")
_SPOKEN = {"<point>": MARK, "<box>": REGION, "<mask>": REGION}
"""What people may write; the original's page has the first two."""


def pointed_at(
    image: Image.Image,
    *,
    points: Sequence[Any] | None = None,
    labels: Sequence[Any] | None = None,
    boxes: Sequence[Any] | None = None,
    masks: Sequence[Any] | None = None,
) -> list[Prompt]:
    """Points, boxes and masks as of `ImageSession.click` → one prompt an object, in this order.

    Raises:
        UserError: As of `checked_prompts`.
    """
    prompts: list[Prompt] = []
    for found in checked_prompts(image, points=points, labels=labels, boxes=boxes, masks=masks):
        if found.box is not None:
            prompts.append({"box": found.box})
        elif found.region is not None:
            prompts.append({"mask": found.region})
        elif len(found.points) == 1 and found.labels == (1,):
            prompts.append({"point": found.points[0]})
        else:
            prompts.append({"points": found.points, "labels": found.labels})
    return prompts


def placeholder(prompt: Prompt) -> str:
    """``<mark>`` for points, ``<region>`` for boxes and masks."""
    kinds = [kind for kind in PLACEHOLDERS if kind in prompt]
    if len(kinds) != 1:
        raise UserError(f"prompts: expected one of {', '.join(PLACEHOLDERS)}, got {sorted(prompt)}")
    return PLACEHOLDERS[kinds[0]]


def worded(question: str, prompts: Sequence[Prompt]) -> tuple[str, list[Prompt]]:
    """The question with a placeholder for each prompt, and the prompts in the order of the placeholders.

    A question without placeholders gets a line before it that lists what is pointed at, as in training. In one with
    them (``<point>``, ``<box>`` and ``<mask>`` may be written as well) the first mark is the first prompt with points,
    the first region the first box or mask; where their numbers differ, as for a mask that is asked for as a mark, they
    go by the order in which the prompts were given.

    Raises:
        UserError: Another number of placeholders than of prompts.
    """
    for spoken, meant in _SPOKEN.items():
        question = question.replace(spoken, meant)
    marks = [prompt for prompt in prompts if placeholder(prompt) == MARK]
    regions = [prompt for prompt in prompts if placeholder(prompt) == REGION]
    found = _PLACEHOLDER.findall(question)
    if prompts and not found:
        return f"{_listed(len(marks), len(regions))}{question}", [*marks, *regions]
    if len(found) != len(prompts):
        raise UserError(
            f"prompts: expected one for each of {len(found)} placeholders ({MARK}, {REGION}), got {len(prompts)}"
        )
    if found.count(MARK) != len(marks):
        return question, list(prompts)
    by_kind = {MARK: iter(marks), REGION: iter(regions)}
    return question, [next(by_kind[kind]) for kind in found]


def _listed(marks: int, regions: int) -> str:
    """Lines that name what is pointed at, marks first."""
    lines = ""
    if marks:
        lines += f"There are some marks: {', '.join(f'Mark {number} {MARK}' for number in range(1, marks + 1))}.\n"
    if regions:
        names = ", ".join(f"region{number} {REGION}" for number in range(1, regions + 1))
        lines += f"There are some regions: {names}.\n"
    return lines


__all__ = ["placeholder", "pointed_at", "worded"]
