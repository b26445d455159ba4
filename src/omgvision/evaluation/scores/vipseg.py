"""VIPSeg's files: a json of videos with the segments of every frame, and a folder of PNG files for each video."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omgvision.evaluation.panoptic_files import read_ids
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.scores.files import (
    complete,
    entries,
    identity,
    integer,
    read,
    read_json,
    text,
    warn_of_surplus,
)
from omgvision.evaluation.video_panoptic_quality import PanopticFrame

ITEMS_A_PROCESS = 4
"""Videos: fewer are done before a process has started."""


@dataclass(frozen=True)
class Side:
    """A video as one of the two jsons describes it: PNG files and `segments_info` of its frames."""

    json: Path
    files: list[Path]
    segments: list[list[dict[str, Any]]]


@dataclass(frozen=True)
class Video:
    name: str
    prediction: Side
    target: Side


@dataclass(frozen=True)
class Benchmark:
    """Both jsons: category id → countable, category id → name, and the videos."""

    things: dict[int, bool]
    names: dict[int, str]
    videos: list[Video]


def read_benchmark(ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None) -> Benchmark:
    """What there is to compare. Frames belong together by their place, as in VIPSeg's tools.

    Predicted videos that the ground truth lacks are left out with a warning.

    Args:
        ground_truth: `panoptic_gt_VIPSeg_val.json` with its PNG files in a folder of the same stem or in
            `panomasksRGB`; or the folder of both.
        predictions: The folder with `pred.json` and `pan_pred`; or a json with its PNG files in a folder of the same
            stem or in `pan_pred`.
        only: Names of the videos that count; None = all.

    Raises:
        ValueError: A file that is missing or broken, a video without prediction, another number of frames.
    """
    truth_file, truth_folder = _locate(ground_truth, json="panoptic_gt*.json", folder="panomasksRGB")
    guess_file, guess_folder = _locate(predictions, json="pred.json", folder="pan_pred")
    truth = read_json(truth_file, keys={"videos": list, "annotations": list, "categories": list})
    guesses = read_json(guess_file, keys={"annotations": list})
    with complete(guess_file):
        by_video = {identity(entry, "video_id"): entry["annotations"] for entry in guesses["annotations"]}
        guessed = {name: [entries(frame, "segments_info") for frame in frames] for name, frames in by_video.items()}
    with complete(truth_file):
        true = {
            identity(entry, "video_id"): [entries(frame, "segments_info") for frame in entry["annotations"]]
            for entry in truth["annotations"]
        }
        files = {
            identity(entry, "video_id"): [text(image, "file_name") for image in entry["images"]]
            for entry in truth["videos"]
        }
        things = {integer(entry, "id"): bool(entry["isthing"]) for entry in truth["categories"]}
        names = {entry["id"]: str(entry["name"]) for entry in truth["categories"]}
    if not files:
        raise ValueError(f"{truth_file}: expected videos, got none")
    videos = []
    for name, frames in files.items():
        if only is not None and str(name) not in only:
            continue
        for file, segments in ((truth_file, true), (guess_file, guessed)):
            if name not in segments:
                raise ValueError(f"{file}: expected annotations of every video, got none of {name}")
            if len(segments[name]) != len(frames):
                raise ValueError(
                    f"{file}: {name}: expected annotations of {len(frames)} frames, got {len(segments[name])}"
                )
        videos.append(
            Video(
                str(name),
                Side(guess_file, [guess_folder / str(name) / frame for frame in frames], guessed[name]),
                Side(truth_file, [truth_folder / str(name) / frame for frame in frames], true[name]),
            )
        )
    warn_of_surplus(guess_file, guessed.keys() - files.keys(), "videos", truth_file)
    return Benchmark(things, names, videos)


def _locate(path: Path, *, json: str, folder: str) -> tuple[Path, Path]:
    """The json and its folder of PNG files."""
    if path.is_dir():
        found = sorted(path.glob(json))
        chosen = found if len(found) == 1 else [file for file in found if file.stem.endswith("_val")]
        if len(chosen) != 1:
            raise ValueError(f"{path}: expected a {json} in this folder, got {len(found)}: name the file")
        path = chosen[0]
    same = path.with_suffix("")
    return path, same if same.is_dir() else path.parent / folder


Label = Callable[[Mapping[str, Any]], SegmentLabel]


def read_frames(video: Video, *, target_label: Label) -> Iterator[tuple[PanopticFrame, PanopticFrame]]:
    """Prediction and target of each frame.

    Args:
        target_label: Makes the label of an entry of the target's `segments_info`.

    Raises:
        ValueError: A PNG file that is missing, broken or of another size than the target's, an entry without a key.
    """
    for guess_file, guess, truth_file, truth in zip(
        video.prediction.files, video.prediction.segments, video.target.files, video.target.segments, strict=True
    ):
        guessed, true = read(read_ids, guess_file), read(read_ids, truth_file)
        if guessed.shape != true.shape:
            raise ValueError(f"{guess_file}: expected the size of the target {true.shape}, got {guessed.shape}")
        with complete(video.prediction.json):
            guess_labels = {integer(entry, "id"): SegmentLabel(integer(entry, "category_id")) for entry in guess}
        with complete(video.target.json):
            truth_labels = {integer(entry, "id"): target_label(entry) for entry in truth}
        yield PanopticFrame(guessed, guess_labels), PanopticFrame(true, truth_labels)
