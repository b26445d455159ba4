"""Open-vocabulary classification: queries against class embeddings, and the fusion with CLIP's own opinion.

Letters: B clips, Q queries, C width, D CLIP space, K classes, P prototypes (synonyms) a class, T frames.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .mask_decoder_omg_seg import mlp


def mask_pool(features: Tensor, mask_logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of the features under each mask.

    Args:
        features: [B, C, …], the same trailing sizes as the masks.
        mask_logits: [B, Q, …]; a pixel belongs to the mask where its logit is above 0.

    Returns:
        Means [B, Q, C] (zero for an empty mask) and the number of pixels [B, Q].
    """
    # Counted in float32: half precision knows neither large counts nor 1e-8, and empty masks would become NaN.
    inside = (mask_logits.detach() > 0).flatten(2).to(torch.promote_types(features.dtype, torch.float32))
    count = inside.sum(-1)
    # The original divides the mask, not the sum, so do we: the order matters for the last digits only.
    share = (inside / (count + 1e-8)[..., None]).to(features.dtype)
    return torch.bmm(share, features.flatten(2).transpose(1, 2)), count


def class_logits(embeddings: Tensor, class_embeddings: Tensor, logit_scale: float) -> Tensor:
    """Scaled cosine with the nearest prototype of each class; the last class is void, whose logit is always 0.

    Args:
        embeddings: [B, Q, D], any length.
        class_embeddings: [K, P, D] unit norm.

    Returns:
        [B, Q, K + 1].
    """
    classes, prototypes, _ = class_embeddings.shape
    cosines = F.normalize(embeddings, dim=-1) @ class_embeddings.flatten(0, 1).to(embeddings.dtype).T
    best = cosines.unflatten(-1, (classes, prototypes)).amax(-1) if classes else cosines
    return F.pad(best * math.exp(logit_scale), (0, 1))


class Classifier(nn.Module):
    """Query feature plus mask-pooled feature → CLIP space."""

    def __init__(self, width: int, embedding_dim: int):
        super().__init__()
        self.pool_norm = nn.LayerNorm(width)
        self.pool_proj = nn.Linear(width, width)
        self.projection = mlp(width, width, embedding_dim)

    def forward(self, query_features: Tensor, mask_logits: Tensor, mask_features: Tensor) -> Tensor:
        """query_features [B, Q, C] (normed), mask_logits [B, Q, T, h, w], mask_features [B, C, T, h, w] → [B, Q, D]."""
        pooled, _ = mask_pool(mask_features, mask_logits)
        return self.projection(self.pool_proj(self.pool_norm(pooled)) + query_features)

    def classify_pixels(self, mask_features: Tensor) -> Tensor:
        """The same for pixels: each is a mask of its own without a query. [..., C] → [..., D]."""
        return self.projection(self.pool_proj(self.pool_norm(mask_features)))


def _interpolation_matrix(source: int, canvas: int, target: int, *, like: Tensor) -> Tensor:
    """[target, source]: bilinear from source to canvas cells, then from canvas to target cells, along one axis."""
    basis = torch.eye(source, device=like.device, dtype=torch.float32)[None]
    up = F.interpolate(basis, size=canvas, mode="linear", align_corners=False)
    return F.interpolate(up, size=target, mode="linear", align_corners=False)[0].T


def resize_through_canvas(mask_logits: Tensor, canvas: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Bilinear to the canvas and from there to the target, without ever holding the canvas.

    Both steps are linear and separable, so each axis is one small matrix. [..., h, w] → [..., *target].
    """
    rows = _interpolation_matrix(mask_logits.shape[-2], canvas[0], target[0], like=mask_logits)
    columns = _interpolation_matrix(mask_logits.shape[-1], canvas[1], target[1], like=mask_logits)
    return rows @ (mask_logits.float() @ columns.T)


def fuse_with_clip(query_logits: Tensor, clip_logits: Tensor, seen: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """Geometric mean of the model's and CLIP's class probabilities (FC-CLIP, Yu et al. 2023, equation 7).

    Args:
        query_logits: [B, Q, K + 1] of the model, void last.
        clip_logits: [B, Q, K] of CLIP.
        seen: [K] bool, classes of the training vocabulary.
        alpha, beta: [B, Q] weight of CLIP for seen and for unseen classes.

    Returns:
        [B, Q, K + 1] logarithms of probabilities; the model's void probability is kept.
    """
    own = query_logits[..., :-1].log_softmax(-1)
    clip = clip_logits.log_softmax(-1)
    weight = torch.where(seen, alpha[..., None], beta[..., None])
    mixed = ((1 - weight) * own + weight * clip).softmax(-1)
    void = query_logits.softmax(-1)[..., -1:]
    return torch.log(torch.cat((mixed * (1 - void), void), dim=-1) + 1e-8)


__all__ = ["Classifier", "class_logits", "fuse_with_clip", "mask_pool", "resize_through_canvas"]
