"""The `omg` command: verbs, files, messages, exit codes."""

import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

import omgvision
from omg_cli import options
from omg_cli.main import run
from omgvision.data.class_lists import ClassListName
from tests.golden import load as golden

VERBS = ["segment", "click", "track", "chat", "convert", "models", "train", "evaluate", "score", "data", "serve"]


@pytest.fixture
def omg(tiny_model_dir, capsys):
    """Runs a command with the tiny model; returns exit code, standard output, standard error."""

    def call(*arguments: object, model: bool = True) -> tuple[int, str, str]:
        words = [str(argument) for argument in arguments]
        if model:
            words += ["--model", str(tiny_model_dir), "--device", "cpu"]
        code = run(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def picture(photo, tmp_path):
    photo.save(tmp_path / "street.png")
    return tmp_path / "street.png"


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_help_lists_the_verbs(omg):
    code, out, _ = omg("--help", model=False)
    assert code == 0
    for verb in VERBS:
        assert verb in out
        assert omg(verb, "--help", model=False)[0] == 0
    assert omg(model=False)[0] == 0


def test_version(omg):
    assert omg("--version", model=False)[:2] == (0, f"omg {omgvision.__version__}\n")


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "omg_cli", "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("omg ")


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic", "everything"])
def test_segment_one_picture(omg, picture, tmp_path, task):
    code, out, err = omg("segment", picture, "--task", task, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    expected = {"overlay.png", "panoptic.png", "result.json"} | ({"semantic.png"} if task != "everything" else set())
    assert names(tmp_path / "out") == expected
    assert "street:" in out
    assert str(tmp_path / "out" / "overlay.png") in out
    data = json.loads((tmp_path / "out" / "result.json").read_text())
    assert data["info"]["task"] == task
    assert data["info"]["model"] == "tiny"
    assert data["images"][0]["width"] == 90


def test_segment_a_folder(omg, photo, tmp_path):
    (tmp_path / "shots").mkdir()
    for name in ("a.png", "a.jpg", "b.png"):
        photo.save(tmp_path / "shots" / name)
    code, out, _ = omg("segment", tmp_path / "shots", "--out", tmp_path / "out", "--save", "overlay,json")
    assert code == 0
    assert names(tmp_path / "out") == {
        f"{stem}.{kind}" for stem in ("a", "a-2", "b") for kind in ("overlay.png", "result.json")
    }
    assert "6 files of 3 images" in out


def test_one_bad_picture_does_not_cost_the_others(omg, photo, tmp_path):
    (tmp_path / "shots").mkdir()
    photo.save(tmp_path / "shots" / "good.png")
    (tmp_path / "shots" / "bad.png").write_text("x")
    code, out, err = omg("segment", tmp_path / "shots", "--out", tmp_path / "out", "--save", "overlay")
    assert code == 2
    assert "bad.png" in err
    assert "Traceback" not in err
    assert names(tmp_path / "out") == {"good.overlay.png"}
    assert "1 files of 1 image" in out


def test_words(omg, picture, tmp_path):
    def categories(*arguments):
        code, _, err = omg("segment", picture, "--out", tmp_path / "out", "--save", "json", *arguments)
        assert code == 0, err
        return json.loads((tmp_path / "out" / "result.json").read_text())["categories"]

    found = categories("--classes", "dog, sofa/couch,sky")
    assert [(c["name"], c["isthing"]) for c in found] == [("dog", 1), ("sofa/couch", 1), ("sky", 0)]
    found = categories("--classes", "dog,sky", "--things", "sky")
    assert [c["isthing"] for c in found] == [0, 1]
    assert len(categories("--classes", "camvid")) == 11
    (tmp_path / "words.txt").write_text("# animals\ndog, hound\n\ncat\n")
    assert [c["name"] for c in categories("--classes", tmp_path / "words.txt")] == ["dog, hound", "cat"]


def test_threshold_and_precision(omg, picture, tmp_path):
    base = ("segment", picture, "--task", "instance", "--save", "json", "--out", tmp_path / "out")
    assert omg(*base, "--threshold", "0.999")[0] == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["annotations"] == []
    assert omg(*base, "--dtype", "bfloat16")[0] == 0


def test_click(omg, picture, tmp_path):
    region = np.zeros((60, 90), dtype=np.uint8)
    region[15:45, 20:50] = 255
    Image.fromarray(region).save(tmp_path / "region.png")
    arguments = ("--point", "30,30", "--point", "80.5,50,0", "--box", "20,15,50,45", "--mask", tmp_path / "region.png")
    code, out, err = omg("click", picture, *arguments, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert names(tmp_path / "out") == {"overlay.png", "mask-1.png", "mask-2.png", "mask-3.png", "result.json"}
    assert out.count("pixels") == 3
    assert np.asarray(Image.open(tmp_path / "out" / "mask-1.png")).shape == (60, 90)


def test_models(omg):
    code, out, _ = omg("models", model=False)
    assert code == 0
    for part in ("omg-seg-nano", "LXT/OMG_Seg", "CC BY-NC-SA", "laion/CLIP-convnext_large"):
        assert part in out


def test_convert_then_segment(omg, capsys, picture, tmp_path):
    torch.save({"state_dict": golden("tiny_state"), "meta": {}}, tmp_path / "original.pth")
    code, out, err = omg("convert", tmp_path / "original.pth", tmp_path / "converted", model=False)
    assert code == 0, err
    assert "0 missing, 0 unexpected" in out
    assert (tmp_path / "converted" / "config.json").is_file()
    code = run(
        ["click", str(picture), "--point", "3,3", "-m", str(tmp_path / "converted"), "-o", str(tmp_path / "out")]
    )
    assert code == 0
    code = run(["segment", str(picture), "-m", str(tmp_path / "converted"), "-o", str(tmp_path / "out2")])
    assert code == 2
    assert "no vocabulary" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()


@pytest.fixture
def mask_folder(photo, tmp_path):
    """Images and masks of three samples: background 0, two classes."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(3):
        photo.save(tmp_path / "images" / f"{index}.png")
        values = np.zeros((60, 90), dtype=np.uint8)
        values[10:40, 20:60] = 1
        Image.fromarray(values).save(tmp_path / "masks" / f"{index}.png")
    return tmp_path


def test_data(omg, mask_folder):
    words = (mask_folder / "images", "--masks", mask_folder / "masks", "--classes", "ground,cat,dog")
    code, out, err = omg("data", "check", *words, model=False)
    assert code == 0, err
    assert "3 images, 6 segments" in out
    assert "2 of 3 occur" in out
    code, out, err = omg("data", "preview", *words, "--number", 2, "--out", mask_folder / "out", model=False)
    assert code == 0, err
    assert names(mask_folder / "out") == {"preview.png"}


def test_data_that_is_none(omg, mask_folder):
    (mask_folder / "broken.json").write_text("{")
    (mask_folder / "other.json").write_text("{}")
    for arguments, part in [
        ((mask_folder / "nowhere.json",), "does not exist"),
        ((mask_folder / "images",), "--masks"),
        ((mask_folder / "broken.json",), "not a JSON"),
        ((mask_folder / "other.json",), "other.json"),
        ((mask_folder / "images", "--masks", mask_folder / "none", "--classes", "a,b"), "none"),
    ]:
        code, _, err = omg("data", "check", *arguments, model=False)
        assert code == 2, (arguments, err)
        assert part in err
        assert len(err.splitlines()) == 1


def test_mistakes_in_arguments_are_one_line(omg, picture, tmp_path):
    for arguments, part in [
        (("segmnt", picture), "segmnt"),
        (("segment",), "SOURCE"),
        (("segment", picture, "--taks", "semantic"), "--taks"),
        (("segment", picture, "--task", "all"), "panoptic"),
        (("segment", picture, "--save", "pictures"), "--save"),
        (("segment", picture, "--threshold", "high"), "--threshold"),
        (("segment", picture, "--classes", "missing.txt"), "missing.txt"),
        (("click", picture), "--point"),
        (("click", picture, "--point", "3"), "X,Y"),
        (("click", picture, "--point", "3,4,5"), "--point 3,4,5"),
        (("click", picture, "--box", "1,2,3"), "X0,Y0,X1,Y1"),
        (("convert", picture), "SOURCE… OUTPUT"),
        (("convert", picture, tmp_path / "x", "--config", tmp_path / "none.json"), "none.json"),
        (("train", "nano", "steps"), "KEY=VALUE"),
        (("train", "giant"), "nano"),
        (("train", "nano", "stepz=3"), "steps"),
    ]:
        code, _, err = omg(*arguments, model=False)
        assert code == 2, arguments
        assert part in err, (arguments, err)
        assert len(err.splitlines()) == 1, err
        assert err.startswith("omg: ")


def test_our_own_faults_are_exit_code_1(omg, picture, monkeypatch, tmp_path):
    def broken(*args, **kwargs):
        raise RuntimeError("inside")

    monkeypatch.setattr(omgvision.Predictor, "segment", broken)
    code, _, err = omg("segment", picture, "--out", tmp_path / "out")
    assert code == 1
    assert "Traceback" in err
    assert "bug in omgvision" in err


def test_errors_of_libraries_below_are_not_the_users(omg, picture, monkeypatch, tmp_path):
    """A ValueError in the middle of one of our lines, here from PIL, is our fault; only our own `raise` is meant."""
    monkeypatch.setattr("omgvision.visualization.ImageFilter.GaussianBlur", lambda radius: int("no number"))
    assert omg("segment", picture, "--out", tmp_path / "out")[0] == 1
    monkeypatch.setattr("omgvision.results.visualization.draw_segments", lambda *a, **k: np.zeros(3).reshape(2, 2))
    assert omg("segment", picture, "--out", tmp_path / "out")[0] == 1
    assert not (tmp_path / "out").exists()


def test_the_shell_knows_every_bundled_list():
    assert get_args(options.ClassList) == get_args(ClassListName)
