"""Pictures, and regions of pictures, that are to be described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .coco import decode_segmentation
from .reading import read_annotations


@dataclass(frozen=True)
class Pictured:
    """What a description is asked of.

    Attributes:
        identity: as in the json.
        file: of the picture.
        texts: descriptions by people; () where they are in another file.
        region: annotation with `segmentation` or `bbox`; None = the whole picture is meant.
        size: height and width; None where the json does not say.
    """

    identity: int | str
    file: Path
    texts: tuple[str, ...]
    region: Mapping[str, Any] | None = None
    size: tuple[int, int] | None = None

    @property
    def prompt(self) -> dict[str, Any]:
        """`{"mask": bool [H, W]}` of the region, or `{"box": (x1, y1, x2, y2)}` where only that is known.

        Raises:
            ValueError: neither can be read.
        """
        assert self.region is not None
        assert self.size is not None
        segmentation = self.region.get("segmentation")
        try:
            if segmentation:
                return {"mask": _union(segmentation, self.size)}
            x, y, width, height = map(float, self.region["bbox"])
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"captions: region {self.identity} cannot be read ({error})") from error
        return {"box": (x, y, x + width, y + height)}


def _union(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    """Of polygons, of run lengths, or of a list of run lengths."""
    if isinstance(segmentation, list) and isinstance(segmentation[0], dict):
        return np.any([decode_segmentation(one, *size) for one in segmentation], axis=0)
    return decode_segmentation(segmentation, *size)


def read_captions(path: Path) -> dict[str, list[str]]:
    """A COCO captions json: sample id → sentences."""
    captions: dict[str, list[str]] = {}
    for entry in read_annotations(path, keys={"annotations": ("image_id", "caption")})["annotations"]:
        captions.setdefault(str(entry["image_id"]), []).append(entry["caption"].strip())
    return captions


def read_captioned(path: str | Path, *, images: str | Path) -> dict[str, Pictured]:
    """Identity as text → picture, of a COCO captions json.

    Args:
        path: the file.
        images: folder of its pictures.
    Raises:
        ValueError: no such file, of another form.
    """
    content = read_annotations(path, keys={"images": ("id", "file_name"), "annotations": ("image_id", "caption")})
    texts: dict[Any, list[str]] = {}
    for entry in content["annotations"]:
        texts.setdefault(entry["image_id"], []).append(str(entry["caption"]))
    return {
        str(entry["id"]): Pictured(
            entry["id"], Path(images) / str(entry["file_name"]), tuple(texts.get(entry["id"], ()))
        )
        for entry in content["images"]
    }


def read_regions(path: str | Path, *, images: str | Path, captions: str | Path) -> dict[str, Pictured]:
    """Identity as text → region: jsons of COCO's form in which every entry of `images` stands for one region, which is
    the annotation with the same id (RefCOCOg's `finetune_refcocog_val_with_mask.json`, Visual Genome's
    `test_caption.json`).

    Args:
        path: json with the regions.
        images: folder of the pictures.
        captions: json with the captions; may be the same.
    Raises:
        ValueError: a file is missing or of another form, an entry without its region.
    """
    keys = {"images": ("id", "file_name", "height", "width"), "annotations": ("id",)}
    content = read_annotations(path, keys=keys)
    regions = {entry["id"]: entry for entry in content["annotations"]}
    texts = {identity: one.texts for identity, one in read_captioned(captions, images=images).items()}
    found: dict[str, Pictured] = {}
    for entry in content["images"]:
        identity = entry["id"]
        region = regions.get(identity)
        if region is None or not (region.get("segmentation") or region.get("bbox")):
            raise ValueError(
                f"captions: {path}: expected an annotation with a region for every image, none of {identity}"
            )
        size = entry["height"], entry["width"]
        file = Path(images) / str(entry["file_name"])
        found[str(identity)] = Pictured(identity, file, texts.get(str(identity), ()), region, size)
    return found
