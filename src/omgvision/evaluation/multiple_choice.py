"""Multiple-choice questions: which option a free answer means, and circular evaluation, as MMBench does it."""

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from omgvision.evaluation.metric import PerSample

NO_OPTION = "Z"
"""What stands for an answer that refuses to choose."""

Matching = Literal["exact", "letters"]

ABILITIES = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
"""MMBench's abilities (`l2-category`) and their usual short names."""

FAILURE = "Failed to obtain answer via API"
REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
PUNCTUATION = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
LETTERS = re.compile(r"[A-D]+")
STATED = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)


def match_option(answer: str, choices: Mapping[str, str]) -> str | None:
    """The letter that an answer means: VLMEvalKit's exact matching (`can_infer`), rule by rule.

    A refusal is Z. A single letter that is an option and stands among the last four words wins; a lone Z is Z; then
    "answer is B"; then the only option whose text occurs in an answer of at most twice the length of all options.

    Args:
        answer: What the model said.
        choices: Letter → text of the option.

    Returns:
        A letter of `choices`, Z, or None if it cannot be told.
    """
    return _match_letter(answer, choices) or _match_text(answer, choices)


def _match_letter(answer: str, choices: Mapping[str, str]) -> str | None:
    if FAILURE in answer:
        return None
    if any(refusal in answer for refusal in REFUSALS):
        return NO_OPTION
    words = answer.translate(PUNCTUATION).split()
    named = [letter for letter in choices if letter in words]
    if len(named) == 1 and words.index(named[0]) > len(words) - 5:
        return named[0]
    if not named and NO_OPTION in words:
        return NO_OPTION
    stated = STATED.search(answer)
    if stated and stated[1].upper() in choices:
        return stated[1].upper()
    return None


def _match_text(answer: str, choices: Mapping[str, str]) -> str | None:
    if len(answer) > 2 * sum(map(len, choices.values())):
        return None
    named = [letter for letter, text in choices.items() if text.lower() in answer.lower()]
    return named[0] if len(named) == 1 else None


def first_letters(answer: str) -> str:
    """The first run of letters A to D, as OMG-LLaVA's (and xtuner's) own evaluation reads an answer; "" without any."""
    found = LETTERS.search(answer)
    return found[0] if found else ""


@dataclass(frozen=True)
class _Answer:
    question: str
    right: bool
    split: str
    categories: tuple[str, ...]


class CircularAccuracy(PerSample[_Answer]):
    """Keeps, of every asking of every question, whether it was answered rightly.

    A question is asked once for every rotation of its options and counts as known if all answers are right.

    Args:
        matching: How an answer is read: `exact` is VLMEvalKit's exact matching (`match_option`), `letters` the way of
            OMG-LLaVA's own evaluation (`first_letters`).
    """

    def __init__(self, matching: Matching = "exact"):
        super().__init__()
        self.matching: Matching = matching

    def update(
        self,
        sample_id: str,
        answer: str,
        *,
        choices: Mapping[str, str],
        right: str,
        question: str | None = None,
        split: str = "",
        categories: tuple[str, ...] = (),
    ) -> None:
        """Adds an asking.

        Args:
            answer: What the model said.
            choices: Letter → text of the option, as they were asked.
            right: Letter of the right option.
            question: Which question it is a rotation of; None = the only one of its question.
            split: Part of the benchmark (dev, test); parts are never averaged.
            categories: Those of the question, ability first.

        Raises:
            ValueError: Options that are no capital letters, a right one that is no letter.
        """
        if not choices or any(letter not in string.ascii_uppercase for letter in choices):
            raise ValueError(f"choices: expected options A, B, …, got {', '.join(choices) or 'none'} ({sample_id})")
        if right not in string.ascii_uppercase or not right:
            raise ValueError(f"answer: expected the letter of the right option, got {right!r} ({sample_id})")
        letter = match_option(answer, choices) if self.matching == "exact" else first_letters(answer)
        record = _Answer(
            question=sample_id if question is None else question,
            right=letter == right,
            split=split,
            categories=categories,
        )
        self.add(sample_id, record)

    def known(self) -> dict[str, bool]:
        """Question → whether all its rotations were answered rightly."""
        known: dict[str, bool] = {}
        for record in self.ordered():
            known[record.question] = known.get(record.question, True) and record.right
        return known

    def compute(self) -> dict[str, float]:
        """`Overall`, or `Overall_dev`, `Overall_test` where there are several splits; NaN without questions."""
        return {self._name(split): _mean(hits) for split, hits in self._hits(None).items()} or {"Overall": float("nan")}

    def per_category(self) -> dict[str, dict[str, float]]:
        """Name of a category (MMBench's abilities by their short names) → what `compute` says about its questions."""
        categories = sorted({category for record in self.records.values() for category in record.categories})
        return {
            ABILITIES.get(category, category): {
                self._name(split): _mean(hits) for split, hits in self._hits(category).items()
            }
            for category in categories
        }

    def _name(self, split: str) -> str:
        return f"Overall_{split}" if len({record.split for record in self.records.values()}) > 1 else "Overall"

    def _hits(self, category: str | None) -> dict[str, list[bool]]:
        """Split → one bool for each question."""
        known = self.known()
        of_question = {record.question: record for record in self.ordered()}
        hits: dict[str, list[bool]] = {}
        for question, record in of_question.items():
            if category is None or category in record.categories:
                hits.setdefault(record.split, []).append(known[question])
        return dict(sorted(hits.items()))


def _mean(hits: list[bool]) -> float:
    return sum(hits) / len(hits) if hits else float("nan")
