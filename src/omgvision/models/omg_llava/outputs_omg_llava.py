"""What the models of OMG-LLaVA return.

Letters: B conversations, M their tokens with all of a picture's, I pictures, Q object queries, C their width, E width
of the language model, N masks, h×w the stride-4 grid.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache
from transformers.utils.generic import ModelOutput

from .merging_omg_llava import MergedInputs


@dataclass
class OmgLlavaImages(ModelOutput):
    """Pictures as they were seen once, for any number of questions.

    Attributes:
        tokens: I tensors [pixel tokens + 1 + kept queries, E] for the language model.
        queries: [I, Q, 2·C], features and positions of the object queries.
        kept: [I, Q] bool, the queries with a token of their own.
        encoded: What the segmenter's decoder reads.
    """

    tokens: tuple[Tensor, ...] | None = None
    queries: Tensor | None = None
    kept: Tensor | None = None
    encoded: Any = None


@dataclass
class OmgLlavaModelOutput(ModelOutput):
    """Output of :class:`OmgLlavaModel`.

    Attributes:
        last_hidden_state: [B, M, E] after the final norm.
        past_key_values: Cache of the language model.
        hidden_states, attentions: Of every layer, when asked for.
        images: The pictures, when there are some.
        merged: What the language model read; None when embeddings were given or a cache is continued.
    """

    last_hidden_state: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    images: OmgLlavaImages | None = None
    merged: MergedInputs | None = None


@dataclass
class OmgLlavaOutput(ModelOutput):
    """Output of :class:`OmgLlavaForConditionalGeneration`.

    Attributes:
        loss: Scalar, when labels are given.
        loss_dict: Its summands, already weighted: ``loss_text``, ``loss_mask``, ``loss_dice`` and, if configured,
            ``loss_projection``.
        logits: [B, M, vocabulary].
        past_key_values: Cache of the language model.
        hidden_states, attentions: Of every layer, when asked for.
        mask_logits: [N, h, w] of the [SEG] tokens, conversation by conversation in the order of the text.
        mask_rows: [N] the conversation of each.
        auxiliary_mask_logits: The predictions before the last decoder layer, when labels are given.
        labels: [B, M], the labels in the positions of the logits.
        images: The pictures, for further calls.
    """

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    logits: Tensor | None = None
    past_key_values: Cache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    mask_logits: Tensor | None = None
    mask_rows: Tensor | None = None
    auxiliary_mask_logits: tuple[Tensor, ...] | None = None
    labels: Tensor | None = None
    images: OmgLlavaImages | None = None


__all__ = ["OmgLlavaImages", "OmgLlavaModelOutput", "OmgLlavaOutput"]
