"""The loop on a model of two weights: resuming, stages, signals, bad gradients."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from omgvision.training import checkpoint
from omgvision.training.recipe import OptimizerSettings, Recipe, Stage
from omgvision.training.trainer import TrainingDiverged, train


@dataclass
class Numbers:
    values: Tensor
    sample_ids: tuple[str, ...]


class Source:
    """Random numbers by batch number; `size` and the numbers asked for are noted."""

    def __init__(self, poisoned: tuple[int, ...] = ()):
        self.asked: list[tuple[int, tuple[int, int], int]] = []
        self.poisoned = poisoned

    def batch(self, index: int, *, size: tuple[int, int], batch_size: int) -> Numbers:
        self.asked.append((index, size, batch_size))
        values = torch.randn(batch_size, 4, generator=torch.Generator().manual_seed(index))
        if index in self.poisoned:
            values[0, 0] = torch.nan
        return Numbers(values, tuple(f"sample-{index}-{item}" for item in range(batch_size)))


class Objective(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, batch: Numbers) -> dict[str, Tensor]:
        noise = torch.rand(4)  # the draws of a real loss must be repeated after a resume too
        loss = (self.norm(self.layer(batch.values)) - noise).square().mean()
        return {"loss": loss, "part": loss / 2}


def recipe(out: Path, **changes) -> Recipe:
    base = Recipe(
        name="stub",
        data=out,
        out=out,
        steps=12,
        stages=(Stage((32, 32), 2, 0.5), Stage((64, 64), 1, 0.5)),
        optimizer=OptimizerSettings(learning_rate=1e-2, warmup_steps=2, clip_norm=1.0),
        workers=0,
        log_every=4,
        checkpoint_every=0,
    )
    return replace(base, **changes)


def final(folder: Path) -> dict:
    state = checkpoint.load(folder)
    assert state is not None
    return state


def assert_same(left, right) -> None:
    assert type(left) is type(right)
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left.keys() - {"elapsed"}:
            assert_same(left[key], right[key])
    elif isinstance(left, list):
        for one, other in zip(left, right, strict=True):
            assert_same(one, other)
    elif isinstance(left, Tensor):
        assert torch.equal(left, right)
    else:
        assert left == right


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_stopped_run_continues_bit_for_bit(tmp_path: Path, accumulation: int):
    train(Objective(), Source(), recipe(tmp_path / "whole", accumulation=accumulation))

    class Interrupting(Source):
        def batch(self, index: int, *, size: tuple[int, int], batch_size: int) -> Numbers:
            if index == 4 * accumulation:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().batch(index, size=size, batch_size=batch_size)

    train(Objective(), Interrupting(), recipe(tmp_path / "parts", accumulation=accumulation))
    assert final(tmp_path / "parts")["step"] == 5
    train(Objective(), Source(), recipe(tmp_path / "parts", accumulation=accumulation))
    assert_same(final(tmp_path / "whole"), final(tmp_path / "parts"))


def test_a_signal_to_all_processes_still_saves(tmp_path: Path):
    class Signalling(Objective):
        def forward(self, batch: Numbers) -> dict[str, Tensor]:
            if "sample-4-0" in batch.sample_ids:
                for process in multiprocessing.active_children():
                    assert process.pid is not None
                    os.kill(process.pid, signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.2)
            return super().forward(batch)

    train(Signalling(), Source(), recipe(tmp_path, workers=1))
    assert final(tmp_path)["step"] == 5


def test_workers_change_nothing(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path / "inside"))
    train(Objective(), Source(), recipe(tmp_path / "outside", workers=1))
    assert_same(final(tmp_path / "inside"), final(tmp_path / "outside"))


def test_stages_follow_each_other(tmp_path: Path):
    source = Source()
    train(Objective(), source, recipe(tmp_path))
    expected = [(index, (32, 32), 2) for index in range(6)] + [(index, (64, 64), 1) for index in range(6, 12)]
    assert source.asked == expected


def test_a_run_by_the_clock_ends_by_the_clock(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path, steps=10**9, minutes=1 / 60))
    state = final(tmp_path)
    assert 1 <= state["elapsed"] < 5
    assert 0 < state["step"] < 10**9


def test_a_finished_run_does_nothing_more(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path))
    source = Source()
    train(Objective(), source, recipe(tmp_path))
    assert source.asked == []


def test_log_has_the_mean_losses(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path))
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [4, 8, 12]
    for entry in entries:
        assert entry["part"] == pytest.approx(entry["loss"] / 2, abs=1e-5)
        assert entry["gradient_norm"] > 0


def test_a_bad_batch_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    averaged = train(Objective(), Source(poisoned=(5,)), recipe(tmp_path))
    assert all(value.isfinite().all() for value in averaged.values)
    assert "sample-5-0" in caplog.text


def test_bad_batches_in_a_row_end_the_run(tmp_path: Path):
    with pytest.raises(TrainingDiverged, match=r"sample-4-1"):
        train(Objective(), Source(poisoned=(2, 3, 4)), recipe(tmp_path))


def test_evaluation_sees_the_averaged_weights(tmp_path: Path):
    objective = Objective()
    seen: list[tuple[float, bool]] = []

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, Objective)
        seen.append((module.layer.weight[0, 0].item(), module.training))
        return {"weight": seen[-1][0]}

    averaged = train(objective, Source(), recipe(tmp_path, evaluate_every=6, ema_decay=0.9), evaluate=evaluate)
    weights = dict(zip(averaged.names, averaged.values, strict=True))
    assert seen[-1] == (weights["layer.weight"][0, 0].item(), False)
    assert objective.training
    assert objective.layer.weight[0, 0].item() != seen[-1][0]


def test_another_seed_is_refused_in_the_same_folder(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path, steps=1))
    with pytest.raises(ValueError, match="found one with 0"):
        train(Objective(), Source(), recipe(tmp_path, seed=1))


def test_a_broken_checkpoint_is_one_clear_line(tmp_path: Path):
    (tmp_path / checkpoint.NAME).write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="cannot be read"):
        train(Objective(), Source(), recipe(tmp_path))
