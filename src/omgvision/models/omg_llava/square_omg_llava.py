"""Pictures of any shape on the square that the network sees, and back.

The picture lies in the middle of a square of its longer side; the square is resized to the network input. Letters:
H×W the picture, S the side of the square before resizing, N masks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


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

    def pad(self, picture: Tensor, color: Tensor) -> Tensor:
        """[3, H, W] → [3, S, S] with ``color`` [3] around it."""
        square = color.to(picture.dtype)[:, None, None].repeat(1, self.side, self.side)
        square[:, self.top : self.top + self.height, self.left : self.left + self.width] = picture
        return square

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
        square = torch.zeros(len(masks), self.side, self.side, dtype=torch.uint8)
        square[:, self.top : self.top + self.height, self.left : self.left + self.width] = masks != 0
        return F.interpolate(square[None], size=(self.network, self.network), mode="nearest")[0].bool()

    def restore(self, mask_logits: Tensor) -> Tensor:
        """Mask logits [N, h, w] of the square → [N, H, W] of the picture, bilinear."""
        planes = []
        for logits in mask_logits.float():  # one by one: a large picture's square is large
            square = F.interpolate(logits[None, None], size=(self.side, self.side), mode="bilinear")[0, 0]
            planes.append(square[self.top : self.top + self.height, self.left : self.left + self.width])
        return torch.stack(planes) if planes else mask_logits.new_zeros(0, self.height, self.width)


__all__ = ["Square"]
