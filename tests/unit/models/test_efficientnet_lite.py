"""The EfficientNet-Lite backbone, and the conversion that folds its batch norms."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoBackbone

import omgvision as omg
from omgvision.conversion.efficientnet_lite import NORM_EPS, convert_efficientnet_lite
from omgvision.data.transforms import normalise
from omgvision.models.efficientnet_lite.modeling_efficientnet_lite import (
    GROUP_EXPANSIONS,
    GROUP_KERNELS,
    GROUP_STRIDES,
)

CHANNELS = (4, 6, 8, 10, 12, 14, 16)
DEPTHS = (1, 2, 1, 1, 1, 2, 1)


def published_state(generator: torch.Generator) -> dict[str, Tensor]:
    """A random state dict under the published names."""
    state: dict[str, Tensor] = {}

    def conv_and_norm(conv: str, norm: str, shape: tuple[int, int, int, int]) -> None:
        state[f"{conv}.weight"] = torch.randn(shape, generator=generator) / (shape[1] * shape[2] * shape[3]) ** 0.5
        for name in ("weight", "running_var"):
            state[f"{norm}.{name}"] = 0.5 + torch.rand(shape[0], generator=generator)
        for name in ("bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(shape[0], generator=generator)

    conv_and_norm("_conv_stem", "_bn0", (8, 3, 3, 3))
    channels, number = 8, 0
    for group, (out, depth) in enumerate(zip(CHANNELS, DEPTHS, strict=True)):
        for _ in range(depth):
            inner = channels * GROUP_EXPANSIONS[group]
            block = f"_blocks.{number}."
            if inner != channels:
                conv_and_norm(f"{block}_expand_conv", f"{block}_bn0", (inner, channels, 1, 1))
            kernel = GROUP_KERNELS[group]
            conv_and_norm(f"{block}_depthwise_conv", f"{block}_bn1", (inner, 1, kernel, kernel))
            conv_and_norm(f"{block}_project_conv", f"{block}_bn2", (out, inner, 1, 1))
            channels, number = out, number + 1
    return state


def same_padded(features: Tensor, *, kernel: int, stride: int) -> Tensor:
    """Padded so that the output has ⌈side / stride⌉ cells; an odd pixel of padding goes to the right and below."""
    height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in features.shape[-2:])
    return F.pad(features, (width // 2, -(-width // 2), height // 2, -(-height // 2)))


def published_forward(state: dict[str, Tensor], stem: Tensor) -> list[Tensor]:
    """Outputs of the seven groups, from the output of the stem, with batch norms as they are."""

    def norm(features: Tensor, name: str) -> Tensor:
        return F.batch_norm(
            features,
            state[f"{name}.running_mean"],
            state[f"{name}.running_var"],
            state[f"{name}.weight"],
            state[f"{name}.bias"],
            eps=NORM_EPS,
        )

    outputs, features, number = [], stem, 0
    for group, depth in enumerate(DEPTHS):
        for index in range(depth):
            block, entering = f"_blocks.{number}.", features
            if f"{block}_expand_conv.weight" in state:
                features = F.relu6(norm(F.conv2d(features, state[f"{block}_expand_conv.weight"]), f"{block}_bn0"))
            stride, kernel = GROUP_STRIDES[group] if index == 0 else 1, GROUP_KERNELS[group]
            weight = state[f"{block}_depthwise_conv.weight"]
            padded = same_padded(features, kernel=kernel, stride=stride)
            features = F.relu6(norm(F.conv2d(padded, weight, stride=stride, groups=len(weight)), f"{block}_bn1"))
            features = norm(F.conv2d(features, state[f"{block}_project_conv.weight"]), f"{block}_bn2")
            if stride == 1 and features.shape == entering.shape:
                features = features + entering
            number += 1
        outputs.append(features)
    return outputs


@pytest.fixture
def converted() -> tuple[dict[str, Tensor], omg.EfficientNetLiteBackbone]:
    state = published_state(torch.Generator().manual_seed(0))
    config, weights = convert_efficientnet_lite(state)
    backbone = omg.EfficientNetLiteBackbone(config).eval()
    backbone.load_state_dict(weights)
    return state, backbone


def test_sizes_are_read_off_the_shapes(converted):
    config = converted[1].config
    assert tuple(config.group_channels) == CHANNELS and tuple(config.group_depths) == DEPTHS
    assert config.stem_channels == 8


@pytest.mark.parametrize("size", [(64, 96), (65, 90)])
def test_folded_blocks_equal_convolutions_with_batch_norms(converted, size):
    state, backbone = converted
    stem = torch.randn(2, 8, *(-(-side // 2) for side in size), generator=torch.Generator().manual_seed(1))
    expected = published_forward(state, stem)
    features = stem
    for stage, group in zip(backbone.stages, (1, 2, 4, 6), strict=True):
        features = stage(features)
        torch.testing.assert_close(features, expected[group], atol=1e-4, rtol=1e-4)


def test_normalisation_moves_into_the_stem(converted):
    state, backbone = converted
    image = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    published = F.conv2d((image[None].float() - 127) / 128, state["_conv_stem.weight"], stride=2)
    factor = state["_bn0.weight"] / (state["_bn0.running_var"] + NORM_EPS).sqrt()
    published = (published - state["_bn0.running_mean"].view(-1, 1, 1)) * factor.view(-1, 1, 1)
    published = published + state["_bn0.bias"].view(-1, 1, 1)
    ours = backbone.stem(normalise(image)[None])
    # The last row and column see the padding, which is mean colour here and grey 127 there.
    torch.testing.assert_close(ours[..., :-1, :-1], published, atol=1e-4, rtol=1e-4)


def test_is_an_auto_backbone_with_four_maps():
    config = omg.EfficientNetLiteConfig(group_channels=list(CHANNELS), group_depths=list(DEPTHS))
    backbone = AutoBackbone.from_config(config)
    assert isinstance(backbone, omg.EfficientNetLiteBackbone)
    assert backbone.channels == [6, 8, 12, 16]
    maps = backbone(torch.zeros(1, 3, 64, 96)).feature_maps
    assert [tuple(feature.shape[1:]) for feature in maps] == [(6, 16, 24), (8, 8, 12), (12, 4, 6), (16, 2, 3)]


def test_groups_are_seven():
    with pytest.raises(Exception, match="group_depths: expected seven entries, got 2"):
        omg.EfficientNetLiteConfig(group_depths=[1, 2])
