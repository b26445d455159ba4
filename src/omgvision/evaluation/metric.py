"""What all metrics share: a small record of each sample, kept by its id, and numbers made from the records at the end.

That is what makes a result the same with one process and with four, in any order of samples, bit for bit, and a sample
that comes twice (the last batch of a distributed sampler) count once.
"""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

Record = TypeVar("Record")


class PerSample(ABC, Generic[Record]):
    """Records of samples by id.

    A metric adds an `update(sample_id, …)` of its own signature, which makes a small record (counts, not pixels) and
    hands it to `add`, and a `compute` that reduces `ordered()`.

    Attributes:
        records: Sample id → what is kept of it. Has to survive pickling, as the metric itself does.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    def add(self, sample_id: str, record: Record) -> None:
        """Keeps a record; of a repeated id the first stays."""
        self.records.setdefault(sample_id, record)

    def merge(self, other: "PerSample[Record]") -> None:
        """Takes over the records of a metric made with the same arguments (another process's share)."""
        for sample_id, record in other.records.items():
            self.add(sample_id, record)

    def ordered(self) -> list[Record]:
        """The records in the order of their ids: sums over it do not depend on who came first."""
        return [self.records[sample_id] for sample_id in sorted(self.records)]

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Name → value, as fractions (0 to 1); NaN for 0/0."""
