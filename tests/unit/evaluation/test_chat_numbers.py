"""The numbers of the chat weights: right answers get full marks, wrong ones none, trivial ones what they deserve."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from omgvision.answer import Answer, GroundedPhrase
from omgvision.data.conversation_makers import Made
from omgvision.data.conversations import Turn
from omgvision.data.sample import Sample
from omgvision.evaluation.chat_numbers import Pair, Question, answers_of, ellipse, largest_objects, measure
from omgvision.evaluation.runner.journal import Journal
from omgvision.training.chat_card import card

SIZE = (40, 60)


def sample():
    layers = torch.zeros(1, *SIZE, dtype=torch.int16)
    layers[0, 5:25, 5:30] = 1
    return Sample(
        image=torch.full((3, *SIZE), 90, dtype=torch.uint8),
        segment_layers=layers,
        labels=torch.tensor([0]),
        names=("dog", "cat"),
        things=(True, True),
        sample_id="1",
        dataset="test",
    )


MASK = sample().masks[0]


def asked(task, answer, *, masks=(), references=()):
    return Question(task, sample(), Made(Turn("Question?", answer), list(masks)), references)


def said(text, *, masks=(), phrases=()) -> Any:
    """What the numbers look at of an answer."""
    return SimpleNamespace(text=text, tagged=text, masks=list(masks), phrases=list(phrases))


LARGEST = np.zeros(SIZE, dtype=bool)
LARGEST[5:25, 10:30] = True


def values(question_answers):
    pairs = [Pair(question, answer, LARGEST) for question, answer in question_answers]
    return {(row["task"], row["metric"]): row for row in measure(pairs)}


def test_masks():
    right = asked("referring", "<p> The dog </p> [SEG].", masks=[MASK])
    rows = values([(right, said("The dog.", masks=[MASK.numpy()])), (right, said("A dog."))])
    assert rows["referring", "gIoU"]["value"] == 0.5  # no mask counts as a wrong one
    assert rows["referring", "cIoU"]["value"] == 1.0
    assert rows["referring", "answers with a mask"]["value"] == 0.5
    covered = {name: (MASK.numpy() & mask).sum() / (MASK.numpy() | mask).sum() for name, mask in trivial().items()}
    assert rows["referring", "gIoU"]["trivial"] == pytest.approx(max(covered.values()), abs=1e-4)
    assert rows["referring", "gIoU"]["trivial_is"] == "the largest object found"


def trivial():
    return {
        "the whole picture": np.ones(SIZE, dtype=bool),
        "an ellipse in the middle": ellipse(SIZE),
        "the largest object found": LARGEST,
    }


def test_the_largest_object_is_what_the_bundled_segmenter_finds():
    sample_, number = asked("referring", "", masks=[MASK]), asked("count", "One.")
    found = largest_objects([sample_, number])
    assert [mask.shape for mask in found] == [SIZE, SIZE]
    assert all(mask.dtype == bool and mask.any() for mask in found)


def test_words():
    rows = values(
        [
            (asked("count", "Two."), said("two")),
            (asked("count", "Two."), said("Three.")),
            (asked("count", "One."), said("One.")),
            (asked("region", "A grey dog."), said("A dog.")),
            (asked("presence", "Yes."), said("Yes, there is.")),
            (asked("presence", "No."), said("Yes.")),
        ]
    )
    assert rows["count", "accuracy"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert rows["count", "accuracy"]["trivial"] == pytest.approx(2 / 3, abs=1e-4)
    assert rows["count", "accuracy"]["trivial_is"] == "always “two”"
    assert rows["region", "accuracy"]["value"] == 1.0  # a colour more or less is as right
    assert rows["presence", "accuracy"]["value"] == 0.5
    assert rows["presence", "F1"]["value"] == pytest.approx(2 / 3, abs=1e-4)


def test_captions_with_masks():
    text = "<p> Two dogs </p> [SEG] and <p> a cat </p> [SEG]."
    truth = asked("grounded_caption", text, masks=[MASK, ~MASK])
    phrases = [SimpleNamespace(text="a dog", mask=MASK.numpy()), SimpleNamespace(text="a car", mask=~MASK.numpy())]
    rows = values([(truth, said("A dog and a car.", phrases=phrases))])
    assert rows["grounded_caption", "AP50"]["value"] == 1.0
    assert rows["grounded_caption", "mIoU"]["value"] == 1.0
    assert rows["grounded_caption", "Recall"]["value"] == 0.5
    right = [SimpleNamespace(text="the dogs", mask=MASK.numpy()), SimpleNamespace(text="cat", mask=~MASK.numpy())]
    rows = values([(truth, said("Two dogs and a cat.", phrases=right))])
    assert rows["grounded_caption", "Recall"]["value"] == 1.0
    assert rows["grounded_caption", "CIDEr"]["value"] >= rows["grounded_caption", "CIDEr"]["trivial"]
    assert rows["grounded_caption", "mIoU"]["trivial"] < 1.0
    assert rows["grounded_caption", "mIoU"]["trivial_is"].endswith("as “dog”")
    rows = values([(truth, said("Nothing.", phrases=[]))])
    assert rows["grounded_caption", "mIoU"]["value"] == 0.0
    assert ("grounded_caption", "METEOR") not in rows  # nobody measured it


def test_answers_are_written_as_they_come_and_not_asked_for_again(tmp_path):
    heard: list[str] = []

    def answer(question: Question) -> Answer:
        if len(heard) == 2:
            raise KeyboardInterrupt
        heard.append(question.task)
        phrases = [GroundedPhrase("dog", 2, 5, MASK.numpy(), 0.75)] if question.task == "referring" else []
        return Answer("A dog.", "<p> A dog </p> [SEG].", phrases, True)

    questions = [asked(task, "A dog.") for task in ("region", "referring", "count")]

    def call(weights: str) -> list[Answer]:
        return answers_of(answer, questions, Journal(tmp_path, writer="answers"), weights=weights)

    with pytest.raises(KeyboardInterrupt):
        call("a")
    heard.clear()
    given = call("a")
    assert heard == ["count"]
    assert [one.tagged for one in given] == ["<p> A dog </p> [SEG]."] * 3
    assert [len(one.masks) for one in given] == [0, 1, 0]
    assert np.array_equal(given[1].masks[0], MASK.numpy())
    with pytest.raises(KeyboardInterrupt):
        call("b")  # other weights answer for themselves


def test_captions_of_people():
    references = ["A dog lies on a lawn.", "The dog sleeps."]
    rows = values([(asked("caption", references[0], references=references), said("A dog lies on a lawn."))] * 1)
    assert rows["caption", "ROUGE_L"]["value"] == 1.0
    assert rows["caption", "ROUGE_L"]["trivial"] < 1.0


def test_the_card_has_every_number():
    questions = [asked("count", "Two."), asked("region", "A dog.")]
    results = {
        "rows": measure([Pair(questions[0], said("Two."), LARGEST), Pair(questions[1], said("A cat."), LARGEST)]),
        "parameters": 123_000_000,
        "megabytes": 95.1,
        "training": [{"steps": 600, "minutes": 90.2}, {"steps": 1200, "minutes": 88}],
        "examples": [{"question": "How many?", "answer": "Two | 2.", "truth": "Two."}],
    }
    page = card(json.loads(json.dumps(results)))
    assert "123M parameters, 95 MB" in page and "600 + 1,200 steps in 90 + 88 minutes" in page
    assert "| how many: the right number | 1 | accuracy | 1.000 | 1.000 | always “two” |" in page
    assert "`Two \\| 2.`" in page
    with pytest.raises(ValueError, match="measure with --run"):
        card({**results, "training": []})
