"""What a run starts from: converted CLIP weights under a new head, or weights that are trained further."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextModelWithProjection

from omgvision.models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer

QUERY_NOISE = 0.5
"""Of copied queries, in standard deviations of the learned ones: enough for the matching to tell them apart."""


def over_clip(folder: Path, config: OmgSegConfig) -> tuple[OmgSegForUniversalSegmentation, OmgSegProcessor]:
    """A model with a new head over OpenCLIP's backbone, CLIP head and text tower.

    Args:
        folder: What `omg convert open_clip_pytorch_model.bin FOLDER` wrote.
        config: Of the model; its backbone and text tower become those of the folder.

    Raises:
        ValueError: The folder lacks one of the three.
    """
    needed = ("config.json", "clip_head.safetensors", "text_model/config.json")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        raise ValueError(
            f"clip: expected a folder with {', '.join(needed)}, {folder} lacks {missing[0]}; make it with "
            "omg convert open_clip_pytorch_model.bin FOLDER"
        )
    backbone = ClipConvNextBackbone.from_pretrained(folder)
    text_model = CLIPTextModelWithProjection.from_pretrained(folder / "text_model")
    clip_head = load_file(folder / "clip_head.safetensors")
    config.backbone_config, config.text_config = backbone.config, text_model.config
    width = text_model.config.projection_dim
    assert width is not None
    config.embedding_dim = width
    config.clip_head = "mlp" if "fc1.weight" in clip_head else "linear"
    model = OmgSegForUniversalSegmentation(config)
    assert model.clip_head is not None and model.text_model is not None
    model.model.backbone.load_state_dict(backbone.state_dict())
    model.clip_head.load_state_dict(clip_head)
    model.text_model.load_state_dict(text_model.state_dict())
    model.text_model.requires_grad_(False)
    return model, OmgSegProcessor(OmgSegImageProcessor(), build_clip_tokenizer())


def with_queries(model: OmgSegForUniversalSegmentation, count: int) -> OmgSegForUniversalSegmentation:
    """The model with `count` object queries: its own, and slightly changed copies of them where there are more.

    Raises:
        ValueError: Fewer than the model has.
    """
    own = model.config.num_queries
    if count < own:
        raise ValueError(f"queries: expected {own}, as the weights have, or more, got {count}")
    rows = torch.arange(count) % own
    noise = (torch.arange(count) >= own).float()[:, None] * QUERY_NOISE
    inner = model.model

    def copied(learned: nn.Parameter) -> nn.Parameter:
        own_rows = learned.detach()
        return nn.Parameter(own_rows[rows] + noise * own_rows.std() * torch.randn(count, own_rows.shape[1]))

    inner.query_features, inner.query_positions = copied(inner.query_features), copied(inner.query_positions)
    model.config.num_queries = count
    return model
