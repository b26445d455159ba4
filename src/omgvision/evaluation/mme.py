"""MME: two yes-or-no questions about each picture, in fourteen subtasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from omgvision.evaluation.metric import PerSample

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def read_answer(answer: str) -> str | None:
    """ "yes" or "no" among the first four characters, whatever the case, yes first; None for anything else."""
    start = answer.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


@dataclass(frozen=True)
class _Answer:
    subtask: str
    picture: str
    right: bool


class MMEScore(PerSample[_Answer]):
    """Keeps, of every question, whether it was answered rightly."""

    def update(self, sample_id: str, answer: str, *, subtask: str, picture: str, right: str) -> None:
        """Adds a question.

        Args:
            answer: What the model said.
            subtask: One of `PERCEPTION` or `COGNITION`.
            picture: Which of the subtask's pictures it is about.
            right: The right answer, yes or no.

        Raises:
            ValueError: Another subtask, a right answer that is neither.
        """
        if subtask not in PERCEPTION + COGNITION:
            raise ValueError(f"subtask: expected one of {', '.join(PERCEPTION + COGNITION)}, got {subtask}")
        if right not in ("yes", "no"):
            raise ValueError(f"right: expected yes or no, got {right!r} ({sample_id})")
        self.add(sample_id, _Answer(subtask, picture, read_answer(answer) == right))

    def compute(self) -> dict[str, float]:
        """`perception` (0 to 2000) and `cognition` (0 to 800): the sums of their subtasks' scores.

        These are points, as everybody quotes them. NaN if a subtask is missing.
        """
        scores = {subtask: 100 * (one + both) for subtask, (one, both) in self.per_subtask().items()}
        return {"perception": _total(scores, PERCEPTION), "cognition": _total(scores, COGNITION)}

    def per_subtask(self) -> dict[str, tuple[float, float]]:
        """Subtask → accuracy over questions, and accuracy+ over pictures: both questions right.

        Raises:
            ValueError: A picture without exactly two questions.
        """
        pictures: dict[str, dict[str, list[bool]]] = {}
        for record in self.ordered():
            pictures.setdefault(record.subtask, {}).setdefault(record.picture, []).append(record.right)
        numbers = {}
        for subtask, of_picture in sorted(pictures.items()):
            for picture, answers in of_picture.items():
                if len(answers) != 2:
                    raise ValueError(f"{subtask}: expected two questions about {picture}, got {len(answers)}")
            rows = list(of_picture.values())
            numbers[subtask] = (sum(map(sum, rows)) / (2 * len(rows)), sum(map(all, rows)) / len(rows))
        return numbers


def _total(scores: dict[str, float], subtasks: Sequence[str]) -> float:
    return sum(scores.get(subtask, float("nan")) for subtask in subtasks)
