"""VPQ from VIPSeg's files."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.scores import vipseg
from omgvision.evaluation.scores.files import integer
from omgvision.evaluation.scores.gather import gather
from omgvision.evaluation.video_panoptic_quality import VideoPanopticQuality


def score(
    ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None, workers: int = 1
) -> dict[str, float]:
    """VPQ over windows of 1, 2, 4, 6 and 8 frames.

    Args:
        ground_truth, predictions, only: See `vipseg.read_benchmark`.
        workers: Processes.

    Returns:
        What `VideoPanopticQuality.compute` says, and `VPQ@1/person` … of every window size and category.

    Raises:
        ValueError: Of `vipseg.read_benchmark`, `vipseg.read_frames` and `VideoPanopticQuality`.
    """
    benchmark = vipseg.read_benchmark(ground_truth, predictions, only=only)
    metric = VideoPanopticQuality(benchmark.things)
    gather(
        metric,
        _update,
        benchmark.videos,
        workers=workers,
        title="videos",
        items_a_process=vipseg.ITEMS_A_PROCESS,
    )
    numbers = metric.compute()
    for size, qualities in metric.per_category().items():
        numbers |= {f"VPQ@{size}/{benchmark.names[category]}": quality[0] for category, quality in qualities.items()}
    return numbers


def _update(metric: VideoPanopticQuality, video: vipseg.Video) -> None:
    metric.update(video.name, vipseg.read_frames(video, target_label=_label))


def _label(entry: Mapping[str, Any]) -> SegmentLabel:
    return SegmentLabel(integer(entry, "category_id"), bool(entry.get("iscrowd", 0)), entry.get("area"))
