"""Published conversations become the texts that the original makes of them; where it is wrong, what it should be."""

import json

import numpy as np
import pytest
from PIL import Image

from omgvision.data.datasets.conversations.grounded import flickr, grand_f, refcocog
from omgvision.data.datasets.conversations.llava import LlavaConversations
from omgvision.data.datasets.conversations.published import announced
from omgvision.data.datasets.conversations.referring import referring_answer
from omgvision.data.datasets.conversations.regions import MdpvConversations, OspreyConversations, named
from tests.golden_llava import processor, read_json

HEIGHT, WIDTH = 100, 120
RUNS = {"size": [HEIGHT, WIDTH], "counts": [5, 10, HEIGHT * WIDTH - 15]}
POLYGON = [[1, 1, 9, 1, 9, 9, 1, 9]]


def recorded(name):
    [found] = [case for case in read_json("data_and_tools")["conversation_cases"] if case["name"].startswith(name)]
    return found


def expected(case):
    return [(turn["input"].removeprefix("<image>\n"), turn["output"]) for turn in case["conversation"]]


def texts(conversation):
    return [(turn.question, turn.answer) for turn in conversation.turns]


def write(folder, content):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)).save(folder / "x.png")
    (folder / "entries.json").write_text(json.dumps(content))
    return folder / "entries.json"


def draw(dataset):
    return dataset.draw(0, np.random.default_rng(0))


@pytest.mark.parametrize("name", ["llava multi-turn", "llava starting with gpt turn", "llava text only"])
def test_llava(tmp_path, name):
    case = recorded(name)
    entry = dict(case["input"])
    if "text only" not in name:
        entry["image"] = "x.png"
    conversation = draw(LlavaConversations(write(tmp_path, [entry]), images=tmp_path))
    assert texts(conversation) == expected(case)
    ids, labels = processor(256).encode_conversation(conversation.messages)
    image = processor(256).image_token_id
    assert [-200 if one == image else one for one in ids] == case["input_ids"]
    assert labels == case["labels"]


def test_grand_f(tmp_path):
    case = recorded("gcg grandf / openpsg")
    entry = json.loads(json.dumps(case["input"])) | {"file_name": "x.png"}
    starts = [4, 40, 400]
    for start, grounding in zip(starts, filter(None, entry["groundings"].values()), strict=True):
        grounding["rle_masks"] = [{"size": [HEIGHT, WIDTH], "counts": [start, 10, HEIGHT * WIDTH - start - 10]}]
    conversation = draw(grand_f(write(tmp_path, [entry]), images=tmp_path))
    assert conversation.turns[0].answer == case["conversation"][0]["output"]
    # In the caption the tree comes before the house, and so do the masks.
    firsts = [int(mask.T.flatten().int().argmax()) for mask in conversation.masks]
    assert firsts == [40, 4, 400]


def test_flickr(tmp_path):
    case = recorded("gcg flickr")
    entry = case["input"]
    annotations = [
        {**one, "image_id": 1, "sam_mask": {"size": [HEIGHT, WIDTH], "counts": [9 + n, 5, HEIGHT * WIDTH - 14 - n]}}
        for n, one in enumerate(entry["ann_info"])
    ]
    photograph = {"id": 1, "file_name": "x.png", "caption": entry["caption"], "height": HEIGHT, "width": WIDTH}
    small = photograph | {"id": 2, "height": 20}
    short = photograph | {"id": 3, "caption": "Two dogs"}
    path = write(tmp_path, {"images": [photograph, small, short], "annotations": annotations})
    dataset = flickr(path, images=tmp_path)
    assert len(dataset) == 1
    conversation = draw(dataset)
    assert conversation.turns[0].answer == case["conversation"][0]["output"]
    assert [int(mask.T.flatten().int().argmax()) for mask in conversation.masks] == [10, 9]


@pytest.mark.parametrize(
    ("name", "right"),
    [
        (
            "gcg refcocog, overlapping",
            "a <p> man in a red shirt </p> [SEG] holds a <p> brown dog </p> [SEG]",
        ),
        ("gcg refcocog, phrase with capital", "<p> a man </p> [SEG] with a <p> dog </p> [SEG]"),
    ],
)
def test_refcocog_where_the_original_breaks_captions(tmp_path, name, right):
    case = recorded(name)
    entry = {case["input"]["id"]: {**case["input"], "img_file_name": "x.png"}}
    conversation = draw(refcocog(write(tmp_path, [entry]), images=tmp_path))
    assert conversation.turns[0].answer == right
    assert conversation.turns[0].answer != case["conversation"][0]["output"]
    assert len(conversation.masks) == 2 and conversation.masks.any((1, 2)).all()


def test_referring():
    case = recorded("referring seg, gcg format")
    answers = [referring_answer(sentence) for sentence in case["input"]["sampled_sents"]]
    assert answers == [turn["output"] for turn in case["conversation"]]


def test_osprey_descriptions():
    case = recorded("osprey region caption")
    given = case["input"]["description"]
    made = [named(given[place], number) for number, place in enumerate(case["outputs"]["sampled_inds"], start=1)]
    assert made == [turn["output"] for turn in case["conversation"][:-1]]


def test_osprey_conversations(tmp_path):
    case = recorded("osprey region conversation")
    entry = {
        "file_name": "coco/x.png",
        "annotation": [{"segmentation": RUNS}, {"segmentation": POLYGON}],
        "conversations": case["input"]["conversations"],
    }
    conversation = draw(OspreyConversations(write(tmp_path, [entry]), images=tmp_path))
    assert texts(conversation) == expected(case)
    assert [int(prompt["mask"].sum()) for prompt in conversation.prompts] == [10, 64]


def test_mdpv(tmp_path):
    case = recorded("mdpv points")
    entry = {
        "image": "VG_100K/x.png",
        "points": [[1, 2], [3, 4], [50, 60]],
        "conversations": case["input"]["conversations"],
    }
    path = write(tmp_path, [entry, entry | {"points": [[1, 500]]}])
    dataset = MdpvConversations(path, images=[tmp_path / "nothing", tmp_path])
    conversation = draw(dataset)
    assert texts(conversation) == expected(case)
    assert conversation.prompts[2] == {"point": (50.0, 60.0)}
    with pytest.raises(ValueError, match="expected points on the picture of 120x100"):
        dataset.draw(1)
    assert announced("<mark>", 1) == "There are some marks: Mark 1 <mark>.\n"
