"""COCO's run-length masks, checked before pycocotools sees them: its C code believes every number.

Letters: H×W pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FAR = 100_000
"""Pixels: no corner of a polygon lies further out. pycocotools walks along every edge, however long."""


def compressed(segmentation: Any, *, size: tuple[int, int]) -> dict[str, Any]:
    """A mask of a json file in pycocotools' own form, `{"size": [H, W], "counts": bytes}`.

    Args:
        segmentation: Compressed or plain run lengths (`size`, `counts`), or polygons [[x, y, x, y, …], …].
        size: Height and width of the image.

    Raises:
        ValueError: Another size, run lengths that do not decode or do not fill the image, or something else.
    """
    return compressed_all([segmentation], size=size)[0]


def compressed_all(segmentations: Sequence[Any], *, size: tuple[int, int]) -> list[dict[str, Any]]:
    """`compressed` of all masks of an image, in a fraction of the time."""
    height, width = size
    # pycocotools declares its types more narrowly than it behaves.
    tools: Any = coco_mask
    masks, texts = [], []
    for segmentation in segmentations:
        check_form(segmentation, size=size)
        if isinstance(segmentation, list):
            masks.append(tools.merge(tools.frPyObjects(segmentation, height, width)))
            continue
        counts = segmentation["counts"]
        if isinstance(counts, list):
            # Python's own numbers: NumPy's sums of huge runs would begin anew.
            if min(counts, default=0) < 0 or sum(counts) != height * width:
                raise _misfit(sum(counts), pixels=height * width)
            masks.append(tools.frPyObjects({"size": [height, width], "counts": counts}, height, width))
        else:
            texts.append(counts.encode() if isinstance(counts, str) else bytes(counts))
            masks.append({"size": [height, width], "counts": texts[-1]})
    runs, starts = decode_counts(texts)
    _check(runs, np.add.reduceat(runs, starts) if texts else starts, pixels=height * width)
    return masks


def mask_areas(masks: Sequence[Any]) -> np.ndarray:
    """Pixels [masks] of each of pycocotools' masks, which under NumPy 2 counts no more than 255 at once."""
    tools: Any = coco_mask
    parts = [tools.area(list(masks[start : start + 255])) for start in range(0, len(masks), 255)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint32)


def check_form(segmentation: Any, *, size: tuple[int, int]) -> None:
    """Whether a mask has the form that `compressed` takes; the numbers in its run lengths are not looked at.

    Raises:
        ValueError: It has not.
    """
    if isinstance(segmentation, list) and segmentation:
        if not all(isinstance(one, list) and len(one) >= 6 and len(one) % 2 == 0 for one in segmentation):
            raise ValueError("segmentation: expected polygons of three points x, y or more, got something else")
        if not all(isinstance(value, int | float) and abs(value) < FAR for one in segmentation for value in one):
            raise ValueError("segmentation: expected pixels as corners of polygons, got something else")
        return
    if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
        raise ValueError("segmentation: expected run lengths with size and counts, or polygons, got something else")
    if tuple(segmentation["size"]) != tuple(size):
        raise ValueError(f"segmentation: expected the size of the image {list(size)}, got {segmentation['size']}")
    counts = segmentation["counts"]
    if isinstance(counts, list):
        if not all(isinstance(run, int) for run in counts):
            raise ValueError("segmentation: expected whole numbers as run lengths, got something else")
    elif not isinstance(counts, str | bytes):
        raise ValueError(f"segmentation: expected a text or a list as counts, got a {type(counts).__name__}")


def size_of(segmentation: Any) -> tuple[int, int]:
    """Height and width that run lengths say.

    Raises:
        ValueError: They say none.
    """
    size = segmentation.get("size") if isinstance(segmentation, Mapping) else None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"segmentation: expected a size of height and width, got {size!r}")
    return size[0], size[1]


def _check(runs: np.ndarray, totals: np.ndarray, *, pixels: int) -> None:
    wrong = (*totals[totals != pixels], *runs[(runs < 0) | (runs > pixels)])
    if wrong:
        raise _misfit(wrong[0], pixels=pixels)


def _misfit(got: int, *, pixels: int) -> ValueError:
    return ValueError(f"segmentation: expected runs over {pixels} pixels, got {got}: does not decode")


def decode_counts(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """The run lengths of COCO's compressed texts: background first, column by column.

    A character holds five bits, lowest first, and whether more follow; the last one's highest bit is the sign. From
    the fourth on a run is given as its difference to the run before the last (maskApi.c, `rleFrString`).

    Returns:
        int64 [N] the runs of all texts, one after the other, and int64 [texts] where each text begins in there.

    Raises:
        ValueError: An empty text, characters that are none of this alphabet, an end in the middle of a number.
    """
    if not texts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    codes = np.frombuffer(b"".join(texts), dtype=np.uint8) - np.uint8(48)
    stops = lengths.cumsum()
    if not lengths.all() or codes.max() > 63 or (codes[stops - 1] >= 32).any():
        raise ValueError("segmentation: expected compressed run lengths, got a text that does not decode")
    ends = np.flatnonzero(codes < 32)
    begins = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - begins + 1
    if digits.max() > 12:
        raise ValueError("segmentation: expected compressed run lengths, got a number over 2⁵⁹")
    values = (codes[begins] & 31).astype(np.int64)
    for place in range(1, digits.max()):
        longer = np.flatnonzero(digits > place)
        values[longer] |= (codes[begins[longer] + place] & 31).astype(np.int64) << 5 * place
    negative = np.flatnonzero(codes[ends] & 16)
    values[negative] -= np.left_shift(1, 5 * digits[negative])
    # Two chains of sums in each text: the odd places, and the even ones after the first.
    starts = np.searchsorted(ends, stops - lengths)
    sizes = np.diff(starts, append=ends.size)
    is_odd = ((np.arange(ends.size) - np.repeat(starts, sizes)) & 1).astype(bool)
    first = values[starts]
    values[starts] = 0
    for members, counts in ((is_odd, sizes // 2), (~is_odd, (sizes + 1) // 2)):
        chain = np.flatnonzero(members)
        sums = values[chain].cumsum()
        before = np.concatenate([[0], sums])[counts.cumsum() - counts]
        values[chain] = sums - np.repeat(before, counts)
    values[starts] = first
    return values, starts
