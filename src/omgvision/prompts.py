"""What users may point with, checked: points, boxes and regions of one picture, in its pixels."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from .errors import UserError
from .inputs import load_image


@dataclass(frozen=True, eq=False)
class ObjectPrompt:
    """How one object is pointed at: by points (labels 1 = on it, 0 = beside it), a box (x0, y0, x1, y1) or a region."""

    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    box: tuple[float, float, float, float] | None = None
    region: np.ndarray | None = None


def checked_prompts(
    image: Image.Image,
    *,
    points: Sequence[Any] | None,
    labels: Sequence[Any] | None,
    boxes: Sequence[Any] | None,
    masks: Sequence[Any] | None,
) -> list[ObjectPrompt]:
    """One prompt an object, in the order points, boxes, masks; see `ImageSession.click` for the forms.

    Raises:
        UserError: a prompt of another form, a point outside of the picture, an inverted box, a mask of another size.
    """
    return [
        *checked_points(image, points, labels=labels),
        *(ObjectPrompt(box=_checked_box(box, image)) for box in _box_list(boxes)),
        *(ObjectPrompt(region=_checked_region(mask, image)) for mask in _mask_list(masks)),
    ]


def checked_object(number: int, prompt: ObjectPrompt, image: Image.Image) -> ObjectPrompt:
    """The prompt of an object of a video, checked against its frame.

    Raises:
        UserError: as of `checked_prompts`; a number under 1; not exactly one of points, box and region.
    """
    if not isinstance(number, int) or number < 1:
        raise UserError(f"objects are called by numbers from 1, got {number!r}")
    kinds = checked_prompts(
        image,
        points=[prompt.points] if prompt.points else None,
        labels=[prompt.labels or [1] * len(prompt.points)] if prompt.points else None,
        boxes=None if prompt.box is None else [prompt.box],
        masks=None if prompt.region is None else [prompt.region],
    )
    if len(kinds) != 1:
        raise UserError(f"object {number}: expected points, a box or a mask, got {len(kinds) or 'none'} of them")
    return kinds[0]


def video_prompts(
    image: Image.Image,
    *,
    points: Sequence[Any] | None,
    labels: Sequence[Any] | None,
    boxes: Sequence[Any] | None,
    masks: Sequence[Any] | Mapping[int, Any] | None,
    prompts: Mapping[int, Mapping[int, ObjectPrompt]] | None,
) -> dict[int, dict[int, ObjectPrompt]]:
    """All that is pointed at in a video, {frame: {object: prompt}}; see `Predictor.track` for the arguments.

    Args:
        image: any picture of the frames' size.

    Raises:
        UserError: as of `checked_object`; an object that is pointed at in two ways in one frame.
    """
    own = masks if isinstance(masks, Mapping) else {}
    listed = checked_prompts(
        image, points=points, labels=labels, boxes=boxes, masks=None if isinstance(masks, Mapping) else masks
    )
    regions = checked_prompts(image, points=None, labels=None, boxes=None, masks=list(own.values()))
    first = [*enumerate(listed, start=1), *zip(own, regions, strict=True)]
    later = [(frame, *each) for frame, objects in (prompts or {}).items() for each in objects.items()]
    found: dict[int, dict[int, ObjectPrompt]] = {}
    for frame, number, prompt in [*((0, *each) for each in first), *later]:
        objects = found.setdefault(frame, {})
        if number in objects:
            raise UserError(f"object {number} is pointed at twice in frame {frame}: give it one prompt a frame")
        objects[number] = checked_object(number, prompt, image)
    return found


def checked_points(
    image: Image.Image, points: Sequence[Any] | None, *, labels: Sequence[Any] | None
) -> list[ObjectPrompt]:
    """The objects of a list of points, or of a list of such lists."""
    if points is None or len(points) == 0:
        if labels is not None and len(labels):
            raise UserError("labels were given without points: they say which points belong to the object")
        return []
    if len(points) == 2 and all(isinstance(value, int | float | np.number) for value in points):
        points = [points]  # a bare (x, y)
    nested = all(_depth(each) == 2 for each in points)
    if not nested and any(_depth(each) != 1 for each in points):
        raise UserError("points: expected [(x, y), …] for one object or [[(x, y), …], …] for several")
    groups = list(points) if nested else [points]
    if labels is None:
        label_groups: list[Any] = [[1] * len(group) for group in groups]
    else:
        label_groups = list(labels) if nested else [labels]
    if len(label_groups) != len(groups):
        raise UserError(f"labels: expected one list for each of the {len(groups)} objects, got {len(label_groups)}")
    objects = []
    for group, group_labels in zip(groups, label_groups, strict=True):
        if len(group) == 0:
            raise UserError("points: an object has no points, expected at least one (x, y)")
        if not isinstance(group_labels, Sequence | np.ndarray) or len(group) != len(group_labels):
            raise UserError(f"labels: expected one for each of the {len(group)} points, got {group_labels!r}")
        checked = tuple(_checked_point(point, image) for point in group)
        for label in group_labels:
            if label not in (0, 1):
                raise UserError(f"labels: expected 1 (on the object) or 0 (beside it), got {label!r}")
        objects.append(ObjectPrompt(points=checked, labels=tuple(int(label) for label in group_labels)))
    return objects


def _depth(value: Any) -> int:
    """0 for a number, 1 for (x, y), 2 for a list of those."""
    if isinstance(value, Sequence | np.ndarray | Tensor) and not isinstance(value, str):
        return 1 + (_depth(value[0]) if len(value) else 1)
    return 0


def _checked_point(point: Any, image: Image.Image) -> tuple[float, float]:
    x, y = _numbers(point, 2, "point", "(x, y)")
    if not (0 <= x <= image.width and 0 <= y <= image.height):
        raise UserError(
            f"the point ({x:g}, {y:g}) is outside of the image: expected 0 <= x <= {image.width} and"
            f" 0 <= y <= {image.height}"
        )
    return x, y


def _box_list(boxes: Sequence[Any] | None) -> Sequence[Any]:
    if boxes is None:
        return ()
    return [boxes] if len(boxes) == 4 and all(_depth(value) == 0 for value in boxes) else boxes


def _checked_box(box: Any, image: Image.Image) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _numbers(box, 4, "box", "(x0, y0, x1, y1)")
    if x0 >= x1 or y0 >= y1:
        raise UserError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is inverted or empty: expected x0 < x1 and y0 < y1"
            " (left, top, right, bottom)"
        )
    if x1 <= 0 or y1 <= 0 or x0 >= image.width or y0 >= image.height:
        raise UserError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is outside of the image of {image.width}x{image.height} pixels"
        )
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(image.width)), min(y1, float(image.height))


def _mask_list(masks: Sequence[Any] | None) -> Sequence[Any]:
    if masks is None:
        return ()
    if isinstance(masks, str | os.PathLike | Image.Image) or (
        isinstance(masks, np.ndarray | Tensor) and masks.ndim == 2
    ):
        return [masks]
    return masks


def _numbers(values: Any, count: int, what: str, form: str) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise UserError(f"{what}: expected {form} in pixels, got {values!r}") from None
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise UserError(f"{what}: expected {form} in pixels, got {values!r}")
    return numbers


def _checked_region(mask: Any, image: Image.Image) -> np.ndarray:
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().numpy()
    elif isinstance(mask, str | os.PathLike | Image.Image):
        mask = np.asarray(load_image(mask)).max(axis=2)
    region = np.asarray(mask) != 0
    if region.shape != (image.height, image.width):
        raise UserError(
            f"a mask prompt has the shape {list(region.shape)}: expected that of the image,"
            f" [{image.height}, {image.width}]"
        )
    if not region.any():
        raise UserError("a mask prompt is empty: expected at least one pixel that is not zero")
    return region
