"""POPE: does a model say that there is what is not there?"""

from omgvision.evaluation.metric import PerSample

DENIALS = frozenset({"No", "no", "not"})


def says_yes(answer: str) -> bool:
    """How POPE reads an answer: no if the first sentence has the word No, no or not; else yes."""
    return DENIALS.isdisjoint(answer.split(".")[0].replace(",", "").split(" "))


class ObjectProbing(PerSample[tuple[bool, bool]]):
    """Keeps, of every question whether an object is there, what is true and what the model said."""

    def update(self, sample_id: str, answer: str, *, present: bool) -> None:
        """Adds a question.

        Args:
            answer: What the model said, in its own words.
            present: Whether the object is there.
        """
        self.add(sample_id, (present, says_yes(answer)))

    def compute(self) -> dict[str, float]:
        """`accuracy`, `precision`, `recall`, `F1` of yes, and `yes_ratio`; NaN where it would be 0/0."""
        records = self.ordered()
        hits = sum(present and yes for present, yes in records)
        said, there = sum(yes for _, yes in records), sum(present for present, _ in records)
        return {
            "accuracy": _ratio(sum(present == yes for present, yes in records), len(records)),
            "precision": _ratio(hits, said),
            "recall": _ratio(hits, there),
            "F1": _ratio(2 * hits, said + there),
            "yes_ratio": _ratio(said, len(records)),
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
