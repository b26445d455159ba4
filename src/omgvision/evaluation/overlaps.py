"""Which segments of two label maps share how many pixels: what every metric of segments is made from."""

import numpy as np


def overlaps(target: np.ndarray, prediction: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of values that meet, and how often.

    Label maps are made of regions, so a row has few places where either value changes: only these are sorted, which
    takes a small part of the time of sorting pixels.

    Args:
        target, prediction: Integers [H, W], 0 to 2³¹ - 1.

    Returns:
        Target value [N], predicted value [N] and number of pixels [N] of each pair that occurs, int64, ordered by
        target value, then by predicted value.

    Raises:
        ValueError: Different sizes.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction: expected the size of the target {target.shape}, got {prediction.shape}")
    if not target.size:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
    truth, guess = target.ravel(), prediction.ravel()
    changes = truth[1:] != truth[:-1]
    changes |= guess[1:] != guess[:-1]
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    keys = truth[starts].astype(np.int64) << 32 | guess[starts].astype(np.int64)
    pairs, where = np.unique(keys, return_inverse=True)
    pixels = np.bincount(where, weights=np.diff(starts, append=truth.size)).astype(np.int64)
    return pairs >> 32, pairs & 0xFFFFFFFF, pixels
