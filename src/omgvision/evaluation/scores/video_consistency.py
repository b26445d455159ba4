"""mIoU and video consistency from VSPW's files: a folder of PNG label maps for every video."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omgvision.evaluation.scores.files import read, read_labels, warn_of_surplus
from omgvision.evaluation.scores.folders import folder_names, subfolders
from omgvision.evaluation.scores.gather import gather
from omgvision.evaluation.video_consistency import VideoConsistency

CLASSES = 124
VOID = 255
ITEMS_A_PROCESS = 4


@dataclass(frozen=True)
class _Video:
    name: str
    predictions: list[Path]
    targets: list[Path]
    from_one: bool


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    from_one: bool = False,
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """mIoU, FWIoU and VC of VSPW's 124 classes.

    Args:
        ground_truth: Folder with the true labels of a video in `data/VIDEO/mask/`, `VIDEO/mask/` or `VIDEO/`. If it or
            the folder above has a `val.txt`, the videos are those named in there, else all.
        predictions: Folder with the predicted classes, 0 to 123, in `VIDEO/` under the same file names.
        from_one: The true labels are as VSPW distributes them, classes from 1 and 0 void; else classes are from 0 and
            255 is void, as its scripts expect.
        only: Names of the videos that count; None = all.
        workers: Processes.

    Returns:
        What `VideoConsistency.compute` says, and `mIoU/VIDEO` of every video and `IoU/17` of every class.

    Raises:
        ValueError: A file that is missing, broken or of another size, labels that are no classes, no video.
    """
    videos, folders = [], _find_videos(ground_truth)
    for name, folder in folders.items():
        if only is not None and name not in only:
            continue
        targets = sorted(folder.glob("*.png"))
        if not targets:
            raise ValueError(f"{folder}: expected PNG files, got none")
        videos.append(_Video(name, [predictions / name / file.name for file in targets], targets, from_one))
    metric = VideoConsistency(CLASSES)
    gather(metric, _update, videos, workers=workers, title="videos", items_a_process=ITEMS_A_PROCESS)
    warn_of_surplus(predictions, folder_names(predictions) - folders.keys(), "videos", ground_truth)
    numbers = metric.compute()
    numbers |= {f"mIoU/{name}": value for name, value in metric.per_video().items()}
    return numbers | {f"IoU/{index}": value for index, value in enumerate(metric.per_class().tolist())}


def _find_videos(ground_truth: Path) -> dict[str, Path]:
    """Name → folder of the label maps."""
    root = ground_truth / "data" if (ground_truth / "data").is_dir() else ground_truth
    lists = [folder / "val.txt" for folder in (ground_truth, ground_truth.parent)]
    file = next((file for file in lists if file.is_file()), None)
    names = subfolders(root) if file is None else file.read_text(encoding="utf-8").split()
    if not names:
        raise ValueError(f"{file}: expected names of videos, got none")
    return {name: root / name / "mask" if (root / name / "mask").is_dir() else root / name for name in names}


def _update(metric: VideoConsistency, video: _Video) -> None:
    metric.update(video.name, _frames(video))


def _frames(video: _Video) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for guess_file, truth_file in zip(video.predictions, video.targets, strict=True):
        guess, truth = read(read_labels, guess_file), read(read_labels, truth_file)
        if guess.shape != truth.shape:
            raise ValueError(f"{guess_file}: expected the size of the target {truth.shape}, got {guess.shape}")
        if video.from_one:
            # 0 becomes 255, and 255 stays what it is.
            truth = np.where(truth == VOID, VOID, truth - np.uint8(1))
        unknown = truth[(truth >= CLASSES) & (truth != VOID)]
        if unknown.size:
            raise ValueError(
                f"{truth_file}: expected classes 0 to {CLASSES - 1} or void {VOID}, got {unknown[0]}: "
                "labels as VSPW distributes them need --from-one"
            )
        yield guess, truth
