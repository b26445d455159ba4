"""Two ways to the same numbers: half precision and the fast deformable attention."""

import copy

import pytest
import torch

from omgvision.models.omg_seg import pixel_decoder_omg_seg
from tests.closeness import assert_features, assert_logits
from tests.golden import load
from tests.models import golden_model, random_model, random_pixels


@pytest.mark.parametrize("case", ["tiny_io_a_image", "tiny_io_b_video"])
def test_bfloat16_draws_the_same_masks(case):
    pixels = load(case)["input"]
    half = copy.deepcopy(golden_model()).bfloat16()
    with torch.no_grad():
        full, rounded = golden_model()(pixels), half(pixels.bfloat16())
    assert rounded.masks_queries_logits.dtype == torch.bfloat16
    same = (full.masks_queries_logits > 0) == (rounded.masks_queries_logits > 0)
    assert same.float().mean() > 0.97
    surely = full.masks_queries_logits.abs() > 2
    assert same[surely].float().mean() > 0.99
    # Logits reach 80 here, of which bfloat16 keeps two digits: near ties may go either way.
    best, second = full.class_queries_logits.topk(2, dim=-1).values.unbind(-1)
    decided = best - second > 4
    assert decided.any()
    classes = full.class_queries_logits.argmax(-1) == rounded.class_queries_logits.argmax(-1)
    assert classes[decided].all()


def test_bfloat16_prompts():
    pixels = load("tiny_io_a_image")["input"]
    half = copy.deepcopy(golden_model()).bfloat16()
    boxes = torch.tensor([[[10.0, 12, 60, 70]], [[64.0, 8, 100, 60]]])
    with torch.no_grad():
        full = golden_model()(pixels, input_boxes=boxes)
        rounded = half(pixels.bfloat16(), input_boxes=boxes)
    same = (full.masks_queries_logits > 0) == (rounded.masks_queries_logits > 0)
    assert same.float().mean() > 0.97


def test_both_kinds_of_deformable_attention_agree(monkeypatch):
    """Inference on CPU gathers with `embedding_bag`, training samples with `grid_sample`."""
    model, pixels, calls = random_model(hidden_size=32, num_attention_heads=2), random_pixels(2, 3, 96, 128), []
    for name in ("deformable_attention_embedding_bag", "deformable_attention_sampling"):
        function = getattr(pixel_decoder_omg_seg, name)

        def spy(*arguments, name=name, function=function):
            calls.append(name)
            return function(*arguments)

        monkeypatch.setattr(pixel_decoder_omg_seg, name, spy)
    with torch.no_grad():
        gathered = model(pixels)
    sampled = model(pixels)
    assert calls == ["deformable_attention_embedding_bag", "deformable_attention_sampling"]
    assert_features(gathered.mask_features, sampled.mask_features.detach())
    assert_features(gathered.query_features, sampled.query_features.detach())
    assert_logits(gathered.masks_queries_logits, sampled.masks_queries_logits.detach())


def test_auxiliary_outputs_do_not_change_the_last():
    pixels = load("tiny_io_a_image")["input"]
    with torch.no_grad():
        plain, auxiliary = golden_model()(pixels), golden_model()(pixels, output_auxiliary=True)
    assert plain.auxiliary_logits is None
    assert len(auxiliary.auxiliary_logits) == 4
    assert torch.equal(plain.masks_queries_logits, auxiliary.masks_queries_logits)
    assert torch.equal(plain.class_queries_logits, auxiliary.class_queries_logits)
