"""InternLM2 checkpoints in Llama's layout, which computes the same.

Source of names and of the packing: InternLM2's public modelling code. The rows of ``wqkv`` are, for each group of
queries that share a key and a value: the queries, the key, the value.
"""

import logging
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import LlamaConfig

from ..errors import UserError
from .reading import count, shape, unwrap
from .renaming import rename, rule
from .report import ConversionReport

logger = logging.getLogger(__name__)

_KIND = "an InternLM2 checkpoint"
_LAYER = "model.layers.{}"
PACKED = "attention.wqkv"
UNPACKED = tuple(f"self_attn.{name}_proj" for name in "qkv")
LINEAR_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
}
"""Linear layers of a block, InternLM2's and Llama's names."""

CHAT_7B: Mapping[str, Any] = {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "max_position_embeddings": 32768,
}
"""What the config.json of internlm2-chat-7b says that no shape tells."""

_RULES = (
    rule("model.tok_embeddings.weight", "model.embed_tokens.weight"),
    rule("model.norm.weight", "model.norm.weight"),
    rule("output.weight", "lm_head.weight"),
    rule(f"{_LAYER}.attention_norm.weight", f"{_LAYER}.input_layernorm.weight"),
    rule(f"{_LAYER}.ffn_norm.weight", f"{_LAYER}.post_attention_layernorm.weight"),
    *(rule(f"{_LAYER}.{source}.*", f"{_LAYER}.{target}.*") for source, target in LINEAR_NAMES.items()),
)


def split_wqkv(rows: Tensor, *, heads: int, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Packed rows [(heads + 2·kv_heads)·d, …] → those of queries, keys and values. Of a LoRA the rows of B are split.

    Raises:
        UserError: rows that do not divide into so many heads.
    """
    if heads % kv_heads or len(rows) % (heads + 2 * kv_heads):
        raise UserError(
            f"wqkv: expected rows for {heads} heads over {kv_heads} keys and values, got {len(rows)}; "
            "give the config.json of this language model"
        )
    grouped = rows.unflatten(0, (kv_heads, heads // kv_heads + 2, -1))
    parts = grouped[:, :-2], grouped[:, -2:-1], grouped[:, -1:]
    return parts[0].flatten(0, 2), parts[1].flatten(0, 2), parts[2].flatten(0, 2)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    scaling = dict(config.get("rope_scaling") or {})
    kind = scaling.pop("type", scaling.pop("rope_type", "default"))
    return {"rope_type": kind, "rope_theta": float(config.get("rope_theta", 10000)), **scaling}


def read_internlm2(
    state: Mapping[str, Tensor], config: Mapping[str, Any]
) -> tuple[LlamaConfig, dict[str, Tensor], ConversionReport]:
    """As :func:`convert_internlm2` on an unwrapped dict, with the report."""
    vocabulary, width = shape(state, "model.tok_embeddings.weight", kind=_KIND, ndim=2)
    ffn, _ = shape(state, "model.layers.0.feed_forward.w1.weight", kind=_KIND, ndim=2)
    if "num_attention_heads" not in config:
        raise UserError(
            "language model: expected num_attention_heads in its configuration, got none; give its config.json"
        )
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    packed = {key: tensor for key, tensor in state.items() if f".{PACKED}." in key}
    renamed = rename({key: tensor for key, tensor in state.items() if key not in packed}, _RULES)
    converted = dict(renamed.state)
    for key, tensor in packed.items():
        for target, part in zip(UNPACKED, split_wqkv(tensor, heads=heads, kv_heads=kv_heads), strict=True):
            converted[key.replace(PACKED, target)] = part
    llama = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=ffn,
        num_hidden_layers=count(state, "model.layers."),
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        attention_bias=any(key.endswith(".bias") for key in packed),
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        max_position_embeddings=int(config.get("max_position_embeddings", 2048)),
        rope_parameters=_rope(config),
        hidden_act=config.get("hidden_act", "silu"),
        initializer_range=float(config.get("initializer_range", 0.02)),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        bos_token_id=config.get("bos_token_id", 1),
        eos_token_id=config.get("eos_token_id", 2),
        pad_token_id=config.get("pad_token_id", 2),
    )
    report = ConversionReport(matched=[*renamed.matched, *packed], unexpected=renamed.unmatched)
    return llama, converted, report


def convert_internlm2(
    state_dict: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[LlamaConfig, dict[str, Tensor]]:
    """An InternLM2 checkpoint, for ``LlamaForCausalLM(config).load_state_dict``.

    Args:
        state_dict: The original's names, flat or under "state_dict".
        config: Its config.json; the number of heads and the rotary base are in no shape.

    Returns:
        The configuration and the weights, which load strictly.

    Raises:
        UserError: another kind of checkpoint, or heads that do not fit it.
    """
    llama, converted, report = read_internlm2(unwrap(state_dict), config)
    if report.unexpected:
        logger.warning("InternLM2 conversion left keys that it does not know. %s", report)
    return llama, converted


def merge_lora(weight: Tensor, lora_a: Tensor, lora_b: Tensor, *, scale: float) -> Tensor:
    """W + scale · B A, computed in float32 and returned in the weight's type."""
    return (weight.float() + scale * (lora_b.float() @ lora_a.float())).to(weight.dtype)


__all__ = ["CHAT_7B", "convert_internlm2", "merge_lora", "read_internlm2", "split_wqkv"]
