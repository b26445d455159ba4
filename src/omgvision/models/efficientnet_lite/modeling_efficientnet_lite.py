"""EfficientNet-Lite: EfficientNet without squeeze-and-excitation, ReLU6 instead of swish; small and quick on a CPU.

Tan and Le, "EfficientNet" (2019), table 1; the Lite variants are those of the TensorFlow model garden. There are no
batch norms here: their statistics are folded into the convolutions when the weights are converted, which is what they
amount to in a backbone that is frozen or trained at a small rate.
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

from .configuration_efficientnet_lite import EfficientNetLiteConfig

GROUP_KERNELS = (3, 3, 5, 3, 5, 5, 3)
GROUP_STRIDES = (1, 2, 2, 2, 1, 2, 1)
GROUP_EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
STAGE_GROUPS = ((0, 1), (2,), (3, 4), (5, 6))
"""Groups of the stages at strides 4, 8, 16 and 32."""


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's "SAME": where the padding is odd, the larger half is right and below."""

    def forward(self, input: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return self._conv_forward(input, self.weight, self.bias)
        height, width = (max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in input.shape[-2:])
        padded = F.pad(input, (width // 2, width - width // 2, height // 2, height - height // 2))
        return self._conv_forward(padded, self.weight, self.bias)


def same_conv(in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> SameConv:
    padding = kernel // 2 if stride == 1 else 0
    return SameConv(in_channels, out_channels, kernel, stride=stride, padding=padding, groups=groups)


class InvertedBlock(GradientCheckpointingLayer):
    """Widen, convolve each channel, narrow; residual where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int, stride: int, expansion: int):
        super().__init__()
        inner = in_channels * expansion
        self.expand = nn.Conv2d(in_channels, inner, 1) if expansion > 1 else None
        self.depthwise = same_conv(inner, inner, kernel, stride=stride, groups=inner)
        self.project = nn.Conv2d(inner, out_channels, 1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, features: Tensor) -> Tensor:
        hidden = features if self.expand is None else F.relu6(self.expand(features))
        hidden = self.project(F.relu6(self.depthwise(hidden)))
        return features + hidden if self.residual else hidden


class EfficientNetLiteBackbone(BackboneMixin, PreTrainedModel):
    """EfficientNet-Lite whose feature maps are the linear outputs of its stages, at strides 4, 8, 16 and 32."""

    config: EfficientNetLiteConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    has_attentions = False
    supports_gradient_checkpointing = True
    _no_split_modules = ["InvertedBlock"]

    def __init__(self, config: EfficientNetLiteConfig):
        super().__init__(config)
        self.stem = same_conv(config.num_channels, config.stem_channels, 3, stride=2)
        self.stages = nn.ModuleList()
        channels = config.stem_channels
        self.num_features = [channels]
        for groups in STAGE_GROUPS:
            blocks = []
            for group in groups:
                for index in range(config.group_depths[group]):
                    blocks.append(
                        InvertedBlock(
                            channels,
                            config.group_channels[group],
                            kernel=GROUP_KERNELS[group],
                            stride=GROUP_STRIDES[group] if index == 0 else 1,
                            expansion=GROUP_EXPANSIONS[group],
                        )
                    )
                    channels = config.group_channels[group]
            self.stages.append(nn.Sequential(*blocks))
            self.num_features.append(channels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                init.zeros_(module.bias)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput:
        """pixel_values [B, 3, H, W] → ``feature_maps``: one [B, C, ⌈H/s⌉, ⌈W/s⌉] for every wanted stage.

        ``output_hidden_states`` adds the outputs of the stem and of all stages; there are no attentions.
        """
        features = F.relu6(self.stem(pixel_values.contiguous(memory_format=torch.channels_last)))
        maps: list = [features]  # transformers types feature_maps as a tuple of exactly one
        for stage in self.stages:
            features = stage(features)
            maps.append(features)
        wanted = tuple(
            feature for name, feature in zip(self.stage_names, maps, strict=True) if name in self.out_features
        )
        return BackboneOutput(feature_maps=wanted, hidden_states=tuple(maps) if output_hidden_states else None)


__all__ = ["EfficientNetLiteBackbone"]
