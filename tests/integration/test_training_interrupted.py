"""Runs that are killed at a random moment, or stopped by the shell, and resumed: the weights of one that was not."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from omgvision.training import checkpoint
from omgvision.training.trainer import train
from tests.integration.training_runs import NumberObjective, Numbers, NumberSource, recipe

STEPS = 60
# The child starts with everything imported: a hundred times quicker than a new interpreter.
FORK = multiprocessing.get_context("fork") if sys.platform == "linux" else None

pytestmark = pytest.mark.skipif(FORK is None, reason="forks")


class SlowSource(NumberSource):
    def batch(self, step: int, **named: Any) -> Numbers:
        time.sleep(0.003)
        return super().batch(step, **named)


def run(out: Path) -> None:
    settings = recipe(out, batch_size=2, steps=STEPS, checkpoint_every=3, log_every=5)
    train(NumberObjective(), SlowSource(), settings, resume=True)


def started(out: Path) -> Any:
    assert FORK is not None
    process = FORK.Process(target=run, args=(out,))
    process.start()
    return process


def assert_same_weights(left: Path, right: Path) -> None:
    states = []
    for folder in (left, right):
        found = checkpoint.newest(folder, check=lambda state: None)
        assert found is not None
        states.append(found[0])
    assert states[0]["step"] == states[1]["step"] == STEPS
    for part in ("objective", "averaged"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    for index, entry in states[0]["optimizer"]["state"].items():
        assert all(torch.equal(value, states[1]["optimizer"]["state"][index][name]) for name, value in entry.items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(out)
    return out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_random_moments(uninterrupted: Path, tmp_path: Path, seed: int, number: signal.Signals):
    """Every session but the last is killed; SIGTERM leaves a checkpoint and exit code 0, SIGKILL what there was."""
    generator = random.Random(seed)
    for session in range(4):
        process = started(tmp_path)
        if session < 3:
            process.join(generator.uniform(0.02, 0.5))
            os.kill(process.pid, number)
        process.join()
        # Before the loop begins, there is nothing to save and SIGTERM ends the process at once.
        assert process.exitcode in (0, -number if session < 3 else 0)
    assert_same_weights(uninterrupted, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.suffix] == []
    steps = [line.split(",")[0] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(5, STEPS + 1, 5)]
