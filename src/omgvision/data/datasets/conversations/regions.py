"""Conversations about regions and points: Osprey's descriptions and conversations, and MDPV."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...conversation_words import grounded
from ...conversations import MARK, REGION, SEGMENT, Conversation, Outline, Turn, no_masks
from .published import (
    PublishedConversations,
    announced,
    entries_of,
    length_of,
    turns_of,
    with_prefix,
    without_brackets,
)

DESCRIBE_QUESTIONS = (
    "Can you provide me with a detailed description of the region in the picture marked by {}?",
    "What do you see in {}?",
    "Describe {} in detail.",
    "Tell me everything about {}.",
)


class OspreyDescriptions(PublishedConversations):
    """A list of `{"file_name", "description": [text, …], "annotation": [{"segmentation"}, …]}`.

    Some regions of a picture are asked about, a turn each; in the end one of them is to be segmented by its name.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: str | Path,
        most: int = 3,
        strict: bool = False,
        name: str = "osprey_descriptions",
    ) -> None:
        """Args:
            path: the json.
            images: folder of COCO's pictures.
            most: regions of a conversation.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: no such file, of another form, no sample remains.
        """
        super().__init__(entries_of(path), images=images, fault=_description_fault, name=name, strict=strict)
        self._most = most

    def outline(self, index: int) -> Outline:
        texts = self._entries[index]["description"]
        asked = min(self._most, len(texts))
        return Outline(asked * (sum(map(len, texts)) // len(texts) + len(DESCRIBE_QUESTIONS[0])), pictured=True)

    def draw(self, index: int, generator: np.random.Generator) -> Conversation:
        """Raises ValueError naming the file or the sample if the picture or a mask cannot be read."""
        entry = self._entries[index]
        texts = entry["description"]
        sample_id = f"{entry['file_name']}-{index}"
        chosen = generator.choice(len(texts), size=min(self._most, len(texts)), replace=False).tolist()
        segmented = int(generator.integers(len(chosen)))
        image = self._picture(Path(entry["file_name"]).name)
        masks = self._decoded(
            [entry["annotation"][place]["segmentation"] for place in chosen], image, sample_id=sample_id
        )
        templates = [DESCRIBE_QUESTIONS[generator.integers(len(DESCRIBE_QUESTIONS))] for _ in chosen]
        turns = [
            Turn(template.format(f"region{number} {REGION}"), named(texts[place], number))
            for number, (template, place) in enumerate(zip(templates, chosen, strict=True), start=1)
        ]
        last = segmented + 1
        turns.append(Turn(f"Please segment the region{last}.", f"{grounded(f'Region{last}')}."))
        return Conversation(
            image,
            tuple(turns),
            masks=masks[segmented : segmented + 1],
            prompts=tuple({"mask": mask} for mask in masks),
            sample_id=sample_id,
            dataset=self.name,
        )


class OspreyConversations(PublishedConversations):
    """A list of `{"file_name", "annotation": [{"segmentation"}, …], "conversations"}` about all regions of an entry."""

    def __init__(
        self, path: str | Path, *, images: str | Path, strict: bool = False, name: str = "osprey_conversations"
    ) -> None:
        """Args as of `OspreyDescriptions`.

        Raises:
            ValueError: no such file, of another form, no sample remains.
        """
        super().__init__(entries_of(path), images=images, fault=_conversation_fault, name=name, strict=strict)

    def outline(self, index: int) -> Outline:
        return Outline(length_of(self._turns(index)), pictured=True)

    def _turns(self, index: int) -> tuple[Turn, ...]:
        entry = self._entries[index]
        return pointed(entry["conversations"], announced(REGION, len(entry["annotation"])))

    def draw(self, index: int, _: np.random.Generator | None = None, /) -> Conversation:
        """Raises ValueError naming the file or the sample if the picture or a mask cannot be read."""
        entry = self._entries[index]
        image, sample_id = self._picture(Path(entry["file_name"]).name), f"{entry['file_name']}-{index}"
        regions = self._decoded([one["segmentation"] for one in entry["annotation"]], image, sample_id=sample_id)
        return Conversation(
            image,
            self._turns(index),
            masks=no_masks(image),
            prompts=tuple({"mask": mask} for mask in regions),
            sample_id=sample_id,
            dataset=self.name,
        )


class MdpvConversations(PublishedConversations):
    """MDPV's lists of `{"image", "points": [[x, y], …], "conversations"}` about all points of an entry."""

    def __init__(
        self, path: str | Path, *, images: str | Path | Sequence[str | Path], strict: bool = False, name: str = "mdpv"
    ) -> None:
        """Args:
            path: the json.
            images: the folder of the pictures, or several: the first that has a picture of this name is taken (Visual
                Genome comes in two).
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: no such file, of another form, no sample remains.
        """
        self._folders = [Path(images)] if isinstance(images, str | Path) else [Path(each) for each in images]
        super().__init__(entries_of(path), images=self._folders[0], fault=_points_fault, name=name, strict=strict)

    def outline(self, index: int) -> Outline:
        return Outline(length_of(self._turns(index)), pictured=True)

    def _turns(self, index: int) -> tuple[Turn, ...]:
        entry = self._entries[index]
        return pointed(entry["conversations"], announced(MARK, len(entry["points"])))

    def draw(self, index: int, _: np.random.Generator | None = None, /) -> Conversation:
        """Raises ValueError naming the file if the picture cannot be read, or the sample if a point is beside it."""
        entry = self._entries[index]
        name = Path(entry["image"]).name
        folder = next((folder for folder in self._folders if (folder / name).is_file()), self._folders[0])
        image = self._picture(str((folder / name).absolute()))
        height, width = image.shape[1], image.shape[2]
        outside = [(x, y) for x, y in entry["points"] if not (0 <= x <= width and 0 <= y <= height)]
        if outside:
            raise ValueError(
                f"{self.name}: sample {name}-{index}: expected points on the picture of {width}x{height} pixels, got "
                f"{outside[0]}"
            )
        return Conversation(
            image,
            self._turns(index),
            masks=no_masks(image),
            prompts=tuple({"point": (float(x), float(y))} for x, y in entry["points"]),
            sample_id=f"{name}-{index}",
            dataset=self.name,
        )


def named(text: str, number: int) -> str:
    """A description in which whatever stands in angle brackets is this region: "A <reg> cat" → "A region2 cat"."""
    return re.sub(r"<[^<>]*>", f"region{number}", text).strip()


def pointed(messages: Sequence[Any], prefix: str) -> tuple[Turn, ...]:
    """The conversation with names instead of brackets, after the line that says what the placeholders are."""
    turns = [Turn(without_brackets(turn.question), without_brackets(turn.answer)) for turn in turns_of(messages)]
    return with_prefix(turns, prefix)


def _description_fault(entry: Any) -> str | None:
    texts, regions = entry["description"], entry["annotation"]
    if not texts or len(texts) != len(regions):
        return f"expected a description for each of {len(regions)} regions, got {len(texts)}"
    if not all(one["segmentation"] for one in regions):
        return "expected a segmentation of each region, got none"
    if not all(isinstance(text, str) and text.strip() and SEGMENT not in text for text in texts):
        return f"expected descriptions with words and without {SEGMENT}, got another"
    return _name_fault(entry["file_name"])


def _conversation_fault(entry: Any) -> str | None:
    if not entry["annotation"] or not all(one["segmentation"] for one in entry["annotation"]):
        return "expected a segmentation of each region, got none"
    return _turns_fault(entry) or _name_fault(entry["file_name"])


def _points_fault(entry: Any) -> str | None:
    if not entry["points"] or not all(len(point) == 2 and np.isfinite(point).all() for point in entry["points"]):
        return "expected points x, y, got none or others"
    return _turns_fault(entry) or _name_fault(entry["image"])


def _turns_fault(entry: Any) -> str | None:
    turns = turns_of(entry["conversations"])
    if not turns or not all(turn.question and turn.answer for turn in turns):
        return "expected questions and answers with words, got none"
    return None if not any(SEGMENT in turn.question + turn.answer for turn in turns) else f"expected no {SEGMENT}"


def _name_fault(name: Any) -> str | None:
    return None if isinstance(name, str) and name else "expected the name of a picture, got none"
