"""SmolLM2-135M-Instruct from a GGUF file: matrices as the blocks that they were published in, and fewer words.

SmolLM2 (Allal et al., 2025; Apache-2.0) is a Llama. llama.cpp keeps the rows of queries and keys in another order: the
two halves of a head that turn together lie side by side there. Rows are moved whole, so that blocks stay as they are.

Letters: N rows, K columns of a matrix.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerFast

from ..errors import UserError
from ..models.omg_llava.packing_omg_llava import BYTES, Q4_1, Q8_0, unpack_state

EMBEDDING = "embed_tokens.weight"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Of SmolLM2's special tokens those that a conversation needs."""

_ENDINGS = {"F32": "", "Q4_1": Q4_1, "Q8_0": Q8_0}
_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class SmolLm2:
    """What a GGUF file holds.

    Attributes:
        config: in transformers' words, with the vocabulary of `tokenizer`.
        packed: `LlamaModel`'s names with the endings of packed files → blocks, or float32 vectors.
        tokenizer: as the file has it, or a smaller one.
    """

    config: LlamaConfig
    packed: Mapping[str, Tensor]
    tokenizer: PreTrainedTokenizerFast

    def state(self) -> dict[str, Tensor]:
        """For `LlamaModel(config).load_state_dict`, in float32."""
        return unpack_state(self.packed)

    def with_words(self, words: Iterable[str], *, merges: int) -> "SmolLm2":
        """With a part of the vocabulary: the most frequent pieces, and all that these words need.

        A word that is left without a piece of its own is read in shorter ones, which the model knows too.

        Args:
            words: As they stand in texts, with the space before them where there is one.
            merges: How many of the most frequent merges of two pieces to keep.
        """
        backend = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        needed = {piece for word in words for piece in backend.encode(word).tokens}
        table = _table(backend)
        pairs = [tuple(pair) for pair in table["merges"]]
        made = {first + second: (first, second) for first, second in reversed(pairs)}
        kept = {first + second for first, second in pairs[:merges]}
        kept |= {piece for piece in table["vocab"] if piece not in made and not piece.startswith("<")} | {"<"}
        waiting = [*needed, *kept]
        while waiting:
            piece = waiting.pop()
            kept.add(piece)
            waiting += [part for part in made.get(piece, ()) if part not in kept]
        pieces = [*SPECIAL, *(piece for piece in table["vocab"] if piece in kept and piece not in SPECIAL)]
        merged = [pair for pair in pairs if {*pair, "".join(pair)} <= kept]
        rows = torch.tensor([table["vocab"][piece] for piece in pieces])
        packed = {name: tensor[rows] if EMBEDDING in name else tensor for name, tensor in self.packed.items()}
        config = LlamaConfig.from_dict({**self.config.to_dict(), **_ids(pieces), "vocab_size": len(pieces)})
        return SmolLm2(config, packed, _tokenizer(pieces, merged))


def read_smollm2(path: str | Path) -> SmolLm2:
    """Reads a GGUF file.

    Raises:
        UserError: No such file, one of another architecture or with other kinds of blocks, or the package gguf is
            missing.
    """
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError("gguf: expected this package, which is not installed; pip install gguf") from error
    try:
        reader = GGUFReader(path)
        fields: dict[str, Any] = {name: field.contents() for name, field in reader.fields.items()}
        if fields["general.architecture"] != "llama" or fields["tokenizer.ggml.pre"] != "smollm":
            raise ValueError(f"it is a {fields['general.architecture']} with another tokenizer")
        config = _config(fields)
        packed: dict[str, Tensor] = {}
        for tensor in reader.tensors:
            name, ending = _name(tensor.name), _ENDINGS[tensor.tensor_type.name]
            blocks = torch.from_numpy(tensor.data.copy())
            if ending:
                blocks = blocks.unflatten(1, (-1, BYTES[ending]))
            heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
            packed[name + ending] = _halves_apart(blocks, heads.get(name.split(".")[-2]))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: expected a GGUF file of SmolLM2 in Q4_1, got: {error}") from error
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    return SmolLm2(config, packed, _tokenizer(fields["tokenizer.ggml.tokens"], merges))


def _config(fields: Mapping[str, Any]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(fields["tokenizer.ggml.tokens"]),
        hidden_size=fields["llama.embedding_length"],
        intermediate_size=fields["llama.feed_forward_length"],
        num_hidden_layers=fields["llama.block_count"],
        num_attention_heads=fields["llama.attention.head_count"],
        num_key_value_heads=fields["llama.attention.head_count_kv"],
        rms_norm_eps=fields["llama.attention.layer_norm_rms_epsilon"],
        max_position_embeddings=fields["llama.context_length"],
        rope_parameters={"rope_type": "default", "rope_theta": fields["llama.rope.freq_base"]},
        tie_word_embeddings=True,
        **_ids(fields["tokenizer.ggml.tokens"]),
    )


def _ids(pieces: Sequence[str]) -> dict[str, Any]:
    end_of_text, _, end_of_turn = (pieces.index(token) for token in SPECIAL)
    return {"bos_token_id": end_of_text, "eos_token_id": end_of_turn, "pad_token_id": end_of_text}


def _name(name: str) -> str:
    """llama.cpp's name → `LlamaModel`'s."""
    top = {"token_embd.weight": EMBEDDING, "output_norm.weight": "norm.weight"}
    if name in top:
        return top[name]
    _, layer, part, ending = name.split(".")
    return f"layers.{layer}.{_LAYER[part]}.{ending}"


def _halves_apart(rows: Tensor, heads: int | None) -> Tensor:
    """[N, …] of queries or keys: pairs that turn together → first all first halves of a head, then all second ones."""
    if heads is None:
        return rows
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2).contiguous()


def _table(backend: Tokenizer) -> dict[str, Any]:
    """Pieces with their ids in order, and merges."""
    table = json.loads(backend.to_str())["model"]
    return {**table, "vocab": dict(sorted(table["vocab"].items(), key=lambda item: item[1]))}


def _tokenizer(pieces: Sequence[str], merges: Sequence[tuple[str, ...]]) -> PreTrainedTokenizerFast:
    """Byte pairs in which each digit stands alone. Conversations begin without a token of their own."""
    pairs = [(first, second) for first, second in merges]
    backend = Tokenizer(models.BPE({piece: number for number, piece in enumerate(pieces)}, pairs))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
    )


__all__ = ["EMBEDDING", "SmolLm2", "read_smollm2"]
