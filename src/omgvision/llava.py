"""OMG-LLaVA from a folder, with its adapter: checked before anything is computed."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .conversion.omg_llava_folder import ADAPTER_FOLDER
from .errors import UserError
from .models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from .models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from .models.omg_llava.processing_omg_llava import OmgLlavaProcessor, token_ids

_PREFIX, _SUFFIX = "base_model.model.", ".lora_A.weight"


def load_llava(
    folder: str | Path, *, adapter: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> tuple[OmgLlavaForConditionalGeneration, OmgLlavaProcessor]:
    """Loads the model and its processor, in evaluation mode.

    Args:
        folder: Written by ``omg convert`` or ``save_pretrained``.
        adapter: Folder of a peft adapter; None = the one in the folder itself, if there is one.
        dtype: Of the language model and the projections; the segmenter stays in float32.

    Raises:
        UserError: No such folder, one of another model, a tokenizer that does not belong to the weights, or an adapter
            of another base model.
    """
    folder = Path(folder)
    fields = _read_json(folder / "config.json")
    if fields.get("model_type") != OmgLlavaConfig.model_type:
        raise UserError(
            f"{folder}: expected a model of type {OmgLlavaConfig.model_type}, got {fields.get('model_type')}; "
            "make one with omg convert"
        )
    try:
        processor = OmgLlavaProcessor.from_pretrained(folder)
        model = OmgLlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded ({error})") from error
    expected = {name: fields[name] for name in token_ids(processor.tokenizer)}
    if (found := token_ids(processor.tokenizer)) != expected:
        raise UserError(f"{folder}: expected the tokenizer of the weights ({expected}), got another ({found})")
    if adapter is None and (folder / ADAPTER_FOLDER).is_dir():
        adapter = folder / ADAPTER_FOLDER
    if adapter is not None:
        load_adapter(model, adapter)
    return model.eval(), processor


def load_adapter(model: OmgLlavaForConditionalGeneration, folder: str | Path) -> None:
    """Adds a peft adapter whose matrices fit the model's.

    Raises:
        UserError: No adapter there, or one of another base model.
    """
    folder = Path(folder)
    _read_json(folder / "adapter_config.json")
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            names = list(file.keys())
            shapes = {name: list(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: expected an adapter_model.safetensors, got: {error}") from None
    modules = dict(model.named_modules())
    for name in names:
        if not name.endswith(_SUFFIX):
            continue
        place = name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
        module = modules.get(place)
        got = [shapes[name.replace(_SUFFIX, ".lora_B.weight")][0], shapes[name][1]]
        expected = list(module.weight.shape) if isinstance(module, nn.Linear) else None
        if got != expected:
            have = "has no such layer" if expected is None else f"has {expected} there"
            raise UserError(
                f"{folder}: an adapter for another base model: it adapts {place} of size {got}, this model {have}; "
                "give the model that it was trained on"
            )
    model.load_adapter(str(folder))


def _read_json(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a JSON file of a saved model, got: {error}") from None


__all__ = ["load_adapter", "load_llava"]
