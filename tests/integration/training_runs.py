"""Small training runs, and what two processes do with them: `python -m tests.integration.training_runs FOLDER`."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import Tensor, nn

import omgvision  # noqa: F401  (registers the backbone)
from omgvision.data import Augmentation, Mixture, Source, SyntheticScenes
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.points_omg_seg import PointSource
from omgvision.models.omg_seg.vocabulary_omg_seg import TEMPLATES, build_clip_tokenizer
from omgvision.training import checkpoint
from omgvision.training.guidance import WordGuidance
from omgvision.training.objective import SegmentationObjective
from omgvision.training.processes import joined
from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage
from omgvision.training.trainer import Run, train
from omgvision.training.words import LearnedWords
from tests.models import small_text_config

STEPS = 5
LONG_STEPS = 60


@dataclass
class Numbers:
    values: Tensor
    sample_ids: tuple[str, ...]
    skipped: tuple[str, ...] = ()


class NumberSource:
    """Random numbers by step and place in the step."""

    def batch(self, step: int, *, size: tuple[int, int], batch_size: int, part: int = 0, parts: int = 1) -> Numbers:
        places = range(part * batch_size, (part + 1) * batch_size)
        values = [torch.randn(4, generator=torch.Generator().manual_seed(step * 100 + place)) for place in places]
        return Numbers(torch.stack(values), tuple(f"sample-{step}-{place}" for place in places))


class TornNumberSource(NumberSource):
    """The same; the second sample of every step stands for one that cannot be read."""

    def batch(self, step: int, *, part: int = 0, **named: Any) -> Numbers:
        skipped = ("numbers: torn.png: no picture",) if part == 1 else ()
        return replace(super().batch(step, part=part, **named), skipped=skipped)


class NumberObjective(nn.Module):
    """A sum over samples of different weight."""

    averaged_normalizers = ("weight",)

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4))

    def normalizers(self, batch: Numbers) -> dict[str, Tensor]:
        return {"weight": (1 + batch.values[:, 0].abs()).double().sum()}

    def forward(
        self, batch: Numbers, normalizers: Mapping[str, Tensor] | None = None, seeds: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        assert seeds is not None
        noise = torch.stack([torch.rand(4, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        each = (self.layers(batch.values) - noise - torch.rand(4)).square().mean(1)
        total = (normalizers or self.normalizers(batch))["weight"]
        return {"loss": (each * (1 + batch.values[:, 0].abs())).sum() / total.float()}


def segmentation_objective(
    settings: ObjectiveSettings | None = None,
    *,
    guidance: WordGuidance | None = None,
    points: PointSource | None = None,
) -> SegmentationObjective:
    """The real one around the smallest model that has every part; always the same weights."""
    torch.manual_seed(0)
    config = OmgSegConfig(
        backbone_config=ClipConvNextConfig(hidden_sizes=(8, 16, 16, 32), depths=(1, 1, 1, 1)),
        text_config=small_text_config(),
        clip_head="linear",
        embedding_dim=16,
        hidden_size=32,
        num_attention_heads=2,
        num_queries=8,
        group_norm_groups=4,
        encoder_layers=1,
        encoder_ffn_dim=32,
        decoder_layers=2,
        decoder_ffn_dim=32,
        point_refinement=True,
        freeze_backbone=False,
        num_loss_points=64,
        dense_loss_weight=1.0,
        region_loss_weight=1.0,
    )
    model = OmgSegForUniversalSegmentation(config)
    return SegmentationObjective(
        model,
        embed=LearnedWords(model, tokenizer=build_clip_tokenizer(), templates=TEMPLATES),
        settings=settings or ObjectiveSettings(points=2, boxes=1),
        guidance=guidance,
        points=points,
    )


def scenes() -> Mixture:
    return Mixture([Source(SyntheticScenes(size=(64, 64), length=40), augmentation=Augmentation())], seed=1)


def recipe(out: Path, *, batch_size: int, **changes: Any) -> Recipe:
    base = Recipe(
        name="stub",
        data=out,
        out=out,
        steps=STEPS,
        stages=(Stage((64, 64), batch_size, 1.0),),
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=0, clip_norm=1.0),
        ema_decay=0.9,
        workers=0,
        log_every=1,
        checkpoint_every=0,
    )
    return replace(base, **changes)


class SlowNumberSource(NumberSource):
    """Takes a moment for every step, so that there is time to be stopped."""

    def batch(self, step: int, **named: Any) -> Numbers:
        time.sleep(0.003)
        return super().batch(step, **named)


def long_run(out: Path) -> None:
    """A run of `LONG_STEPS` steps, or what is left of it."""
    settings = recipe(out, batch_size=2, steps=LONG_STEPS, checkpoint_every=3, log_every=5)
    train(NumberObjective(), SlowNumberSource(), settings, resume=True)


def keep_average(run: Run) -> None:
    """Writes the averaged weights as they would be exported."""
    with run.averaged_objective() as objective:
        if objective is not None:
            torch.save(objective.state_dict(), run.recipe.out / "averaged.pt")


class InterruptedScenes:
    """Scenes; in the second process a signal comes with step 2."""

    def batch(self, step: int, **named: Any) -> Any:
        if step == 2 and PartialState().process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return scenes().batch(step, **named)


def finished_slowly(*args: Any, finish: Callable[..., Path] = checkpoint.finish, **named: Any) -> Path:
    """A checkpoint that the first process writes for a while: the second must not look for it before it is there."""
    time.sleep(1)
    return finish(*args, **named)


def use_fsdp2() -> None:
    """Slices parameters from now on: accelerate offers that to GPUs alone, but PyTorch does it on CPUs as well once
    accelerate believes in GPUs."""
    AcceleratorState._reset_state()
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    }


def in_two_processes(folder: Path) -> None:
    """The runs of `test_training_distributed.py`, under DDP and, sliced, under FSDP2."""
    assert joined().num_processes == 2, "`omg train` asks for the processes before it trains: they must be two then"
    keep_average(train(NumberObjective(), TornNumberSource(), recipe(folder / "ddp_numbers", batch_size=1)))
    settings = recipe(folder / "ddp_original", batch_size=1, normalizer="original")
    keep_average(train(NumberObjective(), NumberSource(), settings))
    keep_average(train(segmentation_objective(), scenes(), recipe(folder / "ddp", batch_size=1)))
    use_fsdp2()
    settings = recipe(folder / "fsdp2", batch_size=1, evaluate_every=STEPS)
    run = train(
        segmentation_objective(),
        scenes(),
        settings,
        evaluate=lambda objective: {"parts": len(list(objective.modules()))},
    )
    keep_average(run)
    parts = replace(settings, out=folder / "fsdp2_parts", evaluate_every=0)
    with mock.patch.object(checkpoint, "finish", finished_slowly):
        stopped = train(segmentation_objective(), InterruptedScenes(), parts)
    assert stopped.stopping and stopped.step == 3
    keep_average(train(segmentation_objective(), scenes(), parts, resume=True))


if __name__ == "__main__":
    in_two_processes(Path(sys.argv[1]))
