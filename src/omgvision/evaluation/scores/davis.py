"""J and F from DAVIS' files: a folder of indexed PNG files for every sequence."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omgvision.evaluation.davis import ObjectQuality, Protocol
from omgvision.evaluation.scores.files import read, read_labels, warn_of_surplus
from omgvision.evaluation.scores.folders import folder_names, subfolders
from omgvision.evaluation.scores.gather import gather

RESOLUTION = "480p"
ITEMS_A_PROCESS = 10


@dataclass(frozen=True)
class _Sequence:
    name: str
    predictions: list[Path | None]
    targets: list[Path]


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    protocol: Protocol = "semi-supervised",
    split: str = "val",
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """J, F and J&F.

    Args:
        ground_truth: DAVIS' folder, with `Annotations/480p/SEQUENCE/` (`Annotations_unsupervised` if it is there and
            asked for) and the names of the sequences in `ImageSets/2017/SPLIT.txt`; or a folder of sequences.
        predictions: Folder with the labels in `SEQUENCE/` under the same file names.
        protocol: Of `ObjectQuality`.
        split: Of DAVIS' folder.
        only: Names of the sequences that count; None = all.
        workers: Processes.

    Returns:
        What `ObjectQuality.compute` says, and `J/dog_1`, `J-Recall/dog_1` … of every object.

    Raises:
        ValueError: A file that is missing, broken or of another size, too many labels, no sequence.
    """
    semi = protocol == "semi-supervised"
    sequences, folders = [], _find_sequences(ground_truth, semi=semi, split=split)
    for name, folder in folders.items():
        if only is not None and name not in only:
            continue
        targets = sorted(folder.glob("*.png"))
        if not targets:
            raise ValueError(f"{folder}: expected PNG files, got none")
        files: list[Path | None] = [predictions / name / file.name for file in targets]
        if semi:  # the first and the last frame do not count and need not be there
            files[0] = files[-1] = None
        sequences.append(_Sequence(name, files, targets))
    metric = ObjectQuality(protocol)
    gather(metric, _update, sequences, workers=workers, title="sequences", items_a_process=ITEMS_A_PROCESS)
    warn_of_surplus(predictions, folder_names(predictions) - folders.keys(), "sequences", ground_truth)
    numbers = metric.compute()
    for name, values in metric.per_object().items():
        numbers |= {f"{key}/{name}": value for key, value in values.items()}
    return numbers


def _find_sequences(ground_truth: Path, *, semi: bool, split: str) -> dict[str, Path]:
    """Name → folder of the label maps."""
    root = ground_truth / "Annotations"
    if not root.is_dir():
        return {name: ground_truth / name for name in subfolders(ground_truth)}
    own = ground_truth / "Annotations_unsupervised"
    if not semi and own.is_dir():
        root = own
    names = ground_truth / "ImageSets" / "2017" / f"{split}.txt"
    if not names.is_file():
        raise ValueError(f"{names}: expected a list of sequences, got no file")
    listed = names.read_text(encoding="utf-8").split()
    if not listed:
        raise ValueError(f"{names}: expected names of sequences, got none")
    return {name: root / RESOLUTION / name for name in listed}


def _update(metric: ObjectQuality, sequence: _Sequence) -> None:
    metric.update(sequence.name, _frames(sequence))


def _frames(sequence: _Sequence) -> Iterator[tuple[np.ndarray | None, np.ndarray]]:
    for guess_file, truth_file in zip(sequence.predictions, sequence.targets, strict=True):
        truth = read(read_labels, truth_file)
        guess = None if guess_file is None else read(read_labels, guess_file)
        if guess is not None and guess.shape != truth.shape:
            raise ValueError(f"{guess_file}: expected the size of the target {truth.shape}, got {guess.shape}")
        yield guess, truth
