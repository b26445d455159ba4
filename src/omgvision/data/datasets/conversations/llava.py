"""LLaVA's instruct files (LLaVA-Pretrain, the mix of 665k): a list of `{"id", "image", "conversations"}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...conversations import MARK, REGION, SEGMENT, Conversation, Outline, no_masks
from .published import PublishedConversations, entries_of, length_of, turns_of


class LlavaConversations(PublishedConversations):
    """A conversation an entry, with a picture or of text alone."""

    def __init__(
        self, path: str | Path, *, images: str | Path, strict: bool = False, name: str = "llava_instruct"
    ) -> None:
        """Args:
            path: the json.
            images: folder that the names of the pictures are relative to.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: no such file, of another form, no sample remains.
        """
        super().__init__(entries_of(path), images=images, fault=_fault, name=name, strict=strict)

    def outline(self, index: int) -> Outline:
        entry = self._entries[index]
        return Outline(length_of(turns_of(entry["conversations"])), pictured=bool(entry.get("image")))

    def draw(self, index: int, _: np.random.Generator | None = None, /) -> Conversation:
        """Raises ValueError naming the file if the picture cannot be read."""
        entry = self._entries[index]
        image = self._picture(entry["image"]) if entry.get("image") else None
        return Conversation(
            image,
            turns_of(entry["conversations"]),
            masks=no_masks(image),
            sample_id=str(entry.get("id", index)),
            dataset=self.name,
        )


def _fault(entry: Any) -> str | None:
    turns = turns_of(entry["conversations"])
    if not turns:
        return "expected a question with its answer, got none"
    if any(not turn.question or not turn.answer for turn in turns):
        return "expected questions and answers with words, got an empty one"
    if any(token in turn.question + turn.answer for turn in turns for token in (SEGMENT, MARK, REGION)):
        return f"expected no {SEGMENT}, {MARK}, {REGION}, which have no masks and prompts here"
    return None
