"""Names, tokens, prototypes and the cache."""

import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omgvision.models.omg_seg.vocabulary_omg_seg import (
    TEMPLATES,
    VocabularyCache,
    average_templates,
    build_clip_tokenizer,
    check_names,
    encode_names,
    fingerprint,
    split_synonyms,
    stack_prototypes,
    tokenize,
)


class Encoder:
    """A stand-in text tower: a fixed random vector for each token, summed; notes how many texts come at once."""

    def __init__(self, *, dim: int = 8) -> None:
        self.table = torch.randn(49408, dim, generator=torch.Generator().manual_seed(0))
        self.batches: list[int] = []

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        self.batches.append(len(ids))
        return (self.table[ids] * mask[..., None]).sum(1)


def encode(names: list[str], encoder: Encoder, **arguments) -> Tensor:
    return encode_names(names, encode_text=encoder, tokenizer=build_clip_tokenizer(), **arguments)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("person", ["person"]),
        ("Traffic_light", ["traffic light"]),
        ("cup_or_mug", ["cup", "mug"]),
        ("dining table/desk", ["dining table", "desk"]),
        (" sofa ,Couch,, ", ["sofa", "couch"]),
        ("", []),
        (" , /", []),
    ],
)
def test_split_synonyms(name: str, expected: list[str]):
    assert split_synonyms(name) == expected


@given(st.lists(st.text(string.ascii_lowercase + " ", min_size=1, max_size=8), min_size=1, max_size=4))
def test_synonyms_survive_joining(words: list[str]):
    assert split_synonyms(",".join(words)) == [word.strip() for word in words if word.strip()]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least one name"),
        ("person", "a list of names"),
        (["cat", ""], "'' at position 1"),
        (["cat", " ,"], "position 1"),
        (["cat", "dog", "Cat"], "'cat' and 'Cat' at positions 0 and 2"),
        (["traffic_light", "traffic light"], "different names"),
    ],
)
def test_bad_names_are_one_line(names: list[str], message: str):
    with pytest.raises(ValueError, match=message) as caught:
        check_names(names)
    assert "\n" not in str(caught.value)


def test_the_tokenizer_is_built_once():
    assert build_clip_tokenizer() is build_clip_tokenizer()


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("A  Photo\tof a CAT", "a photo of a cat"),
        ("  cat \n", "cat"),
        ("it’s a “cat”", 'it\'s a "cat"'),
        ("salt &amp; pepper", "salt & pepper"),
        ("CAFE\u0301", "café"),
    ],
)
def test_spelling_does_not_matter(text: str, same: str):
    tokenizer = build_clip_tokenizer()
    assert tokenize([text], tokenizer=tokenizer)[0].tolist() == tokenize([same], tokenizer=tokenizer)[0].tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=200), min_size=1, max_size=5))
def test_tokens_are_bounded_and_end(texts: list[str]):
    ids, mask = tokenize(texts, tokenizer=build_clip_tokenizer())
    assert ids.shape == mask.shape and ids.shape[1] <= 77
    for row, used in zip(ids, mask.bool(), strict=True):
        assert row[0] == 49406 and row[used][-1] == 49407


def test_words_decode_to_themselves():
    tokenizer = build_clip_tokenizer()
    ids, _ = tokenize(["a photo of a zebra."], tokenizer=tokenizer)
    assert tokenizer.decode(ids[0], skip_special_tokens=True) == "a photo of a zebra ."


def test_averaging_normalises_every_sentence_and_the_mean():
    features = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
    torch.testing.assert_close(average_templates(features, templates=2), torch.full((1, 2), 0.5**0.5))


def test_shorter_classes_repeat_their_first_synonym():
    rows = {word: torch.full((2,), float(value)) for value, word in enumerate(["a", "b", "c"])}
    stacked = stack_prototypes(rows, [["b", "c", "a"], ["c"], ["a", "b"]])
    assert stacked[..., 0].tolist() == [[1, 2, 0], [2, 2, 2], [0, 1, 0]]


def test_embeddings_are_unit_and_follow_the_names():
    names = ["cat", "dog,puppy", "sky"]
    embeddings = encode(names, Encoder())
    assert embeddings.shape == (3, 2, 8)
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3, 2))
    order = [2, 0, 1]
    torch.testing.assert_close(encode([names[index] for index in order], Encoder()), embeddings[order])


def test_a_large_vocabulary_is_encoded_in_batches():
    encoder = Encoder()
    names = [f"thing {number}" for number in range(5000)]
    embeddings = encode(names, encoder, templates=["a {}"], batch_size=64)
    assert embeddings.shape == (5000, 1, 8) and max(encoder.batches) == 64
    few = encode(names[:3], Encoder(), templates=["a {}"], batch_size=2)
    torch.testing.assert_close(few, embeddings[:3])


def test_gradients_reach_the_tower():
    encoder = Encoder()
    encoder.table.requires_grad_()
    encode(["cat", "dog"], encoder).sum().backward()
    assert encoder.table.grad is not None and encoder.table.grad.abs().sum() > 0


def test_the_cache_pays_for_new_words_only():
    encoder, cache = Encoder(), VocabularyCache()
    first = encode(["cat", "dog"], encoder, cache=cache, weights="a")
    assert sum(encoder.batches) == 2 * len(TEMPLATES)
    again = encode(["bird", "dog", "cat"], encoder, cache=cache, weights="a")
    assert sum(encoder.batches) == 3 * len(TEMPLATES)
    assert torch.equal(again[[2, 1]], first)
    encode(["cat"], encoder, cache=cache, weights="b")
    encode(["cat"], encoder, cache=cache, weights="a", templates=["{}"])
    assert sum(encoder.batches) == 4 * len(TEMPLATES) + 1


def test_the_cache_forgets_what_was_not_used():
    cache = VocabularyCache(max_entries=2)
    for key in "ab":
        cache.put(key, torch.zeros(1))
    assert cache.get("a") is not None
    cache.put("c", torch.zeros(1))
    assert len(cache) == 2 and cache.get("b") is None and cache.get("a") is not None


def test_a_cached_embedding_does_not_change_with_the_result():
    encoder, cache = Encoder(), VocabularyCache()
    first = encode(["cat"], encoder, cache=cache)
    kept = first.clone()
    first.zero_()
    assert torch.equal(encode(["cat"], encoder, cache=cache), kept)


def test_fingerprints_tell_weights_apart():
    weights = {"a": torch.randn(100, 7), "b": torch.randn(3)}
    same = {name: value.clone() for name, value in weights.items()}
    assert fingerprint(weights.items()) == fingerprint(same.items())
    assert fingerprint([("a", weights["a"] * 1.001), ("b", weights["b"])]) != fingerprint(weights.items())
    assert fingerprint([("x", weights["a"]), ("b", weights["b"])]) != fingerprint(weights.items())
