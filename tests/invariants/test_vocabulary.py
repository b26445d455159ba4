"""The vocabulary is an argument: its order, size and prototypes change nothing but the classes."""

import copy

import pytest
import torch

from tests.closeness import assert_close, assert_logits
from tests.golden import load
from tests.models import golden_model, random_classes, random_model, random_pixels

PIXELS = load("tiny_io_a_image")["input"]


@torch.no_grad()
def segment(model, pixels=PIXELS, **named):
    return model(pixels, **named)


def test_permuted_classes_permute_their_logits():
    model, order = golden_model(), torch.randperm(19, generator=torch.Generator().manual_seed(0))
    plain = segment(model, clip_fusion=True)
    permuted = segment(
        model,
        clip_fusion=True,
        class_embeddings=model.class_embeddings[order],
        thing_mask=model.thing_mask[order],
        seen_mask=model.seen_mask[order],
    )
    with_void = torch.cat((order, torch.tensor([19])))
    assert_logits(permuted.class_queries_logits, plain.class_queries_logits[..., with_void])
    assert_close(permuted.fused_class_logits.exp(), plain.fused_class_logits[..., with_void].exp(), atol=1e-4)
    assert torch.equal(permuted.masks_queries_logits, plain.masks_queries_logits)


def test_permuted_prototypes_change_nothing():
    model = golden_model()
    flipped = segment(model, class_embeddings=model.class_embeddings.flip(1))
    assert_logits(flipped.class_queries_logits, segment(model).class_queries_logits)


def test_a_repeated_prototype_changes_nothing():
    """Classes with fewer synonyms are filled up by a repeated one."""
    model = golden_model()
    filled = torch.cat((model.class_embeddings, model.class_embeddings[:, :1]), dim=1)
    assert_logits(segment(model, class_embeddings=filled).class_queries_logits, segment(model).class_queries_logits)


def test_stored_and_given_classes_are_the_same():
    model = copy.deepcopy(golden_model())
    embeddings = model.class_embeddings[3:8]
    given = segment(golden_model(), class_embeddings=embeddings)
    model.set_class_embeddings(embeddings, torch.ones(5, dtype=torch.bool), names=["a", "b", "c", "d", "e"])
    assert torch.equal(segment(model).class_queries_logits, given.class_queries_logits)
    assert model.config.id2label == {0: "a", 1: "b", 2: "c", 3: "d", 4: "e"}
    assert model.config.label2id == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}
    assert (model.config.num_classes, model.config.num_prototypes) == (5, 3)


def test_five_thousand_classes():
    model = random_model(classes=5000)
    output = segment(model, random_pixels(1, 3, 64, 64), clip_fusion=True)
    assert output.class_queries_logits.shape == output.fused_class_logits.shape == (1, 6, 5001)
    assert output.fused_class_logits.isfinite().all()


def test_no_class_leaves_void():
    model = random_model(classes=0)
    output = segment(model, random_pixels(1, 3, 64, 64))
    assert torch.equal(output.class_queries_logits, torch.zeros(1, 6, 1))
    assert torch.equal(
        output.masks_queries_logits, segment(random_model(), random_pixels(1, 3, 64, 64)).masks_queries_logits
    )
    with pytest.raises(ValueError, match="the vocabulary is empty"):
        segment(model, random_pixels(1, 3, 64, 64), clip_fusion=True)


def test_a_new_model_has_no_classes():
    model = random_model(classes=0)
    assert model.config.num_classes == 0
    assert model.config.id2label == {}
    with pytest.raises(ValueError, match="text tower"):
        model.encode_text(torch.zeros(1, 77, dtype=torch.long))


def test_class_embeddings_get_gradients():
    """Training differentiates through the text tower."""
    model = random_model()
    embeddings = model.class_embeddings.clone().requires_grad_()
    model(random_pixels(1, 3, 64, 64), class_embeddings=embeddings).class_queries_logits.square().sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((random_classes(4, dim=17), torch.ones(4)), r"embeddings: expected \[classes, prototypes, 16\]"),
        ((random_classes(4)[:, 0], torch.ones(4)), "embeddings: expected"),
        ((random_classes(4), torch.ones(3)), "thing_mask: expected one flag for each of 4 classes"),
        ((random_classes(4), torch.ones(4), torch.ones(5)), "seen_mask: expected one flag"),
        ((random_classes(4), torch.ones(4), None, ["a"]), "names: expected one for each of 4 classes, got 1"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    model = random_model()
    before = model.class_embeddings
    with pytest.raises(ValueError, match=message):
        model.set_class_embeddings(*arguments)
    assert model.class_embeddings is before
