"""LVIS v1: COCO's photographs with objects of 1203 classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .coco import CocoInstances
from .reading import Listing


class Lvis(CocoInstances):
    """Objects of LVIS; names are all the synonyms that the json gives.

    Its splits are spread over COCO's `train2017` and `val2017`, the entries say which in `coco_url`.

    An image is searched only for the classes that it has, to the end unless they are in `not_exhaustive_category_ids`,
    and for those of its `neg_category_ids`, which it has not; of all others nothing is known. Here what is not
    annotated is background as in COCO, so a model learns to pass over rare classes, whose finds the official evaluation
    ignores where nothing is known.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        keep_empty: bool = False,
        strict: bool = False,
        name: str = "lvis",
    ) -> None:
        """As `CocoInstances`; `images` is the folder that holds `train2017` and `val2017`, or the photographs
        themselves."""
        folder = Listing(images, what="images")

        def file_name(entry: Mapping[str, Any]) -> str:
            split_and_name = "/".join(str(entry.get("coco_url", entry.get("file_name", entry["id"]))).split("/")[-2:])
            photograph = split_and_name.rpartition("/")[2]
            return photograph if photograph in folder else split_and_name

        super().__init__(
            annotations,
            images=images,
            keep_empty=keep_empty,
            file_name=file_name,
            strict=strict,
            name=name,
        )
