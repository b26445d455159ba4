"""Greedy answers of OMG-LLaVA against the original's: tokens, scores, masks."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_llava.square_omg_llava import Square
from tests.closeness import assert_features
from tests.golden_llava import (
    SIDE,
    golden_llava,
    golden_pixels,
    load,
    processor,
    read_json,
    tokenizer,
    with_image_token,
)

CASES = ["refseg", "prompts"]


@cache
def answer(case: str, **options: Any) -> Any:
    recorded = load(f"generate_{case}")
    prompts = {}
    if case == "prompts":
        prompts = {"input_points": recorded["points"][None, :, None], "input_boxes": recorded["boxes"][None]}
    return golden_llava().generate(
        input_ids=with_image_token(recorded["input_ids"]),
        pixel_values=golden_pixels("a" if case == "refseg" else "b"),
        max_new_tokens=16,
        do_sample=False,
        eos_token_id=[2, 400],
        pad_token_id=2,
        output_masks=True,
        output_logits=True,
        **prompts,
        **options,
    )


def new_tokens(case: str, result: Any) -> Tensor:
    return result.sequences[0, load(f"generate_{case}")["input_ids"].shape[1] :]


@pytest.mark.parametrize("case", CASES)
def test_prompt(case):
    """Our tokenisation of the original's prompt, without its hint that the picture is no token."""
    text = read_json("meta")[f"gen_{case}"]["prompt"]
    ids, _ = processor()._tokenize([(text, False)], begin=True)
    assert torch.equal(torch.tensor([ids]), with_image_token(load(f"generate_{case}")["input_ids"]))


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_scores(case):
    recorded, found = load(f"generate_{case}"), answer(case)
    # transformers 4.36 put a BOS in front of what it returned for embeddings.
    assert torch.equal(new_tokens(case, found), recorded["sequences"][1:])
    assert_features(torch.cat(found.logits), recorded["scores"])
    text = tokenizer().decode(torch.cat((recorded["sequences"][:1], new_tokens(case, found))))
    assert text == read_json("meta")[f"gen_{case}"]["text"]


@pytest.mark.parametrize("case", CASES)
def test_masks(case):
    recorded, found = load(f"generate_{case}"), answer(case)
    assert_features(found.mask_logits[0], recorded["mask_logits_last"][:, 0])
    width, height = read_json("meta")[f"gen_{case}"]["orig_wh"]
    logits = Square(height, width, SIDE).restore(found.mask_logits[0])
    assert_features(logits, recorded["mask_logits_orig_size"])
    masks = processor().post_process_masks(found.mask_logits[0], size=(height, width))
    assert torch.equal(masks, recorded["masks_orig_size"].bool())


@pytest.mark.parametrize("case", CASES)
def test_embeddings_of_the_prompt(case):
    recorded, model = load(f"generate_{case}"), golden_llava()
    seen: list[Tensor] = []
    hook = model.model.language_model.register_forward_pre_hook(
        lambda module, arguments, options: seen.append(options["inputs_embeds"]), with_kwargs=True
    )
    states: list[Tensor] = []
    try:
        answer(case, state_observer=states.append)
    finally:
        hook.remove()
    assert_features(seen[0], recorded["inputs_embeds"])
    assert_features(torch.cat(states), recorded["last_hidden_rows"][-len(states) :])
