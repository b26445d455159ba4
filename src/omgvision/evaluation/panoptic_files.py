"""COCO's panoptic PNG files: a segment id is a colour, red + 256·green + 256²·blue."""

from pathlib import Path

import numpy as np
from PIL import Image

MAX_ID = 256**3 - 1


def read_ids(path: Path) -> np.ndarray:
    """The segment ids of a PNG file, uint32 [H, W]."""
    with Image.open(path) as image:
        colours = image if image.mode == "RGB" else image.convert("RGB")
        # Pillow keeps a fourth byte; as one little-endian number the four are the id already.
        raw = np.frombuffer(colours.tobytes("raw", "RGBX"), dtype="<u4")
    return (raw & MAX_ID).reshape(colours.height, colours.width)


def write_ids(ids: np.ndarray, path: Path) -> None:
    """Writes segment ids [H, W] as a PNG file.

    Raises:
        ValueError: An id that no colour stands for.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() <= MAX_ID:
        raise ValueError(f"ids: expected 0 to {MAX_ID}, got {ids.min()} to {ids.max()}")
    Image.fromarray(colours_of(ids)).save(path)


def colours_of(ids: np.ndarray) -> np.ndarray:
    """Ids of any shape […] → uint8 […, 3]."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)
