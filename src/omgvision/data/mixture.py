"""Several datasets in one training run: a step is of one of them, and step n is always the same samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from itertools import islice

import numpy as np
import torch

from .collate import collate
from .prompts import PromptSampling
from .sample import Batch, Clip, ClipDataset, Sample, SampleDataset, portrait_of
from .transforms import Augmentation

logger = logging.getLogger(__name__)

MAX_BAD_SAMPLES = 20
"""So many in a row that cannot be read are a broken dataset, not a broken file."""

_BLOCK = 1024  # steps whose datasets are determined at once
_GOLDEN = (5**0.5 - 1) / 2
_LANDSCAPE, _PORTRAIT = 0, 1
# What a generator is for: each has its own seed.
_SOURCES, _ORDERS, _SAMPLES, _REPLACEMENTS, _PROMPTS = range(5)


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

    @property
    def portrait(self) -> Sequence[bool] | None:
        return portrait_of(self._dataset)


class Subset:
    """Some samples of a dataset, as a dataset."""

    def __init__(self, dataset: SampleDataset, indices: Sequence[int]) -> None:
        self._dataset, self._indices = dataset, list(indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[self._indices[index]]

    @property
    def portrait(self) -> Sequence[bool] | None:
        flags = portrait_of(self._dataset)
        return None if flags is None else [flags[index] for index in self._indices]


@dataclass(frozen=True)
class Source:
    """Images as a part of a mixture.

    Attributes:
        dataset: len and getitem. One that is `Oriented` gives steps of one orientation: landscape pictures on the
            canvas lying down, portrait ones on the same canvas upright.
        weight: share of the steps, relative to the other parts'; None for its length times `repeat`.
        repeat: how often an epoch of the mixture goes through the dataset.
        augmentation: its `size` is replaced by the canvas.
        prompts: makes this a part that trains prompts; None for one that trains object queries.
    """

    dataset: SampleDataset
    _: KW_ONLY
    weight: float | None = None
    repeat: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    prompts: PromptSampling | None = None

    def draw(self, index: int, generator: np.random.Generator, *, size: tuple[int, int]) -> Sample:
        """Sample `index`, augmented."""
        return replace(self.augmentation, size=size)(self.dataset[index], generator)


@dataclass(frozen=True)
class ClipSource:
    """Clips as a part of a mixture; attributes as of `Source`."""

    dataset: ClipDataset
    _: KW_ONLY
    weight: float | None = None
    repeat: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def draw(self, index: int, generator: np.random.Generator, *, size: tuple[int, int]) -> Clip:
        """A clip of video `index`, augmented."""
        return replace(self.augmentation, size=size).clip(self.dataset.clip(index, generator), generator)


class Mixture:
    """An endless, resumable sequence of batches.

    Each step is of one dataset, chosen by weight. Each dataset is walked in seeded permutations: as long as the number
    of samples a step stays the same, every sample comes once before any comes again. Everything follows from the seed
    and the number of the step.

    A sample that cannot be read (ValueError, OSError) is replaced by another of its dataset, and the batch says so.
    """

    def __init__(self, sources: Sequence[Source | ClipSource], *, seed: int = 0, strict: bool = False) -> None:
        """Args:
            sources: at least one, none empty; a weight for all of them or for none.
            seed: of everything random.
            strict: raise what a bad sample raises instead of replacing it.
        Raises:
            ValueError: no source, an empty dataset, a weight or repeat that is not positive or beside the other.
        """
        if not sources:
            raise ValueError("sources: expected at least one")
        weighted = [source.weight is not None for source in sources]
        if any(weighted) and (not all(weighted) or any(source.repeat != 1 for source in sources)):
            raise ValueError("sources: expected weights for all of them without repeats, or for none of them")
        for number, source in enumerate(sources):
            if len(source.dataset) == 0:
                raise ValueError(f"sources: dataset {number} is empty")
            for name, value in (("weight", source.weight), ("repeat", source.repeat)):
                if value is not None and not value > 0:
                    raise ValueError(f"sources: {name} of dataset {number}: expected more than 0, got {value}")
        self.sources = tuple(sources)
        self.seed, self.strict = seed, strict
        self._lengths = [len(source.dataset) * source.repeat for source in sources]
        weights = self._lengths if not any(weighted) else [source.weight for source in sources]
        self._shares = np.cumsum(np.array(weights, dtype=np.float64))
        self._shares /= self._shares[-1]
        self._groups = [_by_orientation(source.dataset) for source in sources]
        self._blocks: list[np.ndarray] = []
        self._steps_before = [np.zeros(len(sources), dtype=np.int64)]
        self._permutations: dict[tuple[int, int], tuple[int, np.ndarray]] = {}

    @property
    def samples_per_epoch(self) -> int:
        """Samples of all datasets together, each as often as it repeats."""
        return round(sum(self._lengths))

    def contents(self) -> list[tuple[str, int, float]]:
        """Of each dataset its name, as its first sample has it, samples an epoch (with repeats), share of the steps.

        Samples before that one that cannot be read are named in the log.

        Raises:
            ValueError: as `batch`.
        """
        shares = np.diff(self._shares, prepend=0.0).tolist()
        names, skipped = [], []
        for number, source in enumerate(self.sources):
            first = self._first(number, range(len(source.dataset)), size=(64, 64), seeds=(_SAMPLES,), skipped=skipped)
            names.append(first.dataset)
        for line in skipped:
            logger.warning("left out: %s", line)
        return [(name, round(length), share) for name, length, share in zip(names, self._lengths, shares, strict=True)]

    def kinds_of_steps(self) -> list[int]:
        """For every dataset that comes within a block of steps, the first step that is of it."""
        first: dict[int, int] = {}
        for step in range(_BLOCK):
            first.setdefault(self.source_of(step), step)
        return list(first.values())

    def source_of(self, step: int) -> int:
        """Which source step `step` draws from."""
        return int(self._block(step // _BLOCK)[step % _BLOCK])

    def indices(self, step: int, *, batch_size: int, part: int = 0, parts: int = 1) -> list[int]:
        """Which samples of its source part `part` of step `step` takes; arguments as of `batch`."""
        number, group, turn = self._turn(step)
        first = (turn * parts + part) * batch_size
        return [self._index(number, group, first + place) for place in range(batch_size)]

    def batch(self, step: int, *, size: tuple[int, int], batch_size: int, part: int = 0, parts: int = 1) -> Batch:
        """A part of the samples of a step. How they are divided into parts changes none of them.

        Args:
            step: 0, 1, …
            size: (height, width) of the canvas.
            batch_size: samples in this part.
            part, parts: which one of how many (processes × accumulated batches).
        Raises:
            ValueError: arguments out of range; `MAX_BAD_SAMPLES` bad samples in a row, or one if `strict`.
        """
        if batch_size < 1 or not 0 <= part < parts:
            raise ValueError(f"batch: expected 1 sample or more and part < parts, got {batch_size}, {part} of {parts}")
        number, group, _ = self._turn(step)
        if len(self._groups[number]) == 2:
            size = (min(size), max(size)) if group == _LANDSCAPE else (max(size), min(size))
        places = range(part * batch_size, (part + 1) * batch_size)
        skipped: list[str] = []
        samples = [
            self._sample(step, place, index, size=size, skipped=skipped)
            for place, index in zip(
                places, self.indices(step, batch_size=batch_size, part=part, parts=parts), strict=True
            )
        ]
        batch = collate(samples, size=size)
        batch.skipped = tuple(skipped)
        source = self.sources[number]
        if isinstance(source, Source) and source.prompts is not None:
            seeds = [self._generator(_PROMPTS, step, place).integers(2**63) for place in places]
            batch.prompts = source.prompts.draw(
                batch.mask_labels,
                sizes=[sample.size for sample in samples],
                generators=[torch.Generator().manual_seed(int(seed)) for seed in seeds],
            )
        return batch

    def _sample(self, step: int, place: int, index: int, *, size: tuple[int, int], skipped: list[str]) -> Sample | Clip:
        """Sample `index` of the step's source; where it cannot be read, others are tried, drawn at random."""
        number, group, _ = self._turn(step)

        def indices() -> Iterator[int]:
            yield index
            others = self._generator(_REPLACEMENTS, step, place)
            while True:
                yield int(others.choice(self._groups[number][group]))

        return self._first(number, indices(), size=size, seeds=(_SAMPLES, step, place), skipped=skipped)

    def _first(
        self, number: int, indices: Iterable[int], *, size: tuple[int, int], seeds: tuple[int, ...], skipped: list[str]
    ) -> Sample | Clip:
        """The first of some samples of a source that can be read; all are drawn with the same generator."""
        reasons: list[str] = []
        for index in islice(indices, MAX_BAD_SAMPLES):
            try:
                sample = self.sources[number].draw(index, self._generator(*seeds), size=size)
            except (OSError, ValueError) as error:
                if self.strict:
                    raise ValueError(f"sample {index} of dataset {number} of the mixture: {error}") from error
                reasons.append(f"sample {index}: {error}")
            else:
                skipped += [f"{sample.dataset}: {reason}" for reason in reasons]
                return sample
        raise ValueError(
            f"dataset {number} of the mixture: {len(reasons)} samples in a row cannot be read; {reasons[-1]}"
        )

    def _generator(self, purpose: int, *numbers: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, purpose, *numbers))

    def _turn(self, step: int) -> tuple[int, int, int]:
        """Source of a step, which of its groups the step takes from, and how many earlier steps took from that."""
        block, offset = divmod(step, _BLOCK)
        number = self.source_of(step)
        earlier = int(self._steps_before[block][number] + (self._blocks[block][:offset] == number).sum())
        groups = self._groups[number]
        if len(groups) == 1:
            return number, 0, earlier
        # Portraits, p of n pictures, take p of n steps, evenly: the first k steps have floor(k p / n) of them.
        count = sum(map(len, groups))
        portraits, after = ((earlier + more) * len(groups[_PORTRAIT]) // count for more in (0, 1))
        return (number, _PORTRAIT, portraits) if after > portraits else (number, _LANDSCAPE, earlier - portraits)

    def _block(self, block: int) -> np.ndarray:
        while len(self._blocks) <= block:
            first = len(self._blocks) * _BLOCK
            # Multiples of the golden ratio fill the unit interval evenly: shares hold to a few steps at any time.
            start = self._generator(_SOURCES).random()
            drawn = (start + _GOLDEN * np.arange(first, first + _BLOCK)) % 1
            numbers = np.searchsorted(self._shares[:-1], drawn, side="right")
            self._blocks.append(numbers)
            self._steps_before.append(self._steps_before[-1] + np.bincount(numbers, minlength=len(self.sources)))
        return self._blocks[block]

    def _index(self, number: int, group: int, position: int) -> int:
        indices = self._groups[number][group]
        epoch, place = divmod(position, len(indices))
        cached = self._permutations.get((number, group))
        if cached is None or cached[0] != epoch:
            cached = (epoch, self._generator(_ORDERS, number, group, epoch).permutation(indices))
            self._permutations[number, group] = cached
        return int(cached[1][place])


def _by_orientation(dataset: SampleDataset | ClipDataset) -> list[np.ndarray]:
    """The samples' numbers; those of landscape and those of portrait pictures apart, where the dataset tells."""
    numbers = np.arange(len(dataset))
    flags = portrait_of(dataset)
    if flags is None:
        return [numbers]
    portrait = np.asarray(flags, dtype=bool)
    return [numbers[~portrait], numbers[portrait]]
