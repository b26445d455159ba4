"""What a run starts from: converted CLIP weights under a new head, or weights that are trained further."""

import copy
from pathlib import Path

from safetensors.torch import load_file
from transformers import CLIPTextModelWithProjection

from omgvision.models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig
from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer


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


def with_places(model: OmgSegForUniversalSegmentation, stride: int) -> OmgSegForUniversalSegmentation:
    """The model with a grid of object queries beside its own, see `OmgSegConfig.query_stride`.

    They start as clicks do, which the weights have learned already.

    Args:
        model: With prompt queries.
        stride: Pixels of the network input between two places.

    Raises:
        ValueError: The model takes no prompts.
    """
    config = copy.deepcopy(model.config)
    config.query_stride = stride
    config.validate_architecture()
    placed = OmgSegForUniversalSegmentation(config)
    state = model.state_dict()
    encoder = model.model.prompt_encoder
    assert encoder is not None
    if encoder.place_embed is None:
        state["model.prompt_encoder.place_embed.weight"] = encoder.mask_token + encoder.prompt_embed[:1]
    placed.load_state_dict(state)
    return placed.train(model.training)
