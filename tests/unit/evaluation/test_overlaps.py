"""Pairs of values and their pixels, equal to counting them one by one."""

import numpy as np
import pytest

from omgvision.evaluation.overlaps import overlaps


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (7, 5), (40, 30)])
def test_equal_to_counting(dtype: type[np.generic], shape: tuple[int, int]):
    generator = np.random.default_rng(0)
    high = 255 if dtype == np.uint8 else 2**24
    values = generator.integers(0, high, 6)
    target, prediction = values[generator.integers(0, 6, (2, *shape))].astype(dtype)
    expected = {}
    for pair in zip(target.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        expected[pair] = expected.get(pair, 0) + 1
    truth, guess, pixels = (part.tolist() for part in overlaps(target, prediction))
    assert dict(zip(zip(truth, guess, strict=True), pixels, strict=True)) == expected
    assert list(zip(truth, guess, strict=True)) == sorted(expected)


def test_no_pixels_no_pairs():
    assert [len(part) for part in overlaps(np.zeros((0, 4), int), np.zeros((0, 4), int))] == [0, 0, 0]


def test_sizes_have_to_agree():
    with pytest.raises(ValueError, match=r"expected the size of the target \(2, 3\), got \(3, 2\)"):
        overlaps(np.zeros((2, 3), int), np.zeros((3, 2), int))
