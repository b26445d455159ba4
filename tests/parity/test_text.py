"""Tokens, text features and class embeddings against the original's text tower and gen_cls.py (golden tiny_text)."""

import torch
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from omgvision.conversion import convert_open_clip_text
from omgvision.models.omg_seg.vocabulary_omg_seg import (
    TEMPLATES,
    average_templates,
    build_clip_tokenizer,
    encode_names,
    split_synonyms,
    stack_prototypes,
    tokenize,
)
from tests.golden import load, read_json

FACTS = read_json("tiny_text")
RECORDED = load("tiny_io_text")


def text_tower() -> CLIPTextModelWithProjection:
    """The recorded tower. Its token table is stored for the tokens in use; the others never matter."""
    state = load("tiny_text_state")
    used, rows = state.pop("text_token_embedding.used_ids"), state.pop("text_token_embedding.used_rows")
    table = torch.zeros(49408, rows.shape[1])
    table[used] = rows
    state["text_token_embedding.weight"] = table
    config, converted = convert_open_clip_text(state, {"num_attention_heads": 2})
    model = CLIPTextModelWithProjection(config).eval()
    model.load_state_dict(converted)
    return model


def padded(texts: list[str]) -> Tensor:
    """Ids as open_clip gives them: 77 wide, zeros after the end."""
    ids, mask = tokenize(texts, tokenizer=build_clip_tokenizer())
    out = torch.zeros(len(texts), 77, dtype=torch.long)
    out[:, : ids.shape[1]] = ids * mask
    return out


def test_templates_and_synonyms():
    assert list(TEMPLATES) == FACTS["templates"]
    assert [split_synonyms(name) for name in FACTS["classes"]] == FACTS["split_labels"]


def test_tokens():
    assert len(build_clip_tokenizer()) == FACTS["vocab_size"]
    assert torch.equal(padded(FACTS["descriptions"]), RECORDED["tokens"].long())
    assert torch.equal(padded(FACTS["extra"]), RECORDED["extra_tokens"].long())


@torch.no_grad()
def test_features():
    model = text_tower()
    for texts, recorded in ((FACTS["descriptions"], "features"), (FACTS["extra"], "extra_features")):
        ids, mask = tokenize(texts, tokenizer=build_clip_tokenizer())
        features = model(input_ids=ids, attention_mask=mask).text_embeds
        torch.testing.assert_close(features, RECORDED[recorded], atol=1e-5, rtol=1e-4)


def test_prototypes_of_recorded_features():
    words = [word for name in FACTS["classes"] for word in split_synonyms(name)]
    rows = average_templates(RECORDED["features"], templates=len(TEMPLATES))
    stacked = stack_prototypes(dict(zip(words, rows, strict=True)), [split_synonyms(name) for name in FACTS["classes"]])
    torch.testing.assert_close(stacked, RECORDED["classifier"], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_names_to_classifier():
    model = text_tower()
    embeddings = encode_names(
        FACTS["classes"],
        encode_text=lambda ids, mask: model(input_ids=ids, attention_mask=mask).text_embeds,
        tokenizer=build_clip_tokenizer(),
        batch_size=5,
    )
    torch.testing.assert_close(embeddings, RECORDED["classifier"], atol=1e-5, rtol=1e-4)
