"""What training of OMG-LLaVA starts from: a folder, or a segmenter and a language model that have not met yet."""

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from omgvision.conversion.checkpoint import read_checkpoint
from omgvision.conversion.internlm2 import convert_internlm2
from omgvision.conversion.omg_llava_folder import ADAPTER_FOLDER
from omgvision.errors import UserError
from omgvision.hub import load
from omgvision.llava import load_llava
from omgvision.models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.processing_omg_llava import OmgLlavaProcessor, prepare_tokenizer, token_ids
from omgvision.models.omg_llava.projector_omg_llava import Places
from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.training.llava_adapters import without_adapters

MULTIPLE = 64
"""Pixels: the sides of the network input divide into stride 32 and blocks of two."""


def started_from_folder(folder: str | Path, *, dtype: torch.dtype) -> OmgLlavaForConditionalGeneration:
    """The model of a folder, in training's hands; adapters that lie in it are added to its matrices.

    Args:
        folder: Written by `omg convert`, `omg train` or `save_pretrained`.
        dtype: Of the language model and the projections.

    Raises:
        UserError: As `load_llava`.
    """
    model, _ = load_llava(folder, dtype=dtype)
    return without_adapters(model) if (Path(folder) / ADAPTER_FOLDER).is_dir() else model


def joined_parts(
    segmenter: str | None, language_model: str | Path, *, image_size: int, dtype: torch.dtype
) -> OmgLlavaForConditionalGeneration:
    """A segmenter and a causal language model of Hugging Face (or InternLM2) with new projections between them.

    Args:
        segmenter: As `omg.load` takes it; None is the bundled one.
        language_model: Folder or Hub id.
        image_size: Side of the network input in pixels.
        dtype: Of the language model and the projections.

    Raises:
        UserError: No such segmenter or language model, one that joined does not say the same, or another side than
            multiples of 64.
    """
    if image_size < MULTIPLE or image_size % MULTIPLE:
        raise UserError(f"image_size: expected a multiple of {MULTIPLE}, got {image_size}")
    language, tokenizer = read_language_model(language_model, dtype=dtype), read_tokenizer(language_model)
    embedding = language.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    if len(tokenizer) > embedding.num_embeddings:
        language.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    return joined_model(segmenter, language, tokenizer, image_size=image_size)


def joined_model(
    segmenter: str | None, language: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, image_size: int
) -> OmgLlavaForConditionalGeneration:
    """As `joined_parts`, of a language model and a prepared tokenizer that are at hand."""
    head = language.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise UserError(f"llm: {type(language).__name__} cannot be joined: its head is not one matrix")
    seen = load(segmenter, device="cpu", dtype="float32").model
    vision_config, text_config = copy.deepcopy(seen.config), copy.deepcopy(language.config)
    vision_config.text_config = None  # its words are encoded already
    vision_config.name_or_path = text_config.name_or_path = ""  # where they lay is nobody else's business
    fields: dict[str, Any] = {"head_bias": head.bias is not None, **token_ids(tokenizer)}
    config = OmgLlavaConfig(vision_config=vision_config, text_config=text_config, image_size=image_size, **fields)
    model = OmgLlavaForConditionalGeneration(config)
    tower = model.model.vision_tower
    tower.load_state_dict({name: tensor for name, tensor in seen.state_dict().items() if "text_model." not in name})
    dtype = language.dtype
    for part in (model.model.language_model, model.model.projector, model.model.text_to_vision, model.lm_head):
        nn.Module.to(part, dtype)
    try:
        model.model.language_model.load_state_dict(language.base_model.state_dict())
        model.lm_head.load_state_dict(head.state_dict())
        says_the_same = _say_the_same(model, language)
    except (AttributeError, RuntimeError) as error:  # parts that are built in another way, no cache, …
        raise UserError(f"llm: {type(language).__name__} cannot be joined: {str(error).splitlines()[0]}") from error
    if not says_the_same:
        raise UserError(
            f"llm: {type(language).__name__} cannot be joined: it makes its logits in a way that is not known here; "
            "choose a language model of another kind"
        )
    ends = [tokenizer.eos_token_id, tokenizer.get_vocab()["<|im_end|>"]]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=sorted(set(ends)), pad_token_id=padding_of(tokenizer)
    )
    return model.eval()


def _say_the_same(model: OmgLlavaForConditionalGeneration, language: PreTrainedModel) -> bool:
    """Whether both have the same logits for a few words."""
    words = torch.arange(4)[None]
    with torch.no_grad():
        found, expected = (each.eval()(input_ids=words).logits.float() for each in (model, language))
    tolerance = max(1e-3, 8 * torch.finfo(language.dtype).eps)
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())


def joined_processor(segmenter: str | None, language_model: str | Path, *, image_size: int) -> OmgLlavaProcessor:
    """The processor of `joined_parts`.

    Raises:
        UserError: As there.
    """
    return processor_of_parts(segmenter, read_tokenizer(language_model), image_size=image_size)


def processor_of_parts(
    segmenter: str | None, tokenizer: PreTrainedTokenizerBase, *, image_size: int
) -> OmgLlavaProcessor:
    """Pictures as the segmenter knows their colours, on a square; words as the language model does."""
    fields: dict[str, Any] = load(segmenter, device="cpu", dtype="float32").processor.image_processor.to_dict()
    kept = ("do_rescale", "rescale_factor", "image_mean", "image_std", "resample")
    images = OmgSegImageProcessor(
        size={"height": image_size, "width": image_size}, **{name: fields[name] for name in kept}
    )
    return OmgLlavaProcessor(images, tokenizer)


def read_language_model(source: str | Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """A causal language model, InternLM2 in Llama's layout.

    Raises:
        UserError: There is none.
    """
    folder = Path(source)
    try:
        if folder.is_dir() and json.loads((folder / "config.json").read_text())["model_type"] == "internlm2":
            return _internlm2(folder, dtype)
        return AutoModelForCausalLM.from_pretrained(source, dtype=dtype)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"llm: expected the folder or Hub id of a causal language model, {source}: {str(error).splitlines()[0]}"
        ) from error


def _internlm2(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    state = {name: tensor for file in files for name, tensor in read_checkpoint(file)[0].items()}
    config, converted = convert_internlm2(state, json.loads((folder / "config.json").read_text()))
    model = LlamaForCausalLM(config)
    model.load_state_dict(converted)
    nn.Module.to(model, dtype)
    return model


def read_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a language model, with the tokens of OMG-LLaVA.

    Raises:
        UserError: There is none that needs no code of its own.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise UserError(
            f"llm: expected a tokenizer that needs no code of its own, {source}: {str(error).splitlines()[0]}"
        ) from error
    prepare_tokenizer(tokenizer)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def padding_of(tokenizer: PreTrainedTokenizerBase) -> Any:
    return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id


def give_own_decoder(model: OmgLlavaForConditionalGeneration) -> None:
    """Puts in a copy of the segmenter's mask decoder, for [SEG] alone, where there is none."""
    inner = model.model
    if inner.mask_decoder is None:
        model.config.own_mask_decoder = True
        inner.mask_decoder = copy.deepcopy(inner.vision_tower.model.mask_decoder)


def give_places(model: OmgLlavaForConditionalGeneration) -> None:
    """Lets tokens say where in the picture they are; they say nothing yet."""
    config, inner = model.config, model.model
    config.place_embeddings = True
    inner.places = Places(config.grid_size, model.lm_head.in_features)
