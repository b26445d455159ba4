"""Batches by number out of a mixture of data sets, at the resolution that the stage of the run asks for."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from omgvision.data.collate import collate
from omgvision.data.mixture import Mixture, SampleDataset, Source
from omgvision.data.sample import Batch, Sample
from omgvision.data.transforms import Augmentation


@dataclass(frozen=True)
class Part:
    """A data set's part of a mixture.

    Attributes:
        dataset: Samples.
        weight: Relative share of the batches.
        augmentation: Its `size` is replaced by the stage's.
    """

    dataset: SampleDataset
    weight: float
    augmentation: Augmentation = field(default_factory=Augmentation)


class Subset:
    """Some samples of a data set, as a data set."""

    def __init__(self, dataset: SampleDataset, indices: Sequence[int]):
        self.dataset, self.indices = dataset, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]


class MixtureBatches:
    """Batch number n at a size: one data set, drawn by weight; the same whenever it is asked for."""

    def __init__(self, parts: Sequence[Part], *, seed: int):
        self.parts, self.seed = tuple(parts), seed
        self._mixtures: dict[tuple[tuple[int, int], int], Mixture] = {}

    def batch(self, index: int, *, size: tuple[int, int], batch_size: int) -> Batch:
        key = (size, batch_size)
        if key not in self._mixtures:
            sources = [Source(part.dataset, part.weight, replace(part.augmentation, size=size)) for part in self.parts]
            self._mixtures[key] = Mixture(sources, batch_size=batch_size, seed=self.seed)
        return collate(self._mixtures[key].batch_samples(index))
