"""The original OMG-Seg checkpoints, in both directions.

Source of names and sizes: the state dicts of the original's ``Mask2formerVideo`` with ConvNeXt-L and -XXL backbones
(github.com/lxtGH/OMG-Seg at 1ae2e7d).
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from ..models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from .open_clip import (
    VISION_STAGES,
    has_image_tower,
    has_text_tower,
    leftovers,
    open_clip_vision_rules,
    override_convnext,
    read_convnext,
    read_text_tower,
    vision_rules,
)
from .reading import checked_fields, count, shape, unwrap
from .renaming import rename, restore, rule
from .report import ConversionReport

logger = logging.getLogger(__name__)

_KIND = "an OMG-Seg checkpoint"
_STAGES = tuple(f"backbone.layer{index}" for index in range(1, 5))
_PIXELS, _OUR_PIXELS = "panoptic_head.pixel_decoder", "model.pixel_decoder"
_ENCODER, _OUR_ENCODER = f"{_PIXELS}.encoder.layers.{{}}", f"{_OUR_PIXELS}.layers.{{}}"
_DECODER, _OUR_DECODER = "panoptic_head.transformer_decoder.layers.{}", "model.mask_decoder.layers.{}"
_NORMS = ("cross_norm", "self_norm", "ffn_norm")

BACKBONE_RULES = vision_rules(
    stem="backbone.stem",
    stages=_STAGES,
    head_norm="backbone.head.0.norm",
    head="backbone.head.1",
    backbone="model.backbone.",
    clip_head="clip_head.",
)

HEAD_RULES = (
    # Pixel decoder.
    rule(f"{_PIXELS}.input_convs.{{}}.conv.*", f"{_OUR_PIXELS}.input_convs.{{}}.conv.*"),
    rule(f"{_PIXELS}.input_convs.{{}}.gn.*", f"{_OUR_PIXELS}.input_convs.{{}}.norm.*"),
    *(
        rule(f"{_ENCODER}.self_attn.{name}.*", f"{_OUR_ENCODER}.self_attn.{name}.*")
        for name in ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    ),
    rule(f"{_ENCODER}.norms.0.*", f"{_OUR_ENCODER}.norm1.*"),
    rule(f"{_ENCODER}.ffn.layers.0.0.*", f"{_OUR_ENCODER}.fc1.*"),
    rule(f"{_ENCODER}.ffn.layers.1.*", f"{_OUR_ENCODER}.fc2.*"),
    rule(f"{_ENCODER}.norms.1.*", f"{_OUR_ENCODER}.norm2.*"),
    rule(f"{_PIXELS}.level_encoding.weight", f"{_OUR_PIXELS}.level_encoding"),
    rule(f"{_PIXELS}.lateral_convs.0.conv.*", f"{_OUR_PIXELS}.lateral_conv.conv.*"),
    rule(f"{_PIXELS}.lateral_convs.0.gn.*", f"{_OUR_PIXELS}.lateral_conv.norm.*"),
    rule(f"{_PIXELS}.output_convs.0.conv.*", f"{_OUR_PIXELS}.output_conv.conv.*"),
    rule(f"{_PIXELS}.output_convs.0.gn.*", f"{_OUR_PIXELS}.output_conv.norm.*"),
    rule(f"{_PIXELS}.mask_feature.*", f"{_OUR_PIXELS}.mask_projection.*"),
    # Mask decoder.
    *(
        rule(f"{_DECODER}.{name}.attn.in_proj_*", *(f"{_OUR_DECODER}.{name}.{part}_proj.*" for part in "qkv"))
        for name in ("cross_attn", "self_attn")
    ),
    *(
        rule(f"{_DECODER}.{name}.attn.out_proj.*", f"{_OUR_DECODER}.{name}.out_proj.*")
        for name in ("cross_attn", "self_attn")
    ),
    *(rule(f"{_DECODER}.norms.{index}.*", f"{_OUR_DECODER}.{name}.*") for index, name in enumerate(_NORMS)),
    rule(f"{_DECODER}.ffn.layers.0.0.*", f"{_OUR_DECODER}.fc1.*"),
    rule(f"{_DECODER}.ffn.layers.1.*", f"{_OUR_DECODER}.fc2.*"),
    rule("panoptic_head.transformer_decoder.post_norm.*", "model.mask_decoder.post_norm.*"),
    rule("panoptic_head.mask_embed.{}.*", "model.mask_decoder.mask_embed.{}.*"),
    rule("panoptic_head.level_embed.weight", "model.mask_decoder.level_embed"),
    # Queries: learned and from prompts.
    rule("panoptic_head.query_feat.weight", "model.query_features"),
    rule("panoptic_head.query_embed.weight", "model.query_positions"),
    rule("panoptic_head.mask_tokens.weight", "model.prompt_encoder.mask_token"),
    rule("panoptic_head.pb_embedding.weight", "model.prompt_encoder.prompt_embed"),
    rule("panoptic_head.pos_linear.*", "model.prompt_encoder.position_projection.*"),
    # What the queries are read with.
    rule("panoptic_head.mask_pooling_proj.0.*", "classifier.pool_norm.*"),
    rule("panoptic_head.mask_pooling_proj.1.*", "classifier.pool_proj.*"),
    rule("panoptic_head.cls_proj.{}.*", "classifier.projection.{}.*"),
    rule("panoptic_head.iou_embed.{}.*", "iou_head.{}.*"),
)

_BUFFERS = ("class_embeddings", "thing_mask", "seen_mask")


def _read_sizes(state: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """Fields of OmgSegConfig that the shapes of the head tell."""

    def size(key: str, ndim: int = 2) -> tuple[int, ...]:
        return shape(state, f"panoptic_head.{key}", kind=_KIND, ndim=ndim)

    num_queries, hidden_size = size("query_feat.weight")
    levels = size("level_embed.weight")[0]
    offsets = size("pixel_decoder.encoder.layers.0.self_attn.sampling_offsets.bias", ndim=1)[0]
    if offsets % (heads * levels * 2):
        raise UserError(
            f"num_attention_heads: expected a number that divides {offsets} sampling offsets on {levels} levels, "
            f"got {heads}; give num_attention_heads in the config"
        )
    return {
        "hidden_size": hidden_size,
        "num_queries": num_queries,
        "num_feature_levels": levels,
        "num_sampling_points": offsets // (heads * levels * 2),
        "encoder_layers": count(state, f"{_PIXELS}.encoder.layers."),
        "encoder_ffn_dim": size("pixel_decoder.encoder.layers.0.ffn.layers.0.0.weight")[0],
        "decoder_layers": count(state, "panoptic_head.transformer_decoder.layers."),
        "decoder_ffn_dim": size("transformer_decoder.layers.0.ffn.layers.0.0.weight")[0],
        "embedding_dim": size("cls_proj.4.weight")[0],
        "prompt_queries": "panoptic_head.mask_tokens.weight" in state,
    }


def read_omg_seg(
    state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None, companion: Mapping[str, Tensor] | None = None
) -> tuple[OmgSegConfig, dict[str, Tensor], ConversionReport]:
    """As :func:`convert_omg_seg` on unwrapped dicts, with the report (whose ``missing`` only the model can tell)."""
    overrides, companion = dict(config or {}), dict(companion or {})
    heads = overrides.get("num_attention_heads", OmgSegConfig.num_attention_heads)
    found = _read_sizes(state, heads)

    renamed = rename(state, BACKBONE_RULES + HEAD_RULES)
    report = ConversionReport(matched=renamed.matched, unexpected=renamed.unmatched)
    converted = dict(renamed.state)

    image_tower = {key: tensor for key, tensor in companion.items() if key.startswith("visual.")}
    if any(key.startswith("backbone.") for key in state):
        backbone = read_convnext(state, stages=_STAGES, kind=f"{_KIND} with a ConvNeXt backbone")
        reason = "the OMG-Seg checkpoint has a backbone of its own"
        report.ignored |= dict.fromkeys(image_tower, reason)
    elif has_image_tower(companion):
        backbone = read_convnext(image_tower, stages=VISION_STAGES, kind="an OpenCLIP ConvNeXt checkpoint")
        tower = rename(image_tower, open_clip_vision_rules(backbone="model.backbone.", clip_head="clip_head."))
        converted |= tower.state
        report = report.merge(ConversionReport(matched=tower.matched, unexpected=tower.unmatched))
    elif companion:
        raise UserError(
            f"backbone: expected an OpenCLIP checkpoint with visual.trunk.* keys, got {len(companion)} keys "
            f"({', '.join(list(companion)[:3])} …)"
        )
    else:
        raise UserError(
            "this OMG-Seg checkpoint has no backbone.* keys (the published one leaves the frozen backbone out): "
            "give the OpenCLIP file of the backbone as well, such as open_clip_pytorch_model.bin of "
            "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
        )
    _check_widths(state, converted, backbone, found["embedding_dim"])
    found["clip_head"] = "mlp" if "clip_head.fc2.weight" in converted else None
    if "clip_head.proj.weight" in converted:
        found["clip_head"] = "linear"

    text_overrides = overrides.pop("text_config", None)
    if has_text_tower(companion):
        text_config, text_state, text_report = read_text_tower(companion, text_overrides, prefix="text_model.")
        if text_config.projection_dim != found["embedding_dim"]:
            raise UserError(
                f"text tower: expected the embedding width {found['embedding_dim']} of the OMG-Seg checkpoint, "
                f"got {text_config.projection_dim}; give the OpenCLIP file that the checkpoint was trained with"
            )
        found["text_config"] = text_config
        converted |= text_state
        report = report.merge(text_report)
    else:
        found["text_config"] = text_overrides
        report = report.merge(leftovers(key for key in companion if not key.startswith("visual.")))

    found["backbone_config"] = override_convnext(backbone, overrides.pop("backbone_config", None))
    omg_config = OmgSegConfig(**(found | checked_fields(overrides, OmgSegConfig, found)))
    converted |= _empty_vocabulary(omg_config)
    return omg_config, converted, report


def _check_widths(
    state: Mapping[str, Tensor], converted: Mapping[str, Tensor], backbone: ClipConvNextConfig, embedding_dim: int
) -> None:
    """An OpenCLIP file of another size than the checkpoint was trained with fits no layer: say so in one line."""
    inputs = [f"{_PIXELS}.lateral_convs.0.conv.weight"]
    inputs += [f"{_PIXELS}.input_convs.{level}.conv.weight" for level in (2, 1, 0)]
    expected = [shape(state, key, kind=_KIND, ndim=4)[1] for key in inputs]
    remedy = "give the OpenCLIP file that it was trained with"
    if expected != list(backbone.hidden_sizes):
        raise UserError(
            f"backbone: expected stages of widths {expected}, as this OMG-Seg checkpoint needs them, "
            f"got {list(backbone.hidden_sizes)}; {remedy}"
        )
    for output in ("clip_head.fc2.weight", "clip_head.proj.weight"):
        if output in converted and converted[output].shape[0] != embedding_dim:
            raise UserError(
                f"CLIP head: expected the embedding width {embedding_dim} of this OMG-Seg checkpoint, "
                f"got {converted[output].shape[0]}; {remedy}"
            )


def _empty_vocabulary(config: OmgSegConfig) -> dict[str, Tensor]:
    """The original keeps class embeddings in files of their own, so a converted model starts without classes."""
    if config.num_classes:
        raise UserError(
            f"num_classes: expected 0, as OMG-Seg checkpoints hold no class embeddings, got {config.num_classes}; "
            "call set_vocabulary or set_class_embeddings on the converted model"
        )
    return {
        "class_embeddings": torch.zeros(0, config.num_prototypes, config.embedding_dim),
        "thing_mask": torch.zeros(0, dtype=torch.bool),
        "seen_mask": torch.zeros(0, dtype=torch.bool),
    }


def convert_omg_seg(
    state_dict: Mapping[str, Any], config: Mapping[str, Any] | None = None, backbone: Mapping[str, Any] | None = None
) -> tuple[OmgSegConfig, dict[str, Tensor]]:
    """An original OMG-Seg checkpoint, for ``OmgSegForUniversalSegmentation(config).load_state_dict``.

    Sizes are read off the shapes. What no shape tells has the published value (8 heads, 32 groups, norms of the
    backbone 1e-6, of ConvNeXt-XXL 1e-5). The checkpoint holds no classes: call ``set_vocabulary`` afterwards.

    Args:
        state_dict: The original's names, flat or under "state_dict".
        config: Fields of OmgSegConfig to set instead of the published values; ``backbone_config`` and ``text_config``
            as dicts of the fields to change.
        backbone: OpenCLIP state dict that supplies the backbone and CLIP head where ``state_dict`` has no
            ``backbone.*`` (the published file), and the text tower, if it has one.

    Returns:
        The configuration and the weights, which load strictly; without a text tower in ``backbone`` the configuration
        has none either, unless ``config`` asks for one.

    Raises:
        UserError: another kind of checkpoint, no backbone anywhere, a backbone of another size, or a ``config`` that
            contradicts the shapes.
    """
    companion = unwrap(backbone) if backbone is not None else None
    omg_config, converted, report = read_omg_seg(unwrap(state_dict), config, companion)
    if report.unexpected:
        logger.warning("OMG-Seg conversion left keys that it does not know. %s", report)
    return omg_config, converted


def to_original_omg_seg(state_dict: Mapping[str, Tensor], config: OmgSegConfig) -> dict[str, Tensor]:
    """The inverse of :func:`convert_omg_seg`: weights of our model under the original's names.

    Stored class embeddings and the text tower have no place in the original's checkpoint and are left out (logged).

    Args:
        state_dict: Of ``OmgSegForUniversalSegmentation(config)``.
        config: Its configuration.

    Raises:
        UserError: the original has no such model: another backbone than CLIP ConvNeXt, or refinement parameters.
    """
    if not isinstance(config.backbone_config, ClipConvNextConfig):
        raise UserError("the original's format: expected a CLIP ConvNeXt backbone, got another; save as safetensors")
    if config.point_refinement:
        raise UserError("the original's format: expected point_refinement=False, got True; save as safetensors")
    restored = restore(state_dict, BACKBONE_RULES + HEAD_RULES)
    unknown = [key for key in restored.unmatched if key not in _BUFFERS and not key.startswith("text_model.")]
    if unknown:
        raise UserError(f"the original's format: expected names of OmgSegForUniversalSegmentation, got {unknown[0]}")
    if restored.unmatched:
        logger.info(
            "left out of the original's format: %d tensors of vocabulary and text tower", len(restored.unmatched)
        )
    return restored.state
