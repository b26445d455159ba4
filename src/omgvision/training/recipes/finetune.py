"""Fine-tuning on data of one's own: all weights, or low-rank adapters beside them."""

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omgvision.data import (
    Augmentation,
    ClipDataset,
    ClipSource,
    Mixture,
    PromptSampling,
    SampleDataset,
    Source,
    Subset,
)
from omgvision.data.catalog import open_dataset
from omgvision.data.datasets.video import VideoFrames, VideoReader
from omgvision.hub import load
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.training.adapters import add_adapters, save_adapters, without_adapters
from omgvision.training.export import WEIGHTS, export_weights, processor_for
from omgvision.training.objective import SegmentationObjective
from omgvision.training.probe import Evaluation, evenly, spread
from omgvision.training.prompt_validation import PromptValidation
from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage
from omgvision.training.start import with_places
from omgvision.training.validation import Validation, processor_of
from omgvision.training.words import FixedWords

logger = logging.getLogger(__name__)

LOOKED_AT = 32
"""Pictures in which segments are counted before the run."""


@dataclass(frozen=True)
class FinetuneRecipe(Recipe):
    """A recipe that starts from weights, on one data set.

    `data` is whatever `omg data check` understands: a COCO or YouTube-VIS json, a folder of images and one of masks, …

    Attributes:
        start: Weights, as `omg.load` takes them; None for the bundled ones.
        images, masks, classes, instances: As of `omgvision.data.catalog.open_dataset`.
        val: Data to measure on, like `data`; None holds a part of `data` back.
        holdout: Every so many-th sample is held back, where `val` is not given.
        validate: At most so many samples are measured during training, evenly spread.
        query_stride: Where pictures hold crowds of small objects: a grid of queries, so many pixels of the scaled
            picture apart, that each look at their surroundings (`OmgSegConfig.query_stride`). None keeps the queries
            of the weights.
        loss_points: Points of a picture at which masks are compared, in matching and losses; None keeps the number of
            the weights. An object of which no point is drawn teaches nothing: small ones need many.
        image_size: As of `Recipe`, in measurement too, and in training: canvases that are smaller show a part of each
            picture, with objects at the size at which they will be seen. 0 keeps what the weights come with, and fits
            training pictures into their canvases.
        scale: By how much the size of the training pictures varies around that (log-uniform).
    """

    start: str | None = None
    images: Path | None = None
    masks: Path | None = None
    classes: tuple[str, ...] = ()
    instances: bool = False
    val: Path | None = None
    holdout: int = 10
    validate: int = 32
    query_stride: int | None = None
    loss_points: int | None = 4096
    scale: tuple[float, float] = (0.7, 1.5)


@dataclass(frozen=True)
class LoraRecipe(FinetuneRecipe):
    """Fine-tuning of low-rank adapters on both decoders, and of the small heads; all else stays as it is.

    Attributes:
        rank: Of the adapters (Hu et al., 2022, "LoRA").
        alpha: Their output is scaled by alpha / rank.
    """

    rank: int = 16
    alpha: int = 32


def finetune() -> FinetuneRecipe:
    """All weights, on your own data: `omg train finetune data=PATH out=RUN`; PATH is a json or a folder."""
    return FinetuneRecipe(
        name="finetuned",
        data=Path("data"),
        out=Path("runs/finetune"),
        steps=1000,
        # Most is learned from parts of pictures, in half the time of whole ones.
        stages=(Stage(size=(256, 256), batch_size=4, share=0.7), Stage(size=(384, 384), batch_size=4, share=0.3)),
        optimizer=OptimizerSettings(
            learning_rate=1e-3, weight_decay=0.05, backbone_factor=0.1, clip_norm=1.0, warmup_steps=50
        ),
        objective=ObjectiveSettings(points=4, boxes=2, refinement_rounds=1, prompt_weight=0.25),
        ema_decay=0.99,
        log_every=20,
        checkpoint_every=200,
        evaluate_every=200,
    )


def lora() -> LoraRecipe:
    """Small adapters, on your own data: `omg train lora data=PATH out=RUN`; writes them alone and merged."""
    base = finetune()
    return LoraRecipe(
        name="finetuned-lora",
        data=base.data,
        out=Path("runs/lora"),
        steps=base.steps,
        stages=base.stages,
        optimizer=OptimizerSettings(learning_rate=2e-3, weight_decay=0.0, clip_norm=1.0, warmup_steps=50),
        objective=base.objective,
        ema_decay=base.ema_decay,
        log_every=base.log_every,
        checkpoint_every=base.checkpoint_every,
        evaluate_every=base.evaluate_every,
    )


# --- data ---


@dataclass(frozen=True)
class Parts:
    """What is trained on, what is measured on, and their vocabulary (empty for class-agnostic data)."""

    train: SampleDataset | ClipDataset
    val: SampleDataset
    names: tuple[str, ...]
    things: tuple[bool, ...]


def parts(recipe: FinetuneRecipe) -> Parts:
    """Opens the data of a recipe, once."""
    return _parts(
        recipe.data,
        recipe.val,
        recipe.images,
        recipe.masks,
        recipe.classes,
        recipe.instances,
        recipe.holdout,
        recipe.strict,
    )


@functools.lru_cache(maxsize=1)
def _parts(
    data: Path,
    val: Path | None,
    images: Path | None,
    masks: Path | None,
    classes: Sequence[str],
    instances: bool,
    holdout: int,
    strict: bool,
) -> Parts:
    def opened(path: Path):
        return open_dataset(
            path, images=images, masks=masks, classes=classes or None, instances=instances, strict=strict
        )

    reader = opened(data)
    names, things = reader.names, reader.things
    if val is not None:
        held = opened(val)
        if held.names != names:
            raise ValueError(
                f"val: expected the classes of {data} ({len(names)}), got {len(held.names)} that differ in {val}"
            )
        return Parts(reader, VideoFrames(held) if isinstance(held, VideoReader) else held, names, things)
    if holdout < 2:
        raise ValueError(f"holdout: expected 2 or more (every so many-th sample is held back), got {holdout}")
    if len(reader) < 2:
        raise ValueError(f"data: expected at least two samples, to hold one back, got {len(reader)}; give val=")
    kept, back = split(len(reader), holdout)
    if isinstance(reader, VideoReader):
        return Parts(reader.subset(kept), VideoFrames(reader.subset(back)), names, things)
    return Parts(Subset(reader, kept), Subset(reader, back), names, things)


def split(length: int, holdout: int) -> tuple[list[int], list[int]]:
    """Numbers to train on and to hold back: every `holdout`-th, and at least the last."""
    back = list(range(min(holdout, length) - 1, length, holdout))
    return sorted(set(range(length)) - set(back)), back


def source(recipe: FinetuneRecipe) -> Mixture:
    """The training part. Data without classes trains prompts alone."""
    data = parts(recipe)
    augmentation = Augmentation(scale=recipe.scale, longest_edge=recipe.image_size or None)
    prompts = None if data.names else PromptSampling(points=8, boxes=4)
    if isinstance(data.train, ClipDataset):
        part: Source | ClipSource = ClipSource(data.train, augmentation=augmentation)
    else:
        part = Source(data.train, augmentation=augmentation, prompts=prompts)
    return Mixture([part], seed=recipe.seed, strict=recipe.strict)


# --- model ---


def objective(recipe: FinetuneRecipe) -> SegmentationObjective:
    """The started model with the words of the data; its text tower stays as it is, so that other words keep meaning."""
    data, predictor = parts(recipe), load(recipe.start, device="cpu", dtype="float32")
    model, processor = predictor.model, predictor.processor
    if recipe.image_size:
        # Validation and export take this processor too.
        processor.image_processor.size = processor_for(recipe.image_size).image_processor.size
    if recipe.query_stride is not None:
        model = with_places(model, recipe.query_stride)
    if recipe.loss_points is not None:
        model.config.num_loss_points = recipe.loss_points
    if data.names and not model.config.query_stride:
        warn_of_crowds(data, queries=model.config.num_queries)
    if model.text_model is not None:
        model.text_model.requires_grad_(False)
    if data.names:
        model.set_vocabulary(data.names, processor=processor, things=data.things)
    return SegmentationObjective(model, embed=FixedWords(model, processor=processor), settings=recipe.objective)


def warn_of_crowds(data: Parts, *, queries: int) -> None:
    """Says so where some of the data's pictures hold more segments than there are queries to find them."""
    if isinstance(data.train, ClipDataset):
        return
    most = 0
    for index in spread(len(data.train), LOOKED_AT):
        try:
            most = max(most, len(data.train[index].labels))
        except (ValueError, OSError):
            continue  # training replaces, counts and names it
    if most > queries:
        logger.warning(
            "data: a picture holds %d segments, and the weights have %d queries to find them with; a grid of more "
            "finds crowds (query_stride=24)",
            most,
            queries,
        )


def lora_objective(recipe: LoraRecipe) -> SegmentationObjective:
    """As `objective`, with adapters; they and the heads alone are trained."""
    built = objective(recipe)
    add_adapters(built.model, rank=recipe.rank, alpha=recipe.alpha)
    return built


def probe(recipe: FinetuneRecipe) -> Evaluation:
    """AP, PQ and mIoU on what was held back; of clicks and boxes the IoU, where there are no classes."""
    data = parts(recipe)
    samples = evenly(data.val, recipe.validate, strict=recipe.strict)
    return Validation(samples) if data.names else PromptValidation(samples)


def export(objective: SegmentationObjective, recipe: FinetuneRecipe) -> Path:
    """Weights with the data's classes as their vocabulary."""
    return export_model(objective.model, processor_of(objective), recipe)


def export_lora(objective: SegmentationObjective, recipe: LoraRecipe) -> Path:
    """`adapter/` (what was trained, for `load_adapter`), and `weights/` with the adapters merged into them."""
    save_adapters(objective.model, recipe.out / "adapter")
    return export_model(without_adapters(objective.model), processor_of(objective), recipe)


def export_model(model: OmgSegForUniversalSegmentation, processor: OmgSegProcessor, recipe: FinetuneRecipe) -> Path:
    data = parts(recipe)
    names, things = (data.names, data.things) if data.names else stored_vocabulary(model)
    return export_weights(model, recipe.out / WEIGHTS, names=names, things=things, processor=processor)


def stored_vocabulary(model: OmgSegForUniversalSegmentation) -> tuple[list[str], list[bool]]:
    labels = model.config.id2label
    assert labels is not None
    return list(labels.values()), model.thing_mask.tolist()
