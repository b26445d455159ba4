"""What a training step asks of the model: its object queries and its prompt queries, on features encoded once.

A step may have several batches, one after the other or in several processes. Every loss is a sum over masks, pixels or
prompts divided by their number. Divided by the number in the whole step, the losses of the batches add up to those of
one large batch, and their gradients too; for that the counts of all batches come first (`normalizers`), and what is
drawn at random for a sample follows from a seed of its own.

Letters: B images or clips, T frames, N prompts, P points of one prompt, K classes, D width of the CLIP space, H×W
canvas, h×w its stride-4 grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omgvision.data.prompts import first_frames, random_points, sample_box_prompts, sample_prompts
from omgvision.data.sample import NO_POINT, Batch, Prompts
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.points_omg_seg import PointSource
from omgvision.training.guidance import WordGuidance
from omgvision.training.recipe import ObjectiveSettings
from omgvision.training.words import Embed

if TYPE_CHECKING:
    from omgvision.models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput


POINTS_OF_MASK = 6
"""Points that stand for a known mask: they mark its extent, and the features under them its parts."""

KNOWN_LOGIT = 8.0
"""Of pixels in and, negative, outside a known mask."""


class SegmentationObjective(nn.Module):
    """Batch → losses.

    Args:
        model: To be trained.
        embed: The class names of a batch → their embeddings, in every step anew: by a text tower that learns with the
            masks, or by one that does not (`training.words`).
        settings: See `ObjectiveSettings`.
        guidance: Teaches the text tower words beyond the classes; None leaves that out.
        points: Where the mask losses look; None = random points as the model's configuration has it.
        half_masks: Compare with masks at half the resolution, see `with_small_masks`; the original takes them whole.
    """

    averaged_normalizers = ("masks",)

    def __init__(
        self,
        model: OmgSegForUniversalSegmentation,
        *,
        embed: Embed,
        settings: ObjectiveSettings,
        guidance: WordGuidance | None = None,
        points: PointSource | None = None,
        half_masks: bool = True,
    ):
        super().__init__()
        self.model, self.embed, self.settings = model, embed, settings
        self.guidance, self.points, self.half_masks = guidance, points, half_masks

    @torch.no_grad()
    def normalizers(self, batch: Batch) -> dict[str, Tensor]:
        """What this batch adds to the numbers that the losses of its step are divided by, from its labels alone.

        Returns:
            Float64 scalars, always of the same names: those of `count_targets`, which the object losses use, `prompts`,
            `clicks` (the prompts that are corrected) and `batches` (for losses that are means already).
        """
        batch = self.with_targets(batch)
        canvas = (batch.pixel_values.shape[-2], batch.pixel_values.shape[-1])
        counts = self.model.loss_normalizers(batch.mask_labels, batch.class_labels, canvas=canvas)
        if not self.trains_objects(batch):
            counts = {name: torch.zeros_like(count) for name, count in counts.items()}
        if batch.prompts is None:
            images = sum(bool(first_frames(masks).any()) for masks in batch.mask_labels)
            clicks, prompts = images * self.settings.points, images * (self.settings.points + self.settings.boxes)
        else:
            clicks, prompts = (int(some.prompt_mask.sum()) for some in (only_clicks(batch.prompts), batch.prompts))
        own = {"clicks": clicks, "prompts": prompts, "batches": 1}
        return counts | {name: torch.tensor(count, dtype=torch.float64) for name, count in own.items()}

    def with_targets(self, batch: Batch) -> Batch:
        """The batch with its masks as the losses compare with them."""
        return with_small_masks(batch) if self.half_masks else batch

    def trains_objects(self, batch: Batch) -> bool:
        """False for a batch that brings its prompts, or has no classes, and for data sets that train prompts alone."""
        return batch.prompts is None and bool(batch.names) and batch.dataset not in self.settings.prompts_only

    def forward(
        self, batch: Batch, normalizers: Mapping[str, Tensor] | None = None, seeds: Sequence[int] | None = None
    ) -> dict[str, Tensor]:
        """The losses of one batch: `loss`, their weighted sum, and its parts.

        Args:
            batch: Images or clips. Prompts on a clip are on its first frame.
            normalizers: The sums of `normalizers` over all batches of the step: the losses of the step are the sums
                over its batches then. For what is missing this batch's own numbers are taken, as in the original, which
                shares only the number of masks (the mean over batches is the step's loss then).
            seeds: One for each sample, which everything follows from that is drawn for it (points, pixels, prompts);
                None draws them. What is drawn for the batch (names, templates, words) comes from torch's own generator.
        """
        device = self.model.device
        normalizers = normalizers or {}
        batch = self.with_targets(moved(batch, device))
        if seeds is None:
            seeds = torch.randint(2**62, (len(batch.mask_labels),)).tolist()
        generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]
        encoded = self.model.encode(batch.pixel_values, pixel_mask=batch.pixel_mask)
        losses: dict[str, Tensor] = {}
        if self.trains_objects(batch):
            losses |= self.object_losses(encoded, batch, normalizers, generators)
        if self.settings.prompt_weight:
            losses |= self.prompt_losses(encoded, batch, normalizers, generators)
        if self.guidance is not None:
            words = self.guidance(lambda words: self.embed(words)[:, 0])
            losses["words"] = words / normalizers.get("batches", torch.ones(())).to(words)
        weights = {
            "objects": 1.0,
            "prompts": self.settings.prompt_weight,
            "refined": self.settings.prompt_weight,
            "followed": self.settings.prompt_weight,
            "words": self.settings.word_weight,
        }
        # A batch may have neither; its loss must still reach the weights for the backward pass.
        assert encoded.mask_features is not None
        total = encoded.mask_features.sum() * 0
        for name, weight in weights.items():
            if name in losses:
                total = total + weight * losses[name]
        return {"loss": total, **losses}

    def object_losses(
        self,
        encoded: "OmgSegEncoderOutput",
        batch: Batch,
        normalizers: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """Matching of all object queries with the segments of the batch, in the vocabulary of its dataset."""
        names, class_labels = self.choose_classes(batch.names, batch.class_labels)
        output = self.model(
            encoder_outputs=encoded,
            class_embeddings=self.embed(names),
            mask_labels=batch.mask_labels,
            class_labels=class_labels,
            loss_points=self.points,
            generators=generators,
            normalizers=normalizers,
        )
        parts = {f"objects/{name}": loss for name, loss in output.loss_dict.items() if "." not in name}
        return {"objects": output.loss, **parts}

    def draw_prompts(
        self, mask_labels: Sequence[Tensor], *, canvas: Sequence[int], generators: Sequence[torch.Generator]
    ) -> Prompts:
        """Clicks and boxes on objects of each image or clip, in canvas pixels; every one has the clicks first."""
        drawn, targets = [], []
        for masks, generator in zip(mask_labels, generators, strict=True):
            clicks = sample_prompts([masks], number=self.settings.points, generator=generator)
            boxes = sample_box_prompts([masks], number=self.settings.boxes, generator=generator)
            real = torch.cat((clicks.prompt_mask, boxes.prompt_mask), dim=1)
            drawn.append((clicks.points, clicks.point_labels, boxes.boxes, real))
            targets.append(torch.cat((clicks.mask_labels[0], boxes.mask_labels[0])))
        points, labels, boxes, real = map(torch.cat, zip(*drawn, strict=True))
        height, width = mask_labels[0].shape[-2:]
        scale = points.new_tensor((canvas[1] / width, canvas[0] / height))
        return Prompts(
            points=points * scale,
            point_labels=labels,
            boxes=boxes * scale.repeat(2),
            prompt_mask=real,
            mask_labels=targets,
        )

    def prompt_losses(
        self,
        encoded: "OmgSegEncoderOutput",
        batch: Batch,
        normalizers: Mapping[str, Tensor],
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        """Masks of the prompts; and of the clicks among them again, nothing without any.

        In images they are corrected, click by click; in clips the same objects are followed from their masks.

        The original divides by the prompts of one image, so that its loss grows with the batch; here it is a mean.
        """
        canvas = batch.pixel_values.shape[-2:]
        prompts = batch.prompts
        if prompts is None and not (self.settings.points or self.settings.boxes):
            return {}
        if prompts is None:
            prompts = self.draw_prompts(batch.mask_labels, canvas=canvas, generators=generators)
        points, labels = prompts.points, prompts.point_labels
        output = self.model(
            encoder_outputs=encoded,
            input_points=points,
            input_point_labels=labels,
            input_boxes=prompts.boxes,
            prompt_mask=prompts.prompt_mask,
            mask_labels=prompts.mask_labels,
            loss_points=self.points,
            generators=generators,
            normalizers={"prompts": normalizers.get("prompts", prompts.prompt_mask.sum())},
        )
        losses = {"prompts": output.loss}
        clicked = only_clicks(prompts)
        if points is None or labels is None or not self.settings.refinement_rounds:
            return losses
        total = {"prompts": normalizers.get("clicks", clicked.prompt_mask.sum())}
        if is_clip(batch):
            losses["followed"] = self.followed_loss(encoded, clicked, total, canvas, generators)
            return losses
        targets = dense_targets(clicked, size=output.masks_queries_logits.shape[-2:])
        refined = []
        for _ in range(self.settings.refinement_rounds):
            previous = output.masks_queries_logits[:, : points.shape[1]].detach()
            click, label = next_clicks(previous, targets, canvas=canvas, generators=generators)
            points = torch.cat((points, click), dim=2)
            labels = torch.cat((labels, label), dim=2)
            output = self.model(
                encoder_outputs=encoded,
                input_points=points,
                input_point_labels=labels,
                prompt_mask=clicked.prompt_mask,
                previous_mask_logits=previous,
                mask_labels=clicked.mask_labels,
                loss_points=self.points,
                generators=generators,
                normalizers=total,
            )
            refined.append(output.loss)
        losses["refined"] = torch.stack(refined).mean()
        return losses

    def followed_loss(
        self,
        encoded: "OmgSegEncoderOutput",
        clicked: Prompts,
        total: Mapping[str, Tensor],
        canvas: Sequence[int],
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Masks in all frames of objects whose mask in the first frame is known, by points all over it."""
        assert clicked.points is not None and encoded.mask_features is not None
        grid = encoded.mask_features.shape[-2:]
        shown = replace(clicked, mask_labels=[first_frames(masks) for masks in clicked.mask_labels])
        known = (dense_targets(shown, size=grid).float() * 2 - 1) * KNOWN_LOGIT
        points = clicked.points.new_zeros((*clicked.prompt_mask.shape, POINTS_OF_MASK, 2))
        for image, (masks, generator) in enumerate(zip(shown.mask_labels, generators, strict=True)):
            if len(masks):
                scale = points.new_tensor((canvas[1] / masks.shape[-1], canvas[0] / masks.shape[-2]))
                drawn = [random_points(masks, generator=generator) for _ in range(POINTS_OF_MASK)]
                points[image, clicked.prompt_mask[image]] = torch.stack(drawn, dim=1) * scale
        labels = torch.where(clicked.prompt_mask, 1, NO_POINT)[..., None].expand(*points.shape[:-1])
        output = self.model(
            encoder_outputs=encoded,
            input_points=points,
            input_point_labels=labels,
            prompt_mask=clicked.prompt_mask,
            previous_mask_logits=known,
            mask_labels=clicked.mask_labels,
            loss_points=self.points,
            generators=generators,
            normalizers=total,
        )
        return output.loss

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


def is_clip(batch: Batch) -> bool:
    return batch.pixel_values.dim() == 5


def with_small_masks(batch: Batch) -> Batch:
    """The batch with its masks at half the resolution, for the losses.

    They compare points on the stride-4 grid, at coordinates relative to the image, for every layer anew: a quarter of
    the pixels is a quarter of that memory, and still twice as fine as what is predicted.
    """
    return replace(batch, mask_labels=[halved(masks) for masks in batch.mask_labels])


def halved(masks: Tensor) -> Tensor:
    """Bool [..., H, W] → bool [..., H/2, W/2], true where at least half of four pixels are."""
    planes = masks.flatten(0, -3)[:, None].float()
    return (F.avg_pool2d(planes, 2) >= 0.5).view(*masks.shape[:-2], masks.shape[-2] // 2, masks.shape[-1] // 2)


def only_clicks(prompts: Prompts) -> Prompts:
    """The clicks of every image, which come before its boxes."""
    mask = prompts.prompt_mask[:, : 0 if prompts.points is None else prompts.points.shape[1]]
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


def next_clicks(
    logits: Tensor, targets: Tensor, *, canvas: Sequence[int], generators: Sequence[torch.Generator]
) -> tuple[Tensor, Tensor]:
    """A corrective click into the error of each prediction, drawn at random with a preference for its inside.

    Args:
        logits, targets: [B, N, h, w].
        canvas: (H, W) in whose pixels the click is given.
        generators: One for each of the B images.

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
    by_image = zip(weights.flatten(1).split(logits.shape[1]), generators, strict=True)
    position = torch.stack([torch.multinomial(image, 1, generator=generator) for image, generator in by_image])
    label = targets.flatten(2).gather(2, position).long()
    x = (position % width + 0.5) * (canvas[1] / width)
    y = (position.div(width, rounding_mode="floor") + 0.5) * (canvas[0] / height)
    return torch.stack((x, y), dim=-1).to(logits.dtype), label
