"""`omg train` from the shell's side: what it lists, refuses, saves and leaves behind."""

import math
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from omg_cli.main import run
from omgvision.data import Mixture
from omgvision.training import checkpoint
from omgvision.training import run as training
from omgvision.training.objective import SegmentationObjective
from omgvision.training.recipe import Recipe
from tests.integration.training_runs import recipe, scenes, segmentation_objective


def stub() -> Recipe:
    """A run of nothing. It takes seconds."""
    return recipe(Path("nowhere"), batch_size=1, steps=4)


class Watched(Mixture):
    """Scenes; while `slow` is set, step 2 tells that it has come and takes its time. Those of `poisoned` steps are no
    numbers."""

    slow: Path | None = None
    poisoned: Sequence[int] = ()

    def batch(self, step: int, **named: Any) -> Any:
        if self.slow is not None and step == 2:
            self.slow.touch()
            time.sleep(1)
        batch = super().batch(step, **named)
        return replace(batch, pixel_values=batch.pixel_values * math.nan) if step in self.poisoned else batch


def source(recipe: Recipe) -> Mixture:
    return Watched(scenes().sources, seed=1, strict=recipe.strict)


def export(objective: SegmentationObjective, recipe: Recipe) -> Path:
    folder = recipe.out / "weights"
    objective.model.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def stub_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = training.Entry(
        recipe=stub,
        objective=lambda recipe: segmentation_objective(),
        source=source,
        probe=lambda recipe: pytest.fail("no evaluation was asked for"),
        export=export,
    )
    recipes: Mapping[str, Any] = {**training.RECIPES, "stub": entry}
    monkeypatch.setattr(training, "RECIPES", recipes)


def test_recipes_are_listed(capsys: pytest.CaptureFixture[str]):
    assert run(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.search(r"^stub +A run of nothing. It takes seconds.$", "\n".join(lines), re.MULTILINE)
    assert {line.split()[0] for line in lines} == set(training.RECIPES)


def test_launch_files_are_listed(capsys: pytest.CaptureFixture[str]):
    assert run(["train", "--launch-files"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert all(path.is_file() for path in paths)
    assert {"single.yaml", "ddp_8gpu.yaml", "fsdp2_8gpu.yaml", "zero3_8gpu.yaml"} <= {path.name for path in paths}


def test_a_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "run"
    assert run(["train", "stub", f"out={out}", "epochs=1.5", "optimizer.clip_norm=0.5", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    for line in (f"out: {out}", "  clip_norm: 0.5", "steps: 60", "synthetic", "text_model", "activations", "MiB"):
        assert line in shown
    assert not out.exists()


def test_a_run_is_refused_resumed_and_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["train", "stub", f"out={tmp_path}"]
    assert run(command) == 0
    assert f"written: {tmp_path / 'weights'}" in capsys.readouterr().out
    assert (tmp_path / "weights" / "model.safetensors").is_file()
    assert run(command) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert "add --resume" in errors[-1]
    assert run([*command, "--resume"]) == 0
    assert run([*command, "seed=5", "--resume"]) == 2
    assert "seed 5" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(("poisoned", "code"), [((1,), 0), ((0, 1, 2), 2)])
def test_what_is_not_finite_is_named_and_ends_the_run_the_third_time(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    poisoned: Sequence[int],
    code: int,
):
    monkeypatch.setattr(Watched, "poisoned", poisoned)
    assert run(["train", "stub", f"out={tmp_path}"]) == code
    *_, last = (line for line in capsys.readouterr().err.splitlines() if "the gradient is not finite" in line)
    (sample,) = scenes().batch(poisoned[-1], size=(64, 64), batch_size=1).sample_ids
    assert f"step {poisoned[-1]}: the gradient is not finite; samples: {sample}" in last
    assert ("(3 steps in a row); look at these, or start anew" in last) == (code == 2)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_with_0(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals):
    began = tmp_path / "began"
    monkeypatch.setattr(Watched, "slow", began)
    command = ["train", "stub", f"out={tmp_path / 'run'}"]

    def send() -> None:
        # A step sleeps once it has begun, under the trainer's handlers.
        while not began.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    assert run(command) == 0
    sender.join()
    assert [path.name for path in checkpoint.kept(tmp_path / "run")] == ["step_00000003"]
    assert not (tmp_path / "run" / "weights").exists()
    monkeypatch.setattr(Watched, "slow", None)
    assert run([*command, "--resume"]) == 0
    assert (tmp_path / "run" / "weights").is_dir()
