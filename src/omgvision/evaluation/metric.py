"""What every metric offers: `compute`, and an `update` of its own signature."""

from typing import Protocol


class Metric(Protocol):
    """Sums over samples, then numbers. `update` takes what the metric compares, sample by sample."""

    def compute(self) -> dict[str, float]:
        """Name → value, as fractions (0 to 1)."""
        ...
