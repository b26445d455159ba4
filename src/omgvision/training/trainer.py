"""The training loop. `train` is all of it: batch, losses, backward, clip, step, average; `Run` keeps what lasts."""

import json
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from omgvision.training import checkpoint
from omgvision.training.optimizer import AveragedWeights, build_optimizer, learning_rate_factor, set_learning_rate
from omgvision.training.recipe import Recipe, Stage

logger = logging.getLogger(__name__)

MAX_BAD_STEPS = 3

Evaluate = Callable[[nn.Module], dict[str, float]]


class TrainingBatch(Protocol):
    """What the loop itself needs to know of a batch."""

    @property
    def sample_ids(self) -> Sequence[str]: ...


class BatchSource(Protocol):
    """Batches by number: the same number gives the same batch, whichever process asks and whenever."""

    def batch(self, index: int, *, size: tuple[int, int], batch_size: int) -> TrainingBatch: ...


class TrainingDiverged(RuntimeError):
    """The gradient was not finite several steps in a row."""


def train(
    objective: nn.Module, source: BatchSource, recipe: Recipe, *, evaluate: Evaluate | None = None
) -> AveragedWeights:
    """Runs `recipe` to its end, continuing `recipe.out`/checkpoint.pt where there is one.

    A run in steps that is stopped and resumed gives bit for bit the weights of one that was not: every batch and every
    random draw follows from the seed and the number of the batch. SIGTERM and SIGINT save and return early.

    Args:
        objective: batch → dict of scalar losses, `loss` being the one to minimise. It moves the batch to its device.
        source: Batches by number.
        recipe: The run.
        evaluate: objective (with the averaged weights, in evaluation mode) → numbers for the log.

    Returns:
        The averaged weights of `objective`'s parameters.

    Raises:
        TrainingDiverged: The gradient was not finite three times in a row; the message names the samples.
    """
    run = Run(objective, recipe, evaluate=evaluate)
    accelerator = run.accelerator
    model, optimizer = accelerator.prepare(objective, run.optimizer)
    sample_ids: list[str] = []
    with stop_on_signal() as stop:
        for index, batch in numbered_batches(source, run):
            torch.manual_seed(seed_of(recipe.seed, index))
            run.set_learning_rate()
            with accelerator.accumulate(model):
                losses = model(batch)
                accelerator.backward(losses["loss"])
                sample_ids.extend(batch.sample_ids)
                if accelerator.sync_gradients:
                    run.clip_gradient(model, sample_ids)
                    sample_ids.clear()
                optimizer.step()
                optimizer.zero_grad()
            run.journal.add(losses, images=len(batch.sample_ids) * accelerator.num_processes)
            if accelerator.sync_gradients:
                run.averaged.update(objective)
                run.advance(stop_requested=stop["requested"])
    return run.averaged


class Run:
    """The parts of a run that outlive a step, and what is done with them between steps."""

    def __init__(self, objective: nn.Module, recipe: Recipe, *, evaluate: Evaluate | None):
        self.recipe, self.objective, self.evaluate = recipe, objective, evaluate
        self.accelerator = Accelerator(
            mixed_precision="bf16" if recipe.precision == "bf16" else "no",
            gradient_accumulation_steps=recipe.accumulation,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        objective.to(self.accelerator.device).train()
        self.averaged = AveragedWeights(objective, recipe.ema_decay)
        self.optimizer = build_optimizer(objective, recipe.optimizer)
        self.journal = Journal(recipe.out / "log.jsonl")
        self.step, self.elapsed, self.bad_steps, self.stopping = 0, 0.0, 0, False
        recipe.out.mkdir(parents=True, exist_ok=True)
        self.resume()
        self.clock = time.monotonic() - self.elapsed

    @property
    def share(self) -> float:
        """Part of the run that is done, 0 to 1: steps, or the time of all its sessions where it follows the clock."""
        if self.recipe.minutes is not None:
            return min(self.elapsed / (60 * self.recipe.minutes), 1.0)
        return min(self.step / self.recipe.steps, 1.0)

    @property
    def finished(self) -> bool:
        return self.stopping or self.share >= 1

    def resume(self) -> None:
        """Continues from the checkpoint of the run's folder, if it holds one."""
        state = checkpoint.load(self.recipe.out)
        if state is None:
            return
        if state["seed"] != self.recipe.seed:
            raise ValueError(
                f"{self.recipe.out}: expected a run with seed {self.recipe.seed}, found one with {state['seed']}; "
                "give another out= folder"
            )
        self.objective.load_state_dict(state["objective"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        logger.info("resumed %s at step %d", self.recipe.out, self.step)

    def save(self) -> None:
        if self.accelerator.is_main_process:
            state = {
                "objective": self.objective.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "elapsed": self.elapsed,
                "seed": self.recipe.seed,
            }
            checkpoint.save(state, self.recipe.out)
        self.accelerator.wait_for_everyone()

    def set_learning_rate(self) -> None:
        set_learning_rate(self.optimizer, learning_rate_factor(self.recipe.optimizer, step=self.step, share=self.share))

    def clip_gradient(self, model: nn.Module, sample_ids: Sequence[str]) -> None:
        """Clips the gradient; drops one that is not finite, naming its samples.

        Raises:
            TrainingDiverged: It was the third in a row.
        """
        total = self.accelerator.clip_grad_norm_(model.parameters(), self.recipe.optimizer.clip_norm)
        assert total is not None
        norm = float(total)
        if math.isfinite(norm):
            self.bad_steps = 0
            self.journal.norms += norm
            return
        self.bad_steps += 1
        what = f"step {self.step}: the gradient is not finite; samples: {', '.join(sample_ids)}"
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainingDiverged(f"{what} ({MAX_BAD_STEPS} steps in a row)")
        logger.error("%s; the step is left out", what)
        self.optimizer.zero_grad()

    def advance(self, *, stop_requested: bool) -> None:
        """Counts a finished step and does what is due after it."""
        self.step += 1
        # The first process's clock and signals decide for all, so that none waits for another.
        seen = torch.tensor([time.monotonic() - self.clock, float(stop_requested)], dtype=torch.float64)
        if self.accelerator.num_processes > 1:
            seen = broadcast(seen.to(self.accelerator.device))
        self.elapsed, self.stopping = float(seen[0]), bool(seen[1])
        if self.is_due(self.recipe.log_every) and self.accelerator.is_main_process:
            self.journal.write(step=self.step, share=self.share, elapsed=self.elapsed)
        if self.evaluate is not None and self.is_due(self.recipe.evaluate_every):
            self.run_evaluation(self.evaluate)
        if self.is_due(self.recipe.checkpoint_every) or self.finished:
            self.save()
        if self.stopping:
            logger.warning("stopped by a signal at step %d; saved in %s", self.step, self.recipe.out)

    def is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def run_evaluation(self, evaluate: Evaluate) -> None:
        """Numbers of the averaged weights, as an entry of their own in the log."""
        if self.accelerator.is_main_process:
            self.objective.eval()
            with self.averaged.applied(self.objective), torch.inference_mode():
                numbers = evaluate(self.objective)
            self.objective.train()
            self.journal.append({"step": self.step, "evaluation": numbers})
            logger.info("step %d: %s", self.step, " ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
        self.accelerator.wait_for_everyone()


@dataclass
class Journal:
    """Means of the losses since the last entry, one JSON line an entry."""

    path: Path
    sums: dict[str, Tensor] = field(default_factory=dict)
    norms: float = 0.0
    batches: int = 0
    images: int = 0
    started: float = field(default_factory=time.monotonic)

    def add(self, losses: dict[str, Tensor], *, images: int) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + loss.detach()
        self.batches, self.images = self.batches + 1, self.images + images

    def append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def write(self, *, step: int, share: float, elapsed: float) -> None:
        """Appends the means, logs them with the time that remains, and starts anew."""
        speed = self.images / max(time.monotonic() - self.started, 1e-9)
        # A loss that some batches do not have counts as zero there, so that the terms add up to the total.
        means = {name: float(value) / self.batches for name, value in sorted(self.sums.items())}
        means["gradient_norm"] = self.norms / self.batches
        remaining = elapsed * (1 - share) / share
        self.append(
            {"step": step, "share": round(share, 5), "elapsed": round(elapsed, 1), "images_per_second": round(speed, 3)}
            | {name: round(value, 6) for name, value in means.items()}
        )
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        logger.info(
            "step %d, %.1f%%, %.1f images/s, %.0f min left: %s", step, 100 * share, speed, remaining / 60, shown
        )
        self.sums, self.norms, self.batches, self.images, self.started = {}, 0.0, 0, 0, time.monotonic()


class StageBatches(Dataset):
    """The batches of one stage, as a DataLoader's worker processes see them."""

    def __init__(self, source: BatchSource, stage: Stage):
        self.source, self.stage = source, stage

    def __getitem__(self, index: int) -> TrainingBatch:
        return self.source.batch(index, size=self.stage.size, batch_size=self.stage.batch_size)


def numbered_batches(source: BatchSource, run: Run) -> Iterator[tuple[int, TrainingBatch]]:
    """This process's batches with their numbers, from where the run stands to its end, stage after stage."""
    recipe, accelerator = run.recipe, run.accelerator
    stride = accelerator.num_processes
    while not run.finished:
        current = recipe.stage_at(run.share)
        first = run.step * recipe.accumulation * stride + accelerator.process_index
        logger.info(
            "stage %d: %s at %s px",
            current + 1,
            f"{recipe.stages[current].batch_size} images",
            recipe.stages[current].size,
        )
        loader = DataLoader(
            StageBatches(source, recipe.stages[current]),
            batch_size=None,
            sampler=range(first, 2**62, stride),
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            worker_init_fn=leave_signals_to_parent,
        )
        for taken, batch in enumerate(loader, start=1):
            yield first + (taken - 1) * stride, batch
            # A stage ends between optimizer steps only.
            if taken % recipe.accumulation == 0 and (run.finished or recipe.stage_at(run.share) != current):
                break


def leave_signals_to_parent(worker: int) -> None:
    """A worker ends when the loop tells it to, not by a signal to all processes, which the loop answers by saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def seed_of(seed: int, index: int) -> int:
    """A seed of its own for every batch number; an odd constant spreads neighbouring numbers."""
    return (seed * 0x9E3779B97F4A7C15 + index * 0xD1B54A32D192ED03 + 1) % 2**63


@contextmanager
def stop_on_signal() -> Iterator[dict[str, bool]]:
    """SIGTERM and SIGINT ask for an orderly end instead of killing; the former handlers come back afterwards."""
    stop = {"requested": False}

    def request(number: int, frame: FrameType | None) -> None:
        stop["requested"] = True

    former = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
