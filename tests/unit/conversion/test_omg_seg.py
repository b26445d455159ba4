"""What `convert_omg_seg` accepts and how it refuses; parity of the weights is in tests/parity/test_conversion.py."""

import json

import pytest
import torch

from omgvision.conversion import convert_omg_seg, convert_open_clip_text, convert_open_clip_vision, to_original_omg_seg
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from tests.golden import load

HEAD_ONLY = {key: tensor for key, tensor in load("tiny_state").items() if key.startswith("panoptic_head.")}


def test_without_backbone_says_what_to_give():
    with pytest.raises(ValueError, match=r"no backbone\.\* keys .* give the OpenCLIP file"):
        convert_omg_seg(HEAD_ONLY)


def test_backbone_that_is_none():
    with pytest.raises(ValueError, match=r"expected an OpenCLIP checkpoint with visual\.trunk\.\* keys, got 1 keys"):
        convert_omg_seg(HEAD_ONLY, backbone={"visual.conv1.weight": torch.zeros(2)})


def test_backbone_of_another_size():
    other = {f"visual.trunk.stages.{stage}.blocks.0.conv_dw.bias": torch.zeros(24 * 2**stage) for stage in range(4)}
    with pytest.raises(ValueError, match=r"widths \[16, 32, 64, 128\].* got \[24, 48, 96, 192\]"):
        convert_omg_seg(HEAD_ONLY, backbone=other)


def test_own_backbone_wins_over_open_clip():
    state = load("tiny_state")
    _, plain = convert_omg_seg(state)
    _, both = convert_omg_seg(state, backbone={"visual.trunk.stem.0.weight": torch.zeros(3)})
    assert all(torch.equal(plain[key], both[key]) for key in plain)


@pytest.mark.parametrize(
    "state", [{}, {"fc.weight": torch.zeros(2, 2)}, {"state_dict": {"conv1.weight": torch.zeros(1)}}]
)
def test_something_else_is_refused(state):
    for convert in (convert_omg_seg, convert_open_clip_text, convert_open_clip_vision):
        with pytest.raises(ValueError, match=r"^not an .*expected the key .*got \d keys"):
            convert(state)


def test_part_of_a_checkpoint_is_refused():
    state = load("tiny_state")
    del state["panoptic_head.level_embed.weight"]
    with pytest.raises(ValueError, match=r"expected the key panoptic_head\.level_embed\.weight"):
        convert_omg_seg(state)


def test_unknown_keys_are_reported(caplog):
    config, converted = convert_omg_seg(load("tiny_state") | {"panoptic_head.extra.weight": torch.zeros(1)})
    assert "1 unexpected" in caplog.text
    assert "panoptic_head.extra.weight" in caplog.text
    OmgSegForUniversalSegmentation(config).load_state_dict(converted, strict=True)


def test_config_sets_what_no_shape_tells():
    overrides = {"fusion_alpha": 0.25, "num_loss_points": 112, "backbone_config": {"layer_norm_eps": 1e-5}}
    config, converted = convert_omg_seg(load("tiny_state"), overrides)
    assert (config.fusion_alpha, config.num_loss_points) == (0.25, 112)
    assert isinstance(config.backbone_config, ClipConvNextConfig)
    assert config.backbone_config.layer_norm_eps == 1e-5
    assert list(config.backbone_config.depths) == [1, 1, 2, 1]
    OmgSegForUniversalSegmentation(config).load_state_dict(converted, strict=True)


def test_a_whole_config_file_is_taken():
    config, _ = convert_omg_seg(load("tiny_state"), {"fusion_beta": 0.7})
    again, _ = convert_omg_seg(load("tiny_state"), json.loads(config.to_json_string(use_diff=False)))
    assert again.to_dict() == config.to_dict()


def test_heads_decide_about_points():
    config, _ = convert_omg_seg(load("tiny_state"), {"num_attention_heads": 4})
    assert (config.num_attention_heads, config.num_sampling_points) == (4, 8)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hidden_dim": 64}, "OmgSegConfig has no field hidden_dim"),
        ({"hidden_size": 128}, "hidden_size is 64 by the shapes of the checkpoint, got 128"),
        ({"backbone_config": {"depths": [3, 3, 9, 3]}}, r"depths is \[1, 1, 2, 1\] by the shapes"),
        ({"model_type": "mask2former"}, "expected the model_type omg_seg, got mask2former"),
        ({"num_attention_heads": 5}, "num_attention_heads: expected a number that divides 192 sampling offsets"),
        ({"num_classes": 19}, "num_classes: expected 0"),
    ],
)
def test_config_that_cannot_be(overrides, message):
    with pytest.raises(ValueError, match=message):
        convert_omg_seg(load("tiny_state"), overrides)


def test_vocabulary_is_left_out_of_the_originals_format():
    config, converted = convert_omg_seg(load("tiny_state"))
    model = OmgSegForUniversalSegmentation(config)
    model.load_state_dict(converted)
    embeddings = torch.nn.functional.normalize(torch.ones(3, 2, 32), dim=-1)
    model.set_class_embeddings(embeddings, torch.tensor([True, False, True]))
    assert to_original_omg_seg(model.state_dict(), model.config).keys() == load("tiny_state").keys()


def test_the_original_has_no_refinement():
    config, converted = convert_omg_seg(load("tiny_state"))
    config.point_refinement = True
    with pytest.raises(ValueError, match="expected point_refinement=False"):
        to_original_omg_seg(converted, config)


def test_text_width_without_heads():
    state = {
        "text_token_embedding.weight": torch.zeros(8, 16),
        "text_pe": torch.zeros(4, 16),
        "text_proj": torch.zeros(16, 32),
        "text_transformer.resblocks.0.mlp.c_fc.weight": torch.zeros(64, 16),
    }
    with pytest.raises(ValueError, match="num_attention_heads: expected a text width that heads of 64 divide, got 16"):
        convert_open_clip_text(state)
    assert convert_open_clip_text(state, {"num_attention_heads": 2})[0].num_attention_heads == 2
