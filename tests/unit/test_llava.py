"""OMG-LLaVA from a folder: what belongs together is loaded, what does not is said."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.quantizers.quantizers_utils import should_convert_module

import omgvision
from omgvision import OmgLlavaForConditionalGeneration, UserError, hub
from omgvision.llava import load_adapter, load_llava, quantization_config
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


def rewritten_adapter(path: Path, rename: Callable[[str], str | None]) -> Path:
    """The adapter of a tiny model with other names; what has none is left out."""
    save_adapter(path, random_llava())
    found = load_file(path / "adapter_model.safetensors")
    save_file({new: found[old] for old in found if (new := rename(old))}, path / "adapter_model.safetensors")
    return path


@pytest.mark.parametrize(
    ("rename", "say"),
    [
        (lambda name: None if "q_proj.lora_B" in name else name, "expected lora_A and lora_B for .*q_proj, got one of"),
        (lambda name: None if "q_proj.lora_A" in name else name, "expected lora_A and lora_B for .*q_proj, got one of"),
        (lambda name: name.replace("lora_", "hada_"), r"expected a LoRA adapter \(.*\), got .*hada_A"),
        (lambda name: None, "expected a LoRA adapter .*, got nothing"),
    ],
)
def test_an_adapter_file_that_is_not_one(tmp_path, rename, say):
    with pytest.raises(UserError, match=say):
        load_adapter(random_llava(), rewritten_adapter(tmp_path, rename))


def test_an_adapter_that_names_another_model(folder, tmp_path, caplog):
    """It fits, and folders are renamed: a warning is enough, and none for the model's own."""

    def warnings(adapter: Path, base: str | None, model: Path = folder) -> list[str]:
        save_adapter(adapter, random_llava())
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": base}))
        caplog.clear()
        load_llava(model, adapter=adapter)
        return [record.getMessage() for record in caplog.records if record.name == "omgvision.llava"]

    [warning] = warnings(tmp_path / "a", "somewhere/internlm2-chat-7b")
    assert "trained on somewhere/internlm2-chat-7b, right here only if that is llava" in warning
    assert warnings(tmp_path / "b", "somewhere/llava") == warnings(tmp_path / "c", None) == []
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert warnings(moved / "adapter", "somewhere/llava", moved) == []


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


# --- as people load it -----------------------------------------------------------------------------------------------


def test_one_object_chats_segments_clicks_and_tracks(folder, photo):
    model = omgvision.load(folder, device="cpu")
    answer = model.chat(photo, "What is here?", points=[(30, 30)], max_new_tokens=3)
    assert isinstance(answer, omgvision.Answer)
    conversation = model.open_chat(photo)
    assert conversation.ask("What is <mark>?", points=[(30, 30)], max_new_tokens=3).tagged
    assert conversation.model is model.chat_model.model and conversation.model.model.vision_tower is model.model
    # Its segmenter by itself is the very one that the conversation sees with.
    result = model.segment(photo, task="instance", threshold=0.0)
    assert (result.width, result.height) == photo.size and set(result.labels) <= set(model.classes)
    assert model.click(photo, [(30, 30)]).masks.shape == (1, photo.height, photo.width)
    assert [frame.frame.index for frame in model.track([photo, photo], task="semantic") if frame.frame] == [0, 1]
    with pytest.raises(UserError, match="no text tower"):
        model.segment(photo, classes=["dog"])


def test_precision_is_the_language_models(folder):
    model = omgvision.load(folder, device="cpu", dtype="bfloat16")
    assert model.model.dtype == torch.float32 and model.chat_model.model.lm_head.weight.dtype == torch.bfloat16


def test_bundled_weights_chat_where_they_are(folder, tiny_model_dir, tmp_path, monkeypatch, photo):
    """The folder's presence is enough; without it one line says what to do."""
    places = {hub.BUNDLED: tiny_model_dir, hub.BUNDLED_CHAT: tmp_path / "gone"}
    monkeypatch.setattr(hub, "bundled_folder", lambda name=hub.BUNDLED: places[name])
    assert not hub.has_bundled_chat()
    model = omgvision.load(device="cpu")
    with pytest.raises(UserError, match=r"no bundled weights that chat .*omg convert"):
        model.chat(photo, "What is here?")
    places[hub.BUNDLED_CHAT] = folder
    assert hub.has_bundled_chat()
    assert model.chat(photo, "What is here?", max_new_tokens=2).image is not None
    assert model.chat_model is model.chat_model  # loaded once
    assert omgvision.load(hub.BUNDLED_CHAT, device="cpu").name == "omg-llava-nano"


def test_a_segmenter_does_not_chat(tiny_model_dir, photo):
    model = omgvision.load(tiny_model_dir, device="cpu")
    with pytest.raises(UserError, match="tiny is a segmenter and does not chat"):
        model.chat(photo, "What is here?")
    with pytest.raises(UserError, match="adapter belongs to models that chat"):
        omgvision.load(tiny_model_dir, device="cpu", adapter=tiny_model_dir)
    with pytest.raises(UserError, match="quantization belongs to models that chat"):
        omgvision.load(tiny_model_dir, device="cpu", quantization="4bit")


def test_a_picture_that_does_not_exist(folder, tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        omgvision.load(folder, device="cpu").chat(tmp_path / "missing.jpg", "What is here?")


def test_an_adapter_by_name(folder, tmp_path):
    save_adapter(tmp_path / "adapter", random_llava())
    adapted = omgvision.load(folder, device="cpu", adapter=tmp_path / "adapter").chat_model.model
    assert not torch.allclose(logits(adapted), logits(random_llava()))
    with pytest.raises(UserError, match=r"adapter_config\.json"):
        omgvision.load(folder, device="cpu", adapter=tmp_path)


def test_masks_come_back_in_the_picture_s_frame(folder):
    """Whatever its proportions; the answer is forced to point."""
    model = omgvision.load(folder, device="cpu")
    for size in ((90, 20), (20, 90)):
        conversation = model.open_chat(Image.new("RGB", size, (200, 40, 60)))
        logits = conversation.mask_logits(torch.zeros(1, 32))
        assert logits is not None and logits.shape == size[::-1]


# --- fewer bits ------------------------------------------------------------------------------------------------------


def test_quantization_says_what_it_needs(folder, monkeypatch):
    with pytest.raises(UserError, match=r"quantization 4bit: expected a GPU .*, got cpu"):
        omgvision.load(folder, device="cpu", quantization="4bit")
    with pytest.raises(UserError, match="expected one of 4bit, 8bit, got '2bit'"):
        quantization_config("2bit", device=torch.device("cuda"))  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr("omgvision.llava.importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs bitsandbytes: pip install"):
        quantization_config("8bit", device=torch.device("cuda"))


def test_quantization_is_the_original_s(monkeypatch):
    monkeypatch.setattr("omgvision.llava.importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("transformers.utils.quantization_config.BitsAndBytesConfig.post_init", lambda self: None)
    four = quantization_config("4bit", device=torch.device("cuda"))
    assert four.load_in_4bit and four.bnb_4bit_quant_type == "nf4" and four.bnb_4bit_use_double_quant
    assert four.bnb_4bit_compute_dtype == torch.float16
    assert quantization_config("8bit", device=torch.device("cuda")).load_in_8bit
    # Head, segmenter and projections keep their precision; all other matrices are the language model's.
    matrices = [
        name
        for name, module in random_llava(own_mask_decoder=True).named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    packed = [name for name in matrices if should_convert_module(name, four.llm_int8_skip_modules)]
    assert packed == [name for name in matrices if name.startswith("model.language_model.layers.")]
