"""OMG-LLaVA from a folder: what belongs together is loaded, what does not is said."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from omgvision import OmgLlavaForConditionalGeneration, UserError
from omgvision.llava import load_adapter, load_llava
from tests.golden_llava import FOLDERS, processor, random_llava, text_config

SIDE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "llava"
    random_llava().save_pretrained(path)
    processor(SIDE).save_pretrained(path)
    return path


def save_adapter(path: Path, model: OmgLlavaForConditionalGeneration) -> None:
    from peft import LoraConfig

    model.add_adapter(LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj", "down_proj", "lm_head"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.3)
    model.save_pretrained(path)


def logits(model: OmgLlavaForConditionalGeneration) -> torch.Tensor:
    with torch.no_grad():
        found = model(input_ids=torch.tensor([[1, 5, 6]])).logits
    assert found is not None
    return found


def test_model_and_processor(folder):
    model, ours = load_llava(folder)
    assert not model.training
    assert torch.equal(logits(model), logits(random_llava()))
    assert ours.image_token_id == model.config.image_token_id


def test_an_adapter_of_the_folder_is_taken(folder, tmp_path):
    adapted = random_llava()
    save_adapter(tmp_path / "adapter", adapted)
    alone, _ = load_llava(folder)
    model, _ = load_llava(folder, adapter=tmp_path / "adapter")
    torch.testing.assert_close(logits(model), logits(adapted))
    assert not torch.allclose(logits(model), logits(alone))


@pytest.mark.parametrize(
    ("sizes", "say"),
    [
        ({"num_hidden_layers": 3}, "this model has no such layer"),
        ({"intermediate_size": 64}, r"of size \[32, 64\], this model has \[32, 48\] there"),
    ],
)
def test_an_adapter_of_another_base_model(tmp_path, sizes, say):
    save_adapter(tmp_path / "adapter", random_llava(text_config(**sizes)))
    model = random_llava()
    with pytest.raises(UserError, match=f"another base model.*{say}"):
        load_adapter(model, tmp_path / "adapter")
    assert torch.equal(logits(model), logits(random_llava()))


def test_no_adapter(tmp_path):
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        load_adapter(random_llava(), tmp_path)


def test_other_folders(tmp_path, tiny_model_dir, folder):
    with pytest.raises(UserError, match=r"config\.json"):
        load_llava(tmp_path)
    with pytest.raises(UserError, match="expected a model of type omg_llava, got omg_seg"):
        load_llava(tiny_model_dir)


def test_a_tokenizer_of_another_model(tmp_path):
    random_llava(segment_token_id=300).save_pretrained(tmp_path)
    processor(SIDE).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"expected the tokenizer of the weights .*300"):
        load_llava(tmp_path)
    AutoTokenizer.from_pretrained(FOLDERS[0] / "tiny" / "tokenizer").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="expected the tokens"):
        load_llava(tmp_path)
