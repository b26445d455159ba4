"""The bundled chat weights answer and mark as README.md and docs/conversations.md say."""

import json
from pathlib import Path

import numpy as np
import pytest

import omgvision
from omgvision.hub import bundled_folder

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "examples" / "images"
FOLDER = bundled_folder("omg-llava-nano")


@pytest.fixture(scope="module")
def model():
    return omgvision.load(device="cpu")


@pytest.mark.slow
def test_it_marks_the_cat(model):
    answer = model.chat(IMAGES / "cat.jpg", "Please segment the cat in this image.")
    (mask,) = answer.masks
    assert mask[:, 60:360].mean() > 0.8 and mask[:, 420:].mean() < 0.2  # its head fills the left; the right is a wall
    assert "cat" in answer.phrases[0].text.lower()


@pytest.mark.slow
def test_follow_ups_on_one_look(model):
    conversation = model.open_chat(IMAGES / "cat.jpg")
    assert "cat" in conversation.ask(task="caption").text.lower()
    assert "cat" in conversation.ask(task="region", points=[(240, 90)]).text.lower()
    assert conversation.ask("How many cats are there?").text == "One."
    assert conversation.ask("Is there a dog in the picture?").text == "No."


@pytest.mark.slow
def test_the_person_in_two_portraits(model):
    for name in ("admiral.jpg", "astronaut.jpg"):
        answer = model.chat(IMAGES / name, "the person", task="refer")
        (mask,) = answer.masks
        height, width = mask.shape
        inside = np.zeros_like(mask)
        inside[height // 4 :, width // 4 : 3 * width // 4] = True
        assert mask[inside].mean() > 0.5 > mask[~inside].mean(), name


@pytest.mark.slow
def test_talk_without_a_picture(model):
    assert model.open_chat().ask("Hello!").text.startswith("Hello")
    assert "omg-llava-nano" in model.open_chat().ask("Who are you?").text
    assert "do not see a picture" in model.open_chat().ask("Describe the picture.").text


def test_the_folder_is_whole_and_says_nothing_about_the_machine_it_was_made_on():
    names = {path.name for path in FOLDER.iterdir()}
    assert names >= {"README.md", "LICENSE.SmolLM2", "config.json", "model.packed.safetensors", "tokenizer.json"}
    texts = [path.read_text(encoding="utf-8") for path in FOLDER.iterdir() if path.suffix in (".json", ".md")]
    assert not any('"_name_or_path": "/' in text or "/work/" in text for text in texts)
    assert json.loads((FOLDER / "generation_config.json").read_text())["no_repeat_ngram_size"] == 6
