"""OpenCLIP weights: the ConvNeXt image towers and the text tower, the latter also as OMG-Seg's own text class saves it.

Sources: the key lists of OpenCLIP (``open_clip_pytorch_model.bin``) and of the original's ``OpenCLIPBackboneText``.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from transformers import CLIPTextConfig

from ..errors import UserError
from ..models.omg_seg.configuration_omg_seg import ClipConvNextConfig
from .reading import checked_fields, count, shape, unwrap
from .renaming import Rule, rename, rule
from .report import ConversionReport

logger = logging.getLogger(__name__)

HEAD_WIDTH = 64  # of CLIP's text towers: a width of 768 has 12 heads, 1024 has 16
XXLARGE_WIDTH = 384  # timm's convnext_xxlarge, the only one of OpenCLIP's whose norms have eps 1e-5

_STAGES = 4
_CAUSAL_MASK = "a constant causal mask, which the model makes itself"
_TEMPERATURE = "the temperature of OpenCLIP's contrastive training; OMG-Seg scales by its own constant"
_IGNORED = {
    "logit_scale": _TEMPERATURE,
    "logit_bias": _TEMPERATURE,
    "attn_mask": _CAUSAL_MASK,
    "text.attn_mask": _CAUSAL_MASK,
    "text_attn_mask": _CAUSAL_MASK,
}


def vision_rules(
    *, stem: str, stages: Sequence[str], head_norm: str, head: str, backbone: str, clip_head: str
) -> tuple[Rule, ...]:
    """Table of a timm ConvNeXt with its CLIP head; ``backbone`` and ``clip_head`` are our prefixes."""
    rules = [
        rule(f"{stem}.0.*", f"{backbone}stem.conv.*"),
        rule(f"{stem}.1.*", f"{backbone}stem.norm.*"),
    ]
    for index, stage in enumerate(stages):
        ours = f"{backbone}stages.{index}"
        rules += [
            rule(f"{stage}.downsample.0.*", f"{ours}.downsample.norm.*"),
            rule(f"{stage}.downsample.1.*", f"{ours}.downsample.conv.*"),
            rule(f"{stage}.blocks.{{}}.gamma", f"{ours}.blocks.{{}}.gamma"),
            rule(f"{stage}.blocks.{{}}.conv_dw.*", f"{ours}.blocks.{{}}.conv_dw.*"),
            rule(f"{stage}.blocks.{{}}.norm.*", f"{ours}.blocks.{{}}.norm.*"),
            rule(f"{stage}.blocks.{{}}.mlp.fc1.*", f"{ours}.blocks.{{}}.fc1.*"),
            rule(f"{stage}.blocks.{{}}.mlp.fc2.*", f"{ours}.blocks.{{}}.fc2.*"),
        ]
    return (
        *rules,
        rule(f"{head_norm}.*", f"{clip_head}norm.*"),
        rule(f"{head}.mlp.fc1.*", f"{clip_head}fc1.*"),
        rule(f"{head}.mlp.fc2.*", f"{clip_head}fc2.*"),
        rule(f"{head}.proj.*", f"{clip_head}proj.*"),
    )


VISION_STAGES = tuple(f"visual.trunk.stages.{index}" for index in range(_STAGES))


def open_clip_vision_rules(*, backbone: str, clip_head: str) -> tuple[Rule, ...]:
    return vision_rules(
        stem="visual.trunk.stem",
        stages=VISION_STAGES,
        head_norm="visual.trunk.head.norm",
        head="visual.head",
        backbone=backbone,
        clip_head=clip_head,
    )


def read_convnext(state: Mapping[str, Tensor], *, stages: Sequence[str], kind: str) -> ClipConvNextConfig:
    """Sizes of a timm ConvNeXt; the epsilon, which no shape tells, by its width."""
    sizes = [shape(state, f"{stage}.blocks.0.conv_dw.bias", kind=kind, ndim=1)[0] for stage in stages]
    depths = [count(state, f"{stage}.blocks.") for stage in stages]
    return ClipConvNextConfig(
        hidden_sizes=sizes, depths=depths, layer_norm_eps=1e-5 if sizes[0] >= XXLARGE_WIDTH else 1e-6
    )


def override_convnext(config: ClipConvNextConfig, overrides: Mapping[str, Any] | None) -> ClipConvNextConfig:
    """``config`` with fields set by the user.

    Raises:
        UserError: an unknown field, or a size that contradicts the shapes.
    """
    if not overrides:
        return config
    found: dict[str, Any] = {"hidden_sizes": list(config.hidden_sizes), "depths": list(config.depths)}
    overrides = checked_fields(overrides, ClipConvNextConfig, found)
    fields: dict[str, Any] = found | {"layer_norm_eps": config.layer_norm_eps} | overrides
    return ClipConvNextConfig(**fields)


class VisionTower(NamedTuple):
    """A converted image tower.

    Attributes:
        config: Of the backbone.
        state: Weights of the backbone, as ``ClipConvNextBackbone`` takes them.
        clip_head: Weights of the CLIP head (norm.*, then fc1.* and fc2.*, or proj.*); empty without one.
    """

    config: ClipConvNextConfig
    state: dict[str, Tensor]
    clip_head: dict[str, Tensor]


def read_image_tower(
    state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None
) -> tuple[VisionTower, ConversionReport]:
    """As :func:`convert_open_clip_vision`, with fields of ClipConvNextConfig to set and the report."""
    state = {key: tensor for key, tensor in state.items() if key.startswith("visual.")}
    found = read_convnext(state, stages=VISION_STAGES, kind="an OpenCLIP checkpoint with a ConvNeXt image tower")
    renamed = rename(state, open_clip_vision_rules(backbone="", clip_head="clip_head."))
    head = {
        key.removeprefix("clip_head."): tensor for key, tensor in renamed.state.items() if key.startswith("clip_head.")
    }
    backbone = {key: tensor for key, tensor in renamed.state.items() if not key.startswith("clip_head.")}
    report = ConversionReport(matched=renamed.matched, unexpected=renamed.unmatched)
    return VisionTower(override_convnext(found, config), backbone, head), report


def convert_open_clip_vision(state_dict: Mapping[str, Any]) -> VisionTower:
    """ConvNeXt image tower of an OpenCLIP checkpoint (base, large and xxlarge, with or without text tower).

    Args:
        state_dict: OpenCLIP's names (``visual.trunk.*``, ``visual.head.*``), flat or under "state_dict".

    Raises:
        UserError: no ConvNeXt image tower in ``state_dict``.
    """
    tower, report = read_image_tower(unwrap(state_dict))
    if report.unexpected:
        logger.warning("not converted, unknown in an OpenCLIP image tower: %s", ", ".join(report.unexpected))
    return tower


class _TextLayout(NamedTuple):
    """Names of one way to store the text tower, prefix and all."""

    tokens: str
    positions: str
    blocks: str
    norm: str
    projection: str


_TEXT_LAYOUTS = (
    _TextLayout("text_token_embedding", "text_pe", "text_transformer.resblocks", "text_ln_final", "text_proj"),
    _TextLayout("token_embedding", "positional_embedding", "transformer.resblocks", "ln_final", "text_projection"),
    _TextLayout(
        "text.token_embedding",
        "text.positional_embedding",
        "text.transformer.resblocks",
        "text.ln_final",
        "text.text_projection",
    ),
)


def _text_rules(layout: _TextLayout, prefix: str) -> tuple[Rule, ...]:
    theirs, ours = f"{layout.blocks}.{{}}", f"{prefix}text_model.encoder.layers.{{}}"
    return (
        rule(f"{layout.tokens}.weight", f"{prefix}text_model.embeddings.token_embedding.weight"),
        rule(layout.positions, f"{prefix}text_model.embeddings.position_embedding.weight"),
        rule(f"{theirs}.ln_1.*", f"{ours}.layer_norm1.*"),
        rule(f"{theirs}.attn.in_proj_*", *(f"{ours}.self_attn.{name}_proj.*" for name in "qkv")),
        rule(f"{theirs}.attn.out_proj.*", f"{ours}.self_attn.out_proj.*"),
        rule(f"{theirs}.ln_2.*", f"{ours}.layer_norm2.*"),
        rule(f"{theirs}.mlp.c_fc.*", f"{ours}.mlp.fc1.*"),
        rule(f"{theirs}.mlp.c_proj.*", f"{ours}.mlp.fc2.*"),
        rule(f"{layout.norm}.*", f"{prefix}text_model.final_layer_norm.*"),
        # OpenCLIP multiplies by [width, embedding] from the right, a linear layer stores [embedding, width].
        rule(layout.projection, f"{prefix}text_projection.weight", transpose=True),
    )


def has_text_tower(state: Mapping[str, Any]) -> bool:
    """Whether a text tower in one of the known layouts is in ``state``."""
    return any(f"{layout.tokens}.weight" in state for layout in _TEXT_LAYOUTS)


def has_image_tower(state: Mapping[str, Any]) -> bool:
    """Whether an OpenCLIP image tower made by timm is in ``state``."""
    return any(key.startswith("visual.trunk.") for key in state)


def leftovers(keys: Iterable[str]) -> ConversionReport:
    """Keys of an OpenCLIP checkpoint that no table took: those known to be needless, and the unexpected."""
    keys = list(keys)
    return ConversionReport(
        unexpected=[key for key in keys if key not in _IGNORED],
        ignored={key: _IGNORED[key] for key in keys if key in _IGNORED},
    )


def read_text_tower(
    state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, *, prefix: str = ""
) -> tuple[CLIPTextConfig, dict[str, Tensor], ConversionReport]:
    """As :func:`convert_open_clip_text`, with a prefix for our names and the report (without image towers)."""
    kind = "an OpenCLIP text tower"
    layout = next((each for each in _TEXT_LAYOUTS if f"{each.tokens}.weight" in state), None)
    if layout is None:
        names = " or ".join(f"{each.tokens}.weight" for each in _TEXT_LAYOUTS)
        raise UserError(f"not {kind}: expected the key {names}, got {len(state)} keys without")
    vocab_size, width = shape(state, f"{layout.tokens}.weight", kind=kind, ndim=2)
    found: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": shape(state, f"{layout.blocks}.0.mlp.c_fc.weight", kind=kind, ndim=2)[0],
        "projection_dim": shape(state, layout.projection, kind=kind, ndim=2)[1],
        "num_hidden_layers": count(state, f"{layout.blocks}."),
        "max_position_embeddings": shape(state, layout.positions, kind=kind, ndim=2)[0],
    }
    overrides = checked_fields(config or {}, CLIPTextConfig, found)
    if "num_attention_heads" not in overrides and width % HEAD_WIDTH:
        raise UserError(
            f"num_attention_heads: expected a text width that heads of {HEAD_WIDTH} divide, got {width}; "
            "give num_attention_heads in the config"
        )
    defaults: dict[str, Any] = {
        "num_attention_heads": width // HEAD_WIDTH,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    }
    renamed = rename(state, _text_rules(layout, prefix))
    report = leftovers(key for key in renamed.unmatched if not key.startswith("visual."))
    report.matched = renamed.matched
    return CLIPTextConfig(**(defaults | found | overrides)), renamed.state, report


def convert_open_clip_text(
    state_dict: Mapping[str, Any], config: Mapping[str, Any] | None = None
) -> tuple[CLIPTextConfig, dict[str, Tensor]]:
    """Text tower of OpenCLIP, for ``transformers.CLIPTextModelWithProjection``.

    Args:
        state_dict: OpenCLIP's names (``transformer.resblocks.*``, also below ``text.``) or those of the original's text
            class (``text_transformer.resblocks.*``), flat or under "state_dict". Image towers in it are left alone.
        config: Fields of ``CLIPTextConfig`` to set. Sizes come from the shapes; heads are 64 wide, the activation is
            the exact GELU and features are read at the end-of-text token 49407, as in OpenCLIP.

    Raises:
        UserError: no text tower in ``state_dict``, or a ``config`` that contradicts it.
    """
    text_config, state, report = read_text_tower(unwrap(state_dict), config)
    if report.unexpected:
        logger.warning("not converted, unknown in an OpenCLIP text tower: %s", ", ".join(report.unexpected))
    for key, reason in report.ignored.items():
        logger.info("left out: %s (%s)", key, reason)
    return text_config, state
