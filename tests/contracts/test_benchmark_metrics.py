"""The benchmark of the metrics runs, and ours agree there with the official implementations."""

import json
from pathlib import Path

import pytest

from benchmarks import metrics, metrics_images


def test_quick_run() -> None:
    report = metrics_images.measure(metrics_images.QUICK)
    assert {"COCO segm AP, 5 images", "COCO bbox AP, 5 images"} <= {row["metric"] for row in report["rows"]}
    for row in report["rows"]:
        assert row["ours_s"] >= 0
        assert 0 < row["numbers"].get("AP", 1) < 1


def test_one_entry_for_all_parts(monkeypatch) -> None:
    called = []
    for part in metrics.PARTS:
        monkeypatch.setitem(metrics.PARTS, part, lambda words, part=part: called.append((part, words)))
    metrics.main(["--quick"])
    metrics.main(["video", "--frames", "50"])
    quick = [(part, ["--quick"]) for part in ("images", "video", "language")]
    assert called == [*quick, ("video", ["--frames", "50"])]


def test_quick_leaves_the_results_alone(tmp_path: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    before = {path: path.read_bytes() for path in metrics_images.HERE.glob("results/metrics*.json")}
    metrics.main(["language", "--quick"])
    assert {path: path.read_bytes() for path in before} == before
    metrics.main(["language", "--quick", "--out", str(tmp_path / "r.json")])
    assert json.loads((tmp_path / "r.json").read_text())["ratio"] > 0
