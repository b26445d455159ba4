"""The published recipes of OMG-Seg: joint co-training of images, videos and prompts in one merged vocabulary.

Facts of the recipes: OMG-Seg (Li et al., CVPR 2024), section 4.1, and the configurations of its code. Where these leave
a number open, the docstrings say what was chosen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omgvision.data import (
    ORIGINAL_AUGMENTATION,
    Augmentation,
    ClipDataset,
    ClipSource,
    CocoPanoptic,
    MergedVocabulary,
    Mixture,
    PromptSampling,
    PseudoClips,
    Relabelled,
    RelabelledClips,
    SampleDataset,
    Source,
    merge_vocabularies,
)
from omgvision.data.datasets.ade20k import Ade20kPanoptic
from omgvision.data.datasets.cityscapes import cityscapes_panoptic
from omgvision.data.datasets.coco import CocoInstances
from omgvision.data.datasets.objects365 import Objects365
from omgvision.data.datasets.segment_anything import ClassAgnostic
from omgvision.data.datasets.vipseg import VipSeg
from omgvision.data.datasets.youtube_vis import YouTubeVis
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.training.objective import SegmentationObjective
from omgvision.training.probe import Probe, evenly
from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage
from omgvision.training.start import over_clip
from omgvision.training.words import FixedWords

PSEUDO_CLIPS = replace(ORIGINAL_AUGMENTATION, crops="independent")
CITYSCAPES_CLIPS = replace(PSEUDO_CLIPS, scale=(0.8, 1.5))
ADE_CLIPS = replace(PSEUDO_CLIPS, scale=(0.1, 2.0))
PROMPTED = replace(ORIGINAL_AUGMENTATION, scale=(0.1, 2.0), min_area=32)


@dataclass(frozen=True)
class JointRecipe(Recipe):
    """A recipe over OpenCLIP weights.

    Attributes:
        clip: Folder that `omg convert open_clip_pytorch_model.bin FOLDER` wrote: backbone, CLIP head and text tower.
        train_backbone: Whether the backbone learns too, at `optimizer.backbone_factor` of the rate.
    """

    clip: Path = Path("open_clip")
    train_backbone: bool = False


def joint() -> JointRecipe:
    """COCO, YouTube-VIS 2019, VIPSeg, Cityscapes and prompts on COCO, 12 epochs: the paper's model, 32 GPUs.

    `accelerate launch --config_file … -m omg_cli train joint data=DATA clip=FOLDER out=RUN`. Published: COCO PQ 53.8,
    YouTube-VIS-19 AP 56.4, VIPSeg VPQ 49.8, Cityscapes PQ 65.7 (ConvNeXt-L). It has not been run here.
    """
    return JointRecipe(
        name="omg-seg-joint",
        data=Path("data"),
        out=Path("runs/joint"),
        steps=0,
        epochs=12,
        stages=(Stage(size=(736, 1280), batch_size=1, share=1.0),),
        image_size=1280,
        optimizer=OptimizerSettings(
            learning_rate=1e-4,
            base_batch_size=16,
            weight_decay=0.05,
            backbone_factor=0.1,
            clip_norm=0.01,
            schedule="steps",
            warmup_steps=500,
            milestones=(8 / 12, 11 / 12),
        ),
        objective=ObjectiveSettings(points=0, boxes=0, refinement_rounds=0, max_classes=1000),
        ema_decay=0.0,
        normalizer="original",
        workers=4,
        log_every=50,
        checkpoint_every=5000,
        evaluate_every=0,
    )


def joint_yt21() -> JointRecipe:
    """As `joint`, with YouTube-VIS 2021 beside 2019, each fifteen times: 240 merged classes in the original."""
    return replace(joint(), name="omg-seg-joint-yt21", out=Path("runs/joint_yt21"))


def closed_set() -> JointRecipe:
    """COCO, ADE20K, YouTube-VIS 2019 and 2021, VIPSeg and Cityscapes, with the backbone trained as well."""
    return replace(joint(), name="omg-seg-closed-set", out=Path("runs/closed_set"), train_backbone=True)


def single_machine() -> JointRecipe:
    """As `joint` on one machine of eight GPUs: two pictures a step and GPU, the rate for a batch of sixteen.

    The original's batch is one picture a GPU with the rate scaled to the batch; two accumulated ones make its base
    batch of sixteen. bf16 and gradient checkpointing are our choice, to fit smaller GPUs.
    """
    return replace(
        joint(),
        name="omg-seg-single-machine",
        out=Path("runs/single_machine"),
        accumulation=2,
        precision="bf16",
        gradient_checkpointing=True,
    )


def objects365() -> JointRecipe:
    """Pre-training on Objects365 with masks made from its boxes (`objects365/masks.json`): 4 epochs at 1024×1024.

    The steps of the learning rate are not published; two thirds and eleven twelfths are kept from `joint`.
    """
    return replace(
        joint(),
        name="omg-seg-objects365",
        out=Path("runs/objects365"),
        epochs=4,
        stages=(Stage(size=(1024, 1024), batch_size=1, share=1.0),),
        image_size=1024,
    )


# --- data ---


@dataclass(frozen=True)
class Share:
    """A data set of a joint recipe, before its words are merged with the others'.

    Attributes:
        dataset: Images or clips.
        repeat: How often an epoch goes through it.
        augmentation: Of its samples.
    """

    dataset: SampleDataset | ClipDataset
    names: Sequence[str]
    things: Sequence[bool]
    repeat: float
    augmentation: Augmentation


def joint_source(recipe: JointRecipe) -> Mixture:
    """COCO ×1, YouTube-VIS-19 ×30, VIPSeg ×15, Cityscapes ×15, prompts on COCO ×1."""
    shares = [
        coco_clips(recipe),
        youtube_vis(recipe, "2019", repeat=30),
        vipseg(recipe, repeat=15),
        cityscapes(recipe, repeat=15),
    ]
    return Mixture([*merged(shares), coco_prompts(recipe)], seed=recipe.seed, strict=recipe.strict)


def joint_yt21_source(recipe: JointRecipe) -> Mixture:
    """As `joint_source`, with YouTube-VIS-19 ×15 and YouTube-VIS-21 ×15."""
    shares = [
        coco_clips(recipe),
        youtube_vis(recipe, "2019", repeat=15),
        youtube_vis(recipe, "2021", repeat=15),
        vipseg(recipe, repeat=15),
        cityscapes(recipe, repeat=15),
    ]
    return Mixture([*merged(shares), coco_prompts(recipe)], seed=recipe.seed, strict=recipe.strict)


def closed_set_source(recipe: JointRecipe) -> Mixture:
    """COCO ×1, ADE20K ×1, YouTube-VIS-19, YouTube-VIS-21, VIPSeg and Cityscapes ×15 each."""
    shares = [
        coco_clips(recipe),
        ade20k(recipe),
        youtube_vis(recipe, "2019", repeat=15),
        youtube_vis(recipe, "2021", repeat=15),
        vipseg(recipe, repeat=15),
        cityscapes(recipe, repeat=15),
    ]
    return Mixture(merged(shares), seed=recipe.seed, strict=recipe.strict)


def objects365_source(recipe: JointRecipe) -> Mixture:
    """Objects365 alone, as pictures."""
    root = recipe.data / "objects365"
    dataset = Objects365(
        root / "zhiyuan_objv2_train.json", images=root / "train", masks=root / "masks.json", strict=recipe.strict
    )
    augmentation = replace(ORIGINAL_AUGMENTATION, scale=(0.1, 2.0))
    return Mixture([Source(dataset, augmentation=augmentation)], seed=recipe.seed, strict=recipe.strict)


def coco_panoptic(recipe: JointRecipe, part: str) -> CocoPanoptic:
    root = recipe.data / "coco"
    return CocoPanoptic(
        root / "annotations" / f"panoptic_{part}2017.json",
        images=root / f"{part}2017",
        segmentations=root / "annotations" / f"panoptic_{part}2017",
        strict=recipe.strict,
    )


def coco_clips(recipe: JointRecipe) -> Share:
    photographs = coco_panoptic(recipe, "train")
    return Share(PseudoClips(photographs), photographs.names, photographs.things, 1, PSEUDO_CLIPS)


def ade20k(recipe: JointRecipe) -> Share:
    photographs = Ade20kPanoptic(recipe.data / "ADEChallengeData2016", strict=recipe.strict)
    return Share(PseudoClips(photographs), photographs.names, photographs.things, 1, ADE_CLIPS)


def cityscapes(recipe: JointRecipe, *, repeat: float) -> Share:
    streets = cityscapes_panoptic(recipe.data / "cityscapes", strict=recipe.strict)
    return Share(PseudoClips(streets), streets.names, streets.things, repeat, CITYSCAPES_CLIPS)


def youtube_vis(recipe: JointRecipe, year: str, *, repeat: float) -> Share:
    root = recipe.data / f"youtube_vis_{year}" / "train"
    videos = YouTubeVis(
        root / "instances.json", images=root / "JPEGImages", strict=recipe.strict, name=f"youtube-vis-{year}"
    )
    return Share(videos, videos.names, videos.things, repeat, ORIGINAL_AUGMENTATION)


def vipseg(recipe: JointRecipe, *, repeat: float) -> Share:
    videos = VipSeg(recipe.data / "VIPSeg_720P" / "panoptic_gt_VIPSeg_train.json", strict=recipe.strict)
    return Share(videos, videos.names, videos.things, repeat, ORIGINAL_AUGMENTATION)


def coco_prompts(recipe: JointRecipe) -> Source:
    """COCO-SAM: twenty clicks on the segments of a photograph, whatever their class."""
    photographs = ClassAgnostic(coco_panoptic(recipe, "train"))
    return Source(photographs, augmentation=PROMPTED, prompts=PromptSampling())


def merged(shares: Sequence[Share]) -> list[Source | ClipSource]:
    """The data sets in one vocabulary."""
    vocabulary = merge_vocabularies([(share.names, share.things) for share in shares])
    return [relabelled(share, vocabulary, number) for number, share in enumerate(shares)]


def relabelled(share: Share, vocabulary: MergedVocabulary, number: int) -> Source | ClipSource:
    if isinstance(share.dataset, ClipDataset):
        clips = RelabelledClips(share.dataset, vocabulary=vocabulary, number=number)
        return ClipSource(clips, repeat=share.repeat, augmentation=share.augmentation)
    images = Relabelled(share.dataset, vocabulary=vocabulary, number=number)
    return Source(images, repeat=share.repeat, augmentation=share.augmentation)


# --- model ---


def objective(recipe: JointRecipe) -> SegmentationObjective:
    """The published model over OpenCLIP weights; class names are encoded once, the text tower does not learn.

    Masks are compared whole, as in the original.
    """
    model, processor = over_clip(recipe.clip, OmgSegConfig(freeze_backbone=not recipe.train_backbone))
    return SegmentationObjective(
        model, embed=FixedWords(model, processor=processor), settings=recipe.objective, half_masks=False
    )


def probe(recipe: JointRecipe) -> Probe:
    """32 val images of COCO, semantic and clicked, at the size of the last stage."""
    root = recipe.data / "coco"
    instances = CocoInstances(root / "annotations" / "instances_val2017.json", images=root / "val2017")
    return Probe(
        {"coco": evenly(coco_panoptic(recipe, "val"), 32, strict=recipe.strict)},
        evenly(instances, 32, strict=recipe.strict),
        size=recipe.stages[-1].size,
        batch_size=1,
    )
