"""From the reports of `omg evaluate` to the table in the docs."""

import json
from pathlib import Path

import pytest

from benchmarks import evaluation, make_tables
from omg_cli.main import run
from tests.unit.evaluation.runner import layouts


@pytest.fixture
def runs(tiny_model_dir, tmp_path, capsys) -> Path:
    """Two of the benchmarks by a very small model; the others' reports are theirs under other names."""
    layouts.camvid(tmp_path)
    layouts.coco_mini(tmp_path, count=3)
    words = (
        "--data",
        tmp_path,
        "--model",
        tiny_model_dir,
        "--device",
        "cpu",
        "--out",
        tmp_path / "runs",
        "--limit",
        "2",
    )
    for name in ("coco-mini-panoptic", "coco-mini-instances", "coco-mini-clicks", "camvid"):
        assert run(["evaluate", name, *map(str, words)]) == 0
    clicks = (tmp_path / "runs" / "coco-mini-clicks" / "report.json").read_text()
    layouts.save(layouts.picture(1), tmp_path / "runs" / "davis2016-mini-clicks" / "worst.png")
    (tmp_path / "runs" / "davis2016-mini-clicks" / "report.json").write_text(clicks)
    capsys.readouterr()
    return tmp_path / "runs"


def test_from_reports_to_the_table(runs, tmp_path, capsys):
    out = tmp_path / "results" / "evaluation.json"
    words = ["--runs", str(runs), "--out", str(out)]
    assert evaluation.main(words) == 2
    assert "expected a whole run, got 2 of 3 samples" in capsys.readouterr().err
    assert not out.exists()
    assert evaluation.main([*words, "--parts"]) == 0
    content = json.loads(out.read_text())
    for row in content["rows"]:
        report = json.loads((runs / row["benchmark"] / "report.json").read_text())
        assert row["numbers"] == {name: report["numbers"][name] for name in row["numbers"]}
    table = make_tables.evaluation(content)
    assert "| `coco-mini-panoptic` | 68 pictures of COCO panoptic val2017 | 2 of 3 | PQ " in table
    assert "| `camvid` | CamVid val, one frame a second | 2 | mIoU " in table
    assert f"sha256 `{content['model']['sha256']['model.safetensors'][:12]}`" in table

    report = json.loads((runs / "camvid" / "report.json").read_text())
    report["model"]["sha256"] = {"model.safetensors": "0" * 64}
    (runs / "camvid" / "report.json").write_text(json.dumps(report))
    assert evaluation.main([*words, "--parts"]) == 2
    assert "expected the weights of coco-mini-panoptic" in capsys.readouterr().err
    (runs / "camvid" / "report.json").unlink()
    assert evaluation.main([*words, "--parts"]) == 2
    assert "expected the report of `omg evaluate`" in capsys.readouterr().err
