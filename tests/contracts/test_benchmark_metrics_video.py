"""The benchmark of the metrics of videos runs, and both of its ways find the same numbers (it checks that itself)."""

import json
from pathlib import Path

from benchmarks import metrics_video


def test_it_runs(tmp_path: Path) -> None:
    metrics_video.main(["--quick", "--output", str(tmp_path / "r.json")])
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert set(report["seconds_a_frame"]) == set(metrics_video.CASES)
    assert all(entry["ratio"] > 0 for entry in report["seconds_a_frame"].values())
