"""OMG-LLaVA from a folder, with its adapter: checked before anything is computed."""

import importlib.util
import json
import logging
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import BitsAndBytesConfig

from .conversion.omg_llava_folder import ADAPTER_FOLDER
from .errors import UserError
from .models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from .models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from .models.omg_llava.processing_omg_llava import OmgLlavaProcessor, token_ids
from .models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from .models.omg_seg.processing_omg_seg import OmgSegProcessor
from .models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer

Quantization = Literal["4bit", "8bit"]
QUANTIZATIONS: tuple[Quantization, ...] = get_args(Quantization)

logger = logging.getLogger(__name__)

_PREFIX, _LORA_A, _LORA_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"
_NOT_QUANTIZED = ["model.vision_tower", "model.mask_decoder", "model.projector", "model.text_to_vision", "lm_head"]
"""As in the original, where the matrices of the language model's layers alone have 4 bits; whole names, as transformers
compares them with the beginnings of modules' names."""


class ChatModel(NamedTuple):
    """OMG-LLaVA in evaluation mode and its processor."""

    model: OmgLlavaForConditionalGeneration
    processor: OmgLlavaProcessor


def load_llava(
    folder: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
    quantization: Quantization | None = None,
) -> ChatModel:
    """Loads the model and its processor, in evaluation mode.

    Args:
        folder: Written by ``omg convert`` or ``save_pretrained``.
        adapter: Folder of a peft adapter; None = the one in the folder itself, if there is one.
        dtype: Of the language model and the projections; the segmenter stays in float32.
        device: Where the model goes; None = the CPU.
        quantization: "4bit" (NF4, as the original) or "8bit" for the matrices of the language model's layers; needs a
            GPU and bitsandbytes.

    Raises:
        UserError: No such folder, one of another model, a tokenizer that does not belong to the weights, an adapter of
            another base model, or quantization where it cannot be.
    """
    folder, device = Path(folder), device or torch.device("cpu")
    fields = _read_json(folder / "config.json")
    if fields.get("model_type") != OmgLlavaConfig.model_type:
        raise UserError(
            f"{folder}: expected a model of type {OmgLlavaConfig.model_type}, got {fields.get('model_type')}; "
            "make one with omg convert"
        )
    options: dict[str, Any] = {}
    if quantization is not None:
        options = {"quantization_config": quantization_config(quantization, device=device), "device_map": {"": device}}
    try:
        processor = OmgLlavaProcessor.from_pretrained(folder)
        model = OmgLlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder}: cannot be loaded ({error})") from error
    expected = {name: fields[name] for name in token_ids(processor.tokenizer)}
    if (found := token_ids(processor.tokenizer)) != expected:
        raise UserError(f"{folder}: expected the tokenizer of the weights ({expected}), got another ({found})")
    if adapter is None and (folder / ADAPTER_FOLDER).is_dir():
        adapter = folder / ADAPTER_FOLDER
    if adapter is not None:
        load_adapter(model, adapter)
    if quantization is None:
        try:
            model = model.to(device)  # pyright: ignore[reportArgumentType]  (transformers' wrapper hides torch's types)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"cannot use the device {device}: {str(error).splitlines()[0]}") from None
    return ChatModel(model.eval(), processor)


def quantization_config(quantization: Quantization, *, device: torch.device) -> BitsAndBytesConfig:
    """How bitsandbytes packs the language model.

    Raises:
        UserError: An unknown kind, no GPU, or no bitsandbytes.
    """
    if quantization not in QUANTIZATIONS:
        raise UserError(f"quantization: expected one of {', '.join(QUANTIZATIONS)}, got {quantization!r}")
    if device.type != "cuda":
        raise UserError(
            f"quantization {quantization}: expected a GPU (device cuda), got {device}; leave quantization out, "
            "dtype bfloat16 takes half of float32's memory"
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"quantization {quantization} needs bitsandbytes: pip install 'omgvision[quantization]'")
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=_NOT_QUANTIZED)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float16,
        llm_int8_skip_modules=_NOT_QUANTIZED,
    )


def load_adapter(model: OmgLlavaForConditionalGeneration, folder: str | Path) -> None:
    """Adds a peft adapter whose matrices fit the model's. One that names another base model is taken with a warning:
    folders are renamed.

    Raises:
        UserError: No LoRA adapter there, one of another base model, or no peft.
    """
    folder = Path(folder)
    base = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if importlib.util.find_spec("peft") is None:
        raise UserError(f"{folder}: adapters need peft: pip install 'omgvision[train]'")
    try:
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            names = list(file.keys())
            shapes = {name: list(file.get_slice(name).get_shape()) for name in names}
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder}: expected an adapter_model.safetensors, got: {error}") from None
    adapted = {name.removesuffix(end) for name in names for end in (_LORA_A, _LORA_B) if name.endswith(end)}
    if not adapted:
        raise UserError(f"{folder}: expected a LoRA adapter (*{_LORA_A}), got {', '.join(names[:3]) or 'nothing'}")
    modules = dict(model.named_modules())
    for name in sorted(adapted):
        place = name.removeprefix(_PREFIX)
        if not {name + _LORA_A, name + _LORA_B} <= shapes.keys():
            raise UserError(f"{folder}: expected lora_A and lora_B for {place}, got one of them; the file is not whole")
        module = modules.get(place)
        got = [shapes[name + _LORA_B][0], shapes[name + _LORA_A][1]]
        expected = [module.out_features, module.in_features] if isinstance(module, nn.Linear) else None
        if got != expected:
            have = "has no such layer" if expected is None else f"has {expected} there"
            raise UserError(
                f"{folder}: an adapter for another base model: it adapts {place} of size {got}, this model {have}; "
                "give the model that it was trained on"
            )
    here = model.name_or_path or ""
    known = {Path(name).name for name in (here, model.model.language_model.name_or_path) if name}
    # The adapter in a model's own folder is its own, wherever that lies by now.
    is_own = folder.parent == Path(here)
    if base and known and not is_own and Path(str(base)).name not in known:
        logger.warning("%s: trained on %s, right here only if that is %s", folder, base, " or ".join(sorted(known)))
    model.load_adapter(str(folder))


def segmenter_processor(processor: OmgLlavaProcessor) -> OmgSegProcessor:
    """For the segmenter inside of the model, used by itself: grey levels and scale as in conversations, but the picture
    in its own proportions instead of in the middle of a square."""
    images = processor.image_processor
    side = int(images.size["height"])
    return OmgSegProcessor(
        OmgSegImageProcessor(
            size={"longest_edge": side, "shortest_edge": side},
            resample=images.resample,
            do_rescale=images.do_rescale,
            rescale_factor=images.rescale_factor,
            image_mean=images.image_mean,
            image_std=images.image_std,
        ),
        build_clip_tokenizer(),
    )


def _read_json(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected a JSON file of a saved model, got: {error}") from None


__all__ = [
    "QUANTIZATIONS",
    "ChatModel",
    "Quantization",
    "load_adapter",
    "load_llava",
    "quantization_config",
    "segmenter_processor",
]
