"""POPE: how an answer is read, numbers by hand."""

import math

import pytest

from omgvision.evaluation.pope import ObjectProbing, says_yes

ANSWERS = {
    "hit": ("Yes, there is.", True),
    "miss": ("No", True),
    "false alarm": ("Certainly. There is no doubt", False),
    "right": ("no, there is not", False),
    "again": ("yes", True),
}


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes.", True),
        ("No, there is none.", False),
        ("There is not a dog", False),
        ("There is a dog. No cat", True),  # the first sentence alone
        ("Nothing", True),
        ("NO", True),  # as POPE reads it
        ("", True),
    ],
)
def test_answers(answer: str, yes: bool):
    assert says_yes(answer) == yes


def score(names: list[str]) -> ObjectProbing:
    metric = ObjectProbing()
    for name in names:
        answer, present = ANSWERS[name]
        metric.update(name, answer, present=present)
    return metric


def test_numbers_by_hand():
    assert score(list(ANSWERS)).compute() == pytest.approx(
        {"accuracy": 3 / 5, "precision": 2 / 3, "recall": 2 / 3, "F1": 2 / 3, "yes_ratio": 3 / 5}
    )


def test_shares_repeats_and_any_order():
    names = list(ANSWERS)
    left = score(names[::-2])
    left.merge(score(names))
    left.update("hit", "No", present=True)
    assert left.compute() == score(names).compute()


def test_nothing_to_divide_by():
    assert all(map(math.isnan, ObjectProbing().compute().values()))
    numbers = score(["right"]).compute()
    assert numbers["accuracy"] == 1
    assert all(math.isnan(numbers[name]) for name in ("precision", "recall", "F1"))
