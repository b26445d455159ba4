"""Sentences of the RefCOCO family as conversations: segment what the sentence means."""

from __future__ import annotations

import numpy as np
import torch

from ...conversation_words import SEGMENT_QUESTIONS, grounded
from ...conversations import Conversation, Outline, Turn
from ..referring import RefCoco


class ReferringConversations:
    """A conversation for each picture of RefCOCO, RefCOCO+, RefCOCOg or RefCLEF: some of its sentences, a turn each.

    Attributes:
        name: the dataset's short name.
    """

    def __init__(self, dataset: RefCoco, *, most: int = 3) -> None:
        """Args:
        dataset: the reader of one split.
        most: sentences of a conversation.
        """
        self.name, self._dataset, self._most = dataset.name, dataset, most
        self._groups = dataset.by_image()

    def __len__(self) -> int:
        return len(self._groups)

    def outline(self, index: int) -> Outline:
        """A sentence has some thirty characters."""
        return Outline(100 * min(self._most, len(self._groups[index])), pictured=True)

    def draw(self, index: int, generator: np.random.Generator) -> Conversation:
        """Raises ValueError if the picture or a mask cannot be read."""
        group = self._groups[index]
        chosen = generator.choice(len(group), size=min(self._most, len(group)), replace=False)
        referred = [self._dataset[group[place]] for place in chosen]
        questions = [SEGMENT_QUESTIONS[generator.integers(len(SEGMENT_QUESTIONS))] for _ in referred]
        return Conversation(
            referred[0].image,
            tuple(
                Turn(question.format(one.sentence.strip().lower()), referring_answer(one.sentence))
                for question, one in zip(questions, referred, strict=True)
            ),
            masks=torch.stack([one.mask for one in referred]),
            sample_id=referred[0].sample_id,
            dataset=self.name,
        )


def referring_answer(sentence: str) -> str:
    """What the published weights answer: "Man in BLUE " → "<p> Man in blue </p> [SEG]."."""
    return f"{grounded(sentence.strip().capitalize())}."
