"""Sine encodings of pixel positions, frames and prompt coordinates.

Vaswani et al., "Attention is all you need" (2017), section 3.5, with positions scaled to (0, 2π] as in DETR.
"""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def _encode(values: Tensor, channels: int) -> Tensor:
    """Sine on even and cosine on odd channels: [...] → [..., channels]."""
    exponents = 2 * torch.div(torch.arange(channels, device=values.device), 2, rounding_mode="floor") / channels
    angles = values[..., None] / TEMPERATURE**exponents
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), dim=-1).flatten(-2)


def _scaled_index(count: int, device: torch.device) -> Tensor:
    """1 … count scaled to (0, 2π]; the 1e-6 is part of the original's formula."""
    index = torch.arange(1, count + 1, device=device, dtype=torch.float32)
    return index / (count + 1e-6) * (2 * math.pi)


def sine_position_2d(height: int, width: int, features: int, *, device: torch.device) -> Tensor:
    """Row and column encodings [height·width, 2·features], the row's first."""
    rows = _encode(_scaled_index(height, device), features)
    columns = _encode(_scaled_index(width, device), features)
    grid = torch.cat(
        (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1)),
        dim=-1,
    )
    return grid.flatten(0, 1)


def sine_position_3d(frames: int, height: int, width: int, features: int, *, device: torch.device) -> Tensor:
    """The 2D encoding plus that of the frame number: [frames·height·width, 2·features], time outermost.

    A single picture is a clip of one frame, whose frame encoding is not zero.
    """
    plane = sine_position_2d(height, width, features, device=device)
    times = _encode(_scaled_index(frames, device), 2 * features)
    return (times[:, None] + plane[None]).flatten(0, 1)


def box_position(boxes: Tensor, features: int) -> Tensor:
    """Encodes boxes for the prompt queries.

    Args:
        boxes: [..., 4] as centre x, centre y, width, height in fractions of the picture.
        features: Channels of each coordinate.

    Returns:
        [..., 4·features] in the order centre y, centre x, width, height.
    """
    ordered = boxes[..., [1, 0, 2, 3]].float()
    return _encode(ordered * (2 * math.pi), features).flatten(-2)


__all__ = ["box_position", "sine_position_2d", "sine_position_3d"]
