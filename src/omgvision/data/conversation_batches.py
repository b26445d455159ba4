"""Conversations of several datasets in one training run, in batches of alike lengths; step n is always the same ones.

Letters: B conversations, S their tokens, N masks of a conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from .conversations import SEGMENT, Conversation, ConversationDataset

MAX_BAD_SAMPLES = 20
"""So many in a row that cannot be read are a broken dataset, not a broken file."""

# What a generator is for: each has its own seed.
_ORDERS, _SAMPLES, _REPLACEMENTS = range(3)


@dataclass
class ConversationBatch:
    """Conversations as `OmgLlavaForConditionalGeneration` takes them.

    Attributes:
        inputs: `input_ids`, `attention_mask` and `labels` [B, S]; with pictures and prompts also theirs.
        mask_labels: B tensors, bool [N, side, side] on the network input, one for each `[SEG]` of the labels.
        sample_ids: of the B conversations.
        skipped: what was wrong with samples that others had to replace, one line each.
    """

    inputs: dict[str, Tensor]
    mask_labels: list[Tensor]
    sample_ids: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class ConversationProcessor(Protocol):
    """What batches need of `OmgLlavaProcessor`, which this part of the package does not know."""

    tokenizer: Any

    def apply_chat_template(self, conversation: Sequence[Any], **options: Any) -> Mapping[str, Tensor]: ...

    def place_masks(self, masks: Any) -> Tensor: ...


def collate_conversations(
    conversations: Sequence[Conversation], processor: ConversationProcessor, *, max_length: int
) -> ConversationBatch:
    """Conversations → tensors; what is beyond `max_length` tokens (a picture counts as one) is cut, masks with it."""
    inputs = dict(
        processor.apply_chat_template(
            [conversation.messages for conversation in conversations],
            tokenize=True,
            return_dict=True,
            return_labels=True,
            max_length=max_length,
            overflow="cut",
        )
    )
    segment = processor.tokenizer.get_vocab()[SEGMENT]
    mask_labels = []
    for conversation, labels in zip(conversations, inputs["labels"], strict=True):
        masks = conversation.masks[: int((labels == segment).sum())]
        mask_labels.append(processor.place_masks(masks) if len(masks) else torch.zeros((0, 1, 1), dtype=torch.bool))
    return ConversationBatch(inputs, mask_labels, tuple(one.sample_id for one in conversations))


@dataclass(frozen=True)
class ConversationSource:
    """A part of a mixture.

    Attributes:
        dataset: see `ConversationDataset`.
        repeat: how often an epoch goes through it.
    """

    dataset: ConversationDataset
    repeat: int = 1


class ConversationMixture:
    """An endless, resumable sequence of batches.

    An epoch has every conversation of every dataset as often as it repeats (but for the few that do not fill a step).
    It is shuffled; then, within blocks of some steps, conversations are sorted by whether there is a picture and by
    length, so that those of a step are alike; the steps of a block come in random order. The lengths are those of the
    conversations that are drawn (the original's are of others).

    Shorter ones are filled up rather than packed into rows: where lengths are known beforehand, 1 to 3 % of a batch of
    eight is filling, while packing leaves 15 to 33 % of its rows empty, and the drawn order 9 to 28 %
    (benchmarks/results/conversation_padding.json).

    A sample that cannot be read (ValueError, OSError) is replaced by another of its dataset, and the batch says so.
    """

    def __init__(
        self,
        sources: Sequence[ConversationSource],
        *,
        collate: Callable[[Sequence[Conversation]], ConversationBatch],
        block: int = 50,
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        """Args:
            sources: at least one, none empty.
            collate: conversations → batch, for example `collate_conversations` with a processor.
            block: steps whose conversations are sorted together; 1 leaves them as shuffled.
            seed: of everything random.
            strict: raise what a bad sample raises instead of replacing it.
        Raises:
            ValueError: no source, an empty dataset, a repeat or block under 1.
        """
        if not sources:
            raise ValueError("sources: expected at least one")
        if block < 1:
            raise ValueError(f"block: expected at least 1, got {block}")
        for number, source in enumerate(sources):
            if len(source.dataset) == 0:
                raise ValueError(f"sources: dataset {number} is empty")
            if source.repeat < 1:
                raise ValueError(f"sources: repeat of dataset {number}: expected at least 1, got {source.repeat}")
        self._datasets = [source.dataset for source in sources]
        self._collate, self._block, self._seed, self._strict = collate, block, seed, strict
        parts, indices, lengths, pictured = [], [], [], []
        for part, source in enumerate(sources):
            outlines = [source.dataset.outline(index) for index in range(len(source.dataset))]
            parts.append(np.full(len(outlines) * source.repeat, part))
            indices.append(np.tile(np.arange(len(outlines)), source.repeat))
            lengths.append(np.tile([outline.characters for outline in outlines], source.repeat))
            pictured.append(np.tile([outline.pictured for outline in outlines], source.repeat))
        self._parts, self._indices = np.concatenate(parts), np.concatenate(indices)
        self._lengths, self._pictured = np.concatenate(lengths), np.concatenate(pictured)
        self._epoch: tuple[tuple[int, int], np.ndarray] | None = None

    @property
    def samples_per_epoch(self) -> int:
        """Conversations of all datasets together, each as often as it repeats."""
        return len(self._parts)

    def contents(self) -> list[tuple[str, int, float]]:
        """Name of each dataset, its conversations an epoch (with repeats), and its share of the steps."""
        counts = np.bincount(self._parts, minlength=len(self._datasets)).tolist()
        return [
            (dataset.name, count, count / len(self._parts))
            for dataset, count in zip(self._datasets, counts, strict=True)
        ]

    def kinds_of_steps(self) -> list[int]:
        """Of the first steps of one conversation, that of the longest one, and of the longest one with a picture."""
        steps = range(min(1024, len(self._parts)))
        items = [self._order(0, 1)[step, 0] for step in steps]
        longest = max(steps, key=lambda step: self._lengths[items[step]])
        pictured = max(steps, key=lambda step: (self._pictured[items[step]], self._lengths[items[step]]))
        return sorted({longest, pictured})

    def items(self, step: int, *, samples: int) -> list[tuple[int, int]]:
        """The conversations of a step of so many: number of the dataset, number in the dataset.

        Raises:
            ValueError: an epoch has fewer conversations than a step.
        """
        steps = len(self._parts) // samples
        if not steps:
            raise ValueError(f"batch_size: expected at most the {len(self._parts)} conversations, got {samples} a step")
        order = self._order(step // steps, samples)[step % steps]
        return [(int(self._parts[item]), int(self._indices[item])) for item in order]

    def _order(self, epoch: int, samples: int) -> np.ndarray:
        """Int [steps, samples], the conversations of an epoch; the last one asked for is kept."""
        if self._epoch is None or self._epoch[0] != (epoch, samples):
            generator = np.random.default_rng((self._seed, _ORDERS, epoch))
            steps = len(self._parts) // samples
            shuffled = generator.permutation(len(self._parts))[: steps * samples]
            blocks = []
            for start in range(0, steps, self._block):
                items = shuffled[start * samples : (start + self._block) * samples]
                if self._block > 1:
                    items = items[np.lexsort((self._lengths[items], self._pictured[items]))]
                blocks.append(generator.permutation(items.reshape(-1, samples)))
            self._epoch = (epoch, samples), np.concatenate(blocks)
        return self._epoch[1]

    def batch(
        self, step: int, *, size: tuple[int, int] | None = None, batch_size: int, part: int = 0, parts: int = 1
    ) -> ConversationBatch:
        """A part of the conversations of a step. How they are divided into parts changes none of them.

        Args:
            step: 0, 1, …
            size: as other sources take it; of no effect, the processor decides it.
            batch_size: conversations in this part.
            part, parts: which one of how many (processes × accumulated batches).
        Raises:
            ValueError: too many samples in a row that cannot be read; the message ends with the last one's.
        """
        first = part * batch_size
        items = self.items(step, samples=batch_size * parts)[first : first + batch_size]
        drawn, skipped = [], []
        for place, (number, index) in enumerate(items, start=first):
            drawn.append(self._draw(number, index, (step, place), skipped))
        batch = self._collate(drawn)
        batch.skipped = tuple(skipped)
        return batch

    def _draw(self, number: int, index: int, where: tuple[int, int], skipped: list[str]) -> Conversation:
        dataset = self._datasets[number]
        replacements = np.random.default_rng((self._seed, _REPLACEMENTS, *where))
        for attempt in range(MAX_BAD_SAMPLES):
            generator = np.random.default_rng((self._seed, _SAMPLES, *where, attempt))
            try:
                return dataset.draw(index, generator)
            except (ValueError, OSError) as error:
                if self._strict:
                    raise
                skipped.append(str(error))
                index = int(replacements.integers(len(dataset)))
        raise ValueError(f"{dataset.name}: {MAX_BAD_SAMPLES} samples in a row cannot be read, the last: {skipped[-1]}")
