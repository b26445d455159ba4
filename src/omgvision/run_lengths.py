"""Masks in COCO's compressed run-length form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask


@dataclass(frozen=True)
class RunLengthMask:
    """A mask [height, width] in COCO's compressed run-length form."""

    height: int
    width: int
    counts: bytes

    @classmethod
    def encode(cls, mask: np.ndarray) -> "RunLengthMask":
        """Pack a bool mask [H, W]."""
        counts = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]
        return cls(mask.shape[0], mask.shape[1], counts if isinstance(counts, bytes) else counts.encode("ascii"))

    @classmethod
    def from_coco(cls, mask: Mapping[str, Any]) -> "RunLengthMask":
        """What `to_coco` made."""
        height, width = mask["size"]
        return cls(height, width, mask["counts"].encode("ascii"))

    def decode(self) -> np.ndarray:
        """The bool mask [H, W]."""
        return coco_mask.decode(self._coco()).astype(bool)

    @property
    def area(self) -> int:
        return int(coco_mask.area(self._coco()))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height in pixels."""
        x, y, width, height = (int(value) for value in coco_mask.toBbox(self._coco()))
        return x, y, width, height

    def to_coco(self) -> dict[str, Any]:
        """{"size": [H, W], "counts": text}, as COCO writes it to JSON."""
        return {"size": [self.height, self.width], "counts": self.counts.decode("ascii")}

    def _coco(self) -> Any:
        return {"size": [self.height, self.width], "counts": self.counts}
