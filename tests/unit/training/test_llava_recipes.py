"""The stages of OMG-LLaVA: the published numbers, and what learns in each."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from omgvision import OmgLlavaForConditionalGeneration
from omgvision.data import SyntheticScenes
from omgvision.data.conversation_batches import ConversationMixture, ConversationSource, collate_conversations
from omgvision.data.conversation_makers import MadeConversations
from omgvision.training.llava_adapters import without_adapters
from omgvision.training.llava_objective import ConversationObjective
from omgvision.training.recipe import Stage
from omgvision.training.recipes.llava import choose_trained, finetune, gcg, pretrain, refseg
from omgvision.training.trainer import train
from tests.golden_llava import processor, random_llava


def learning(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_published_numbers():
    first, second = pretrain(), finetune()
    assert (first.optimizer.learning_rate, second.optimizer.learning_rate) == (1e-3, 2e-4)
    assert (first.stages[0].batch_size, second.stages[0].batch_size) == (16, 8)
    assert (first.max_length, second.max_length) == (1792, 1692)
    assert (second.rank, second.alpha, second.dropout, first.rank) == (512, 256, 0.05, 0)
    assert (first.projection_weight, second.projection_weight) == (10, 0)
    assert refseg().own_mask_decoder and gcg().own_mask_decoder and not second.own_mask_decoder


def test_warm_up_is_a_share_of_the_steps():
    counted = finetune().with_steps(128_000, processes=8)
    assert (counted.steps, counted.optimizer.warmup_steps) == (1000, 30)
    assert replace(finetune(), epochs=None, steps=9).with_steps(5, processes=1).optimizer.warmup_steps == 500


def test_first_stage_trains_the_projections_alone():
    model = random_llava()
    choose_trained(model, pretrain())
    names = learning(model)
    assert len(names) == 11 + 4
    assert all(name.startswith(("model.projector.", "model.text_to_vision.")) for name in names)
    assert model.config.projection_loss_weight == 10


def test_second_stage_trains_adapters_embeddings_and_head_too():
    model = random_llava()
    choose_trained(model, replace(finetune(), rank=2, alpha=1))
    names = learning(model)
    adapters = {name for name in names if ".lora_" in name}
    layers = model.model.language_model.config.num_hidden_layers
    assert len(adapters) == 2 * (7 * layers + 1)
    assert len(names - adapters) == 11 + 4 + 2
    assert {"model.language_model.embed_tokens.weight", "lm_head.base_layer.weight"} < names
    model.train()
    assert learning(model) == names


def test_a_decoder_of_its_own_learns():
    model = random_llava(own_mask_decoder=True)
    choose_trained(model, replace(refseg(), rank=2))
    decoder = {name for name in learning(model) if name.startswith("model.mask_decoder.")}
    assert decoder and not any("level_embed" in name for name in decoder)
    assert not any("vision_tower" in name for name in learning(model))


def test_places_learn():
    model = random_llava(place_embeddings=True)
    choose_trained(model, replace(finetune(), rank=2))
    assert {"model.places.rows", "model.places.columns"} <= learning(model)


@pytest.mark.parametrize(("own", "recipe"), [(True, finetune()), (False, gcg())])
def test_model_and_recipe_that_do_not_fit(own, recipe):
    with pytest.raises(ValueError, match="own_mask_decoder: expected a model with"):
        choose_trained(random_llava(own_mask_decoder=own), recipe)


def test_the_training_loop_runs_a_stage(tmp_path):
    """Two steps of two micro-batches: the projections have moved, nothing else has."""
    source = ConversationMixture(
        [ConversationSource(MadeConversations(SyntheticScenes(size=(64, 96), length=12), name="scenes"))],
        collate=partial(collate_conversations, processor=processor(128), max_length=400),
    )
    model = random_llava()
    recipe = replace(
        pretrain(),
        out=tmp_path / "run",
        steps=2,
        epochs=None,
        stages=(Stage(size=(128, 128), batch_size=2, share=1.0),),
        precision="fp32",
        gradient_checkpointing=False,
        workers=0,
        log_every=1,
        checkpoint_every=0,
    )
    choose_trained(model, recipe)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    run = train(ConversationObjective(model), source, recipe)
    assert run.share == 1
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved and moved <= learning(model)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert any("projection" in key for line in lines for key in line)


def test_what_is_saved_has_everything_that_was_trained(tmp_path):
    model = random_llava()
    choose_trained(model, replace(finetune(), rank=2, dropout=0.0))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.05)
    without_adapters(model).save_pretrained(tmp_path)
    loaded = OmgLlavaForConditionalGeneration.from_pretrained(tmp_path)
    ids = torch.tensor([[1, 5, 6, 9]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-4, rtol=1e-4)
    for part in ("projector", "text_to_vision"):
        theirs = loaded.model.get_submodule(part).state_dict()
        for name, tensor in model.model.get_submodule(part).state_dict().items():
            assert torch.equal(theirs[name], tensor)
    assert not any("lora" in name for name in loaded.state_dict())
