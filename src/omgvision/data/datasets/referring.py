"""Sentences that mean something in a picture: RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg.

Letters: H, W height and width.
"""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .coco import decode_segmentation
from .reading import Findings, read_annotations, read_rgb

REFERENCES = ("refs(unc).p", "refs(umd).p", "refs(google).p", "grefs(unc).json")
"""Files of sentences, in the order of preference: the split "unc" of RefCOCO and RefCOCO+, "umd" of RefCOCOg."""


@dataclass(frozen=True)
class Referred:
    """A sentence and what it means.

    Attributes:
        image: uint8 [3, H, W], RGB.
        sentence: as it was written.
        mask: bool [H, W], the union of all that is meant; nothing if the sentence means nothing in the picture.
        ignore: bool [H, W], pixels that do not count.
        sample_id: unique within the dataset.
        file_name: of the image.
        is_sentence: a whole sentence (ReasonSeg), no phrase that names something.
    """

    image: Tensor
    sentence: str
    mask: Tensor
    ignore: Tensor
    sample_id: str
    file_name: str
    is_sentence: bool = False


@dataclass(frozen=True)
class Meant:
    """What a sentence means, without the picture; see `Referred`.

    Attributes:
        mask, ignore: bool [H, W].
    """

    sample_id: str
    mask: np.ndarray
    ignore: np.ndarray


@dataclass(frozen=True)
class _Sentence:
    sample_id: str
    text: str
    image: Any
    annotations: Sequence[Any]


class RefCoco:
    """One sample a sentence, in the order of the file: `refs(unc).p` (or another of `REFERENCES`) and `instances.json`.

    Attributes:
        findings: what was left out, and why.
    """

    def __init__(
        self, root: str | Path, *, images: str | Path, split: str = "val", strict: bool = False, name: str = "refcoco"
    ) -> None:
        """Reads both files.

        Args:
            root: the folder of both.
            images: folder of COCO's train2014.
            split: "val", "testA", "testB", "test", …, as the file has them.
            strict: what would be left out as faulty raises instead.
            name: the dataset's short name.
        Raises:
            ValueError: a file is missing or of another form, an unknown split, no sample remains.
        """
        root = Path(root)
        found = next((root / file for file in REFERENCES if (root / file).is_file()), None)
        if found is None:
            raise ValueError(f"references: expected one of {', '.join(REFERENCES)} in {root}, got none")
        content = read_annotations(
            root / "instances.json",
            keys={"images": ("id", "file_name", "height", "width"), "annotations": ("id", "segmentation")},
        )
        self.name, self._images = name, Path(images)
        self._photographs = {entry["id"]: entry for entry in content["images"]}
        self._masks = {entry["id"]: entry["segmentation"] for entry in content["annotations"]}
        self.findings = Findings(name)
        references = read_references(found)
        try:
            splits = dict.fromkeys(str(one["split"]) for one in references)
            if split not in splits:
                raise ValueError(f"split: expected one of {', '.join(splits)} of {found}, got {split!r}")
            self._sentences = [
                sentence for one in references if one["split"] == split for sentence in self._read(one, found)
            ]
        except (KeyError, TypeError) as error:
            raise ValueError(f"references: {found} has an entry of another form ({error!r})") from error
        self.findings.close(samples=len(self._sentences), strict=strict)

    def _read(self, reference: dict[str, Any], path: Path) -> list[_Sentence]:
        identity = f"{path.name}, {reference['ref_id']}"
        ids = reference["ann_id"]
        # gRefCOCO names a list of objects; [-1] stands for none.
        annotations = [one for one in (ids if isinstance(ids, list) else [ids]) if one != -1]
        if reference["image_id"] not in self._photographs:
            self.findings.skip("references to images that instances.json lacks", identity)
            return []
        if any(one not in self._masks for one in annotations):
            self.findings.skip("references to objects that instances.json lacks", identity)
            return []
        return [
            _Sentence(f"{reference['ref_id']}-{number}", str(one["sent"]), reference["image_id"], annotations)
            for number, one in enumerate(reference["sentences"])
        ]

    def __len__(self) -> int:
        return len(self._sentences)

    def by_image(self) -> list[list[int]]:
        """The numbers of the sentences about each image, so that one picture may be asked about several times."""
        groups: dict[Any, list[int]] = {}
        for number, sentence in enumerate(self._sentences):
            groups.setdefault(sentence.image, []).append(number)
        return list(groups.values())

    def __getitem__(self, index: int) -> Referred:
        """Raises ValueError naming the file if the image cannot be read, or naming the sample if a mask cannot."""
        sentence, meant = self._sentences[index], self.meant(index)
        file_name = self._photographs[sentence.image]["file_name"]
        height, width = meant.mask.shape
        return Referred(
            image=read_rgb(self._images / file_name, size=(height, width)),
            sentence=sentence.text,
            mask=torch.from_numpy(meant.mask),
            ignore=torch.from_numpy(meant.ignore),
            sample_id=sentence.sample_id,
            file_name=file_name,
        )

    def meant(self, index: int) -> Meant:
        """What the sentence means; its picture need not be there. Raises ValueError as `__getitem__`."""
        sentence = self._sentences[index]
        photograph = self._photographs[sentence.image]
        size = photograph["height"], photograph["width"]
        mask = np.zeros(size, dtype=bool)
        for annotation in sentence.annotations:
            try:
                mask |= decode_segmentation(self._masks[annotation], *size)
            except ValueError as error:
                raise ValueError(f"{self.name}: sample {sentence.sample_id}: {error}") from error
        return Meant(sentence.sample_id, mask, np.zeros(size, dtype=bool))


def read_references(path: Path) -> list[Any]:
    """The list in a pickle or json of references. No code of a pickle is run: it may hold lists, dicts, texts, numbers.

    Raises:
        ValueError: another form, or a pickle that wants more.
    """
    try:
        raw = path.read_bytes()
        content = json.loads(raw) if path.suffix == ".json" else _Plain(io.BytesIO(raw), encoding="utf-8").load()
    except pickle.UnpicklingError as error:
        raise ValueError(f"references: {path} is no pickle of plain values ({error})") from None
    except (OSError, ValueError, EOFError, IndexError, KeyError, AttributeError, MemoryError) as error:
        raise ValueError(f"references: {path} cannot be read ({type(error).__name__}: {error})") from None
    if not isinstance(content, list):
        raise ValueError(f"references: {path}: expected a list, got a {type(content).__name__}")
    return content


class _Plain(pickle.Unpickler):
    """Finds no class and no function, which is all that a pickle can do harm with."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}")


class ReasonSeg:
    """One sample a picture: `<split>/<name>.jpg` with `<name>.json`, whose shapes are polygons labelled `target`,
    `ignore` or `flag`, and whose `text` are sentences that mean the targets; the first one is asked, as in LISA.

    Shapes are drawn from the largest to the smallest, so that a small one within a large one is seen (LISA,
    `get_mask_from_json`).
    """

    def __init__(self, root: str | Path, *, split: str = "val", name: str = "reasonseg") -> None:
        """Lists the pictures.

        Args:
            root: the folder with `train`, `val` and `test`.
            split: which of them.
            name: the dataset's short name.
        Raises:
            ValueError: no such folder, or no picture in it.
        """
        self.name, folder = name, Path(root) / split
        self._images = sorted(folder.glob("*.jpg"))
        if not self._images:
            raise ValueError(f"reasonseg: expected pictures *.jpg in {folder}, got none")

    def __len__(self) -> int:
        return len(self._images)

    def by_image(self) -> list[list[int]]:
        """As of `RefCoco`: a picture has one sentence."""
        return [[number] for number in range(len(self))]

    def __getitem__(self, index: int) -> Referred:
        """Raises ValueError naming the file if picture or json cannot be read."""
        path = self._images[index]
        image = read_rgb(path)
        annotations = path.with_suffix(".json")
        try:
            content = json.loads(annotations.read_text(encoding="utf-8"))
            sentence = content["text"] if isinstance(content["text"], str) else content["text"][0]
            values = _draw(content["shapes"], size=(image.shape[1], image.shape[2]))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ValueError(f"reasonseg: {annotations}: cannot be read ({type(error).__name__}: {error})") from error
        return Referred(
            image=image,
            sentence=str(sentence),
            mask=torch.from_numpy(values == _TARGET),
            ignore=torch.from_numpy(values == _IGNORE),
            sample_id=path.stem,
            file_name=path.name,
            is_sentence=bool(content.get("is_sentence", False)),
        )

    def meant(self, index: int) -> Meant:
        """As of `RefCoco`, but the picture has to be there: only it says how large it is."""
        sample = self[index]
        return Meant(sample.sample_id, sample.mask.numpy(), sample.ignore.numpy())


_TARGET, _IGNORE = 1, 255


def _draw(shapes: list[dict[str, Any]], *, size: tuple[int, int]) -> np.ndarray:
    """Uint8 [H, W]: 1 target, 255 ignore, 0 neither."""
    polygons = []
    for shape in shapes:
        label = str(shape["label"]).lower()
        if "flag" in label:  # notes of the annotators
            continue
        corners = [(float(x), float(y)) for x, y in shape["points"]]
        if len(corners) < 3:
            raise ValueError(f"a shape of {len(corners)} points")
        single = Image.new("1", (size[1], size[0]))
        ImageDraw.Draw(single).polygon(corners, fill=1, outline=1)
        polygons.append((np.asarray(single), _IGNORE if "ignore" in label else _TARGET))
    values = np.zeros(size, dtype=np.uint8)
    for mask, value in sorted(polygons, key=lambda one: -np.count_nonzero(one[0])):
        values[mask] = value
    return values
