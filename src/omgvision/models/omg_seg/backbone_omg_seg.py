"""CLIP ConvNeXt as a Hugging Face backbone, and the head that maps its features into the CLIP space.

Letters: B pictures, C channels, H and W rows and columns, D width of the CLIP space.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BackboneOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .configuration_omg_seg import ClipConvNextConfig


class ChannelsFirstLayerNorm(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W]; cheap where the tensor lies channels-last in memory."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(GradientCheckpointingLayer):
    """7×7 depthwise convolution, LayerNorm, two-layer MLP with exact GELU, learned scale, residual.

    Liu et al., "A ConvNet for the 2020s" (2022), figure 4.
    """

    def __init__(self, channels: int, *, layer_norm_eps: float, layer_scale_init_value: float):
        super().__init__()
        self.layer_scale_init_value = layer_scale_init_value
        self.conv_dw = nn.Conv2d(channels, channels, kernel_size=7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=layer_norm_eps)
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.empty(channels))

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.norm(self.conv_dw(features).permute(0, 2, 3, 1))
        hidden = self.fc2(F.gelu(self.fc1(hidden)))
        return features + (hidden * self.gamma).permute(0, 3, 1, 2)


class PatchConv(nn.Conv2d):
    """Non-overlapping patches of the picture.

    A class of its own for its initialisation: with a bias of zero the flat parts of a picture (padding is exactly 0)
    reach the first norm without variance, and their gradient is a thousand times everyone else's.
    """


class Stem(nn.Module):
    """4×4 patches to channels, then LayerNorm."""

    def __init__(self, config: ClipConvNextConfig):
        super().__init__()
        self.conv = PatchConv(config.num_channels, config.hidden_sizes[0], kernel_size=4, stride=4)
        self.norm = ChannelsFirstLayerNorm(config.hidden_sizes[0], eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.norm(self.conv(pixel_values))


class Downsample(nn.Module):
    """LayerNorm, then 2×2 patches to the channels of the next stage."""

    def __init__(self, in_channels: int, out_channels: int, *, layer_norm_eps: float):
        super().__init__()
        self.norm = ChannelsFirstLayerNorm(in_channels, eps=layer_norm_eps)
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=2, stride=2)

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(self.norm(features))


class Stage(nn.Module):
    """Down-sampling (but in the first stage) and the blocks of one resolution."""

    def __init__(self, config: ClipConvNextConfig, index: int):
        super().__init__()
        channels = config.hidden_sizes[index]
        self.downsample = (
            nn.Identity()
            if index == 0
            else Downsample(config.hidden_sizes[index - 1], channels, layer_norm_eps=config.layer_norm_eps)
        )
        self.blocks = nn.Sequential(
            *[
                ConvNextBlock(
                    channels,
                    layer_norm_eps=config.layer_norm_eps,
                    layer_scale_init_value=config.layer_scale_init_value,
                )
                for _ in range(config.depths[index])
            ]
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.blocks(self.downsample(features))


class ClipConvNextBackbone(BackboneMixin, PreTrainedModel):
    """ConvNeXt whose feature maps are the raw outputs of its stages, at strides 4, 8, 16 and 32."""

    config: ClipConvNextConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    has_attentions = False
    supports_gradient_checkpointing = True
    _no_split_modules = ["ConvNextBlock"]

    def __init__(self, config: ClipConvNextConfig):
        super().__init__(config)
        self.num_features = [config.hidden_sizes[0], *config.hidden_sizes]
        self.stem = Stem(config)
        self.stages = nn.ModuleList([Stage(config, index) for index in range(len(config.depths))])
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                start = self.config.initializer_range if isinstance(module, PatchConv) else 0.0
                init.normal_(module.bias, std=start)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, ConvNextBlock):
            init.constant_(module.gamma, module.layer_scale_init_value)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput:
        """pixel_values [B, 3, H, W] → ``feature_maps``: one [B, C, ⌊H/s⌋, ⌊W/s⌋] for every wanted stage.

        ``output_hidden_states`` adds the outputs of the stem and of all stages; there are no attentions.
        """
        features = self.stem(pixel_values.contiguous(memory_format=torch.channels_last))
        maps = [features]
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        wanted = tuple(
            feature for name, feature in zip(self.stage_names, maps, strict=True) if name in self.out_features
        )
        return BackboneOutput(feature_maps=wanted, hidden_states=tuple(maps) if output_hidden_states else None)


class MlpClipHead(nn.Module):
    """Pooled backbone features [..., C] → CLIP space [..., D]: norm, Linear, GELU, Linear without bias.

    The hidden width is 2·D, as in every OpenCLIP ConvNeXt with this head.
    """

    def __init__(self, channels: int, embedding_dim: int, *, layer_norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=layer_norm_eps)
        self.fc1 = nn.Linear(channels, 2 * embedding_dim)
        self.fc2 = nn.Linear(2 * embedding_dim, embedding_dim, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(self.norm(pooled))))


class LinearClipHead(nn.Module):
    """Pooled backbone features [..., C] → CLIP space [..., D]: norm, Linear without bias."""

    def __init__(self, channels: int, embedding_dim: int, *, layer_norm_eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=layer_norm_eps)
        self.proj = nn.Linear(channels, embedding_dim, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.proj(self.norm(pooled))


__all__ = ["ClipConvNextBackbone", "LinearClipHead", "MlpClipHead"]
