"""Pixel decoder: multi-scale deformable self-attention over strides 32, 16 and 8, and mask features at stride 4.

Zhu et al., "Deformable DETR" (2021), equation 3; Cheng et al., "Mask2Former" (2022), section 3.1.

Letters: B pictures, C width, S tokens of all levels, L levels, P sampling points, M heads, E = C / M head width.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .linear_omg_seg import TokenLinear, inference_on_cpu
from .position_omg_seg import sine_position_2d

QUERIES_AT_ONCE = 4096
"""Tokens that a layer takes at once in inference on CPU. What it makes on the way then stays in the cache, and its
memory is used again instead of being mapped afresh, which costs ten times what adding two planes does."""


def deformable_attention_sampling(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """Deformable attention with ``grid_sample``; differentiable in every argument, on every device.

    Args:
        value: [B, S, M, E], the levels of ``shapes`` one after the other.
        shapes: (height, width) of each of the L levels.
        locations: [B, N, M, L, P, 2], xy as fractions of each level; outside of [0, 1] the value is zero.
        weights: [B, N, M, L, P], summing to one over (L, P).

    Returns:
        [B, N, M·E].
    """
    batch, _, heads, width = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    sampled = []
    for level, (plane, (height, columns)) in enumerate(
        zip(value.split([h * w for h, w in shapes], dim=1), shapes, strict=True)
    ):
        plane = plane.permute(0, 2, 3, 1).reshape(batch * heads, width, height, columns)
        sampled.append(
            F.grid_sample(plane, grids[:, :, level], mode="bilinear", padding_mode="zeros", align_corners=False)
        )
    weights = weights.transpose(1, 2).reshape(batch * heads, 1, queries, len(shapes) * points)
    summed = (torch.cat(sampled, dim=-1) * weights).sum(-1)
    return summed.view(batch, heads * width, queries).transpose(1, 2)


def deformable_attention_embedding_bag(
    value: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor
) -> Tensor:
    """The same as :func:`deformable_attention_sampling`, by ``embedding_bag``; inference on CPU.

    The four bilinear neighbours of every sampling point are rows of one value table and their weight is the product of
    bilinear and attention weight, so that a single fused gather-and-sum does all heads, levels and points.
    """
    rows, shares = _bilinear_corners(locations, weights, shapes=shapes, tokens=value.shape[1])
    table = value.flatten(0, 2)
    summed = F.embedding_bag(rows.flatten(0, 2), table, per_sample_weights=shares.flatten(0, 2), mode="sum")
    return summed.view(*rows.shape[:2], -1)


def _bilinear_corners(
    locations: Tensor, weights: Tensor, *, shapes: Sequence[tuple[int, int]], tokens: int
) -> tuple[Tensor, Tensor]:
    """Rows of the value table [B·S·M, E] that each query reads, int32 [B, N, M, 4·L·P], and their weights.

    Until the last step everything is a plane of K = M·L·P columns: the processor is quick along long rows only.
    """
    batch, queries, heads, levels, points = weights.shape
    device = locations.device
    height, width = torch.tensor(shapes, dtype=torch.int32, device=device).unbind(1)
    starts = (height * width).cumsum(0, dtype=torch.int32) - height * width
    sizes = torch.stack((width, height))[:, None, :, None].expand(-1, heads, -1, points).flatten(1)

    xy = locations.movedim(-1, 2).flatten(3) * sizes - 0.5
    low = xy.floor()
    share = xy - low
    # Far outside points only need to stay outside; the clamp keeps the conversion to int32 defined.
    low = low.clamp_(-2, max(map(max, shapes)) + 1).to(torch.int32)
    cells = torch.stack((low, low + 1), dim=3)
    shares = torch.stack((1 - share, share), dim=3)
    inside = torch.minimum(cells.clamp_min(0), sizes[:, None] - 1)
    shares *= inside == cells
    (column, row), (share_x, share_y) = inside.unbind(2), shares.unbind(2)
    share_y *= weights.flatten(2)[:, :, None]

    # Row of (picture b, token s, head m) = (b·S + s)·M + m; the parts that do not depend on the corner go in early.
    first = torch.arange(heads, dtype=torch.int32, device=device)[:, None, None] + starts[:, None] * heads
    column *= heads
    row *= sizes[0] * heads
    row += first.expand(-1, -1, points).flatten()
    row += torch.arange(batch, dtype=torch.int32, device=device).view(-1, 1, 1, 1) * (tokens * heads)

    def corners(operation: Callable[..., Tensor], vertical: Tensor, horizontal: Tensor) -> Tensor:
        """Every (top, bottom) with every (left, right), [B, N, 2, K] each, written straight to [B, N, M, 4·L·P]."""
        pairs = vertical.new_empty(batch, queries, heads, 2, 2, levels * points)
        vertical = vertical.unflatten(3, (heads, -1))[:, :, :, None]
        horizontal = horizontal.unflatten(3, (heads, -1))[:, :, None]
        operation(vertical, horizontal, out=pairs.permute(0, 1, 3, 4, 2, 5))
        return pairs.flatten(3)

    return corners(torch.add, row, column), corners(torch.mul, share_y, share_x)


class SamplingOffsets(TokenLinear):
    """Where each head looks on each level; starts as a star of fixed directions whatever the query."""

    def __init__(self, width: int, *, heads: int, levels: int, points: int):
        super().__init__(width, heads * levels * points * 2)
        self.heads, self.levels, self.points = heads, levels, points

    def initial_bias(self) -> Tensor:
        """Each head its own direction, point p at distance p + 1 (Deformable DETR, section 4.1)."""
        angles = torch.arange(self.heads, dtype=torch.float32) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=-1)
        directions = directions / directions.abs().amax(-1, keepdim=True)
        distances = torch.arange(1, self.points + 1, dtype=torch.float32)
        grid = directions[:, None, None, :] * distances[None, None, :, None]
        return grid.expand(self.heads, self.levels, self.points, 2).flatten()


class SamplingWeights(TokenLinear):
    """How much each sampled point counts, before the softmax; starts equal for all."""


class MultiScaleDeformableAttention(nn.Module):
    """Every query samples P points on each of L levels for each of M heads.

    Args:
        width: C.
        heads: M.
        levels: L.
        points: P.
    """

    def __init__(self, width: int, *, heads: int, levels: int, points: int):
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = SamplingOffsets(width, heads=heads, levels=levels, points=points)
        self.attention_weights = SamplingWeights(width, heads * levels * points)
        self.value_proj = TokenLinear(width, width)
        self.output_proj = TokenLinear(width, width)

    def values(self, tokens: Tensor) -> Tensor:
        """What can be sampled of tokens [B, S, C]: [B, S, M, E]."""
        return self.value_proj(tokens).unflatten(2, (self.heads, -1))

    def forward(self, queries: Tensor, value: Tensor, references: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """queries [B, N, C], value [B, S, M, E], references [N, 2] as xy fractions, (Hᵢ, Wᵢ) of levels → [B, N, C]."""
        offsets = self.sampling_offsets(queries).unflatten(2, (-1, 2))
        logits = self.attention_weights(queries).unflatten(2, (self.heads, -1))
        # At least float32: bfloat16 places a point only to half a cell, and torch's CPU grid_sample of half precision
        # reads beyond the plane (seen in 2.13: NaN from neighbouring memory).
        exact = torch.promote_types(value.dtype, torch.float32)
        value, logits, offsets = value.to(exact), logits.to(exact), offsets.to(exact)
        # embedding_bag has no fast backward and is slow for very narrow heads.
        use_bag = (
            inference_on_cpu(value, offsets, logits)
            and value.dtype == torch.float32
            and value.shape[3] >= 16
            and value.numel() < 2**31
        )
        weights = _softmax_of_few(logits) if use_bag else logits.softmax(-1)
        # Rows of x and rows of y instead of pairs: long enough for the processor's vectors.
        sizes = offsets.new_tensor([(w, h) for h, w in shapes]).t()
        sizes = sizes[:, None, :, None].expand(-1, self.heads, -1, self.points).flatten(1)
        locations = references[:, :, None].to(exact) + offsets.transpose(2, 3).contiguous() / sizes
        sample = deformable_attention_embedding_bag if use_bag else deformable_attention_sampling
        sampled = sample(
            value,
            shapes,
            locations.unflatten(3, (self.heads, self.levels, self.points)).movedim(2, -1),
            weights.unflatten(3, (self.levels, self.points)),
        )
        return self.output_proj(sampled.to(queries.dtype))


def _softmax_of_few(logits: Tensor) -> Tensor:
    """Softmax over a last dimension of a dozen, for which torch's own needs four times as long on CPU."""
    powers = (logits - logits.amax(-1, keepdim=True)).exp_()
    return powers.div_(powers.sum(-1, keepdim=True))


class PixelDecoderLayer(GradientCheckpointingLayer):
    """Deformable self-attention and feed-forward network, each with residual and post-norm."""

    def __init__(self, width: int, *, heads: int, levels: int, points: int, ffn_dim: int):
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(width, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(width)
        self.fc1 = TokenLinear(width, ffn_dim)
        self.fc2 = TokenLinear(ffn_dim, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, positions: Tensor, references: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """tokens [B, S, C], positions [S, C], references [S, 2] → [B, S, C]."""
        value = self.self_attn.values(tokens)
        count = max(1, QUERIES_AT_ONCE // len(tokens)) if inference_on_cpu(tokens, value) else tokens.shape[1]
        parts = []
        for part, places, centres in zip(
            tokens.split(count, dim=1), positions.split(count), references.split(count), strict=True
        ):
            part = self.norm1(part + self.self_attn(part + places, value, centres, shapes))
            parts.append(self.norm2(part + self.fc2(F.relu(self.fc1(part), inplace=True))))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


class ConvNorm(nn.Module):
    """Convolution and GroupNorm."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel_size: int, bias: bool, groups: int):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
        self.norm = nn.GroupNorm(groups, out_channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(self.conv(features))


def reference_points(shapes: Sequence[tuple[int, int]], *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of the cells of every level, [S, 2], xy as fractions of the level."""
    levels = []
    for height, width in shapes:
        y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
        x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
        levels.append(torch.cartesian_prod(y, x).flip(-1).view(-1, 2))
    return torch.cat(levels)


class PixelDecoder(nn.Module):
    """Backbone features → memories for the mask decoder and mask features.

    Args:
        channels: Channels of the backbone features at strides 4, 8, 16, 32.
        width: C.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        *,
        heads: int,
        layers: int,
        points: int,
        ffn_dim: int,
        groups: int,
    ):
        super().__init__()
        stride4, *coarser = channels
        self.input_convs = nn.ModuleList(
            [ConvNorm(count, width, kernel_size=1, bias=True, groups=groups) for count in reversed(coarser)]
        )
        levels = len(coarser)
        self.level_encoding = nn.Parameter(torch.empty(levels, width))
        self.layers = nn.ModuleList(
            [
                PixelDecoderLayer(width, heads=heads, levels=levels, points=points, ffn_dim=ffn_dim)
                for _ in range(layers)
            ]
        )
        self.lateral_conv = ConvNorm(stride4, width, kernel_size=1, bias=False, groups=groups)
        self.output_conv = ConvNorm(width, width, kernel_size=3, bias=False, groups=groups)
        self.mask_projection = nn.Conv2d(width, width, kernel_size=1)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[tuple[int, int]]]:
        """Fuses the levels.

        Args:
            features: [B, Cᵢ, Hᵢ, Wᵢ] at strides 4, 8, 16, 32.

        Returns:
            Mask features [B, C, H/4, W/4]; memories [B, HᵢWᵢ, C] at strides 32, 16, 8; their (Hᵢ, Wᵢ).
        """
        stride4, *coarser = features
        levels = [conv(feature) for conv, feature in zip(self.input_convs, reversed(coarser), strict=True)]
        shapes = [(level.shape[-2], level.shape[-1]) for level in levels]
        width = self.level_encoding.shape[1]
        tokens = torch.cat([level.flatten(2).transpose(1, 2) for level in levels], dim=1)
        positions = torch.cat(
            [
                sine_position_2d(height, columns, width // 2, device=tokens.device) + self.level_encoding[index]
                for index, (height, columns) in enumerate(shapes)
            ]
        ).to(tokens.dtype)
        references = reference_points(shapes, device=tokens.device, dtype=torch.float32)
        for layer in self.layers:
            tokens = layer(tokens, positions, references, shapes)
        memories = list(tokens.split([h * w for h, w in shapes], dim=1))

        finest = memories[-1].unflatten(1, shapes[-1]).permute(0, 3, 1, 2)
        lateral = self.lateral_conv(stride4)
        fused = lateral.add_(F.interpolate(finest, size=lateral.shape[-2:], mode="bilinear", align_corners=False))
        return self.mask_projection(F.relu(self.output_conv(fused), inplace=True)), memories, shapes


__all__ = [
    "MultiScaleDeformableAttention",
    "PixelDecoder",
    "SamplingOffsets",
    "SamplingWeights",
    "deformable_attention_embedding_bag",
    "deformable_attention_sampling",
]
