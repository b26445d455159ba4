"""From the segmenter to the language model: pixel tokens with what the objects say of them, object tokens; and back.

Letters: B pictures, Q object queries, C width of a query, S channels of the last backbone stage, g×g grid of pixel
tokens, E width of the language model.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def pixel_tokens(features: Tensor, *, block: int) -> Tensor:
    """Blocks of pixels become tokens: [B, S, h, w] → [B, (h/block)·(w/block), block²·S].

    Tokens row by row. The channels of a token are those of its upper left pixel, of the one to the right, and so on;
    ``pixel_unshuffle`` has the pixels of each channel together instead.
    """
    unshuffled = F.pixel_unshuffle(features, block).unflatten(1, (-1, block * block))
    return unshuffled.permute(0, 3, 4, 2, 1).flatten(3).flatten(1, 2)


def _sampled_rows(source: int, canvas: int, cells: int, *, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bilinear resizing source → canvas → cells along one axis, where something non-linear happens in between.

    Returns:
        [cells, source] weights of the lower and of the upper canvas cell that make a cell, and the share [cells] of
        the upper.
    """
    place = ((torch.arange(cells, device=like.device) + 0.5) * (canvas / cells) - 0.5).clamp_min(0)
    low = place.floor().long()
    high = (low + 1).clamp_max(canvas - 1)
    basis = torch.eye(source, device=like.device, dtype=torch.float32)[None]
    enlarged = F.interpolate(basis, size=canvas, mode="linear", align_corners=False)[0].T
    return enlarged[low], enlarged[high], (place - low).float()


def ownership(class_logits: Tensor, mask_logits: Tensor, *, canvas: int, cells: int) -> Tensor:
    """How much each object query claims each pixel token.

    (0.5·s + 0.5)·m, with s the highest probability of a class and m the mask probability, resized bilinearly without
    antialiasing. The original resizes logits to the canvas, takes the sigmoid there, and resizes to the grid; only
    four canvas pixels of each cell count in that, so no others are made.

    Args:
        class_logits: [B, Q, K + 1], void last.
        mask_logits: [B, Q, h, w].
        canvas: Side of the network input.
        cells: g.

    Returns:
        [B, Q, g, g].
    """
    score = class_logits.float().softmax(-1)[..., :-1].amax(-1)
    top, bottom, down = _sampled_rows(mask_logits.shape[-2], canvas, cells, like=mask_logits)
    left, right, across = _sampled_rows(mask_logits.shape[-1], canvas, cells, like=mask_logits)
    logits = torch.cat((top, bottom)) @ (mask_logits.float() @ torch.cat((left, right)).T)
    upper, lower = logits.sigmoid().chunk(2, dim=-2)
    rows = upper + (lower - upper) * down[:, None]
    first, second = rows.chunk(2, dim=-1)
    return (0.5 * score + 0.5)[..., None, None] * (first + (second - first) * across)


def perception_prior(claims: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
    """What the objects add to each pixel token, and which objects are worth a token of their own.

    Args:
        claims: [B, Q, g, g] from :func:`ownership`.
        queries: [B, Q, 2·C], features and positions.

    Returns:
        [B, g·g, 2·C], the mean of the queries weighted by the softmax of their claims; and [B, Q] bool, the queries
        that claim some token more than all others do.
    """
    claims = claims.flatten(2)
    prior = claims.softmax(1).transpose(1, 2) @ queries.float()
    owner = claims.argmax(1)
    kept = torch.zeros(claims.shape[:2], dtype=torch.bool, device=claims.device)
    return prior.to(queries.dtype), kept.scatter(1, owner, True)


def _mlp(in_features: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_features, width), nn.GELU(), nn.Linear(width, width))


class VisionToText(nn.Module):
    """Pixel tokens, object queries and visual prompts → embeddings of the language model.

    Args:
        pixel_channels: block²·S.
        query_channels: 2·C.
        width: E.
    """

    def __init__(self, pixel_channels: int, query_channels: int, width: int):
        super().__init__()
        self.pixel_mlp = _mlp(pixel_channels + query_channels, width)
        self.query_proj = nn.Linear(query_channels, pixel_channels)
        self.query_mlp = _mlp(pixel_channels, width)
        self.separator = nn.Parameter(torch.empty(1, width))

    def project_pixels(self, pixels: Tensor, prior: Tensor) -> Tensor:
        """Pixel tokens [B, g·g, block²·S] and their prior [B, g·g, 2·C] → [B, g·g, E]."""
        return self.pixel_mlp(torch.cat((pixels, prior), dim=-1))

    def project_queries(self, queries: Tensor) -> Tensor:
        """[..., 2·C] → [..., E]."""
        return self.query_mlp(self.query_proj(queries))


class Places(nn.Module):
    """Where in the picture tokens are: an embedding of each row and of each column of the grid.

    Positions in a sentence say it too, but a small language model does not learn to read rows and columns from them.

    Args:
        cells: g.
        width: E.
    """

    def __init__(self, cells: int, width: int):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(cells, width))
        self.columns = nn.Parameter(torch.zeros(cells, width))

    def of_pixels(self) -> Tensor:
        """[g·g, E]."""
        return (self.rows[:, None] + self.columns).flatten(0, 1)

    def of_objects(self, claims: Tensor) -> Tensor:
        """The mean of the cells that each object claims more than all others do, [Q, g, g] → [Q, E]; 0 without any."""
        owner = claims.flatten(1).argmax(0)
        owned = F.one_hot(owner, len(claims)).T.to(self.rows)
        return owned @ self.of_pixels() / owned.sum(1, keepdim=True).clamp_min(1)


class TextToVision(nn.Sequential):
    """Hidden states of [SEG] [..., E] → queries [..., 2·C], features and positions."""

    def __init__(self, width: int, query_channels: int):
        super().__init__(nn.Linear(width, query_channels), nn.GELU(), nn.Linear(query_channels, query_channels))


__all__ = ["Places", "TextToVision", "VisionToText", "ownership", "perception_prior", "pixel_tokens"]
