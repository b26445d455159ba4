"""Configurations: the CLIP ConvNeXt backbone and the whole OMG-Seg model."""

from typing import Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, CLIPTextConfig
from transformers.backbone_utils import BackboneConfigMixin
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec


@strict
class ClipConvNextConfig(BackboneConfigMixin, PreTrainedConfig):
    """ConvNeXt as the image tower of OpenCLIP uses it; the defaults are ConvNeXt-Large.

    Args:
        num_channels: Channels of the input picture.
        hidden_sizes: Channels of each stage.
        depths: Blocks of each stage.
        layer_norm_eps: Epsilon of every norm (1e-6 for base and large, 1e-5 for xxlarge).
        layer_scale_init_value: Initial value of the residual scales (``gamma``).
    """

    model_type = "omg_clip_convnext"

    num_channels: int = 3
    hidden_sizes: list[int] | tuple[int, ...] = (192, 384, 768, 1536)
    depths: list[int] | tuple[int, ...] = (3, 3, 27, 3)
    layer_norm_eps: float = 1e-6
    layer_scale_init_value: float = 1e-6
    initializer_range: float = 0.02
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs):
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, len(self.depths) + 1)]
        out_features = kwargs.pop("out_features", None)
        out_indices = kwargs.pop("out_indices", None)
        if out_features is None and out_indices is None:
            out_features = self.stage_names[1:]
        self.set_output_features_output_indices(out_features=out_features, out_indices=out_indices)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Raises ValueError when stages and depths disagree."""
        if len(self.hidden_sizes) != len(self.depths):
            raise ValueError(
                f"hidden_sizes and depths: expected one entry a stage in both, got {len(self.hidden_sizes)} "
                f"and {len(self.depths)}"
            )


@strict
class OmgSegConfig(PreTrainedConfig):
    """OMG-Seg; the defaults are the released configuration with the ConvNeXt-Large CLIP backbone.

    Args:
        backbone_config: Any ``AutoBackbone`` configuration; None means CLIP ConvNeXt-Large.
        text_config: ``CLIPTextConfig`` of the text tower that encodes class names; None for a model without one.
        clip_head: Head that maps pooled backbone features into the CLIP space: two layers ("mlp": base and large
            "_d_320"), one ("linear": xxlarge), or None for a backbone without one (no CLIP fusion then).
        embedding_dim: Width D of the CLIP space in which classes are compared.
        hidden_size: Width C of queries, memories and mask features.
        num_queries: Object queries that look at the whole picture.
        query_stride: Of the object queries beside them that each look at one place of a grid, the distance between two
            in pixels of the network input; 0 = none. For crowds of small objects. Off for converted checkpoints.
        encoder_layers, encoder_ffn_dim, num_sampling_points, num_feature_levels, group_norm_groups: Pixel decoder.
        decoder_layers, decoder_ffn_dim: Masked-attention decoder.
        logit_scale: Natural logarithm of the factor on class cosines (4.6052, as in the original).
        fusion_alpha, fusion_beta: Weight of the CLIP score in the fusion for seen and for unseen classes.
        prompt_queries: Whether points, boxes and masks can be given.
        box_prompt_index: Row of the prompt embedding that boxes use. The published weights trained row 0 alone.
        point_refinement: Adds the parameters that read several points of one object, negative points and a previous
            mask. Off for converted checkpoints, which do not have them.
        num_classes, num_prototypes: Size of the stored vocabulary, kept in step by ``set_class_embeddings``.
        freeze_backbone: Keep backbone and CLIP head in evaluation mode without gradients.
        class_weight, mask_weight, dice_weight, iou_weight: Factors of the losses and of the matching costs.
        void_weight: Weight of the void class in the class loss.
        num_loss_points, oversample_ratio, importance_sample_ratio: Point sampling of the mask losses.
        dense_loss_weight: Training aid: every pixel of the mask features is classified too. 0 switches it off.
        region_loss_weight: Training aid: the CLIP head classifies the ground-truth regions. 0 switches it off.
    """

    model_type = "omg_seg"
    sub_configs_defaults = {
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="omg_clip_convnext"),
    }

    backbone_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    clip_head: Literal["mlp", "linear"] | None = "mlp"
    embedding_dim: int = 768
    hidden_size: int = 256
    num_queries: int = 300
    query_stride: int = 0
    num_attention_heads: int = 8
    num_feature_levels: int = 3
    encoder_layers: int = 6
    encoder_ffn_dim: int = 1024
    num_sampling_points: int = 4
    group_norm_groups: int = 32
    decoder_layers: int = 9
    decoder_ffn_dim: int = 2048
    logit_scale: float = 4.6052
    fusion_alpha: float = 0.4
    fusion_beta: float = 0.8
    prompt_queries: bool = True
    box_prompt_index: Literal[0, 1] = 0
    point_refinement: bool = False
    num_classes: int = 0
    num_prototypes: int = 0
    freeze_backbone: bool = True
    initializer_range: float = 0.02
    class_weight: float | int = 2.0
    mask_weight: float | int = 5.0
    dice_weight: float | int = 5.0
    iou_weight: float | int = 2.0
    void_weight: float | int = 0.1
    num_loss_points: int = 12544
    oversample_ratio: float | int = 3.0
    importance_sample_ratio: float | int = 0.75
    dense_loss_weight: float | int = 0.0
    region_loss_weight: float | int = 0.0

    def __post_init__(self, **kwargs):
        # A checkpoint without stored classes must not invent the two of transformers' default.
        if self.id2label is None and "num_labels" not in kwargs:
            self.id2label = {index: f"class {index}" for index in range(self.num_classes)}
            self.label2id = {name: index for index, name in self.id2label.items()}
        if isinstance(self.text_config, dict):
            self.text_config = CLIPTextConfig(**self.text_config)
        super().__post_init__(**kwargs)

    def validate_architecture(self):
        """Raises ValueError where sizes do not fit each other."""
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size: expected a multiple of num_attention_heads ({self.num_attention_heads}), "
                f"got {self.hidden_size}"
            )
        if self.hidden_size % 4:
            raise ValueError(f"hidden_size: expected a multiple of 4 (sine encodings), got {self.hidden_size}")
        if self.query_stride and not self.prompt_queries:
            raise ValueError(
                "query_stride: expected a model with prompt_queries, whose encoder of places it uses, got one without"
            )
        if self.hidden_size % self.group_norm_groups:
            raise ValueError(
                f"hidden_size: expected a multiple of group_norm_groups ({self.group_norm_groups}), "
                f"got {self.hidden_size}"
            )
        tower = self.text_tower
        if tower is not None and tower.projection_dim != self.embedding_dim:
            raise ValueError(
                f"text_config.projection_dim: expected embedding_dim ({self.embedding_dim}), got {tower.projection_dim}"
            )

    @property
    def text_tower(self) -> CLIPTextConfig | None:
        """``text_config`` as the type that it has once the configuration is built."""
        assert self.text_config is None or isinstance(self.text_config, CLIPTextConfig)
        return self.text_config


__all__ = ["ClipConvNextConfig", "OmgSegConfig"]
