"""POPE from its own json lines."""

from pathlib import Path
from typing import Any

from omgvision.evaluation.pope import ObjectProbing
from omgvision.evaluation.scores.tables import read_rows


def score(ground_truth: Path, predictions: Path) -> dict[str, float]:
    """What `ObjectProbing.compute` says.

    Args:
        ground_truth: `coco_pope_random.json` or another list of POPE (`question_id`, `label` yes or no).
        predictions: One row for each question with `answer` (or `text`, as LLaVA writes), matched by `question_id`, or
            by order, as POPE does it, if there is none.

    Raises:
        ValueError: A file that is missing or broken, a question without answer.
    """
    questions, answers = read_rows(ground_truth, keys=("label",)), read_rows(predictions, keys=())
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
    metric = ObjectProbing()
    for identity, question in pairs:
        if question["label"] not in ("yes", "no"):
            raise ValueError(f"{ground_truth}: expected labels yes or no, got {question['label']!r}")
        if identity not in by_id:
            raise ValueError(f"{predictions}: expected an answer to every question, got none to {identity}")
        metric.update(identity, _text(by_id[identity], predictions), present=question["label"] == "yes")
    return metric.compute()


def _text(row: dict[str, Any], path: Path) -> str:
    for key in ("answer", "text"):
        if key in row:
            return str(row[key])
    raise ValueError(f"{path}: expected an answer (or text) in every row, got {', '.join(row)}")
