"""Batches of conversations: what the model is given, and which conversations come together."""

from collections import Counter

import numpy as np
import pytest
import torch

from omgvision.data.conversation_batches import (
    ConversationBatch,
    ConversationMixture,
    ConversationSource,
    collate_conversations,
)
from omgvision.data.conversations import Conversation, Outline, Turn, no_masks
from tests.golden_llava import processor

SIDE = 128


class Talk:
    """Conversations of known lengths, every seventh without a picture; some cannot be read."""

    def __init__(self, name, length, broken=()):
        self.name, self.broken = name, broken
        self.lengths = np.random.default_rng(length).integers(20, 900, size=(length,)).tolist()

    def __len__(self):
        return len(self.lengths)

    def outline(self, index):
        return Outline(self.lengths[index], pictured=index % 7 != 0)

    def draw(self, index, generator):
        if index in self.broken:
            raise ValueError(f"{self.name}: sample {index}: broken")
        answer = f"{generator.integers(10**6)}".ljust(self.lengths[index] - 4, ".")
        return Conversation(
            None, (Turn("Why?", answer),), masks=no_masks(None), sample_id=f"{self.name}-{index}", dataset=self.name
        )


def texts(conversations):
    """A batch that carries its texts in place of tensors."""
    lengths = torch.tensor([len(one.turns[0].answer) for one in conversations])
    ids = tuple(f"{one.sample_id} {one.turns[0].answer.rstrip('.')}" for one in conversations)
    return ConversationBatch({"lengths": lengths}, [], ids)


def mixture(**settings):
    sources = [ConversationSource(Talk("a", 300)), ConversationSource(Talk("b", 100), repeat=2)]
    return ConversationMixture(sources, collate=texts, **settings)


def test_an_epoch_has_every_conversation_as_often_as_it_repeats():
    source = mixture()
    assert source.samples_per_epoch == 500
    for epoch in (0, 1):
        seen = Counter(item for step in range(50) for item in source.items(epoch * 50 + step, samples=10))
        assert seen == {**{(0, index): 1 for index in range(300)}, **{(1, index): 2 for index in range(100)}}
    assert source.items(0, samples=10) != source.items(50, samples=10)


def test_those_of_a_step_are_alike():
    def spread(source):
        return np.mean([np.ptp(source.batch(step, batch_size=10).inputs["lengths"].numpy()) for step in range(50)])

    def mixed(source):
        kinds = [{index % 7 == 0 for _, index in source.items(step, samples=10)} for step in range(50)]
        return sum(len(each) > 1 for each in kinds)

    assert spread(mixture()) < 0.1 * spread(mixture(block=1))
    assert mixed(mixture()) <= 1 < mixed(mixture(block=1))


def test_dividing_a_step_changes_nothing():
    whole = mixture().batch(7, batch_size=8)
    parts = [mixture().batch(7, batch_size=2, part=part, parts=4) for part in range(4)]
    assert whole.sample_ids == sum((part.sample_ids for part in parts), ())
    assert mixture(seed=1).batch(7, batch_size=8).sample_ids != whole.sample_ids


def test_what_cannot_be_read_is_replaced_and_said():
    source = ConversationMixture([ConversationSource(Talk("a", 40, broken=range(0, 40, 4)))], collate=texts)
    batches = [source.batch(step, batch_size=10) for step in range(4)]
    assert sum(len(batch.skipped) for batch in batches) >= 10
    assert all(len(batch.sample_ids) == 10 for batch in batches)
    strict = ConversationMixture([ConversationSource(Talk("a", 4, broken=range(4)))], collate=texts, strict=True)
    with pytest.raises(ValueError, match="broken"):
        strict.batch(0, batch_size=2)
    broken = ConversationMixture([ConversationSource(Talk("a", 4, broken=range(4)))], collate=texts)
    with pytest.raises(ValueError, match="20 samples in a row"):
        broken.batch(0, batch_size=2)


@pytest.mark.parametrize(
    ("sources", "settings", "say"),
    [
        ([], {}, "at least one"),
        ([ConversationSource(Talk("a", 0))], {}, "empty"),
        ([ConversationSource(Talk("a", 2), repeat=0)], {}, "repeat"),
        ([ConversationSource(Talk("a", 2))], {"block": 0}, "block"),
    ],
)
def test_wrong_settings(sources, settings, say):
    with pytest.raises(ValueError, match=say):
        ConversationMixture(sources, collate=texts, **settings)


def test_a_step_larger_than_an_epoch():
    with pytest.raises(ValueError, match="expected at most the 500 conversations"):
        mixture().batch(0, batch_size=501)


def conversations():
    image = torch.full((3, 40, 60), 120, dtype=torch.uint8)
    masks = torch.zeros((2, 40, 60), dtype=torch.bool)
    masks[0, :10], masks[1, 30:] = True, True
    pointed = Conversation(
        image,
        (Turn("What is <mark> in <region>?", "A <p> wall </p> [SEG]."), Turn("And?", "<p> Floor </p> [SEG].")),
        masks=masks,
        prompts=({"point": (5, 6)}, {"mask": masks[1]}),
        sample_id="pointed",
        dataset="d",
    )
    text = Conversation(None, (Turn("Hi", "Hello."),), masks=no_masks(None), sample_id="text", dataset="d")
    plain = Conversation(image, (Turn("Hi", "A wall."),), masks=no_masks(image), sample_id="plain", dataset="d")
    return [text, pointed, plain]


def test_pictures_prompts_and_masks_are_where_they_belong():
    ours = processor(SIDE)
    batch = collate_conversations(conversations(), ours, max_length=500)
    assert batch.sample_ids == ("text", "pointed", "plain")
    assert batch.inputs["pixel_values"].shape == (2, 3, SIDE, SIDE)
    segment = ours.tokenizer.get_vocab()["[SEG]"]
    assert (batch.inputs["labels"] == segment).sum(1).tolist() == [0, 2, 0]
    assert [len(masks) for masks in batch.mask_labels] == [0, 2, 0]
    # The picture lies in the middle of its square.
    rows = batch.mask_labels[1].any(2)
    assert rows[0].nonzero().min() > 20 and rows[1].nonzero().max() < SIDE - 20
    assert batch.inputs["input_points"].shape == (2, 1, 1, 2)
    assert batch.inputs["prompt_slots"].tolist() == [[0, 1], [-1, -1]]


def test_masks_of_answers_that_are_cut_are_cut_too():
    ours = processor(SIDE)
    whole = collate_conversations(conversations(), ours, max_length=500)
    segment = ours.tokenizer.get_vocab()["[SEG]"]
    second = int((whole.inputs["labels"][1] == segment).nonzero()[1])
    cut = collate_conversations(conversations(), ours, max_length=second)
    assert cut.inputs["input_ids"].shape[1] == second
    assert [len(masks) for masks in cut.mask_labels] == [0, 1, 0]
    assert torch.equal(cut.mask_labels[1], whole.mask_labels[1][:1])
