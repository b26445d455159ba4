"""STQ from VIPSeg's files, equal to its `eval_stq_vspw.py`."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.scores import vipseg
from omgvision.evaluation.scores.files import integer
from omgvision.evaluation.scores.gather import gather
from omgvision.evaluation.segmentation_tracking_quality import SegmentationTrackingQuality


def score(
    ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """STQ, AQ and SQ.

    Args:
        ground_truth, predictions, only: See `vipseg.read_benchmark`.
        workers: Processes.

    Returns:
        What `SegmentationTrackingQuality.compute` says, and `STQ/v1`, `AQ/v1`, `SQ/v1` of every video.

    Raises:
        ValueError: Of `vipseg.read_benchmark`, `vipseg.read_frames` and `SegmentationTrackingQuality`.
    """
    benchmark = vipseg.read_benchmark(ground_truth, predictions, only=only)
    metric = SegmentationTrackingQuality(benchmark.things)
    gather(
        metric,
        _update,
        benchmark.videos,
        workers=workers,
        title="videos",
        items_a_process=vipseg.ITEMS_A_PROCESS,
    )
    numbers = metric.compute()
    for video, of_video in metric.per_video().items():
        numbers |= {f"{name}/{video}": value for name, value in of_video.items()}
    return numbers


def _update(metric: SegmentationTrackingQuality, video: vipseg.Video) -> None:
    # The official tool numbers the segments of a video from 0 as they come, and 0 is what STQ takes for a crowd of
    # things. So the first is one, and the json's own crowds are none: published numbers are made this way.
    first = next((entry.get("id") for segments in video.target.segments for entry in segments), None)

    def label(entry: Mapping[str, Any]) -> SegmentLabel:
        return SegmentLabel(integer(entry, "category_id"), entry["id"] == first)

    metric.update(video.name, vipseg.read_frames(video, target_label=label))
