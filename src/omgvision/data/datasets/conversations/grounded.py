"""Grounded captions: GranD-f and OpenPSG, Flickr30k Entities with masks, RefCOCOg with captions.

In all of them a caption has phrases, each at some characters of it and with a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...conversation_words import GROUNDED_QUESTIONS
from ...conversations import SEGMENT, Conversation, Outline, Turn
from ..reading import read_annotations
from .published import PublishedConversations, entries_of

SHORTEST_CAPTION, SHORTEST_SIDE = 3, 32
"""Words of a caption and pixels of a picture that Flickr's are used from, as in the original."""


@dataclass(frozen=True)
class Grounding:
    """A phrase of a caption: characters `start` to `end`, and its masks as in the json (their union is meant)."""

    start: int
    end: int
    masks: Sequence[Any]


def tagged(caption: str, groundings: Sequence[Grounding]) -> tuple[str, list[Grounding]]:
    """The caption with `<p> phrase </p> [SEG]`, and the phrases that are in it, in the order of their masks.

    Of phrases that overlap, the one that begins first keeps its words and the other those that are left; one that has
    none left is dropped. (The original walks them in another order for RefCOCOg, which breaks captions.)
    """
    kept: list[Grounding] = []
    text, last = "", 0
    for one in sorted(groundings, key=lambda one: (one.start, -one.end)):
        start, end = max(one.start, last), min(one.end, len(caption))
        phrase = caption[start:end].strip()
        if not phrase:
            continue
        start += len(caption[start:end]) - len(caption[start:end].lstrip())
        text += f"{caption[last:start]}<p> {phrase} </p> {SEGMENT}"
        last = start + len(phrase)
        kept.append(Grounding(start, last, one.masks))
    return text + caption[last:], kept


class GroundedCaptions(PublishedConversations):
    """A caption an entry; entries are `{"image", "id", "caption", "groundings": [[start, end, masks], …]}`.

    Made by `grand_f`, `flickr` and `refcocog` from their jsons.
    """

    def __init__(self, entries: Sequence[Any], *, images: str | Path, name: str, strict: bool = False) -> None:
        """Args:
            entries: as above.
            images: folder of the pictures.
            name: the dataset's short name.
            strict: what would be left out as faulty raises instead.
        Raises:
            ValueError: no sample remains.
        """
        super().__init__(entries, images=images, fault=_fault, name=name, strict=strict)

    def _answer(self, index: int) -> tuple[Any, str, list[Grounding]]:
        entry = self._entries[index]
        return entry, *tagged(entry["caption"], [Grounding(*one) for one in entry["groundings"]])

    def outline(self, index: int) -> Outline:
        return Outline(len(self._answer(index)[1]) + len(GROUNDED_QUESTIONS[0]), pictured=True)

    def draw(self, index: int, generator: np.random.Generator) -> Conversation:
        """Raises ValueError naming the file or the sample if the picture or a mask cannot be read."""
        entry, answer, groundings = self._answer(index)
        image, sample_id = self._picture(entry["image"]), str(entry["id"])
        planes = [self._decoded(one.masks, image, sample_id=sample_id).any(0) for one in groundings]
        return Conversation(
            image,
            (Turn(GROUNDED_QUESTIONS[generator.integers(len(GROUNDED_QUESTIONS))], answer),),
            masks=torch.stack(planes),
            sample_id=sample_id,
            dataset=self.name,
        )


def _fault(entry: Any) -> str | None:
    if not isinstance(entry["caption"], str) or not entry["caption"].strip():
        return "expected a caption, got none"
    for start, end, masks in entry["groundings"]:
        if not 0 <= start < end or not masks:
            return f"expected phrases with a beginning before their end and with a mask, got {start}, {end}"
    if not tagged(entry["caption"], [Grounding(*one) for one in entry["groundings"]])[1]:
        return "expected at least one phrase with a mask, got none"
    return None


def grand_f(path: str | Path, *, images: str | Path, strict: bool = False, name: str = "grand_f") -> GroundedCaptions:
    """GranD-f and OpenPSG: a list of `{"file_name", "image_id", "caption", "groundings"}`, whose groundings are
    `{phrase: {"token_positives": [start, end], "rle_masks": [RLE, …]}}`.

    Raises:
        ValueError: no such file, of another form, no sample remains.
    """
    return GroundedCaptions(_of(entries_of(path), _grand_f), images=images, name=name, strict=strict)


def refcocog(
    path: str | Path, *, images: str | Path, strict: bool = False, name: str = "refcocog_captions"
) -> GroundedCaptions:
    """RefCOCOg with captions, as GLaMM has it: a list of `{id: {"img_file_name", "caption", "refs"}}`, whose refs are
    `{"sentence", "segmentation"}`. Captions and phrases are compared, and answered, in lower case.

    Raises:
        ValueError: no such file, of another form, no sample remains.
    """
    return GroundedCaptions(_of(entries_of(path), _refcocog), images=images, name=name, strict=strict)


def flickr(path: str | Path, *, images: str | Path, strict: bool = False, name: str = "flickr") -> GroundedCaptions:
    """Flickr30k in COCO's form: images with `caption`, annotations with `tokens_positive` and `sam_mask`.

    Left out as in the original: short captions, small pictures, annotations to ignore and those beside the picture.

    Raises:
        ValueError: no such file, of another form, no sample remains.
    """
    content = read_annotations(
        path,
        keys={
            "images": ("id", "file_name", "caption", "height", "width"),
            "annotations": ("image_id", "bbox", "area", "tokens_positive", "sam_mask"),
        },
    )
    groups: dict[Any, list[Any]] = {}
    for annotation in content["annotations"]:
        groups.setdefault(annotation["image_id"], []).append(annotation)
    entries = [
        {**photograph, "annotations": groups.get(photograph["id"], [])}
        for photograph in content["images"]
        if len(str(photograph["caption"]).split()) >= SHORTEST_CAPTION
        and min(photograph["height"], photograph["width"]) >= SHORTEST_SIDE
    ]
    return GroundedCaptions(_of(entries, _flickr), images=images, name=name, strict=strict)


def _of(entries: Sequence[Any], convert: Any) -> list[Any]:
    """Entries in the form of `GroundedCaptions`; what cannot be converted stays, so that it is found and said."""
    converted = []
    for entry in entries:
        try:
            converted.append(convert(entry))
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            converted.append(entry)
    return converted


def _grand_f(entry: Any) -> Any:
    return {
        "image": entry["file_name"],
        "id": entry["image_id"],
        "caption": entry["caption"].strip('"').strip(),
        "groundings": [
            [*one["token_positives"][:2], one["rle_masks"]] for one in entry["groundings"].values() if one is not None
        ],
    }


def _refcocog(entry: Any) -> Any:
    [(identity, value)] = entry.items()
    caption = value["caption"].strip('"').strip().lower()
    groundings = []
    for ref in value["refs"]:
        phrase = ref["sentence"].strip().lower()
        start = caption.find(phrase)
        if phrase and start >= 0:
            groundings.append([start, start + len(phrase), [ref["segmentation"]]])
    return {"image": value["img_file_name"], "id": identity, "caption": caption, "groundings": groundings}


def _flickr(entry: Any) -> Any:
    groundings = []
    for annotation in entry["annotations"]:
        x, y, width, height = annotation["bbox"]
        across = min(x + width, entry["width"]) - max(x, 0)
        down = min(y + height, entry["height"]) - max(y, 0)
        if annotation.get("ignore") or annotation["area"] <= 0 or min(across, down, width, height) <= 0:
            continue
        start, end = annotation["tokens_positive"][0]
        groundings.append([start, end, [annotation["sam_mask"]]])
    return {
        "image": entry["file_name"],
        "id": entry["id"],
        "caption": entry["caption"].strip('"').strip(),
        "groundings": groundings,
    }
