"""Objects365 v2: photographs with boxes of 365 classes, and masks that were made from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .coco import CocoInstances
from .reading import Listing


class Objects365(CocoInstances):
    """Objects of Objects365, whose own json has boxes only.

    The masks come in a second json, made by a model that turns boxes into masks: a list of {"id", "segmentation"}, the
    id being that of the box (the authors of OMG-Seg made theirs with SAM; they are not public). Objects without a mask
    there are left out. A json that has a `segmentation` in each annotation needs no second one.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        masks: str | Path | None = None,
        strict: bool = False,
        name: str = "objects365",
    ) -> None:
        """As `CocoInstances`; the json's "images/v1/patch8/x.jpg" may lie in `images` as that, as "patch8/x.jpg" or as
        "x.jpg"."""
        folder = Listing(images, what="images")

        def file_name(entry: Mapping[str, Any]) -> str:
            parts = str(entry.get("file_name", entry["id"])).split("/")
            names = ["/".join(parts[-depth:]) for depth in (len(parts), 2, 1)]
            return next((candidate for candidate in names if candidate in folder), names[1])

        super().__init__(
            annotations,
            images=images,
            masks=masks,
            words="objects365",
            file_name=file_name,
            strict=strict,
            name=name,
        )
