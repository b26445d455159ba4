"""Readers: each is `len` and `[index]` → `Sample`, checked at construction."""

from .coco import CocoInstances, CocoPanoptic
from .mask_folder import MaskFolder
from .youtube_vis import YouTubeVisFrames

__all__ = ["CocoInstances", "CocoPanoptic", "MaskFolder", "YouTubeVisFrames"]
