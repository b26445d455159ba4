"""Conversations: follow-ups over one cache, words and masks as they come, what cannot be asked."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import BloomConfig

from omgvision import OmgLlavaForConditionalGeneration, UserError
from omgvision.chat import Answer, Conversation
from omgvision.chat_listener import AnswerListener
from tests.golden_llava import never_ending, processor, random_llava, text_config, tokenizer

SIDE = 128


class Scripted:
    """Makes a model give these answers one after the other, whatever it is asked."""

    def __init__(self, model: OmgLlavaForConditionalGeneration, *answers: str):
        self.answers = [tokenizer()(f"{answer}", add_special_tokens=False)["input_ids"] for answer in answers]
        self.turn, self.step = -1, 0
        self.read: list[int] = []
        model.lm_head.register_forward_hook(self._force)
        model.model.language_model.register_forward_pre_hook(self._begin, with_kwargs=True)

    def _begin(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        tokens = options["inputs_embeds"].shape[1]
        self.read.append(tokens)
        if tokens > 1:
            self.turn, self.step = self.turn + 1, 0

    def _force(self, module: Any, arguments: Any, logits: Tensor) -> Tensor:
        forced = torch.full_like(logits, -1e4)
        forced[..., self.answers[self.turn][self.step]] = 0
        self.step += 1
        return forced


def scripted(*answers: str, image: Image.Image | None = None, **options: Any) -> tuple[Conversation, Scripted]:
    model = random_llava(**options)
    model.generation_config.eos_token_id = [2, 400]
    model.generation_config.pad_token_id = 2
    return Conversation(model, processor(SIDE), image=image), Scripted(model, *answers)


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 90, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_words_masks_and_pieces(picture, tmp_path):
    conversation, _ = scripted("<p> A cat </p> [SEG] on <p> grass </p> [SEG].<|im_end|>", image=picture)
    said: list[str] = []
    shown: list[np.ndarray] = []
    answer = conversation.ask("What is here?", on_text=said.append, on_mask=shown.append)
    assert answer.text == "A cat on grass." == "".join(said)
    assert answer.complete
    assert [phrase.text for phrase in answer.phrases] == ["A cat", "grass"]
    assert [mask.shape for mask in answer.masks] == [(50, 90)] * 2
    assert all(np.array_equal(mask, came) for mask, came in zip(answer.masks, shown, strict=True))
    assert all(0 <= score <= 1 for score in answer.scores)
    pieces = answer.colored_text()
    assert [text for text, _ in pieces] == ["A cat", " on ", "grass", "."]
    assert [color is not None for _, color in pieces] == [True, False, True, False]
    assert answer.overlay().size == picture.size
    assert answer.overlay(words=True).height > picture.height
    answer.save(tmp_path / "out")
    written = json.loads((tmp_path / "out" / "answer.json").read_text())
    assert written["text"] == answer.text and written["phrases"][1]["mask"]["size"] == [50, 90]
    assert (tmp_path / "out" / "overlay.png").is_file()


def test_follow_ups_read_only_what_is_new(picture, monkeypatch):
    conversation, script = scripted("It is [SEG].<|im_end|>", "Because.<|im_end|>", image=picture)
    monkeypatch.setattr(conversation.model.model.vision_tower, "encode", lambda pixels: pytest.fail("seen again"))
    conversation.ask("What is at this place?", prompts=[{"point": (20, 30)}])
    script.read.clear()
    conversation.ask("Why?")
    new = len(
        tokenizer()("\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n", add_special_tokens=False)[
            "input_ids"
        ]
    )
    # One token of the first answer, its end, was chosen but not read.
    assert script.read[0] == new + 1
    assert [question for question, _ in conversation.turns] == ["What is at this place?", "Why?"]
    conversation.reset()
    assert conversation.turns == []


def test_a_model_that_begins_the_next_turn_by_itself_has_ended(picture):
    conversation, _ = scripted("Yes.<|im_start|>", "No.<|im_end|>", image=picture)
    said: list[str] = []
    answer = conversation.ask("One?", on_text=said.append)
    assert answer.complete and answer.text == answer.tagged == "".join(said) == "Yes."
    assert conversation.ask("Two?").text == "No."
    ids = tokenizer()("Yes.<|im_end|>\n<|im_start|>user\nTwo?", add_special_tokens=False)["input_ids"]
    joined = conversation._ids
    assert any(joined[at : at + len(ids)] == ids for at in range(len(joined))), "read as a turn that ended"


def test_follow_ups_answer_as_a_fresh_reading(picture):
    """Without a script: the second answer over the cache is that of the whole conversation read at once."""
    model = never_ending(random_llava())
    conversation = Conversation(model, processor(SIDE), image=picture, system="Be brief.")
    conversation.ask("One <mark> and <region>?", prompts=[{"point": (9, 9)}, {"box": (5, 5, 60, 40)}], max_new_tokens=6)
    cached = conversation.ask("Two?", max_new_tokens=6)
    conversation._cache = conversation._new_cache()
    ids = conversation._ids
    del conversation._messages[-2:], conversation.turns[-1]
    follow = tokenizer()("\n<|im_start|>user\nTwo?", add_special_tokens=False)["input_ids"]
    at = next(index for index in range(len(ids)) if ids[index : index + len(follow)] == follow)
    conversation._ids = ids[:at]
    assert conversation.ask("Two?", max_new_tokens=6).tagged == cached.tagged


def test_prompts_are_listed_where_the_question_does_not_name_them(picture):
    conversation, _ = scripted(*["Yes.<|im_end|>"] * 4, image=picture)
    conversation.ask("Which?", prompts=[{"point": (1, 1)}, {"point": (2, 2)}])
    conversation.ask("And?", prompts=[{"box": (1, 1, 20, 20)}, {"mask": np.ones((50, 90))}])
    conversation.ask("Is <mark> in <region>?", prompts=[{"point": (5, 5)}, {"box": (1, 1, 20, 20)}])
    conversation.ask("Well?", prompts=[{"box": (1, 1, 9, 9)}, {"point": (6, 6)}])
    asked = [message["content"] for message in conversation._messages if message["role"] == "user"]
    assert asked == [
        "<image>\nThere are some marks: Mark 1 <mark>, Mark 2 <mark>.\nWhich?",
        "There are some regions: region1 <region>, region2 <region>.\nAnd?",
        "Is <mark> in <region>?",
        "There are some marks: Mark 1 <mark>.\nThere are some regions: region1 <region>.\nWell?",
    ]
    assert conversation._prompts[-2:] == [{"point": (6, 6)}, {"box": (1, 1, 9, 9)}]


def test_points_boxes_and_masks_as_clicks_take_them(picture):
    conversation, _ = scripted(*["Yes.<|im_end|>"] * 3, image=picture)
    region = np.zeros((50, 90), dtype=bool)
    region[5:20, 5:20] = True
    conversation.ask("In <region> and <region> is <mark>?", points=[(5, 5)], boxes=[(1, 2, 9, 9)], masks=[region])
    first, second, third = conversation._prompts
    assert first == {"box": (1, 2, 9, 9)} and third == {"point": (5, 5)}
    assert np.array_equal(second["mask"], region)
    conversation.ask("What is <point>?", points=[(5, 5), (9, 9)], labels=[1, 0])
    assert conversation._prompts[-1] == {"points": ((5, 5), (9, 9)), "labels": (1, 0)}
    conversation.ask("What is at <mark>?", masks=[region])  # as the original evaluates captions of regions
    with pytest.raises(UserError, match="outside of the image"):
        conversation.ask("Well?", points=[(100, 1)])


def test_phrases_are_told_before_their_words(picture):
    conversation, _ = scripted("See <p> a cat </p> [SEG] on <p> grass </p> [SEG].<|im_end|>", image=picture)
    heard: list[str | int | None] = []
    answer = conversation.ask("What is here?", on_text=heard.append, on_phrase=heard.append)
    pieces: dict[int | None, str] = {0: "", 1: "", None: ""}
    current: int | None = None
    for each in heard:
        if isinstance(each, str):
            pieces[current] += each
        else:
            current = each
    assert pieces == {0: "a cat", 1: "grass", None: "See  on ."}
    assert "".join(each for each in heard if isinstance(each, str)) == answer.text


def test_tasks_ask_what_the_published_weights_know(picture):
    conversation, _ = scripted(*["Yes.<|im_end|>"] * 5, image=picture)
    conversation.ask("the man on the left.", task="refer")
    conversation.ask(task="region", boxes=[(1, 1, 20, 20)])
    conversation.ask(task="gcg")
    conversation.ask("What is it?", task="choice", options=["a cat", "a dog"])
    asked = [message["content"] for message in conversation._messages if message["role"] == "user"]
    assert asked[0] == "<image>\nPlease segment the man on the left in this image."
    assert asked[1].endswith("of the region in the picture marked by region1 <region>?")
    assert asked[2].startswith("Could you please give me a detailed description of the image? Please respond with")
    assert asked[3] == (
        "What is it?\nA. a cat\nB. a dog\nAnswer with the option's letter from the given choices directly."
    )
    assert conversation.turns[0][0] == "Please segment the man on the left in this image."


def test_a_conversation_is_saved_whole(picture, tmp_path):
    conversation, _ = scripted("<p> It </p> [SEG].<|im_end|>", "Yes.<|im_end|>", image=picture)
    with pytest.raises(UserError, match="nothing was said"):
        conversation.save(tmp_path / "out")
    conversation.ask("What?")
    assert {path.name for path in conversation.save(tmp_path / "one")} == {"answer.json", "overlay.png", "mask-1.png"}
    assert json.loads((tmp_path / "one" / "answer.json").read_text())["question"] == "What?"
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "one" / "mask-1.png")) > 0, conversation.turns[0][1].masks[0]
    )
    conversation.ask("Sure?")
    names = {path.name for path in conversation.save(tmp_path / "two")}
    assert names == {
        f"turn-{name}" for name in ("1.answer.json", "1.overlay.png", "1.mask-1.png", "2.answer.json", "2.overlay.png")
    }
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        conversation.save(tmp_path / "file" / "in")


def test_an_answer_that_is_cut(picture):
    conversation, script = scripted("<p> A cat </p> [SEG] and", "Go on.<|im_end|>", image=picture)
    answer = conversation.ask("What is here?", max_new_tokens=len(script.answers[0]))
    assert not answer.complete and answer.text == "A cat and" and len(answer.masks) == 1
    assert conversation.ask("And?").complete

    conversation, script = scripted("A cat [SEG]", image=picture)
    answer = conversation.ask("What is here?", max_new_tokens=len(script.answers[0]))
    assert answer.masks == []  # a [SEG] at the limit has no state
    assert answer.phrases == []


def test_without_a_picture():
    conversation, _ = scripted("It is 2 [SEG].<|im_end|>")
    answer = conversation.ask("What is 1 + 1?")
    assert answer.text == "It is 2." and answer.masks == []
    with pytest.raises(UserError, match="expected a conversation about a picture"):
        answer.overlay()
    given: list[dict[str, Any]] = [{"prompts": [{"point": (1, 1)}]}, {"points": [(1, 1)]}, {"task": "gcg"}]
    for asked in given:
        with pytest.raises(UserError, match="expected a conversation about a picture"):
            conversation.ask("And?" if "task" not in asked else "", **asked)


def test_an_answer_does_not_point_with_tokens_of_questions(picture):
    """Whatever the model is inclined to say: the next question would have to bring what they stand for."""
    conversation, _ = scripted("A <region> <mark><image>.<|im_end|>", "Yes.<|im_end|>", image=picture)
    answer = conversation.ask("What is <mark>?", points=[(5, 5)])
    assert not any(token in answer.tagged for token in ("<region>", "<mark>", "<image>"))
    assert conversation.ask("Why?").text == "Yes."


def test_an_answer_that_spells_tokens_of_questions(picture):
    """Letter by letter it may; read again it is not what it spells."""
    conversation, script = scripted("-", "Yes.<|im_end|>", "No.<|im_end|>", image=picture)
    parts = ("A <reg", "ion> <im", "age>.", "<|im_end|>")
    script.answers[0] = [token for part in parts for token in tokenizer()(part, add_special_tokens=False)["input_ids"]]
    assert conversation.ask("What?").text == "A <region> <image>."
    assert conversation.ask("Why?").text == "Yes."
    conversation.recall("And?", "So.")  # all is read anew
    assert conversation.ask("Sure?").text == "No."


def test_a_recalled_answer_with_tokens_of_questions(picture):
    conversation, _ = scripted("Yes.<|im_end|>", image=picture)
    conversation.recall("What is <mark>?", "The cat <mark> in region1 <region>.", prompts=[{"point": (5, 5)}])
    assert conversation.turns[0][1].text == "The cat in region1."
    assert conversation.ask("And <mark>?", points=[(9, 9)]).text == "Yes."


@pytest.mark.parametrize("token", ["<image>", "<mark>", "<region>"])
def test_a_system_message_with_tokens_of_questions(picture, token):
    with pytest.raises(UserError, match=f"system: expected words alone, got {token}"):
        Conversation(random_llava(), processor(SIDE), image=picture, system=f"Look at {token}.")


def test_what_cannot_be_asked(picture):
    conversation, _ = scripted(*["Yes.<|im_end|>"] * 4, image=picture)
    with pytest.raises(UserError, match="expected some words"):
        conversation.ask("  ")
    with pytest.raises(UserError, match=r"one for each of 1 placeholders .*, got 2"):
        conversation.ask("<mark>?", prompts=[{"point": (1, 1)}] * 2)
    with pytest.raises(UserError, match=r"one for each of 1 placeholders .*, got 0"):
        conversation.ask("<mark>?")
    with pytest.raises(UserError, match="expected no <image>"):
        conversation.ask("<image> What?")
    with pytest.raises(UserError, match="expected task='choice'"):
        conversation.ask("What?", options=["a", "b"])
    with pytest.raises(ValueError, match="inside the picture"):
        conversation.ask("Well?", prompts=[{"point": (100, 1)}])
    assert conversation.ask("Well?", prompts=[{"point": (10, 1)}]).text == "Yes."  # nothing is left of the bad ones
    assert len(conversation._prompts) == 1


@pytest.mark.parametrize(
    ("asked", "say"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens: expected at least 1"),
        ({"temperature": -1}, "temperature: expected 0"),
        ({"temperature": 1, "top_p": 0}, "top_p: expected more than 0"),
        ({"temperature": 1, "top_k": -1}, "top_k: expected 0"),
    ],
)
def test_sampling_that_cannot_be(picture, asked, say):
    conversation, _ = scripted("Yes.<|im_end|>", image=picture)
    with pytest.raises(UserError, match=say):
        conversation.ask("Well?", **asked)


def test_a_segment_that_never_comes(picture):
    conversation, _ = scripted("I see <p> no cat </p>.<|im_end|>", image=picture)
    heard: list[np.ndarray] = []
    answer = conversation.ask("Segment the cat.", on_mask=heard.append)
    assert answer.masks == heard == answer.phrases == [] and answer.text == "I see no cat."
    assert np.array_equal(np.asarray(answer.overlay()), np.asarray(picture))


def ask_on(conversation: Conversation) -> None:
    for _ in range(8):
        conversation.ask("Another question?", max_new_tokens=8)


def test_a_conversation_that_grows_too_long(picture, tmp_path):
    short = text_config(max_position_embeddings=120)
    conversation, _ = scripted(*["Yes.<|im_end|>"] * 9, image=picture, text=short)
    conversation.ask("First?", prompts=[{"point": (1, 1)}], max_new_tokens=8)
    with pytest.raises(UserError, match=r"tokens longer than the model can read; .*drop_oldest"):
        ask_on(conversation)
    turns = len(conversation.turns)
    assert len(conversation._prompts) == 1
    assert conversation.ask("Another question?", max_new_tokens=8, drop_oldest=True).text == "Yes."
    assert conversation._prompts == [] and len(conversation._messages) <= 2 * turns
    assert sum(message["content"].count("<image>") for message in conversation._messages) == 1
    # The model forgets, the transcript does not.
    assert len(conversation.turns) == turns + 1 and conversation.turns[0][0] == "First?"
    assert f"turn-{turns + 1}.answer.json" in {path.name for path in conversation.save(tmp_path)}


def test_nothing_is_forgotten_for_a_question_that_does_not_fit(picture):
    short = text_config(max_position_embeddings=120)
    conversation, _ = scripted(*["Yes.<|im_end|>"] * 3, image=picture, text=short)
    conversation.ask("First?", prompts=[{"point": (1, 1)}], max_new_tokens=8)
    with pytest.raises(UserError, match=r"shorten the question, .*--max-new-tokens.*--drop-oldest.*/reset"):
        conversation.ask("Why? " * 60, max_new_tokens=8, drop_oldest=True)
    with pytest.raises(ValueError, match="inside the picture"):
        conversation.ask("Well?", prompts=[{"point": (100, 1)}], max_new_tokens=8, drop_oldest=True)
    assert len(conversation.turns) == len(conversation._prompts) == 1 and len(conversation._messages) == 2
    assert conversation.ask("Second?", max_new_tokens=8).text == "Yes."


def test_answers_are_as_long_as_the_model_can_read(picture):
    """Unless a length is asked for, and not as the longest; a model that reads little answers all the same."""
    short = text_config(max_position_embeddings=200)
    conversation, _ = scripted("Yes.<|im_end|>", "Sure.<|im_end|>", image=picture, text=short)
    assert conversation.ask("Well?").text == "Yes."
    with pytest.raises(UserError, match="tokens longer than the model can read"):
        conversation.ask("Well?", max_new_tokens=190)
    assert conversation.ask("Well?", max_new_tokens=190, shorten=True).text == "Sure."


def test_a_language_model_that_needs_no_positions(picture):
    bloom = BloomConfig(vocab_size=len(tokenizer()), hidden_size=32, n_layer=1, n_head=2)
    conversation, _ = scripted("Yes.<|im_end|>", image=picture, text=bloom)
    assert conversation.ask("Well?").text == "Yes."


def test_a_tokenizer_without_an_end(picture):
    conversation, _ = scripted("I like None<|im_end|>", image=picture)
    ours = processor(SIDE)
    ours.tokenizer.eos_token = None
    conversation = Conversation(conversation.model, ours, image=picture)
    assert conversation.ask("Which?").text == "I like None"


def test_a_character_that_breaks_off_is_heard_too():
    said: list[str] = []
    listener = AnswerListener(
        decode=lambda ids: "It\ufffd"[: len(ids)],
        decode_mask=lambda states: None,
        segment_token_id=9,
        on_text=said.append,
    )
    listener.put(torch.tensor([[1, 2]]))  # what was asked
    for token in range(3):
        listener.put(torch.tensor([token]))
    assert said == ["I", "t"]
    listener.end()
    assert said == ["I", "t", "\ufffd"]


def test_an_interrupted_answer_is_forgotten(picture):
    conversation, _ = scripted("Yes.<|im_end|>", "No.<|im_end|>", image=picture)

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conversation.ask("One?", on_text=interrupt)
    assert conversation.turns == []
    assert isinstance(conversation.ask("Two?"), Answer)
    assert [message["content"] for message in conversation._messages] == ["<image>\nTwo?", "No."]
