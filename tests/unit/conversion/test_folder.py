"""From checkpoint files to `from_pretrained` folders."""

import json
import os
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForUniversalSegmentation, AutoProcessor, CLIPTextModelWithProjection

from omg_cli.main import run
from omgvision.conversion import ConversionReport, convert_checkpoint, convert_omg_seg, load_checkpoint
from omgvision.conversion.checkpoint import read_shapes
from omgvision.conversion.folder import read_conversion
from omgvision.models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from tests.golden import load

TEXT_CONFIG = {"text_config": {"num_attention_heads": 2}}


def text_tower():
    """OpenCLIP's names, sizes that fit the tiny checkpoint."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "positional_embedding": (77, 16),
        "text_projection": (16, 32),
        "token_embedding.weight": (49408, 16),
        "ln_final.weight": (16,),
        "ln_final.bias": (16,),
        "transformer.resblocks.0.attn.in_proj_weight": (48, 16),
        "transformer.resblocks.0.attn.in_proj_bias": (48,),
        "transformer.resblocks.0.attn.out_proj.weight": (16, 16),
        "transformer.resblocks.0.attn.out_proj.bias": (16,),
        "transformer.resblocks.0.mlp.c_fc.weight": (64, 16),
        "transformer.resblocks.0.mlp.c_fc.bias": (64,),
        "transformer.resblocks.0.mlp.c_proj.weight": (16, 64),
        "transformer.resblocks.0.mlp.c_proj.bias": (16,),
    } | {f"transformer.resblocks.0.{norm}.{part}": (16,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()} | {
        "logit_scale": torch.tensor(4.6)
    }


def image_tower():
    names = [("backbone.head.0.", "visual.trunk.head."), ("backbone.head.1.", "visual.head.")]
    names += [(f"backbone.layer{index + 1}.", f"visual.trunk.stages.{index}.") for index in range(4)]
    names += [("backbone.stem.", "visual.trunk.stem.")]
    return {
        new + key.removeprefix(old): tensor
        for key, tensor in load("tiny_state").items()
        for old, new in names
        if key.startswith(old)
    }


@pytest.fixture
def published(tmp_path):
    """The layout of the published checkpoint: no backbone, inside mmengine's wrapper."""
    head = {key: tensor for key, tensor in load("tiny_state").items() if key.startswith("panoptic_head.")}
    torch.save({"meta": {"epoch": 12}, "state_dict": head}, tmp_path / "omg_seg.pth")
    return tmp_path / "omg_seg.pth"


@pytest.fixture
def open_clip(tmp_path):
    torch.save(image_tower() | text_tower(), tmp_path / "open_clip_pytorch_model.bin")
    return tmp_path / "open_clip_pytorch_model.bin"


def assert_same_weights(loaded, expected):
    state = loaded.state_dict()
    assert state.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key


def test_published_checkpoint_with_open_clip(tmp_path, published, open_clip):
    report = convert_checkpoint([published, open_clip], tmp_path / "out", config=TEXT_CONFIG)
    assert (report.missing, report.unexpected) == ([], [])
    assert set(report.ignored) == {"meta", "logit_scale"}
    assert len(report.matched) == 238 + len(text_tower()) - 1

    loaded: Any = OmgSegForUniversalSegmentation.from_pretrained(tmp_path / "out", output_loading_info=True)
    model, info = loaded  # a pair because of output_loading_info
    assert not any(info.values())
    _, expected = convert_omg_seg(load("tiny_state"))
    state = model.state_dict()
    for key, tensor in expected.items():
        assert torch.equal(state[key], tensor), key
    text = text_tower()
    assert torch.equal(state["text_model.text_projection.weight"], text["text_projection"].T)
    packed = text["transformer.resblocks.0.attn.in_proj_weight"]
    assert torch.equal(state["text_model.text_model.encoder.layers.0.self_attn.k_proj.weight"], packed[16:32])
    assert isinstance(
        AutoModelForUniversalSegmentation.from_pretrained(tmp_path / "out"), OmgSegForUniversalSegmentation
    )
    assert isinstance(AutoProcessor.from_pretrained(tmp_path / "out"), OmgSegProcessor)

    written = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert written["matched"] == report.matched
    assert {path.name for path in tmp_path.iterdir()} == {published.name, open_clip.name, "out"}  # nothing left over


def test_whole_checkpoint_alone(tmp_path):
    save_file(load("tiny_state"), tmp_path / "whole.safetensors")
    report = convert_checkpoint([tmp_path / "whole.safetensors"], tmp_path / "out")
    assert str(report) == "238 matched, 0 missing, 0 unexpected, 0 left out"
    assert_same_weights(
        OmgSegForUniversalSegmentation.from_pretrained(tmp_path / "out"), convert_omg_seg(load("tiny_state"))[1]
    )


def test_open_clip_alone(tmp_path, open_clip):
    report = convert_checkpoint([open_clip], tmp_path / "out", config=TEXT_CONFIG)
    assert report.unexpected == []
    backbone = ClipConvNextBackbone.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        maps = backbone(load("tiny_io_a_image")["input"]).feature_maps
    torch.testing.assert_close(maps[3], load("tiny_io_a_image")["backbone.feat3"], atol=1e-4, rtol=0)
    head = load_file(tmp_path / "out" / "clip_head.safetensors")
    assert torch.equal(head["fc2.weight"], load("tiny_state")["backbone.head.1.mlp.fc2.weight"])
    text = CLIPTextModelWithProjection.from_pretrained(tmp_path / "out" / "text_model")
    assert torch.equal(text.state_dict()["text_projection.weight"], text_tower()["text_projection"].T)


def test_text_tower_alone(tmp_path):
    torch.save(text_tower(), tmp_path / "text.pt")
    convert_checkpoint([tmp_path / "text.pt"], tmp_path / "out", config=TEXT_CONFIG)
    assert CLIPTextModelWithProjection.from_pretrained(tmp_path / "out").config.projection_dim == 32
    assert (tmp_path / "out" / "tokenizer.json").exists()


def test_unexpected_keys_are_in_the_report(tmp_path, caplog):
    save_file(load("tiny_state") | {"panoptic_head.new.weight": torch.zeros(1)}, tmp_path / "a.safetensors")
    report = convert_checkpoint([tmp_path / "a.safetensors"], tmp_path / "out")
    assert report.unexpected == ["panoptic_head.new.weight"]
    assert "conversion_report.json" in caplog.text
    assert json.loads((tmp_path / "out" / "conversion_report.json").read_text())["unexpected"] == report.unexpected


def key_list(source, target):
    target.write_text(json.dumps({key: list(tensor.shape) for key, tensor in load_checkpoint(source).items()}))
    return target


@pytest.mark.parametrize("listed", [False, True], ids=["files", "key lists"])
def test_a_dry_run_reports_the_same_and_writes_nothing(tmp_path, capsys, published, open_clip, listed):
    config = tmp_path / "fields.json"
    config.write_text(json.dumps(TEXT_CONFIG))
    sources = [published, open_clip]
    if listed:
        sources = [key_list(source, tmp_path / f"{index}.json") for index, source in enumerate(sources)]
    before = sorted(tmp_path.rglob("*"))
    assert run(["convert", *map(str, sources), str(tmp_path / "out"), "--config", str(config), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    report = convert_checkpoint([published, open_clip], tmp_path / "out", config=TEXT_CONFIG)
    assert f"{len(report.matched)} matched, 0 missing, 0 unexpected" in said
    model = OmgSegForUniversalSegmentation.from_pretrained(tmp_path / "out")
    assert f"would be written: {tmp_path / 'out'} (OmgSegForUniversalSegmentation, " in said
    assert f"{sum(each.numel() for each in model.parameters()) / 1e6:,.1f} million parameters" in said


def test_a_dry_run_reads_no_weights(tmp_path):
    """What the report says must not need memory for a model of 7B parameters."""
    save_file(load("tiny_state"), tmp_path / "a.safetensors")
    conversion = read_conversion([tmp_path / "a.safetensors"], read=read_shapes)
    state = conversion.parts["."].state.values()
    assert all(tensor.device.type == "meta" for tensor in state if tensor.numel())


@pytest.mark.parametrize("wrong", ["{}", "[1, ", '{"a": "b"}', '{"a": [1, -2]}', '{"a": [true]}', '"a"'])
def test_a_list_of_keys_that_is_none(tmp_path, capsys, wrong):
    (tmp_path / "keys.json").write_text(wrong)
    assert run(["convert", str(tmp_path / "keys.json"), str(tmp_path / "out"), "--dry-run"]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert "keys.json: expected names and shapes as JSON" in line


def test_a_dry_run_finds_what_is_missing(tmp_path, capsys):
    shapes = {key: list(tensor.shape) for key, tensor in load("tiny_state").items()}
    del shapes["panoptic_head.iou_embed.4.bias"]
    (tmp_path / "keys.json").write_text(json.dumps(shapes))
    assert run(["convert", str(tmp_path / "keys.json"), str(tmp_path / "out"), "--dry-run"]) == 2
    assert "missing: iou_head.4.bias" in capsys.readouterr().err


def refused(tmp_path, sources, message, *, output="out", config=None):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=message) as error:
        convert_checkpoint(sources, tmp_path / output, config=config)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


def test_published_checkpoint_alone(tmp_path, published):
    refused(tmp_path, [published], "give the OpenCLIP file")


def test_missing_weights(tmp_path):
    state = load("tiny_state")
    del state["panoptic_head.iou_embed.4.bias"]
    save_file(state, tmp_path / "a.safetensors")
    refused(tmp_path, [tmp_path / "a.safetensors"], r"missing: iou_head\.4\.bias")


def test_text_tower_asked_for_but_not_given(tmp_path):
    save_file(load("tiny_state"), tmp_path / "a.safetensors")
    config = {"text_config": {"projection_dim": 32, "hidden_size": 64, "num_attention_heads": 1}}
    refused(tmp_path, [tmp_path / "a.safetensors"], r"missing: text_model\.", config=config)


def test_wrong_shape(tmp_path):
    save_file(
        load("tiny_state") | {"panoptic_head.query_embed.weight": torch.zeros(21, 64)}, tmp_path / "a.safetensors"
    )
    refused(
        tmp_path, [tmp_path / "a.safetensors"], r"model\.query_positions: expected the shape \[20, 64\], got \[21, 64\]"
    )


def test_something_else(tmp_path):
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "bert.safetensors")
    refused(tmp_path, [tmp_path / "bert.safetensors"], r"expected keys of OMG-Seg .* got 1 others \(layer\.weight")


def test_no_sources(tmp_path):
    refused(tmp_path, [], "at least one checkpoint")


def test_same_part_twice(tmp_path, published):
    refused(tmp_path, [published, published], "expected each part once")


def test_output_with_content(tmp_path, published):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    refused(tmp_path, [published], "expected a new or empty folder")


def test_empty_output_folder_is_taken(tmp_path):
    save_file(load("tiny_state"), tmp_path / "a.safetensors")
    (tmp_path / "out").mkdir()
    convert_checkpoint([tmp_path / "a.safetensors"], tmp_path / "out")
    assert (tmp_path / "out" / "config.json").exists()


def test_output_below_a_file(tmp_path):
    save_file(load("tiny_state"), tmp_path / "a.safetensors")
    refused(tmp_path, [tmp_path / "a.safetensors"], "cannot be written", output="a.safetensors/out")


def test_disk_full(tmp_path, monkeypatch):
    def save(*args, **kwargs):
        raise OSError(28, "No space left on device")

    save_file(load("tiny_state"), tmp_path / "a.safetensors")
    monkeypatch.setattr(OmgSegForUniversalSegmentation, "save_pretrained", save)
    refused(tmp_path, [tmp_path / "a.safetensors"], "cannot be written .No space left")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_output(tmp_path):
    save_file(load("tiny_state"), tmp_path / "a.safetensors")
    (tmp_path / "locked").mkdir(mode=0o555)
    refused(tmp_path, [tmp_path / "a.safetensors"], "cannot be written", output="locked/out")


def test_report_reads_well():
    report = ConversionReport(
        matched=["a"], missing=["b"], unexpected=[f"c{i}" for i in range(12)], ignored={"d": "why", "e": "why"}
    )
    text = str(report)
    assert text.splitlines()[0] == "1 matched, 1 missing, 12 unexpected, 2 left out"
    assert "… and 2 more" in text
    assert "left out: d and 1 more (why)" in text
    assert json.loads(report.to_json())["unexpected"][11] == "c11"
