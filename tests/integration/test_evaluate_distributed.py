"""`omg evaluate` under torchrun: processes that find each other by gloo share the samples."""

import json
import os
import subprocess
import sys

import pytest

from tests.unit.evaluation.runner import layouts


@pytest.mark.slow
def test_two_processes_are_one(tiny_model_dir, tmp_path):
    layouts.coco_mini(tmp_path, count=3)
    words = ["omg_cli", "evaluate", "coco-mini-panoptic", "--data", str(tmp_path), "--model", str(tiny_model_dir)]
    launcher = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    reports = []
    for start, out in ((launcher, "two"), ([], "one")):
        command = [sys.executable, "-m", *start, *words, "--device", "cpu", "--out", str(tmp_path / out)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("written: ") == 1
        reports.append(json.loads((tmp_path / out / "coco-mini-panoptic" / "report.json").read_text()))
    two, one = reports
    assert (two["environment"]["processes"], one["environment"]["processes"]) == (2, 1)
    for key in ("numbers", "per_class", "per_sample"):
        assert two[key] == one[key]
    files = sorted((tmp_path / "two" / "coco-mini-panoptic" / "samples").iterdir())
    assert [len(path.read_text().splitlines()) for path in files] == [2, 1]
