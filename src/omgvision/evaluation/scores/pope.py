"""POPE from its own json lines."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from omgvision.evaluation.pope import ObjectProbing
from omgvision.tables import read_rows

LISTS = "coco_pope_*.json"


def score(ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None) -> dict[str, float]:
    """What `ObjectProbing.compute` says; of folders over all their lists, and `accuracy/random` … of each.

    Args:
        ground_truth: `coco_pope_random.json` or another list of POPE (`question_id`, `label` yes or no), or the folder
            of such lists.
        predictions: One row for each question with `answer` (or `text`, as LLaVA writes), matched by `question_id`, or
            by order, as POPE does it, if there is none. Of a folder of lists, the folder with files of the same names.
        only: Of a folder, questions that count (`random/1`), and lists without any are left out; None = all.

    Raises:
        ValueError: A file that is missing or broken, a question without answer.
    """
    metric = ObjectProbing()
    if not ground_truth.is_dir():
        _update(metric, ground_truth, predictions, prefix="", only=None)
        return metric.compute()
    lists = {path.stem.rpartition("_")[2]: path for path in sorted(ground_truth.glob(LISTS))}
    if not lists:
        raise ValueError(f"{ground_truth}: expected lists {LISTS}, got none")
    numbers: dict[str, float] = {}
    for name, path in lists.items():
        if only is not None and not any(one.startswith(f"{name}/") for one in only):
            continue
        of_list = ObjectProbing()
        _update(of_list, path, predictions / path.name, prefix=f"{name}/", only=only)
        numbers |= {f"{number}/{name}": value for number, value in of_list.compute().items()}
        metric.merge(of_list)
    return metric.compute() | numbers


def _update(
    metric: ObjectProbing, ground_truth: Path, predictions: Path, *, prefix: str, only: Collection[str] | None
) -> None:
    questions, answers = read_rows(ground_truth, keys=("label",)), read_rows(predictions, keys=(), keep=("answer",))
    if all("question_id" in row for row in [*questions, *answers]):
        by_id = {str(row["question_id"]): row for row in answers}
        pairs = [(str(question["question_id"]), question) for question in questions]
    elif len(answers) == len(questions):
        by_id = {str(number): row for number, row in enumerate(answers)}
        pairs = [(str(number), question) for number, question in enumerate(questions)]
    else:
        raise ValueError(
            f"{predictions}: expected answers with question_id, or {len(questions)} in the order of the questions, "
            f"got {len(answers)} without"
        )
    for identity, question in pairs:
        if only is not None and f"{prefix}{identity}" not in only:
            continue
        if question["label"] not in ("yes", "no"):
            raise ValueError(f"{ground_truth}: expected labels yes or no, got {question['label']!r}")
        if identity not in by_id:
            raise ValueError(f"{predictions}: expected an answer to every question, got none to {identity}")
        answer = _text(by_id[identity], predictions)
        metric.update(f"{prefix}{identity}", answer, present=question["label"] == "yes")


def _text(row: dict[str, Any], path: Path) -> str:
    for key in ("answer", "text"):
        if key in row:
            return str(row[key])
    raise ValueError(f"{path}: expected an answer (or text) in every row, got {', '.join(row)}")
