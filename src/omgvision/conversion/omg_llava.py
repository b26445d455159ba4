"""The original OMG-LLaVA checkpoints: a segmenter, class embeddings, a language model, and what was trained on top.

Source of names and sizes: the state dicts of the original's ``OMG_LLaVA`` (github.com/lxtGH/OMG-Seg at 1ae2e7d,
folder omg_llava). Of the language model it saves embedding, head and LoRA; of the segmenter nothing but, for the
task-specific files, the copy of the mask decoder.
"""

import logging
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig

from ..errors import UserError
from ..models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from ..models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from .internlm2 import CHAT_7B, LINEAR_NAMES, PACKED, UNPACKED, merge_lora, read_internlm2, split_wqkv
from .omg_seg import HEAD_RULES, read_omg_seg
from .reading import checked_fields, shape, unwrap
from .renaming import rename, rule
from .report import ConversionReport

logger = logging.getLogger(__name__)

LORA_SCALE = 0.5
"""alpha / r of the original (256 / 512); no weight tells it."""

_KIND = "an OMG-LLaVA checkpoint"
_LLM = re.compile(r"llm\.(?:base_model\.model\.)?(?P<module>.+?)(?:\.base_layer)?\.(?P<kind>weight|bias)")
_LORA = re.compile(r"llm\.base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])\.default\.weight")
_OWN_DECODER = re.compile(r"visual_encoder\.panoptic_head\.(transformer_decoder|mask_embed)_llm\.")

_RULES = (
    rule("projector.model.query_proj.*", "model.projector.query_proj.*"),
    rule("projector.model.model.{}.*", "model.projector.query_mlp.{}.*"),
    rule("projector.model.model_feat.{}.*", "model.projector.pixel_mlp.{}.*"),
    rule("projector.model.seperate_embed.weight", "model.projector.separator"),
    rule("projector_text2vision.model.{}.*", "model.text_to_vision.{}.*"),
)


@dataclass
class _Finetuned:
    """A trained checkpoint, sorted: names of the language model are InternLM2's own."""

    llm: dict[str, Tensor] = field(default_factory=dict)
    lora: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    decoder: dict[str, Tensor] = field(default_factory=dict)
    others: dict[str, Tensor] = field(default_factory=dict)
    report: ConversionReport = field(default_factory=ConversionReport)


def _sort(state: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> _Finetuned:
    sorted_ = _Finetuned()
    for key, tensor in state.items():
        if match := _LORA.fullmatch(key):
            sorted_.lora.setdefault(match["module"], {})[match["factor"]] = tensor
        elif (match := _LLM.fullmatch(key)) and f"{match['module']}.{match['kind']}" in base:
            sorted_.llm[f"{match['module']}.{match['kind']}"] = tensor
        elif _OWN_DECODER.match(key):
            sorted_.decoder[_OWN_DECODER.sub(r"panoptic_head.\1.", key)] = tensor
        else:
            sorted_.others[key] = tensor
            continue
        sorted_.report.matched.append(key)
    for module, factors in sorted_.lora.items():
        if set(factors) != {"A", "B"}:
            raise UserError(f"{module}: expected lora_A and lora_B, got {', '.join(sorted(factors))} alone")
    return sorted_


def _adapters(
    lora: Mapping[str, Mapping[str, Tensor]], text: LlamaConfig
) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """A and B under our names; second, the modules that we do not have."""
    found: dict[str, tuple[Tensor, Tensor]] = {}
    unknown = []
    for module, factors in lora.items():
        lora_a, lora_b = factors["A"], factors["B"]
        match = re.fullmatch(r"model\.(layers\.\d+)\.(.+)", module)
        if module == "output":
            found["lm_head"] = (lora_a, lora_b)
        elif match is not None and match[2] == PACKED:
            heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
            assert kv_heads is not None
            parts = split_wqkv(lora_b, heads=heads, kv_heads=kv_heads)
            for name, part in zip(UNPACKED, parts, strict=True):
                found[f"model.language_model.{match[1]}.{name}"] = (lora_a, part)
        elif match is not None and match[2] in LINEAR_NAMES:
            found[f"model.language_model.{match[1]}.{LINEAR_NAMES[match[2]]}"] = (lora_a, lora_b)
        else:
            unknown.append(module)
    return found, unknown


def _vision(
    encoder: Mapping[str, Tensor], class_embeddings: Tensor, overrides: Mapping[str, Any] | None
) -> tuple[OmgSegConfig, dict[str, Tensor], ConversionReport]:
    """The segmenter with its classes, under the names of ``OmgSegForUniversalSegmentation``."""
    own = {key: tensor for key, tensor in encoder.items() if key.startswith(("panoptic_head.", "backbone."))}
    towers = {key: tensor for key, tensor in encoder.items() if key not in own and key.startswith("visual.")}
    config, state, report = read_omg_seg(own, overrides, towers or None)
    rest = [key for key in encoder if key not in own and key not in towers]
    report.ignored |= dict.fromkeys(rest, "OMG-LLaVA needs no text tower: its classes are embedded")
    if class_embeddings.dim() != 3 or class_embeddings.shape[2] != config.embedding_dim:
        raise UserError(
            f"class embeddings: expected a tensor [classes, prototypes, {config.embedding_dim}], "
            f"got the shape {list(class_embeddings.shape)}"
        )
    classes, prototypes, _ = class_embeddings.shape
    config.num_classes, config.num_prototypes = classes, prototypes
    config.id2label = {index: f"class {index}" for index in range(classes)}
    config.label2id = {name: index for index, name in config.id2label.items()}
    flags = torch.ones(classes, dtype=torch.bool)
    state |= {"class_embeddings": class_embeddings, "thing_mask": flags, "seen_mask": flags.clone()}
    return config, state, report


def read_omg_llava(
    finetuned: Mapping[str, Tensor],
    encoder: Mapping[str, Tensor],
    llm: Mapping[str, Tensor],
    class_embeddings: Tensor,
    config: Mapping[str, Any] | None = None,
    *,
    merge: bool = False,
) -> tuple[OmgLlavaConfig, dict[str, Tensor], ConversionReport]:
    """As :func:`convert_omg_llava` on unwrapped dicts, with the report. Shapes alone (meta tensors) are enough."""
    overrides = dict(config or {})
    text_overrides = overrides.pop("text_config", None) or CHAT_7B
    vision, vision_state, report = _vision(encoder, class_embeddings, overrides.pop("vision_config", None))
    base_rows, _ = shape(llm, "model.tok_embeddings.weight", kind="an InternLM2 checkpoint", ndim=2)
    trained = _sort(finetuned, llm)
    text, text_state, text_report = read_internlm2({**llm, **trained.llm}, text_overrides)
    renamed = rename(trained.others, _RULES)
    adapters, unknown = _adapters(trained.lora, text)
    report = report.merge(text_report).merge(trained.report)
    report = report.merge(ConversionReport(matched=renamed.matched, unexpected=renamed.unmatched))
    for module in unknown:
        keys = [f"llm.base_model.model.{module}.lora_{factor}.default.weight" for factor in "AB"]
        report.matched = [key for key in report.matched if key not in keys]
        report.unexpected += keys

    converted = {f"model.vision_tower.{key}": tensor for key, tensor in vision_state.items()}
    for key, tensor in text_state.items():
        converted[key.replace("model.", "model.language_model.", 1) if key.startswith("model.") else key] = tensor
    converted |= renamed.state
    if trained.decoder:
        decoder = rename(trained.decoder, HEAD_RULES)
        converted |= decoder.state
        converted["model.mask_decoder.level_embed"] = vision_state["model.mask_decoder.level_embed"].clone()
        report.unexpected += decoder.unmatched
    for module, (lora_a, lora_b) in adapters.items():
        if merge:
            name = f"{module}.weight"
            converted[name] = merge_lora(converted[name], lora_a, lora_b, scale=LORA_SCALE)
        else:
            converted |= {f"{module}.lora_A.weight": lora_a, f"{module}.lora_B.weight": lora_b}

    found: dict[str, Any] = {
        "pixel_shuffle": _pixel_shuffle(finetuned, vision),
        "own_mask_decoder": bool(trained.decoder),
        "segment_token_id": base_rows,
        "region_token_id": base_rows + 3,
        "mark_token_id": base_rows + 4,
        "image_token_id": base_rows + 5,
    }
    fields = found | checked_fields(overrides, OmgLlavaConfig, found)
    return OmgLlavaConfig(vision_config=vision, text_config=text, **fields), converted, report


def _pixel_shuffle(finetuned: Mapping[str, Tensor], vision: OmgSegConfig) -> int:
    """Side of the blocks that make a token, from the width of the pixels' projection."""
    _, inputs = shape(finetuned, "projector.model.model_feat.0.weight", kind=_KIND, ndim=2)
    assert isinstance(vision.backbone_config, ClipConvNextConfig)
    channels = vision.backbone_config.hidden_sizes[-1]
    block = math.isqrt(max(inputs - 2 * vision.hidden_size, 0) // channels)
    if block < 1 or block * block * channels + 2 * vision.hidden_size != inputs:
        raise UserError(
            f"projector: expected {channels} channels a pixel and {2 * vision.hidden_size} of the objects, "
            f"got {inputs} inputs; give the segmenter that it was trained with"
        )
    return block


def convert_omg_llava(
    finetuned: Mapping[str, Any],
    encoder: Mapping[str, Any],
    llm: Mapping[str, Any],
    class_embeddings: Tensor,
    config: Mapping[str, Any] | None = None,
    merge_lora: bool = False,
) -> tuple[OmgLlavaConfig, dict[str, Tensor]]:
    """The original's checkpoints as weights of ``OmgLlavaForConditionalGeneration``.

    Args:
        finetuned: One of the trained files (pretrain, finetune, refseg, gcg), flat or under "state_dict".
        encoder: The OMG-Seg file, together with the OpenCLIP file where it has no ``backbone.*`` (the published one).
        llm: The base InternLM2 checkpoint.
        class_embeddings: [classes, prototypes, width] unit norm.
        config: Fields of OmgLlavaConfig that no shape tells; ``text_config`` as the language model's config.json,
            ``vision_config`` as the fields of OmgSegConfig to change. None = the published values.
        merge_lora: Add the adapters to the weights that they adapt. Otherwise they are returned beside them, under
            peft's names for an adapter file (``….lora_A.weight``), with alpha half of their rank.

    Returns:
        The configuration and the weights, which load strictly once adapters are merged or taken out
        (:func:`split_adapter`).

    Raises:
        UserError: another kind of checkpoint, or parts that do not fit each other.
    """
    llava, converted, report = read_omg_llava(
        unwrap(finetuned), unwrap(encoder), unwrap(llm), class_embeddings, config, merge=merge_lora
    )
    if report.unexpected:
        logger.warning("OMG-LLaVA conversion left keys that it does not know. %s", report)
    return llava, converted


def split_adapter(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the model, and those of its adapter."""
    adapter = {key: tensor for key, tensor in state.items() if ".lora_" in key}
    return {key: tensor for key, tensor in state.items() if key not in adapter}, adapter


__all__ = ["LORA_SCALE", "convert_omg_llava", "read_omg_llava", "split_adapter"]
