"""Packed weights: blocks mean what llama.cpp says they do, and a packed folder loads as any other."""

import pytest
import torch
from safetensors.torch import save_file

from omgvision import OmgLlavaForConditionalGeneration, OmgLlavaModel
from omgvision.models.omg_llava.packing_omg_llava import (
    DOWN,
    PACKED_FILE,
    Q4_1,
    Q8_0,
    UP,
    pack_q8_0,
    unpack_q4_1,
    unpack_q8_0,
    unpack_state,
)
from tests.golden_llava import random_llava


def test_a_block_of_four_bits_by_hand():
    step_and_least = torch.tensor([0.5, -3.0], dtype=torch.float16).view(torch.uint8)
    numbers = torch.arange(16, dtype=torch.uint8)
    block = torch.cat((step_and_least, numbers | (15 - numbers) << 4))[None, None]
    expected = torch.cat((numbers, 15 - numbers)).float() * 0.5 - 3.0
    assert torch.equal(unpack_q4_1(block)[0], expected)


def test_blocks_are_those_of_llama_cpp():
    gguf = pytest.importorskip("gguf")
    matrix = torch.randn(6, 96, generator=torch.Generator().manual_seed(0)).numpy()
    for kind, unpack, size in (
        (gguf.GGMLQuantizationType.Q4_1, unpack_q4_1, 20),
        (gguf.GGMLQuantizationType.Q8_0, unpack_q8_0, 34),
    ):
        blocks = gguf.quants.quantize(matrix, kind)
        found = unpack(torch.from_numpy(blocks).unflatten(1, (-1, size)))
        torch.testing.assert_close(found, torch.from_numpy(gguf.quants.dequantize(blocks, kind)), atol=1e-6, rtol=0)


def test_eight_bits_lose_little_and_then_nothing():
    matrix = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    matrix[0] = 0
    once = unpack_q8_0(pack_q8_0(matrix))
    assert (once - matrix).abs().max() < matrix.abs().max() / 200
    assert torch.equal(once[0], torch.zeros(64))
    torch.testing.assert_close(unpack_q8_0(pack_q8_0(once)), once, atol=1e-3, rtol=0)


def test_what_was_learned_is_added():
    base, down, up = torch.randn(4, 32), torch.randn(2, 32), torch.randn(4, 2)
    packed = {f"a{Q8_0}": pack_q8_0(base), f"a{DOWN}": down, f"a{UP}": up, "b": torch.ones(3)}
    state = unpack_state(packed)
    assert set(state) == {"a", "b"}
    torch.testing.assert_close(state["a"], unpack_q8_0(pack_q8_0(base)) + up @ down)


@pytest.mark.parametrize(
    ("packed", "say"),
    [
        ({f"a{Q4_1}": torch.zeros(2, 1, 34, dtype=torch.uint8)}, "a.q4_1: expected blocks of 20 bytes"),
        ({f"a{DOWN}": torch.zeros(2, 32)}, "expected a and a.low_rank_up beside it"),
    ],
)
def test_what_does_not_fit(packed, say):
    with pytest.raises(ValueError, match=say):
        unpack_state(packed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model whose square matrices of the language model are packed."""
    model, path = random_llava(), tmp_path_factory.mktemp("packed")
    state = {}
    for name, tensor in model.state_dict().items():
        if "language_model.layers" in name and tensor.dim() == 2 and tensor.shape[1] % 32 == 0:
            state[name + Q8_0] = pack_q8_0(tensor)
        else:
            state[name] = tensor
    assert any(name.endswith(Q8_0) for name in state)
    save_file(state, path / PACKED_FILE)
    model.config.save_pretrained(path)
    model.generation_config.save_pretrained(path)
    return path


def test_a_packed_folder_loads_as_any_other(folder, tmp_path):
    model, info = OmgLlavaForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.tensor([[1, 5, 6, 9]])
    with torch.no_grad():
        found, exact = model(input_ids=ids).logits, random_llava()(input_ids=ids).logits
    torch.testing.assert_close(found, exact, atol=0.05, rtol=0.05)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file() and not (tmp_path / PACKED_FILE).exists()
    again = OmgLlavaForConditionalGeneration.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, found)


def test_half_precision_and_the_base_model(folder):
    half = OmgLlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.bfloat16)
    assert half.lm_head.weight.dtype == torch.bfloat16
    base = OmgLlavaModel.from_pretrained(folder)
    whole = OmgLlavaForConditionalGeneration.from_pretrained(folder)
    name = "language_model.layers.0.mlp.down_proj.weight"
    assert torch.equal(base.get_parameter(name), whole.model.get_parameter(name))
