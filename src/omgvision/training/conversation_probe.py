"""A quick look at OMG-LLaVA in training: held-out conversations with their right answers given (teacher forcing).

The numbers choose between runs; those to report come from answers that the model writes itself.

Letters: B conversations, M tokens, V words of the vocabulary, N masks, h×w the stride-4 grid.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from omgvision.data.conversation_batches import ConversationBatch
from omgvision.data.conversations import Conversation, ConversationDataset
from omgvision.models.omg_llava.merging_omg_llava import IGNORED
from omgvision.models.omg_llava.outputs_omg_llava import OmgLlavaOutput
from omgvision.training.llava_objective import ConversationObjective
from omgvision.training.probe import PICTURES
from omgvision.visualization import draw_segments, segment_color


class ConversationProbe:
    """Loss and accuracy of words, and masks of [SEG], on conversations that are drawn once.

    Args:
        datasets: Whose conversations are all measured.
        collate: Conversations → batch.
        batch_size: Conversations at once.
        seed: Of what is drawn: sentences, questions, regions.
    """

    def __init__(
        self,
        datasets: Sequence[ConversationDataset],
        *,
        collate: Callable[[Sequence[Conversation]], ConversationBatch],
        batch_size: int,
        seed: int = 0,
    ) -> None:
        drawn: list[Conversation] = []
        for number, dataset in enumerate(datasets):
            for index in range(len(dataset)):
                try:
                    drawn.append(dataset.draw(index, np.random.default_rng((seed, number, index))))
                except (ValueError, OSError):
                    continue  # training replaces, counts and names it
        # Those with a picture apart, and alike lengths together: less is filled up.
        drawn.sort(key=lambda one: (one.image is None, sum(len(turn.answer) for turn in one.turns)))
        self.batches = [collate(drawn[start : start + batch_size]) for start in range(0, len(drawn), batch_size)]

    def __call__(self, objective: nn.Module) -> dict[str, float]:
        """Objective in evaluation mode → `text` (loss a token, in nats), `word accuracy`, `mask IoU` (mean) and `cIoU`.

        The masks' are only there if the conversations have some.
        """
        assert isinstance(objective, ConversationObjective)
        loss = right = tokens = 0.0
        intersections, unions = [], []
        for batch in self.batches:
            output = answered(objective, batch)
            assert output.labels is not None and output.logits is not None
            labels, logits = output.labels[:, 1:], output.logits[:, :-1].float()
            kept = labels != IGNORED
            loss += float(F.cross_entropy(logits[kept], labels[kept], reduction="sum"))
            right += float((logits[kept].argmax(-1) == labels[kept]).sum())
            tokens += int(kept.sum())
            if output.mask_logits is not None:
                found = output.mask_logits > 0
                truth = at_stride_4(batch, found)
                intersections.append((found & truth).flatten(1).sum(1))
                unions.append((found | truth).flatten(1).sum(1))
        numbers = {"text": loss / max(tokens, 1), "word accuracy": right / max(tokens, 1)}
        if intersections:
            common, all_of = torch.cat(intersections).double(), torch.cat(unions).double()
            numbers["mask IoU"] = float((common / all_of.clamp_min(1)).mean())
            numbers["cIoU"] = float(common.sum() / all_of.sum().clamp_min(1))
        return numbers

    def pictures(self, objective: nn.Module) -> dict[str, Tensor]:
        """Some of the pictures with the masks that are meant, above those that are found."""
        assert isinstance(objective, ConversationObjective)
        shown: dict[str, Tensor] = {}
        for batch in self.batches:
            if len(shown) >= PICTURES or not sum(map(len, batch.mask_labels)):
                continue
            output = answered(objective, batch)
            assert output.mask_logits is not None and output.mask_rows is not None
            row = int(output.mask_rows[0])
            found = (output.mask_logits > 0)[output.mask_rows == row]
            pictured = (batch.inputs["input_ids"] == objective.model.config.image_token_id).any(1)
            pixels = batch.inputs["pixel_values"][int(pictured[:row].sum())]
            low, high = pixels.amin(), pixels.amax()
            grey_levels = ((pixels - low) / (high - low) * 255).to(torch.uint8).permute(1, 2, 0)
            image = Image.fromarray(grey_levels.cpu().numpy())
            large = F.interpolate(found[:, None].float().cpu(), size=pixels.shape[1:])[:, 0] > 0.5
            halves = [
                np.asarray(
                    draw_segments(image, list(masks.numpy()), colors=[segment_color(n) for n in range(len(masks))])
                )
                for masks in (batch.mask_labels[row], large)
            ]
            shown[batch.sample_ids[row]] = torch.from_numpy(np.concatenate(halves)).permute(2, 0, 1)
        return shown


def answered(objective: ConversationObjective, batch: ConversationBatch) -> OmgLlavaOutput:
    """What the model says to a batch whose answers it is given."""
    device = objective.model.device
    return objective.model(**{name: tensor.to(device) for name, tensor in batch.inputs.items()}, use_cache=False)


def at_stride_4(batch: ConversationBatch, found: Tensor) -> Tensor:
    """The masks of a batch, one after the other, as bool [N, h, w] of `found`'s size."""
    masks = torch.cat([masks for masks in batch.mask_labels if len(masks)]).to(found.device)
    return F.interpolate(masks[None].float(), size=found.shape[-2:], mode="nearest")[0].bool()
