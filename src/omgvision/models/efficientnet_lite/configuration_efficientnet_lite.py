"""Configuration of the EfficientNet-Lite backbone."""

from huggingface_hub.dataclasses import strict
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig


@strict
class EfficientNetLiteConfig(BackboneConfigMixin, PreTrainedConfig):
    """EfficientNet-Lite; the defaults are Lite0.

    Args:
        stem_channels: Output channels of the first convolution.
        group_channels: Output channels of each of the seven groups of blocks.
        group_depths: Blocks of each group.
    """

    model_type = "omg_efficientnet_lite"

    num_channels: int = 3
    stem_channels: int = 32
    group_channels: list[int] | tuple[int, ...] = (16, 24, 40, 80, 112, 192, 320)
    group_depths: list[int] | tuple[int, ...] = (1, 2, 2, 3, 3, 4, 1)
    initializer_range: float = 0.02
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem", "stage1", "stage2", "stage3", "stage4"]
        out_features = kwargs.pop("out_features", None)
        out_indices = kwargs.pop("out_indices", None)
        if out_features is None and out_indices is None:
            out_features = self.stage_names[1:]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Raises ValueError when the groups are not seven."""
        for name in ("group_channels", "group_depths"):
            if len(getattr(self, name)) != 7:
                raise ValueError(f"{name}: expected seven entries, got {len(getattr(self, name))}")


__all__ = ["EfficientNetLiteConfig"]
