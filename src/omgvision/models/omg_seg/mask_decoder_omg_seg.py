"""Masked-attention decoder: queries look at the pixels of the mask that they predict, over one frame or a clip.

Cheng et al., "Mask2Former" (2022), section 3.2. Object queries, prompt queries and the [SEG] queries of a language
model all go through it.

Letters: B clips (or pictures), Q queries, C width, T frames (1 for a picture), h×w the stride-4 grid, N = T·hᵢ·wᵢ
tokens of one memory, L decoder layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils.generic import ModelOutput

from .linear_omg_seg import TokenLinear
from .position_omg_seg import sine_position_3d


@dataclass
class AttentionRegion:
    """Limits where queries look, in every layer.

    Attributes:
        inside: [B, Q, T, H, W] bool; a query only looks at the True pixels. Any resolution: it is resized (nearest) to
            each memory. Or one such tensor for each memory.
        replaces_prediction: [B, Q] bool; True where the region stands instead of the predicted mask, False where both
            must agree.
    """

    inside: Tensor | tuple[Tensor, ...]
    replaces_prediction: Tensor

    def at(self, level: int) -> Tensor:
        """What is inside on the memory number ``level``."""
        return self.inside if isinstance(self.inside, Tensor) else self.inside[level]


@dataclass
class OmgSegDecoderOutput(ModelOutput):
    """What the decoder predicts.

    Attributes:
        query_features: [B, Q, C] after the last layer, before its norm.
        layer_query_features: Normed query features [B, Q, C] of each prediction, the last one last. With
            ``output_auxiliary`` there are L + 1 (first = before the first layer), otherwise one.
        layer_mask_logits: [B, Q, T, h, w] of the same predictions.
    """

    query_features: Tensor | None = None
    layer_query_features: tuple[Tensor, ...] | None = None
    layer_mask_logits: tuple[Tensor, ...] | None = None


class Attention(nn.Module):
    """Multi-head attention with separate projections."""

    def __init__(self, width: int, *, heads: int):
        super().__init__()
        self.heads = heads
        self.q_proj = TokenLinear(width, width)
        self.k_proj = TokenLinear(width, width)
        self.v_proj = TokenLinear(width, width)
        self.out_proj = TokenLinear(width, width)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, allowed: Tensor | None = None) -> Tensor:
        """queries [B, Q, C], keys and values [B, N, C], allowed [B or 1, Q, N] bool (True = look) → [B, Q, C]."""
        attended = F.scaled_dot_product_attention(
            self._split(self.q_proj(queries)),
            self._split(self.k_proj(keys)),
            self._split(self.v_proj(values)),
            attn_mask=None if allowed is None else allowed[:, None],
        )
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class MaskDecoderLayer(GradientCheckpointingLayer):
    """Masked cross-attention, self-attention, feed-forward network; residuals and post-norms."""

    def __init__(self, width: int, *, heads: int, ffn_dim: int):
        super().__init__()
        self.cross_attn = Attention(width, heads=heads)
        self.cross_norm = nn.LayerNorm(width)
        self.self_attn = Attention(width, heads=heads)
        self.self_norm = nn.LayerNorm(width)
        self.fc1 = TokenLinear(width, ffn_dim)
        self.fc2 = TokenLinear(ffn_dim, width)
        self.ffn_norm = nn.LayerNorm(width)

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        keys: Tensor,
        values: Tensor,
        allowed: Tensor,
        self_allowed: Tensor | None,
    ) -> Tensor:
        """queries and positions [B, Q, C], keys and values [B, N, C], allowed [B, Q, N] → [B, Q, C]."""
        queries = self.cross_norm(queries + self.cross_attn(queries + positions, keys, values, allowed))
        placed = queries + positions
        queries = self.self_norm(queries + self.self_attn(placed, placed, queries, self_allowed))
        return self.ffn_norm(queries + self.fc2(F.relu(self.fc1(queries))))


def mlp(in_features: int, hidden: int, out_features: int) -> nn.Sequential:
    """Three linear layers with ReLU between them."""
    return nn.Sequential(
        nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, out_features)
    )


class MaskDecoder(nn.Module):
    """L layers over three memories in turn, and the mask prediction.

    Args:
        width: C.
        levels: Number of memories.
    """

    def __init__(self, width: int, *, heads: int, layers: int, ffn_dim: int, levels: int):
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(levels, width))
        self.layers = nn.ModuleList([MaskDecoderLayer(width, heads=heads, ffn_dim=ffn_dim) for _ in range(layers)])
        self.post_norm = nn.LayerNorm(width)
        self.mask_embed = mlp(width, width, width)

    def forward(
        self,
        queries: Tensor,
        positions: Tensor,
        memories: Sequence[Tensor],
        memory_shapes: Sequence[tuple[int, int]],
        mask_features: Tensor,
        *,
        self_allowed: Tensor | None = None,
        region: AttentionRegion | None = None,
        first_mask_logits: Tensor | None = None,
        mask_prior: Tensor | None = None,
        output_auxiliary: bool = False,
    ) -> OmgSegDecoderOutput:
        """Refines queries into masks.

        Args:
            queries, positions: [B, Q, C].
            memories: [B, T·hᵢ·wᵢ, C], low to high resolution.
            memory_shapes: (hᵢ, wᵢ).
            mask_features: [B, C, T, h, w].
            self_allowed: [Q, Q] bool, which queries see each other; None = all.
            region: Limits where queries look.
            first_mask_logits: [B, Q, T, h, w] instead of the mask predicted before the first layer; where they are NaN
                the prediction stands.
            mask_prior: [B, Q, T, h, w] logits added to every prediction.
            output_auxiliary: Also return the predictions before the last layer (training); costs a full-size mask
                a layer.
        """
        frames = mask_features.shape[2]
        level_features = [self._resize(mask_features, shape).flatten(2) for shape in memory_shapes]
        values = [memory + self.level_embed[index] for index, memory in enumerate(memories)]
        keys = [
            value + sine_position_3d(frames, *shape, value.shape[-1] // 2, device=value.device).to(value.dtype)
            for value, shape in zip(values, memory_shapes, strict=True)
        ]
        inside = (
            None
            if region is None
            else [self._resize_region(region.at(level), shape) for level, shape in enumerate(memory_shapes)]
        )
        if self_allowed is not None:
            self_allowed = self_allowed[None]
        level_priors = [
            None if mask_prior is None else self._resize(mask_prior, shape).flatten(2) for shape in memory_shapes
        ]

        layer_features, layer_masks = [], []
        features = self.post_norm(queries)
        embeddings = self.mask_embed(features)
        for index, layer in enumerate(self.layers):
            if output_auxiliary:
                layer_features.append(features)
                layer_masks.append(self._masks(embeddings, mask_features, mask_prior))
            level = index % len(memories)
            level_prior = level_priors[level]
            # Bilinear resizing and the dot product commute: the attention mask of a layer needs low resolution only.
            with torch.no_grad():
                seen = torch.bmm(embeddings.detach(), level_features[level])
                allowed = (seen if level_prior is None else seen + level_prior) >= 0
                if index == 0 and first_mask_logits is not None:
                    first = self._resize(first_mask_logits, memory_shapes[0]).flatten(2)
                    allowed = torch.where(first.isnan(), allowed, first >= 0)
                if region is not None and inside is not None:
                    allowed = inside[level] & (allowed | region.replaces_prediction[..., None])
                allowed = allowed | ~allowed.any(-1, keepdim=True)
            queries = layer(queries, positions, keys[level], values[level], allowed, self_allowed)
            features = self.post_norm(queries)
            embeddings = self.mask_embed(features)
        layer_features.append(features)
        layer_masks.append(self._masks(embeddings, mask_features, mask_prior))
        return OmgSegDecoderOutput(
            query_features=queries,
            layer_query_features=tuple(layer_features),
            layer_mask_logits=tuple(layer_masks),
        )

    @staticmethod
    def _masks(embeddings: Tensor, mask_features: Tensor, prior: Tensor | None) -> Tensor:
        """[B, Q, C] and [B, C, T, h, w] → [B, Q, T, h, w]."""
        masks = torch.einsum("bqc,bcthw->bqthw", embeddings, mask_features)
        return masks if prior is None else masks + prior

    @staticmethod
    def _resize(planes: Tensor, shape: tuple[int, int]) -> Tensor:
        """Bilinear, without gradient: [B, X, T, h, w] → [B, X, T, hᵢ, wᵢ]."""
        flat = planes.detach().flatten(0, 1)
        resized = F.interpolate(flat, size=shape, mode="bilinear", align_corners=False)
        return resized.unflatten(0, planes.shape[:2])

    @staticmethod
    def _resize_region(inside: Tensor, shape: tuple[int, int]) -> Tensor:
        """Nearest: [B, Q, T, H, W] bool → [B, Q, T·hᵢ·wᵢ] bool."""
        resized = F.interpolate(inside.flatten(0, 1).to(torch.uint8), size=shape, mode="nearest")
        return resized.unflatten(0, inside.shape[:2]).flatten(2).bool()


__all__ = ["AttentionRegion", "MaskDecoder", "OmgSegDecoderOutput"]
