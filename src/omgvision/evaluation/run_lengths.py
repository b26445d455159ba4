"""COCO's run-length masks, checked before pycocotools sees them: its C code believes every number.

Letters: H×W pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


def compressed(segmentation: Any, *, size: tuple[int, int]) -> dict[str, Any]:
    """A mask of a json file in pycocotools' own form, `{"size": [H, W], "counts": bytes}`.

    Args:
        segmentation: Compressed or plain run lengths (`size`, `counts`), or polygons [[x, y, x, y, …], …].
        size: Height and width of the image.

    Raises:
        ValueError: Another size, run lengths that do not decode or do not fill the image, or something else.
    """
    height, width = size
    # pycocotools declares its types more narrowly than it behaves.
    tools: Any = coco_mask
    if isinstance(segmentation, list) and segmentation:
        if not all(isinstance(one, list) and len(one) >= 6 and len(one) % 2 == 0 for one in segmentation):
            raise ValueError("segmentation: expected polygons of three points x, y or more, got something else")
        return tools.merge(tools.frPyObjects(segmentation, height, width))
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("segmentation: expected run lengths with size and counts, or polygons, got something else")
    if list(segmentation["size"]) != [height, width]:
        raise ValueError(f"segmentation: expected the size of the image {[height, width]}, got {segmentation['size']}")
    counts = segmentation["counts"]
    runs = np.asarray(counts) if isinstance(counts, list) else decode_counts(counts)
    if (runs.size and runs.min() < 0) or runs.sum() != height * width:
        raise ValueError(
            f"segmentation: expected runs over {height * width} pixels, got {runs.sum()}: it does not decode"
        )
    if isinstance(counts, list):
        return tools.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else bytes(counts)}


def decode_counts(counts: str | bytes) -> np.ndarray:
    """The run lengths of COCO's compressed text, int64 [N]: background first, column by column.

    A character holds five bits, lowest first, and whether more follow; the last one's highest bit is the sign. From
    the fourth on a run is given as its difference to the run before the last (maskApi.c, `rleFrString`).

    Raises:
        ValueError: Characters that are none of this alphabet, or an end in the middle of a number.
    """
    text = counts.encode("utf-8") if isinstance(counts, str) else bytes(counts)
    codes = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - 48
    if codes.size == 0:
        return codes
    ends = np.flatnonzero((codes & 32) == 0)
    if codes.min() < 0 or codes.max() > 63 or ends.size == 0 or ends[-1] != codes.size - 1:
        raise ValueError("segmentation: expected compressed run lengths, got a text that does not decode")
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 12:
        raise ValueError("segmentation: expected compressed run lengths, got a number over 2⁵⁹")
    shifts = 5 * (np.arange(codes.size) - np.repeat(starts, digits))
    values = np.add.reduceat((codes & 31) << shifts, starts)
    values -= np.where(codes[ends] & 16, np.left_shift(1, 5 * digits), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
