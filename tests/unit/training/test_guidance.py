"""Words learned from a sentence encoder."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
from omgvision.training.guidance import WordGuidance, frequent_words

NAMES = ["cat", "car"]
WORDS = ["kitten", "truck", "sky"]
TAUGHT = F.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.9, 0.1, 0], [0.1, 0.9, 0], [0, 0, 1]]), dim=-1)


def teach(texts: Sequence[str]) -> Tensor:
    assert list(texts) == NAMES + WORDS
    return TAUGHT


def test_loss_is_zero_for_a_rotation_of_the_teacher():
    guidance = WordGuidance(NAMES, WORDS, teach=teach, draws=64)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    table = dict(zip(NAMES + WORDS, TAUGHT @ rotation, strict=True))
    assert guidance(lambda words: torch.stack([table[word] for word in words])).item() == pytest.approx(0, abs=1e-10)


def test_training_a_table_recovers_the_neighbours():
    torch.manual_seed(0)
    guidance = WordGuidance(NAMES, WORDS, teach=teach, draws=64)
    table = torch.nn.Parameter(torch.randn(5, 8))
    row = {word: index for index, word in enumerate(NAMES + WORDS)}
    optimizer = torch.optim.Adam([table], lr=0.05)
    for _ in range(200):
        loss = guidance(lambda words: F.normalize(table[[row[word] for word in words]], dim=-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    unit = F.normalize(table, dim=-1)
    assert (unit @ unit.T - TAUGHT @ TAUGHT.T).abs().max() < 0.05


def test_an_eighth_of_the_draws_are_names():
    guidance = WordGuidance(NAMES, WORDS, teach=teach, draws=80)
    drawn: list[str] = []

    def encode(words: Sequence[str]) -> Tensor:
        drawn.extend(words)
        return torch.zeros(len(words), 3)

    guidance(encode)
    assert len(drawn) == 80 and sum(word in NAMES for word in drawn) == 10


def test_frequent_words_are_whole_words_of_the_vocabulary():
    words = frequent_words(build_clip_tokenizer(), 1000)
    assert len(words) == len(set(words)) == 1000
    assert {"the", "and", "car", "tree"} <= set(words)
    assert all(word.isalpha() and len(word) >= 3 for word in words)
