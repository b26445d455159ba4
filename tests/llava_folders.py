"""Very small segmenters, language models and OMG-LLaVA models as folders."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from omgvision.conversion.internlm2 import LINEAR_NAMES
from omgvision.training.export import processor_for
from tests import golden_llava
from tests.golden_llava import SIZES, processor, random_llava, text_config, tokenizer
from tests.models import random_model

SIDE = 128

LANGUAGE_MODELS = ("llama", "qwen2", "qwen3", "phi3", "phi", "gemma2", "internlm2")


def save_segmenter(folder: Path) -> Path:
    random_model(classes=5, freeze_backbone=True).save_pretrained(folder)
    processor_for(SIDE).save_pretrained(folder)
    return folder


def save_language_model(folder: Path, kind: str) -> Path:
    """A new one of its kind with the tiny tokenizer; some have a head of their own, some one with the embedding, one a
    head with a bias, one a cap on what comes out of it."""
    words = len(tokenizer()) - 6  # before OMG-LLaVA's tokens
    if kind == "internlm2":
        return save_internlm2(folder)
    if kind == "llama":
        model = LlamaForCausalLM(text_config(vocab_size=words))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=words + 40, tie_word_embeddings=True, **SIZES))
    elif kind == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(vocab_size=words, head_dim=8, tie_word_embeddings=True, **SIZES))
    elif kind == "phi":
        model = PhiForCausalLM(PhiConfig(vocab_size=words, **SIZES))
        nn.init.normal_(model.lm_head.bias)
    elif kind == "gemma2":
        model = Gemma2ForCausalLM(Gemma2Config(vocab_size=words, head_dim=8, final_logit_softcapping=0.1, **SIZES))
    else:
        model = Phi3ForCausalLM(Phi3Config(vocab_size=words, **SIZES))
    model.save_pretrained(folder)
    plain_tokenizer(folder)
    return folder


def save_internlm2(folder: Path) -> Path:
    """The recorded tiny InternLM2, as it is published: its own names, and its own kind in config.json."""
    config = golden_llava.read_json("tiny/llm/config")
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "internlm2"}))
    state = load_file(golden_llava.path("tiny/llm/model.safetensors"))
    assert any(name.endswith(next(iter(LINEAR_NAMES)) + ".weight") for name in state)
    save_file(state, folder / "model.safetensors")
    plain_tokenizer(folder)
    return folder


def plain_tokenizer(folder: Path) -> None:
    """The recorded tokenizer without the tokens that OMG-LLaVA adds."""
    for source in (golden_llava.FOLDERS[0] / "tiny" / "tokenizer").iterdir():
        (folder / source.name).write_bytes(source.read_bytes())


def save_llava(folder: Path, **fields: Any) -> Path:
    random_llava(**fields).save_pretrained(folder)
    processor(SIDE).save_pretrained(folder)
    return folder
