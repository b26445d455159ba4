"""AP and AR of tracks from YouTube-VIS' files: an annotation json and a list of results."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omgvision.evaluation.run_lengths import compressed_all
from omgvision.evaluation.scores.files import complete, identity, integer, read_json
from omgvision.evaluation.scores.gather import gather
from omgvision.evaluation.video_average_precision import Track, VideoAveragePrecision

ITEMS_A_PROCESS = 50


@dataclass(frozen=True)
class _Video:
    entry: Mapping[str, Any]
    results: list[Mapping[str, Any]]
    annotations: list[Mapping[str, Any]]
    result_file: Path
    annotation_file: Path


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    by_category: bool = True,
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """YTVOSeval's twelve numbers. Results of categories that the ground truth lacks are left out, as it does.

    Args:
        ground_truth: Json with `videos`, `annotations` (tracks) and `categories`.
        predictions: Json list of tracks: `video_id`, `category_id`, `score` and `segmentations`, one for each frame.
        by_category: False takes all categories for one.
        only: Ids of the videos that count, as text; None = all.
        workers: Processes.

    Returns:
        What `VideoAveragePrecision.compute` says, and `AP/person` of every category.

    Raises:
        ValueError: A file that is missing or broken, a result of an unknown video, masks of another size, that do not
            decode or not one for each frame, or what `VideoAveragePrecision` refuses.
    """
    truth = read_json(ground_truth, keys={"videos": list, "annotations": list, "categories": list})
    results = read_json(predictions)
    if not isinstance(results, list):
        raise ValueError(f"{predictions}: expected a list of results, got a {type(results).__name__}")
    with complete(ground_truth):
        videos = {
            identity(entry, "id"): _Video(entry, [], [], predictions, ground_truth)
            for entry in sorted(truth["videos"], key=lambda entry: entry["id"])
        }
        names = {integer(entry, "id"): str(entry["name"]) for entry in truth["categories"]}
        for annotation in truth["annotations"]:
            if annotation["video_id"] not in videos:
                raise ValueError(f"expected annotations of its videos, got one of video {annotation['video_id']}")
            videos[annotation["video_id"]].annotations.append(annotation)
    if not videos:
        raise ValueError(f"{ground_truth}: expected videos, got none")
    with complete(predictions):
        for result in results:
            if result["video_id"] not in videos:
                raise ValueError(f"expected results for the videos of {ground_truth.name}, got {result['video_id']}")
            videos[result["video_id"]].results.append(result)

    metric = VideoAveragePrecision(names, by_category=by_category)
    counted = [video for identity, video in videos.items() if only is None or str(identity) in only]
    gather(metric, _update, counted, workers=workers, title="videos", items_a_process=ITEMS_A_PROCESS)
    return metric.compute() | {f"AP/{names[category]}": value for category, value in metric.per_category().items()}


def _update(metric: VideoAveragePrecision, video: _Video) -> None:
    with complete(video.annotation_file):
        truth = [_track(entry, video.entry, is_truth=True) for entry in video.annotations]
        name = str(video.entry["id"])
    with complete(video.result_file):
        results = [_track(entry, video.entry, is_truth=False) for entry in video.results]
        metric.update(name, results, truth)


def _track(entry: Mapping[str, Any], video: Mapping[str, Any], *, is_truth: bool) -> Track:
    masks, size = entry["segmentations"], (video["height"], video["width"])
    length = len(video["file_names"])
    if len(masks) != length:
        raise ValueError(f"video {video['id']}: expected tracks over {length} frames, got one over {len(masks)}")
    try:
        decoded = packed(masks, size=size)
    except ValueError as error:
        raise ValueError(f"video {video['id']}: {error}") from None
    if is_truth:
        return Track(entry["category_id"], decoded, is_crowd=bool(entry.get("iscrowd", 0)), areas=entry.get("areas"))
    if not isinstance(entry["score"], int | float):
        raise ValueError(f"video {video['id']}: expected a number as score, got {entry['score']!r}")
    return Track(entry["category_id"], decoded, score=entry["score"])


def packed(masks: Sequence[Any], *, size: tuple[int, int]) -> list[dict[str, Any] | None]:
    """A track's masks of a json in pycocotools' form; None where it is hidden.

    Raises:
        ValueError: Of `compressed_all`.
    """
    runs = iter(compressed_all([mask for mask in masks if mask], size=size))
    return [next(runs) if mask else None for mask in masks]
