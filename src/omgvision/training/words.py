"""Class names → embeddings in training: by a text tower that learns with the masks, or encoded once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.models.omg_seg.vocabulary_omg_seg import split_synonyms

Embed = Callable[[Sequence[str]], Tensor]
"""K names → [K, P, D] of unit norm."""


class LearnedWords:
    """Through the model's text tower in every step, so that words are learned with masks.

    Each name (one of its synonyms) stands in one of the templates, both drawn at random; while the model is evaluated,
    the first of each.

    Args:
        model: With a text tower.
        tokenizer: Of the text tower.
        templates: Sentences with one `{}`.
    """

    def __init__(
        self, model: OmgSegForUniversalSegmentation, *, tokenizer: PreTrainedTokenizerBase, templates: Sequence[str]
    ):
        self.model, self.tokenizer, self.templates = model, tokenizer, tuple(templates)
        self._token_ids: dict[str, list[int]] = {}

    def __call__(self, names: Sequence[str]) -> Tensor:
        texts = [self._one_of(self.templates).format(self._one_of(split_synonyms(name))) for name in names]
        for text in texts:
            if text not in self._token_ids:
                self._token_ids[text] = self.tokenizer(text)["input_ids"]
        rows = [self._token_ids[text] for text in texts]
        longest, end = max(map(len, rows)), self.tokenizer.eos_token_id
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows], device=self.model.device)
        used = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        return F.normalize(self.model.encode_text(ids, attention_mask=used), dim=-1)[:, None]

    def _one_of(self, choices: Sequence[str]) -> str:
        return choices[int(torch.randint(len(choices), ()))] if self.model.training else choices[0]


class FixedWords:
    """Through a text tower that does not learn: each list of names is encoded once, with all templates, and kept.

    A merged vocabulary may have a name twice, once as a thing and once as stuff: both have its embedding.
    """

    def __init__(self, model: OmgSegForUniversalSegmentation, *, processor: OmgSegProcessor):
        self.model, self.processor = model, processor
        self._known: dict[tuple[str, ...], Tensor] = {}

    def __call__(self, names: Sequence[str]) -> Tensor:
        key = tuple(names)
        if key not in self._known:
            rows = {name: row for row, name in enumerate(dict.fromkeys(key))}
            with torch.no_grad():
                embeddings = self.processor.encode_vocabulary(list(rows), model=self.model)
            self._known[key] = embeddings[[rows[name] for name in key]]
        return self._known[key].to(self.model.device)
