"""The training loop. `train` is all of it: batches, losses, backward, clip, step, average; `Run` keeps what lasts."""

import hashlib
import logging
import math
import signal
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, get_worker_info
from transformers import PreTrainedModel

from omgvision.errors import UserError
from omgvision.training import checkpoint
from omgvision.training.monitor import Journal, Pictures
from omgvision.training.optimizer import AveragedWeights, build_optimizer, learning_rate_factor, set_learning_rate
from omgvision.training.processes import PATIENCE, on_cpu
from omgvision.training.recipe import Recipe, Stage
from omgvision.training.sharding import Sharding, mixed_precision

logger = logging.getLogger(__name__)

MAX_BAD_STEPS = 3
Evaluate = Callable[[nn.Module], dict[str, float]]


class TrainingBatch(Protocol):
    """What the loop itself needs to know of a batch."""

    @property
    def sample_ids(self) -> Sequence[str]: ...

    @property
    def skipped(self) -> Sequence[str]:
        """What was wrong with samples that others had to replace, one line each."""
        ...


class BatchSource(Protocol):
    """Batches by number: the same numbers give the same batch, whichever process asks and whenever."""

    def batch(
        self, step: int, *, size: tuple[int, int], batch_size: int, part: int = 0, parts: int = 1
    ) -> TrainingBatch:
        """Part `part` of `parts` (micro-batches × processes) of a step: `batch_size` of its batch_size·parts samples.

        How a step is divided changes neither the samples nor their augmentation.
        """
        ...


class Objective(Protocol):
    """Batch → losses; a module that moves the batch to its device."""

    @property
    def averaged_normalizers(self) -> tuple[str, ...]:
        """Those of the normalisers that processes share where every batch divides by its own numbers."""
        ...

    def normalizers(self, batch: Any) -> dict[str, Tensor]:
        """What this batch adds to the numbers its losses are divided by: float64 scalars, always of the same names."""
        ...

    def __call__(
        self, batch: Any, normalizers: Mapping[str, Tensor] | None = None, seeds: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """Scalar losses, `loss` being the one to minimise.

        Args:
            batch: Of the source.
            normalizers: Their sums over the whole step; the losses of the step's batches are summands of the step's
                then. Or those of `averaged_normalizers` alone: for the others every batch divides by its own, and the
                mean of its losses is the step's.
            seeds: One a sample, for what is drawn for it.
        """
        ...


class RecipeSource(BatchSource, Protocol):
    """What a recipe draws from: batches whose number in an epoch is known."""

    @property
    def samples_per_epoch(self) -> int:
        """With repeats."""
        ...

    def contents(self) -> Sequence[tuple[str, int, float]]:
        """Name of each dataset, its samples an epoch (with repeats), and its share of the steps."""
        ...

    def kinds_of_steps(self) -> Sequence[int]:
        """Numbers of steps of one sample each that show between them how large a step may be."""
        ...


class RecipeObjective(Objective, Protocol):
    """What a recipe trains: losses around one of transformers' models."""

    @property
    def model(self) -> PreTrainedModel: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self) -> Any: ...


class TrainingDiverged(UserError):
    """The gradient was not finite several steps in a row."""


def train(
    objective: Objective,
    source: BatchSource,
    recipe: Recipe,
    *,
    evaluate: Evaluate | None = None,
    pictures: Pictures | None = None,
    resume: bool = False,
) -> "Run":
    """Runs `recipe` to its end, in the process or in each of the processes that a launch file started.

    A run in steps that is stopped and resumed gives bit for bit the weights of one that was not: every batch and every
    random draw follows from the seed and the number of the step. SIGTERM and SIGINT save and return early.

    Args:
        objective: See `Objective`; its parameters are trained in place.
        source: Batches by number.
        recipe: The run.
        evaluate, pictures: objective (with the averaged weights, in evaluation mode) → numbers; pictures to look at.
            Asked before the first step, every `recipe.evaluate_every` steps and after the last.
        resume: Continue from the newest checkpoint in `recipe.out`, if there is one.

    Returns:
        The run, whose `averaged_objective` has the weights to keep.

    Raises:
        TrainingDiverged: The gradient was not finite three times in a row; the message names the samples.
        ValueError: `recipe.out` holds a run that is not to be resumed, or another one.
    """
    run = Run(objective, recipe, evaluate=evaluate, pictures=pictures, resume=resume)
    accelerator, model, optimizer = run.accelerator, run.model, run.optimizer
    with stop_on_signal() as stop:
        if run.step == 0:
            run.evaluate_if_due()  # what the run has to improve on
        for batches in steps(source, run):
            normalizers = run.normalizers(objective, batches)
            run.set_learning_rate()
            for micro, batch in enumerate(batches):
                # What is not drawn for a sample is the same in all batches of a step, as it would be in a large one.
                torch.manual_seed(seed_of(recipe.seed, run.step))
                with accelerator.accumulate(model):
                    with accelerator.autocast():
                        losses = model(batch, normalizers[micro], run.sample_seeds(batch, micro))
                    run.journal.add(losses, images=len(batch.sample_ids), skipped=batch.skipped)
                    accelerator.backward(run.loss_to_minimise(losses, batch))
                    if accelerator.sync_gradients:
                        run.clip_gradient(batches)
                    optimizer.step()
                    optimizer.zero_grad()
            run.averaged.update(run.sharding.local())
            run.advance(stop_requested=stop["requested"])
    run.journal.close()
    return run


class Run:
    """The parts of a run that outlive a step, and what is done with them between steps."""

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        *,
        evaluate: Evaluate | None,
        pictures: Pictures | None,
        resume: bool,
    ):
        assert isinstance(objective, nn.Module)
        self.recipe, self.objective, self.evaluate, self.pictures = recipe, objective, evaluate, pictures
        precision = mixed_precision(recipe.precision)
        # accelerate refuses another precision than that of the first run of a Python process.
        if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
            AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=on_cpu(),
            mixed_precision=precision,
            gradient_accumulation_steps=recipe.accumulation,
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=PATIENCE),
            ],
        )
        if recipe.precision == "fp16" and self.accelerator.device.type == "cpu":
            raise ValueError("precision: fp16 needs an accelerator, there is only a CPU; give precision=bf16 or fp32")
        self.parts = recipe.accumulation * self.accelerator.num_processes
        self.step, self.elapsed, self.bad_steps, self.stopping = 0, 0.0, 0, False
        objective.to(self.accelerator.device).train()
        optimizer = build_optimizer(objective, recipe.optimizer)
        self.fingerprint = recipe.fingerprint(processes=self.accelerator.num_processes) | {"model": shape_of(objective)}
        self.sharding = Sharding(self.accelerator, objective)
        self.model, self.optimizer = self.sharding.prepare(
            optimizer, precision=recipe.precision, clip_norm=recipe.optimizer.clip_norm
        )
        self.averaged = AveragedWeights(self.sharding.local(), recipe.ema_decay)
        skipped = self.open_folder(resume=resume)
        self.journal = Journal(
            recipe.out,
            main=self.accelerator.is_main_process,
            gather=lambda value: gather_object([value]),
            resumed_at=self.step,
            divisor=1 if recipe.normalizer == "step" else self.parts,
        )
        self.journal.skipped = skipped
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

    def open_folder(self, *, resume: bool) -> int:
        """Makes the run's folder, or continues the run that it holds; returns how many samples were skipped so far."""
        out, main = self.recipe.out, self.accelerator.is_main_process
        found = checkpoint.newest(out, check=self.check) if resume else None
        holds_a_run = bool(checkpoint.kept(out)) or (out / "log.jsonl").exists()
        self.accelerator.wait_for_everyone()
        if holds_a_run and not resume:
            raise ValueError(
                f"{out}: expected a folder without a run, found one; add --resume to continue it, or give another out= "
                "folder"
            )
        if main:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"{out}: cannot be made ({error.strerror}); give another out= folder") from error
            checkpoint.discard(out)
        if found is None:
            return 0
        state, folder = found
        # The averages pass through the parameters, so that each process takes its part of them.
        self.sharding.assign(state["averaged"])
        self.averaged = AveragedWeights(self.sharding.local(), self.recipe.ema_decay)
        self.averaged.updates = state["updates"]
        self.sharding.assign(state["objective"])
        if state["optimizer"]:
            self.sharding.load_optimizer_state(state["optimizer"])
        self.sharding.load_slices(folder)
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.elapsed = state["step"], state["elapsed"]
        logger.info("resumed %s at step %d", folder, self.step)
        return state["skipped"]

    def check(self, state: checkpoint.State) -> None:
        """Raises ValueError for the checkpoint of a run that is not this one."""
        for name in sorted(self.fingerprint.keys() | state["fingerprint"].keys()):
            expected, found = self.fingerprint.get(name, "nothing"), state["fingerprint"].get(name, "nothing")
            if expected != found:
                raise ValueError(
                    f"{self.recipe.out}: expected a run with {name} {expected}, found one with {found}; "
                    "give another out= folder"
                )

    def save(self) -> None:
        """Writes a checkpoint; called by all processes, and there for all of them when it returns."""
        out, main = self.recipe.out, self.accelerator.is_main_process
        partial = checkpoint.folder_of(out, self.step).with_suffix(checkpoint.PARTIAL)
        if main:
            checkpoint.begin(partial)
        self.accelerator.wait_for_everyone()
        state = {
            "objective": self.sharding.full(),
            "averaged": self.averaged_state(),
            "updates": self.averaged.updates,
            "optimizer": self.sharding.optimizer_state(),
            "scaler": {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict(),
            "step": self.step,
            "elapsed": self.elapsed,
            "skipped": self.journal.skipped,
            "fingerprint": self.fingerprint,
        }
        self.sharding.save_slices(partial)
        self.accelerator.wait_for_everyone()
        if main:
            checkpoint.finish(state, partial, keep=self.recipe.keep_checkpoints)
        # Who looks for the newest one earlier would continue another step than the first process.
        self.accelerator.wait_for_everyone()

    def averaged_state(self) -> dict[str, Tensor]:
        """The averages by name, whole, in the main process."""
        trained = {name for name, parameter in self.objective.named_parameters() if parameter.requires_grad}
        with self.averaged.applied(self.sharding.local()):
            return {name: tensor for name, tensor in self.sharding.full().items() if name in trained}

    @contextmanager
    def averaged_objective(self) -> Iterator[nn.Module | None]:
        """The objective with its averaged weights, whole, in evaluation mode; None in all but the main process.

        All processes must enter.
        """
        with self.averaged.applied(self.sharding.local()), self.sharding.whole_objective() as objective:
            yield objective
        self.accelerator.wait_for_everyone()

    def set_learning_rate(self) -> None:
        settings = self.recipe.optimizer
        factor = learning_rate_factor(settings, step=self.step, share=self.share)
        if settings.base_batch_size is not None:
            stage = self.recipe.stages[self.recipe.stage_at(self.share)]
            factor *= stage.batch_size * self.parts / settings.base_batch_size
        set_learning_rate(self.optimizer, factor)

    def normalizers(self, objective: Objective, batches: Sequence[TrainingBatch]) -> list[dict[str, Tensor]]:
        """What each batch of this process is divided by, see `Recipe.normalizer`."""
        original = self.recipe.normalizer == "original"
        each = [objective.normalizers(batch) for batch in batches]
        names = sorted(objective.averaged_normalizers if original else each[0])
        rows = torch.stack([torch.stack([one[name] for name in names]) for one in each])
        if not original:
            rows = rows.sum(0, keepdim=True).expand_as(rows)
        if self.accelerator.num_processes > 1:
            rows = self.accelerator.reduce(rows.contiguous().to(self.accelerator.device), "mean" if original else "sum")
        assert isinstance(rows, Tensor)
        return [dict(zip(names, row.unbind(), strict=True)) for row in rows]

    def sample_seeds(self, batch: TrainingBatch, micro: int) -> list[int]:
        """A seed for each sample, by its place in the step, however the step is divided."""
        part = micro * self.accelerator.num_processes + self.accelerator.process_index
        first = part * len(batch.sample_ids)
        return [
            seed_of(self.recipe.seed, self.step, place) % 2**62 for place in range(first, first + len(batch.sample_ids))
        ]

    def loss_to_minimise(self, losses: Mapping[str, Tensor], batch: TrainingBatch) -> Tensor:
        """`loss`, scaled so that the step's gradient is the plain sum over its batches where these are summands.

        DDP and FSDP2 average over processes, accelerate over micro-batches.
        """
        loss = losses["loss"]
        # DeepSpeed steps within `backward`: a bad gradient cannot be dropped, so it must not come to be.
        if self.sharding.deepspeed and self.accelerator.reduce((~loss.detach().isfinite()).float(), "sum"):
            raise TrainingDiverged(f"step {self.step}: {self.bad_samples([batch])}; continue with --resume")
        return loss * self.parts if self.recipe.normalizer == "step" else loss

    def bad_samples(self, batches: Sequence[TrainingBatch]) -> str:
        ids = [sample for batch in batches for sample in batch.sample_ids]
        return f"the gradient is not finite; samples: {', '.join(ids)}"

    def clip_gradient(self, batches: Sequence[TrainingBatch]) -> None:
        """Clips the gradient; drops one that is not finite, naming its samples.

        Raises:
            TrainingDiverged: It was the third in a row.
        """
        total = self.accelerator.clip_grad_norm_(self.model.parameters(), self.recipe.optimizer.clip_norm)
        norm = math.nan if total is None else float(total)
        if math.isfinite(norm) or self.sharding.deepspeed:
            self.bad_steps = 0
            self.journal.end_step(norm)
            return
        self.journal.end_step(None)
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() > 1:
            # The scaler leaves the step out and halves its factor: that is how it finds the right one.
            logger.info("step %d: overflow at a loss scale of %g; the step is left out", self.step, scaler.get_scale())
            return
        self.bad_steps += 1
        what = f"step {self.step}: {self.bad_samples(batches)}"
        if self.bad_steps >= MAX_BAD_STEPS:
            raise TrainingDiverged(
                f"{what} ({MAX_BAD_STEPS} steps in a row); look at these, or start anew with a lower "
                "optimizer.learning_rate"
            )
        logger.error("%s; the step is left out", what)
        self.optimizer.zero_grad()

    def advance(self, *, stop_requested: bool) -> None:
        """Counts a finished step and does what is due after it."""
        self.step += 1
        # The first process's clock decides for all, and a signal to any of them stops all, so that none waits.
        now = torch.tensor([time.monotonic() - self.clock], dtype=torch.float64)
        stop = torch.tensor([float(stop_requested)])
        if self.accelerator.num_processes > 1:
            now = broadcast(now.to(self.accelerator.device))
            stop = self.accelerator.reduce(stop.to(self.accelerator.device), "sum")
        assert isinstance(now, Tensor) and isinstance(stop, Tensor)
        self.elapsed, self.stopping = now.item(), bool(stop)
        if self.is_due(self.recipe.log_every):
            rate = max(group["lr"] for group in self.optimizer.param_groups)
            self.journal.write(step=self.step, share=self.share, elapsed=self.elapsed, learning_rate=rate)
        self.evaluate_if_due()
        if self.is_due(self.recipe.checkpoint_every) or self.finished:
            self.save()
        if self.stopping:
            logger.warning("stopped by a signal at step %d; saved in %s", self.step, self.recipe.out)

    def is_due(self, every: int) -> bool:
        return every > 0 and self.step % every == 0

    def evaluate_if_due(self) -> None:
        """Numbers and pictures of the averaged weights, as an entry of their own in the log.

        Due before the first step, after every so many, and at the end of the run, whose weights are kept.
        """
        every = self.recipe.evaluate_every
        if self.evaluate is None or not every or (self.share < 1 and not self.is_due(every)):
            return
        with self.averaged_objective() as objective, torch.inference_mode():
            if objective is not None:
                shown = {} if self.pictures is None or self.journal.board is None else self.pictures(objective)
                self.journal.write_evaluation(self.evaluate(objective), shown, step=self.step)


@dataclass(frozen=True)
class BadData:
    """A ValueError of a worker process, which would arrive as a page of text."""

    message: str
    trace: str


class StageBatches(Dataset):
    """The batches of one stage by number (step · parts + part), as a DataLoader's worker processes see them."""

    def __init__(self, source: BatchSource, stage: Stage, *, parts: int):
        self.source, self.stage, self.parts = source, stage, parts

    def __getitem__(self, number: int) -> TrainingBatch | BadData:
        step, part = divmod(number, self.parts)
        size, batch_size = self.stage.size, self.stage.batch_size
        try:
            return self.source.batch(step, size=size, batch_size=batch_size, part=part, parts=self.parts)
        except ValueError as error:
            if get_worker_info() is None:
                raise
            return BadData(str(error), traceback.format_exc())


def steps(source: BatchSource, run: Run) -> Iterator[list[TrainingBatch]]:
    """This process's batches of each step, from where the run stands to its end, stage after stage.

    Raises:
        ValueError: The source has no batch to give.
    """
    recipe, processes = run.recipe, run.accelerator.num_processes
    while not run.finished:
        current = recipe.stage_at(run.share)
        stage = recipe.stages[current]
        logger.info("stage %d: %d images at %s px", current + 1, stage.batch_size, stage.size)
        loader = DataLoader(
            StageBatches(source, stage, parts=run.parts),
            batch_size=None,
            sampler=range(run.step * run.parts + run.accelerator.process_index, 2**62, processes),
            num_workers=recipe.workers,
            prefetch_factor=4 if recipe.workers else None,
            worker_init_fn=leave_signals_to_parent,
        )
        batches: list[TrainingBatch] = []
        for batch in loader:
            if isinstance(batch, BadData):
                logger.debug(batch.trace)
                raise ValueError(batch.message)
            batches.append(batch)
            if len(batches) == recipe.accumulation:
                yield batches
                batches = []
                if run.finished or recipe.stage_at(run.share) != current:
                    break


def leave_signals_to_parent(worker: int) -> None:
    """A worker ends when the loop tells it to, not by a signal to all processes, which the loop answers by saving."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def seed_of(seed: int, *numbers: int) -> int:
    """A seed of its own for every combination of numbers; odd constants spread neighbours."""
    mixed = seed * 0x9E3779B97F4A7C15 + 1
    for number in numbers:
        mixed = (mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9 + number * 0xD1B54A32D192ED03
    return mixed % 2**63


def shape_of(model: nn.Module) -> str:
    """A short text that is the same for models with the same parameters by name, size and whether they are trained."""
    lines = [f"{name} {tuple(tensor.shape)} {tensor.requires_grad}" for name, tensor in model.named_parameters()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


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
