"""A grid of object queries that each look at one place."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from omgvision.models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.models.omg_seg.prompt_encoder_omg_seg import PLACE_FALL, place_grid, place_prior
from omgvision.training.start import with_places
from tests.models import random_model, random_pixels


def test_a_place_sees_its_surroundings_freely_and_what_is_far_not():
    places = torch.tensor([[16.0, 16.0]])
    prior = place_prior(places, stride=8, canvas_size=(64, 64), grid=(64, 64))[0]
    assert prior[16, 16] == 0
    assert prior[16, 27] == 0  # 11.5 of 12 pixels away
    assert -PLACE_FALL < prior[16, 31] < 0
    assert prior[16, 50] == -PLACE_FALL and prior[50, 16] == -PLACE_FALL


def test_the_grid_covers_the_canvas():
    assert place_grid((64, 96), 32) == (2, 3)
    assert place_grid((64, 97), 32) == (2, 4)


def test_places_add_queries_after_those_of_the_weights():
    model = random_model(point_refinement=True).eval()
    placed = with_places(model, 32)
    pixels = random_pixels(1, 3, 64, 96)
    own = model.config.num_queries
    with torch.no_grad():
        output = placed(pixels)
    assert output.masks_queries_logits.shape[1] == own + 6
    assert placed.model.count_object_queries((64, 96)) == own + 6
    assert model.model.count_object_queries((64, 96)) == own


@pytest.mark.parametrize("refinement", [False, True])
@pytest.mark.parametrize("frames", [1, 2])
def test_places_are_held_to_their_surroundings_and_other_queries_are_not(refinement: bool, frames: int):
    model = with_places(random_model(point_refinement=refinement), 16).eval()
    own = model.config.num_queries
    with torch.no_grad():
        encoded = model.encode(random_pixels(1, frames, 3, 128, 128))
        decoded = model.model.decode_objects(encoded)
        assert decoded.layer_query_features is not None and decoded.layer_mask_logits is not None
        assert encoded.mask_features is not None
        embeddings = model.model.mask_decoder.mask_embed(decoded.layer_query_features[-1])
        added = decoded.layer_mask_logits[-1] - torch.einsum("bqc,bcthw->bqthw", embeddings, encoded.mask_features)
    torch.testing.assert_close(added[:, :own], torch.zeros_like(added[:, :own]), atol=1e-4, rtol=0)
    first, last = added[0, own], added[0, -1]
    for frame in range(frames):
        assert abs(first[frame, 0, 0]) < 1e-4 and abs(last[frame, -1, -1]) < 1e-4
        assert abs(first[frame, -1, -1] + PLACE_FALL) < 1e-4 and abs(last[frame, 0, 0] + PLACE_FALL) < 1e-4


def test_places_begin_as_clicks_do():
    model = random_model(point_refinement=True)
    with torch.no_grad():
        encoded = model.encode(random_pixels(1, 3, 64, 64))
        placed = with_places(model, 64)
        encoder = placed.model.prompt_encoder
        assert encoder is not None and encoded.mask_features is not None and encoded.image_sizes is not None
        about = {"image_sizes": encoded.image_sizes, "canvas_size": (64, 64), "mask_features": encoded.mask_features}
        [place] = encoder.places(**about).features
        [click] = encoder(points=torch.tensor([[[[32.0, 32.0]]]]), **about).features
    torch.testing.assert_close(place, click)


def test_it_is_saved_and_loaded(tmp_path):
    model = with_places(random_model(point_refinement=True).eval(), 32)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    pixels = random_pixels(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(pixels).masks_queries_logits, again(pixels).masks_queries_logits)


def test_models_without_prompts_have_no_places():
    with pytest.raises(StrictDataclassClassValidationError, match="query_stride"):
        OmgSegConfig(query_stride=32, prompt_queries=False)


def test_language_models_take_segmenters_without_a_grid():
    with pytest.raises(StrictDataclassClassValidationError, match="without a grid of queries"):
        OmgLlavaConfig(vision_config=OmgSegConfig(query_stride=32).to_dict())
