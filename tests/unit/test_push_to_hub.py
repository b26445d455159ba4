"""`push_to_hub` of models and processors: what arrives is a folder that `omgvision.load` takes.

The Hub is a local folder: what would be sent over the network is written there.
"""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import CommitOperationAdd, HfApi, ModelCard
from huggingface_hub.errors import EntryNotFoundError
from PIL import Image

import omgvision
from omgvision import OmgSegForUniversalSegmentation, OmgSegProcessor
from omgvision.training.llava_adapters import without_adapters
from tests.golden_llava import processor, random_llava

PICTURE = Image.new("RGB", (96, 64), (90, 120, 40))


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """Where repositories arrive."""

    def create_commit(self, repo_id: str, operations: list[CommitOperationAdd], **kwargs) -> str:
        for operation in operations:
            target = tmp_path / repo_id / operation.path_in_repo
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(operation.path_or_fileobj), target)
        return repo_id

    def no_card(*args, **kwargs):
        raise EntryNotFoundError("the repository is new")

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "create_commit", create_commit)
    monkeypatch.setattr(ModelCard, "load", no_card)
    return tmp_path


def push(model: Any, repository: str) -> None:
    """As users do; transformers' wrapper of the method hides what it takes from pyright."""
    model.push_to_hub(repository)


def test_a_segmenter(hub, tiny_model_dir):
    push(OmgSegForUniversalSegmentation.from_pretrained(tiny_model_dir), "me/segmenter")
    OmgSegProcessor.from_pretrained(tiny_model_dir).push_to_hub("me/segmenter")
    here, there = (omgvision.load(folder, device="cpu") for folder in (tiny_model_dir, hub / "me/segmenter"))
    assert torch.equal(*(torch.from_numpy(each.segment(PICTURE).label_map) for each in (here, there)))


def test_a_chat_model(hub):
    push(random_llava(), "me/llava")
    processor(128).push_to_hub("me/llava")
    answer = omgvision.load(hub / "me/llava", device="cpu").chat(PICTURE, "What is here?", max_new_tokens=3)
    assert answer.image is not None


def test_a_chat_model_whose_adapters_became_part_of_it(hub):
    from peft import LoraConfig

    model = random_llava()
    model.add_adapter(LoraConfig(r=2, lora_alpha=1, target_modules=["q_proj", "down_proj"]))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.fill_(0.3)
    ids = torch.tensor([[1, 5, 6]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
        push(without_adapters(model), "me/merged")
        processor(128).push_to_hub("me/merged")
        loaded = omgvision.load(hub / "me/merged", device="cpu").chat_model.model
        torch.testing.assert_close(loaded(input_ids=ids).logits, before)
    assert not (hub / "me/merged/adapter_config.json").exists()
