"""What a training step asks of OMG-LLaVA: words, and the masks that they point at.

As in `training.objective`, every loss is a sum divided by the number of its summands in the whole step, so that the
losses of a step's batches add up to those of one large batch, and what is drawn for a sample follows from its seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from omgvision.data.conversation_batches import ConversationBatch
from omgvision.models.omg_llava.grounding_omg_llava import LossPoints, UncertainPoints
from omgvision.models.omg_llava.merging_omg_llava import IGNORED
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration


@dataclass(frozen=True)
class SeededPoints:
    """Points of each sample's masks from a generator of its own, whichever samples come with it.

    Attributes:
        points: how they are chosen.
        seeds: one a sample.
        counts: masks of each sample.
    """

    points: LossPoints
    seeds: Sequence[int]
    counts: Sequence[int]

    def __call__(self, layer: int, logits: Tensor) -> Tensor:
        chosen = []
        for seed, some in zip(self.seeds, logits.split(list(self.counts)), strict=True):
            if len(some):
                with torch.random.fork_rng():
                    torch.manual_seed(seed + layer)
                    chosen.append(self.points(layer, some))
        return torch.cat(chosen)


class ConversationObjective(nn.Module):
    """Batch → losses; their weights are in the model's configuration.

    Args:
        model: To be trained; what is not to be has no gradient.
    """

    averaged_normalizers: tuple[str, ...] = ("batches",)
    """Every batch is divided by its own numbers in the original: processes share none that would not be 1."""

    def __init__(self, model: OmgLlavaForConditionalGeneration):
        super().__init__()
        self.model = model

    @torch.no_grad()
    def normalizers(self, batch: ConversationBatch) -> dict[str, Tensor]:
        """What this batch adds to the numbers that the losses of its step are divided by.

        Returns:
            Float64 scalars: `tokens` that are to be predicted, `masks`, `pictures`, and `batches`, which is 1.
        """
        pixels = batch.inputs.get("pixel_values")
        counts = {
            "tokens": int((batch.inputs["labels"][:, 1:] != IGNORED).sum()),
            "masks": sum(map(len, batch.mask_labels)),
            "pictures": 0 if pixels is None else len(pixels),
            "batches": 1,
        }
        return {name: torch.tensor(count, dtype=torch.float64) for name, count in counts.items()}

    def forward(
        self,
        batch: ConversationBatch,
        normalizers: Mapping[str, Tensor] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of one batch: `loss`, their sum, and its parts `text`, `mask`, `dice` and maybe `projection`.

        Args:
            batch: Conversations.
            normalizers: The sums of `normalizers` over all batches of the step; for what is missing this batch's own.
            seeds: One for each conversation, which the points of its masks follow from; None draws them.
        """
        model, device = self.model, self.model.device
        own = self.normalizers(batch)
        # A batch or step without words or masks has losses of 0, not of 0 / 0.
        total = {name: value.to(device).float().clamp_min(1) for name, value in (own | dict(normalizers or {})).items()}
        points: LossPoints = UncertainPoints(
            model.config.num_loss_points, model.config.oversample_ratio, model.config.importance_sample_ratio
        )
        if seeds is not None:
            points = SeededPoints(points, seeds, [len(masks) for masks in batch.mask_labels])
        output = model(
            **{name: tensor.to(device, non_blocking=True) for name, tensor in batch.inputs.items()},
            mask_labels=[masks.to(device, non_blocking=True) for masks in batch.mask_labels],
            loss_points=points,
            normalizers={name: total[name] for name in ("tokens", "masks")},
            use_cache=False,
        )
        losses = {name.removeprefix("loss_"): loss for name, loss in output.loss_dict.items()}
        if "projection" in losses:  # a mean over this batch's pictures
            losses["projection"] = losses["projection"] * own["pictures"].to(total["pictures"]) / total["pictures"]
        return {"loss": torch.stack([loss.float() for loss in losses.values()]).sum(), **losses}
