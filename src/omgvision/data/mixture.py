"""Several datasets in one training run: a batch is of one of them, and step n is always the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .collate import collate
from .sample import Batch, Sample, SampleDataset

_BLOCK = 1024  # steps whose datasets are drawn at once


class InMemory:
    """A dataset whose samples are decoded once and kept (about 1.3 MB for a photograph of 500×400)."""

    def __init__(self, dataset: SampleDataset) -> None:
        self._dataset = dataset
        self._samples: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        if index not in self._samples:
            self._samples[index] = self._dataset[index]
        return self._samples[index]


@dataclass(frozen=True)
class Source:
    """A dataset's part in a mixture.

    Attributes:
        dataset: len and getitem.
        weight: its share of the steps, relative to the others'.
        transform: applied to each sample with a generator of its own, seeded by (seed, step, position).
    """

    dataset: SampleDataset
    weight: float
    transform: Callable[[Sample, np.random.Generator], Sample]


class Mixture:
    """An endless, resumable sequence of batches.

    The dataset of each step is drawn by weight; each is walked in seeded permutations, every sample once an epoch.
    """

    def __init__(self, sources: Sequence[Source], *, batch_size: int, seed: int = 0) -> None:
        """Args:
            sources: at least one, none empty.
            batch_size: samples a step.
            seed: of everything random.
        Raises:
            ValueError: no source, an empty dataset, a weight that is not positive, a batch size under 1.
        """
        if not sources:
            raise ValueError("sources: expected at least one")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
        for number, source in enumerate(sources):
            if len(source.dataset) == 0:
                raise ValueError(f"sources: dataset {number} is empty")
            if not source.weight > 0:
                raise ValueError(f"sources: weight of dataset {number}: expected more than 0, got {source.weight}")
        self.sources = tuple(sources)
        self.batch_size = batch_size
        self.seed = seed
        weights = np.array([source.weight for source in sources], dtype=np.float64)
        self._probabilities = weights / weights.sum()
        self._blocks: list[np.ndarray] = []
        self._steps_before = [np.zeros(len(sources), dtype=np.int64)]
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}

    def source_of(self, step: int) -> int:
        """Which source step `step` draws from."""
        return int(self._block(step // _BLOCK)[step % _BLOCK])

    def indices(self, step: int) -> list[int]:
        """Which samples of its source step `step` takes."""
        block, offset = divmod(step, _BLOCK)
        number = self.source_of(step)
        earlier = int(self._steps_before[block][number] + (self._blocks[block][:offset] == number).sum())
        return [self._index(number, earlier * self.batch_size + place) for place in range(self.batch_size)]

    def batch_samples(self, step: int) -> list[Sample]:
        """The transformed samples of step `step` (0, 1, …)."""
        source = self.sources[self.source_of(step)]
        return [
            source.transform(source.dataset[index], np.random.default_rng((self.seed, 2, step, place)))
            for place, index in enumerate(self.indices(step))
        ]

    def _block(self, block: int) -> np.ndarray:
        while len(self._blocks) <= block:
            generator = np.random.default_rng((self.seed, 0, len(self._blocks)))
            drawn = generator.choice(len(self.sources), size=_BLOCK, p=self._probabilities)
            self._blocks.append(drawn)
            self._steps_before.append(self._steps_before[-1] + np.bincount(drawn, minlength=len(self.sources)))
        return self._blocks[block]

    def _index(self, number: int, position: int) -> int:
        epoch, place = divmod(position, len(self.sources[number].dataset))
        cached = self._permutations.get(number)
        if cached is None or cached[0] != epoch:
            generator = np.random.default_rng((self.seed, 1, number, epoch))
            cached = (epoch, generator.permutation(len(self.sources[number].dataset)))
            self._permutations[number] = cached
        return int(cached[1][place])


class _Steps(TorchDataset[Batch]):
    """Step index → Batch, for a DataLoader to fetch ahead."""

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture

    def __getitem__(self, index: int) -> Batch:
        return collate(self._mixture.batch_samples(index))


def _as_it_is(batch: Any) -> Any:
    return batch


def batches(mixture: Mixture, *, start: int, stop: int, workers: int = 0, prefetch: int = 4) -> Iterator[Batch]:
    """The batches of steps start … stop - 1, in order.

    Args:
        mixture: where they come from.
        start: the first step; a resumed run gives the step at which it stopped.
        stop: one past the last step.
        workers: processes that work ahead; 0 prepares each batch when it is asked for.
        prefetch: batches that each process keeps ready.
    """
    loader = DataLoader(
        _Steps(mixture),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=prefetch if workers else None,
        collate_fn=_as_it_is,
        generator=torch.Generator(),  # else the loader draws its workers' seeds from the global one
    )
    return iter(loader)
