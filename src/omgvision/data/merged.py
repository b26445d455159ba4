"""One vocabulary for several datasets: classes that share a name become one.

The rule is the original's: names are spelt alike ('_or_' and '/' separate synonyms as ',' does, '_' is a space, lower
case), and a class joins the first earlier one with which it has a synonym in common, things with things and stuff with
stuff. What a class is joined by are the synonyms of the one that came first, so that chains of synonyms do not run on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .sample import Clip, ClipDataset, Sample, SampleDataset, portrait_of


@dataclass(frozen=True)
class MergedVocabulary:
    """The classes of several datasets, all things before all stuff.

    Attributes:
        names: each with the synonyms of all classes that it stands for, separated by commas.
        things: for each name, whether it is countable.
        tables: for each dataset, int64 [K + 1], label → index into `names`; the last entry, which label -1 (not known)
            reaches as well, is -1.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    tables: tuple[Tensor, ...]

    @property
    def counts(self) -> tuple[int, int]:
        """How many things and how many stuff classes."""
        return sum(self.things), len(self.things) - sum(self.things)


def merge_vocabularies(vocabularies: Sequence[tuple[Sequence[str], Sequence[bool]]]) -> MergedVocabulary:
    """Joins vocabularies in their order.

    Args:
        vocabularies: names and things of each dataset; both empty for class-agnostic data.
    Raises:
        ValueError: as many things as names were expected.
    """
    firsts: dict[bool, list[set[str]]] = {True: [], False: []}
    joined: dict[bool, list[dict[str, None]]] = {True: [], False: []}
    places: list[list[tuple[bool, int]]] = []
    for number, (names, things) in enumerate(vocabularies):
        if len(names) != len(things):
            raise ValueError(f"vocabularies: number {number} has {len(names)} names and {len(things)} things")
        places.append([])
        for name, thing in zip(names, things, strict=True):
            synonyms = spelt_alike(name)
            earlier = (place for place, first in enumerate(firsts[thing]) if first & set(synonyms))
            place = next(earlier, len(firsts[thing]))
            if place == len(firsts[thing]):
                firsts[thing].append(set(synonyms))
                joined[thing].append({})
            joined[thing][place].update(dict.fromkeys(synonyms))
            places[-1].append((thing, place))
    count = len(joined[True])
    tables = [[place if thing else count + place for thing, place in dataset] for dataset in places]
    return MergedVocabulary(
        names=tuple(",".join(synonyms) for synonyms in [*joined[True], *joined[False]]),
        things=(True,) * count + (False,) * len(joined[False]),
        tables=tuple(torch.tensor([*table, -1], dtype=torch.int64) for table in tables),
    )


def spelt_alike(name: str) -> list[str]:
    """The synonyms of a class name: "Wall_or_brick/stone_wall" → ["wall", "brick", "stone wall"]."""
    spelling = name.replace("_or_", ",").replace("/", ",").replace("_", " ").lower()
    return [synonym.strip() for synonym in spelling.split(",") if synonym.strip()]


class Relabelled:
    """A dataset of images in the words of a merged vocabulary."""

    def __init__(self, dataset: SampleDataset, *, vocabulary: MergedVocabulary, number: int) -> None:
        """Args:
        dataset: of images.
        vocabulary: made from this dataset's names among others.
        number: which of `vocabulary.tables` is this dataset's.
        """
        self._dataset, self._vocabulary, self._number = dataset, vocabulary, number

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        return relabelled(self._dataset[index], self._vocabulary, self._number)

    @property
    def portrait(self) -> Sequence[bool] | None:
        return portrait_of(self._dataset)


class RelabelledClips:
    """A dataset of clips in the words of a merged vocabulary; arguments as of `Relabelled`."""

    def __init__(self, dataset: ClipDataset, *, vocabulary: MergedVocabulary, number: int) -> None:
        self._dataset, self._vocabulary, self._number = dataset, vocabulary, number

    def __len__(self) -> int:
        return len(self._dataset)

    def clip(self, index: int, generator: np.random.Generator) -> Clip:
        clip = self._dataset.clip(index, generator)
        return Clip(tuple(relabelled(frame, self._vocabulary, self._number) for frame in clip.frames))

    @property
    def portrait(self) -> Sequence[bool] | None:
        return portrait_of(self._dataset)


def relabelled(sample: Sample, vocabulary: MergedVocabulary, number: int) -> Sample:
    """The sample with labels of the merged vocabulary; stuff of what is now one class becomes one segment."""
    labels = vocabulary.tables[number][sample.labels]
    segment_of: dict[int, int] = {}
    # The first segment of a class takes in the others, unless they can be counted.
    first = [
        segment if label < 0 or vocabulary.things[label] else segment_of.setdefault(label, segment)
        for segment, label in enumerate(labels.tolist())
    ]
    sample = replace(sample, labels=labels, names=vocabulary.names, things=vocabulary.things)
    kept = sorted(set(first))
    if len(kept) == len(first):
        return sample
    numbers = torch.tensor([0, *(1 + kept.index(segment) for segment in first)], dtype=sample.segment_layers.dtype)
    return replace(sample, segment_layers=numbers[sample.segment_layers.long()], labels=labels[kept])
