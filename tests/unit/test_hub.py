"""`load` from every kind of name; the Hub is a local folder of the same layout."""

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import save_file

import omgvision
from omgvision import UserError, hub
from tests.golden import load as golden

TEXT_WIDTH = 64


@pytest.fixture
def head() -> dict[str, torch.Tensor]:
    """The published layout: everything but the backbone."""
    return {key: tensor for key, tensor in golden("tiny_state").items() if key.startswith("panoptic_head.")}


@pytest.fixture
def open_clip() -> dict[str, torch.Tensor]:
    """An OpenCLIP file whose image tower is that of the tiny checkpoint."""
    names = [("backbone.head.0.", "visual.trunk.head."), ("backbone.head.1.", "visual.head.")]
    names += [(f"backbone.layer{index + 1}.", f"visual.trunk.stages.{index}.") for index in range(4)]
    names += [("backbone.stem.", "visual.trunk.stem.")]
    image = {
        new + key.removeprefix(old): tensor
        for key, tensor in golden("tiny_state").items()
        for old, new in names
        if key.startswith(old)
    }
    width = TEXT_WIDTH
    block = "transformer.resblocks.0."
    shapes = {
        "positional_embedding": (77, width),
        "text_projection": (width, 32),
        "token_embedding.weight": (49408, width),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
        f"{block}attn.in_proj_weight": (3 * width, width),
        f"{block}attn.in_proj_bias": (3 * width,),
        f"{block}attn.out_proj.weight": (width, width),
        f"{block}attn.out_proj.bias": (width,),
        f"{block}mlp.c_fc.weight": (4 * width, width),
        f"{block}mlp.c_fc.bias": (4 * width,),
        f"{block}mlp.c_proj.weight": (width, 4 * width),
        f"{block}mlp.c_proj.bias": (width,),
    } | {f"{block}{norm}.{part}": (width,) for norm in ("ln_1", "ln_2") for part in ("weight", "bias")}
    generator = torch.Generator().manual_seed(0)
    text = {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}
    return image | text | {"logit_scale": torch.tensor(4.6)}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(hub.constants, "HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote(tmp_path, monkeypatch) -> Path:
    """A Hub in a folder: `remote/user/repository/file`."""
    root = tmp_path / "remote"
    root.mkdir()

    def download(repository: str, name: str) -> str:
        if not (root / repository).is_dir():
            raise LocalEntryNotFoundError("no connection")
        if not (root / repository / name).is_file():
            raise EntryNotFoundError("no such file")
        return str(root / repository / name)

    def snapshot(repository: str, *, allow_patterns: list[str]) -> str:
        if not (root / repository).is_dir():
            raise LocalEntryNotFoundError("no connection")
        return str(root / repository)

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    return root


def assert_user_error(name, *parts: str, **arguments) -> None:
    with pytest.raises(UserError) as error:
        omgvision.load(name, device="cpu", **arguments)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


def test_folder(tiny_model_dir):
    predictor = omgvision.load(tiny_model_dir, device="cpu")
    assert predictor.name == "tiny"
    assert predictor.classes == ["person", "car", "sky", "grass"]
    assert not predictor.model.training
    assert predictor.model.dtype == torch.float32


def test_device_and_dtype(tiny_model_dir):
    assert omgvision.load(tiny_model_dir, dtype="bfloat16").model.dtype == torch.bfloat16
    assert omgvision.load(tiny_model_dir, dtype=torch.float16, device="cpu").model.dtype == torch.float16
    assert_user_error(tiny_model_dir, "unknown dtype", dtype="int8")
    with pytest.raises(UserError, match="unknown device"):
        omgvision.load(tiny_model_dir, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="cannot use the device cuda"):
            omgvision.load(tiny_model_dir, device="cuda")


def test_bundled_weights(tiny_model_dir, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "bundled_folder", lambda name="": tiny_model_dir)
    assert omgvision.load(device="cpu").name == "omg-seg-nano"
    assert omgvision.load("omg-seg-nano", device="cpu").name == "omg-seg-nano"
    monkeypatch.setattr(hub, "bundled_folder", lambda name="": tmp_path / "gone")
    assert_user_error(None, "no bundled weights")


def test_bundled_folder_lies_in_the_package():
    assert hub.bundled_folder() == Path(omgvision.__file__).parent / "weights" / "omg-seg-nano"


def test_hub_folder(tiny_model_dir, remote):
    shutil.copytree(tiny_model_dir, remote / "someone" / "tiny-seg")
    assert omgvision.load("someone/tiny-seg", device="cpu").name == "someone/tiny-seg"


def test_published_checkpoint(head, open_clip, remote, cache, monkeypatch, photo):
    """`load("LXT/OMG_Seg")`: the head from there, the backbone and the text tower from OpenCLIP's repository."""
    (remote / "LXT" / "OMG_Seg").mkdir(parents=True)
    (remote / "laion" / "tiny").mkdir(parents=True)
    torch.save({"meta": {}, "state_dict": head}, remote / "LXT" / "OMG_Seg" / "omg_seg_convl.pth")
    torch.save(open_clip, remote / "laion" / "tiny" / "open_clip_pytorch_model.bin")
    monkeypatch.setattr(hub, "OPEN_CLIP_OF_WIDTH", {128: "laion/tiny"})
    predictor = omgvision.load("LXT/OMG_Seg", device="cpu")
    assert predictor.name == "LXT/OMG_Seg"
    # It knows no classes of its own, and reads words with the text tower that came with the backbone.
    with pytest.raises(UserError, match="classes="):
        predictor.segment(photo)
    small = predictor.processor.image_processor
    small.size = {"longest_edge": 96, "shortest_edge": 64}
    assert set(predictor.segment(photo, task="semantic", classes=["dog", "sky"]).labels) <= {"dog", "sky"}

    # Converted once, then read from the cache; the same by the name of the file.
    converted = list((cache / "omgvision" / "converted").iterdir())
    assert len(converted) == 1
    monkeypatch.setattr(hub, "convert_checkpoint", None)
    omgvision.load("LXT/OMG_Seg/omg_seg_convl.pth", device="cpu")


def test_published_checkpoint_of_an_unknown_size(head, remote):
    (remote / "LXT" / "OMG_Seg").mkdir(parents=True)
    torch.save(head, remote / "LXT" / "OMG_Seg" / "omg_seg_convl.pth")
    assert_user_error("LXT/OMG_Seg", "no backbone", "OpenCLIP")


def test_local_checkpoint_with_separate_backbone(head, open_clip, tmp_path):
    torch.save(head, tmp_path / "omg.pth")
    (tmp_path / "clip").mkdir()
    save_file(open_clip, tmp_path / "clip" / "open_clip_model.safetensors")
    by_folder = omgvision.load(tmp_path / "omg.pth", backbone=tmp_path / "clip", device="cpu")
    by_file = omgvision.load(
        str(tmp_path / "omg.pth"), backbone=tmp_path / "clip" / "open_clip_model.safetensors", device="cpu"
    )
    assert by_folder.name == by_file.name == "omg"
    assert by_folder.model.text_model is not None


def test_local_checkpoint_with_its_backbone(tmp_path):
    torch.save(golden("tiny_state"), tmp_path / "whole.pth")
    assert omgvision.load(tmp_path / "whole.pth", device="cpu").model.text_model is None


def test_names_that_lead_nowhere(remote, tmp_path, tiny_model_dir):
    assert_user_error("", "empty")
    assert_user_error("nothing-here", "no model nothing-here")
    assert_user_error("some/where/deep/down", "no model")
    assert_user_error(tmp_path / "missing.pth", "no model")
    assert_user_error("someone/not-cached", "cannot reach the Hub", "someone/not-cached")
    assert_user_error("someone/repository/file.pth", "cannot reach the Hub")
    (remote / "someone" / "empty").mkdir(parents=True)
    assert_user_error("someone/empty", "config.json", "someone/empty/file.pth")
    assert_user_error("someone/empty/file.pth", "holds no file.pth")
    assert_user_error(tiny_model_dir, "backbone belongs to", backbone="x.bin")
    (tmp_path / "folder").mkdir()
    assert_user_error(tmp_path / "folder", "config.json")


def test_backbones_that_lead_nowhere(head, remote, tmp_path):
    torch.save(head, tmp_path / "omg.pth")
    assert_user_error(tmp_path / "omg.pth", "backbone nowhere.bin does not exist", backbone="nowhere.bin")
    assert_user_error(tmp_path / "omg.pth", "holds neither", backbone=tmp_path)
    assert_user_error(tmp_path / "omg.pth", "cannot reach the Hub", backbone="laion/unknown")
    assert_user_error(tmp_path / "omg.pth", "backbone")


def test_offline(monkeypatch):
    """The real Hub client, told to stay offline, with an empty cache."""
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    assert_user_error("someone/surely-not-there", "cannot reach the Hub")
    assert_user_error("LXT/OMG_Seg", "cannot reach the Hub")


def test_folders_of_something_else(tiny_model_dir, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
    assert_user_error(other, "type bert")
    (other / "config.json").write_text("{")
    assert_user_error(other, "damaged")
    (other / "config.json").write_text(json.dumps(config | {"hidden_size": 48, "group_norm_groups": 8}))
    assert_user_error(other, "do not fit")
    (other / "config.json").write_text(json.dumps(config))
    weights = (other / "model.safetensors").read_bytes()
    (other / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert_user_error(other, "damaged or truncated")
    (other / "model.safetensors").unlink()
    assert_user_error(other, "cannot load other")


class Harmful:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_checkpoints_that_are_none(head, tmp_path, capsys):
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"state_dict": Harmful()}))
    assert_user_error(tmp_path / "code.pth", "code.pth")
    assert "must not run" not in capsys.readouterr().out
    torch.save(head, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    assert_user_error(tmp_path / "half.pth", "half.pth")
    (tmp_path / "text.pth").write_text("hello")
    assert_user_error(tmp_path / "text.pth", "text.pth")
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    assert_user_error(tmp_path / "other.pth", "other.pth")
