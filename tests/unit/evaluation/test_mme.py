"""MME: how an answer is read, points by hand."""

import math

import pytest

from omgvision.evaluation.mme import COGNITION, PERCEPTION, MMEScore, read_answer


@pytest.mark.parametrize(
    ("answer", "label"),
    [("Yes", "yes"), ("no.", "no"), ("No, it", "no"), ("It is no", None), ("", None), ("not", "no"), ("YES", "yes")],
)
def test_answers(answer: str, label: str | None):
    assert read_answer(answer) == label


def score(subtasks: tuple[str, ...], *, pictures: range = range(2), reverse: bool = False) -> MMEScore:
    """Of picture 0 both answers are right, of picture 1 the first."""
    metric = MMEScore()
    names = [(subtask, picture, question) for subtask in subtasks for picture in pictures for question in range(2)]
    for subtask, picture, question in names[::-1] if reverse else names:
        answer = "No" if picture and question else "Yes"
        metric.update(f"{subtask}/{picture}/{question}", answer, subtask=subtask, picture=str(picture), right="yes")
    return metric


def test_points():
    metric = score(PERCEPTION + COGNITION)
    assert metric.per_subtask()["OCR"] == (0.75, 0.5)
    assert metric.compute() == {"perception": 1250, "cognition": 500}


def test_a_sum_needs_all_subtasks():
    numbers = score(PERCEPTION).compute()
    assert numbers["perception"] == 1250
    assert math.isnan(numbers["cognition"])
    assert all(map(math.isnan, MMEScore().compute().values()))


def test_shares_repeats_and_any_order():
    left = score(COGNITION, pictures=range(1, 2), reverse=True)
    left.merge(score(COGNITION, pictures=range(1)))
    left.merge(score(COGNITION))
    assert left.per_subtask() == score(COGNITION).per_subtask()


def test_faulty_questions():
    with pytest.raises(ValueError, match=r"subtask: expected one of existence, .*, got colour"):
        MMEScore().update("a", "yes", subtask="colour", picture="1", right="yes")
    with pytest.raises(ValueError, match="right: expected yes or no, got 'Yes'"):
        MMEScore().update("a", "yes", subtask="OCR", picture="1", right="Yes")
    metric = MMEScore()
    metric.update("a", "yes", subtask="OCR", picture="1", right="yes")
    with pytest.raises(ValueError, match="OCR: expected two questions about 1, got 1"):
        metric.compute()
