"""Videos: panoptic (VIPSeg), by instances (YouTube-VIS, OVIS), by classes (VSPW), and objects given on the first frame
(DAVIS). Frames are read and answered one by one."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omgvision.errors import UserError
from omgvision.evaluation.davis import VOID as DAVIS_VOID
from omgvision.evaluation.davis import ObjectQuality
from omgvision.evaluation.panoptic_files import read_ids, write_ids
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.runner.files import write_list
from omgvision.evaluation.runner.task import (
    Graded,
    Outcome,
    Panel,
    Records,
    Settings,
    Task,
    decoded,
    defined,
    label_masks,
    read_picture,
    run_lengths,
    words_of,
)
from omgvision.evaluation.scores import (
    davis,
    segmentation_tracking_quality,
    video_average_precision,
    video_consistency,
    video_panoptic_quality,
)
from omgvision.evaluation.scores.files import complete, read, read_json, read_labels
from omgvision.evaluation.video_average_precision import Track, VideoAveragePrecision
from omgvision.evaluation.video_consistency import VideoConsistency
from omgvision.evaluation.video_panoptic_quality import PanopticFrame, VideoPanopticQuality
from omgvision.predictor import Predictor
from omgvision.results import Result

SHOWN_SCORE = 0.3
"""Tracks of lower score are not drawn."""
ORIGINAL_WINDOWS = (1, 2, 4, 6)
ORIGINAL_VPQ = "VPQ@1,2,4,6"
"""As the original's `eval_video.py` averages: without windows of 8 frames, and over all classes, of which those that do
not occur count 0. It compared maps of the size that frames were resized to (at most 1280 and 736), we compare those of
the data: the same for frames of 1280×720."""


class VideoTask(Task):
    """What the kinds of videos share."""

    def __init__(self, predictor: Predictor, settings: Settings):
        self.predictor, self.settings = predictor, settings

    def results(self, frames: Sequence[Path], **arguments: Any) -> Iterator[Result]:
        """One result a frame, segments with the ids of their tracks."""
        assert self.settings.mode is not None
        return self.predictor.track((read_picture(path) for path in frames), mode=self.settings.mode, **arguments)


def middle(frames: Sequence[Any]) -> int:
    """Which frame of a video stands for it on the contact sheet."""
    return len(frames) // 2


@dataclass(frozen=True)
class _Annotated:
    """A video of VIPSeg: frames, PNG files, and of every frame its entry of the json's annotations."""

    frames: list[Path]
    maps: list[Path]
    entries: list[dict[str, Any]]


class PanopticVideos(VideoTask):
    """VPQ and STQ, of VIPSeg's json, `panomasksRGB` and `images`."""

    quality = "VPQ"

    def __init__(self, root: Path, *, predictor: Predictor, settings: Settings):
        super().__init__(predictor, settings)
        self.words = words_of(predictor, settings)
        self.annotations = root / "panoptic_gt_VIPSeg_val.json"
        truth = read_json(self.annotations, keys={"videos": list, "annotations": list, "categories": list})
        with complete(self.annotations):
            self.things = {entry["id"]: bool(entry["isthing"]) for entry in truth["categories"]}
            names = {entry["id"]: str(entry["name"]) for entry in truth["categories"]}
            entries = {str(entry["video_id"]): entry["annotations"] for entry in truth["annotations"]}
            self.videos: dict[str, _Annotated] = {}
            for video in truth["videos"]:
                name, files = str(video["video_id"]), [Path(image["file_name"]) for image in video["images"]]
                self.videos[name] = _Annotated(
                    [root / "images" / name / f"{file.stem}.jpg" for file in files],
                    [root / "panomasksRGB" / name / file for file in files],
                    entries[name],
                )
        self.words.check(names, self.annotations)
        self.sample_ids = list(self.videos)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        video = self.videos[sample_id]
        folder = out / "pan_pred" / sample_id
        folder.mkdir(parents=True, exist_ok=True)
        described: list[dict[str, Any]] = []
        results = self.results(video.frames, task="panoptic", **self.words.arguments)
        for result, path, entry in zip(results, video.maps, video.entries, strict=True):
            seen = set(np.unique(result.label_map).tolist())
            write_ids(result.label_map, folder / path.name)
            info = [
                {"id": segment.id, "category_id": self.words.category(segment.label_id)}
                for segment in result.segments
                if segment.id in seen
            ]
            described.append({"file_name": path.name, "image_id": entry.get("image_id"), "segments_info": info})
        metric = VideoPanopticQuality(self.things)
        with complete(self.annotations):
            metric.update(
                sample_id,
                (
                    (
                        PanopticFrame(read(read_ids, folder / path.name), _labels(guess)),
                        PanopticFrame(read(read_ids, path), _labels(truth)),
                    )
                    for path, guess, truth in zip(video.maps, described, video.entries, strict=True)
                ),
            )
        return Outcome({"video_id": sample_id, "annotations": described}, defined(metric.compute()["VPQ"]))

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        write_list(
            out / "pred.json", (records[sample_id] for sample_id in sample_ids), around=('{"annotations": ', "}")
        )
        only = self.only(sample_ids)
        numbers = video_panoptic_quality.score(self.annotations, out, only=only, workers=workers)
        numbers[ORIGINAL_VPQ] = original_vpq(numbers)
        numbers |= segmentation_tracking_quality.score(self.annotations, out, only=only, workers=workers)
        return Graded(
            numbers,
            ("vpq", "--gt", str(self.annotations), "--pred", str(out)),
            note=f"{ORIGINAL_VPQ} is the mean over the windows that OMG-Seg was measured with, and over all classes"
            " (those that do not occur count 0); VPQ is VIPSeg's, over the classes that occur. STQ, AQ and SQ: `omg"
            " score stq` with the same files.",
        )

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        video = self.videos[sample_id]
        number = middle(video.frames)
        told, path = record["annotations"][number], video.maps[number]
        guessed = {segment["id"]: segment["category_id"] for segment in told["segments_info"]}
        true = {segment["id"]: segment["category_id"] for segment in video.entries[number]["segments_info"]}
        return Panel(
            read_picture(video.frames[number]),
            list(label_masks(read(read_ids, path), true)),
            list(label_masks(read(read_ids, out / "pan_pred" / sample_id / path.name), guessed)),
        )


def original_vpq(numbers: Mapping[str, float]) -> float:
    """`ORIGINAL_VPQ` of what `video_panoptic_quality.score` says."""
    of_classes = tuple(f"VPQ@{size}/" for size in ORIGINAL_WINDOWS)
    return float(np.mean([value for name, value in numbers.items() if name.startswith(of_classes)]))


def _labels(entry: Mapping[str, Any]) -> dict[int, SegmentLabel]:
    """What each segment of a frame is."""
    return {
        segment["id"]: SegmentLabel(segment["category_id"], bool(segment.get("iscrowd", 0)), segment.get("area"))
        for segment in entry["segments_info"]
    }


class InstanceVideos(VideoTask):
    """AP of tracks, of a json in YouTube-VIS' form and the folder that its file names are relative to.

    The annotations of most `valid` splits are not public: then there are results for the benchmark's server, and no
    number.
    """

    quality = "AP"

    def __init__(self, annotations: Path, *, images: Path, predictor: Predictor, settings: Settings):
        super().__init__(predictor, settings)
        self.words = words_of(predictor, settings)
        self.annotations, self.images = annotations, images
        truth = read_json(annotations, keys={"videos": list, "categories": list})
        with complete(annotations):
            self.videos = {str(video["id"]): video for video in truth["videos"]}
            self.names = {entry["id"]: str(entry["name"]) for entry in truth["categories"]}
            self.public = bool(truth.get("annotations"))
            self.truth: dict[str, list[dict[str, Any]]] = {identity: [] for identity in self.videos}
            for track in truth.get("annotations") or ():
                self.truth[str(track["video_id"])].append(track)
        self.words.check(self.names, annotations)
        self.sample_ids = list(self.videos)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        del out
        video = self.videos[sample_id]
        files = [self.images / name for name in video["file_names"]]
        tracks = collect_tracks(
            self.results(files, task="instance", threshold=0.0, **self.words.arguments), length=len(files)
        )
        found = [
            {
                "video_id": video["id"],
                "category_id": self.words.category(track.label),
                "score": track.score,
                "segmentations": track.masks,
            }
            for track in tracks
        ]
        quality = None
        if self.truth[sample_id]:
            metric = VideoAveragePrecision(self.names)
            with complete(self.annotations):
                metric.update(
                    sample_id,
                    [Track(one["category_id"], _packed(one, video), score=one["score"]) for one in found],
                    [
                        Track(
                            one["category_id"],
                            _packed(one, video),
                            is_crowd=bool(one.get("iscrowd", 0)),
                            areas=one.get("areas"),
                        )
                        for one in self.truth[sample_id]
                    ],
                )
            quality = defined(metric.compute()["AP"])
        return Outcome({"tracks": found}, quality)

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        predictions = out / "results.json"
        write_list(predictions, (one for sample_id in sample_ids for one in records[sample_id]["tracks"]))
        if not self.public:
            return Graded(
                {},
                note=f"{self.annotations.name} has no annotations, they are not public: send {predictions} (zipped) to"
                " the benchmark's server.",
            )
        numbers = video_average_precision.score(
            self.annotations, predictions, only=self.only(sample_ids), workers=workers
        )
        return Graded(numbers, ("youtube-vis", "--gt", str(self.annotations), "--pred", str(predictions)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del out
        video = self.videos[sample_id]
        number = middle(video["file_names"])
        truth = [(one, _packed(one, video)[number]) for one in self.truth[sample_id]]
        shown = [one for one in record["tracks"] if one["score"] >= SHOWN_SCORE and one["segmentations"][number]]
        return Panel(
            read_picture(self.images / video["file_names"][number]),
            [
                (decoded({**runs, "counts": runs["counts"].decode("ascii")}), one["category_id"])
                for one, runs in truth
                if runs
            ],
            [(decoded(one["segmentations"][number]), one["category_id"]) for one in shown],
        )


def _packed(track: Mapping[str, Any], video: Mapping[str, Any]) -> list[dict[str, Any] | None]:
    """Masks of a json in pycocotools' form."""
    return video_average_precision.packed(track["segmentations"], size=(video["height"], video["width"]))


@dataclass(frozen=True)
class FoundTrack:
    """A track: its class, the mean of its scores, and a mask (run lengths) or None for each frame."""

    label: int
    score: float
    masks: list[dict[str, Any] | None]


def collect_tracks(results: Iterable[Result], *, length: int) -> list[FoundTrack]:
    """Results of a video's frames → tracks, the best first.

    Scores are averaged over the frames where a track is seen, and its class is the one that it has most often, as in
    mmdet's `YouTubeVISMetric`, with which the original was measured.
    """
    masks: dict[int, list[dict[str, Any] | None]] = {}
    scores: dict[int, list[float]] = {}
    labels: dict[int, Counter[int]] = {}
    for frame, result in enumerate(results):
        for segment in result.segments:
            if segment.area == 0 or segment.label_id is None:
                continue
            masks.setdefault(segment.id, [None] * length)[frame] = run_lengths(segment.mask)
            scores.setdefault(segment.id, []).append(segment.score or 0.0)
            labels.setdefault(segment.id, Counter())[segment.label_id] += 1
    tracks = [FoundTrack(labels[one].most_common(1)[0][0], float(np.mean(scores[one])), masks[one]) for one in masks]
    return sorted(tracks, key=lambda track: -track.score)


@dataclass(frozen=True)
class _Labelled:
    """A video with a PNG file for each frame."""

    frames: list[Path]
    labels: list[Path]


class SemanticVideos(VideoTask):
    """mIoU and video consistency, of VSPW's folders."""

    quality = "mIoU"

    def __init__(self, root: Path, *, predictor: Predictor, settings: Settings):
        super().__init__(predictor, settings)
        self.root, self.words = root, words_of(predictor, settings)
        self.videos: dict[str, _Labelled] = {}
        for name in (root / "val.txt").read_text(encoding="utf-8").split():
            labels = sorted((root / "data" / name / "mask").glob("*.png"))
            frames = [root / "data" / name / "origin" / f"{path.stem}.jpg" for path in labels]
            self.videos[name] = _Labelled(frames, labels)
        self.sample_ids = list(self.videos)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        video = self.videos[sample_id]
        folder = self._folder(out) / sample_id
        folder.mkdir(parents=True, exist_ok=True)

        results = self.results(video.frames, task="semantic", **self.words.arguments)
        for result, path in zip(results, video.labels, strict=True):
            Image.fromarray(result.semantic_map()).save(folder / path.name)

        def compared() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            for path in video.labels:
                truth = read(read_labels, path)
                truth = np.where(truth == video_consistency.VOID, truth, truth - np.uint8(1))
                yield read(read_labels, folder / path.name), truth

        metric = VideoConsistency(video_consistency.CLASSES)
        with complete(self.root / "data" / sample_id):
            metric.update(sample_id, compared())
        return Outcome({}, defined(metric.compute()["mIoU"]))

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del records
        folder = self._folder(out)
        numbers = video_consistency.score(self.root, folder, from_one=True, only=self.only(sample_ids), workers=workers)
        return Graded(numbers, ("vspw", "--from-one", "--gt", str(self.root), "--pred", str(folder)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del record
        video = self.videos[sample_id]
        number = middle(video.frames)
        path = video.labels[number]
        classes = dict(enumerate(range(video_consistency.CLASSES)))
        true = {value + 1: number for value, number in classes.items()}
        guess = read(read_labels, self._folder(out) / sample_id / path.name)
        return Panel(
            read_picture(video.frames[number]),
            list(label_masks(read(read_labels, path), true)),
            list(label_masks(guess, classes)),
        )

    def _folder(self, out: Path) -> Path:
        return out / "semantic"


class ObjectVideos(VideoTask):
    """J&F, of DAVIS' folders: the objects of the first frame are given and are to be found in the others."""

    quality = "J&F"

    def __init__(self, root: Path, *, predictor: Predictor, settings: Settings):
        super().__init__(predictor, settings)
        self.root = root
        self.sample_ids = (root / "ImageSets" / "2017" / "val.txt").read_text(encoding="utf-8").split()

    def predict(self, sample_id: str, out: Path) -> Outcome:
        maps = self._maps(sample_id)
        frames = [self._frame(path) for path in maps]
        first = read(read_labels, maps[0])
        numbers = [value for value in np.unique(first).tolist() if value not in (0, DAVIS_VOID)]
        folder = self._folder(out) / sample_id
        folder.mkdir(parents=True, exist_ok=True)

        given = {number: first == number for number in numbers}
        results = self.results(frames, task="objects", masks=given)
        for result, path in zip(results, maps, strict=True):
            write_palette(result.label_map.astype(np.uint8), folder / path.name)

        def compared() -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
            for position, path in enumerate(maps):  # the first frame is given, and the last does not count
                counts = 0 < position < len(maps) - 1
                yield read(read_labels, folder / path.name) if counts else None, read(read_labels, path)

        metric = ObjectQuality()
        with complete(maps[0].parent):
            metric.update(sample_id, compared())
        return Outcome({}, defined(metric.compute()["J&F"]))

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del records
        numbers = davis.score(self.root, self._folder(out), only=self.only(sample_ids), workers=workers)
        return Graded(numbers, ("davis", "--gt", str(self.root), "--pred", str(self._folder(out))))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del record
        maps = self._maps(sample_id)
        path = maps[middle(maps)]
        numbers = {value: value for value in range(1, DAVIS_VOID)}
        guess = read(read_labels, self._folder(out) / sample_id / path.name)
        return Panel(
            read_picture(self._frame(path)),
            list(label_masks(read(read_labels, path), numbers)),
            list(label_masks(guess, numbers)),
        )

    def _maps(self, sample_id: str) -> list[Path]:
        folder = self.root / "Annotations" / davis.RESOLUTION / sample_id
        maps = sorted(folder.glob("*.png"))
        if not maps:
            raise UserError(f"{folder}: expected a PNG file for every frame, got none")
        return maps

    def _frame(self, path: Path) -> Path:
        return self.root / "JPEGImages" / davis.RESOLUTION / path.parent.name / f"{path.stem}.jpg"

    def _folder(self, out: Path) -> Path:
        return out / "objects"


def write_palette(labels: np.ndarray, path: Path) -> None:
    """Labels uint8 [H, W] → a PNG with the colours that PASCAL VOC and DAVIS give to numbers."""
    image = Image.fromarray(labels).convert("P") if labels.dtype != np.uint8 else Image.fromarray(labels, mode="P")
    image.putpalette(_palette())
    image.save(path)


def _palette() -> list[int]:
    """Bits 0, 1, 2 of the number are the highest bits of red, green, blue; bits 3, 4, 5 the next ones, and so on."""
    colours = []
    for number in range(256):
        for channel in range(3):
            colours.append(sum((number >> 3 * place + channel & 1) << 7 - place for place in range(3)))
    return colours
