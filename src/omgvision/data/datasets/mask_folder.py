"""Images beside PNG label maps: what all datasets of such pairs share, and the folder that everyone can make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from scipy import ndimage

from ..sample import Sample
from .reading import IMAGE_SUFFIXES, Findings, common_size, image_sizes, read_label_map, read_rgb


class LabelMaps:
    """Images with one label map each. Subclasses say what the values of a map mean.

    Attributes:
        name, names, things, findings, portrait: see `ImageReader`.
    """

    def __init__(
        self,
        pairs: Mapping[str, tuple[Path, Path]],
        *,
        names: Sequence[str],
        things: Sequence[bool],
        findings: Findings,
        strict: bool,
        name: str,
    ) -> None:
        """Leaves out what cannot be read and what does not fit together; only the headers of the files are read.

        Args:
            pairs: sample id → (image, label map), existing files.
            names, things: the vocabulary.
            findings: what was left out in making the pairs.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: no sample remains, or there are faults and `strict`.
        """
        self.name = name
        self.names, self.things = tuple(names), tuple(things)
        self.findings = findings
        self._items: list[tuple[str, Path, Path, tuple[int, int]]] = []
        for sample_id, (image, label_map) in pairs.items():
            try:
                sizes, map_sizes = image_sizes(image), image_sizes(label_map)
            except ValueError as error:
                findings.skip("files that cannot be read", error)
                continue
            size = common_size(sizes, map_sizes)
            if size is None:
                findings.skip(
                    "label maps of another size than their image",
                    f"{label_map}: {map_sizes[0]} (height, width), not {sizes[0]}",
                )
            else:
                self._items.append((sample_id, image, label_map, size))
        self.portrait = [height > width for _, _, _, (height, width) in self._items]
        findings.close(samples=len(self._items), strict=strict)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        """Raises ValueError naming the file if one cannot be read or holds values that mean nothing."""
        sample_id, image, label_map, size = self._items[index]
        values = read_label_map(label_map, size=size)
        if values.ndim != 2:
            raise ValueError(f"masks: {label_map} has {values.shape[2]} channels, expected one (grey or palette)")
        segments, labels = self._segments(values, label_map)
        return Sample(
            image=read_rgb(image, size=size),
            segment_layers=torch.from_numpy(segments[None]),
            labels=torch.tensor(labels, dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=sample_id,
            dataset=self.name,
        )

    def _segments(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        """Integer [H, W] of `path` → int16 [H, W] (0 nothing, n + 1 segment n), and the label of each segment."""
        raise NotImplementedError


def class_segments(
    values: np.ndarray, *, label_of: Mapping[int, int], void: Collection[int], path: Path
) -> tuple[np.ndarray, list[int]]:
    """One segment a class: integer [H, W] → int16 [H, W] (0 nothing, n + 1 segment n), and the label of each segment.

    Args:
        values: what the file holds.
        label_of: value → label.
        void: values that mean nothing.
        path: for the error.
    Raises:
        ValueError: a value that is neither.
    """
    present = value_counts(values, path)[0]
    unknown = [value for value in present if value not in label_of and value not in void]
    if unknown:
        raise ValueError(
            f"masks: {path} has value {unknown[0]}, expected {_spans(label_of)} or void {_spans(void) or 'None'}"
        )
    found = [value for value in present if value in label_of]
    numbers = np.zeros(max(present, default=0) + 1, dtype=np.int16)
    numbers[found] = np.arange(1, len(found) + 1)
    return numbers[values], [label_of[value] for value in found]


def value_counts(values: np.ndarray, path: Path) -> tuple[list[int], np.ndarray]:
    """The values that occur, ascending, and how many pixels each has.

    Raises:
        ValueError: a value under 0 or over 65535, which label maps do not hold.
    """
    if values.size and not 0 <= int(values.min()) <= int(values.max()) < 65536:
        raise ValueError(f"masks: {path} has values from {values.min()} to {values.max()}, expected 0..65535")
    counts = np.bincount(values.ravel())
    present = np.flatnonzero(counts)
    return present.tolist(), counts[present]


def _spans(values: Collection[int]) -> str:
    """ "0..18,255"."""
    ordered = np.array(sorted(values), dtype=np.int64)
    spans = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    return ",".join(f"{span[0]}..{span[-1]}" if len(span) > 1 else str(span[0]) for span in spans if len(span))


class MaskFolder(LabelMaps):
    """Images and masks paired by file stem.

    `kind="semantic"`: a mask's value is the class index, and a class present gives one segment. Classes in `things`
    have no instances in such files; with `split_things` their connected components (8 neighbours) stand in for them.
    `kind="instance"`: a mask's value is the object's number, 0 is background, and every object is of the one class.
    """

    def __init__(
        self,
        images: str | Path,
        *,
        masks: str | Path,
        classes: Sequence[str],
        kind: Literal["semantic", "instance"] = "semantic",
        things: Sequence[str] = (),
        void: int | None = None,
        split_things: bool = False,
        min_component_area: int = 30,
        stems: Sequence[str] | None = None,
        strict: bool = False,
        name: str = "mask-folder",
    ) -> None:
        """Pairs the files; what has no partner is left out.

        Args:
            images: folder of images.
            masks: folder of 8 or 16 bit PNG files of the same stems.
            classes: names; for kind "instance" exactly one.
            kind: see above.
            things: the countable classes; for kind "instance" always the one class.
            void: the semantic value that means nothing (such pixels belong to no segment).
            split_things: connected components of the countable classes as objects.
            min_component_area: components of fewer pixels are dropped.
            stems: take only these files (a train or val part), in this order; by default all, sorted.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: a folder is missing, unknown things, no sample remains, or there are faults and `strict`.
        """
        for what, folder in (("images", Path(images)), ("masks", Path(masks))):
            if not folder.is_dir():
                raise ValueError(f"{what}: no such folder: {folder}")
        if not classes or len(set(classes)) != len(classes):
            raise ValueError(f"classes: expected different names, at least one, got {list(classes)}")
        if kind == "instance" and len(classes) != 1:
            raise ValueError(f"classes: kind 'instance' takes exactly one name, got {len(classes)}")
        unknown = sorted(set(things) - set(classes))
        if unknown:
            raise ValueError(f"things: {', '.join(unknown)} not among the classes {', '.join(classes)}")
        if kind == "semantic" and void is not None and 0 <= void < len(classes):
            raise ValueError(f"void: {void} is the index of class {classes[void]!r}")
        self._kind, self._void, self._split, self._min_area = kind, void, split_things, min_component_area
        findings = Findings(name)
        super().__init__(
            _pairs_by_stem(Path(images), Path(masks), stems=stems, findings=findings),
            names=classes,
            things=[kind == "instance" or class_name in things for class_name in classes],
            findings=findings,
            strict=strict,
            name=name,
        )

    def _segments(self, values: np.ndarray, path: Path) -> tuple[np.ndarray, list[int]]:
        if self._kind == "instance":
            present, _ = value_counts(values, path)
            numbers = {value: number for number, value in enumerate(present)}
            segments, _ = class_segments(values, label_of=numbers, void=(), path=path)
            # Zero is background: where it occurs, it is the first of the segments.
            background = int(0 in numbers)
            return segments - np.int16(background), [0] * (len(present) - background)
        indices = {index: index for index in range(len(self.names))}
        void = () if self._void is None else (self._void,)
        segments, labels = class_segments(values, label_of=indices, void=void, path=path)
        return self._split_things(segments, labels) if self._split else (segments, labels)

    def _split_things(self, segments: np.ndarray, labels: list[int]) -> tuple[np.ndarray, list[int]]:
        """Components of the countable classes as segments of their own."""
        split = np.zeros_like(segments)
        split_labels: list[int] = []
        for number, label in enumerate(labels, start=1):
            region = segments == number
            if not self.things[label]:
                split_labels.append(label)
                split[region] = len(split_labels)
                continue
            components = np.empty(region.shape, dtype=np.int32)
            ndimage.label(region, structure=np.ones((3, 3)), output=components)
            for component in np.flatnonzero(np.bincount(components.ravel())[1:] >= self._min_area) + 1:
                split_labels.append(label)
                split[components == component] = len(split_labels)
        return split, split_labels


def _pairs_by_stem(
    images: Path, masks: Path, *, stems: Sequence[str] | None, findings: Findings
) -> dict[str, tuple[Path, Path]]:
    image_of = {path.stem: path for path in sorted(images.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES}
    mask_of = {path.stem: path for path in sorted(masks.iterdir()) if path.suffix.lower() == ".png"}
    if not image_of:
        raise ValueError(f"images: no image in {images}")
    if stems is None:
        for stem in sorted(mask_of.keys() - image_of.keys()):
            findings.skip("masks without an image", mask_of[stem])
    pairs = {}
    for stem in image_of if stems is None else stems:
        if stem not in image_of:
            findings.skip("images that are missing", images / stem)
        elif stem not in mask_of:
            findings.skip("images without a mask", image_of[stem])
        else:
            pairs[stem] = (image_of[stem], mask_of[stem])
    return pairs
