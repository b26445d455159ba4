"""Datasets, rendered scenes, augmentation, prompts, and the mixture that training reads."""

from .class_lists import ClassList, load_class_list
from .collate import collate
from .datasets import CocoInstances, CocoPanoptic, MaskFolder, YouTubeVisFrames
from .mixture import InMemory, Mixture, Source, batches
from .sample import Batch, Prompts, Sample, SampleDataset
from .synthetic import SyntheticScenes
from .transforms import Augmentation

__all__ = [
    "Augmentation",
    "Batch",
    "ClassList",
    "CocoInstances",
    "CocoPanoptic",
    "InMemory",
    "MaskFolder",
    "Mixture",
    "Prompts",
    "Sample",
    "SampleDataset",
    "Source",
    "SyntheticScenes",
    "YouTubeVisFrames",
    "batches",
    "collate",
    "load_class_list",
]
