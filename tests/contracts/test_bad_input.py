"""Bad input: one clear line on stderr, exit code 2, nothing written. And input that looks bad but works."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from omg_cli.main import run
from tests.golden import load as golden


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("omgvision.hub.constants.HF_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def refused(tiny_model_dir, tmp_path, capsys):
    """Runs a command that must fail: exit code 2, one line that names the matter, nothing written."""

    def call(*arguments: object, model: bool = True, say: str) -> None:
        words = [str(argument) for argument in arguments]
        if model:
            words += ["--model", str(tiny_model_dir), "--out", str(tmp_path / "out")]
        before = sorted(tmp_path.rglob("*"))
        code = run(words)
        captured = capsys.readouterr()
        assert code == 2, captured.err
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1, captured.err
        assert lines[0].startswith("omg: ")
        assert say in lines[0]
        assert sorted(tmp_path.rglob("*")) == before

    return call


@pytest.fixture
def segmented(tiny_model_dir, tmp_path, capsys):
    """Runs `omg segment` that must work, and gives the size of the overlay and the JSON."""

    def call(path: object, *arguments: object) -> tuple[tuple[int, int], dict]:
        words = ["segment", path, *arguments, "--model", tiny_model_dir, "--device", "cpu", "--out", tmp_path / "out"]
        code = run([str(word) for word in words])
        assert code == 0, capsys.readouterr().err
        return Image.open(tmp_path / "out" / "overlay.png").size, json.loads(
            (tmp_path / "out" / "result.json").read_text()
        )

    return call


# ----------------------------------------------------------------------------------------------------- pictures refused


def test_missing_file(refused, tmp_path):
    refused("segment", tmp_path / "missing.jpg", say="does not exist")
    refused("click", tmp_path / "missing.jpg", "--point", "1,1", say="does not exist")


def test_not_an_image(refused, tmp_path):
    (tmp_path / "notes.jpg").write_text("these are words")
    refused("segment", tmp_path / "notes.jpg", say="not an image")


def test_truncated_image(refused, photo, tmp_path):
    photo.resize((900, 600)).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:4000])
    refused("segment", tmp_path / "half.jpg", say="truncated")


def test_zero_size(refused, tmp_path):
    (tmp_path / "empty.png").touch()
    refused("segment", tmp_path / "empty.png", say="0 bytes")


def test_folder_without_pictures(refused, tmp_path):
    (tmp_path / "folder").mkdir()
    refused("segment", tmp_path / "folder", say="no images")


# ----------------------------------------------------------------------------------------------- odd pictures that work


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_extreme_sizes(segmented, tmp_path, size):
    Image.new("RGB", size, (10, 90, 200)).save(tmp_path / "extreme.png")
    assert segmented(tmp_path / "extreme.png")[0] == size


def test_kinds_of_pixels(segmented, photo, tmp_path):
    grey = photo.convert("L")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "sixteen.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(tmp_path / "sixteen.tif")
    grey.save(tmp_path / "grey.png")
    rgba = photo.copy()
    rgba.putalpha(128)
    rgba.save(tmp_path / "rgba.png")
    photo.convert("CMYK").save(tmp_path / "cmyk.jpg")
    photo.convert("P").save(tmp_path / "palette.png")
    for name in ("sixteen.png", "sixteen.tif", "grey.png", "rgba.png", "cmyk.jpg", "palette.png"):
        assert segmented(tmp_path / name)[0] == photo.size, name


def test_rotated_by_exif(segmented, photo, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "turned.jpg", exif=exif)
    size, data = segmented(tmp_path / "turned.jpg")
    assert size == (60, 90)
    assert (data["images"][0]["width"], data["images"][0]["height"]) == (60, 90)


def test_animated_gif(segmented, photo, tmp_path, capsys):
    photo.save(tmp_path / "moving.gif", save_all=True, append_images=[photo.rotate(90), photo.rotate(180)])
    assert segmented(tmp_path / "moving.gif")[0] == photo.size
    assert "3 frames: only the first is used" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------------------- words


@pytest.fixture
def picture(photo, tmp_path):
    photo.save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_class_lists(refused, picture, tmp_path):
    refused("segment", picture, "--classes", "", say="empty list")
    (tmp_path / "none.txt").write_text("\n\n")
    refused("segment", picture, "--classes", tmp_path / "none.txt", say="empty list")
    refused("segment", picture, "--classes", "dog,cat,Dog", say="different names")
    refused("segment", picture, "--classes", "dog,,cat", say="''")
    refused("segment", picture, "--classes", "dog", "--things", "cat", say="'cat'")


def test_five_thousand_names(segmented, picture, tmp_path):
    (tmp_path / "many.txt").write_text("\n".join(f"thing {index}" for index in range(5000)))
    _, data = segmented(picture, "--classes", tmp_path / "many.txt", "--task", "semantic")
    assert len(data["categories"]) == 5000
    semantic = np.asarray(Image.open(tmp_path / "out" / "semantic.png"))
    assert semantic.dtype == np.uint16


# -------------------------------------------------------------------------------------------------------------- prompts


def test_prompts(refused, picture):
    refused("click", picture, "--point", "900,20", say="outside of the image")
    refused("click", picture, "--point", "-5,20", say="outside of the image")
    refused("click", picture, "--box", "50,10,20,40", say="inverted")
    refused("click", picture, "--box", "500,500,600,600", say="outside of the image")


# ---------------------------------------------------------------------------------------------------------- checkpoints


class Harmful:
    def __reduce__(self):
        return (print, ("harmful code ran",))


def test_checkpoints(refused, picture, tmp_path, capsys):
    torch.save({"encoder.layer.weight": torch.zeros(4, 4)}, tmp_path / "other.pth")
    torch.save(golden("tiny_state"), tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    torch.save({"state_dict": golden("tiny_state"), "hook": Harmful()}, tmp_path / "code.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Harmful()))
    capsys.readouterr()
    for name in ("other.pth", "half.pth", "code.pth", "plain.pth"):
        refused("convert", tmp_path / name, tmp_path / "converted", model=False, say=name)
        words = ("--model", tmp_path / name, "--out", tmp_path / "out")
        refused("segment", picture, "--classes", "dog", *words, model=False, say=name)
    assert "harmful" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "fields",
    ['{"num_attention_heads": "big"}', '{"backbone_config": 3}', '{"logit_scale": 2}', '{"nope": 1}', "[1]", "{"],
)
def test_configurations(refused, tmp_path, fields):
    torch.save(golden("tiny_state"), tmp_path / "whole.pth")
    (tmp_path / "fields.json").write_text(fields)
    words = (tmp_path / "whole.pth", tmp_path / "converted", "--config", tmp_path / "fields.json")
    refused("convert", *words, model=False, say="config")


def test_models_that_do_not_exist(refused, picture, tmp_path, monkeypatch):
    monkeypatch.setattr("omgvision.hub.constants.HF_HUB_OFFLINE", True)
    out = ("--out", tmp_path / "out")
    refused("segment", picture, "--model", tmp_path / "nothing", *out, model=False, say="no model")
    refused("segment", picture, "--model", "nobody/nothing", *out, model=False, say="nobody/nothing")


def test_devices(refused, picture):
    refused("segment", picture, "--device", "gpu", say="unknown device")
    refused("segment", picture, "--dtype", "int3", say="unknown dtype")


# --------------------------------------------------------------------------------------------------------------- output


def test_folders_that_cannot_be_written(refused, picture, tiny_model_dir, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    (tmp_path / "file").touch()
    words = ("--model", tiny_model_dir)
    refused("segment", picture, *words, "--out", locked, model=False, say="read-only")
    refused("segment", picture, *words, "--out", locked / "new", model=False, say="read-only")
    refused("click", picture, "--point", "3,3", *words, "--out", locked, model=False, say="read-only")
    refused("segment", picture, *words, "--out", tmp_path / "file", model=False, say="not a folder")
