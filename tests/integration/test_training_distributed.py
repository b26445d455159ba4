"""Two processes, one process, accumulated batches: the same run. Sliced by FSDP2: the same run, and it resumes."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor

from omgvision.training import checkpoint
from omgvision.training.trainer import train
from tests.integration.training_runs import (
    NumberObjective,
    NumberSource,
    keep_average,
    recipe,
    scenes,
    segmentation_objective,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of runs by name: those of two processes (started first), those of this one."""
    folder = tmp_path_factory.mktemp("runs")
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    shared |= {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.training_runs", str(folder)],
            cwd=ROOT,
            env=os.environ | shared | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    keep_average(train(NumberObjective(), NumberSource(), recipe(folder / "numbers", batch_size=2)))
    for name, batch_size, accumulation in (("one", 2, 1), ("accumulated", 1, 2)):
        settings = recipe(folder / name, batch_size=batch_size, accumulation=accumulation)
        keep_average(train(segmentation_objective(), scenes(), settings))
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    AcceleratorState._reset_state(reset_partial_state=True)
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    left_out = ("elapsed", "images_per_second", "skipped", "evaluation")
    return [
        {name: value for name, value in entry.items() if name not in left_out} for entry in entries if "loss" in entry
    ]


def weights(folder: Path) -> dict[str, Tensor]:
    return torch.load(folder / "averaged.pt", weights_only=True)


@pytest.mark.parametrize(
    ("one", "other"), [("numbers", "ddp_numbers"), ("one", "accumulated"), ("one", "ddp"), ("one", "fsdp2")]
)
def test_a_step_divided_in_any_way_is_the_same_step(runs: Path, one: str, other: str):
    assert len(losses(runs / one)) == 5
    for left, right in zip(losses(runs / one), losses(runs / other), strict=True):
        assert left == pytest.approx(right, rel=1e-4, abs=1e-5)
    for key, value in weights(runs / one).items():
        if key.endswith("k_proj.bias"):
            continue  # the softmax does not feel them: their gradient is rounding alone, and Adam enlarges it
        torch.testing.assert_close(weights(runs / other)[key], value, rtol=1e-4, atol=2e-5)
    assert weights(runs / one).keys() == weights(runs / other).keys()


def test_the_runs_learned_something(runs: Path):
    start = segmentation_objective().state_dict()
    moved = [
        name
        for name, value in weights(runs / "one").items()
        if value.numel() and (value - start[name]).abs().max() > 1e-3
    ]
    assert len(moved) > 100


def test_a_sliced_run_is_evaluated_whole(runs: Path):
    entries = [json.loads(line) for line in (runs / "fsdp2" / "log.jsonl").read_text().splitlines()]
    assert entries[-1] == {"step": 5, "evaluation": {"parts": len(list(segmentation_objective().modules()))}}


def test_a_sliced_run_continues_bit_for_bit(runs: Path):
    """A signal to the second process alone stopped both."""
    states = []
    for name in ("fsdp2", "fsdp2_parts"):
        found = checkpoint.newest(runs / name, check=lambda state: None)
        assert found is not None
        states.append(found[0])
    for part in ("objective", "averaged"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    for index, entry in states[0]["optimizer"]["state"].items():
        assert all(torch.equal(value, states[1]["optimizer"]["state"][index][name]) for name, value in entry.items())


def test_a_checkpoint_of_slices_is_a_checkpoint_of_the_whole(runs: Path, tmp_path: Path):
    """Two sliced processes may be continued by one whole process that takes both their samples."""
    whole = checkpoint.newest(runs / "one", check=lambda state: None)
    sliced = checkpoint.newest(runs / "fsdp2", check=lambda state: None)
    assert whole is not None and sliced is not None
    assert whole[0]["fingerprint"] == sliced[0]["fingerprint"]
    assert {name: value.shape for name, value in whole[0]["objective"].items()} == {
        name: value.shape for name, value in sliced[0]["objective"].items()
    }
    out = tmp_path / "continued"
    (runs / "fsdp2").rename(out)
    assert train(segmentation_objective(), scenes(), recipe(out, batch_size=2), resume=True).step == 5
