"""Trained weights as a folder that `omgvision.load` and transformers read."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer


def export(
    model: OmgSegForUniversalSegmentation,
    folder: Path,
    *,
    names: Sequence[str],
    things: Sequence[bool],
    image_size: int,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Writes configuration, safetensors, processor and tokenizer; an earlier folder is replaced when all is written.

    Args:
        model: Stays as it is, in training or evaluation mode and its own precision.
        folder: To be written.
        names, things: The vocabulary stored with the weights.
        image_size: Longest side in pixels that the processor scales to.
        dtype: Of the stored weights.
    """
    processor = OmgSegProcessor(
        OmgSegImageProcessor(size={"longest_edge": image_size, "shortest_edge": image_size}), build_clip_tokenizer()
    )
    copy = OmgSegForUniversalSegmentation(model.config)
    copy.load_state_dict(model.state_dict())
    copy.eval()
    with torch.inference_mode():
        copy.set_vocabulary(names, processor=processor, things=things)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    nn.Module.to(copy, dtype)  # transformers' own `to` is typed for devices alone
    copy.save_pretrained(partial)
    processor.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder
