"""What a model in training sees, to look at: pictures beside their truth and the prediction."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from omgvision.data.transforms import IMAGE_MEAN, IMAGE_STD
from omgvision.visualization import draw_segments, segment_color

VOID = -1


def row(pixel_values: Tensor, truth: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """A normalised picture [3, H, W] and two maps of classes at stride 4 → uint8 [H, 3·W, 3]."""
    colours = pixel_values * torch.tensor(IMAGE_STD).view(3, 1, 1) + torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    picture = Image.fromarray(colours.round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
    return np.concatenate([np.asarray(picture), *(overlay(picture, labels) for labels in (truth, prediction))], axis=1)


def column(picture: Image.Image, annotated: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> np.ndarray:
    """A picture under the annotated masks [H, W], above the same under those that were found: uint8 [2·H, W, 3]."""
    drawn = [
        np.asarray(draw_segments(picture, masks, colors=[segment_color(number) for number in range(len(masks))]))
        for masks in (annotated, found)
    ]
    return np.concatenate(drawn)


def overlay(picture: Image.Image, labels: np.ndarray) -> np.ndarray:
    """The picture under the colours of a class map [h, w] of another size; void stays bare."""
    width, height = picture.size
    rows = np.arange(height) * labels.shape[0] // height
    columns = np.arange(width) * labels.shape[1] // width
    full = labels[rows][:, columns]
    classes = [int(label) for label in np.unique(full) if label != VOID]
    drawn = draw_segments(
        picture, (full == label for label in classes), colors=[segment_color(label) for label in classes]
    )
    return np.asarray(drawn)
