"""What must not depend on how pictures are put together: batches, clips, padding, cached encodings."""

import pytest
import torch
from torch.nn import functional as F

from tests.closeness import assert_close, assert_features, assert_logits
from tests.golden import load
from tests.models import golden_model

PIXELS = load("tiny_io_a_image")["input"]


@torch.no_grad()
def segment(*arguments, **named):
    return golden_model()(*arguments, **named)


def test_a_batch_is_its_pictures():
    together = segment(PIXELS, clip_fusion=True)
    for index in range(2):
        alone = segment(PIXELS[index : index + 1], clip_fusion=True)
        for name in ("class_queries_logits", "masks_queries_logits", "iou_logits"):
            assert_logits(together[name][index : index + 1], alone[name])
        assert_features(together.query_features[index : index + 1], alone.query_features)
        fused, expected = (out.fused_class_logits.exp() for out in (together, alone))
        assert_close(fused[index : index + 1], expected, atol=1e-4)


def test_a_picture_is_a_clip_of_one_frame():
    image, clip = segment(PIXELS), segment(PIXELS[:, None])
    assert image.masks_queries_logits.dim() == 4
    assert clip.masks_queries_logits.shape == (2, 20, 1, 24, 32)
    assert_logits(clip.masks_queries_logits[:, :, 0], image.masks_queries_logits)
    assert_logits(clip.class_queries_logits, image.class_queries_logits)


def test_an_encoded_picture_is_as_good_as_its_pixels():
    with torch.no_grad():
        encoded = golden_model().encode(PIXELS)
    for prompts in ({}, {"input_boxes": torch.tensor([[[10.0, 12, 60, 70]], [[64.0, 8, 100, 60]]])}):
        cached, direct = segment(encoder_outputs=encoded, **prompts), segment(PIXELS, **prompts)
        for name in ("class_queries_logits", "masks_queries_logits", "iou_logits", "query_features"):
            assert torch.equal(cached[name], direct[name])
        assert torch.equal(cached.image_sizes, direct.image_sizes)


def test_the_base_model_gives_the_same_masks():
    with torch.no_grad():
        base = golden_model().model(PIXELS)
    assert torch.equal(base.masks_queries_logits, segment(PIXELS).masks_queries_logits)


def padded(size: tuple[int, int]):
    """The first picture's corner of `size` on the whole canvas, as the processor pads it, and its pixel mask."""
    height, width = size
    canvas_height, canvas_width = PIXELS.shape[-2:]
    around = (0, canvas_width - width, 0, canvas_height - height)
    return F.pad(PIXELS[:1, :, :height, :width], around), F.pad(torch.ones(1, height, width), around)


def test_sizes_are_those_without_padding():
    pixels, mask = padded((64, 96))
    output = segment(torch.cat((PIXELS[:1], pixels)), torch.cat((torch.ones(1, 96, 128), mask)))
    assert output.image_sizes.tolist() == [[96, 128], [64, 96]]
    assert output.canvas_size.tolist() == [96, 128]


def test_padding_is_seen():
    """As in the original the attention does not know the padding: a picture gets other logits on a larger canvas.

    This is the price of a batch of different sizes. Whoever needs results that do not depend on the neighbours in a
    batch gives every picture its own call, as the predictor does, or pictures of one size.
    """
    pixels, mask = padded((64, 96))
    alone, on_canvas = segment(pixels[..., :64, :96]), segment(pixels, mask)
    cut = on_canvas.masks_queries_logits[..., :16, :24]
    assert (cut - alone.masks_queries_logits).abs().max() > 1
    agreement = ((cut > 0) == (alone.masks_queries_logits > 0)).float().mean()
    assert 0.5 < agreement < 1
    # The pixel mask tells where the picture ends; it does not hide the rest.
    assert torch.equal(on_canvas.masks_queries_logits, segment(pixels).masks_queries_logits)
    # And what stands beside it in the batch does not matter, only the canvas.
    beside = segment(torch.cat((PIXELS[1:], pixels)), torch.cat((torch.ones(1, 96, 128), mask)))
    assert_logits(beside.masks_queries_logits[1:], on_canvas.masks_queries_logits)


@pytest.mark.parametrize("shape", [(3, 96, 128), (1, 3, 31, 64), (1, 3, 64, 31)])
def test_impossible_inputs(shape):
    with pytest.raises(ValueError, match="pixel_values: expected"):
        golden_model()(torch.zeros(shape))


def test_neither_pixels_nor_an_encoded_picture():
    with pytest.raises(ValueError, match="pixel_values: expected a picture or encoder_outputs"):
        golden_model()()
