"""Where in the picture tokens are."""

import pytest
import torch

from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.projector_omg_llava import Places
from tests.golden_llava import random_llava


def test_a_pixel_token_has_its_row_and_its_column():
    places = Places(2, 3)
    with torch.no_grad():
        places.rows.copy_(torch.tensor([[1.0, 0, 0], [2, 0, 0]]))
        places.columns.copy_(torch.tensor([[0, 1.0, 0], [0, 2, 0]]))
    assert places.of_pixels().tolist() == [[1, 1, 0], [1, 2, 0], [2, 1, 0], [2, 2, 0]]


def test_an_object_is_where_its_cells_are():
    places = Places(2, 3)
    with torch.no_grad():
        places.rows.copy_(torch.tensor([[1.0, 0, 0], [2, 0, 0]]))
        places.columns.copy_(torch.tensor([[0, 1.0, 0], [0, 2, 0]]))
    left, corner, nowhere = [[0.9, 0.2], [0.6, 0.3]], [[0.8, 0.5], [0.1, 0.9]], [[0.0, 0.0], [0.0, 0.0]]
    found = places.of_objects(torch.tensor([left, corner, nowhere]))
    assert found.tolist() == [[1.5, 1, 0], [1.5, 2, 0], [0, 0, 0]]


def test_places_are_added_to_what_is_seen_and_to_nothing_else():
    model = random_llava(place_embeddings=True)
    places = model.model.places
    assert places is not None
    pictures = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        told = model.encode_images(pictures).tokens
        kept = places.of_pixels().clone()
        places.rows.zero_()
        places.columns.zero_()
        plain = model.encode_images(pictures).tokens
    assert told is not None and plain is not None
    cells = len(kept)
    for with_places, without in zip(told, plain, strict=True):
        change = with_places - without
        assert torch.allclose(change[:cells], kept, atol=1e-5)
        assert change[cells].abs().max() == 0, "the separator is nowhere"
        objects = change[cells + 1 :]
        assert len(objects) and (objects.abs().amax(1) > 0).all(), "each of them is somewhere"


def test_places_are_saved_and_are_in_no_other_model(tmp_path):
    assert random_llava().model.places is None
    model = random_llava(place_embeddings=True)
    model.save_pretrained(tmp_path)
    loaded = OmgLlavaForConditionalGeneration.from_pretrained(tmp_path)
    assert model.model.places is not None and loaded.model.places is not None
    for name, kept in model.model.places.state_dict().items():
        assert torch.equal(loaded.model.places.state_dict()[name], kept), name


@pytest.mark.parametrize(("side", "cells"), [(128, 2), (192, 3)])
def test_there_is_a_place_for_each_cell(side, cells):
    places = random_llava(place_embeddings=True, image_size=side).model.places
    assert places is not None and len(places.rows) == len(places.columns) == cells
