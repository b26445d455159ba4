"""Pictures, panoptic and by instances, from COCO's jsons."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.panoptic_files import read_ids, write_ids
from omgvision.evaluation.panoptic_quality import PanopticQuality, SegmentLabel
from omgvision.evaluation.run_lengths import compressed_all
from omgvision.evaluation.runner.files import write_list
from omgvision.evaluation.runner.task import (
    Graded,
    Outcome,
    Panel,
    Records,
    Settings,
    Task,
    decoded,
    read_picture,
    run_lengths,
    words_of,
)
from omgvision.evaluation.scores import average_precision, panoptic_quality
from omgvision.evaluation.scores.files import complete, read, read_json
from omgvision.predictor import Predictor

ImageOf = Callable[[Mapping[str, Any]], str]
"""From an entry of a json's images to the file below the folder of pictures."""

SHOWN_SCORE = 0.3
"""Detections of lower score are not drawn."""


def file_name(entry: Mapping[str, Any]) -> str:
    """COCO's own: what the entry says."""
    return entry["file_name"]


class PanopticImages(Task):
    """PQ, of a json with its PNG folder of the same stem."""

    quality = "PQ"

    def __init__(
        self,
        annotations: Path,
        *,
        images: Path,
        predictor: Predictor,
        settings: Settings,
        image_of: ImageOf = file_name,
    ):
        self.annotations, self.images, self.image_of = annotations, images, image_of
        self.predictor, self.words = predictor, words_of(predictor, settings)
        self.open_vocabulary = settings.clip_fusion
        truth = read_json(annotations, keys={"images": list, "annotations": list, "categories": list})
        with complete(annotations):
            self.entries = {str(entry["id"]): entry for entry in truth["images"]}
            self.truth = {str(entry["image_id"]): entry for entry in truth["annotations"]}
            self.things = {entry["id"]: bool(entry["isthing"]) for entry in truth["categories"]}
            self.names = {entry["id"]: str(entry["name"]) for entry in truth["categories"]}
            for identity in self.truth:
                if identity not in self.entries:
                    raise ValueError(f"expected an entry of images for every annotation, got none for {identity}")
        self.words.check(self.names, annotations)
        self.sample_ids = list(self.truth)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        truth = self.truth[sample_id]
        picture = read_picture(self.images / self.image_of(self.entries[sample_id]))
        result = self.predictor.segment(picture, task="panoptic", **self.words.arguments)
        categories = {segment.id: self.words.category(segment.label_id) for segment in result.segments}
        write_ids(result.label_map, self._folder(out, make=True) / Path(truth["file_name"]).name)
        record = {
            "image_id": truth["image_id"],
            "file_name": Path(truth["file_name"]).name,
            "segments_info": [{"id": identity, "category_id": label} for identity, label in categories.items()],
        }
        metric = PanopticQuality(self.things)
        with complete(self.annotations):
            metric.update(
                sample_id,
                result.label_map,
                {identity: SegmentLabel(label) for identity, label in categories.items()},
                self._true_ids(sample_id),
                {
                    segment["id"]: SegmentLabel(segment["category_id"], bool(segment.get("iscrowd", 0)))
                    for segment in truth["segments_info"]
                },
            )
        quality = metric.compute()["PQ"]
        return Outcome(record, None if quality != quality else quality)

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        folder = self._folder(out, make=True)
        predictions = folder.with_name(f"{folder.name}.json")
        entries = (records[sample_id] for sample_id in sample_ids)
        write_list(predictions, entries, around=('{"annotations": ', "}"))
        unseen = None
        if self.open_vocabulary:
            seen = self.predictor.vocabulary(self.words.classes).seen_mask.tolist()
            lacking = {self.words.category(label) for label, is_seen in enumerate(seen) if not is_seen}
            unseen = [name for category, name in self.names.items() if category in lacking]
        numbers = panoptic_quality.score(
            self.annotations, predictions, unseen=unseen, only=self.only(sample_ids), workers=workers
        )
        return Graded(numbers, ("coco-panoptic", "--gt", str(self.annotations), "--pred", str(predictions)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        truth = self.truth[sample_id]
        return Panel(
            read_picture(self.images / self.image_of(self.entries[sample_id])),
            list(_segment_masks(self._true_ids(sample_id), truth["segments_info"])),
            list(_segment_masks(read(read_ids, self._folder(out) / record["file_name"]), record["segments_info"])),
        )

    def _true_ids(self, sample_id: str) -> Any:
        return read(read_ids, self.annotations.with_suffix("") / self.truth[sample_id]["file_name"])

    def _folder(self, out: Path, *, make: bool = False) -> Path:
        folder = out / self.annotations.stem
        if make:
            folder.mkdir(parents=True, exist_ok=True)
        return folder


def _segment_masks(ids: Any, segments: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, int]]:
    for segment in segments:
        yield ids == segment["id"], segment["category_id"]


class InstanceImages(Task):
    """Mask AP, of a COCO instances json."""

    quality = "AP"

    def __init__(self, annotations: Path, *, images: Path, predictor: Predictor, settings: Settings):
        self.annotations, self.images = annotations, images
        self.predictor, self.words = predictor, words_of(predictor, settings)
        truth = read_json(annotations, keys={"images": list, "annotations": list, "categories": list})
        with complete(annotations):
            self.categories = {entry["id"]: entry for entry in truth["categories"]}
            names = {number: str(entry["name"]) for number, entry in self.categories.items()}
            self.entries = {str(entry["id"]): entry for entry in truth["images"]}
            self.truth: dict[str, list[dict[str, Any]]] = {identity: [] for identity in self.entries}
            for one in truth["annotations"]:
                self.truth[str(one["image_id"])].append(one)
        self.words.check(names, annotations)
        self.sample_ids = list(self.entries)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        entry, truth = self.entries[sample_id], self.truth[sample_id]
        picture = read_picture(self.images / entry["file_name"])
        result = self.predictor.segment(picture, task="instance", threshold=0.0, **self.words.arguments)
        detections = [
            {
                "image_id": entry["id"],
                "category_id": self.words.category(segment.label_id),
                "score": segment.score,
                "segmentation": run_lengths(segment.mask),
            }
            for segment in result.segments
        ]
        quality = None
        if truth:
            present = {one["category_id"] for one in truth}
            metric = AveragePrecision(
                {"images": [entry], "annotations": truth, "categories": [self.categories[one] for one in present]}
            )
            with complete(self.annotations):
                metric.update(sample_id, [one for one in detections if one["category_id"] in present])
            value = metric.compute()["AP"]
            quality = None if value != value else value
        return Outcome({"detections": detections}, quality)

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        predictions = out / "detections.json"
        write_list(predictions, (one for sample_id in sample_ids for one in records[sample_id]["detections"]))
        numbers = average_precision.score(self.annotations, predictions, only=self.only(sample_ids), workers=workers)
        return Graded(numbers, ("coco-instances", "--gt", str(self.annotations), "--pred", str(predictions)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del out
        entry = self.entries[sample_id]
        truth = [one for one in self.truth[sample_id] if not one.get("iscrowd", 0)]
        runs = compressed_all([one["segmentation"] for one in truth], size=(entry["height"], entry["width"]))
        shown = [one for one in record["detections"] if one["score"] >= SHOWN_SCORE]
        return Panel(
            read_picture(self.images / entry["file_name"]),
            [
                (decoded({**mask, "counts": mask["counts"].decode("ascii")}), one["category_id"])
                for mask, one in zip(runs, truth, strict=True)
            ],
            [(decoded(one["segmentation"]), one["category_id"]) for one in shown],
        )
