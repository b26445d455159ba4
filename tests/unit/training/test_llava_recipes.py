"""The stages of OMG-LLaVA: the published numbers, and what learns in each."""

from dataclasses import replace

import pytest

from omgvision.training.recipes.llava import choose_trained, finetune, gcg, pretrain, refseg
from tests.golden_llava import random_llava


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


@pytest.mark.parametrize(("own", "recipe"), [(True, finetune()), (False, gcg())])
def test_model_and_recipe_that_do_not_fit(own, recipe):
    with pytest.raises(ValueError, match="own_mask_decoder: expected a model with"):
        choose_trained(random_llava(own_mask_decoder=own), recipe)
