"""Datasets, rendered scenes, augmentation, prompts, and the mixture that training reads."""

from .catalog import open_dataset
from .class_lists import ClassList, load_class_list
from .clips import FrameSampling, PseudoClips
from .collate import collate
from .datasets import (
    Ade20kInstances,
    Ade20kPanoptic,
    Ade20kSemantic,
    Cityscapes,
    CityscapesPanoptic,
    ClassAgnostic,
    CocoInstances,
    CocoPanoptic,
    Davis,
    Lvis,
    MaskFolder,
    Objects365,
    PascalVoc,
    SegmentAnything,
    VideoFrames,
    VipSeg,
    Vspw,
    YouTubeVis,
    YouTubeVisFrames,
    cityscapes_panoptic,
)
from .merged import MergedVocabulary, Relabelled, RelabelledClips, merge_vocabularies
from .mixture import ClipSource, InMemory, Mixture, Source, Subset
from .panned_videos import PannedVideos
from .prompts import PromptSampling
from .sample import Batch, Clip, ClipDataset, Prompts, Sample, SampleDataset
from .synthetic import SyntheticScenes
from .synthetic_clips import SyntheticClips, SyntheticVideo
from .transforms import ORIGINAL_AUGMENTATION, Augmentation

__all__ = [
    "Ade20kInstances",
    "Ade20kPanoptic",
    "Ade20kSemantic",
    "Augmentation",
    "Batch",
    "Cityscapes",
    "CityscapesPanoptic",
    "ClassAgnostic",
    "ClassList",
    "Clip",
    "ClipDataset",
    "ClipSource",
    "CocoInstances",
    "CocoPanoptic",
    "Davis",
    "FrameSampling",
    "InMemory",
    "Lvis",
    "MaskFolder",
    "MergedVocabulary",
    "Mixture",
    "ORIGINAL_AUGMENTATION",
    "Objects365",
    "PannedVideos",
    "PascalVoc",
    "PromptSampling",
    "Prompts",
    "PseudoClips",
    "Relabelled",
    "RelabelledClips",
    "Sample",
    "SampleDataset",
    "SegmentAnything",
    "Source",
    "Subset",
    "SyntheticClips",
    "SyntheticScenes",
    "SyntheticVideo",
    "VideoFrames",
    "VipSeg",
    "Vspw",
    "YouTubeVis",
    "YouTubeVisFrames",
    "cityscapes_panoptic",
    "collate",
    "load_class_list",
    "merge_vocabularies",
    "open_dataset",
]
