"""What OMG-LLaVA sees and points at: pictures and prompts as tokens, hidden states of [SEG] as masks.

Letters: I pictures, H×W the square network input, Q object queries, C their width, E width of the language model, N
masks or prompts, h×w the stride-4 grid.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from .configuration_omg_llava import OmgLlavaConfig
from .grounding_omg_llava import VisualPrompts, centers_as_points, group_by_picture, select_pictures, windows
from .outputs_omg_llava import OmgLlavaImages
from .projector_omg_llava import Places, TextToVision, VisionToText, ownership, perception_prior, pixel_tokens


class OmgLlavaVisionMixin(PreTrainedModel):
    """What `OmgLlavaModel` does with its segmenter."""

    config: OmgLlavaConfig
    vision_tower: Any
    mask_decoder: Any
    projector: VisionToText
    text_to_vision: TextToVision
    places: Places | None

    # --- seeing ----------------------------------------------------------------------------------------------------

    def encode_images(self, pixel_values: Tensor) -> OmgLlavaImages:
        """Sees pictures; give the result as ``images`` to later calls, which then do not see them again.

        Args:
            pixel_values: [I, 3, H, W], padded to a square, of ``config.image_size``.

        Raises:
            ValueError: Another shape, or a segmenter without classes.
        """
        side, tower = self.config.image_size, self.vision_tower
        if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != (3, side, side):
            raise ValueError(f"pixel_values: expected [pictures, 3, {side}, {side}], got {tuple(pixel_values.shape)}")
        if not tower.config.num_classes:
            raise ValueError(
                "vision_config: expected a segmenter with classes, whose certainty weighs the objects, got one "
                "without; call set_class_embeddings on the vision tower"
            )
        with torch.no_grad():
            encoded = tower.encode(pixel_values.to(tower.dtype))
            seen = tower(encoder_outputs=encoded)
            positions = tower.model.query_positions.expand(len(pixel_values), -1, -1)
            queries = torch.cat((seen.query_features, positions), dim=-1)
            pixels = pixel_tokens(encoded.clip_features[:, 0], block=self.config.pixel_shuffle)
            claims = ownership(
                seen.class_queries_logits,
                seen.masks_queries_logits,
                canvas=side,
                cells=self.config.grid_size,
            )
            prior, kept = perception_prior(claims, queries)
        dtype = self.projector.separator.dtype
        grid = self.projector.project_pixels(pixels.to(dtype), prior.to(dtype))
        objects = [
            self.projector.project_queries(found[chosen].to(dtype)) for found, chosen in zip(queries, kept, strict=True)
        ]
        if self.places is not None:
            grid = grid + self.places.of_pixels()
            objects = [
                found + self.places.of_objects(claimed)[chosen]
                for found, claimed, chosen in zip(objects, claims, kept, strict=True)
            ]
        tokens = [
            torch.cat((cells, self.projector.separator, found)) for cells, found in zip(grid, objects, strict=True)
        ]
        return OmgLlavaImages(tokens=tuple(tokens), queries=queries, kept=kept, encoded=encoded)

    def encode_prompts(self, prompts: VisualPrompts, images: OmgLlavaImages) -> tuple[Tensor, ...]:
        """One token for each point, box or mask, decoded on its own picture by the frozen decoder.

        A box looks inside of itself from its centre, as in the original, unless the segmenter has learned boxes
        (``box_prompt_index`` 1).

        Returns:
            I tensors [N, E], in the order of the placeholders.

        Raises:
            ValueError: Prompts for another number of pictures, or a segmenter that knows no prompts.
        """
        tower, encoded = self.vision_tower.model, images.encoded
        if tower.prompt_encoder is None:
            raise ValueError("prompts: expected a segmenter with prompt queries, got one without")
        if len(prompts.slots) != len(encoded.mask_features):
            raise ValueError(
                f"prompts: expected those of {len(encoded.mask_features)} pictures, got {len(prompts.slots)}"
            )
        height, width = encoded.canvas_size.tolist()
        points, labels, boxes = prompts.points, prompts.point_labels, prompts.boxes
        own_boxes = boxes is not None and self.vision_tower.config.box_prompt_index == 0
        if own_boxes:
            (points, labels), boxes = centers_as_points(prompts), None
        with torch.no_grad():
            queries = tower.prompt_encoder(
                image_sizes=encoded.image_sizes,
                canvas_size=(height, width),
                mask_features=encoded.mask_features,
                points=points,
                labels=labels,
                boxes=boxes,
                masks=prompts.masks,
            )
            if own_boxes:
                queries = queries._replace(region=windows(prompts, (height, width), encoded.memory_shapes))
            decoded = tower.decode_prompts(queries, encoded)
            found = torch.cat((decoded.query_features, queries.positions), dim=-1)
        tokens = self.projector.project_queries(found.to(self.projector.separator.dtype))
        return tuple(
            row[slots >= 0][slots[slots >= 0].argsort()] for row, slots in zip(tokens, prompts.slots, strict=True)
        )

    # --- pointing --------------------------------------------------------------------------------------------------

    def decode_masks(
        self, states: Tensor, picture: Tensor, images: OmgLlavaImages, *, output_auxiliary: bool = False
    ) -> tuple[Tensor, ...]:
        """Hidden states of [SEG] → masks.

        Args:
            states: [N, E] after the language model's final norm.
            picture: [N] the picture of each.

        Returns:
            Mask logits [N, h, w], the last prediction last; with ``output_auxiliary`` one for each decoder layer and
            one before the first.
        """
        encoded, grouping = images.encoded, group_by_picture(picture)
        if len(grouping.pictures) < len(encoded.mask_features):
            encoded = select_pictures(encoded, grouping.pictures)
        queries = self.text_to_vision(states.to(self.projector.separator.dtype)).to(encoded.mask_features.dtype)
        features, positions = grouping.table(queries).chunk(2, dim=-1)
        decoded = self.vision_tower.model.decode(
            features,
            positions,
            encoded,
            decoder=self.mask_decoder,
            # A [SEG] query does not know of the others.
            self_allowed=torch.eye(features.shape[1], dtype=torch.bool, device=features.device),
            output_auxiliary=output_auxiliary,
        )
        return tuple(masks[grouping.row, grouping.column, 0] for masks in decoded.layer_mask_logits)


__all__ = ["OmgLlavaVisionMixin"]
