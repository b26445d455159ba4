"""Pixel decoder: multi-scale deformable self-attention over strides 32, 16 and 8, and mask features at stride 4.

Zhu et al., "Deformable DETR" (2021), equation 3; Cheng et al., "Mask2Former" (2022), section 3.1.

Letters: B pictures, C width, S tokens of all levels, L levels, P sampling points, M heads, E = C / M head width.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_layers import GradientCheckpointingLayer

from .position_omg_seg import sine_position_2d

QUERIES_AT_ONCE = 4096
"""Queries whose sampling points are prepared together; their indices then stay in the processor's cache."""


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
    table = value.flatten(0, 2)
    parts = []
    for part in zip(locations.split(QUERIES_AT_ONCE, dim=1), weights.split(QUERIES_AT_ONCE, dim=1), strict=True):
        rows, shares = _bilinear_corners(*part, shapes=shapes, tokens=value.shape[1])
        summed = F.embedding_bag(rows.flatten(0, 2), table, per_sample_weights=shares.flatten(0, 2), mode="sum")
        parts.append(summed.view(*rows.shape[:2], -1))
    return torch.cat(parts, dim=1)


def _bilinear_corners(
    locations: Tensor, weights: Tensor, *, shapes: Sequence[tuple[int, int]], tokens: int
) -> tuple[Tensor, Tensor]:
    """Rows of the value table [B·S·M, E] that each query reads, int32 [B, N, M, L·P·4], and their weights."""
    batch, _, heads = locations.shape[:3]
    device = locations.device
    sizes = torch.tensor(shapes, dtype=torch.int32, device=device)
    height, columns = sizes[:, 0, None], sizes[:, 1, None]
    starts = (sizes[:, 0] * sizes[:, 1]).cumsum(0, dtype=torch.int32) - sizes[:, 0] * sizes[:, 1]

    x = locations[..., 0] * columns - 0.5
    y = locations[..., 1] * height - 0.5
    left, top = x.floor(), y.floor()
    right_share, bottom_share = x - left, y - top
    # Far outside points only need to stay outside; the clamp keeps the conversion to int32 defined.
    column = left.clamp_(-2, max(w for _, w in shapes) + 1).to(torch.int32)
    row = top.clamp_(-2, max(h for h, _ in shapes) + 1).to(torch.int32)

    columns_pair = torch.stack((column, column + 1), dim=-1)
    rows_pair = torch.stack((row, row + 1), dim=-1)
    limit_x, limit_y = columns[..., None], height[..., None]
    share_x = torch.stack((1 - right_share, right_share), dim=-1) * ((columns_pair >= 0) & (columns_pair < limit_x))
    share_y = torch.stack((1 - bottom_share, bottom_share), dim=-1) * ((rows_pair >= 0) & (rows_pair < limit_y))
    share_y *= weights[..., None]
    columns_pair = torch.minimum(columns_pair.clamp_min_(0), limit_x - 1)
    rows_pair = torch.minimum(rows_pair.clamp_min_(0), limit_y - 1)

    # Row of (picture b, token s, head m) = (b·S + s)·M + m; the parts that do not depend on the corner go in early.
    owner = torch.arange(batch, dtype=torch.int32, device=device).view(-1, 1, 1, 1, 1, 1) * (tokens * heads)
    owner = owner + torch.arange(heads, dtype=torch.int32, device=device).view(-1, 1, 1, 1)
    rows_pair = (rows_pair * limit_x + starts[:, None, None]) * heads + owner
    rows = rows_pair[..., :, None] + (columns_pair * heads)[..., None, :]
    shares = share_y[..., :, None] * share_x[..., None, :]
    return rows.flatten(3), shares.flatten(3)


class SamplingOffsets(nn.Linear):
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


class SamplingWeights(nn.Linear):
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
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)

    def forward(self, queries: Tensor, values: Tensor, references: Tensor, shapes: Sequence[tuple[int, int]]) -> Tensor:
        """queries and values [B, S, C], references [S, 2] as xy fractions, shapes of the levels → [B, S, C]."""
        batch, count, width = queries.shape
        value = self.value_proj(values).view(batch, -1, self.heads, width // self.heads)
        offsets = self.sampling_offsets(queries).view(batch, count, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(queries).view(batch, count, self.heads, -1).softmax(-1)
        weights = weights.view(batch, count, self.heads, self.levels, self.points)
        # At least float32: bfloat16 places a point only to half a cell, and torch's CPU grid_sample of half precision
        # reads beyond the plane (seen in 2.13: NaN from neighbouring memory).
        exact = torch.promote_types(value.dtype, torch.float32)
        value, weights, offsets = value.to(exact), weights.to(exact), offsets.to(exact)
        normalizer = offsets.new_tensor([(w, h) for h, w in shapes])[:, None, :]
        locations = references[:, None, None, None, :].to(exact) + offsets / normalizer
        needs_gradient = torch.is_grad_enabled() and (value.requires_grad or offsets.requires_grad)
        # embedding_bag has no fast backward and is slow for very narrow heads.
        use_bag = (
            value.device.type == "cpu"
            and not needs_gradient
            and value.dtype == torch.float32
            and width // self.heads >= 16
            and value.numel() < 2**31
            and not torch.compiler.is_exporting()
        )
        sample = deformable_attention_embedding_bag if use_bag else deformable_attention_sampling
        return self.output_proj(sample(value, shapes, locations, weights).to(queries.dtype))


class PixelDecoderLayer(GradientCheckpointingLayer):
    """Deformable self-attention and feed-forward network, each with residual and post-norm."""

    def __init__(self, width: int, *, heads: int, levels: int, points: int, ffn_dim: int):
        super().__init__()
        self.self_attn = MultiScaleDeformableAttention(width, heads=heads, levels=levels, points=points)
        self.norm1 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, ffn_dim)
        self.fc2 = nn.Linear(ffn_dim, width)
        self.norm2 = nn.LayerNorm(width)

    def forward(
        self, tokens: Tensor, positions: Tensor, references: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """tokens [B, S, C], positions [S, C], references [S, 2] → [B, S, C]."""
        tokens = self.norm1(tokens + self.self_attn(tokens + positions, tokens, references, shapes))
        return self.norm2(tokens + self.fc2(F.relu(self.fc1(tokens), inplace=True)))


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

        finest = memories[-1].transpose(1, 2).unflatten(2, shapes[-1])
        lateral = self.lateral_conv(stride4)
        fused = lateral + F.interpolate(finest, size=lateral.shape[-2:], mode="bilinear", align_corners=False)
        return self.mask_projection(F.relu(self.output_conv(fused))), memories, shapes


__all__ = [
    "MultiScaleDeformableAttention",
    "PixelDecoder",
    "SamplingOffsets",
    "SamplingWeights",
    "deformable_attention_embedding_bag",
    "deformable_attention_sampling",
]
