"""Conversations: the sample, and the json format for one's own, with everything that can be wrong in it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from omg_cli.main import run
from omgvision.data import conversations
from omgvision.data.conversations import Conversation, Outline, Turn, no_masks
from omgvision.data.datasets.conversations.own import OwnConversations, holds_conversations
from omgvision.models.omg_llava import answers_omg_llava, prompts_omg_llava

SIZE = (20, 30)
RLE = {"size": list(SIZE), "counts": [40, 10, 550]}
"""Rows 0 to 9 of column 2."""


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.full((*SIZE, 3), 90, dtype=np.uint8)).save(tmp_path / "a.png")
    objects = np.zeros(SIZE, dtype=np.uint8)
    objects[:5, :7], objects[10:, 20:] = 1, 2
    Image.fromarray(objects).save(tmp_path / "objects.png")
    return tmp_path


def write(folder, *entries):
    path = folder / "talk.json"
    path.write_text(json.dumps(entries))
    return path


def seen(*turns, **more):
    return {"image": "a.png", "turns": list(turns), **more}


def ask(user="What is this?", assistant="A wall.", **more):
    return {"user": user, "assistant": assistant, **more}


def test_tokens_are_those_of_the_model():
    assert conversations.PLACEHOLDERS == prompts_omg_llava.PLACEHOLDERS
    tokens = (conversations.SEGMENT, conversations.MARK, conversations.REGION, conversations.IMAGE)
    theirs = answers_omg_llava
    assert tokens == (theirs.SEGMENT, theirs.MARK, theirs.REGION, theirs.IMAGE)


def test_everything_that_the_format_can_say(folder):
    path = write(
        folder,
        seen(
            ask(),
            ask(
                "What are <mark>, <region>, <region> and <mark>?",
                "<p> One </p> [SEG] and <p> two </p> [SEG], [SEG], [SEG].",
                prompts=[
                    {"point": [3, 4]},
                    {"box": [0, 0, 7, 5]},
                    {"mask": RLE},
                    {"points": [[1, 1], [25, 15]], "labels": [1, 0]},
                ],
                masks=["objects.png", {"png": "objects.png", "value": 2}, RLE, [[0, 0, 10, 0, 10, 10, 0, 10]]],
            ),
            id="first",
        ),
        {"turns": [ask("Hi", "Hello."), ask("Bye", "Goodbye.")]},
    )
    dataset = OwnConversations(path)
    assert holds_conversations(path) and len(dataset) == 2 and not dataset.findings.counts
    first = dataset.draw(0)
    assert first.sample_id == "first" and first.image is not None and first.image.shape == (3, *SIZE)
    assert first.masks.flatten(1).sum(1).tolist() == [5 * 7 + 100, 100, 10, 100]
    assert first.masks[2, :10, 2].all()
    assert [next(iter(prompt)) for prompt in first.prompts] == ["point", "box", "mask", "points"]
    assert torch.equal(first.prompts[2]["mask"], first.masks[2])
    text = dataset.draw(1)
    assert text.image is None and text.masks.shape == (0, 0, 0) and text.sample_id == "1"
    assert dataset.outline(1) == Outline(len("HiHello.ByeGoodbye."), pictured=False)


def test_messages_carry_the_prompts_where_they_stand():
    image = torch.zeros((3, *SIZE), dtype=torch.uint8)
    sample = Conversation(
        image,
        (Turn("Is <mark> in <region>?", "Yes."), Turn("Why?", "It is.")),
        masks=no_masks(image),
        prompts=({"point": (1, 2)}, {"box": (0, 0, 5, 5)}),
        sample_id="0",
        dataset="d",
    )
    first, answer, second, _ = sample.messages
    assert [part["type"] for part in first["content"]] == ["image", "text", "point", "text", "box", "text"]
    assert first["content"][2]["point"] == (1, 2)
    assert answer == {"role": "assistant", "content": "Yes."}
    assert second["content"] == [{"type": "text", "text": "Why?"}]


FAULTS = [
    (5, "expected an object"),
    ({"image": "a.png"}, "turns: expected a list of at least one turn"),
    (seen(), "turns: expected a list of at least one turn"),
    (seen(ask(), speaker="x"), "speaker: expected id, image, turns only"),
    ({"image": 3, "turns": [ask()]}, "image: expected the name of a file"),
    (seen(ask(mask=[])), "turn 0: mask: expected user, assistant, prompts, masks only"),
    (seen(ask(), {"user": "Hi"}), "turn 1: assistant: expected a text"),
    (seen(ask(assistant=" ")), "turn 0: expected a question and an answer"),
    (seen(ask("<image>\nHi")), "expected no <image> in a text"),
    (seen(ask(assistant="It is <mark>.")), "in questions only"),
    (seen(ask("Where is [SEG]?")), "in answers only"),
    (seen(ask(assistant="[SEG]")), "expected one for each [SEG] of the answers (1), got 0"),
    (seen(ask(assistant="[SEG]"), ask(masks=[RLE])), "turn 0: masks: expected one for each [SEG]"),
    (seen(ask(masks=[7], assistant="[SEG]")), "expected run lengths"),
    (seen(ask("<mark>?")), "got prompts for none"),
    (seen(ask("<mark>?", prompts=[{"box": [0, 0, 2, 2]}])), "a point is <mark>, a box or mask <region>"),
    (seen(ask("<mark>?", prompts=[{"point": [1]}])), "point: expected x, y in pixels"),
    (seen(ask("<mark>?", prompts=[{"point": ["a", "b"]}])), "point: expected numbers"),
    (seen(ask("<mark>?", prompts=[{"points": [[1, 1]], "labels": [[1]]}])), "expected a 1 or 0"),
    (seen(ask("<mark>?", prompts=[{"point": [1, 1], "box": [0, 0, 1, 1]}])), "expected one of point"),
    (seen(ask("<mark>?", prompts=["x"])), "expected objects with point"),
    ({"turns": [ask("<mark>?", prompts=[{"point": [1, 1]}])]}, "image: expected a picture"),
]


@pytest.mark.parametrize(("entry", "say"), FAULTS)
def test_what_is_not_well_formed_is_left_out_and_said(folder, entry, say):
    dataset = OwnConversations(write(folder, entry, seen(ask())))
    assert len(dataset) == 1
    [line] = dataset.findings.lines(dataset.findings.counts)
    assert "not well-formed: 1, the first entry 0: " in line and say in line
    with pytest.raises(ValueError, match="not well-formed"):
        OwnConversations(write(folder, entry, seen(ask())), strict=True)


def test_missing_files_are_left_out(folder):
    gone = {"image": "gone.png", "turns": [ask()]}
    mask = seen(ask(assistant="[SEG]", masks=["nothing.png"]))
    dataset = OwnConversations(write(folder, gone, mask, seen(ask())))
    assert dataset.findings.counts == {"conversations whose files are missing": 2}
    assert dataset.draw(0).sample_id == "2"


@pytest.mark.parametrize(
    ("turn", "say"),
    [
        (ask(assistant="[SEG]", masks=[{"size": [5, 5], "counts": [0, 25]}]), r"is \[5, 5\]"),
        (ask(assistant="[SEG]", masks=[{"png": "objects.png", "value": 9}]), "an empty one"),
        (ask("<mark>?", prompts=[{"point": [30.5, 3]}]), "on the picture of 30x20 pixels"),
        (ask("<region>?", prompts=[{"box": [9, 9, 3, 12]}]), "x1 < x2"),
    ],
)
def test_what_only_the_picture_shows_is_said_when_it_is_read(folder, turn, say):
    dataset = OwnConversations(write(folder, seen(turn, id="x")))
    with pytest.raises(ValueError, match=f"talk: sample x: .*{say}"):
        dataset.draw(0)


@pytest.mark.parametrize(
    ("content", "say"), [("{", "is not json"), ("{}", "expected a list, got a dict"), ("[]", "no sample remains")]
)
def test_files_of_another_form(tmp_path, content, say):
    path = tmp_path / "talk.json"
    path.write_text(content)
    assert not holds_conversations(path)
    with pytest.raises(ValueError, match=say):
        OwnConversations(path)


def test_masks_of_another_size_than_the_picture():
    with pytest.raises(ValueError, match=r"picture's size \[20, 30\]"):
        Conversation(
            torch.zeros((3, *SIZE), dtype=torch.uint8),
            (Turn("Where?", "[SEG]"),),
            masks=torch.ones((1, 4, 4), dtype=torch.bool),
            sample_id="0",
            dataset="d",
        )


def test_omg_data_check_counts_and_complains(folder, capsys):
    path = write(
        folder,
        seen(ask("Where is <mark>?", "[SEG]", prompts=[{"point": [1, 1]}], masks=[RLE]), ask()),
        {"turns": [ask("Hi", "Hello.")]},
        seen(ask(assistant="[SEG]")),
        seen(ask("<mark>?", prompts=[{"point": [99, 1]}])),
    )
    assert run(["data", "check", str(path)]) == 0
    said = capsys.readouterr().out
    assert "talk: 2 conversations, 1 with a picture, 1 of text alone" in said
    assert "turns: 3, at most 2 a conversation" in said
    assert "masks: 1" in said and "prompts: 1 point" in said
    assert "not well-formed: 1, the first entry 2: turn 0: masks" in said
    assert "cannot be read: 1 of 3" in said and "sample 3: prompts" in said
    assert run(["data", "check", str(path), "--strict"]) == 2
    assert "has 2 faults" in capsys.readouterr().err
