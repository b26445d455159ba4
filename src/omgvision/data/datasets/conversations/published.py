"""What the readers of published conversations share: their json, their pictures, their texts.

The formats are described in the papers and repositories of LLaVA, GLaMM (GranD-f), Osprey and MDPV; which of them
OMG-LLaVA was trained on, and the canonical questions, in its paper.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...conversations import IMAGE, MARK, REGION, Turn
from ..coco import decode_segmentation
from ..reading import Findings, Records, read_rgb
from .own import read_list

Usable = Callable[[Any], str | None]
"""An entry → what is wrong with it, None if nothing."""


class PublishedConversations:
    """Entries of a json list, checked at the start; what a subclass makes of them is in its `outline` and `draw`.

    Attributes:
        name: the dataset's short name.
        findings: what was left out, and why.
    """

    def __init__(
        self, entries: Sequence[Any], *, images: str | Path, fault: Usable, name: str, strict: bool = False
    ) -> None:
        """Args:
            entries: of the json, in the form of the subclass.
            images: folder of the pictures.
            fault: what is wrong with the form of an entry.
            name: the dataset's short name.
            strict: what would be left out as faulty raises instead.
        Raises:
            ValueError: no sample remains.
        """
        self.name, self._images = name, Path(images)
        self.findings = Findings(name)
        self._entries = Records(entry for number, entry in enumerate(entries) if self._usable(entry, number, fault))
        self.findings.close(samples=len(self._entries), strict=strict)

    def _usable(self, entry: Any, number: int, fault: Usable) -> bool:
        try:
            problem = fault(entry)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
            problem = f"of another form ({error!r})"
        if problem is not None:
            self.findings.skip("entries that cannot be used", f"entry {number}: {problem}")
        return problem is None

    def __len__(self) -> int:
        return len(self._entries)

    def _picture(self, name: str) -> Tensor:
        return read_rgb(self._images / name)

    def _decoded(self, segmentations: Sequence[Any], image: Tensor, *, sample_id: str) -> Tensor:
        """Bool [N, H, W]; each mask is the union of its parts.

        Raises:
            ValueError: one that does not decode or is of another size; the message names the sample.
        """
        height, width = image.shape[1], image.shape[2]
        try:
            planes = [torch.from_numpy(np.array(decode_segmentation(one, height, width))) for one in segmentations]
        except ValueError as error:
            raise ValueError(f"{self.name}: sample {sample_id}: {error}") from error
        return torch.stack(planes) if planes else torch.zeros((0, height, width), dtype=torch.bool)


def entries_of(path: str | Path) -> list[Any]:
    """The json list in a file; see `read_list`."""
    return read_list(Path(path))


def turns_of(messages: Sequence[Mapping[str, str]]) -> tuple[Turn, ...]:
    """LLaVA's list of `{"from": "human" | "gpt", "value": …}` as questions and answers.

    The picture's token is left out, answers before the first question are dropped, and questions in a row become one.
    """
    turns: list[Turn] = []
    question: list[str] = []
    for message in messages:
        text = message["value"].replace(IMAGE, "").strip()
        if message["from"] == "human":
            question.append(text)
        elif message["from"] == "gpt":
            if question:
                turns.append(Turn("\n".join(question), text))
            question = []
        else:
            raise ValueError(f"from: expected human or gpt, got {message['from']!r}")
    return tuple(turns)


def without_brackets(text: str) -> str:
    """Names of regions and marks as words: "<region1> holds <regin2>" → "region1 holds region2"."""
    return re.sub(r"[<>]", "", re.sub(r"<regin(?=\d)", "<region", text))


def announced(kind: str, number: int) -> str:
    """The line before the first question that says which is which: "There are some marks: Mark 1 <mark>."."""
    names = {
        MARK: [f"Mark {index} {MARK}" for index in range(1, number + 1)],
        REGION: [f"region{index} {REGION}" for index in range(1, number + 1)],
    }[kind]
    return f"There are some {'marks' if kind == MARK else 'regions'}: {', '.join(names)}.\n"


def with_prefix(turns: Sequence[Turn], prefix: str) -> tuple[Turn, ...]:
    """The turns, the first question after `prefix`."""
    return (Turn(prefix + turns[0].question, turns[0].answer), *turns[1:])


def length_of(turns: Sequence[Turn]) -> int:
    """Characters of all texts."""
    return sum(len(turn.question) + len(turn.answer) for turn in turns)
