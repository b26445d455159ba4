"""InternLM2 in Llama's layout computes what InternLM2 does, with and without adapters."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from omgvision import UserError
from omgvision.conversion import convert_internlm2
from omgvision.conversion.internlm2 import CHAT_7B, merge_lora, split_wqkv
from tests.closeness import assert_close, assert_features
from tests.golden_llava import golden_llava, load, read_json


@cache
def llama() -> LlamaForCausalLM:
    config, state = convert_internlm2(load("tiny/llm/model"), read_json("tiny/llm/config"))
    model = LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def test_forward():
    recorded = load("internlm2_parity")
    real = recorded["attention_mask"]
    attended: list[Tensor] = []
    hooks = [
        layer.get_submodule("self_attn").register_forward_hook(lambda *call: attended.append(call[2][0]))
        for layer in llama().model.layers
    ]
    with torch.no_grad():
        output = llama()(
            input_ids=recorded["input_ids"],
            attention_mask=real.long(),
            labels=recorded["labels"],
            output_hidden_states=True,
        )
    for hook in hooks:
        hook.remove()
    assert_features(output.logits[real], recorded["logits"][real])
    assert_close(output.loss, recorded["loss"][0], atol=1e-4)
    assert output.hidden_states is not None
    for layer, states in enumerate(output.hidden_states):
        assert_features(states[real], recorded[f"hidden_states.{layer}"][real])
    for layer, found in enumerate(attended):
        assert_features(found[real], recorded[f"attn_out.{layer}"][real])


def test_queries_keys_and_rotation():
    recorded = load("internlm2_parity")
    model: Any = llama().model
    attention = model.layers[0].self_attn
    with torch.no_grad():
        hidden = model.layers[0].input_layernorm(model.embed_tokens(recorded["input_ids"]))
        queries = attention.q_proj(hidden).unflatten(-1, (-1, 16)).transpose(1, 2)
        keys = attention.k_proj(hidden).unflatten(-1, (-1, 16)).transpose(1, 2)
        cos, sin = model.rotary_emb(hidden, torch.arange(hidden.shape[1])[None])
        turned_queries, turned_keys = apply_rotary_pos_emb(queries, keys, cos, sin)
    assert_features(queries, recorded["l0.q_pre"])
    assert_features(keys, recorded["l0.k_pre"])
    assert_features(cos[0], recorded["rope.cos"])
    assert_features(sin[0], recorded["rope.sin"])
    assert_features(turned_queries, recorded["l0.q_rope"])
    assert_features(turned_keys, recorded["l0.k_rope"])
    assert_close(model.rotary_emb.inv_freq, recorded["inv_freq"], atol=1e-8)


def test_layout_is_the_recorded_one():
    recorded = load("tiny/llm/llama_mapped")
    state = llama().state_dict()
    assert state.keys() == recorded.keys()
    assert all(torch.equal(state[key], recorded[key]) for key in recorded)


def test_adapters():
    recorded, trained = load("internlm2_parity"), load("tiny/omg_llava_finetune")
    prefix = "llm.base_model.model."

    def merged(base: Tensor, module: str) -> Tensor:
        factors = (trained[f"{prefix}{module}.lora_{factor}.default.weight"] for factor in "AB")
        return merge_lora(base, *factors, scale=0.5)

    packed = merged(load("tiny/llm/model")["model.layers.0.attention.wqkv.weight"], "model.layers.0.attention.wqkv")
    assert_features(packed, recorded["lora.merged.l0.wqkv"])
    assert_features(merged(trained[f"{prefix}output.base_layer.weight"], "output"), recorded["lora.merged.output"])

    model = golden_llava()
    attention = model.model.language_model.layers[0].self_attn
    parts = split_wqkv(recorded["lora.merged.l0.wqkv"], heads=4, kv_heads=2)
    for name, part in zip("qkv", parts, strict=True):
        assert_features(attention.get_submodule(f"{name}_proj").weight, part)
    real = recorded["attention_mask"]
    with torch.no_grad():
        output = model(input_ids=recorded["lora.input_ids"], attention_mask=real.long(), output_hidden_states=True)
    assert output.logits is not None and output.hidden_states is not None
    assert_features(output.logits[real], recorded["lora.logits"][real])
    assert_features(output.hidden_states[-1][real], recorded["lora.last_hidden"][real])


def test_full_size_key_list():
    keys = read_json("state_keys")["internlm2-chat-7b (base LLM)"]
    state = {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}
    config, converted = convert_internlm2(state, CHAT_7B)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    expected = model.state_dict()
    assert converted.keys() == expected.keys()
    assert {key: tensor.shape for key, tensor in converted.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }
    sizes = (config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.vocab_size)
    assert sizes == (4096, 14336, 32, 92544)


def test_heads_that_do_not_fit_are_refused():
    state = load("tiny/llm/model")
    with pytest.raises(UserError, match=r"config\.json"):
        convert_internlm2(state, {"num_attention_heads": 5, "num_key_value_heads": 2})
    with pytest.raises(UserError, match="num_attention_heads"):
        convert_internlm2(state, {})
    with pytest.raises(UserError, match="not an InternLM2 checkpoint"):
        convert_internlm2({"model.embed_tokens.weight": torch.empty(2, 2)}, CHAT_7B)
