"""Run-length masks: equal to pycocotools, and nothing else gets through."""

from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omgvision.evaluation.run_lengths import compressed, compressed_all, decode_counts, mask_areas


def encode(mask: np.ndarray) -> dict[str, Any]:
    runs: Any = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return runs


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 300), (200, 170)])
def test_decodes_what_pycocotools_encodes(size: tuple[int, int], share: float):
    mask = np.random.default_rng(0).random(size) < share
    runs = encode(mask)
    counts, starts = decode_counts([runs["counts"]])
    assert starts.tolist() == [0]
    assert counts.sum() == mask.size
    values = np.repeat(np.arange(counts.size) % 2, counts)
    assert np.array_equal(values, mask.ravel(order="F"))
    for segmentation in (runs, {**runs, "counts": runs["counts"].decode()}, {**runs, "counts": counts.tolist()}):
        assert compressed(segmentation, size=size) == {"size": list(size), "counts": runs["counts"]}


def test_several_at_once():
    masks = [np.random.default_rng(seed).random((20, 30)) < 0.1 * seed for seed in range(8)]
    runs = [encode(mask) for mask in masks]
    counts, starts = decode_counts([one["counts"] for one in runs])
    for one, part in zip(runs, np.split(counts, starts[1:]), strict=True):
        assert part.tolist() == decode_counts([one["counts"]])[0].tolist()
        assert part.sum() == 600
    assert compressed_all(runs, size=(20, 30)) == runs
    assert compressed_all([], size=(20, 30)) == []


@pytest.mark.parametrize("counts", ["", "\x00", "z", "é", "P", "oooooooooooooooo0", [3, -1, 62], [64, 1], [10**20]])
def test_what_does_not_decode_is_refused(counts: str | list[int]):
    with pytest.raises(ValueError, match=r"^segmentation: expected "):
        compressed({"size": [8, 8], "counts": counts}, size=(8, 8))


def test_huge_runs_whose_sum_begins_anew():
    """In 64 bits they fill the image."""
    for runs in ([2**62] * 4 + [64], [0, 2**62, 0, 2**62, 0, 2**62, 0, 2**62, 64]):
        assert sum(runs) % 2**64 == 64
        with pytest.raises(ValueError, match="expected runs over 64 pixels"):
            compressed({"size": [8, 8], "counts": runs}, size=(8, 8))


def test_polygons_need_three_points():
    with pytest.raises(ValueError, match="three points"):
        compressed([[1, 1, 2, 2]], size=(8, 8))


@pytest.mark.parametrize("corner", [10**20, -(10**20), float("nan"), float("inf")])
def test_corners_of_polygons_are_pixels(corner: float):
    with pytest.raises(ValueError, match="expected pixels as corners of polygons"):
        compressed([[0, 0, corner, 0, 0, 4]], size=(8, 8))


def test_pixels_of_more_masks_than_a_byte_counts():
    """pycocotools itself fails at 256 under NumPy 2: a crowded picture, a long track."""
    masks = [encode(np.arange(600).reshape(20, 30) < count) for count in range(600)]
    assert mask_areas(masks).tolist() == list(range(600))
    assert mask_areas([]).tolist() == []
