"""Multiple choice: what an answer means, circular evaluation, shares of processes."""

import math

import pytest

from omgvision.evaluation.multiple_choice import CircularAccuracy, first_letters, match_option

CHOICES = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("B", "B"),
        ("(b)", None),
        ("C. bird", "C"),
        ("A B", None),
        ("Z", "Z"),
        ("B is what one sees in this picture", None),  # too early to be sure
        ("the answer is c, because A has no wings at all", "C"),
        ("Cannot determine the answer", "Z"),
        ("Failed to obtain answer via API B", None),
        ("a DOG", "B"),
        ("dog or cat", None),
        ("", None),
    ],
)
def test_options(answer: str, option: str | None):
    assert match_option(answer, CHOICES) == option


def score(names: str, answers: dict[str, str]) -> CircularAccuracy:
    """Question a is asked twice (a, A), b and c once; c is of another split."""
    metric = CircularAccuracy()
    for name in names:
        metric.update(
            name,
            answers.get(name, "B"),
            choices=CHOICES,
            right="B",
            question=name.lower(),
            split="test" if name == "c" else "dev",
            categories=("logic_reasoning", "ocr") if name == "b" else ("logic_reasoning",),
        )
    return metric


def test_all_rotations_have_to_be_right():
    metric = score("aAbc", {"A": "C"})
    assert metric.known() == {"a": False, "b": True, "c": True}
    assert metric.compute() == {"Overall_dev": 0.5, "Overall_test": 1}
    assert metric.per_category() == {"LR": {"Overall_dev": 0.5, "Overall_test": 1}, "ocr": {"Overall_dev": 1}}
    assert score("ab", {}).compute() == {"Overall": 1}


def test_shares_repeats_and_any_order():
    answers = {"A": "C"}
    left = score("cA", answers)
    left.merge(score("ba", answers))
    left.merge(score("A", {}))  # came before
    assert left.compute() == score("aAbc", answers).compute()
    assert left.per_category() == score("aAbc", answers).per_category()


def test_nothing_and_faulty_questions():
    assert math.isnan(CircularAccuracy().compute()["Overall"])
    with pytest.raises(ValueError, match=r"choices: expected options A, B, …, got none \(a\)"):
        CircularAccuracy().update("a", "A", choices={}, right="A")
    with pytest.raises(ValueError, match="answer: expected the letter of the right option, got 'cat'"):
        CircularAccuracy().update("a", "A", choices=CHOICES, right="cat")


@pytest.mark.parametrize(
    ("answer", "letters"), [("A", "A"), ("the Cat: BD.", "C"), ("(B) blue", "B"), ("it is AB", "AB"), ("none", "")]
)
def test_the_first_letters_of_an_answer(answer: str, letters: str):
    assert first_letters(answer) == letters
    metric = CircularAccuracy("letters")
    metric.update("1", answer, choices={"A": "red", "B": "blue"}, right="B")
    assert metric.compute() == {"Overall": float(letters == "B")}
