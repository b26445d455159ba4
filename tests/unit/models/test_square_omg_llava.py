"""Pictures on their square, and back, without the square."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from omgvision.models.omg_llava.square_omg_llava import Square
from tests.golden_llava import processor

SIDE = 128
SIZES = [(60, 90), (90, 60), (64, 64), (7, 200), (201, 10), (1, 300), (128, 100)]


def padded(picture: Tensor, color: Tensor) -> Tensor:
    """[3, H, W] in the middle of the whole square."""
    _, height, width = picture.shape
    square = Square(height, width, SIDE)
    whole = color.to(picture)[:, None, None].repeat(1, square.side, square.side)
    whole[:, square.top : square.top + height, square.left : square.left + width] = picture
    return whole


@pytest.mark.parametrize("size", SIZES)
def test_as_if_the_whole_square_was_resized(size):
    height, width = size
    square, ours = Square(height, width, SIDE), processor(SIDE)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    whole = padded(torch.from_numpy(pixels).permute(2, 0, 1), ours._color)
    expected = ours.image_processor(whole, return_tensors="pt")["pixel_values"]
    assert torch.equal(ours(Image.fromarray(pixels), "<image>\n")["pixel_values"], expected)

    masks = torch.from_numpy(pixels[..., 0] > 127)[None]
    whole = padded(masks[0].expand(3, -1, -1).float(), torch.zeros(3))[:1]
    assert torch.equal(square.masks(masks), F.interpolate(whole[None], size=(SIDE, SIDE))[0].bool())

    logits = torch.randn(2, 32, 32)
    whole = F.interpolate(logits[None], size=(square.side, square.side), mode="bilinear")[0]
    expected = whole[:, square.top : square.top + height, square.left : square.left + width]
    torch.testing.assert_close(square.restore(logits), expected, atol=1e-6, rtol=0)
    assert square.restore(logits[:0]).shape == (0, height, width)


@pytest.mark.parametrize("size", SIZES)
def test_bilinear_rounds_once(size):
    """As torch resizes the whole square; exact halves may fall to either side."""
    ours = processor(SIDE)
    ours.image_processor.resample = 2
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    whole = padded(torch.from_numpy(pixels).permute(2, 0, 1), ours._color)
    expected = ours.image_processor(whole, return_tensors="pt")["pixel_values"]
    differs = ours(Image.fromarray(pixels), "<image>\n")["pixel_values"] - expected
    assert differs.abs().max() <= 1.01 / 255 / 0.26
    assert (differs != 0).float().mean() < 0.01


class Largest(TorchDispatchMode):
    """Sees the number of values of the largest tensor that is made."""

    values = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.values = max(self.values, made.numel())
        return made


@pytest.mark.parametrize(("height", "width"), [(10, 8000), (8000, 10)])
def test_thin_pictures_take_little_memory(height, width):
    square, ours = Square(height, width, SIDE), processor(SIDE)
    picture = Image.new("RGB", (width, height))
    with Largest() as largest:
        ours(picture, "<image>\n")
        square.masks(torch.ones(1, height, width))
        square.restore(torch.randn(2, 32, 32))
    assert largest.values < 8000 * 8000 / 4
