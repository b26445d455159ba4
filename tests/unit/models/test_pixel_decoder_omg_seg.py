"""The shortcuts of inference on CPU give what training computes."""

import pytest
import torch
from torch.nn import functional as F

from omgvision.models.omg_seg import pixel_decoder_omg_seg
from omgvision.models.omg_seg.linear_omg_seg import TokenLinear
from omgvision.models.omg_seg.pixel_decoder_omg_seg import PixelDecoder


def random_decoder(width: int) -> PixelDecoder:
    torch.manual_seed(0)
    decoder = PixelDecoder([8, 16, 24, 32], width, heads=4, layers=2, points=4, ffn_dim=96, groups=8).eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return decoder


def random_features(batch: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(batch, 8 * (level + 1), 48 // 2**level, 64 // 2**level) for level in range(4)]


@pytest.mark.parametrize("shape", [(1, 500), (3, 500), (2, 5)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear_is_linear(shape, bias):
    torch.manual_seed(0)
    linear, tokens = TokenLinear(48, 40, bias=bias), torch.randn(*shape, 48)
    expected = F.linear(tokens, linear.weight, linear.bias)
    for given in (tokens, tokens.flip(1).contiguous().flip(1), tokens.transpose(1, 2).contiguous().transpose(1, 2)):
        with torch.no_grad():
            torch.testing.assert_close(linear(given), expected.detach(), atol=1e-6, rtol=0)
    assert torch.equal(linear(tokens), expected)
    half = TokenLinear(48, 40, bias=bias).bfloat16()
    with torch.no_grad():
        assert torch.equal(half(tokens.bfloat16()), F.linear(tokens.bfloat16(), half.weight, half.bias))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("width", [64, 32])  # heads of 16 gather, narrower ones sample
@pytest.mark.parametrize("at_once", [301, 4096])
def test_inference_is_training(batch, width, at_once, monkeypatch):
    """However many tokens are taken at once, and in either memory format of the features."""
    monkeypatch.setattr(pixel_decoder_omg_seg, "QUERIES_AT_ONCE", at_once)
    decoder, features = random_decoder(width), random_features(batch)
    masks, memories, shapes = decoder(features)
    assert masks.requires_grad
    assert shapes == [(6, 8), (12, 16), (24, 32)]
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.inference_mode():
            found, found_memories, _ = decoder([feature.contiguous(memory_format=layout) for feature in features])
        torch.testing.assert_close(found, masks.detach(), atol=2e-5, rtol=0)
        for one, other in zip(found_memories, memories, strict=True):
            torch.testing.assert_close(one, other.detach(), atol=1e-5, rtol=0)


def test_not_a_number_stays_in_its_picture():
    features = random_features(2)
    with torch.inference_mode():
        expected = random_decoder(64)(features)[0][1]
        features[1][0, :, 3, 4] = torch.nan
        found = random_decoder(64)(features)[0]
    assert found[0].isnan().any()
    torch.testing.assert_close(found[1], expected, atol=1e-5, rtol=0)
