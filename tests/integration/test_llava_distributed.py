"""A fine-tune of OMG-LLaVA divided in any way is the same run: micro-batches, two processes, slices by FSDP2."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from omgvision.training.run import LAUNCH_FILES
from tests.integration.llava_runs import STEPS, divided_run, small_objective
from tests.integration.test_training_distributed import free_port
from tests.llava_folders import save_llava
from tests.llava_layouts import write_all

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs by name: those of two processes (started first), those of this one."""
    folder = tmp_path_factory.mktemp("runs")
    write_all(folder / "data")
    save_llava(folder / "start", own_mask_decoder=True)
    launch = ["--config_file", str(LAUNCH_FILES / "cpu_2.yaml"), "--main_process_port", free_port()]
    processes = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            *launch,
            "-m",
            "tests.integration.llava_runs",
            str(folder),
        ],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
    )
    divided_run(folder, "one", batch_size=2)
    divided_run(folder, "accumulated", batch_size=1, accumulation=2)
    _, errors = processes.communicate(timeout=600)
    assert processes.returncode == 0, errors
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    left_out = ("elapsed", "images_per_second")
    return [{name: value for name, value in entry.items() if name not in left_out} for entry in entries]


@pytest.mark.parametrize("other", ["accumulated", "ddp", "fsdp2"])
def test_a_step_divided_in_any_way_is_the_same_step(runs: Path, other: str):
    expected = losses(runs / "one")
    assert len(expected) == STEPS and all(entry["mask"] > 0 for entry in expected)
    for left, right in zip(expected, losses(runs / other), strict=True):
        assert right == pytest.approx(left, rel=1e-3, abs=1e-5)
    whole, divided = (torch.load(runs / name / "learned.pt", weights_only=True) for name in ("one", other))
    assert whole.keys() == divided.keys()
    for name, value in whole.items():
        torch.testing.assert_close(divided[name], value, atol=2e-4, rtol=2e-3, msg=name)


def test_the_run_learned_something(runs: Path):
    objective, _ = small_objective(runs / "start", dropout=0.0)
    before = objective.state_dict()
    after = torch.load(runs / "one" / "learned.pt", weights_only=True)
    assert sum(bool((value - before[name]).abs().max() > 1e-3) for name, value in after.items()) > len(after) / 2
