"""What OMG-LLaVA learns from beside the words: its masks, and projections that are inverse to each other.

Letters: N masks of a batch, H×W the network input, Q object queries, C their width.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .configuration_omg_llava import OmgLlavaConfig
from .grounding_omg_llava import LossPoints, UncertainPoints, mask_losses
from .outputs_omg_llava import OmgLlavaImages, OmgLlavaOutput
from .projector_omg_llava import TextToVision, VisionToText


def grounding_losses(
    output: OmgLlavaOutput,
    mask_labels: Sequence[Tensor] | None,
    *,
    config: OmgLlavaConfig,
    points: LossPoints | None,
    total: Tensor | None,
) -> dict[str, Tensor]:
    """``loss_mask`` and ``loss_dice``, weighted as configured, over the predictions of all decoder layers.

    Args:
        output: With the mask logits of all layers and the conversation of each mask.
        mask_labels: As of `OmgLlavaForConditionalGeneration.forward`.
        points: Where to look; None = random points as configured.
        total: How many masks to divide by; None = those of this batch.

    Returns:
        Nothing without masks.

    Raises:
        ValueError: A conversation with another number of masks than of [SEG] in its labels.
    """
    truth = true_masks(output, mask_labels)
    if output.mask_logits is None or truth is None:
        return {}
    if points is None:
        points = UncertainPoints(config.num_loss_points, config.oversample_ratio, config.importance_sample_ratio)
    layers = [*(output.auxiliary_mask_logits or ()), output.mask_logits]
    mask, dice = mask_losses(layers, truth, points, total=total)
    return {"loss_mask": config.mask_weight * mask, "loss_dice": config.dice_weight * dice}


def true_masks(output: OmgLlavaOutput, mask_labels: Sequence[Tensor] | None) -> Tensor | None:
    """The masks [N, H, W] of the batch one after the other; None without any.

    Raises:
        ValueError: A conversation with another number of masks than of [SEG] in its labels.
    """
    if mask_labels is None:
        return None
    rows = torch.empty(0) if output.mask_rows is None else output.mask_rows
    for index, masks in enumerate(mask_labels):
        tokens = int((rows == index).sum())
        if tokens != len(masks):
            raise ValueError(
                f"mask_labels: expected one mask for each [SEG] ({tokens}) in the answers about a picture of "
                f"conversation {index}, got {len(masks)}"
            )
    return torch.cat([masks for masks in mask_labels if len(masks)]) if len(rows) else None


def projection_loss(images: OmgLlavaImages, projector: VisionToText, text_to_vision: TextToVision) -> Tensor:
    """Object queries [I, Q, 2·C] that went to the language model's space and back should be what they were."""
    assert images.queries is not None
    queries = images.queries.to(projector.separator.dtype)
    returned = text_to_vision(projector.project_queries(queries))
    return (returned - queries).float().square().mean()


__all__ = ["grounding_losses", "projection_loss", "true_masks"]
