"""Low-rank adapters (Hu et al., 2022, "LoRA") on the layers of both decoders, through peft."""

import copy
from pathlib import Path

from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.training.export import written_whole

ADAPTED = (
    r"model\.mask_decoder\.layers\.\d+\.((cross_attn|self_attn)\.(q|k|v|out)_proj|fc1|fc2)"
    r"|model\.pixel_decoder\.layers\.\d+\.(self_attn\.(value|output)_proj|fc1|fc2)"
)
"""Matrices that get an adapter: of the mask decoder's layers, and of the pixel decoder's but for where they sample."""

TRAINED = ["classifier", "iou_head", "mask_embed", "mask_projection"]
"""Small modules that are trained whole: a new vocabulary, and what makes masks of queries and pixels."""

PLACES = "place_embed"
"""Of models with a grid of queries, one more."""


def add_adapters(model: OmgSegForUniversalSegmentation, *, rank: int, alpha: int) -> None:
    """Puts adapters into the model and freezes everything but them and `TRAINED`.

    Raises:
        ValueError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError(
            "recipe lora: expected the package peft, which is not installed; pip install 'omgvision[train]'"
        ) from error
    trained = [*TRAINED, PLACES] if model.config.query_stride else TRAINED
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=ADAPTED, modules_to_save=trained))


def save_adapters(model: OmgSegForUniversalSegmentation, folder: Path) -> Path:
    """Writes the adapters and the modules trained whole, as `model.load_adapter(folder)` takes them."""
    with written_whole(folder) as partial:
        model.save_pretrained(partial)
    return folder


def without_adapters(model: OmgSegForUniversalSegmentation) -> OmgSegForUniversalSegmentation:
    """A copy of the model with the adapters multiplied into its matrices: the same outputs, the usual names."""
    from peft.tuners.lora import Linear
    from peft.utils.other import ModulesToSaveWrapper

    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, Linear):
            module.merge()
            merged.set_submodule(name, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            merged.set_submodule(name, module.modules_to_save[module.active_adapters[0]])
    return merged
