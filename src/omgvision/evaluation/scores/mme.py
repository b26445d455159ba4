"""MME from the text files of its `eval_tool`."""

from pathlib import Path

from omgvision.evaluation.mme import COGNITION, PERCEPTION, MMEScore


def score(ground_truth: Path, predictions: Path) -> dict[str, float]:
    """Scores of `existence.txt`, `count.txt`, …: picture, question, right answer (and answer), separated by tabs.

    Args:
        ground_truth: Folder of three columns (MME's `Your_Results`) or more. Two lines after each other are about one
            picture. Subtasks may be missing; then the sum over them is too.
        predictions: Folder of the same files with the answers as fourth column; other columns must agree.

    Returns:
        What `MMEScore.compute` says, and of every subtask `accuracy/count`, `accuracy_plus/count` and, in points,
        `score/count`.

    Raises:
        ValueError: No such folder, a file or a question that lacks an answer, lines of another form.
    """
    subtasks = [name for name in PERCEPTION + COGNITION if (ground_truth / f"{name}.txt").is_file()]
    if not subtasks:
        raise ValueError(f"{ground_truth}: expected a folder with existence.txt, count.txt, …, got none of them")
    metric = MMEScore()
    for subtask in subtasks:
        truth_path, guess_path = ground_truth / f"{subtask}.txt", predictions / f"{subtask}.txt"
        answers = {(row[0], row[1]): row for row in _read(guess_path, columns=4)}
        questions = _read(truth_path, columns=3)
        if len(questions) % 2:
            raise ValueError(f"{truth_path}: expected two questions about each picture, got {len(questions)} in all")
        for number, (picture, question, right, *_) in enumerate(questions):
            if (picture, question) not in answers:
                raise ValueError(f"{guess_path}: expected an answer to every question, got none to {question!r}")
            row = answers[picture, question]
            if row[2].lower() != right.lower():
                raise ValueError(f"{guess_path}: expected {right} as the right answer to {question!r}, got {row[2]}")
            try:
                metric.update(
                    f"{subtask}/{number}", row[3], subtask=subtask, picture=str(number // 2), right=right.lower()
                )
            except ValueError as error:
                raise ValueError(f"{truth_path}: {error}") from None
    numbers = metric.compute()
    for subtask, (one, both) in metric.per_subtask().items():
        numbers |= {
            f"accuracy/{subtask}": one,
            f"accuracy_plus/{subtask}": both,
            f"score/{subtask}": 100 * (one + both),
        }
    return numbers


def _read(path: Path, *, columns: int) -> list[list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = "no file" if isinstance(error, FileNotFoundError) else f"an unreadable one ({error})"
        raise ValueError(f"{path}: expected a text file with {columns} columns, got {reason}") from None
    rows = [line.split("\t") for line in lines if line]
    for number, row in enumerate(rows, start=1):
        if not columns <= len(row) <= 4:
            raise ValueError(f"{path}: expected {columns} columns separated by tabs, got {len(row)} in row {number}")
    return rows
