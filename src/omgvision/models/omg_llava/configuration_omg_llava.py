"""Configuration of OMG-LLaVA: a segmenter, a language model, and what joins them."""

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec


@strict
class OmgLlavaConfig(PreTrainedConfig):
    """OMG-LLaVA; the defaults are the released 7B model.

    Args:
        vision_config: Configuration of the segmenter (OMG-Seg); its classes weigh the object queries, so it needs some.
        text_config: Any ``AutoModel`` language model; None means InternLM2-7B in Llama's layout.
        image_size: Side of the square network input, a multiple of 32 times ``pixel_shuffle``.
        pixel_shuffle: Side of the blocks of stride-32 pixels that become one token.
        image_token_id: Stands in ``input_ids`` for all tokens of one picture.
        mark_token_id, region_token_id: Stand for one visual prompt each. These and ``image_token_id`` are replaced by
            features and need no row in the embedding.
        segment_token_id: The [SEG] token, whose hidden state becomes a mask.
        head_bias: Whether the language model's head has a bias, which its own configuration does not say.
        own_mask_decoder: Whether [SEG] goes through a trained copy of the mask decoder instead of the frozen one.
            Visual prompts always go through the frozen one.
        place_embeddings: Whether tokens say where in the picture they are, see ``Places``. The original's do not.
        mask_weight, dice_weight: Factors of the mask losses (in the original 5 times 0.4 and 5 times 0.1).
        projection_loss_weight: Factor of the loss that makes both projections inverse to each other; 10 in the first
            stage of the original's training, which has no masks, and 0 later.
        num_loss_points, oversample_ratio, importance_sample_ratio: Point sampling of the mask losses.
    """

    model_type = "omg_llava"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="omg_seg"),
        "text_config": SubConfigSpec(
            config_class=AutoConfig,
            model_type="llama",
            init_kwargs={
                "vocab_size": 92548,
                "hidden_size": 4096,
                "intermediate_size": 14336,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 8,
                "rms_norm_eps": 1e-5,
                "max_position_embeddings": 32768,
                "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e6},
                "bos_token_id": 1,
                "eos_token_id": 2,
                "pad_token_id": 2,
            },
        ),
    }

    vision_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    image_size: int = 1024
    pixel_shuffle: int = 2
    segment_token_id: int = 92544
    region_token_id: int = 92547
    mark_token_id: int = 92548
    image_token_id: int = 92549
    head_bias: bool = False
    own_mask_decoder: bool = False
    place_embeddings: bool = False
    mask_weight: float | int = 2.0
    dice_weight: float | int = 0.5
    projection_loss_weight: float | int = 0.0
    num_loss_points: int = 12544
    oversample_ratio: float | int = 3.0
    importance_sample_ratio: float | int = 0.75
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        assert isinstance(self.text_config, PreTrainedConfig)
        # The language model says whether its head and its embedding are one; only here are both in one module.
        self.tie_word_embeddings = self.text_config.tie_word_embeddings

    @property
    def grid_size(self) -> int:
        """Pixel tokens along one side of the picture."""
        return self.image_size // (32 * self.pixel_shuffle)

    def validate_architecture(self):
        """Raises ValueError where the picture does not divide into tokens, two tokens share an id, or objects are found
        by a grid of queries, which have no place among the tokens."""
        cell = 32 * self.pixel_shuffle
        if self.image_size < cell or self.image_size % cell:
            raise ValueError(
                f"image_size: expected a multiple of {cell} (32 times pixel_shuffle), got {self.image_size}"
            )
        ids = [self.segment_token_id, self.region_token_id, self.mark_token_id, self.image_token_id]
        if len(set(ids)) < len(ids):
            raise ValueError(f"token ids: expected [SEG], region, mark and image to differ, got {ids}")
        assert isinstance(self.vision_config, PreTrainedConfig)
        if stride := self.vision_config.to_dict().get("query_stride"):
            raise ValueError(
                f"vision_config: expected a segmenter without a grid of queries, got query_stride {stride}"
            )


__all__ = ["OmgLlavaConfig"]
