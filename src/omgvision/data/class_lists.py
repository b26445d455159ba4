"""Vocabularies that come with the package: names of classes and which of them are countable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal, get_args

ClassListName = Literal[
    "coco",
    "coco-things",
    "ade20k",
    "cityscapes",
    "pascal_voc",
    "objects365",
    "camvid",
    "coco_stuff",
    "vipseg",
    "vspw",
    "youtube_vis_2019",
    "youtube_vis_2021",
    "ovis",
]


@dataclass(frozen=True)
class ClassList:
    """A vocabulary in the order of its dataset.

    Attributes:
        names: plain words for the text encoder ("brick wall"); synonyms are separated by commas, and no two classes of
            a list share one.
        things: whether a class is countable.
        official_names: as the dataset spells them ("wall-brick").
        category_ids: the dataset's own numbers.
    """

    names: tuple[str, ...]
    things: tuple[bool, ...]
    official_names: tuple[str, ...]
    category_ids: tuple[int, ...]


def load_class_list(name: ClassListName) -> ClassList:
    """Reads a bundled list: "coco" (133 panoptic classes), "coco-things" (its 80 countable ones), "ade20k" (150, 100
    of them countable), "cityscapes" (19), "pascal_voc" (20), "objects365" (365), "camvid" (11), "coco_stuff" (those of
    its classes whose names have no dash), and those of videos.

    Raises:
        ValueError: no list of that name.
    """
    known = get_args(ClassListName)
    if name not in known:
        raise ValueError(f"class list: expected one of {', '.join(known)}, got {name!r}")
    stem = "coco" if name == "coco-things" else name
    entries = json.loads((files("omgvision.data") / "classes" / f"{stem}.json").read_text(encoding="utf-8"))
    if name == "coco-things":
        entries = [entry for entry in entries if entry["thing"]]
    return ClassList(
        names=tuple(entry["name"] for entry in entries),
        things=tuple(entry["thing"] for entry in entries),
        official_names=tuple(entry["official"] for entry in entries),
        category_ids=tuple(entry["id"] for entry in entries),
    )


def plain_names(official_names: tuple[str, ...], name: ClassListName = "coco") -> tuple[str, ...]:
    """A list's spelling to plain words ("tree-merged" → "tree"); names that the list does not have stay as they are."""
    known = load_class_list(name)
    words = dict(zip(known.official_names, known.names, strict=True))
    return tuple(words.get(official.strip(), official) for official in official_names)
