"""MMBench from VLMEvalKit's tables."""

import string
from collections.abc import Collection
from pathlib import Path
from typing import Any

from omgvision.evaluation.multiple_choice import CircularAccuracy, Matching
from omgvision.tables import read_rows

ROTATION = 1_000_000
"""A question's rotations have its index plus multiples of this."""


def score(
    ground_truth: Path, predictions: Path, *, matching: Matching = "exact", only: Collection[str] | None = None
) -> dict[str, float]:
    """Circular evaluation.

    Args:
        ground_truth: Table of the benchmark (`index`, `answer`, `A`, `B`, …; `g_index`, `split`, `category`,
            `l2-category` where there are such), with all rotations.
        predictions: Table with `index` and `prediction` (an empty one is wrong). Rows of other indices do not count, as
            in VLMEvalKit; a row's own options win over the ground truth's.
        matching: How answers are read, see `CircularAccuracy`.
        only: Indices that count, as text; None = all.

    Returns:
        What `CircularAccuracy.compute` says, and `Overall/ocr` … of every category.

    Raises:
        ValueError: A table that is missing or broken, a question without prediction.
    """
    questions = read_rows(ground_truth, keys=("index", "answer"), omit=("image",))
    rows = read_rows(predictions, keys=("index",), omit=("image", "answer"), keep=("prediction",))
    if not any("prediction" in row for row in rows):
        raise ValueError(f"{predictions}: expected answers in a column prediction, got none")
    answers: dict[int, dict[str, Any]] = {}
    for row in rows:
        answers.setdefault(_index(row, predictions), row)
    metric = CircularAccuracy(matching)
    for question in questions:
        index = _index(question, ground_truth)
        if only is not None and str(index) not in only:
            continue
        if index not in answers:
            raise ValueError(f"{predictions}: expected a prediction for every question, got none for {index}")
        row = {**question, **answers[index]}
        try:
            metric.update(
                str(index),
                str(row.get("prediction", "")),
                choices={letter: str(row[letter]) for letter in string.ascii_uppercase if letter in row},
                right=str(row["answer"]),
                question=str(row.get("g_index", index % ROTATION)),
                split=str(row.get("split", "")),
                categories=tuple(str(row[key]) for key in ("l2-category", "category") if key in row),
            )
        except ValueError as error:
            raise ValueError(f"{ground_truth}: {error}") from None
    numbers = metric.compute()
    for category, row in metric.per_category().items():
        numbers |= {f"{name}/{category}": value for name, value in row.items()}
    return numbers


def _index(row: dict[str, Any], path: Path) -> int:
    try:
        return int(float(row["index"]))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: expected numbers as index, got {row['index']!r}") from None
