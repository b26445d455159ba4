"""Readers: of images, each with `len` and `[index]` → `Sample`; of videos, with `clip`. All check what they read."""

from .ade20k import Ade20kInstances, Ade20kPanoptic, Ade20kSemantic
from .cityscapes import Cityscapes, CityscapesPanoptic, cityscapes_panoptic
from .coco import CocoInstances, CocoPanoptic
from .davis import Davis
from .lvis import Lvis
from .mask_folder import MaskFolder
from .objects365 import Objects365
from .pascal_voc import PascalVoc
from .segment_anything import ClassAgnostic, SegmentAnything
from .video import VideoFrames
from .vipseg import VipSeg
from .vspw import Vspw
from .youtube_vis import YouTubeVis, YouTubeVisFrames

__all__ = [
    "Ade20kInstances",
    "Ade20kPanoptic",
    "Ade20kSemantic",
    "Cityscapes",
    "CityscapesPanoptic",
    "ClassAgnostic",
    "CocoInstances",
    "CocoPanoptic",
    "Davis",
    "Lvis",
    "MaskFolder",
    "Objects365",
    "PascalVoc",
    "SegmentAnything",
    "VideoFrames",
    "VipSeg",
    "Vspw",
    "YouTubeVis",
    "YouTubeVisFrames",
    "cityscapes_panoptic",
]
