"""Runs that are killed at a random moment, or stopped by the shell, and resumed: the weights of one that was not."""

import multiprocessing
import os
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from omgvision.training import checkpoint
from tests.integration.training_runs import LONG_STEPS, long_run

# A server that has imported everything, and computed nothing, forks the sessions: a hundred times quicker than new
# interpreters, and without the threads of OpenMP, which do not survive a fork.
SESSIONS = multiprocessing.get_context("forkserver") if sys.platform != "win32" else None

pytestmark = pytest.mark.skipif(SESSIONS is None, reason="forks")


def started(out: Path) -> Any:
    assert SESSIONS is not None
    SESSIONS.set_forkserver_preload([long_run.__module__])
    process = SESSIONS.Process(target=long_run, args=(out,))
    process.start()
    return process


def assert_same_weights(left: Path, right: Path) -> None:
    states = []
    for folder in (left, right):
        found = checkpoint.newest(folder, check=lambda state: None)
        assert found is not None
        states.append(found[0])
    assert states[0]["step"] == states[1]["step"] == LONG_STEPS
    for part in ("objective", "averaged"):
        assert all(torch.equal(value, states[1][part][name]) for name, value in states[0][part].items())
    for index, entry in states[0]["optimizer"]["state"].items():
        assert all(torch.equal(value, states[1]["optimizer"]["state"][index][name]) for name, value in entry.items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a session of its own as the others: the tests before may have changed the number of threads here."""
    out = tmp_path_factory.mktemp("whole")
    process = started(out)
    process.join()
    assert process.exitcode == 0
    return out


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_killed_at_random_moments(uninterrupted: Path, tmp_path: Path, seed: int, number: signal.Signals):
    """Every session but the last is killed; SIGTERM leaves a checkpoint and exit code 0, SIGKILL what there was."""
    generator = random.Random(seed)
    for session in range(4):
        process = started(tmp_path)
        if session < 3:
            process.join(generator.uniform(0.02, 0.3))
            with suppress(ProcessLookupError):  # it was quicker
                os.kill(process.pid, number)
        process.join()
        # Before the loop begins, there is nothing to save and SIGTERM ends the process at once.
        assert process.exitcode in (0, -number if session < 3 else 0)
    assert_same_weights(uninterrupted, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir() if path.suffix] == []
    steps = [line.split(",")[0] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert steps == [f'{{"step": {step}' for step in range(5, LONG_STEPS + 1, 5)]
