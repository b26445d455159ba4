"""Saved and loaded again a model is the same: weights, buffers, configuration, through every Auto class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from safetensors.torch import load_file
from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageSegmentation,
    AutoModelForUniversalSegmentation,
    CLIPTextConfig,
)

from omgvision.models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation, OmgSegModel
from tests.closeness import assert_close
from tests.models import random_classes, random_config, random_model, random_pixels

PIXELS = random_pixels(1, 3, 64, 64)
TEXT = CLIPTextConfig(
    vocab_size=50,
    hidden_size=16,
    intermediate_size=32,
    projection_dim=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=8,
    bos_token_id=48,
    eos_token_id=49,
)
TOKENS = torch.tensor([[48, 3, 7, 49], [48, 9, 49, 49]])


def whole_model() -> OmgSegForUniversalSegmentation:
    """Every optional part is there."""
    model = random_model(text_config=TEXT, point_refinement=True)
    seen = torch.tensor([True, False, True, False, True])
    model.set_class_embeddings(random_classes(5), torch.arange(5) < 2, seen, ["cat", "dog", "sky", "road", "sea"])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    whole_model().save_pretrained(folder)
    return folder


@torch.no_grad()
def outputs(model):
    return model(PIXELS, input_points=torch.tensor([[[[20.0, 30], [5, 5]]]]), clip_fusion=True), model(PIXELS)


def load_with_report(folder: Path) -> tuple[OmgSegForUniversalSegmentation, dict[str, Any]]:
    """The model, and which keys were missing, unexpected or of another shape."""
    loaded: Any = OmgSegForUniversalSegmentation.from_pretrained(folder, output_loading_info=True)
    return loaded


@pytest.mark.parametrize(
    "loader", [OmgSegForUniversalSegmentation, AutoModelForUniversalSegmentation, AutoModelForImageSegmentation]
)
def test_the_loaded_model_is_the_saved_one(folder, loader):
    model = loader.from_pretrained(folder)
    assert type(model) is OmgSegForUniversalSegmentation
    assert not model.training
    original = whole_model()
    loaded = model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in original.state_dict().items())
    # Equal weights that lie differently in memory may take kernels that add in another order.
    for found, expected in zip(outputs(model), outputs(original), strict=True):
        for name in ("masks_queries_logits", "class_queries_logits", "fused_class_logits", "iou_logits"):
            if name in expected:
                assert_close(found[name], expected[name], atol=1e-4, name=name)
    with torch.no_grad():
        assert torch.equal(model.encode_text(TOKENS), original.encode_text(TOKENS))


def test_the_vocabulary_is_saved(folder):
    model, original = OmgSegForUniversalSegmentation.from_pretrained(folder), whole_model()
    for name in ("class_embeddings", "thing_mask", "seen_mask"):
        assert torch.equal(model.get_buffer(name), original.get_buffer(name))
        assert model.get_buffer(name).dtype == original.get_buffer(name).dtype
    assert model.config.id2label == {0: "cat", 1: "dog", 2: "sky", 3: "road", 4: "sea"}
    assert model.config.label2id == {"cat": 0, "dog": 1, "sky": 2, "road": 3, "sea": 4}


def test_only_safetensors_are_written(folder):
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    assert load_file(folder / "model.safetensors").keys() == whole_model().state_dict().keys()


def test_nothing_is_missing_or_left_over(folder):
    report = load_with_report(folder)[1]
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]


def test_the_configuration_survives(folder, tmp_path):
    config = AutoConfig.from_pretrained(folder)
    assert isinstance(config, OmgSegConfig)
    assert isinstance(config.backbone_config, ClipConvNextConfig)
    assert isinstance(config.text_config, CLIPTextConfig)
    config.save_pretrained(tmp_path)
    first, second = (json.loads((path / "config.json").read_text()) for path in (folder, tmp_path))
    # Written by the model, not by the configuration.
    by_model = {"architectures", "dtype"}
    assert {key: first[key] for key in first.keys() - by_model} == {
        key: second[key] for key in second.keys() - by_model
    }


def test_the_base_model_reads_its_part(folder):
    model = AutoModel.from_pretrained(folder)
    assert type(model) is OmgSegModel
    with torch.no_grad():
        assert_close(model(PIXELS).masks_queries_logits, whole_model()(PIXELS).masks_queries_logits, atol=1e-4)


def test_a_head_on_a_base_model_is_initialised(tmp_path):
    """Missing parts are new, not memory garbage: transformers builds the model without storage first."""
    base = random_model().model
    base.save_pretrained(tmp_path)
    torch.manual_seed(0)
    model, report = load_with_report(tmp_path)
    missing = {key.split(".")[0] for key in report["missing_keys"]}
    assert missing >= {"classifier", "iou_head", "clip_head"}
    assert all(not key.startswith("model.") for key in report["missing_keys"])
    for name, expected in base.state_dict().items():
        assert torch.equal(model.model.state_dict()[name], expected), name
    for name, tensor in model.state_dict().items():
        assert tensor.device.type == "cpu", name
        assert tensor.isfinite().all(), name
        assert (tensor.float().abs() < 10).all(), name
    assert torch.equal(model.classifier.pool_norm.weight, torch.ones(32))
    assert 0.01 < model.classifier.pool_proj.weight.std() < 1
    with torch.no_grad():
        assert model(PIXELS).masks_queries_logits.isfinite().all()


def test_every_part_is_initialised():
    """Every parameter and buffer is reached by `_init_weights`: none keeps what lay in memory."""
    config = random_config(text_config=TEXT, point_refinement=True, num_classes=3, num_prototypes=2)
    with torch.device("meta"):
        model = OmgSegForUniversalSegmentation(config)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(77)
    for module in model.modules():
        module.__dict__.pop("_is_hf_initialized", None)
    model.init_weights()
    untouched = {
        name for name, tensor in model.state_dict().items() if tensor.dtype.is_floating_point and (tensor == 77).any()
    }
    assert not untouched
    assert model.seen_mask.all()
    assert not model.thing_mask.any()


def test_initial_values():
    """The starts that matter for learning; those of plain layers are transformers' business."""
    torch.manual_seed(0)
    model = OmgSegForUniversalSegmentation(random_config(num_queries=200))
    attention = model.model.pixel_decoder.layers[0].get_submodule("self_attn")
    offsets, weights = attention.get_submodule("sampling_offsets"), attention.get_submodule("attention_weights")
    assert not offsets.get_parameter("weight").any()
    assert not weights.get_parameter("weight").any()
    assert not weights.get_parameter("bias").any()
    # Deformable DETR, appendix A.4: each head looks into a direction of its own, point p lies p steps away.
    steps = offsets.get_parameter("bias").view(2, 3, 4, 2)
    assert torch.equal(steps[:, :1].expand_as(steps), steps)
    torch.testing.assert_close(steps[0, 0], torch.tensor([[1.0, 0], [2, 0], [3, 0], [4, 0]]))
    torch.testing.assert_close(steps[1, 0], -steps[0, 0], atol=1e-5, rtol=0)
    for parameter in (model.model.query_features, model.model.query_positions):
        assert 0.95 < parameter.std() < 1.05
    scales = [parameter for name, parameter in model.named_parameters() if name.endswith(".gamma")]
    assert len(scales) == 4
    assert all(torch.equal(scale, torch.full_like(scale, 1e-6)) for scale in scales)


def test_the_backbone_alone(tmp_path):
    fields: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "out_indices": [2, 4]}
    config = ClipConvNextConfig(**fields)
    backbone = AutoBackbone.from_config(config).eval()
    backbone.save_pretrained(tmp_path)
    # AutoBackbone.from_pretrained of transformers 5 takes ids of the Hub only.
    loaded = ClipConvNextBackbone.from_pretrained(tmp_path)
    assert loaded.channels == [16, 32]
    with torch.no_grad():
        maps, expected = loaded(PIXELS).feature_maps, backbone(PIXELS).feature_maps
    assert [tuple(feature.shape) for feature in maps] == [(1, 16, 8, 8), (1, 32, 2, 2)]
    for found, saved in zip(maps, expected, strict=True):
        assert_close(found, saved, atol=1e-5)


def test_half_precision_is_loaded_as_such(folder):
    model = AutoModelForUniversalSegmentation.from_pretrained(folder, dtype=torch.bfloat16)
    assert model.model.query_features.dtype == torch.bfloat16
    with torch.no_grad():
        output = model(PIXELS.bfloat16(), clip_fusion=True)
    assert output.masks_queries_logits.isfinite().all()
    assert output.fused_class_logits.isfinite().all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 33}, "hidden_size: expected a multiple of num_attention_heads"),
        ({"hidden_size": 30}, "hidden_size: expected a multiple of 4"),
        ({"group_norm_groups": 5}, "hidden_size: expected a multiple of group_norm_groups"),
        ({"text_config": TEXT, "embedding_dim": 24}, "text_config.projection_dim: expected embedding_dim"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        random_config(**fields)
