"""Small weights on the disk: matrices in blocks of 32 numbers of 4 or 8 bits, and what was learned on top of them.

The blocks are llama.cpp's, which the language model was published in, so that keeping them loses nothing; what was
learned is the product of two thin matrices. All is unpacked once, when the weights are loaded, and from then on the
model is like any other.

Letters: N rows, K columns of a matrix, R rank of what was learned.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.utils.hub import cached_file

PACKED_FILE = "model.packed.safetensors"
"""Beside ``config.json``, instead of ``model.safetensors``."""

Q4_1, Q8_0 = ".q4_1", ".q8_0"
DOWN, UP = ".low_rank_down", ".low_rank_up"
"""Endings of names: blocks of a matrix [N, K / 32, bytes]; thin matrices [R, K] and [N, R], whose product is added."""

BLOCK = 32
BYTES = {Q4_1: 20, Q8_0: 34}


def unpack_q4_1(blocks: Tensor) -> Tensor:
    """Uint8 [N, K / 32, 20] → float32 [N, K].

    A block (ggml's ``block_q4_1``) is a step d and a least value m in half precision, then 16 bytes: numbers 0 to 15 in
    their lower halves, 16 to 31 in their upper ones. A value is d · number + m.
    """
    step, least = blocks[..., :4].contiguous().view(torch.float16).float().split(1, dim=-1)
    numbers = torch.cat((blocks[..., 4:] & 15, blocks[..., 4:] >> 4), dim=-1)
    return (step * numbers + least).flatten(1)


def unpack_q8_0(blocks: Tensor) -> Tensor:
    """Uint8 [N, K / 32, 34] → float32 [N, K].

    A block (ggml's ``block_q8_0``) is a step in half precision, then 32 signed bytes, which it is a factor of.
    """
    step = blocks[..., :2].contiguous().view(torch.float16).float()
    return (step * blocks[..., 2:].contiguous().view(torch.int8)).flatten(1)


def pack_q8_0(matrix: Tensor) -> Tensor:
    """Float [N, K] → uint8 [N, K / 32, 34]; the largest number of a block becomes 127."""
    rows = matrix.float().unflatten(1, (-1, BLOCK))
    step = (rows.abs().amax(-1, keepdim=True) / 127).half()
    safe = torch.where(step == 0, torch.ones_like(step), step).float()
    numbers = (rows / safe).round().clamp(-127, 127).to(torch.int8)
    return torch.cat((step.view(torch.uint8), numbers.view(torch.uint8)), dim=-1)


def find_packed(name: str | os.PathLike[str], options: Mapping[str, Any]) -> str | None:
    """The packed file of a folder or Hub repository; None if it has none.

    Args:
        options: Of `from_pretrained`; those that say where to look are heeded.
    """
    places = ("cache_dir", "revision", "token", "local_files_only", "subfolder")
    return cached_file(
        str(name),
        PACKED_FILE,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_connection_errors=False,
        **{place: options[place] for place in places if options.get(place) is not None},
    )


def unpack_state(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and tensors of a packed file → those of the model, in float32 where they were packed.

    Raises:
        ValueError: Blocks of another size, or thin matrices without the one that they are added to.
    """
    state = {name: tensor for name, tensor in packed.items() if not name.endswith((Q4_1, Q8_0, DOWN, UP))}
    for ending, unpack in ((Q4_1, unpack_q4_1), (Q8_0, unpack_q8_0)):
        for name, blocks in packed.items():
            if name.endswith(ending):
                if blocks.dtype != torch.uint8 or blocks.dim() != 3 or blocks.shape[-1] != BYTES[ending]:
                    raise ValueError(
                        f"{name}: expected blocks of {BYTES[ending]} bytes, got {blocks.dtype} {list(blocks.shape)}"
                    )
                state[name.removesuffix(ending)] = unpack(blocks)
    for name, down in packed.items():
        if name.endswith(DOWN):
            base, up = name.removesuffix(DOWN), packed.get(name.removesuffix(DOWN) + UP)
            if base not in state or up is None:
                raise ValueError(f"{name}: expected {base} and {base}{UP} beside it, got only one of the three")
            state[base] = state[base] + up.float() @ down.float()
    return state


__all__ = [
    "BYTES",
    "DOWN",
    "PACKED_FILE",
    "Q4_1",
    "Q8_0",
    "UP",
    "find_packed",
    "pack_q8_0",
    "unpack_q4_1",
    "unpack_q8_0",
    "unpack_state",
]
