"""Pictures of any shape on the square that the network sees, and back.

The picture lies in the middle of a square of its longer side; the square is resized to the network input. The square
itself is never made: of a picture of 40000×1000 pixels it would take 5 GB. Letters: H×W the picture, S the side of the
square before resizing, N masks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_STRIP = 2**22
"""Pixels of the square that are resized at once."""


@dataclass(frozen=True)
class Square:
    """Where a picture lies on its square.

    Attributes:
        height, width: Of the picture, in pixels.
        network: Side of the network input.
    """

    height: int
    width: int
    network: int

    @property
    def side(self) -> int:
        return max(self.height, self.width)

    @property
    def left(self) -> int:
        return (self.side - self.width) // 2

    @property
    def top(self) -> int:
        return (self.side - self.height) // 2

    @property
    def scale(self) -> float:
        return self.network / self.side

    def fit(self, picture: Tensor, color: Tensor, *, resize: Callable[[Tensor, tuple[int, int]], Tensor]) -> Tensor:
        """[3, H, W] → [3, network, network] with ``color`` [3] around it, as if the whole square was resized.

        Along the rows and then along the columns, as Pillow does it, so that the result is the same bit for bit.

        Args:
            resize: A picture and its new (height, width) → the picture of that size.
        """
        rows = [
            resize(_framed(strip, color, width=self.side, left=self.left), (strip.shape[1], self.network))
            for strip in picture.split(max(1, _STRIP // self.side), dim=1)
        ]
        lines = torch.cat(rows, dim=1)
        return resize(_framed(lines, color, height=self.side, top=self.top), (self.network, self.network))

    def points(self, points: Tensor) -> Tensor:
        """xy [..., 2] in pixels of the picture → of the network input."""
        return (points + torch.tensor([self.left, self.top])) * self.scale

    def boxes(self, boxes: Tensor) -> Tensor:
        """xyxy [..., 4] in pixels of the picture → of the network input.

        The original moves one corner only where it pads; both belong moved.
        """
        return self.points(boxes.unflatten(-1, (2, 2))).flatten(-2)

    def masks(self, masks: Tensor) -> Tensor:
        """[N, H, W] → [N, network, network] bool, resized by nearest neighbours, False around the picture."""
        nearest = F.interpolate(torch.arange(self.side, dtype=torch.float64)[None, None], size=self.network)[
            0, 0
        ].long()
        rows, columns = nearest - self.top, nearest - self.left
        inside = ((rows >= 0) & (rows < self.height))[:, None] & (columns >= 0) & (columns < self.width)
        found = masks[:, rows.clamp(0, self.height - 1)][:, :, columns.clamp(0, self.width - 1)]
        return (found != 0) & inside

    def restore(self, mask_logits: Tensor) -> Tensor:
        """Mask logits [N, h, w] of the square → [N, H, W] of the picture, bilinear."""
        planes = mask_logits.float()
        sides = [(-2, self.top, self.height), (-1, self.left, self.width)]
        for axis, start, length in sorted(sides, key=lambda side: side[2]):  # what is padded first, and cut at once
            size = list(planes.shape[-2:])
            size[axis] = self.side
            planes = F.interpolate(planes[:, None], size=size, mode="bilinear")[:, 0].narrow(axis, start, length)
        return planes


def _framed(
    picture: Tensor, color: Tensor, *, height: int | None = None, width: int | None = None, top: int = 0, left: int = 0
) -> Tensor:
    """[3, h, w] with ``color`` [3] around it; without a height or width as large as it is."""
    _, rows, columns = picture.shape
    canvas = color.to(picture)[:, None, None].repeat(1, height or rows, width or columns)
    canvas[:, top : top + rows, left : left + columns] = picture
    return canvas


__all__ = ["Square"]
