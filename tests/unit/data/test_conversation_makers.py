"""Conversations made of annotations: what is asked, what is answered, which masks belong to it."""

import numpy as np
import pytest
import torch

from omgvision.data import SyntheticScenes, conversation_makers
from omgvision.data import conversation_words as words
from omgvision.data.conversation_makers import (
    MAKERS,
    MadeConversations,
    Scene,
    caption,
    colour_of,
    count,
    grounded_caption,
    place_of,
    position,
    presence,
    referring,
    region,
    semantic,
)
from omgvision.data.sample import Sample, layers_from_masks

NAMES, THINGS = ("dog", "cat", "wall-brick", "bird"), (True, True, False, True)


def box(x1, y1, x2, y2):
    mask = np.zeros((100, 100), dtype=bool)
    mask[y1:y2, x1:x2] = True
    return mask


def scene_of(*segments, captions=()):
    """Segments are (label, mask, colour)."""
    image = torch.zeros((3, 100, 100), dtype=torch.uint8)
    for _, mask, rgb in segments:
        image[:, torch.from_numpy(mask)] = torch.tensor(rgb, dtype=torch.uint8)[:, None]
    sample = Sample(
        image=image,
        segment_layers=layers_from_masks([mask for _, mask, _ in segments], 100, 100),
        labels=torch.tensor([label for label, _, _ in segments]),
        names=NAMES,
        things=THINGS,
        sample_id="s",
        dataset="d",
    )
    return Scene(sample, captions)


RED, BLUE, GREY = (210, 30, 30), (30, 60, 210), (120, 120, 120)
LEFT, RIGHT, CAT, WALL = box(0, 40, 20, 60), box(60, 30, 100, 70), box(40, 0, 55, 20), box(0, 80, 100, 100)


@pytest.fixture
def scene():
    return scene_of((0, LEFT, RED), (0, RIGHT, BLUE), (1, CAT, GREY), (2, WALL, GREY))


def drawn(maker, scene, seed=0):
    made = maker(scene, np.random.default_rng(seed))
    assert made is not None
    return made


def draws(maker, scene, number=40):
    return [drawn(maker, scene, seed) for seed in range(number)]


def test_expressions_mean_one_object_alone(scene):
    assert scene.expressions(0) == ["dog on the left", "smallest dog", "red dog"]
    assert scene.expressions(1) == ["dog on the right", "largest dog", "blue dog"]
    assert scene.expressions(2) == ["cat"]


def test_nothing_is_said_where_it_is_not_clear():
    close = scene_of((0, box(30, 40, 50, 60), RED), (0, box(35, 62, 55, 82), RED), (0, box(30, 10, 52, 30), RED))
    assert close.expressions(0) == []
    assert close.expressions(1) == ["dog at the bottom"]


def test_referring_answers_with_the_mask_of_what_it_says(scene):
    expected = {"left": LEFT, "smallest": LEFT, "red": LEFT, "right": RIGHT, "largest": RIGHT, "blue": RIGHT}
    seen = set()
    for made in draws(referring, scene, 80):
        assert made.turn.answer.startswith("<p> The ") and made.turn.answer.endswith(" </p> [SEG].")
        word = next((word for word in expected if word in made.turn.answer), "cat")
        seen.add(word)
        assert torch.equal(made.masks[0], torch.from_numpy(expected.get(word, CAT)))
    assert seen == {*expected, "cat"}


def test_grounded_caption_has_a_mask_for_each_kind(scene):
    made = draws(grounded_caption, scene, 1)[0]
    assert made.turn.answer == ("<p> Brick wall </p> [SEG], <p> two dogs </p> [SEG] and <p> a cat </p> [SEG].")
    expected = [WALL, LEFT | RIGHT, CAT]
    assert all(torch.equal(mask, torch.from_numpy(each)) for mask, each in zip(made.masks, expected, strict=True))


def test_semantic_is_all_of_a_class(scene):
    found = {made.turn.answer: made.masks[0] for made in draws(semantic, scene)}
    assert set(found) == {"<p> Dog </p> [SEG].", "<p> Cat </p> [SEG].", "<p> Brick wall </p> [SEG]."}
    assert torch.equal(found["<p> Dog </p> [SEG]."], torch.from_numpy(LEFT | RIGHT))


def test_counts_and_presence(scene):
    assert {made.turn.answer for made in draws(count, scene) if "dogs" in made.turn.question} == {"Two."}
    for made in draws(presence, scene):
        assert made.turn.answer == ("No." if "bird" in made.turn.question else "Yes.")


def test_rare_answers_are_asked_for_as_often_as_frequent_ones():
    many = [(label, box(5 * at, 0, 5 * at + 4, 20), RED) for at, label in enumerate([0, 0, 1, 2, 3])]
    scene = scene_of(*many)
    answers = [made.turn.answer for made in draws(count, scene, 200)]
    assert 70 < answers.count("Two.") < 130 and answers.count("One.") == 200 - answers.count("Two.")
    places = [(1, box(0, 0, 10, 10), RED), (3, box(0, 12, 10, 22), GREY), (0, box(45, 45, 55, 55), BLUE)]
    scene = scene_of(*places)
    answers = [made.turn.answer for made in draws(position, scene, 200)]
    assert 70 < answers.count("In the middle.") < 130


def test_a_caption_names_the_main_kinds_alone(monkeypatch, scene):
    monkeypatch.setattr(conversation_makers, "MOST_NAMED", 2)
    assert drawn(caption, scene).turn.answer == "Brick wall and two dogs."
    made = drawn(grounded_caption, scene)
    assert made.turn.answer == "<p> Brick wall </p> [SEG] and <p> two dogs </p> [SEG]." and len(made.masks) == 2


def test_counts_are_not_asked_where_small_ones_were_left_out():
    scene = scene_of((0, LEFT, RED), (0, box(90, 90, 93, 93), RED))
    assert count(scene, np.random.default_rng(0)) is None


def test_regions_are_described(scene):
    kinds = set()
    for made in draws(region, scene):
        [prompt] = made.prompts
        [kind] = prompt
        kinds.add(kind)
        assert made.turn.question.count("<mark>" if kind == "point" else "<region>") == 1
        if kind == "point":
            x, y = prompt["point"]
            named = next(noun for noun in ("dog", "cat") if noun in made.turn.answer)
            inside = {"dog": LEFT | RIGHT, "cat": CAT}[named]
            assert inside[int(y), int(x)]
        if "rick wall" in made.turn.answer:
            assert kind == "mask" and torch.equal(prompt["mask"], torch.from_numpy(WALL))
    assert kinds == {"point", "box", "mask"}


def test_captions_of_people_come_first(scene):
    written = scene_of((0, LEFT, RED), captions=["A dog rests. "])
    assert drawn(caption, written).turn.answer == "A dog rests."
    assert drawn(caption, scene).turn.answer == "Brick wall, two dogs and a cat."


@pytest.mark.parametrize("maker", [name for name in MAKERS if name != "presence"])
def test_an_empty_picture_gives_nothing(maker):
    assert MAKERS[maker](scene_of(), np.random.default_rng(0)) is None


def test_rendered_scenes_make_conversations_and_the_same_ones_again():
    scenes = SyntheticScenes(seed=3, size=(64, 96), length=30)
    dataset = MadeConversations(scenes, name="scenes", turns=(2, 3))
    first = [dataset.draw(index, np.random.default_rng(index)) for index in range(30)]
    again = [dataset.draw(index, np.random.default_rng(index)) for index in range(30)]
    for one, other in zip(first, again, strict=True):
        assert one.turns == other.turns and torch.equal(one.masks, other.masks)
        assert all(mask.any() for mask in one.masks)
    assert len({turn.question for one in first for turn in one.turns}) > 30


@pytest.mark.parametrize(
    ("settings", "say"),
    [({"weights": {"riddle": 1}}, "riddle"), ({"weights": {"count": 0}}, "more than 0"), ({"turns": (2, 1)}, "fewest")],
)
def test_wrong_settings(settings, say):
    with pytest.raises(ValueError, match=say):
        MadeConversations(SyntheticScenes(length=1), name="scenes", **settings)


@pytest.mark.parametrize(
    ("name", "said"),
    [("wall-brick", "brick wall"), ("sky-other-merged", "sky"), ("window-blind", "window blind"), ("dog, pup", "dog")],
)
def test_names_as_people_say_them(name, said):
    assert words.spoken(name) == said


@pytest.mark.parametrize(
    ("noun", "many"), [("person", "people"), ("wine glass", "wine glasses"), ("berry", "berries"), ("toy", "toys")]
)
def test_plurals(noun, many):
    assert words.plural(noun) == many


def test_numbers_lists_and_articles():
    assert words.counted("apple", 1) == "an apple" and words.counted("dog", 3) == "three dogs"
    assert words.counted("dog", 40) == "many dogs"
    assert words.listed(["a"]) == "a" and words.listed(["a", "b", "c"]) == "a, b and c"


def test_colours_and_places():
    assert colour_of(np.full((9, 3), (210, 35, 35), dtype=np.uint8)) == "red"
    assert colour_of(np.array([[210, 30, 30], [30, 60, 210]], dtype=np.uint8)) is None
    assert place_of((0.5, 0.5)) == "in the middle" and place_of((0.1, 0.9)) == "on the left, at the bottom"
    assert place_of((0.9, 0.5)) == "on the right" and place_of((0.5, 0.1)) == "in the middle, at the top"
    assert place_of((0.35, 0.5)) is None
