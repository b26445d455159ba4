"""Every key of the original's checkpoints maps, and the converted towers compute what the originals compute."""

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from omgvision.conversion import (
    convert_omg_seg,
    convert_open_clip_text,
    convert_open_clip_vision,
    to_original_omg_seg,
)
from omgvision.conversion.omg_seg import read_omg_seg
from omgvision.conversion.open_clip import read_text_tower
from omgvision.models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from tests.golden import load, read_json


def on_meta(keys: dict) -> dict[str, Tensor]:
    return {key: torch.empty(value["shape"], device="meta") for key, value in keys.items()}


def model_on_meta(config: OmgSegConfig) -> OmgSegForUniversalSegmentation:
    with torch.device("meta"):
        return OmgSegForUniversalSegmentation(config)


def shapes(state: dict[str, Tensor]) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in state.items()}


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


FULL_SIZE = [("keys_convl", "mlp", 768, 1e-6), ("keys_convxxl", "linear", 1024, 1e-5)]


@pytest.mark.parametrize(("name", "clip_head", "embedding_dim", "eps"), FULL_SIZE)
def test_all_keys_of_a_full_size_checkpoint_map(name, clip_head, embedding_dim, eps):
    recorded = read_json(name)
    state = on_meta(recorded["keys"])
    config, converted, report = read_omg_seg(state)
    assert len(report.matched) == len(state) == recorded["num_keys"]
    assert (report.missing, report.unexpected, report.ignored) == ([], [], {})

    model = model_on_meta(config)
    assert shapes(converted) == shapes(model.state_dict())  # 0 missing, 0 unexpected, shapes equal
    model.load_state_dict(converted, assign=True)

    assert (config.clip_head, config.embedding_dim) == (clip_head, embedding_dim)
    assert isinstance(config.backbone_config, ClipConvNextConfig)
    assert config.backbone_config.layer_norm_eps == eps
    published = OmgSegConfig()
    sized = {"backbone_config", "clip_head", "embedding_dim"}
    ours, theirs = config.to_dict(), published.to_dict()
    assert {key: ours[key] for key in theirs if key not in sized} == {
        key: value for key, value in theirs.items() if key not in sized
    }

    restored = to_original_omg_seg(converted, config)
    assert shapes(restored) == shapes(state)


@pytest.mark.parametrize("name", ["keys_convl", "keys_convxxl"])
def test_parameter_counts_are_the_originals(name):
    counts = read_json(name)["param_counts"]
    config, _ = convert_omg_seg(on_meta(read_json(name)["keys"]))
    model = model_on_meta(config)
    assert parameters(model) == counts["total"]
    assert model.clip_head is not None
    assert parameters(model.model.backbone) + parameters(model.clip_head) == counts["backbone_frozen"]
    assert sum(each.numel() for each in model.parameters() if each.requires_grad) == counts["trainable"]
    if name == "keys_convl":
        assert parameters(model.model.pixel_decoder) == counts["pixel_decoder"] == 5_790_144
        assert (
            parameters(model.model.mask_decoder.layers) + parameters(model.model.mask_decoder.post_norm) == 14_209_280
        )


def test_checkpoint_without_box_queries():
    recorded = read_json("keys_convl")
    keys = {k: v for k, v in recorded["keys"].items() if k not in recorded["keys_absent_when_enable_box_query_false"]}
    config, converted = convert_omg_seg(on_meta(keys))
    assert config.prompt_queries is False
    model = model_on_meta(config)
    assert shapes(converted) == shapes(model.state_dict())
    assert parameters(model) == recorded["param_counts"]["total"] - 132_096
    assert to_original_omg_seg(converted, config).keys() == keys.keys()


def test_published_checkpoint_takes_backbone_and_text_tower_from_open_clip():
    keys = {k: v for k, v in read_json("keys_convl")["keys"].items() if not k.startswith("backbone.")}
    open_clip = on_meta(read_json("keys_text_convl")["raw_open_clip_CLIP_model"]["keys"])
    config, converted, report = read_omg_seg(on_meta(keys), None, open_clip)
    model = model_on_meta(config)
    assert shapes(converted) == shapes(model.state_dict())
    assert len(report.matched) + len(report.ignored) == len(keys) + len(open_clip)
    assert report.unexpected == []
    assert list(report.ignored) == ["logit_scale"]
    assert model.text_model is not None
    assert parameters(model) == 220_781_185 + parameters(model.text_model)


def test_tiny_checkpoint_round_trips_bit_for_bit():
    state = load("tiny_state")
    config, converted = convert_omg_seg({"state_dict": state, "meta": {"epoch": 12}})
    model = OmgSegForUniversalSegmentation(config)
    model.load_state_dict(converted, strict=True)
    restored = to_original_omg_seg(model.state_dict(), config)
    assert restored.keys() == state.keys()
    for key, tensor in state.items():
        assert torch.equal(restored[key], tensor), key


def test_sizes_of_the_tiny_checkpoint():
    truth = read_json("tiny_config")
    config, _ = convert_omg_seg(load("tiny_state"))
    backbone = config.backbone_config
    assert isinstance(backbone, ClipConvNextConfig)
    assert [list(backbone.hidden_sizes), list(backbone.depths)] == [truth["dims"], truth["depths"]]
    assert backbone.layer_norm_eps == truth["layernorm_eps_backbone"]
    assert config.hidden_size == truth["feat_channels"]
    assert config.num_queries == truth["num_queries"]
    assert config.num_attention_heads == truth["num_heads"]
    assert config.num_sampling_points == truth["num_points"]
    assert config.num_feature_levels == truth["num_feature_levels"]
    assert config.group_norm_groups == truth["group_norm_groups"]
    assert (config.encoder_layers, config.encoder_ffn_dim) == (
        truth["pixel_decoder_layers"],
        truth["pixel_decoder_ffn"],
    )
    assert (config.decoder_layers, config.decoder_ffn_dim) == (truth["decoder_layers"], truth["decoder_ffn"])
    assert (config.embedding_dim, config.logit_scale) == (truth["text_dim"], truth["logit_scale"])


# --- text tower ---------------------------------------------------------------------------------------------------


def tiny_text_state() -> dict[str, Tensor]:
    """The recorded text tower with its whole token table, of which only the used rows are stored."""
    state = load("tiny_text_state")
    ids, rows = state.pop("text_token_embedding.used_ids"), state.pop("text_token_embedding.used_rows")
    table = torch.zeros(read_json("tiny_text")["vocab_size"], rows.shape[1])
    table[ids] = rows
    return state | {"text_token_embedding.weight": table}


def as_open_clip(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The same weights under OpenCLIP's own names."""
    names = {"text_pe": "positional_embedding", "text_proj": "text_projection"}
    renamed = {
        names.get(key, key.removeprefix("text_")): value for key, value in state.items() if key != "text_attn_mask"
    }
    return {prefix + key: value for key, value in renamed.items()}


@pytest.mark.parametrize("layout", ["original text class", "OpenCLIP", "OpenCLIP CustomTextCLIP"])
def test_text_tower_computes_the_recorded_features(layout):
    state = tiny_text_state()
    if layout != "original text class":
        state = as_open_clip(state, "text." if "Custom" in layout else "")
        state |= {"logit_scale": torch.tensor(4.6), "visual.trunk.stem.0.bias": torch.zeros(3)}
    config, converted, report = read_text_tower(state, {"num_attention_heads": 2})
    assert report.unexpected == []
    assert list(report.ignored) == (["text_attn_mask"] if layout == "original text class" else ["logit_scale"])
    model = CLIPTextModelWithProjection(config).eval()
    model.load_state_dict(converted, strict=True)
    recorded = load("tiny_io_text")
    for tokens, features in (("tokens", "features"), ("extra_tokens", "extra_features")):
        with torch.no_grad():
            computed = model(input_ids=recorded[tokens].long()).text_embeds
        torch.testing.assert_close(computed, recorded[features], atol=1e-4, rtol=0)


@pytest.mark.parametrize("layout", ["original text class", "OpenCLIP"])
def test_full_size_text_tower(layout):
    recorded = read_json("keys_text_convl")
    raw = recorded["raw_open_clip_CLIP_model"]["keys"]
    config, converted = convert_open_clip_text(on_meta(raw if layout == "OpenCLIP" else recorded["keys"]))
    with torch.device("meta"):
        model = CLIPTextModelWithProjection(config)
    assert shapes(converted) == shapes(model.state_dict())
    assert (config.num_attention_heads, config.hidden_act, config.layer_norm_eps) == (12, "gelu", 1e-5)
    assert (config.eos_token_id, config.num_hidden_layers, config.projection_dim) == (49407, 16, 768)
    assert parameters(model) == recorded["num_params"]


# --- image tower --------------------------------------------------------------------------------------------------


def open_clip_vision(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone of an OMG-Seg checkpoint under OpenCLIP's names."""
    names = [("backbone.head.0.", "visual.trunk.head."), ("backbone.head.1.", "visual.head.")]
    names += [(f"backbone.layer{index + 1}.", f"visual.trunk.stages.{index}.") for index in range(4)]
    names += [("backbone.stem.", "visual.trunk.stem.")]
    return {
        new + key.removeprefix(old): tensor
        for key, tensor in original.items()
        for old, new in names
        if key.startswith(old)
    }


def test_image_tower_computes_the_recorded_features():
    config, state, clip_head = convert_open_clip_vision(open_clip_vision(load("tiny_state")))
    assert clip_head.keys() == {"norm.weight", "norm.bias", "fc1.weight", "fc1.bias", "fc2.weight"}
    model = ClipConvNextBackbone(config).eval()
    model.load_state_dict(state, strict=True)
    recorded = load("tiny_io_a_image")
    with torch.no_grad():
        features = model(recorded["input"]).feature_maps
    for index, feature in enumerate(features):
        torch.testing.assert_close(feature, recorded[f"backbone.feat{index}"], atol=1e-4, rtol=0)


def test_head_and_open_clip_apart_equal_the_whole_checkpoint():
    whole = load("tiny_state")
    head = {key: tensor for key, tensor in whole.items() if key.startswith("panoptic_head.")}
    _, together = convert_omg_seg(whole)
    _, apart = convert_omg_seg(head, None, open_clip_vision(whole))
    assert apart.keys() == together.keys()
    assert all(torch.equal(apart[key], together[key]) for key in together)


@pytest.mark.parametrize(
    ("widths", "depths", "eps"),
    [
        ((128, 256, 512, 1024), (3, 3, 27, 3), 1e-6),
        ((192, 384, 768, 1536), (3, 3, 27, 3), 1e-6),
        ((384, 768, 1536, 3072), (3, 4, 30, 3), 1e-5),
    ],
    ids=["base", "large", "xxlarge"],
)
def test_sizes_of_open_clip_image_towers(widths, depths, eps):
    """All with the single projection, which convnext_base_w has as well as xxlarge: it does not tell the epsilon."""
    with torch.device("meta"):
        ours = ClipConvNextBackbone(ClipConvNextConfig(hidden_sizes=widths, depths=depths)).state_dict()
    head = {"clip_head.proj.weight": torch.empty(640, widths[-1], device="meta")}
    full = OmgSegConfig(backbone_config=ClipConvNextConfig(hidden_sizes=widths, depths=depths))
    original = to_original_omg_seg({f"model.backbone.{key}": value for key, value in ours.items()} | head, full)
    config, state, clip_head = convert_open_clip_vision(open_clip_vision(original))
    assert (tuple(config.hidden_sizes), tuple(config.depths), config.layer_norm_eps) == (widths, depths, eps)
    assert shapes(state) == shapes(ours)
    assert clip_head.keys() == {"proj.weight"}
