"""Conversations about a picture: what their readers and makers yield.

Letters: N masks of a conversation, H, W height and width.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

SEGMENT, MARK, REGION, IMAGE = "[SEG]", "<mark>", "<region>", "<image>"
"""In texts: "here is a mask", what a point and what a box or mask stands for in a question, and the picture."""

Prompt = Mapping[str, Any]
"""One of `{"point": (x, y)}`, `{"points": [(x, y), …], "labels": [1, 0, …]}`, `{"box": (x1, y1, x2, y2)}` and
`{"mask": bool [H, W]}`, in pixels of the picture."""

PLACEHOLDERS = {"point": MARK, "points": MARK, "box": REGION, "mask": REGION}
"""What stands for each kind of prompt."""


@dataclass(frozen=True)
class Turn:
    """A question and its answer.

    Attributes:
        question: with a placeholder for each prompt, and without the picture's token.
        answer: with a `[SEG]` for each mask; what it belongs to stands before it: `<p> The dog </p> [SEG]`.
    """

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """One conversation, about one picture or none.

    Attributes:
        image: uint8 [3, H, W], RGB; None for text alone.
        turns: at least one.
        masks: bool [N, H, W], of the `[SEG]`s of all answers in their order; [0, H, W] or [0, 0, 0] without any.
        prompts: of the placeholders of all questions, in their order.
        sample_id: unique within the dataset.
        dataset: the dataset's short name.

    Raises:
        ValueError: what `faults` finds.
    """

    image: Tensor | None
    turns: tuple[Turn, ...]
    _: KW_ONLY
    masks: Tensor
    prompts: tuple[Prompt, ...] = ()
    sample_id: str
    dataset: str

    def __post_init__(self) -> None:
        if self.image is not None and len(self.masks) and self.masks.shape[1:] != self.image.shape[1:]:
            raise ValueError(
                f"{self.dataset}: sample {self.sample_id}: expected masks of the picture's size "
                f"{list(self.image.shape[1:])} (height, width), got {list(self.masks.shape[1:])}"
            )
        found = faults(self.turns, masks=len(self.masks), prompts=self.prompts, pictured=self.image is not None)
        if found:
            raise ValueError(f"{self.dataset}: sample {self.sample_id}: {found[0]}")

    @property
    def messages(self) -> list[dict[str, Any]]:
        """As transformers' chat templates take them: parts of text, picture and prompts."""
        prompts = iter(self.prompts)
        messages: list[dict[str, Any]] = []
        for number, turn in enumerate(self.turns):
            parts: list[dict[str, Any]] = []
            if number == 0 and self.image is not None:
                parts.append({"type": "image", "image": self.image})
            for piece in re.split(f"({MARK}|{REGION})", turn.question):
                if piece in (MARK, REGION):
                    prompt = next(prompts)
                    parts.append({"type": kind_of(prompt), **prompt})
                elif piece:
                    parts.append({"type": "text", "text": piece})
            messages.append({"role": "user", "content": parts})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages


@dataclass(frozen=True)
class Outline:
    """What is known of a conversation before its picture is opened, for batches of alike ones.

    Attributes:
        characters: of all its texts; where these are drawn anew each time, about so many.
        pictured: it has a picture.
    """

    characters: int
    pictured: bool


class ConversationDataset(Protocol):
    """What every reader and every maker of conversations is.

    Attributes:
        name: the dataset's short name.
    """

    name: str

    def __len__(self) -> int: ...

    def outline(self, index: int, /) -> Outline: ...

    def draw(self, index: int, generator: np.random.Generator, /) -> Conversation:
        """Conversation `index`; what there is to choose (sentences, regions, templates) follows from the generator.

        Raises:
            ValueError: the sample cannot be read; the message names it.
        """
        ...


def kind_of(prompt: Prompt) -> str:
    """Which of `PLACEHOLDERS` a prompt is.

    Raises:
        ValueError: none of them, or two.
    """
    kinds = [kind for kind in PLACEHOLDERS if kind in prompt]
    if len(kinds) != 1:
        raise ValueError(f"prompts: expected one of {', '.join(PLACEHOLDERS)}, got {sorted(map(str, prompt))}")
    return kinds[0]


def faults(turns: Sequence[Turn], *, masks: int, prompts: Sequence[Prompt], pictured: bool) -> list[str]:
    """What is wrong with a conversation, a line each; nothing if it can be trained on."""
    if not turns:
        return ["turns: expected at least one question with its answer, got none"]
    found = [
        f"turn {number}: expected a question and an answer, one of them is empty"
        for number, turn in enumerate(turns)
        if not turn.question.strip() or not turn.answer.strip()
    ]
    if any(IMAGE in turn.question or IMAGE in turn.answer for turn in turns):
        found.append(f"turns: expected no {IMAGE} in a text, the picture comes first by itself")
    if any(mark in turn.answer for turn in turns for mark in (MARK, REGION)):
        found.append(f"turns: expected {MARK} and {REGION} in questions only, an answer has one")
    segments = sum(turn.answer.count(SEGMENT) for turn in turns)
    if any(SEGMENT in turn.question for turn in turns):
        found.append(f"turns: expected {SEGMENT} in answers only, a question has one")
    if segments != masks:
        found.append(f"masks: expected one for each {SEGMENT} of the answers ({segments}), got {masks}")
    marks = [mark for turn in turns for mark in re.findall(f"{MARK}|{REGION}", turn.question)]
    wanted = [PLACEHOLDERS[kind_of(prompt)] for prompt in prompts]
    if marks != wanted:
        found.append(
            f"prompts: expected those of the placeholders ({' '.join(marks) or 'none'}), got prompts for "
            f"{' '.join(wanted) or 'none'}; a point is {MARK}, a box or mask {REGION}"
        )
    if not pictured and (masks or segments or prompts or marks):
        found.append("image: expected a picture for masks and prompts, got none")
    return found


def no_masks(image: Tensor | None) -> Tensor:
    """The `masks` of a conversation without any."""
    height, width = (0, 0) if image is None else image.shape[1:]
    return torch.zeros((0, height, width), dtype=torch.bool)
