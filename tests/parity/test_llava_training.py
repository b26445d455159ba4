"""Training steps of OMG-LLaVA against the original's: losses and the gradient of every trained parameter."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from omgvision import OmgLlavaForConditionalGeneration
from omgvision.conversion.omg_llava import _RULES, _adapters, _sort
from omgvision.conversion.omg_seg import HEAD_RULES
from omgvision.conversion.renaming import rename
from tests.closeness import assert_close, assert_features
from tests.golden_llava import adapted_llava, golden_pixels, load, read_json, read_model, with_image_token
from tests.parity.test_llava_model import RecordedPoints, golden_prompts

STEPS = ["finetune", "own_decoder", "pretrain"]
FINETUNED = {"finetune": "omg_llava_finetune", "own_decoder": "omg_llava_finetune_decoder"}


@dataclass
class Step:
    """The model after the backward pass of a recorded step, and its losses."""

    model: OmgLlavaForConditionalGeneration
    losses: dict[str, Tensor]
    recorded: dict[str, Tensor]

    def gradient(self, name: str) -> Tensor:
        """By the name of a parameter in a model without adapters."""
        parameters = dict(self.model.named_parameters())
        module, _, kind = name.rpartition(".")
        for candidate in (name, f"{module}.base_layer.{kind}"):
            if candidate in parameters:
                gradient = parameters[candidate].grad
                assert gradient is not None, name
                return gradient
        raise AssertionError(f"no parameter {name}")


@cache
def step(case: str) -> Step:
    recorded = load(f"train_step_{case}")
    if case == "pretrain":
        return pretrain_step(recorded)
    model = adapted_llava(FINETUNED[case])
    # peft freezes everything but its adapters.
    for module in (model.model.projector, model.model.text_to_vision, model.get_input_embeddings()):
        module.requires_grad_(True)
    model.lm_head.base_layer.requires_grad_(True)
    if model.model.mask_decoder is not None:
        model.model.mask_decoder.requires_grad_(True)
    model.train()
    batch, prompts = load("merged_inputs"), golden_prompts()
    masks = batch["masks"]
    output = model(
        input_ids=with_image_token(batch["input_ids"]),
        attention_mask=batch["attention_mask_in"].long(),
        labels=batch["labels_in"],
        pixel_values=golden_pixels(),
        input_points=prompts.points,
        input_point_labels=prompts.point_labels,
        input_masks=prompts.masks,
        prompt_slots=prompts.slots,
        mask_labels=[masks[:1], masks[:0], masks[1:], masks[:0]],
        loss_points=RecordedPoints(recorded),
    )
    output.loss.backward()
    return Step(model, output.loss_dict | {"total": output.loss}, recorded)


def pretrain_step(recorded: dict[str, Tensor]) -> Step:
    """Only both projections learn, from captions and from each other."""
    config, state = read_model("omg_llava_pretrain", merge=False)
    config.projection_loss_weight = 10
    model = OmgLlavaForConditionalGeneration(config)
    model.load_state_dict(state)
    model.requires_grad_(False)
    model.model.projector.requires_grad_(True)
    model.model.text_to_vision.requires_grad_(True)
    output = model.train()(
        input_ids=with_image_token(recorded["input_ids"]),
        attention_mask=recorded["attention_mask"].long(),
        labels=recorded["labels"],
        pixel_values=golden_pixels("ab"),
    )
    output.loss.backward()
    return Step(model, output.loss_dict | {"total": output.loss}, recorded)


@pytest.mark.parametrize("case", STEPS)
def test_losses(case):
    found = step(case)
    recorded = {
        "loss_text": found.recorded["loss"],
        "loss_mask": found.recorded["loss_mask"],
        "loss_dice": found.recorded["loss_dice"],
        "total": found.recorded["total"],
    }
    if case == "pretrain":
        recorded["loss_projection"] = found.recorded["loss_proj"]
    assert found.losses.keys() == recorded.keys()
    for name, value in recorded.items():
        assert_close(found.losses[name], value[0], atol=1e-4, name=name)


def test_queries_that_come_back():
    """All queries of both pictures, and what both projections make of them."""
    found = step("pretrain")
    model = found.model.model
    with torch.no_grad():
        images = model.encode_images(golden_pixels("ab"))
        assert images.queries is not None
        queries = images.queries.flatten(0, 1)
        returned = model.text_to_vision(model.projector.project_queries(queries))
    assert_features(queries, found.recorded["gt_obj_query"])
    assert_features(returned, found.recorded["pred_obj_query"])


@pytest.mark.parametrize("case", STEPS)
def test_gradients(case):
    """The record's gradients go through the conversion as weights do.

    The original's adapters of queries, keys and values share A, so the gradients of our three add up to its one.
    """
    found = step(case)
    prefix = "grad."
    gradients = {key.removeprefix(prefix): value for key, value in found.recorded.items() if key.startswith(prefix)}
    base = {"model.tok_embeddings.weight": torch.empty(0), "output.weight": torch.empty(0)}
    trained = _sort(gradients, base)
    checked = rename(trained.others, _RULES)
    assert checked.unmatched == []
    decoder = rename(trained.decoder, HEAD_RULES)
    assert decoder.unmatched == []
    expected = checked.state | decoder.state
    names = {
        "model.tok_embeddings.weight": "model.language_model.embed_tokens.weight",
        "output.weight": "lm_head.weight",
    }
    expected |= {names[key]: tensor for key, tensor in trained.llm.items()}
    for name, gradient in expected.items():
        assert_close(found.gradient(name), gradient, atol=1e-4, name=name)

    adapters, unknown = _adapters(trained.lora, found.model.model.language_model.config)
    assert unknown == []
    shared: dict[str, list[str]] = {}
    for module, (_, lora_b) in adapters.items():
        assert_close(found.gradient(f"{module}.lora_B.default.weight"), lora_b, atol=1e-4, name=module)
        block = module.rpartition(".")[0] if module[-6:] in ("q_proj", "k_proj", "v_proj") else module
        shared.setdefault(block, []).append(module)
    for modules in shared.values():
        total = sum(found.gradient(f"{module}.lora_A.default.weight") for module in modules)
        assert isinstance(total, Tensor)
        assert_close(total, adapters[modules[0]][0], atol=1e-4, name=modules[0])


@pytest.mark.parametrize("case", STEPS)
def test_what_learns(case):
    """As many parameters as the original trains, and the segmenter not at all."""
    meta, found = read_json("meta"), step(case)
    assert not any(parameter.requires_grad for parameter in found.model.model.vision_tower.parameters())
    learned = {name for name, parameter in found.model.named_parameters() if parameter.grad is not None}
    if case == "pretrain":
        assert len(learned) == len(meta["pretrain_trainable"])
    else:
        recorded = meta["finetune_trainable"] + (meta["own_decoder_trainable_extra"] if case == "own_decoder" else [])
        # Packed projections are three of ours.
        packed = sum("wqkv" in name or "in_proj" in name for name in recorded)
        assert len(learned) == len(recorded) + 2 * packed
