"""What a training run is: one frozen, typed value. A recipe is a function that returns it.

`override` changes fields from `key=value` strings, so that a command line reaches every number without a flag of its
own, and refuses what does not exist or does not fit.
"""

import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """A part of the run at one resolution.

    Attributes:
        size: Height and width of the training canvas in pixels.
        batch_size: Images a process draws for one micro-batch.
        share: Part of the whole run; the shares of all stages add up to one.
    """

    size: tuple[int, int]
    batch_size: int
    share: float


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and the course of its learning rate.

    Attributes:
        learning_rate: Peak rate.
        base_batch_size: Samples a step that the rate is meant for; other numbers scale it in proportion. None: any.
        weight_decay: On what `decayed` says.
        decayed: `matrices` of linear and convolution layers alone; or as the `original`, everything but norms, learned
            queries and the decoder's level embedding.
        backbone_factor, text_factor: Multipliers of the rate for `backbone` and `text_model`.
        clip_norm: Largest norm of the whole gradient.
        schedule: `cosine` falls to `final_factor` at the end; `steps` multiplies by 0.1 at each of `milestones`, as the
            original does.
        warmup_steps: Steps in which the rate rises linearly from a thousandth.
        milestones: Shares of the run, for `steps`.
    """

    learning_rate: float = 1e-4
    base_batch_size: int | None = None
    weight_decay: float = 0.05
    decayed: Literal["matrices", "original"] = "matrices"
    betas: tuple[float, float] = (0.9, 0.999)
    backbone_factor: float = 0.1
    text_factor: float = 1.0
    clip_norm: float = 0.01
    schedule: Literal["cosine", "steps"] = "cosine"
    warmup_steps: int = 500
    final_factor: float = 0.01
    milestones: tuple[float, ...] = (2 / 3, 11 / 12)


@dataclass(frozen=True)
class ObjectiveSettings:
    """What one step asks of the model beside the object queries.

    Attributes:
        prompt_weight: Factor of the prompt losses; 0 leaves the prompts out.
        points, boxes: Clicks and boxes drawn for an image, or for the first frame of a clip; batches that bring their
            prompts have those. 0 of both: none.
        refinement_rounds: Corrections after the first click, each on the remaining error. In clips, any number but 0
            has the clicked objects followed once more from their masks in the first frame.
        word_weight: Factor of the loss between words, where the recipe has a teacher for them.
        max_classes: Class names encoded a step: those of the batch and a random choice of the others.
        prompts_only: Data sets whose images show more than is annotated, so that unmatched object queries must not be
            taught to see nothing; they train the prompts alone.
    """

    prompt_weight: float = 1.0
    points: int = 8
    boxes: int = 4
    refinement_rounds: int = 1
    word_weight: float = 50.0
    max_classes: int = 160
    prompts_only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A run. Field order is the order of thought: what, from what, how long, how.

    Attributes:
        name: Name of the recipe and of the weights that it makes.
        data: Folder that holds the data sets.
        out: Folder of the run: `checkpoints/`, `log.jsonl`, `tensorboard/`, `weights/`.
        steps: Optimizer steps of the whole run; 0 where `epochs` decides.
        epochs: When given, `steps` follows from the size of the mixture: every sample, with its repeats, this often.
        commercial_only: Leave out every picture whose licence forbids commercial use or is not stated.
        image_size: Longest side in pixels to which the exported processor scales.
        minutes: When given, the run follows the clock instead of `steps`: schedule and stages advance by the elapsed
            share of this budget. Such a run can be resumed, but not be repeated bit for bit.
        stages: Resolutions, in order.
        accumulation: Micro-batches an optimizer step.
        ema_decay: Of the averaged weights that are evaluated and exported; 0 exports the weights themselves.
        precision: `bf16` and `fp16` run the forward pass under autocast.
        gradient_checkpointing: Compute the layers' activations anew in the backward pass instead of keeping them.
        normalizer: `step` divides each loss by its sum over the whole step (all processes, all micro-batches), so that
            a batch split in any way gives the same gradient; `original` by each micro-batch's own, but for the number
            of masks, which is the mean over processes, as OMG-Seg did.
        strict: Stop at the first sample that cannot be read instead of counting it and taking another.
        keep_checkpoints: The newest so many are kept.
        workers: Processes that prepare batches; 0 prepares them in the loop.
        log_every, checkpoint_every, evaluate_every: In steps; 0 means never.
        seed: Decides initial weights, order and augmentation of the data, and every draw of the losses.
    """

    name: str
    data: Path
    out: Path
    steps: int
    stages: tuple[Stage, ...]
    commercial_only: bool = False
    image_size: int = 384
    epochs: float | None = None
    minutes: float | None = None
    accumulation: int = 1
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    objective: ObjectiveSettings = field(default_factory=ObjectiveSettings)
    ema_decay: float = 0.999
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    normalizer: Literal["step", "original"] = "step"
    strict: bool = False
    keep_checkpoints: int = 2
    workers: int = 1
    log_every: int = 20
    checkpoint_every: int = 500
    evaluate_every: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        total = sum(stage.share for stage in self.stages)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"stages: expected shares that add up to 1, got {total:g}")
        if self.steps < (1 if self.epochs is None else 0):
            raise ValueError(f"steps: expected at least 1, got {self.steps}")
        for name in ("minutes", "epochs"):
            number = self.__dict__[name]
            if number is not None and number <= 0:
                raise ValueError(f"{name}: expected a positive number, got {number:g}")
        for name in ("accumulation", "keep_checkpoints"):
            if self.__dict__[name] < 1:
                raise ValueError(f"{name}: expected at least 1, got {self.__dict__[name]}")

    def stage_at(self, share: float) -> int:
        """Index of the stage that `share` (0 at the start, 1 at the end) falls into."""
        reached = 0.0
        for index, stage in enumerate(self.stages[:-1]):
            reached += stage.share
            if share < reached - 1e-9:
                return index
        return len(self.stages) - 1

    def with_steps(self, samples_per_epoch: int, *, processes: int) -> "Recipe":
        """The recipe with `steps` counted from `epochs`; as it is where it says its steps itself.

        Args:
            samples_per_epoch: Of the mixture, with repeats.
            processes: That each draw a batch for every micro-batch.
        """
        if self.epochs is None:
            return self
        samples_per_step = sum(stage.share * stage.batch_size for stage in self.stages) * self.accumulation * processes
        return replace(self, steps=math.ceil(self.epochs * samples_per_epoch / samples_per_step), epochs=None)

    def fingerprint(self, *, processes: int) -> dict[str, str]:
        """What must be the same in all sessions of a run, as names and texts.

        How a step's samples are divided into batches, micro-batches and processes may change, and so may whatever the
        weights do not depend on (`FREE`).
        """
        settings = flat(self)
        micro_batches = self.accumulation * processes
        kept = {name: text for name, text in settings.items() if name.split(".")[0] not in FREE}
        kept["samples a step"] = ",".join(str(stage.batch_size * micro_batches) for stage in self.stages)
        kept["stages"] = " ".join(f"{stage.size[0]}x{stage.size[1]}:{stage.share:g}" for stage in self.stages)
        return kept


FREE = (
    "data",
    "images",
    "masks",
    "val",
    "out",
    "stages",
    "accumulation",
    "minutes",
    "precision",
    "gradient_checkpointing",
    "strict",
    "keep_checkpoints",
    "workers",
    "log_every",
    "checkpoint_every",
    "evaluate_every",
)
"""Settings that may change when a run continues: where things lie, how long the clock runs, how it is computed."""


def flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Dotted field names of a (nested) dataclass → their values as text, as `override` takes them where it can."""
    texts: dict[str, str] = {}
    for item in fields(value):
        inner = value.__dict__[item.name]
        name = f"{prefix}{item.name}"
        if is_dataclass(inner):
            texts |= flat(inner, f"{name}.")
        elif isinstance(inner, tuple):
            texts[name] = ",".join(map(str, inner))
        elif isinstance(inner, bool):
            texts[name] = str(inner).lower()
        else:
            texts[name] = str(inner)
    return texts


def override(recipe: T, changes: Mapping[str, str]) -> T:
    """A copy of a (nested) dataclass with fields replaced by parsed strings.

    Args:
        recipe: Any dataclass instance.
        changes: Dotted field name → text, for example `{"optimizer.learning_rate": "3e-4", "stages.0.size": "64,96"}`.

    Raises:
        ValueError: A name that does not exist (near names are listed), a text that is not of the field's type, or
            settings that do not go together; they are checked when all are made.
    """
    return _overridden(recipe, [_Change(key, tuple(key.split(".")), text) for key, text in changes.items()])


@dataclass(frozen=True)
class _Change:
    """One of the changes of `override`: its whole name, what of the name is left at this depth, and its text."""

    key: str
    path: tuple[str, ...]
    text: str

    @property
    def inner(self) -> "_Change":
        return replace(self, path=self.path[1:])


def _overridden(value: Any, changes: Sequence[_Change]) -> Any:
    """All changes to one (nested) value at once: what it checks of itself may need several of them."""
    if isinstance(value, tuple) and all(map(is_dataclass, value)):
        parts = list(value)
        for name, some in _by_name(changes).items():
            if not name.isdigit() or int(name) >= len(value):
                raise ValueError(f"{some[0].key}: expected a number from 0 to {len(value) - 1} in place of {name!r}")
            parts[int(name)] = _overridden(value[int(name)], [change.inner for change in some])
        return tuple(parts)
    if not is_dataclass(value) or isinstance(value, type):
        first = changes[0]
        name = first.key[: -len(".".join(("", *first.path)))]
        raise ValueError(f"{first.key}: {name} has no fields of its own")
    hints = typing.get_type_hints(type(value))
    changed = {}
    for name, some in _by_name(changes).items():
        first = some[0]
        known = [item.name for item in fields(value)]
        if not name:
            raise ValueError(f"{first.key}: expected one of its fields ({first.key}.NAME=…): {', '.join(known)}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise ValueError(f"{first.key}: no such setting; near names: {', '.join(near)}")
        current = value.__dict__[name]
        if is_dataclass(current) or len(first.path) > 1:
            changed[name] = _overridden(current, [change.inner for change in some])
        else:
            changed[name] = _parse(hints[name], first.text, first.key)
    return replace(value, **changed)


def _by_name(changes: Sequence[_Change]) -> dict[str, list[_Change]]:
    """The changes by the first part of what is left of their names; "" where nothing is left."""
    groups: dict[str, list[_Change]] = {}
    for change in changes:
        groups.setdefault(change.path[0] if change.path else "", []).append(change)
    return groups


def _parse(kind: Any, text: str, key: str) -> Any:
    """`text` as a value of the type `kind`."""
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in typing.get_args(kind) if option is not type(None)]
        if text.lower() in ("none", "null", ""):
            return None
        return _parse(options[0], text, key)
    if origin is Literal:
        allowed = typing.get_args(kind)
        if text not in [str(option) for option in allowed]:
            raise ValueError(f"{key}: expected one of {', '.join(map(str, allowed))}, got {text!r}")
        return next(option for option in allowed if str(option) == text)
    if origin is tuple:
        inner = typing.get_args(kind)
        parts = [part for part in text.split(",") if part.strip()]
        kinds = [inner[0]] * len(parts) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) != len(parts):
            raise ValueError(f"{key}: expected {len(kinds)} values separated by commas, got {text!r}")
        return tuple(_parse(one, part.strip(), key) for one, part in zip(kinds, parts, strict=True))
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{key}: expected true or false, got {text!r}")
        return text.lower() == "true"
    if kind in (int, float, str, Path):
        try:
            return kind(text)
        except ValueError:
            wanted = {"int": "a whole number", "float": "a number"}[kind.__name__]
            raise ValueError(f"{key}: expected {wanted}, got {text!r}") from None
    raise ValueError(f"{key}: cannot be set from the command line; write a recipe in Python instead")
