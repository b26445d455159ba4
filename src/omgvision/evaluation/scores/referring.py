"""Referring segmentation from run-length masks.

There is no official format of predictions. This one is `{"samples": [{"id": …, …}, …]}` on both sides. Ground truth: a
run-length mask `gt`, and where there are such things a mask `ignore`, a bool `gt_no_target` and the name `source` of
the data set; `runner/sentence_files.py` makes it of the benchmarks' own files. Predictions: a run-length mask `pred`,
null where a model gave none at all, and, from a model that says so, a bool `pred_no_target`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from omgvision.evaluation.referring import Protocol, ReferringIoU
from omgvision.evaluation.run_lengths import compressed, size_of
from omgvision.evaluation.scores.files import complete, identity, read_json, warn_of_surplus
from omgvision.evaluation.scores.gather import gather

SAMPLES_A_PROCESS = 2000
"""Fewer are done before a process has started."""


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    samples: Sequence[dict[str, Any]] | None = None,
    protocol: Protocol = "lisa",
    ignore: bool = False,
    workers: int = 1,
) -> dict[str, float]:
    """What `ReferringIoU.compute` says, and with several sources `gIoU/refcoco` … of each.

    Args:
        ground_truth, predictions: Jsons of samples.
        samples: Those of the ground truth, if it is something else; None = read it.
        protocol: How sentences without a target count.
        ignore: Leave out the pixels of `ignore` masks (ReasonSeg).

    Raises:
        ValueError: A file that is missing or broken, a sample without prediction, a mask of another size.
    """
    if samples is None:
        samples = _read(ground_truth)
    guesses = _read(predictions)
    if not samples:
        raise ValueError(f"{ground_truth}: expected samples, got none")
    with complete(predictions):
        by_id = {identity(entry, "id"): entry for entry in guesses}
    items = []
    for sample in samples:
        with complete(ground_truth):
            sample_id = identity(sample, "id")
        if sample_id not in by_id:
            raise ValueError(f"{predictions}: expected a prediction for every sample, got none for {sample_id}")
        items.append((sample, by_id[sample_id]))
    metric = ReferringIoU(protocol)
    update = partial(_update, ground_truth=ground_truth, predictions=predictions, ignore=ignore)
    gather(metric, update, items, workers=workers, title="sentences", items_a_process=SAMPLES_A_PROCESS)
    warn_of_surplus(predictions, by_id.keys() - {sample["id"] for sample in samples}, "samples", ground_truth)
    numbers = metric.compute()
    sources = metric.per_source()
    if len(sources) > 1:
        numbers |= {f"{name}/{source}": value for source, row in sources.items() for name, value in row.items()}
    return numbers


def _read(path: Path) -> list[dict[str, Any]]:
    return read_json(path, keys={"samples": list})["samples"]


def _update(
    metric: ReferringIoU,
    item: tuple[dict[str, Any], dict[str, Any]],
    *,
    ground_truth: Path,
    predictions: Path,
    ignore: bool,
) -> None:
    sample, guess = item
    with complete(ground_truth):
        size = size_of(sample["gt"])
        target = _decode(sample["gt"], size)
        left_out = sample.get("ignore") if ignore else None
        ignored = None if left_out is None else _decode(left_out, size)
    with complete(predictions):
        prediction = None if guess["pred"] is None else _decode(guess["pred"], size)
    metric.update(
        str(sample["id"]),
        prediction,
        target,
        ignore=ignored,
        no_target=sample.get("gt_no_target"),
        predicted_no_target=guess.get("pred_no_target"),
        source=str(sample.get("source", "")),
    )


def _decode(segmentation: Any, size: tuple[int, int]) -> np.ndarray:
    tools: Any = coco_mask
    return tools.decode(compressed(segmentation, size=size)).astype(bool)
