"""Questions of tasks: one line for what does not fit."""

import pytest

from omgvision import UserError
from omgvision.chat_tasks import CHAT_TASKS, task_question
from omgvision.models.omg_llava.answers_omg_llava import MARK

WORDS = {"refer": "the man", "segment": "sky", "vqa": "Who?", "choice": "Who?"}


def test_every_task_has_a_question_of_its_own():
    asked = {
        task: task_question(
            task,
            WORDS.get(task, ""),
            placeholders=[MARK] if task == "region" else [],
            options=["he", "she"] if task == "choice" else [],
        )
        for task in CHAT_TASKS
    }
    assert asked["vqa"] == "Who?"
    assert asked["segment"] == "Please segment sky in this image."
    assert len(set(asked.values())) == len(CHAT_TASKS)


@pytest.mark.parametrize(
    ("task", "words", "given", "say"),
    [
        ("draw", "", {}, "expected one of caption, refer, .*'draw'"),
        ("gcg", "the sky", {}, "expected no words of your own, got 'the sky'"),
        ("refer", " ", {}, "expected what to segment"),
        ("segment", "", {}, "expected a class"),
        ("choice", "", {"options": ["a", "b"]}, "expected a question"),
        ("region", "", {}, "expected one point, box or mask, got none"),
        ("region", "", {"placeholders": [MARK, MARK]}, "expected one point, box or mask, got 2"),
        ("caption", "", {"placeholders": [MARK]}, "expected nothing pointed at"),
        ("choice", "Who?", {"options": ["he"]}, "expected 2 to 26 options, got 1"),
        ("vqa", "Who?", {"options": ["he", "she"]}, "expected no options"),
    ],
)
def test_what_does_not_fit(task, words, given, say):
    with pytest.raises(UserError, match=say):
        task_question(task, words, **given)
