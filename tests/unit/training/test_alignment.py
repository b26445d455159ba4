"""Projections that are aligned with words: what tokens show comes near their names."""

import copy

import pytest
import torch

from omgvision.data import SyntheticScenes
from omgvision.training.alignment import PLACE_SHARE, align, align_places, collected, embedding_of, overlaps
from omgvision.training.llava_start import give_places
from tests.golden_llava import processor, random_llava

SCENES = SyntheticScenes(size=(64, 96), length=6)


@pytest.fixture(scope="module")
def model():
    return random_llava()


def samples():
    return [SCENES[index] for index in range(len(SCENES))]


def test_only_the_projections_learn_and_they_do(model):
    model, images = copy.deepcopy(model), processor(128)
    pixels, _ = collected(model, images, samples())
    assert pixels.targets.shape == (len(pixels.inputs), 32)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    explained = align(model, images, samples(), steps=300)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and all(name.startswith(("model.projector.", "model.text_to_vision.")) for name in moved)
    assert explained["pixels"] > 0.2 and explained["queries"] > 0.5
    first, again = (align(random_llava(), images, samples(), steps=20) for _ in range(2))
    assert first == again and first["queries"] < explained["queries"]


def test_overlaps():
    found = torch.zeros(2, 4, 4, dtype=torch.bool)
    found[0, :2], found[1, 3:] = True, True
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[0, :4] = True
    torch.testing.assert_close(overlaps(found, masks), torch.tensor([[1.0], [0.0]]))


def test_places_begin_as_words():
    model, images = random_llava(image_size=192), processor(side=192)
    give_places(model)
    assert model.model.places is not None and model.model.places.rows.abs().max() == 0
    align_places(model, images)
    for embeddings, words in (
        (model.model.places.columns, ("left", "middle", "right")),
        (model.model.places.rows, ("top", "middle", "bottom")),
    ):
        for found, word in zip(embeddings, words, strict=True):
            assert torch.allclose(found, PLACE_SHARE * embedding_of(word, model, images)), word
