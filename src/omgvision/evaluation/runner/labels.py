"""Pictures with a class for every pixel, and Cityscapes' objects: predictions in files of each picture's own."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omgvision.data.class_lists import load_class_list
from omgvision.errors import UserError
from omgvision.evaluation.cityscapes_instances import CityscapesInstances
from omgvision.evaluation.cityscapes_labels import label_of
from omgvision.evaluation.mean_iou import MeanIoU
from omgvision.evaluation.runner.task import (
    Graded,
    Numbers,
    Outcome,
    Panel,
    Records,
    Settings,
    Task,
    defined,
    label_masks,
    read_picture,
    words_of,
)
from omgvision.evaluation.scores import cityscapes, mean_iou
from omgvision.evaluation.scores.files import complete, read, read_labels
from omgvision.output_files import write_text
from omgvision.predictor import Predictor

VOID = -1
MOST_DRAWN = 12
"""Detections of a picture on the contact sheet."""


@dataclass(frozen=True)
class Annotated:
    """A picture and the PNG file with its labels."""

    image: Path
    labels: Path


@dataclass(frozen=True)
class LabelFiles:
    """A benchmark of label maps.

    Attributes:
        pictures: By sample id, which is also the stem of the prediction's file.
        values: What stands for each class of the list in the files.
        score: (folder of predictions, which samples or None for all, workers) → numbers.
        command: Words after `omg score` without those of the predictions.
    """

    pictures: Mapping[str, Annotated]
    values: Sequence[int]
    score: Callable[[Path, Collection[str] | None, int], Numbers]
    command: Sequence[str]


class SemanticImages(Task):
    """mIoU, of pictures with label maps."""

    quality = "mIoU"

    def __init__(self, files: LabelFiles, *, predictor: Predictor, settings: Settings):
        self.files, self.predictor, self.words = files, predictor, words_of(predictor, settings)
        self.sample_ids = list(files.pictures)
        self.class_of = np.full(2**16, VOID, dtype=np.int32)
        self.class_of[list(files.values)] = np.arange(len(files.values))

    def predict(self, sample_id: str, out: Path) -> Outcome:
        files = self.files.pictures[sample_id]
        result = self.predictor.segment(read_picture(files.image), task="semantic", **self.words.arguments)
        classes = result.semantic_map()
        path = self._path(sample_id, out)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.array(self.files.values, dtype=np.uint8)[classes]).save(path)
        metric = MeanIoU(len(self.files.values), ignore=VOID)
        with complete(files.labels):
            metric.update(sample_id, classes, self.class_of[read(read_labels, files.labels)])
        return Outcome({}, defined(metric.compute()["mIoU"]))

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del records
        folder = self._path("", out).parent
        numbers = self.files.score(folder, self.only(sample_ids), workers)
        return Graded(numbers, (*self.files.command, "--pred", str(folder)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del record
        files = self.files.pictures[sample_id]
        colors = {value: number for number, value in enumerate(self.files.values)}
        truth, guess = (read(read_labels, path) for path in (files.labels, self._path(sample_id, out)))
        return Panel(read_picture(files.image), list(label_masks(truth, colors)), list(label_masks(guess, colors)))

    def _path(self, sample_id: str, out: Path) -> Path:
        return out / "labels" / f"{sample_id}.png"


class CityscapesObjects(Task):
    """Cityscapes' AP: a text file a picture and a PNG file a mask."""

    quality = "AP"

    def __init__(self, root: Path, *, predictor: Predictor, settings: Settings):
        self.root, self.predictor, self.words = root, predictor, words_of(predictor, settings)
        self.pictures = cityscapes_pictures(root, "instanceIds")
        self.sample_ids = list(self.pictures)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        files = self.pictures[sample_id]
        picture = read_picture(files.image)
        result = self.predictor.segment(picture, task="instance", threshold=0.0, **self.words.arguments)
        folder = self._folder(out)
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        lines, found = [], []
        for number, segment in enumerate(result.segments):
            assert segment.score is not None
            name = f"masks/{sample_id}_{number}.png"
            Image.fromarray(segment.mask).save(folder / name)
            label = self.words.category(segment.label_id)
            lines.append(f"{name} {label} {segment.score:.6f}\n")
            found.append((label, segment.score, segment.mask))
        write_text(folder / f"{sample_id}.txt", "".join(lines))
        metric = CityscapesInstances()
        with complete(files.labels):
            metric.update(sample_id, read(read_labels, files.labels), iter(found))
        return Outcome({}, defined(metric.compute()["AP"]))

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del records
        folder = self._folder(out)
        numbers = cityscapes.score_instances(self.root, folder, only=self.only(sample_ids), workers=workers)
        return Graded(numbers, ("cityscapes-instances", "--gt", str(self.root), "--pred", str(folder)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del record
        files, folder = self.pictures[sample_id], self._folder(out)
        ids = read(read_labels, files.labels)
        objects = {value: label_of(value).id for value in np.unique(ids[ids >= 1000]).tolist()}
        lines = (folder / f"{sample_id}.txt").read_text(encoding="utf-8").splitlines()[:MOST_DRAWN]
        found = [line.split(" ") for line in lines]
        return Panel(
            read_picture(files.image),
            list(label_masks(ids, objects)),
            [(np.asarray(read_picture(folder / name))[..., 0] > 0, int(label)) for name, label, _ in found],
        )

    def _folder(self, out: Path) -> Path:
        return out / "instances"


def ade20k_labels(root: Path) -> LabelFiles:
    """Pictures and maps of `validation`."""
    maps = root / "annotations" / "validation"
    pictures = {
        path.stem: Annotated(root / "images" / "validation" / f"{path.stem}.jpg", path)
        for path in sorted(maps.glob("*.png"))
    }
    return LabelFiles(
        _found(pictures, maps / "*.png"),
        values=[category + 1 for category in load_class_list("ade20k").category_ids],
        score=lambda folder, only, workers: mean_iou.score_ade20k(maps, folder, only=only, workers=workers),
        command=("ade20k-semantic", "--gt", str(maps)),
    )


def cityscapes_labels(root: Path) -> LabelFiles:
    """Pictures and maps of `val`."""
    return LabelFiles(
        cityscapes_pictures(root, "labelIds"),
        values=load_class_list("cityscapes").category_ids,
        score=lambda folder, only, workers: cityscapes.score_semantic(root, folder, only=only, workers=workers),
        command=("cityscapes-semantic", "--gt", str(root)),
    )


def camvid_labels(root: Path) -> LabelFiles:
    """Pictures and maps of `val`; there is no official file format, values are class indices."""
    maps = root / "labels" / "val"
    pictures = {
        path.stem: Annotated(path, maps / f"{path.stem}.png")
        for path in sorted((root / "images" / "val").glob("*.jpg"))
    }
    number = len(load_class_list("camvid").names)
    return LabelFiles(
        _found(pictures, root / "images" / "val" / "*.jpg"),
        values=range(number),
        score=lambda folder, only, workers: mean_iou.score_labels(
            maps, folder, num_classes=number, void=number, only=only, workers=workers
        ),
        command=("semantic", "--classes", str(number), "--void", str(number), "--gt", str(maps)),
    )


def cityscapes_pictures(root: Path, kind: str) -> dict[str, Annotated]:
    """Of `val`, by `cityscapes.image_name`; `kind` is the end of the map's name."""
    maps = sorted((root / "gtFine" / "val").glob(f"*/*_gtFine_{kind}.png"))
    pictures = {}
    for path in maps:
        name = cityscapes.image_name(path)
        folder = root / "leftImg8bit" / "val" / path.parent.name
        pictures[name] = Annotated(folder / f"{name}_leftImg8bit.png", path)
    return _found(pictures, root / "gtFine" / "val" / "*" / f"*_gtFine_{kind}.png")


def _found(pictures: dict[str, Annotated], where: Path) -> dict[str, Annotated]:
    if not pictures:
        raise UserError(f"{where}: expected files of this name, got none")
    return pictures
