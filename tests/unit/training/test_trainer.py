"""The loop on a model of a few weights: resuming, stages, signals, normalisers, bad gradients, bad samples."""

import json
import logging
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omgvision.training import checkpoint
from omgvision.training.recipe import OptimizerSettings, Recipe, Stage
from omgvision.training.trainer import Run, TrainingDiverged, train


@dataclass
class Numbers:
    values: Tensor
    sample_ids: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class Source:
    """Random numbers by step and place in the step; what is asked for is noted."""

    def __init__(self, poisoned: tuple[int, ...] = ()):
        self.asked: list[tuple[int, tuple[int, int], int]] = []
        self.poisoned = poisoned

    def batch(self, step: int, *, size: tuple[int, int], batch_size: int, part: int = 0, parts: int = 1) -> Numbers:
        self.asked.append((step, size, batch_size))
        places = range(part * batch_size, (part + 1) * batch_size)
        values = torch.stack(
            [torch.randn(4, generator=torch.Generator().manual_seed(step * 100 + place)) for place in places]
        )
        if step in self.poisoned:
            values[0, 0] = torch.nan
        return Numbers(values, tuple(f"sample-{step}-{place}" for place in places))


class Interrupting(Source):
    """Sends SIGTERM before the fifth step."""

    def batch(self, step: int, **named: Any) -> Numbers:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().batch(step, **named)


class Objective(nn.Module):
    """Its loss is a sum over samples, the number of which differs from batch to batch, by the step's number."""

    averaged_normalizers = ("weight",)

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def normalizers(self, batch: Numbers) -> dict[str, Tensor]:
        return {"weight": weights_of(batch).double().sum()}

    def forward(
        self,
        batch: Numbers,
        normalizers: Mapping[str, Tensor] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        total = (normalizers or self.normalizers(batch))["weight"]
        assert seeds is not None
        # The draws of a real loss must be repeated after a resume too, and follow the samples wherever they go.
        noise = torch.stack([torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        noise = noise + torch.rand(4)
        each = (self.norm(self.layer(batch.values)) - noise).square().mean(1)
        loss = (each * weights_of(batch)).sum() / total.float()
        return {"loss": loss, "part": loss / 2}


def weights_of(batch: Numbers) -> Tensor:
    return 1 + (batch.values[:, 0] > 0).float().nan_to_num()


def recipe(out: Path, **changes: Any) -> Recipe:
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
    found = checkpoint.newest(folder, check=lambda state: None)
    assert found is not None
    return found[0]


def entries(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


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

    stopped = train(Objective(), Interrupting(), recipe(tmp_path / "parts", accumulation=accumulation))
    assert stopped.stopping and stopped.share < 1
    assert final(tmp_path / "parts")["step"] == 5
    train(Objective(), Source(), recipe(tmp_path / "parts", accumulation=accumulation), resume=True)
    assert_same(final(tmp_path / "whole"), final(tmp_path / "parts"))


def test_a_signal_to_all_processes_still_saves(tmp_path: Path):
    class Signalling(Objective):
        def normalizers(self, batch: Numbers) -> dict[str, Tensor]:
            if "sample-4-0" in batch.sample_ids:
                for process in multiprocessing.active_children():
                    assert process.pid is not None
                    os.kill(process.pid, signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.2)
            return super().normalizers(batch)

    train(Signalling(), Source(), recipe(tmp_path, workers=1))
    assert final(tmp_path)["step"] == 5


def test_workers_change_nothing(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path / "inside"))
    train(Objective(), Source(), recipe(tmp_path / "outside", workers=1))
    assert_same(final(tmp_path / "inside"), final(tmp_path / "outside"))


def test_stages_follow_each_other(tmp_path: Path):
    source = Source()
    train(Objective(), source, recipe(tmp_path))
    expected = [(step, (32, 32), 2) for step in range(6)] + [(step, (64, 64), 1) for step in range(6, 12)]
    assert source.asked == expected


def test_accumulated_batches_are_one_large_batch(tmp_path: Path):
    """The samples weigh differently, so that the mean of the batches' means would be another number."""
    whole = recipe(tmp_path / "whole", stages=(Stage((32, 32), 6, 1.0),), steps=5, log_every=1)
    split = replace(whole, out=tmp_path / "split", stages=(Stage((32, 32), 2, 1.0),), accumulation=3)
    one, other = train(Objective(), Source(), whole), train(Objective(), Source(), split)
    torch.testing.assert_close(one.objective.state_dict(), other.objective.state_dict(), rtol=1e-5, atol=1e-6)
    for left, right in zip(entries(whole.out), entries(split.out), strict=True):
        assert left["loss"] == pytest.approx(right["loss"], abs=2e-6)
        assert left["gradient_norm"] == pytest.approx(right["gradient_norm"], abs=2e-5)
    apart = train(Objective(), Source(), replace(split, out=tmp_path / "apart", normalizer="original"))
    layer = "layer.weight"
    assert not torch.allclose(apart.objective.state_dict()[layer], one.objective.state_dict()[layer], atol=1e-5)


def test_every_batch_by_its_own_number_as_in_the_original(tmp_path: Path):
    """One batch a step: the two ways are the same then."""
    one = train(Objective(), Source(), recipe(tmp_path / "step"))
    other = train(Objective(), Source(), recipe(tmp_path / "original", normalizer="original"))
    torch.testing.assert_close(one.objective.state_dict(), other.objective.state_dict())


def test_a_run_by_the_clock_ends_by_the_clock(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path, steps=10**9, minutes=1 / 60))
    state = final(tmp_path)
    assert 1 <= state["elapsed"] < 5
    assert 0 < state["step"] < 10**9


def test_a_finished_run_does_nothing_more(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path))
    source = Source()
    assert train(Objective(), source, recipe(tmp_path), resume=True).step == 12
    assert source.asked == []


def test_log_has_the_mean_losses(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path))
    assert [entry["step"] for entry in entries(tmp_path)] == [4, 8, 12]
    for entry in entries(tmp_path):
        assert entry["part"] == pytest.approx(entry["loss"] / 2, abs=1e-5)
        assert entry["gradient_norm"] > 0
        assert entry["skipped"] == 0


def test_a_resumed_log_has_every_step_once(tmp_path: Path):
    """A crash leaves entries behind that are beyond the last checkpoint, and half a line."""
    train(Objective(), Source(), recipe(tmp_path, steps=12, checkpoint_every=4, keep_checkpoints=3))
    for folder in checkpoint.kept(tmp_path)[1:]:
        (folder / checkpoint.STATE).unlink()
        folder.rmdir()
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 13, "lo')
    train(Objective(), Source(), recipe(tmp_path), resume=True)
    assert [entry["step"] for entry in entries(tmp_path)] == [4, 8, 12]


def test_a_bad_batch_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = train(Objective(), Source(poisoned=(5,)), recipe(tmp_path))
    assert all(value.isfinite().all() for value in run.averaged.values)
    assert "sample-5-0" in caplog.text
    assert all(isinstance(entry["loss"], float) for entry in entries(tmp_path))


def test_bad_batches_in_a_row_end_the_run(tmp_path: Path):
    with pytest.raises(TrainingDiverged, match=r"sample-4-1"):
        train(Objective(), Source(poisoned=(2, 3, 4)), recipe(tmp_path))


def test_an_overflow_in_half_precision_is_no_bad_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The scaler starts too high on purpose, leaves steps out and comes down; more than three in a row are normal."""
    caplog.set_level(logging.INFO)
    settings = recipe(tmp_path, steps=3)
    run = Run(Objective(), settings, evaluate=None, pictures=None, resume=False)
    run.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8)
    batches = [Source(poisoned=(0,)).batch(0, size=(8, 8), batch_size=1)]
    for _ in range(5):
        run.model.zero_grad()
        losses = run.model(batches[0], None, [1])
        run.accelerator.scaler.scale(losses["loss"]).backward()
        run.accelerator.scaler.unscale_(run.optimizer)
        run.accelerator.scaler.update()
        run.clip_gradient(batches)
    assert run.bad_steps == 0
    assert caplog.text.count("overflow at a loss scale of") == 5


def test_evaluation_sees_the_averaged_weights(tmp_path: Path):
    objective = Objective()
    seen: list[tuple[float, bool]] = []

    def evaluate(module: nn.Module) -> dict[str, float]:
        assert isinstance(module, Objective)
        seen.append((module.layer.weight[0, 0].item(), module.training))
        return {"weight": seen[-1][0]}

    start = objective.layer.weight[0, 0].item()
    run = train(objective, Source(), recipe(tmp_path, evaluate_every=5, ema_decay=0.9), evaluate=evaluate)
    # Before the first step, when due, and at the end, which decides over the weights to keep.
    assert [entry["step"] for entry in entries(tmp_path) if "evaluation" in entry] == [0, 5, 10, 12]
    assert seen[0] == (start, False)
    assert seen[-1] == (run.averaged.values[0][0, 0].item(), False)
    assert objective.training
    assert objective.layer.weight[0, 0].item() != seen[-1][0]
    assert [entry["evaluation"] for entry in entries(tmp_path) if "evaluation" in entry][-1] == {"weight": seen[-1][0]}
    with run.averaged_objective() as averaged:
        assert averaged is objective
        assert objective.layer.weight[0, 0].item() == seen[-1][0]


def test_the_start_is_measured_once(tmp_path: Path):
    measured: list[str] = []

    def evaluate(module: nn.Module) -> dict[str, float]:
        measured.append("")
        return {}

    settings = recipe(tmp_path, evaluate_every=5, checkpoint_every=4)
    train(Objective(), Interrupting(), settings, evaluate=evaluate)
    train(Objective(), Source(), settings, evaluate=evaluate, resume=True)
    assert [entry["step"] for entry in entries(tmp_path) if "evaluation" in entry] == [0, 5, 10, 12]
    assert len(measured) == 4
    train(Objective(), Source(), replace(settings, out=tmp_path / "never", evaluate_every=0), evaluate=evaluate)
    assert len(measured) == 4


def test_bad_samples_are_named_once_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Torn(Source):
        def batch(self, step: int, **named: Any) -> Numbers:
            skipped = ("set: torn.png: no picture",) if step % 3 == 0 else ()
            return replace(super().batch(step, **named), skipped=skipped)

    train(Objective(), Torn(), recipe(tmp_path))
    assert [entry["skipped"] for entry in entries(tmp_path)] == [2, 3, 4]
    assert caplog.text.count("torn.png") == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_what_the_source_refuses_is_one_clear_line(tmp_path: Path, workers: int):
    class Refusing(Source):
        def batch(self, step: int, **named: Any) -> Numbers:
            raise ValueError("set: torn.png: expected a picture")

    with pytest.raises(ValueError, match=r"^set: torn.png: expected a picture$"):
        train(Objective(), Refusing(), recipe(tmp_path, workers=workers))


def test_a_folder_with_a_run_is_refused_unless_it_is_to_be_resumed(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path, steps=4))
    with pytest.raises(ValueError, match="add --resume to continue it") as caught:
        train(Objective(), Source(), recipe(tmp_path, steps=4))
    assert "\n" not in str(caught.value)
    train(Objective(), Source(), recipe(tmp_path / "new", steps=4), resume=True)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"file/run: cannot be made \(Not a directory\); give another out= folder"):
        train(Objective(), Source(), recipe(tmp_path / "file" / "run", steps=4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "expected a run with seed 1, found one with 0"),
        ({"name": "other"}, "expected a run with name other, found one with stub"),
        ({"steps": 5}, "expected a run with steps 5, found one with 4"),
        ({"optimizer": OptimizerSettings(clip_norm=2.0)}, "with optimizer.clip_norm 2.0, found one with 1.0"),
        ({"accumulation": 2}, "with samples a step 4,2, found one with 2,1"),
    ],
)
def test_another_run_is_refused_in_the_same_folder(tmp_path: Path, changes: dict[str, Any], message: str):
    train(Objective(), Source(), recipe(tmp_path, steps=4))
    with pytest.raises(ValueError, match=message) as caught:
        train(Objective(), Source(), recipe(tmp_path, **{"steps": 4, **changes}), resume=True)
    assert "\n" not in str(caught.value)


def test_another_model_is_refused_in_the_same_folder(tmp_path: Path):
    train(Objective(), Source(), recipe(tmp_path, steps=4))
    frozen = Objective()
    frozen.norm.requires_grad_(False)
    with pytest.raises(ValueError, match="expected a run with model"):
        train(frozen, Source(), recipe(tmp_path, steps=4), resume=True)


def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    train(Objective(), Source(), recipe(tmp_path / "whole", checkpoint_every=4))
    train(Objective(), Source(), recipe(tmp_path / "torn", checkpoint_every=4))
    newest = checkpoint.folder_of(tmp_path / "torn", 12) / checkpoint.STATE
    newest.write_bytes(newest.read_bytes()[:-2000])
    train(Objective(), Source(), recipe(tmp_path / "torn", checkpoint_every=4), resume=True)
    assert f"{newest.parent} cannot be read" in caplog.text
    assert_same(final(tmp_path / "whole"), final(tmp_path / "torn"))


def test_half_precision_on_a_cpu_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="fp16 needs an accelerator"):
        train(Objective(), Source(), recipe(tmp_path, precision="fp16"))


def test_bfloat16_keeps_the_weights_in_float32(tmp_path: Path):
    run = train(Objective(), Source(), recipe(tmp_path, precision="bf16"))
    assert {parameter.dtype for parameter in run.objective.parameters()} == {torch.float32}
    assert all(value.isfinite().all() for value in run.averaged.values)
