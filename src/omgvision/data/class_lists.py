"""Vocabularies that come with the package: names of classes and which of them are countable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

ClassListName = Literal["coco", "coco-things", "camvid"]


@dataclass(frozen=True)
class ClassList:
    """A vocabulary in the order of its dataset.

    Attributes:
        names: plain words for the text encoder ("brick wall").
        things: whether a class is countable.
        official_names: as the dataset spells them ("wall-brick").
        category_ids: the dataset's own numbers.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    official_names: tuple[str, ...]
    category_ids: tuple[int, ...]


def load_class_list(name: ClassListName) -> ClassList:
    """Reads a bundled list: "coco" (133 panoptic classes), "coco-things" (its 80 countable ones), "camvid" (11).

    Raises:
        ValueError: no list of that name.
    """
    stems = {"coco": "coco", "coco-things": "coco", "camvid": "camvid"}
    if name not in stems:
        raise ValueError(f"class list: expected one of {', '.join(stems)}, got {name!r}")
    entries = json.loads((files("omgvision.data") / "classes" / f"{stems[name]}.json").read_text(encoding="utf-8"))
    if name == "coco-things":
        entries = [entry for entry in entries if entry["thing"]]
    return ClassList(
        names=tuple(entry["name"] for entry in entries),
        things=tuple(entry["thing"] for entry in entries),
        official_names=tuple(entry["official"] for entry in entries),
        category_ids=tuple(entry["id"] for entry in entries),
    )


def plain_names(official_names: tuple[str, ...]) -> tuple[str, ...]:
    """COCO's spelling to plain words ("tree-merged" → "tree"); names that COCO does not have stay as they are."""
    coco = load_class_list("coco")
    words = dict(zip(coco.official_names, coco.names, strict=True))
    return tuple(words.get(name, name) for name in official_names)
