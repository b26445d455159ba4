"""Masks without class: SA-1B, and any other dataset with its classes left away (COCO-SAM)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ..sample import Sample, layers_from_masks
from .coco import decode_segmentation
from .reading import Findings, ImageReader, image_size, read_rgb


class SegmentAnything:
    """SA-1B: folders of `sa_*.jpg` with a json of the same stem each. All labels are -1, masks may overlap.

    The json are read on access, one at a time.

    Attributes:
        name, names, things, findings, portrait: see `ImageReader`; no names.
    """

    def __init__(self, root: str | Path, *, strict: bool = False, name: str = "sa-1b") -> None:
        """Pairs the files of `root` and of the folders in it (`sa_000000`, …), and reads the headers of the images.

        Args:
            root: the folder.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: no such folder, no sample remains, or there are faults and `strict`.
        """
        root = Path(root)
        if not root.is_dir():
            raise ValueError(f"images: no such folder: {root}")
        self.name = name
        self.names: tuple[str, ...] = ()
        self.things: tuple[bool, ...] = ()
        self.findings = Findings(name)
        self.portrait: list[bool] = []
        self._items: list[tuple[Path, tuple[int, int]]] = []
        annotated = {path.with_suffix("") for pattern in ("sa_*.json", "*/sa_*.json") for path in root.glob(pattern)}
        for image in sorted(path for pattern in ("sa_*.jpg", "*/sa_*.jpg") for path in root.glob(pattern)):
            if image.with_suffix("") not in annotated:
                self.findings.skip("images without a json", image)
                continue
            annotated.remove(image.with_suffix(""))
            try:
                height, width = image_size(image)
            except ValueError as error:
                self.findings.skip("images that cannot be read", error)
                continue
            self._items.append((image, (height, width)))
            self.portrait.append(height > width)
        for stem in sorted(annotated):
            self.findings.skip("json without an image", stem.with_suffix(".json"))
        self.findings.close(samples=len(self._items), strict=strict)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Raises ValueError naming the file if one cannot be read, sizes differ, or a mask cannot be decoded."""
        path, (height, width) = self._items[index]
        annotations = path.with_suffix(".json")
        try:
            content = json.loads(annotations.read_text(encoding="utf-8"))
            segmentations = [entry["segmentation"] for entry in content["annotations"]]
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"annotations: {annotations} is not json ({error})") from error
        except (KeyError, TypeError):
            raise ValueError(f"annotations: {annotations} has no annotations with a segmentation each") from None
        masks = []
        for number, segmentation in enumerate(segmentations):
            try:
                masks.append(decode_segmentation(segmentation, height, width))
            except ValueError as error:
                raise ValueError(f"annotations: {annotations}: annotation number {number}: {error}") from error
        return Sample(
            image=read_rgb(path, size=(height, width)),
            segment_layers=layers_from_masks(masks, height, width),
            labels=torch.full((len(masks),), -1, dtype=torch.int64),
            names=(),
            things=(),
            sample_id=path.stem,
            dataset=self.name,
        ).with_areas_of_at_least(1)


class ClassAgnostic:
    """Another reader's samples without their classes: all labels are -1, things and stuff alike.

    Of `CocoPanoptic` or `CocoInstances` this is COCO-SAM, from which the original draws its prompts.
    """

    def __init__(self, reader: ImageReader, *, name: str = "coco-sam") -> None:
        self.name = name
        self.names: tuple[str, ...] = ()
        self.things: tuple[bool, ...] = ()
        self.findings = reader.findings
        self.portrait = reader.portrait
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> Sample:
        sample = self._reader[index]
        return replace(sample, labels=torch.full_like(sample.labels, -1), names=(), things=(), dataset=self.name)
