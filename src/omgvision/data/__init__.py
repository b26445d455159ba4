"""Datasets, rendered scenes, augmentation, prompts, and the mixture that training reads."""

from .class_lists import ClassList, load_class_list
from .clips import FrameSampling, PseudoClips
from .collate import collate
from .datasets import CocoInstances, CocoPanoptic, MaskFolder, YouTubeVisFrames
from .merged import MergedVocabulary, Relabelled, RelabelledClips, merge_vocabularies
from .mixture import ClipSource, InMemory, Mixture, Source, Subset
from .prompts import PromptSampling
from .sample import Batch, Clip, ClipDataset, Prompts, Sample, SampleDataset
from .synthetic import SyntheticScenes
from .transforms import ORIGINAL_AUGMENTATION, Augmentation

__all__ = [
    "Augmentation",
    "Batch",
    "Clip",
    "ClipDataset",
    "ClipSource",
    "ClassList",
    "CocoInstances",
    "CocoPanoptic",
    "FrameSampling",
    "InMemory",
    "MaskFolder",
    "MergedVocabulary",
    "Mixture",
    "ORIGINAL_AUGMENTATION",
    "PromptSampling",
    "Prompts",
    "PseudoClips",
    "Relabelled",
    "RelabelledClips",
    "Sample",
    "SampleDataset",
    "Source",
    "Subset",
    "SyntheticScenes",
    "YouTubeVisFrames",
    "collate",
    "load_class_list",
    "merge_vocabularies",
]
