"""The processor of OMG-LLaVA: what goes in, and one line for what cannot."""

import copy

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from omgvision import OmgLlavaProcessor
from omgvision.models.omg_llava.answers_omg_llava import Phrase, parse_answer
from omgvision.models.omg_llava.processing_omg_llava import prepare_tokenizer, token_ids
from tests.golden_llava import FOLDERS, processor, random_llava, tokenizer

SIDE = 128


def ours() -> OmgLlavaProcessor:
    return processor(SIDE)


def picture(width: int = 80, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 40, 60))


def ask(*parts, image: Image.Image | None = None) -> list[dict]:
    front = [] if image is None else [{"type": "image", "image": image}]
    return [{"role": "user", "content": [*front, *parts]}]


def text(words: str) -> dict:
    return {"type": "text", "text": words}


def encode(conversation, **options):
    return ours().apply_chat_template(conversation, tokenize=True, return_dict=True, **options)


# --- what goes in ----------------------------------------------------------------------------------------------------


def test_parts_of_a_message():
    mask = torch.zeros(40, 80)
    mask[10:20, 30:50] = 1
    found = encode(
        ask(
            text("What are "),
            {"type": "points", "points": [(10, 10), (20, 10)], "labels": [1, 0]},
            text(", "),
            {"type": "box", "box": (0, 0, 40, 40)},
            text(", "),
            {"type": "mask", "mask": mask},
            text(" and "),
            {"type": "point", "point": (40, 20)},
            image=picture(),
        )
    )
    words = tokenizer().decode(found["input_ids"][0])
    assert words == ("<s><|im_start|>user\n<image>\nWhat are <mark>, <region>, <region> and <mark><|im_end|>\n")
    assert found["prompt_slots"].tolist() == [[0, 3, 1, 2]]
    # 80x40 lies in the middle of 80x80, which becomes 128x128.
    assert found["input_points"].tolist() == [[[[16, 48], [32, 48]], [[64, 64], [0, 0]]]]
    assert found["input_point_labels"].tolist() == [[[1, 0], [1, -10]]]
    torch.testing.assert_close(found["input_boxes"], torch.tensor([[[0, 32, 64, 96.0]]]))
    rows, columns = found["input_masks"][0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (48, 63, 48, 79)
    assert found["pixel_values"].shape == (1, 3, SIDE, SIDE)


def test_a_picture_comes_first():
    messages = [{"role": "user", "content": [text("Who?"), {"type": "image", "image": picture()}]}]
    assert ours().apply_chat_template(messages).startswith("<s><|im_start|>user\n<image>\nWho?<|im_end|>")


def test_around_the_picture_is_its_mean():
    pixels = ours()(picture(), "<image>\n")["pixel_values"][0]
    grey = [round(float(value), 3) for value in pixels[:, 2, 64]]
    expected = [(122 / 255 - 0.4814) / 0.2686, (116 / 255 - 0.4578) / 0.2613, (104 / 255 - 0.4082) / 0.2757]
    assert grey == [round(value, 3) for value in expected]
    assert torch.equal(pixels[:, 0, 0], pixels[:, -1, -1])


def test_pictures_as_files_and_links_of_chat_services(tmp_path):
    picture().save(tmp_path / "a.png")
    for part in (
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "image", "url": str(tmp_path / "a.png")},
        {"type": "image_url", "image_url": {"url": str(tmp_path / "a.png")}},
    ):
        found = encode([{"role": "user", "content": [part, text("Hi")]}])
        assert torch.equal(found["pixel_values"], encode(ask(text("Hi"), image=picture()))["pixel_values"])


def test_several_turns_and_labels():
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "First."},
        {"role": "user", "content": "Two?"},
        {"role": "assistant", "content": "<p> It </p> [SEG]."},
    ]
    found = encode([messages, messages[:3]], return_labels=True)
    learned = [tokenizer().decode(row[row != -100]) for row in found["labels"]]
    assert learned == ["First.<|im_end|><p> It </p> [SEG].<|im_end|>", "First.<|im_end|>"]
    assert found["labels"].shape == found["input_ids"].shape == found["attention_mask"].shape
    assert (found["labels"][found["attention_mask"] == 0] == -100).all()


def test_vocabularies_are_read_once(monkeypatch):
    """Large ones take more than a millisecond each time, and a conversation has a thousand tokens."""
    processor, reads = ours(), []
    read = processor.tokenizer.get_vocab
    monkeypatch.setattr(processor.tokenizer, "get_vocab", lambda: reads.append(1) or read())
    messages = ask(text("What is at "), {"type": "point", "point": (1, 1)}, image=picture())
    processor.apply_chat_template(messages, tokenize=True, return_dict=True)
    assert reads == []


def test_tokens_of_another_language_model():
    plain = AutoTokenizer.from_pretrained(FOLDERS[0] / "tiny" / "tokenizer")
    with pytest.raises(ValueError, match=r"tokenizer: expected the tokens .*prepare_tokenizer"):
        OmgLlavaProcessor(ours().image_processor, copy.deepcopy(plain))
    rows = len(plain)
    prepare_tokenizer(plain)
    assert token_ids(plain) == {
        "segment_token_id": rows,
        "region_token_id": rows + 3,
        "mark_token_id": rows + 4,
        "image_token_id": rows + 5,
    }
    prepare_tokenizer(plain)
    assert len(plain) == rows + 6


# --- what cannot -----------------------------------------------------------------------------------------------------

BAD = {
    "image without its part": ("<image>\nHi", None, "one for each of 1 image tokens"),
    "picture without a token": ("Hi", [picture()], "one for each of 0 image tokens"),
    "two pictures, one token": ("<image>\nHi", [picture(), picture()], "of 1 image tokens .* got 2"),
    "placeholder without a prompt": ("<image>\n<mark>", [picture()], "of 1 placeholders .* got 0"),
    "placeholder without a picture": ("What is <region>?", None, "which has no picture"),
}


@pytest.mark.parametrize("case", BAD)
def test_texts_that_do_not_fit(case):
    words, images, say = BAD[case]
    with pytest.raises(ValueError, match=say):
        ours()(images, words)
    with pytest.raises(ValueError, match="expected what is asked"):
        ours()(picture())


@pytest.mark.parametrize(
    ("prompt", "say"),
    [
        ({"type": "point", "point": (80.5, 3)}, r"inside the picture of 80x40 pixels, got \[\[80.5, 3.0\]\]"),
        ({"type": "point", "point": (-1, 3)}, "inside the picture"),
        ({"type": "points", "points": [(1, 1)], "labels": [3]}, "a label 1 or 0 for each of 1 points"),
        ({"type": "points", "points": [(1, 1)], "labels": [1, 1]}, "a label 1 or 0 for each of 1 points"),
        ({"type": "points", "points": []}, "inside the picture"),
        ({"type": "box", "box": (10, 10, 5, 20)}, "x1 < x2"),
        ({"type": "box", "box": (90, 10, 95, 20)}, "on the picture of 80x40"),
        ({"type": "box", "box": (1, 2, 3)}, "x1 < x2"),
        ({"type": "mask", "mask": torch.ones(80, 40)}, r"expected a mask \[40, 80\]"),
        ({"type": "scribble"}, "got 'scribble'"),
        ({"type": "image"}, "expected image, url, path or base64"),
    ],
)
def test_prompts_that_cannot_be(prompt, say):
    with pytest.raises(ValueError, match=say):
        encode(ask(text("What is "), prompt, image=picture()))


def test_a_prompt_on_no_picture():
    with pytest.raises(ValueError, match="expected a picture in conversation 0, got none"):
        encode(ask(text("What is "), {"type": "point", "point": (1, 1)}))


def long_conversation() -> list[dict]:
    messages = ask(text("First question, which is long."), image=picture())
    for index in range(3):
        messages += [
            {"role": "assistant", "content": f"Answer {index}, also of some length."},
            {"role": "user", "content": f"Question {index}?"},
        ]
    return messages


def test_a_conversation_that_is_too_long():
    whole = encode(long_conversation(), add_generation_prompt=True)["input_ids"].shape[1]
    with pytest.raises(ValueError, match=rf"at most 100 tokens, got {whole}; .*drop_oldest"):
        encode(long_conversation(), add_generation_prompt=True, max_length=100)
    kept = encode(long_conversation(), add_generation_prompt=True, max_length=100, overflow="drop_oldest")
    words = str(tokenizer().decode(kept["input_ids"][0]))
    assert kept["input_ids"].shape[1] <= 100
    assert "First question" not in words and words.endswith("Question 2?<|im_end|>\n<|im_start|>assistant\n")
    assert words.startswith("<s><|im_start|>user\n<image>\nQuestion")  # the picture stays
    assert kept["pixel_values"].shape[0] == 1
    with pytest.raises(ValueError, match="at most 5 tokens"):
        encode(long_conversation(), max_length=5, overflow="drop_oldest")


def test_training_cuts_the_end():
    messages = [
        *ask(text("Where is "), {"type": "point", "point": (1, 1)}, image=picture()),
        {"role": "assistant", "content": "Here."},
        *ask(text("And "), {"type": "point", "point": (2, 2)}, text("?")),
    ]
    whole = encode(messages, return_labels=True)
    assert whole["input_points"].shape == (1, 2, 1, 2)
    length = whole["input_ids"].shape[1] - 12
    cut = encode(messages, return_labels=True, max_length=length, overflow="cut")
    assert torch.equal(cut["input_ids"], whole["input_ids"][:, :length])
    assert cut["input_points"].shape == (1, 1, 1, 2)  # the second placeholder is gone, and so is its prompt


# --- answers ---------------------------------------------------------------------------------------------------------


def test_parsed_answers():
    found = parse_answer("<p> A man </p> [SEG] rides a <p> brown horse </p> [SEG], or <p>two</p>.<|im_end|>")
    assert found.text == "A man rides a brown horse, or two."
    assert found.phrases == [
        Phrase("A man", 0, 5, 0),
        Phrase("brown horse", 14, 25, 1),
        Phrase("two", 30, 33, None),
    ]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("def f():\n    if x:\n        return  1", "def f():\n    if x:\n        return  1"),
        ("a   b\n1   2", "a   b\n1   2"),
        ("Here:  <p> A  man </p>  [SEG]  rides   fast [SEG] .", "Here: A man rides   fast."),
        ("- all\n    - <p> a cat </p> [SEG]\n    - a dog", "- all\n    - a cat\n    - a dog"),
        ("\n    <p> cat </p> [SEG]", "\n    cat"),
    ],
)
def test_spaces_of_answers(answer, text):
    """Those of tags go with them, and in a phrase one is enough; tables and programs keep theirs."""
    found = parse_answer(answer)
    assert found.text == text
    assert all(text[phrase.start : phrase.end] == phrase.text for phrase in found.phrases)


def test_answers_without_masks_or_cut_in_the_middle():
    """A [SEG] that never comes, an end in the middle of a phrase: what is there is read."""
    assert parse_answer("It is red.").phrases == []
    assert parse_answer("").text == ""
    cut = parse_answer("Here: <p> A dog </p>")
    assert (cut.text, cut.phrases) == ("Here: A dog", [Phrase("A dog", 6, 11, None)])
    assert parse_answer("Here: <p> A do").text == "Here: A do"
    assert parse_answer("[SEG] [SEG]").phrases == []
    loose = parse_answer("[SEG] and <p> it </p> [SEG]")
    assert loose.phrases == [Phrase("it", 4, 6, 1)]


# --- the model's own complaints --------------------------------------------------------------------------------------


def test_model_refuses_what_does_not_fit():
    model = random_llava()
    given = encode(ask(text("Hi"), image=picture()), return_labels=True)
    with pytest.raises(ValueError, match=r"pixel_values: expected \[pictures, 3, 128, 128\]"):
        model.encode_images(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="expected one of them, got both"):
        model(**given, images=model.encode_images(given["pixel_values"]))
    with pytest.raises(ValueError, match="got 1 tokens and 0 pictures"):
        model.generate(given["input_ids"])
    with pytest.raises(ValueError, match="expected the tokens of conversations"):
        model.generate()
    with pytest.raises(ValueError, match="expected a picture that they are on"):
        model(input_ids=torch.tensor([[1, 2]]), input_points=torch.zeros(1, 1, 1, 2))
    truth = [torch.ones(1, SIDE, SIDE)]
    with pytest.raises(ValueError, match=r"one mask for each \[SEG\] \(0\)"):
        model(**given, mask_labels=truth)
    with pytest.raises(ValueError, match="expected those of 1 pictures, got 2"):
        model(**given, input_points=torch.zeros(2, 1, 1, 2))
    model.model.vision_tower.config.num_classes = 0
    with pytest.raises(ValueError, match="a segmenter with classes"):
        model.encode_images(given["pixel_values"])


def test_a_mask_for_every_segment():
    """The original drops all mask losses of a batch in which the numbers differ; we say which conversation it is."""
    messages = [*ask(text("Where?"), image=picture()), {"role": "assistant", "content": "<p> It </p> [SEG]."}]
    given = encode(messages, return_labels=True)
    masks = ours().place_masks(torch.ones(2, 40, 80))
    with pytest.raises(ValueError, match=r"one mask for each \[SEG\] \(1\) .* conversation 0, got 2"):
        random_llava()(**given, mask_labels=[masks])
