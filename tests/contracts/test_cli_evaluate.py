"""`omg evaluate`: what it lists, refuses and prints."""

import hashlib
import json
from pathlib import Path

import pytest

from omg_cli.main import run
from omgvision import OmgSegConfig
from omgvision.evaluation.benchmarks import BENCHMARKS
from omgvision.evaluation.language_benchmarks import GROUPS, LANGUAGE_BENCHMARKS
from tests.scoring import refused
from tests.unit.evaluation.runner import layouts


@pytest.fixture
def evaluate(tiny_model_dir, tmp_path, capsys):
    def call(*arguments: object, model: bool = True) -> tuple[int, str, str]:
        chosen = ["--model", str(tiny_model_dir), "--device", "cpu", "--out", str(tmp_path / "out")]
        code = run(["evaluate", *(chosen if model else []), *map(str, arguments)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_list(evaluate):
    code, out, _ = evaluate(model=False)
    assert code == 0
    names = [line.split()[0] for line in out.splitlines()]
    wanted = "coco-panoptic coco-instances coco-interactive ade20k-panoptic ade20k-semantic cityscapes-panoptic"
    wanted += " cityscapes-instances cityscapes-semantic vipseg-panoptic youtube-vis-2019 youtube-vis-2021 ovis vspw"
    wanted += " davis-2017 refcoco refcoco+ refcocog grefcoco reasonseg gcg region-caption mmbench pope mme"
    assert set(wanted.split()) <= set(names)


def test_one_benchmark(evaluate, tiny_model_dir, tmp_path):
    layouts.camvid(tmp_path)
    code, out, err = evaluate("camvid", "--data", tmp_path, "--limit", 1, "--dtype", "bfloat16")
    assert (code, err) == (0, "")
    assert out.startswith("CamVid val, one frame a second: 1 of 2 samples, tiny\n")
    report = json.loads((tmp_path / "out" / "camvid" / "report.json").read_text())
    assert f"mIoU{100 * report['numbers']['mIoU']:.2f}" in out.replace(" ", "")
    assert out.splitlines()[-1] == f"written: {tmp_path / 'out' / 'camvid' / 'report.md'}"
    assert report["environment"]["dtype"] == "bfloat16"
    weights = (tiny_model_dir / "model.safetensors").read_bytes()
    assert report["model"]["sha256"] == {"model.safetensors": hashlib.sha256(weights).hexdigest()}


def test_all_that_is_there(evaluate, tmp_path):
    layouts.camvid(tmp_path)
    layouts.ade20k(tmp_path)
    code, out, err = evaluate("all", "--data", tmp_path, "--limit", 1)
    assert code == 0, err
    assert err.startswith("omg: left out, their data are not in")
    assert "coco-panoptic" in err
    assert "camvid" not in err
    assert out.count("written: ") == 2
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"camvid", "ade20k-semantic"}


def test_one_that_cannot_be_measured_does_not_keep_the_others_from_it(evaluate, tmp_path):
    broken = layouts.ade20k(tmp_path) / "images" / "validation" / "ADE_val_00000001.jpg"
    broken.write_text("no picture")
    layouts.camvid(tmp_path)
    words = ("all", "--data", tmp_path, "--limit", 1)
    code, out, err = evaluate(*words)
    assert code == 2
    absent, fault = err.splitlines()
    assert absent.startswith("omg: left out")
    assert fault.startswith(f"omg: ade20k-semantic: {broken}: expected a picture")
    assert out.splitlines()[-1] == f"written: {tmp_path / 'out' / 'camvid' / 'report.md'}"
    layouts.ade20k(tmp_path)
    code, out, err = evaluate(*words, "--resume")
    assert (code, out.count("written: ")) == (0, 2), err


def test_mistakes(evaluate, tmp_path):
    layouts.camvid(tmp_path)
    (tmp_path / "file").write_text("")
    for arguments, part in [
        (("camwid", "--data", tmp_path), "camvid"),
        (("camvid",), "--data"),
        (("camvid", "--data", tmp_path / "none"), "images/val, labels/val"),
        (("all", "--data", tmp_path / "none"), "at least one"),
        (("camvid", "--data", tmp_path, "--size", "800"), "LONG,SHORT"),
        (("camvid", "--data", tmp_path, "--size", "400,800"), "LONG,SHORT"),
        (("camvid", "--data", tmp_path, "--limit", "0"), "--limit"),
        (("refcoco", "--data", tmp_path), "omg_llava"),
        (("mmbench", "--data", tmp_path), "omg score multiple-choice"),
        (("mmbench-dev", "--data", tmp_path), "omg score multiple-choice"),
        (("camvid", "--data", tmp_path, "--out", tmp_path / "file"), "file"),
    ]:
        assert part in refused(evaluate(*arguments)), arguments
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_overwritten(evaluate, tmp_path):
    layouts.camvid(tmp_path)
    words = ("camvid", "--data", tmp_path, "--limit", 1)
    assert evaluate(*words)[0] == 0
    assert "--resume" in refused(evaluate(*words))
    assert evaluate(*words, "--resume")[0] == 0
    (tmp_path / "out" / "camvid" / "samples" / "000.jsonl").write_text("nonsense\nnonsense\n")
    assert "line 1" in refused(evaluate(*words, "--resume"))


def test_the_page_has_every_benchmark_and_its_published_number():
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name in set(GROUPS) | (set(LANGUAGE_BENCHMARKS) - {part for group in GROUPS.values() for part in group}):
        assert f"`{name}`" in page, name
    for name, benchmark in BENCHMARKS.items():
        assert f"`{name}`" in page or name in ("cityscapes-semantic",), name
        for published in benchmark.published_for(OmgSegConfig()):
            told = f"{100 * published['value']:.1f}"
            told += f" ± {100 * published['noise']:.1f}" if published["noise"] else ""
            assert told in rows[name], name
            assert ("unconfirmed" in rows[name]) != published["confirmed"], name
