"""The recorded truth of the original OMG-LLaVA, and the tiny models that it is compared with.

A part of the record is in `fixtures/omg_llava`; what is too large for a repository lies beside it, and a test that
needs it is skipped where it is not at hand.
"""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase

from omgvision import OmgLlavaConfig, OmgLlavaForConditionalGeneration, OmgLlavaProcessor, OmgSegImageProcessor
from omgvision.conversion.omg_llava import read_omg_llava, split_adapter
from omgvision.models.omg_llava.outputs_omg_llava import OmgLlavaImages
from omgvision.models.omg_llava.processing_omg_llava import prepare_tokenizer, token_ids
from omgvision.models.omg_llava.tokens_omg_llava import TURN_TOKENS

from .models import random_classes, random_config

FOLDERS = (
    Path(__file__).parent / "fixtures" / "omg_llava",
    Path(__file__).parents[2] / "shared" / "golden" / "omg_llava",
)
SIDE = 256
CLIP_MEAN, CLIP_STD = [0.4814, 0.4578, 0.4082], [0.2686, 0.2613, 0.2757]


def path(name: str) -> Path:
    """The file called `name`, suffix included; the test is skipped where it is not at hand."""
    for folder in FOLDERS:
        if (folder / name).is_file():
            return folder / name
    pytest.skip(f"no recorded {name} in {FOLDERS[0]} or {FOLDERS[1]}")


def load(name: str) -> dict[str, Tensor]:
    """The tensors of `name`.safetensors."""
    return load_file(path(f"{name}.safetensors"))


def read_json(name: str) -> Any:
    """The content of `name`.json."""
    return json.loads(path(f"{name}.json").read_text(encoding="utf-8"))


def read_model(finetuned: str, *, merge: bool) -> tuple[OmgLlavaConfig, dict[str, Tensor]]:
    """The recorded tiny model with one of its trained files, converted."""
    fields = {"image_size": SIDE, "text_config": read_json("tiny/llm/config"), "num_loss_points": 96}
    config, state, report = read_omg_llava(
        load(f"tiny/{finetuned}"),
        load("tiny/omg_seg_encoder"),
        load("tiny/llm/model"),
        load("tiny/ov_class_embed")["class_embed"],
        fields,
        merge=merge,
    )
    assert report.unexpected == []
    return config, state


@cache
def golden_llava(finetuned: str = "omg_llava_finetune") -> OmgLlavaForConditionalGeneration:
    """The recorded tiny model with merged adapters, in evaluation mode; shared, so do not change it."""
    config, state = read_model(finetuned, merge=True)
    model = OmgLlavaForConditionalGeneration(config)
    model.load_state_dict(state)
    return model.eval()


def adapted_llava(finetuned: str) -> OmgLlavaForConditionalGeneration:
    """A new recorded tiny model whose adapters are apart (peft), in training mode."""
    from peft import LoraConfig, set_peft_model_state_dict

    config, state = read_model(finetuned, merge=False)
    weights, adapter = split_adapter(state)
    model = OmgLlavaForConditionalGeneration(config)
    model.load_state_dict(weights)
    targets = [name.removesuffix(".lora_A.weight") for name in adapter if name.endswith(".lora_A.weight")]
    model.add_adapter(LoraConfig(r=4, lora_alpha=2, lora_dropout=0.0, target_modules=targets))
    left = set_peft_model_state_dict(model, adapter, low_cpu_mem_usage=False)
    assert not left.unexpected_keys
    return model.train()


def golden_pixels(names: str = "abc") -> Tensor:
    """The recorded network inputs of these pictures [I, 3, 256, 256]."""
    recorded = load("encoder")
    return torch.stack([recorded[f"pixel_values_{name}"] for name in names])


@cache
def golden_images(names: str = "abc") -> OmgLlavaImages:
    with torch.no_grad():
        return golden_llava().encode_images(golden_pixels(names))


def with_image_token(ids: Tensor) -> Tensor:
    """The record has -200 where our tokenizer has a token."""
    return ids.masked_fill(ids == -200, golden_llava().config.image_token_id)


@cache
def tokenizer() -> PreTrainedTokenizerBase:
    """The recorded tiny tokenizer with the tokens that OMG-LLaVA adds."""
    found = AutoTokenizer.from_pretrained(FOLDERS[0] / "tiny" / "tokenizer")
    prepare_tokenizer(found)
    return found


def processor(side: int = SIDE) -> OmgLlavaProcessor:
    """As the released model's, for pictures of `side` pixels."""
    images = OmgSegImageProcessor(
        size={"height": side, "width": side},
        resample=3,
        do_rescale=True,
        image_mean=CLIP_MEAN,
        image_std=CLIP_STD,
    )
    return OmgLlavaProcessor(images, copy.deepcopy(tokenizer()))


SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""Of a very small language model of any kind."""


def text_config(**overrides: Any) -> LlamaConfig:
    """A very small language model for the tiny tokenizer."""
    return LlamaConfig(**({"vocab_size": len(tokenizer()), **SIZES} | overrides))


def never_ending(model: OmgLlavaForConditionalGeneration) -> OmgLlavaForConditionalGeneration:
    """It cannot say what ends an answer."""
    known = tokenizer()
    turns = [known.get_vocab()[token] for token in TURN_TOKENS]
    model.generation_config.suppress_tokens = [*turns, known.eos_token_id]
    return model


def random_llava(text: Any = None, **overrides: Any) -> OmgLlavaForConditionalGeneration:
    """A new very small model of 128-pixel pictures, the same at every call, in evaluation mode."""
    vision = random_config(num_classes=5, num_prototypes=2, freeze_backbone=True)
    fields: dict[str, Any] = {"image_size": 128, "num_loss_points": 32, **token_ids(tokenizer()), **overrides}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = OmgLlavaConfig(vision_config=vision, text_config=text or text_config(), **fields)
        model = OmgLlavaForConditionalGeneration(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            model.model.vision_tower.class_embeddings.copy_(random_classes(5))
    return model.eval()
