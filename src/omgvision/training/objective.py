"""What a training step asks of the model: its object queries and its prompt queries, on features encoded once.

Letters: B images, N prompts, P points of one prompt, K classes, D width of the CLIP space, H×W canvas, h×w its
stride-4 grid.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase

from omgvision.data.prompts import sample_box_prompts, sample_prompts
from omgvision.data.sample import Batch, Prompts
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.vocabulary_omg_seg import split_synonyms
from omgvision.training.guidance import WordGuidance
from omgvision.training.recipe import ObjectiveSettings

if TYPE_CHECKING:
    from omgvision.models.omg_seg.modeling_omg_seg import OmgSegEncoderOutput


class SegmentationObjective(nn.Module):
    """Batch → losses. The class names go through the text tower in every step, so words are learned with masks.

    Args:
        model: With a text tower.
        tokenizer: Of the text tower.
        templates: Sentences with one `{}`; each step puts every name into one of them, drawn at random.
        settings: See `ObjectiveSettings`.
        guidance: Teaches the text tower words beyond the classes; None leaves that out.
    """

    def __init__(
        self,
        model: OmgSegForUniversalSegmentation,
        *,
        tokenizer: PreTrainedTokenizerBase,
        templates: Sequence[str],
        settings: ObjectiveSettings,
        guidance: WordGuidance | None = None,
    ):
        super().__init__()
        self.model, self.guidance = model, guidance
        self.tokenizer, self.templates, self.settings = tokenizer, tuple(templates), settings
        self._token_ids: dict[str, list[int]] = {}

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of one batch: `loss`, their weighted sum, and its parts."""
        batch = with_small_masks(moved(batch, self.model.device))
        encoded = self.model.encode(batch.pixel_values, pixel_mask=batch.pixel_mask)
        losses: dict[str, Tensor] = {}
        if batch.dataset not in self.settings.prompts_only:
            losses |= self.object_losses(encoded, batch)
        canvas = batch.pixel_values.shape[-2:]
        prompts = batch.prompts if batch.prompts is not None else self.draw_prompts(batch.mask_labels, canvas=canvas)
        if self.settings.prompt_weight and prompts.prompt_mask.any():
            losses |= self.prompt_losses(encoded, prompts, canvas=canvas)
        if self.guidance is not None:
            losses["words"] = self.guidance(lambda words: self.encode_names(words)[:, 0])
        weights = {
            "objects": 1.0,
            "prompts": self.settings.prompt_weight,
            "refined": self.settings.prompt_weight,
            "words": self.settings.word_weight,
        }
        # A batch may have neither; its loss must still reach the weights for the backward pass.
        assert encoded.mask_features is not None
        total = encoded.mask_features.sum() * 0
        for name, weight in weights.items():
            if name in losses:
                total = total + weight * losses[name]
        return {"loss": total, **losses}

    def object_losses(self, encoded: "OmgSegEncoderOutput", batch: Batch) -> dict[str, Tensor]:
        """Matching of all object queries with the segments of the batch, in the vocabulary of its dataset."""
        names, class_labels = self.choose_classes(batch.names, batch.class_labels)
        output = self.model(
            encoder_outputs=encoded,
            class_embeddings=self.encode_names(names),
            mask_labels=batch.mask_labels,
            class_labels=class_labels,
        )
        parts = {f"objects/{name}": loss for name, loss in output.loss_dict.items() if "." not in name}
        return {"objects": output.loss, **parts}

    def draw_prompts(self, mask_labels: Sequence[Tensor], *, canvas: Sequence[int]) -> Prompts:
        """Clicks and boxes on objects of the batch, in canvas pixels; every image has the clicks first."""
        clicks = sample_prompts(mask_labels, number=self.settings.points)
        boxes = sample_box_prompts(mask_labels, number=self.settings.boxes)
        assert clicks.points is not None and boxes.boxes is not None
        height, width = mask_labels[0].shape[-2:]
        scale = clicks.points.new_tensor((canvas[1] / width, canvas[0] / height))
        pairs = zip(clicks.mask_labels, boxes.mask_labels, strict=True)
        return Prompts(
            points=clicks.points * scale,
            point_labels=clicks.point_labels,
            boxes=boxes.boxes * scale.repeat(2),
            prompt_mask=torch.cat((clicks.prompt_mask, boxes.prompt_mask), dim=1),
            mask_labels=[torch.cat(pair) for pair in pairs],
        )

    def prompt_losses(
        self, encoded: "OmgSegEncoderOutput", prompts: Prompts, *, canvas: Sequence[int]
    ) -> dict[str, Tensor]:
        """Masks of the prompts, and of the points again after each correcting click."""
        points, labels = prompts.points, prompts.point_labels
        output = self.model(
            encoder_outputs=encoded,
            input_points=points,
            input_point_labels=labels,
            input_boxes=prompts.boxes,
            prompt_mask=prompts.prompt_mask,
            mask_labels=prompts.mask_labels,
        )
        # The original divides by the prompts of one image, so that its loss grows with the batch; a mean does not.
        images = len(prompts.prompt_mask)
        losses = {"prompts": output.loss / images}
        if points is None or labels is None or not self.settings.refinement_rounds:
            return losses
        count = points.shape[1]
        clicked = only_first(prompts, count)
        targets = dense_targets(clicked, size=output.masks_queries_logits.shape[-2:])
        refined = []
        for _ in range(self.settings.refinement_rounds):
            previous = output.masks_queries_logits[:, :count].detach()
            click, label = next_clicks(previous, targets, canvas=canvas)
            points = torch.cat((points, click), dim=2)
            labels = torch.cat((labels, label), dim=2)
            output = self.model(
                encoder_outputs=encoded,
                input_points=points,
                input_point_labels=labels,
                prompt_mask=clicked.prompt_mask,
                previous_mask_logits=previous,
                mask_labels=clicked.mask_labels,
            )
            refined.append(output.loss / images)
        losses["refined"] = torch.stack(refined).mean()
        return losses

    def choose_classes(self, names: Sequence[str], class_labels: Sequence[Tensor]) -> tuple[list[str], list[Tensor]]:
        """At most `max_classes` names, those of the batch among them, and the labels as indices into these."""
        limit = self.settings.max_classes
        if len(names) <= limit:
            return list(names), list(class_labels)
        present = torch.cat([labels[labels >= 0] for labels in class_labels]).unique().cpu()
        order = torch.randperm(len(names))
        others = order[~torch.isin(order, present)][: max(limit - len(present), 0)]
        chosen = torch.cat((present, others)).sort().values
        position = torch.full((len(names),), -1).index_copy(0, chosen, torch.arange(len(chosen)))
        renumbered = [
            torch.where(labels >= 0, position.to(labels.device)[labels.clamp_min(0)], labels) for labels in class_labels
        ]
        return [names[int(index)] for index in chosen], renumbered

    def encode_names(self, names: Sequence[str], *, templates: Sequence[str] | None = None) -> Tensor:
        """Each name (a random one of its comma-separated synonyms) in a random template → [K, 1, D] of unit norm."""
        templates = self.templates if templates is None else templates
        texts = []
        for name in names:
            synonyms = split_synonyms(name)
            synonym = synonyms[int(torch.randint(len(synonyms), ()))]
            template = templates[int(torch.randint(len(templates), ()))]
            texts.append(template.format(synonym))
        for text in texts:
            if text not in self._token_ids:
                self._token_ids[text] = self.tokenizer(text)["input_ids"]
        rows = [self._token_ids[text] for text in texts]
        longest = max(map(len, rows))
        end = self.tokenizer.eos_token_id
        ids = torch.tensor([row + [end] * (longest - len(row)) for row in rows], device=self.model.device)
        used = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        features = self.model.encode_text(ids, attention_mask=used)
        return F.normalize(features, dim=-1)[:, None]


def moved(batch: Batch, device: torch.device) -> Batch:
    """The batch with all tensors on `device`."""

    def optional(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    prompts = batch.prompts
    if prompts is not None:
        prompts = Prompts(
            points=optional(prompts.points),
            point_labels=optional(prompts.point_labels),
            boxes=optional(prompts.boxes),
            prompt_mask=prompts.prompt_mask.to(device, non_blocking=True),
            mask_labels=[masks.to(device, non_blocking=True) for masks in prompts.mask_labels],
        )
    return replace(
        batch,
        pixel_values=batch.pixel_values.to(device, non_blocking=True),
        pixel_mask=batch.pixel_mask.to(device, non_blocking=True),
        mask_labels=[masks.to(device, non_blocking=True) for masks in batch.mask_labels],
        class_labels=[labels.to(device, non_blocking=True) for labels in batch.class_labels],
        prompts=prompts,
    )


def with_small_masks(batch: Batch) -> Batch:
    """The batch with its masks at half the resolution, for the losses.

    They compare points on the stride-4 grid, at coordinates relative to the image, for every layer anew: a quarter of
    the pixels is a quarter of that memory, and still twice as fine as what is predicted.
    """
    small = [F.avg_pool2d(masks[:, None].float(), 2)[:, 0] >= 0.5 for masks in batch.mask_labels]
    return replace(batch, mask_labels=small)


def only_first(prompts: Prompts, count: int) -> Prompts:
    """The first `count` prompts of every image (the points, which come before the boxes)."""
    mask = prompts.prompt_mask[:, :count]
    real = mask.sum(1).tolist()
    return replace(
        prompts,
        boxes=None,
        prompt_mask=mask,
        mask_labels=[masks[:number] for masks, number in zip(prompts.mask_labels, real, strict=True)],
    )


def dense_targets(prompts: Prompts, *, size: Sequence[int]) -> Tensor:
    """Targets at a lower resolution, [B, N, h, w] bool; false where a prompt is padding."""
    mask = prompts.prompt_mask
    targets = torch.zeros((*mask.shape, *size), dtype=torch.bool, device=mask.device)
    real = torch.cat(list(prompts.mask_labels)).float()
    targets[mask] = F.interpolate(real[:, None], size=tuple(size), mode="area")[:, 0] >= 0.5
    return targets


def next_clicks(logits: Tensor, targets: Tensor, *, canvas: Sequence[int]) -> tuple[Tensor, Tensor]:
    """A corrective click into the error of each prediction, drawn at random with a preference for its inside.

    Args:
        logits, targets: [B, N, h, w].
        canvas: (H, W) in whose pixels the click is given.

    Returns:
        Points [B, N, 1, 2] xy and labels [B, N, 1]: 1 where the target was missed, 0 where the mask leaks. Without an
        error the click falls anywhere inside the target (or, when that is empty, outside of it).
    """
    height, width = logits.shape[-2:]
    error = (logits > 0) != targets
    wrong = error.flatten(0, 1).float()
    # A pixel whose surroundings are wrong too is likelier than one on a border; the square sharpens that.
    weights = wrong * F.avg_pool2d(wrong[:, None], 5, stride=1, padding=2)[:, 0].square()
    nowhere = ~error.flatten(2).any(-1).flatten()
    inside = targets.flatten(0, 1)
    anywhere = torch.where(inside.flatten(1).any(1)[:, None, None], inside, ~inside).float()
    weights = torch.where(nowhere[:, None, None], anywhere, weights)
    position = torch.multinomial(weights.flatten(1), 1).view(*logits.shape[:2], 1)
    label = targets.flatten(2).gather(2, position).long()
    x = (position % width + 0.5) * (canvas[1] / width)
    y = (position.div(width, rounding_mode="floor") + 0.5) * (canvas[0] / height)
    return torch.stack((x, y), dim=-1).to(logits.dtype), label
