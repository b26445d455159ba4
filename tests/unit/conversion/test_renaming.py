import pytest
import torch

from omgvision.conversion.renaming import rename, restore, rule

TABLE = (
    rule("head.layers.{}.attn.in_proj_*", *(f"decoder.{{}}.{part}_proj.*" for part in "qkv")),
    rule("head.layers.{}.ffn.*", "decoder.{}.fc.*"),
    rule("scale", "scale"),
    rule("projection", "projection.weight", transpose=True),
)


def state():
    generator = torch.Generator().manual_seed(0)
    return {
        "head.layers.0.attn.in_proj_weight": torch.randn(12, 4, generator=generator),
        "head.layers.0.attn.in_proj_bias": torch.randn(12, generator=generator),
        "head.layers.11.ffn.weight": torch.randn(4, 4, generator=generator),
        "scale": torch.tensor(2.0),
        "projection": torch.randn(4, 6, generator=generator),
    }


def test_packed_rows_are_split_in_order():
    source = state()
    converted = rename(source, TABLE).state
    packed = source["head.layers.0.attn.in_proj_weight"]
    assert torch.equal(converted["decoder.0.q_proj.weight"], packed[:4])
    assert torch.equal(converted["decoder.0.k_proj.weight"], packed[4:8])
    assert torch.equal(converted["decoder.0.v_proj.weight"], packed[8:])
    assert converted["decoder.0.v_proj.bias"].shape == (4,)
    assert torch.equal(converted["projection.weight"], source["projection"].T)
    assert "decoder.11.fc.weight" in converted


def test_round_trip_is_bit_for_bit():
    source = state()
    restored = restore(rename(source, TABLE).state, TABLE)
    assert restored.state.keys() == source.keys()
    assert restored.unmatched == []
    for key, tensor in source.items():
        assert torch.equal(restored.state[key], tensor), key


def test_unknown_keys_are_named_not_dropped():
    result = rename(state() | {"optimizer.step": torch.zeros(1), "head.layers.x.ffn.weight": torch.zeros(1)}, TABLE)
    assert result.unmatched == ["optimizer.step", "head.layers.x.ffn.weight"]
    assert len(result.matched) == 5


def test_half_of_a_packed_tensor_is_not_packed():
    converted = rename(state(), TABLE).state
    del converted["decoder.0.k_proj.bias"]
    restored = restore(converted, TABLE)
    assert "head.layers.0.attn.in_proj_bias" not in restored.state
    assert set(restored.unmatched) == {"decoder.0.q_proj.bias", "decoder.0.v_proj.bias"}


def test_rows_that_do_not_divide():
    with pytest.raises(ValueError, match=r"in_proj_bias: expected 3 equal groups of rows, got the shape \[10\]"):
        rename({"head.layers.0.attn.in_proj_bias": torch.zeros(10)}, TABLE)
