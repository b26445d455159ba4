"""What training of OMG-LLaVA starts from: joined to a segmenter, a language model says what it said alone."""

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    GPT2Config,
    GraniteConfig,
    HyperCLOVAXConfig,
    MambaConfig,
    PreTrainedConfig,
)

from omgvision import OmgLlavaForConditionalGeneration, UserError
from omgvision.training.llava_start import joined_model, joined_parts, read_language_model
from tests.golden_llava import SIZES, tokenizer
from tests.llava_folders import LANGUAGE_MODELS, SIDE, save_language_model, save_segmenter

WORDS = torch.arange(3, 9)[None]
LLAMA: dict[str, Any] = {**SIZES, "vocab_size": len(tokenizer())}
OTHERS: dict[str, PreTrainedConfig] = {
    "a factor": CohereConfig(**LLAMA),
    "a divisor": GraniteConfig(**LLAMA, logits_scaling=4.0),
    "another name of the tied embedding": GPT2Config(vocab_size=len(tokenizer()), n_embd=32, n_layer=2, n_head=4),
    "no positions": BloomConfig(vocab_size=len(tokenizer()), hidden_size=32, n_layer=2, n_head=4),
}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> str:
    return str(save_segmenter(tmp_path_factory.mktemp("models") / "segmenter"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=WORDS).logits


def joined(config: PreTrainedConfig, segmenter: str) -> tuple[Any, OmgLlavaForConditionalGeneration]:
    """A new language model of this kind, and what it becomes."""
    torch.manual_seed(0)
    language = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in language.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return language, joined_model(segmenter, language, copy.deepcopy(tokenizer()), image_size=SIDE)


@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_a_language_model_says_what_it_said_alone(kind, segmenter, tmp_path):
    folder = save_language_model(tmp_path / "llm", kind)
    alone = logits(read_language_model(folder, dtype=torch.float32))
    model = joined_parts(segmenter, folder, image_size=SIDE, dtype=torch.float32)
    assert alone.abs().max() > 0.01
    torch.testing.assert_close(logits(model)[..., : alone.shape[-1]], alone)
    model.save_pretrained(tmp_path / "joined")
    torch.testing.assert_close(
        logits(OmgLlavaForConditionalGeneration.from_pretrained(tmp_path / "joined").eval()), logits(model)
    )
    saved = (tmp_path / "joined" / "config.json").read_text()
    assert str(folder) not in saved and str(segmenter) not in saved  # the folders of whoever trained it


@pytest.mark.parametrize("kind", OTHERS)
def test_heads_and_embeddings_of_other_kinds(kind, segmenter, tmp_path):
    language, model = joined(OTHERS[kind], segmenter)
    torch.testing.assert_close(logits(model), logits(language))
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(
        logits(OmgLlavaForConditionalGeneration.from_pretrained(tmp_path).eval()), logits(language)
    )


def test_half_precision_says_the_same(segmenter, tmp_path):
    folder = save_language_model(tmp_path / "llm", "gemma2")
    model = joined_parts(segmenter, folder, image_size=SIDE, dtype=torch.bfloat16)
    assert model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("config", "say"),
    [
        # Multiplies with what Granite divides by.
        (
            HyperCLOVAXConfig(**LLAMA, logits_scaling=4.0),
            "HyperCLOVAXForCausalLM cannot be joined: it makes its logits",
        ),
        (
            MambaConfig(vocab_size=len(tokenizer()), hidden_size=32, num_hidden_layers=2),
            "MambaForCausalLM cannot be joined: .*past_key_values",
        ),
    ],
)
def test_language_models_that_cannot_be_joined(config, say, segmenter):
    with pytest.raises(UserError, match=f"llm: {say}"):
        joined(config, segmenter)
