"""A very small model in the form of SmolLM2's GGUF file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor

HIDDEN, FFN, HEADS, KV_HEADS, LAYERS = 64, 96, 2, 1, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
WORDS = ("Ġdog", "Ġcat", "Ġthe", "Ġsegment", "Ġimage", "ing", "Ġred")


def vocabulary() -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces and merges: all bytes, and the words from left to right."""
    pieces = [*SPECIAL, *sorted(ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        for end in range(2, len(word) + 1):
            if word[:end] not in pieces:
                pieces.append(word[:end])
                merges.append((word[: end - 1], word[end - 1]))
    return pieces, merges


def sides_by_sides(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp has those of queries and keys: what turns together lies together."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path) -> dict[str, Tensor]:
    """Writes the file; returns its matrices in Llama's order, as they are before they are made into blocks."""
    gguf = pytest.importorskip("gguf")
    pieces, merges = vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(8192)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(100000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(pieces)
    writer.add_token_merges([" ".join(pair) for pair in merges])
    generator = np.random.default_rng(0)
    matrices: dict[str, Tensor] = {}

    def add(name: str, theirs: str, rows: int, columns: int, kind: str, heads: int | None = None) -> None:
        weight = generator.normal(size=(rows, columns)).astype(np.float32) / columns**0.5
        matrices[name] = torch.from_numpy(weight)
        stored = weight if heads is None else sides_by_sides(weight, heads)
        quantised = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(theirs, gguf.quants.quantize(stored, quantised), raw_dtype=quantised)

    add("embed_tokens.weight", "token_embd.weight", len(pieces), HIDDEN, "Q8_0")
    writer.add_tensor("output_norm.weight", np.ones(HIDDEN, dtype=np.float32))
    width = HIDDEN // HEADS * KV_HEADS
    for layer in range(LAYERS):
        front, block = f"layers.{layer}.", f"blk.{layer}."
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}{name}.weight", np.ones(HIDDEN, dtype=np.float32))
        add(f"{front}self_attn.q_proj.weight", f"{block}attn_q.weight", HIDDEN, HIDDEN, "Q4_1", HEADS)
        add(f"{front}self_attn.k_proj.weight", f"{block}attn_k.weight", width, HIDDEN, "Q4_1", KV_HEADS)
        add(f"{front}self_attn.v_proj.weight", f"{block}attn_v.weight", width, HIDDEN, "Q4_1")
        add(f"{front}self_attn.o_proj.weight", f"{block}attn_output.weight", HIDDEN, HIDDEN, "Q4_1")
        add(f"{front}mlp.gate_proj.weight", f"{block}ffn_gate.weight", FFN, HIDDEN, "Q4_1")
        add(f"{front}mlp.up_proj.weight", f"{block}ffn_up.weight", FFN, HIDDEN, "Q4_1")
        add(f"{front}mlp.down_proj.weight", f"{block}ffn_down.weight", HIDDEN, FFN, "Q4_1")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return matrices
