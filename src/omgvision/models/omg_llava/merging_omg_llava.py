"""Text, picture and prompt tokens in one sequence.

In ``input_ids`` one token stands for a whole picture and one for each visual prompt; how many tokens a picture has is
known only once it was seen. Letters: B conversations, S their length, M the length with all tokens, n text tokens of
one conversation, E width of the language model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""Label of a token that no loss is computed for, as in transformers."""

NO_IMAGE = -1


@dataclass
class MergedInputs:
    """What the language model reads.

    Attributes:
        inputs_embeds: [B, M, E], zero on the padding.
        attention_mask: [B, M] long, 1 on real tokens.
        position_ids: [B, M] long, counted from the first real token; 0 on the padding.
        token_ids: [B, M] long; the picture's token is repeated. 0 on the padding.
        labels: [B, M], -100 on pictures, prompts and padding; None without labels.
        image_index: [B] long, the picture of each conversation; -1 for text alone.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    token_ids: Tensor
    labels: Tensor | None
    image_index: Tensor


@dataclass
class _Sequence:
    ids: Tensor
    embeds: Tensor
    labels: Tensor | None


def find_images(input_ids: Tensor, attention_mask: Tensor, *, image_token_id: int, images: int) -> Tensor:
    """Index of the picture of each conversation [B], -1 for text alone. Pictures belong to image tokens in order.

    Raises:
        ValueError: A conversation with several image tokens, or another number of pictures than of image tokens.
    """
    tokens = ((input_ids == image_token_id) & attention_mask.bool()).sum(1)
    if (tokens > 1).any():
        row = int((tokens > 1).nonzero()[0])
        raise ValueError(
            f"input_ids: expected at most one image token in a conversation, got {int(tokens[row])} in number {row}; "
            "ask about several pictures in conversations of their own"
        )
    if int(tokens.sum()) != images:
        raise ValueError(
            f"input_ids: expected one image token for each picture, got {int(tokens.sum())} tokens "
            f"and {images} pictures"
        )
    return torch.where(tokens > 0, tokens.cumsum(0) - 1, NO_IMAGE)


def merge(
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor | None,
    *,
    embed: Callable[[Tensor], Tensor],
    image_tokens: Sequence[Tensor],
    prompt_tokens: Sequence[Tensor],
    image_token_id: int,
    prompt_token_ids: Sequence[int],
    padding_side: Literal["left", "right"],
) -> MergedInputs:
    """Puts the tokens of pictures and prompts into the places that are kept for them.

    Args:
        input_ids, attention_mask: [B, S]; padding on either side.
        labels: [B, S] or None.
        embed: Token ids → embeddings.
        image_tokens: Those of each picture [tokens, E].
        prompt_tokens: Those of each picture's prompts [N, E], in the order of their placeholders.
        prompt_token_ids: Ids of the placeholders of prompts.
        padding_side: Where shorter conversations are filled up.

    Raises:
        ValueError: Image tokens that do not fit the pictures, placeholders that do not fit the prompts, or prompts in a
            conversation without a picture.
    """
    image_index = find_images(input_ids, attention_mask, image_token_id=image_token_id, images=len(image_tokens))
    placeholders = torch.tensor([*prompt_token_ids], device=input_ids.device)
    sequences = []
    for row, index in enumerate(image_index.tolist()):
        real = attention_mask[row].bool()
        ids = input_ids[row][real]
        is_image, is_prompt = ids == image_token_id, torch.isin(ids, placeholders)
        given = prompt_tokens[index] if index != NO_IMAGE and len(prompt_tokens) else None
        _check_prompts(int(is_prompt.sum()), 0 if given is None else len(given), row, has_image=index != NO_IMAGE)
        # Placeholders need no row in the embedding.
        embeds = embed(ids.masked_fill(is_image | is_prompt, 0))
        kept = None if labels is None else labels[row][real].masked_fill(is_image | is_prompt, IGNORED)
        if given is not None and len(given):
            embeds = embeds.index_copy(0, is_prompt.nonzero()[:, 0], given.to(embeds.dtype))
        if index != NO_IMAGE:
            at, visual = int(is_image.nonzero()), image_tokens[index].to(embeds.dtype)
            embeds = torch.cat((embeds[:at], visual, embeds[at + 1 :]))
            counts = torch.ones_like(ids)
            counts[at] = len(visual)
            ids = ids.repeat_interleave(counts)
            kept = None if kept is None else kept.repeat_interleave(counts)
        sequences.append(_Sequence(ids, embeds, kept))
    return _pad(sequences, image_index, padding_side)


def _check_prompts(placeholders: int, prompts: int, row: int, *, has_image: bool) -> None:
    if placeholders and not has_image:
        raise ValueError(
            f"prompts: expected a picture in conversation {row}, which speaks of {placeholders} prompts, got none"
        )
    if placeholders != prompts:
        raise ValueError(
            f"prompts: expected one for each of {placeholders} placeholders in conversation {row}, got {prompts}"
        )


def _pad(sequences: Sequence[_Sequence], image_index: Tensor, side: Literal["left", "right"]) -> MergedInputs:
    length = max(len(sequence.ids) for sequence in sequences)

    def stacked(parts: Sequence[Tensor], value: int = 0) -> Tensor:
        rows = []
        for part in parts:
            missing = length - len(part)
            sides = (missing, 0) if side == "left" else (0, missing)
            rows.append(F.pad(part, (0, 0) * (part.dim() - 1) + sides, value=value))
        return torch.stack(rows)

    labels = [sequence.labels for sequence in sequences if sequence.labels is not None]
    return MergedInputs(
        inputs_embeds=stacked([sequence.embeds for sequence in sequences]),
        attention_mask=stacked([torch.ones_like(sequence.ids) for sequence in sequences]),
        position_ids=stacked([torch.arange(len(each.ids), device=each.ids.device) for each in sequences]),
        token_ids=stacked([sequence.ids for sequence in sequences]),
        labels=stacked(labels, IGNORED) if labels else None,
        image_index=image_index,
    )


__all__ = ["IGNORED", "NO_IMAGE", "MergedInputs", "find_images", "merge"]
