"""Weights of others, converted: original OMG-Seg checkpoints (both directions), OMG-LLaVA, InternLM2 and OpenCLIP."""

from .checkpoint import load_checkpoint
from .folder import convert_checkpoint
from .internlm2 import convert_internlm2
from .omg_llava import convert_omg_llava
from .omg_seg import convert_omg_seg, to_original_omg_seg
from .open_clip import VisionTower, convert_open_clip_text, convert_open_clip_vision
from .report import ConversionReport

__all__ = [
    "ConversionReport",
    "VisionTower",
    "convert_checkpoint",
    "convert_internlm2",
    "convert_omg_llava",
    "convert_omg_seg",
    "convert_open_clip_text",
    "convert_open_clip_vision",
    "load_checkpoint",
    "to_original_omg_seg",
]
