"""How long the parts of a training step take, and with how much memory.

* ``losses``: the matcher and the losses of a full-size model (300 queries, 133 classes, ten predictions, 12544 points,
  a picture of 640x480 with 16 segments) beside transformers' ``Mask2FormerLoss`` on the same tensors. Its matching is
  the same; its losses lack the IoU branch.
* ``head``: a training step of the full-size head on random feature maps; the backbone is left out.
* ``nano``: a training step of the recipe ``nano`` at its last resolution, and how long its loop waits for batches.

Repeats of what is compared alternate; medians are reported. Peak memory is taken in a process of its own, above what is
resident before the step.

    python -m benchmarks.training --data ../shared/data    # minutes; one thread
    python -m benchmarks.training --quick                  # tiny sizes, seconds: shows that it runs, measures nothing
"""

import argparse
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest import mock

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from benchmarks import make_tables
from benchmarks.segment import machine, resident_bytes
from omgvision.data import SyntheticScenes
from omgvision.data.collate import collate
from omgvision.data.sample import Batch
from omgvision.models.omg_seg import modeling_omg_seg
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.loss_omg_seg import object_losses, prompt_losses
from omgvision.models.omg_seg.matcher_omg_seg import LossWeights, Predictions, match
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.points_omg_seg import RandomPoints
from omgvision.models.omg_seg.vocabulary_omg_seg import TEMPLATES, build_clip_tokenizer
from omgvision.output_files import write_json
from omgvision.training import trainer
from omgvision.training.objective import SegmentationObjective
from omgvision.training.optimizer import build_optimizer
from omgvision.training.recipe import ObjectiveSettings, Recipe, Stage
from omgvision.training.run import RECIPES
from omgvision.training.words import LearnedWords

HERE = Path(__file__).resolve().parent

Subject = Literal["ours", "transformers", "head", "nano"]
SUBJECTS: tuple[Subject, ...] = ("ours", "transformers", "head", "nano")
STAGES = ("data", "forward", "matcher", "loss", "backward", "optimizer")


@dataclass(frozen=True)
class Setup:
    """Sizes of what is measured.

    Attributes:
        config: Of the full-size head.
        classes, segments: Of the vocabulary; of the picture.
        size: (height, width) of the picture.
        repeats: Of the losses.
        steps: Of the head and of nano.
        loop: Steps of nano's loop in which waiting is measured.
        data: Folder with the data of nano; None takes a tiny model and rendered scenes instead.
    """

    config: OmgSegConfig
    classes: int
    segments: int
    size: tuple[int, int]
    repeats: int
    steps: int
    loop: int
    data: Path | None


def full_setup(*, repeats: int, steps: int, loop: int, data: Path) -> Setup:
    # Of the backbone only the widths matter here.
    backbone = ClipConvNextConfig(depths=[1, 1, 1, 1])
    return Setup(OmgSegConfig(backbone_config=backbone), 133, 16, (480, 640), repeats, steps, loop, data)


def quick_setup() -> Setup:
    config = OmgSegConfig(
        backbone_config=ClipConvNextConfig(hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1]),
        hidden_size=64,
        num_attention_heads=4,
        num_queries=12,
        encoder_layers=2,
        encoder_ffn_dim=128,
        decoder_layers=3,
        decoder_ffn_dim=128,
        embedding_dim=32,
        num_loss_points=3000,
    )
    return Setup(config, 7, 3, (96, 128), 2, 1, 3, None)


class Stages:
    """Seconds and peak bytes of the stages of a step; time in an inner stage is not the outer one's.

    Args:
        memory: Measure bytes (above those resident now) instead of seconds.
    """

    def __init__(self, *, memory: bool = False) -> None:
        self.seconds: dict[str, float] = {}
        self.peaks: dict[str, int] = {}
        self._memory, self._open, self._since = memory, list[str](), 0.0
        if memory:
            gc.collect()
            self._base = resident_bytes("VmRSS")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._account()
        self._open.append(name)
        try:
            yield
        finally:
            self._account()
            self._open.pop()

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **named)

        return call

    def _account(self) -> None:
        now = time.perf_counter()
        if self._open:
            name = self._open[-1]
            self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
            if self._memory:
                peak = resident_bytes("VmHWM") - self._base
                self.peaks[name] = max(self.peaks.get(name, 0), peak)
        if self._memory:
            reset = Path("/proc/self/clear_refs")
            if reset.exists():
                reset.write_text("5")  # the peak starts again from what is resident now
        self._since = time.perf_counter()


@contextmanager
def model_stages(stages: Stages) -> Iterator[None]:
    """Matcher and losses inside the model's forward pass become stages of their own."""
    with (
        mock.patch.object(modeling_omg_seg, "match", stages.timed("matcher", match)),
        mock.patch.object(modeling_omg_seg, "object_losses", stages.timed("loss", object_losses)),
        mock.patch.object(modeling_omg_seg, "prompt_losses", stages.timed("loss", prompt_losses)),
    ):
        yield


@dataclass(frozen=True)
class Problem:
    """Random predictions of L layers for one picture, and its segments.

    Attributes:
        classes, ious, masks: L leaves [1, Q, K + 1], [1, Q] and [1, Q, h, w].
        truth: [n, H, W], 0 and 1.
        labels: [n].
    """

    classes: list[Tensor]
    ious: list[Tensor]
    masks: list[Tensor]
    truth: Tensor
    labels: Tensor

    def forget_gradients(self) -> None:
        for leaf in (*self.classes, *self.ious, *self.masks):
            leaf.grad = None


def problem(setup: Setup) -> Problem:
    generator = torch.Generator().manual_seed(0)
    height, width = setup.size
    queries, layers = setup.config.num_queries, setup.config.decoder_layers + 1

    def blobs(count: int, size: tuple[int, int]) -> Tensor:
        noise = torch.randn(1, count, height // 32, width // 32, generator=generator)
        return 3 * F.interpolate(noise, size=size, mode="bilinear", align_corners=False)

    return Problem(
        classes=[
            torch.randn(1, queries, setup.classes + 1, generator=generator).requires_grad_() for _ in range(layers)
        ],
        ious=[torch.randn(1, queries, generator=generator).requires_grad_() for _ in range(layers)],
        masks=[blobs(queries, (height // 4, width // 4)).requires_grad_() for _ in range(layers)],
        truth=(blobs(setup.segments, setup.size)[0] > 1).float(),
        labels=torch.randint(setup.classes, (setup.segments,), generator=generator),
    )


LossStep = Callable[[Problem, Stages], dict[str, Tensor]]
"""One forward and backward pass; returns the losses of the last layer, weighted."""


def our_losses(setup: Setup) -> LossStep:
    config = setup.config
    weights = LossWeights(
        cls=config.class_weight, mask=config.mask_weight, dice=config.dice_weight, iou=0.0, void=config.void_weight
    )
    points = RandomPoints(config.num_loss_points, config.oversample_ratio, config.importance_sample_ratio)

    def step(given: Problem, stages: Stages) -> dict[str, Tensor]:
        truth, labels = [given.truth[:, None]], [given.labels]
        with stages.stage("loss"):
            masks = [layer[:, :, None] for layer in given.masks]
            predictions = Predictions(torch.stack(given.classes), torch.stack(given.ious), masks)
            with stages.stage("matcher"):
                assignments = match(predictions, truth, labels, weights, points)
            losses = object_losses(predictions, truth, labels, assignments, weights, points)
            total = torch.stack(list(losses.values())).sum()
        with stages.stage("backward"):
            total.backward()
        return {name: losses[f"loss_{name}"].detach() for name in ("cls", "mask", "dice")}

    return step


def transformers_losses(setup: Setup) -> LossStep:
    ours = setup.config
    criterion = Mask2FormerLoss(
        Mask2FormerConfig(
            num_labels=setup.classes,  # pyright: ignore[reportCallIssue]
            num_queries=ours.num_queries,
            class_weight=ours.class_weight,
            mask_weight=ours.mask_weight,
            dice_weight=ours.dice_weight,
            no_object_weight=ours.void_weight,
            train_num_points=ours.num_loss_points,
            oversample_ratio=ours.oversample_ratio,
            importance_sample_ratio=ours.importance_sample_ratio,
        ),
        weight_dict={},
    )
    kinds = {"loss_cross_entropy": ours.class_weight, "loss_mask": ours.mask_weight, "loss_dice": ours.dice_weight}
    factors = kinds | {f"{kind}_{layer}": kinds[kind] for kind in kinds for layer in range(ours.decoder_layers)}

    def step(given: Problem, stages: Stages) -> dict[str, Tensor]:
        layers = [
            {"masks_queries_logits": masks, "class_queries_logits": classes}
            for masks, classes in zip(given.masks, given.classes, strict=True)
        ]
        truth, labels = [given.truth], [given.labels]
        timed = stages.timed("matcher", criterion.matcher.forward)
        with stages.stage("loss"), mock.patch.object(criterion.matcher, "forward", timed):
            losses = criterion(
                **layers[-1],
                mask_labels=truth,
                class_labels=labels,
                auxiliary_predictions=layers[:-1],
            )
            total = torch.stack([factors[name] * loss for name, loss in losses.items()]).sum()
        with stages.stage("backward"):
            total.backward()
        last = [kinds[kind] * losses[kind].detach() for kind in kinds]
        return dict(zip(("cls", "mask", "dice"), last, strict=True))

    return step


LOSSES: dict[str, Callable[[Setup], LossStep]] = {"ours": our_losses, "transformers": transformers_losses}


def measure_losses(setup: Setup) -> dict[str, Any]:
    given = problem(setup)
    steps = {name: build(setup) for name, build in LOSSES.items()}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in steps}
    for repeat in range(setup.repeats + 1):
        for name, step in steps.items():
            stages = Stages()
            step(given, stages)
            given.forget_gradients()
            if repeat:  # the first warms up
                runs[name].append(stages.seconds)
                print(f"losses, {name} {repeat}: {_shown(stages.seconds)}", flush=True)
    median = {name: medians(of_one) for name, of_one in runs.items()}
    ours, theirs = median["ours"], median["transformers"]
    ratios = {stage: theirs[stage] / ours[stage] for stage in ours}
    both = "matcher and loss"
    ratios[both] = (theirs["matcher"] + theirs["loss"]) / (ours["matcher"] + ours["loss"])
    return {"median": median, "runs": runs, "transformers over ours": ratios}


class GivenFeatures(nn.Module):
    """Stands in for the backbone."""

    def __init__(self, channels: Sequence[int], size: tuple[int, int]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.features = [
            torch.randn(1, width, size[0] // stride, size[1] // stride, generator=generator)
            for width, stride in zip(channels, modeling_omg_seg.STRIDES, strict=True)
        ]

    def forward(self, pixel_values: Tensor) -> Any:
        return SimpleNamespace(feature_maps=self.features)


def head_step(setup: Setup) -> Callable[[Stages], int]:
    """A step of the head; returns the number of images."""
    torch.manual_seed(0)
    model = OmgSegForUniversalSegmentation(setup.config)
    given = problem(setup)
    embeddings = F.normalize(torch.randn(setup.classes, 1, setup.config.embedding_dim), dim=-1)
    model.set_class_embeddings(embeddings, torch.ones(setup.classes, dtype=torch.bool))
    model.model.backbone = GivenFeatures(model.model.backbone.channels, setup.size)
    model.train()
    pixels = torch.zeros(1, 3, *setup.size)

    def step(stages: Stages) -> int:
        with stages.stage("forward"), model_stages(stages):
            loss = model(pixels, mask_labels=[given.truth], class_labels=[given.labels]).loss
        with stages.stage("backward"):
            loss.backward()
        model.zero_grad()
        return 1

    return step


def nano_parts(setup: Setup) -> tuple[Recipe, SegmentationObjective, trainer.BatchSource]:
    if setup.data is None:
        return tiny_parts(setup)
    entry = RECIPES["nano"]
    recipe = replace(entry.recipe(), data=setup.data)
    torch.manual_seed(recipe.seed)
    return recipe, entry.objective(recipe), entry.source(recipe)


class Scenes:
    """Rendered scenes by number."""

    def __init__(self) -> None:
        self.scenes = SyntheticScenes(size=(64, 64), length=1000)

    def batch(self, step: int, *, size: tuple[int, int], batch_size: int, part: int = 0, parts: int = 1) -> Batch:
        first = (step * parts + part) * batch_size
        return collate([self.scenes[index] for index in range(first, first + batch_size)])


def tiny_parts(setup: Setup) -> tuple[Recipe, SegmentationObjective, trainer.BatchSource]:
    """What `--quick` takes for nano."""
    text = CLIPTextConfig(
        vocab_size=49408, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        projection_dim=setup.config.embedding_dim,
    )  # fmt: skip
    config = OmgSegConfig(**{**setup.config.to_dict(), "text_config": text, "clip_head": "linear"})
    model = OmgSegForUniversalSegmentation(config)
    objective = SegmentationObjective(
        model,
        embed=LearnedWords(model, tokenizer=build_clip_tokenizer(), templates=TEMPLATES),
        settings=ObjectiveSettings(points=2, boxes=1),
    )
    recipe = Recipe(name="tiny", data=Path("."), out=Path("."), steps=1, stages=(Stage((64, 64), 2, 1.0),), workers=1)
    return recipe, objective, Scenes()


def nano_step(setup: Setup) -> Callable[[Stages], int]:
    """A step of nano at its last resolution, its batch made in the loop; returns the number of images."""
    recipe, objective, source = nano_parts(setup)
    stage = recipe.stages[-1]
    optimizer = build_optimizer(objective.train(), recipe.optimizer)
    numbers = iter(range(2**31))

    def step(stages: Stages) -> int:
        with stages.stage("data"):
            batch = source.batch(next(numbers), size=stage.size, batch_size=stage.batch_size)
            assert isinstance(batch, Batch)
            normalizers = objective.normalizers(batch)
        with stages.stage("forward"), model_stages(stages):
            loss = objective(batch, normalizers)["loss"]
        with stages.stage("backward"):
            loss.backward()
        with stages.stage("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
        return len(batch.sample_ids)

    return step


STEPS: dict[str, Callable[[Setup], Callable[[Stages], int]]] = {"head": head_step, "nano": nano_step}


def measure_step(setup: Setup, subject: Literal["head", "nano"]) -> dict[str, Any]:
    step = STEPS[subject](setup)
    runs, images = [], 0
    for repeat in range(setup.steps + 1):
        stages = Stages()
        images = step(stages)
        if repeat:
            runs.append(stages.seconds)
            print(f"{subject} {repeat}: {_shown(stages.seconds)}", flush=True)
    median = medians(runs)
    return {
        "images": images,
        "median": median,
        "runs": runs,
        "images_per_second": {stage: images / seconds for stage, seconds in median.items()},
    }


def measure_waiting(setup: Setup) -> dict[str, float]:
    """Seconds that the loop of nano takes and waits for batches, without its first step, which waits for the start."""
    recipe, objective, source = nano_parts(setup)
    marks: list[tuple[float, float]] = []

    def watched(source: trainer.BatchSource, run: trainer.Run) -> Iterator[list[trainer.TrainingBatch]]:
        batches = steps(source, run)
        while True:
            asked = time.perf_counter()
            taken = next(batches, None)
            marks.append((asked, time.perf_counter()))
            if taken is None:
                return
            yield taken

    steps = trainer.steps
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(trainer, "steps", watched):
        stages = (replace(recipe.stages[-1], share=1.0),)
        short = replace(
            recipe,
            out=Path(folder) / "run",
            steps=setup.loop,
            epochs=None,
            minutes=None,
            stages=stages,
            log_every=0,
            evaluate_every=0,
            checkpoint_every=0,
        )
        trainer.train(objective, source, short)
    # The last request only learns that the run is over; before it the run was saved.
    seconds = marks[-2][1] - marks[0][1]
    waiting = sum(got - asked for asked, got in marks[1:-1])
    return {"steps": setup.loop, "seconds": seconds, "waiting": waiting, "share": waiting / seconds}


def measure_memory(setup: Setup, subject: Subject) -> dict[str, int]:
    """Peak bytes of each stage above what is resident before the step; to be called in a fresh process."""
    if subject in LOSSES:
        given, losses = problem(setup), LOSSES[subject](setup)
        stages = Stages(memory=True)
        losses(given, stages)
    else:
        step = STEPS[subject](setup)
        stages = Stages(memory=True)
        step(stages)
    return stages.peaks


def measure_memory_apart(subjects: Sequence[Subject], arguments: Sequence[str]) -> dict[str, dict[str, int]]:
    report = {}
    for subject in subjects:
        command = [sys.executable, "-m", "benchmarks.training", *arguments, "--memory-of", subject]
        finished = subprocess.run(command, check=True, capture_output=True, text=True, cwd=HERE.parent)
        report[subject] = json.loads(finished.stdout.splitlines()[-1])
        print(f"{subject}: {max(report[subject].values()) / 2**20:.0f} MiB at most", flush=True)
    return report


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Seconds of each stage in the steps that have it, and of whole steps: batches of prompts match nothing."""
    seconds = {stage: [run[stage] for run in runs if stage in run] for stage in STAGES}
    median = {stage: statistics.median(measured) for stage, measured in seconds.items() if measured}
    return median | {"whole": statistics.median(sum(run.values()) for run in runs)}


def _shown(seconds: dict[str, float]) -> str:
    return ", ".join(f"{stage} {seconds[stage]:.2f} s" for stage in STAGES if stage in seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Times and memory of a training step, beside transformers' losses.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that everything runs")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder with the data of nano")
    parser.add_argument("--repeats", type=int, default=5, help="of the losses")
    parser.add_argument("--steps", type=int, default=3, help="of the head and of nano")
    parser.add_argument("--loop", type=int, default=20, help="steps in which waiting for batches is measured")
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/training.json unless --quick")
    parser.add_argument("--memory-of", choices=SUBJECTS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    data = options.data.resolve()
    setup = (
        quick_setup()
        if options.quick
        else full_setup(repeats=options.repeats, steps=options.steps, loop=options.loop, data=data)
    )
    transformers.logging.set_verbosity_error()

    if options.memory_of:
        print(json.dumps(measure_memory(setup, options.memory_of)))
        return

    report = {
        "command": "python -m benchmarks.training" + (" --quick" if options.quick else ""),
        "machine": machine(),
        "repeats": setup.repeats,
        "size": list(setup.size),
        "queries": setup.config.num_queries,
        "classes": setup.classes,
        "predictions": setup.config.decoder_layers + 1,
        "points": setup.config.num_loss_points,
        "segments": setup.segments,
        "losses": measure_losses(setup),
        "head": measure_step(setup, "head"),
        "nano": measure_step(setup, "nano"),
        "waiting": measure_waiting(setup),
        "peak_bytes": measure_memory_apart(SUBJECTS, ["--quick"] if options.quick else ["--data", str(data)]),
    }
    print(make_tables.training(report))
    output = options.output or (None if options.quick else HERE / "results" / "training.json")
    if output is not None:
        write_json(output, report)
        print(f"wrote {output}")


if __name__ == "__main__":
    main()
