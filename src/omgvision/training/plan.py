"""What a run would be, without running it: settings, data, parameters, steps, and an estimate of its memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from omgvision.training.recipe import Recipe
from omgvision.training.run import Built
from omgvision.training.trainer import RecipeObjective, RecipeSource, TrainingBatch

MEBIBYTE = 2**20

PROBED_SIZES = ((96, 96), (160, 160))
"""Canvases on which the activations of one sample are measured; a straight line through them gives those of others."""


@dataclass(frozen=True)
class Plan:
    """See `plan`. Bytes are those of one process, where every process holds the model whole.

    Attributes:
        settings: The recipe, one line a field.
        datasets: Name, samples an epoch (with repeats) and share of the steps.
        steps: Of the whole run; None where the clock decides.
        modules: Name, parameters and how many of them are trained.
        memory: Name → bytes.
    """

    settings: tuple[str, ...]
    datasets: tuple[tuple[str, int, float], ...]
    samples_per_epoch: int
    steps: int | None
    modules: tuple[tuple[str, int, int], ...]
    memory: dict[str, int]

    def lines(self) -> Iterator[str]:
        """As text for the terminal."""
        yield from self.settings
        yield ""
        for name, samples, share in self.datasets:
            yield f"{name:24} {samples:>12,} samples an epoch {share:8.1%} of the steps"
        yield f"{'all':24} {self.samples_per_epoch:>12,} samples an epoch"
        yield f"{'steps':24} {'by the clock' if self.steps is None else format(self.steps, ',')}"
        yield ""
        for name, total, trained in self.modules:
            yield f"{name:24} {total:>12,} parameters {trained:>12,} trained"
        yield ""
        for name, amount in self.memory.items():
            yield f"{name:24} {amount / MEBIBYTE:>12,.0f} MiB"
        yield f"{'all':24} {sum(self.memory.values()) / MEBIBYTE:>12,.0f} MiB a process (estimate; FSDP2, ZeRO: less)"


def plan(built: Built[Any, Any]) -> Plan:
    """The plan of a run. Loads the first sample of every data set and computes two small steps."""
    recipe, objective = built.recipe, built.objective
    return Plan(
        settings=tuple(settings_of(recipe)),
        datasets=tuple(built.source.contents()),
        samples_per_epoch=built.source.samples_per_epoch,
        steps=None if recipe.minutes is not None else recipe.steps,
        modules=tuple(modules_of(objective)),
        memory=memory_of(objective, built.source, recipe),
    )


def settings_of(value: Any, *, indent: str = "") -> Iterator[str]:
    """`name: value` for every field of a (nested) dataclass, indented by depth."""
    for item in fields(value):
        inner = value.__dict__[item.name]
        if is_dataclass(inner):
            yield f"{indent}{item.name}:"
            yield from settings_of(inner, indent=f"{indent}  ")
        elif isinstance(inner, tuple) and inner and is_dataclass(inner[0]):
            yield f"{indent}{item.name}:"
            for one in inner:
                yield f"{indent}  - {', '.join(line.replace(': ', ' ') for line in settings_of(one))}"
        else:
            yield f"{indent}{item.name}: {inner}"


def modules_of(objective: RecipeObjective) -> Iterator[tuple[str, int, int]]:
    """The model's parts, two levels deep where a part is a model itself; then the sum."""
    parts: list[tuple[str, nn.Module]] = []
    for name, part in objective.model.named_children():
        parts += part.named_children() if name == "model" else [(name, part)]
    rows = [(name, *count(list(part.parameters()))) for name, part in parts]
    all_parts = count(list(objective.parameters()))
    rest = (all_parts[0] - sum(row[1] for row in rows), all_parts[1] - sum(row[2] for row in rows))
    yield from (row for row in rows if row[1])
    if rest[0]:
        yield "other", *rest
    yield "all", *all_parts


def count(parameters: Sequence[Tensor]) -> tuple[int, int]:
    """Numbers of values, and of those that are trained."""
    return sum(p.numel() for p in parameters), sum(p.numel() for p in parameters if p.requires_grad)


def memory_of(objective: RecipeObjective, source: RecipeSource, recipe: Recipe) -> dict[str, int]:
    """Bytes of a process in its largest stage; all but the activations follow from float32 and AdamW's two moments."""
    total, trained = count(list(objective.parameters()))
    each = [activations(objective, source, recipe, step) for step in source.kinds_of_steps()]
    peak = max(
        stage.batch_size * (base + slope * stage.size[0] * stage.size[1])
        for base, slope in each
        for stage in recipe.stages
    )
    return {
        "weights": 4 * total,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
        "averaged weights": 4 * trained,
        "activations": round(peak),
    }


def activations(objective: RecipeObjective, source: RecipeSource, recipe: Recipe, step: int) -> tuple[float, float]:
    """Bytes that autograd keeps of one sample of a step, as a straight line over the pixels: start and slope."""
    (pixels, kept), (more_pixels, more_kept) = (
        (size[0] * size[1], saved_bytes(objective, source.batch(step, size=size, batch_size=1), recipe))
        for size in PROBED_SIZES
    )
    slope = max(more_kept - kept, 0) / (more_pixels - pixels)
    return max(kept - slope * pixels, 0.0), slope


def saved_bytes(objective: RecipeObjective, batch: TrainingBatch, recipe: Recipe) -> int:
    """Bytes that autograd keeps for the backward pass of a batch, each storage once, weights not counted."""
    known = {parameter.untyped_storage().data_ptr() for parameter in objective.parameters()}
    storages: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    objective.train()
    half = recipe.precision != "fp32"
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast(objective.model.device.type, dtype=torch.bfloat16, enabled=half),
    ):
        losses = objective(batch, None, [0])
    del losses
    return sum(storages.values())
