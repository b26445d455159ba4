"""What the models return.

Letters: B pictures or clips, T frames (1 for a picture), H×W the padded network input, h×w its stride-4 grid, Q queries
(objects or prompts), C width, K classes.
"""

from dataclasses import dataclass

from torch import Tensor
from transformers.utils.generic import ModelOutput

from .mask_decoder_omg_seg import OmgSegDecoderOutput


@dataclass
class OmgSegEncoderOutput(ModelOutput):
    """An encoded picture or clip; clicks are answered from it without encoding again.

    Attributes:
        mask_features: [B, C, T, h, w].
        memories: Three [B, T·hᵢ·wᵢ, C] at strides 32, 16, 8.
        memory_shapes: Their (hᵢ, wᵢ).
        clip_features: [B, T, channels, H/32, W/32], the last backbone stage.
        image_sizes: [B, 2] unpadded (height, width) in pixels of the network input.
        canvas_size: [2] padded (H, W).
    """

    mask_features: Tensor | None = None
    memories: tuple[Tensor, ...] | None = None
    memory_shapes: tuple[tuple[int, int], ...] | None = None
    clip_features: Tensor | None = None
    image_sizes: Tensor | None = None
    canvas_size: Tensor | None = None


@dataclass
class OmgSegModelOutput(ModelOutput):
    """Output of :class:`OmgSegModel`: the encoded picture and the decoded object queries.

    Attributes:
        query_features: [B, Q, C] after the last decoder layer, before its norm.
        masks_queries_logits: [B, Q, h, w], or [B, Q, T, h, w] for clips.
        mask_features: [B, C, T, h, w].
        encoder_outputs: The encoded picture.
        decoder_outputs: Predictions of the layers.
    """

    query_features: Tensor | None = None
    masks_queries_logits: Tensor | None = None
    mask_features: Tensor | None = None
    encoder_outputs: OmgSegEncoderOutput | None = None
    decoder_outputs: OmgSegDecoderOutput | None = None


@dataclass
class OmgSegOutput(ModelOutput):
    """Output of :class:`OmgSegForUniversalSegmentation`.

    Attributes:
        loss: Scalar, when labels are given.
        loss_dict: Its summands, already weighted.
        class_queries_logits: [B, Q, K + 1], void last.
        fused_class_logits: The same after the fusion with CLIP, when ``clip_fusion=True``.
        masks_queries_logits: [B, Q, h, w] for pictures, [B, Q, T, h, w] for clips.
        iou_logits: [B, Q], objectness.
        query_features: [B, Q, C] of the last layer, before its norm.
        mask_features: [B, C, T, h, w].
        auxiliary_logits: With ``output_auxiliary=True`` one dict for each earlier prediction, the first of them before
            any layer, with ``class_queries_logits``, ``masks_queries_logits`` and ``iou_logits``.
        image_sizes: [B, 2] unpadded (height, width) in pixels of the network input.
        canvas_size: [2] padded (H, W).
        thing_mask: [K] bool, which classes are countable; None when the caller brought its own classes without.
        prompt_mask: [B, Q] bool, which prompts are real.
        encoder_outputs: The encoded picture.
    """

    loss: Tensor | None = None
    loss_dict: dict[str, Tensor] | None = None
    class_queries_logits: Tensor | None = None
    fused_class_logits: Tensor | None = None
    masks_queries_logits: Tensor | None = None
    iou_logits: Tensor | None = None
    query_features: Tensor | None = None
    mask_features: Tensor | None = None
    auxiliary_logits: list[dict[str, Tensor]] | None = None
    image_sizes: Tensor | None = None
    canvas_size: Tensor | None = None
    thing_mask: Tensor | None = None
    prompt_mask: Tensor | None = None
    encoder_outputs: OmgSegEncoderOutput | None = None


__all__ = ["OmgSegEncoderOutput", "OmgSegModelOutput", "OmgSegOutput"]
