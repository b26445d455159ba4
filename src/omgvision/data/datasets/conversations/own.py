"""The json format for one's own conversations; `docs/chat_training.md` describes it.

Letters: N masks, H, W height and width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...conversations import Conversation, Outline, Prompt, Turn, faults, kind_of, no_masks
from ..coco import decode_segmentation
from ..reading import Findings, Records, read_label_map, read_rgb

ENTRY_KEYS = ("id", "image", "turns")
TURN_KEYS = ("user", "assistant", "prompts", "masks")


class OwnConversations:
    """A json list of conversations: `{"image": FILE, "turns": [{"user", "assistant", "prompts", "masks"}, …]}`.

    Attributes:
        findings: what was left out, and why.
    """

    def __init__(
        self, path: str | Path, *, images: str | Path | None = None, strict: bool = False, name: str | None = None
    ) -> None:
        """Reads the json and checks all of it but the pictures and masks themselves.

        Args:
            path: the json.
            images: what names of pictures and masks are relative to; by default the folder of the json.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name; by default that of the file.
        Raises:
            ValueError: no such file, of another form, no sample remains.
        """
        path = Path(path)
        self.name = name or path.stem
        self._folder = path.parent if images is None else Path(images)
        self.findings = Findings(self.name)
        self._entries = Records(
            {"id": str(number), **entry}
            for number, entry in enumerate(read_list(path))
            if self._usable(entry, f"entry {number}")
        )
        self.findings.close(samples=len(self._entries), strict=strict)

    def _usable(self, entry: Any, where: str) -> bool:
        """Whether an entry is well-formed; what is wrong is noted."""
        problem = form_fault(entry)
        if problem is None:
            image = entry.get("image")
            _, prompts, masks = _turns(entry)
            problem = _text_fault(entry)
            names = [name for name in (image, *_mask_files(prompts, masks)) if name is not None]
            missing = [name for name in names if not (self._folder / name).is_file()]
            if problem is None and missing:
                self.findings.skip("conversations whose files are missing", f"{where}: {missing[0]}")
                return False
        if problem is not None:
            self.findings.skip("conversations that are not well-formed", f"{where}: {problem}")
        return problem is None

    def __len__(self) -> int:
        return len(self._entries)

    def outline(self, index: int) -> Outline:
        entry = self._entries[index]
        return Outline(sum(len(turn["user"]) + len(turn["assistant"]) for turn in entry["turns"]), "image" in entry)

    def draw(self, index: int, _: np.random.Generator | None = None, /) -> Conversation:
        """Raises ValueError naming the sample if its picture, a mask or a prompt cannot be read or does not fit."""
        entry = self._entries[index]
        turns, prompts, masks = _turns(entry)
        name = str(entry["id"])
        image = None if entry.get("image") is None else read_rgb(self._folder / entry["image"])
        if image is None:
            return Conversation(None, turns, masks=no_masks(None), sample_id=name, dataset=self.name)
        size = image.shape[1], image.shape[2]
        try:
            planes = [self._mask(mask, size) for mask in masks]
            return Conversation(
                image,
                turns,
                masks=torch.stack(planes) if planes else no_masks(image),
                prompts=tuple(self._prompt(prompt, size) for prompt in prompts),
                sample_id=name,
                dataset=self.name,
            )
        except ValueError as error:
            raise ValueError(f"{self.name}: sample {name}: {error}") from error

    def _mask(self, mask: Any, size: tuple[int, int]) -> Tensor:
        """A mask as the json has it → bool [H, W].

        Raises:
            ValueError: it cannot be read, is of another size, or empty.
        """
        value: int | None = None
        if isinstance(mask, dict) and "png" in mask:
            mask, value = mask["png"], mask.get("value")
        if isinstance(mask, str):
            pixels = read_label_map(self._folder / mask, size=size)
            if pixels.ndim == 3:
                pixels = pixels[..., :3].any(-1) if value is None else pixels[..., 0]
            plane = pixels != 0 if value is None else pixels == value
        else:
            plane = decode_segmentation(mask, *size)
        if not plane.any():
            raise ValueError("masks: expected at least one pixel in each, got an empty one")
        return torch.from_numpy(np.ascontiguousarray(plane))

    def _prompt(self, prompt: Prompt, size: tuple[int, int]) -> Prompt:
        """A prompt with its mask decoded, and looked at for whether it is on the picture."""
        kind = kind_of(prompt)
        if kind == "mask":
            return {"mask": self._mask(prompt["mask"], size)}
        corners = np.asarray(prompt[kind], dtype=np.float64).reshape(-1, 2)
        if (corners < 0).any() or (corners > (size[1], size[0])).any():
            raise ValueError(
                f"prompts: expected a {kind} on the picture of {size[1]}x{size[0]} pixels, got {prompt[kind]}"
            )
        if kind == "box" and not (corners[0] < corners[1]).all():
            raise ValueError(f"prompts: expected a box x1, y1, x2, y2 with x1 < x2 and y1 < y2, got {prompt[kind]}")
        return prompt


def holds_conversations(path: Path) -> bool:
    """Whether a file is a json list with conversations in this format, so that another reader need not be tried."""
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        entries = read_list(path)
    except ValueError:
        return False
    return any(isinstance(entry, dict) and "turns" in entry for entry in entries)


def read_list(path: Path) -> list[Any]:
    """The json list in a file.

    Raises:
        ValueError: no such file, not json, or no list.
    """
    if not path.is_file():
        raise ValueError(f"conversations: no such file: {path}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"conversations: {path} is not json ({error})") from error
    if not isinstance(content, list):
        raise ValueError(f"conversations: {path}: expected a list, got a {type(content).__name__}")
    return content


def form_fault(entry: Any) -> str | None:
    """What is wrong with the form of an entry, first of all; None if nothing."""
    if not isinstance(entry, dict):
        return f"expected an object, got a {type(entry).__name__}"
    unknown = sorted(set(entry) - set(ENTRY_KEYS))
    if unknown:
        return f"{unknown[0]}: expected {', '.join(ENTRY_KEYS)} only"
    if "image" in entry and (not isinstance(entry["image"], str) or not entry["image"]):
        return "image: expected the name of a file; leave it out for text alone"
    turns = entry.get("turns")
    if not isinstance(turns, list) or not turns:
        return "turns: expected a list of at least one turn"
    for number, turn in enumerate(turns):
        problem = _turn_fault(turn)
        if problem:
            return f"turn {number}: {problem}"
    return None


def _turn_fault(turn: Any) -> str | None:
    if not isinstance(turn, dict):
        return f"expected an object, got a {type(turn).__name__}"
    unknown = sorted(set(turn) - set(TURN_KEYS))
    if unknown:
        return f"{unknown[0]}: expected {', '.join(TURN_KEYS)} only"
    for key in ("user", "assistant"):
        if not isinstance(turn.get(key), str):
            return f"{key}: expected a text"
    for key in ("prompts", "masks"):
        if not isinstance(turn.get(key, []), list):
            return f"{key}: expected a list"
    for mask in turn.get("masks", []):
        if not _is_mask(mask):
            return f"masks: {MASK_FORMS}"
    for prompt in turn.get("prompts", []):
        problem = _prompt_fault(prompt)
        if problem:
            return f"prompts: {problem}"
    return None


MASK_FORMS = (
    "expected run lengths with size and counts, polygons, the name of a PNG, or that and the value of its pixels "
    '({"png": …, "value": …})'
)


def _is_mask(mask: Any) -> bool:
    if isinstance(mask, dict):
        if "png" in mask:
            return isinstance(mask["png"], str) and isinstance(mask.get("value", 0), int)
        return {"size", "counts"} <= mask.keys()
    return bool(mask) and isinstance(mask, list | str)


def _prompt_fault(prompt: Any) -> str | None:
    if not isinstance(prompt, dict):
        return "expected objects with point, points, box or mask"
    try:
        kind = kind_of(prompt)
    except ValueError:
        return f"expected one of point, points, box, mask, got {', '.join(sorted(map(str, prompt))) or 'nothing'}"
    if kind == "mask":
        return None if _is_mask(prompt["mask"]) else f"mask: {MASK_FORMS}"
    shape = {"point": (2,), "points": (None, 2), "box": (4,)}[kind]
    try:
        found = np.asarray(prompt[kind], dtype=np.float64)
    except (TypeError, ValueError):
        return f"{kind}: expected numbers"
    fits = found.ndim == len(shape) and all(side in (None, had) for side, had in zip(shape, found.shape, strict=True))
    if not fits or not found.size or not np.isfinite(found).all():
        wanted = {"point": "x, y", "points": "a list of x, y", "box": "x1, y1, x2, y2"}[kind]
        return f"{kind}: expected {wanted} in pixels, got {str(prompt[kind])[:40]}"
    labels = prompt.get("labels")
    if labels is not None and (
        kind != "points"
        or not isinstance(labels, list)
        or len(labels) != len(found)
        or any(label not in (0, 1) for label in labels)
    ):
        return "labels: expected a 1 or 0 for each of points"
    return None


def _text_fault(entry: Mapping[str, Any]) -> str | None:
    """What does not fit in the texts, masks and prompts of a well-formed entry, first of all, turn by turn."""
    for number, turn in enumerate(entry["turns"]):
        found = faults(
            [Turn(turn["user"], turn["assistant"])],
            masks=len(turn.get("masks", [])),
            prompts=turn.get("prompts", []),
            pictured="image" in entry,
        )
        if found:
            return f"turn {number}: {found[0].removeprefix('turn 0: ')}"
    return None


def _turns(entry: Mapping[str, Any]) -> tuple[tuple[Turn, ...], list[Prompt], list[Any]]:
    """Turns, prompts and masks of a well-formed entry."""
    turns = tuple(Turn(turn["user"], turn["assistant"]) for turn in entry["turns"])
    prompts = [prompt for turn in entry["turns"] for prompt in turn.get("prompts", [])]
    masks = [mask for turn in entry["turns"] for mask in turn.get("masks", [])]
    return turns, prompts, masks


def _mask_files(prompts: list[Prompt], masks: list[Any]) -> list[str]:
    every = [*masks, *(prompt["mask"] for prompt in prompts if "mask" in prompt)]
    names = [mask.get("png") if isinstance(mask, dict) else mask for mask in every]
    return [name for name in names if isinstance(name, str)]
