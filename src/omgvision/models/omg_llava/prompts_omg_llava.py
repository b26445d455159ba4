"""What people point at in a picture, as tensors on the network input.

Letters: N prompts of a picture, P points of a prompt, H×W the picture.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .answers_omg_llava import MARK, REGION
from .grounding_omg_llava import PADDING_LABEL
from .square_omg_llava import Square

Prompt = Mapping[str, Any]
"""One of ``{"point": (x, y)}``, ``{"points": [(x, y), …], "labels": [1, 0, …]}``, ``{"box": (x1, y1, x2, y2)}`` and
``{"mask": array [H, W]}``, in pixels of the picture as it was given."""

PLACEHOLDERS = {"point": MARK, "points": MARK, "box": REGION, "mask": REGION}
"""What stands for a prompt that is part of a message; in training marks were points and regions were masks."""


@dataclass
class PlacedPrompts:
    """The prompts of a picture in pixels of the network input, each kind with the slots that it fills."""

    points: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    slots: dict[str, list[int]] = field(default_factory=lambda: {"points": [], "boxes": [], "masks": []})


def place_prompts(prompts: Sequence[Prompt], square: Square) -> PlacedPrompts:
    placed = PlacedPrompts()
    for slot, prompt in enumerate(prompts):
        kinds = [kind for kind in PLACEHOLDERS if kind in prompt]
        if len(kinds) != 1:
            raise ValueError(f"prompts: expected one of {', '.join(PLACEHOLDERS)}, got {sorted(prompt)}")
        kind = kinds[0]
        if kind == "mask":
            placed.masks.append(_mask(prompt["mask"], square))
            placed.slots["masks"].append(slot)
        elif kind == "box":
            placed.boxes.append(_box(prompt["box"], square))
            placed.slots["boxes"].append(slot)
        else:
            points = [prompt["point"]] if kind == "point" else prompt["points"]
            placed.points.append(_points(points, prompt.get("labels"), square))
            placed.slots["points"].append(slot)
    return placed


def _points(points: Any, labels: Any, square: Square) -> tuple[Tensor, Tensor]:
    xy = torch.as_tensor(np.asarray(points, dtype=np.float32)).reshape(-1, 2)
    kinds = torch.ones(len(xy), dtype=torch.long) if labels is None else torch.as_tensor(np.asarray(labels)).long()
    inside = (xy >= 0).all(1) & (xy[:, 0] <= square.width) & (xy[:, 1] <= square.height)
    if not len(xy) or not inside.all():
        raise ValueError(
            f"prompts: expected points inside the picture of {square.width}x{square.height} pixels, got {xy.tolist()}"
        )
    if kinds.shape != xy.shape[:1] or not torch.isin(kinds, torch.tensor([0, 1])).all():
        raise ValueError(f"prompts: expected a label 1 or 0 for each of {len(xy)} points, got {kinds.tolist()}")
    return square.points(xy), kinds


def _box(box: Any, square: Square) -> Tensor:
    xyxy = torch.as_tensor(np.asarray(box, dtype=np.float32)).reshape(-1)
    limits = torch.tensor([square.width, square.height] * 2)
    if len(xyxy) != 4 or not (xyxy[:2] < xyxy[2:]).all() or (xyxy[:2] >= limits[:2]).any() or (xyxy[2:] <= 0).any():
        raise ValueError(
            f"prompts: expected a box x1 < x2, y1 < y2 on the picture of {square.width}x{square.height} pixels, "
            f"got {xyxy.tolist()}"
        )
    return square.boxes(torch.minimum(xyxy.clamp_min(0), limits))


def _mask(mask: Any, square: Square) -> Tensor:
    plane = torch.as_tensor(np.asarray(mask))
    if tuple(plane.shape) != (square.height, square.width):
        raise ValueError(
            f"prompts: expected a mask {[square.height, square.width]} (height, width) of the picture's size, "
            f"got {list(plane.shape)}"
        )
    return square.masks(plane[None])[0]


def prompt_tensors(placed: Sequence[PlacedPrompts], *, network: int) -> dict[str, Tensor]:
    """The prompts of all pictures, filled up to the most of a kind that one has."""
    data: dict[str, Tensor] = {}
    slots = []
    most = max((len(labels) for each in placed for _, labels in each.points), default=1)
    points = [[F.pad(xy, (0, 0, 0, most - len(xy))) for xy, _ in each.points] for each in placed]
    labels = [[F.pad(of, (0, most - len(of)), value=PADDING_LABEL) for _, of in each.points] for each in placed]
    kinds = {
        "points": ("input_points", points, torch.zeros(most, 2)),
        "boxes": ("input_boxes", [each.boxes for each in placed], torch.zeros(4)),
        "masks": ("input_masks", [each.masks for each in placed], torch.zeros(network, network, dtype=torch.bool)),
    }
    for kind, (name, lists, empty) in kinds.items():
        count = max(len(each) for each in lists)
        if count:
            data[name] = _table(lists, count, empty)
            slots.append(torch.tensor([each.slots[kind] + [-1] * (count - len(each.slots[kind])) for each in placed]))
    if "input_points" in data:
        count = data["input_points"].shape[1]
        data["input_point_labels"] = _table(labels, count, torch.full((most,), PADDING_LABEL))
    return data | {"prompt_slots": torch.cat(slots, dim=1)}


def _table(lists: Sequence[Sequence[Tensor]], count: int, empty: Tensor) -> Tensor:
    return torch.stack([torch.stack([*each, *[empty] * (count - len(each))]) for each in lists])


__all__ = ["PLACEHOLDERS", "PlacedPrompts", "Prompt", "place_prompts", "prompt_tensors"]
