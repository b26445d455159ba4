"""Small models for tests: the one that the recorded truth comes from, and random ones of the same classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig

from omgvision.conversion import convert_omg_seg
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation

from .golden import load

THINGS, CLASSES = 12, 19


@cache
def golden_model(**overrides: Any) -> OmgSegForUniversalSegmentation:
    """The recorded tiny model with its vocabulary, in evaluation mode; shared, so copy it before you change it."""
    config, state = convert_omg_seg(load("tiny_state"), {"num_loss_points": 112, **overrides})
    model = OmgSegForUniversalSegmentation(config)
    model.load_state_dict(state)
    seen = load("tiny_io_d_openvoc")["overlapping"].bool()
    model.set_class_embeddings(load("tiny_cls_embed")["classifier_pth"], torch.arange(CLASSES) < THINGS, seen)
    return model.eval()


def random_config(**overrides: Any) -> OmgSegConfig:
    """The smallest sizes at which every part is there."""
    sizes: dict[str, Any] = {
        "backbone_config": ClipConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1]),
        "embedding_dim": 16,
        "hidden_size": 32,
        "num_queries": 6,
        "num_attention_heads": 2,
        "group_norm_groups": 4,
        "encoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_layers": 3,
        "decoder_ffn_dim": 32,
        "num_loss_points": 64,
    }
    return OmgSegConfig(**(sizes | overrides))


def small_text_config() -> CLIPTextConfig:
    """Of a text tower that reads CLIP's vocabulary."""
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=16,
    )


def random_classes(count: int, *, prototypes: int = 2, dim: int = 16) -> Tensor:
    """Unit-norm class embeddings [count, prototypes, dim], the same at every call."""
    embeddings = torch.randn(count, prototypes, dim, generator=torch.Generator().manual_seed(7))
    return torch.nn.functional.normalize(embeddings, dim=-1)


def random_model(*, classes: int = 5, **overrides: Any) -> OmgSegForUniversalSegmentation:
    """A new model of `random_config`, the same at every call, in evaluation mode, with `classes` classes set.

    Noise on every parameter wakes those that start at zero or, as the scales of ConvNeXt, next to it.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = OmgSegForUniversalSegmentation(random_config(**overrides))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.set_class_embeddings(random_classes(classes), torch.arange(classes) < classes // 2)
    return model.eval()


def random_pixels(*shape: int, seed: int = 0) -> Tensor:
    """Normal noise [*shape], the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@contextmanager
def attention_masks(model: OmgSegForUniversalSegmentation) -> Iterator[list[Tensor]]:
    """Collects what every decoder layer is allowed to look at, [B, Q, N] bool, while the context lasts."""
    seen: list[Tensor] = []
    hooks = [
        layer.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[4]))
        for layer in model.model.mask_decoder.layers
    ]
    yield seen
    for hook in hooks:
        hook.remove()
