"""Clicks: a picture is encoded once, and every click is answered from that.

Letters: N prompts, P points of one object, h×w the stride-4 grid of the network input.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .errors import UserError
from .inputs import NamedImage
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput
from .models.omg_seg.postprocessing_omg_seg import MaskSizes, prompt_masks
from .models.omg_seg.prompt_encoder_omg_seg import PADDING_LABEL
from .prompts import ObjectPrompt, checked_points, checked_prompts
from .results import Result, SegmentLabel


def mask_sizes(encoded: OmgSegEncoderOutput, image: Image.Image) -> MaskSizes:
    """Where the mask logits of an encoded picture lie in it."""
    assert encoded.canvas_size is not None
    assert encoded.image_sizes is not None
    canvas_height, canvas_width = encoded.canvas_size.tolist()
    height, width = encoded.image_sizes[0].tolist()
    return MaskSizes(canvas=(canvas_height, canvas_width), image=(height, width), target=(image.height, image.width))


def prompt_logits(
    model: OmgSegForUniversalSegmentation,
    encoded: OmgSegEncoderOutput,
    objects: Sequence[tuple[ObjectPrompt, Tensor | None]],
    *,
    sizes: MaskSizes,
) -> Tensor:
    """What the model answers to prompts.

    Args:
        encoded: The picture.
        objects: Those with points first, then those with boxes, then those with regions; each with the logits [h, w]
            that it has so far, if any, which count for points only.
        sizes: The prompts are in pixels of `sizes.target`.

    Returns:
        Mask logits float32 [N, h, w].
    """
    device, dtype = model.device, model.dtype
    height, width = sizes.target
    scale = torch.tensor([sizes.image[1] / width, sizes.image[0] / height])
    inputs: dict[str, Tensor] = {}
    by_points = [(prompt, logits) for prompt, logits in objects if prompt.points]
    if by_points:
        longest = max(len(prompt.points) for prompt, _ in by_points)
        points = torch.zeros(1, len(by_points), longest, 2)
        labels = torch.full((1, len(by_points), longest), PADDING_LABEL)
        for row, (prompt, _) in enumerate(by_points):
            points[0, row, : len(prompt.points)] = torch.tensor(prompt.points) * scale
            labels[0, row, : len(prompt.labels)] = torch.tensor(prompt.labels)
        inputs |= {"input_points": points.to(device, dtype), "input_point_labels": labels.to(device)}
        known = [logits for _, logits in by_points if logits is not None]
        if known:
            blank = torch.full_like(known[0], math.nan)
            previous = torch.stack([blank if logits is None else logits for _, logits in by_points])
            inputs["previous_mask_logits"] = previous[None].to(device, dtype)
    boxes = [prompt.box for prompt, _ in objects if prompt.box is not None]
    if boxes:
        inputs["input_boxes"] = (torch.tensor(boxes) * scale.repeat(2))[None].to(device, dtype)
    regions = [_on_canvas(prompt.region, sizes) for prompt, _ in objects if prompt.region is not None]
    if regions:
        inputs["input_masks"] = torch.stack(regions)[None].to(device)
    output = model(encoder_outputs=encoded, **inputs)
    assert output.masks_queries_logits is not None
    return output.masks_queries_logits[0].float()


def _on_canvas(region: np.ndarray, sizes: MaskSizes) -> Tensor:
    """bool [H, W] of the picture → of the padded network input."""
    height, width = sizes.image
    small = F.interpolate(torch.from_numpy(region)[None, None].float(), size=(height, width), mode="nearest")[0, 0]
    if not small.any():  # a region so small that shrinking loses it
        row, column = (axis[0] for axis in region.nonzero())
        small[int(row * height / region.shape[0]), int(column * width / region.shape[1])] = 1
    canvas = torch.zeros(sizes.canvas, dtype=torch.bool)
    canvas[:height, :width] = small > 0
    return canvas


@dataclass(frozen=True, eq=False)
class _Answered:
    """An object and the mask logits [h, w] that the model answered with."""

    prompt: ObjectPrompt
    logits: Tensor


class ImageSession:
    """One encoded picture and the objects pointed at in it.

    `click` starts over with new objects, `refine` corrects one of them click by click, `undo` takes the last of either
    back, `reset` forgets everything but the picture. All prompts are in pixels of the picture.
    """

    def __init__(
        self,
        model: OmgSegForUniversalSegmentation,
        named: NamedImage,
        encoded: OmgSegEncoderOutput,
        *,
        model_name: str,
    ) -> None:
        self.image = named.image
        self.name = named.name
        self._model = model
        self._model_name = model_name
        self._encoded = encoded
        self._sizes = mask_sizes(encoded, named.image)
        self._history: list[tuple[_Answered, ...]] = []

    def click(
        self,
        points: Sequence[Any] | None = None,
        *,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> Result:
        """Segment what is pointed at.

        Args:
            points: [(x, y), …], all of one object; or [[(x, y), …], …], one list an object.
            labels: 1 for a point on the object, 0 for one beside it, nested as `points`; None = all 1.
            boxes: [(x0, y0, x1, y1), …], one an object; what lies outside of the picture is cut off.
            masks: regions of the picture's size, one an object: arrays [H, W] (non-zero = inside), PIL images or files.

        Returns:
            A result with one segment a prompt, in the order points, boxes, masks; without classes. The score is the
            mean mask probability inside the segment.

        Raises:
            UserError: no prompt, a point outside of the picture, an inverted box, a mask of another size.
        """
        objects = checked_prompts(self.image, points=points, labels=labels, boxes=boxes, masks=masks)
        if not objects:
            raise UserError("nothing to segment: give at least one point, box or mask")
        self._history.append(self._answer([(prompt, None) for prompt in objects]))
        return self.result()

    def refine(self, points: Sequence[Any], *, labels: Sequence[int] | None = None, segment_id: int = 1) -> Result:
        """Correct one object by more points, with its present mask as a hint.

        Args:
            points: [(x, y), …].
            labels: 1 = belongs to the object, 0 = does not; None = all 1.
            segment_id: the object's id in the last result.

        Returns:
            All objects, the corrected one included. How much a correction helps depends on the weights: those with
            `config.point_refinement` were trained for it, converted originals only look at the present mask first.
        """
        objects = self._objects
        if not objects:
            raise UserError("nothing to refine yet: call click first")
        if not 1 <= segment_id <= len(objects):
            raise UserError(f"there is no object {segment_id}: expected an id from 1 to {len(objects)}")
        new = checked_points(self.image, points, labels=labels)
        if len(new) != 1:
            raise UserError(f"refine takes the points of one object, got {len(new)}: expected [(x, y), …]")
        old = objects[segment_id - 1]
        prompt = ObjectPrompt(points=old.prompt.points + new[0].points, labels=old.prompt.labels + new[0].labels)
        refined = self._answer([(prompt, old.logits)])[0]
        self._history.append(tuple(refined if each is old else each for each in objects))
        return self.result()

    def undo(self) -> Result:
        """Take the last click or refinement back."""
        if not self._history:
            raise UserError("nothing to undo: no click was made")
        self._history.pop()
        return self.result()

    def reset(self) -> None:
        """Forget all objects; the picture stays encoded."""
        self._history.clear()

    @torch.inference_mode()
    def result(self) -> Result:
        """The objects as they are now."""
        objects = self._objects
        masks: Iterable[np.ndarray] = ()
        labels: list[SegmentLabel] = []
        if objects:
            logits = torch.stack([each.logits for each in objects])
            masks = (prompt_masks(row[None], sizes=self._sizes)[0].cpu().numpy() for row in logits)
            inside = logits > 0
            quality = (logits.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
            labels = [SegmentLabel(score=score) for score in quality.tolist()]
        prompts = [each.prompt for each in objects]
        return Result.from_masks(
            iter(masks),
            labels,
            task="click",
            image=self.image,
            name=self.name,
            model_name=self._model_name,
            points=[
                (x, y, label == 1)
                for prompt in prompts
                for (x, y), label in zip(prompt.points, prompt.labels, strict=True)
            ],
            boxes=[prompt.box for prompt in prompts if prompt.box is not None],
        )

    @property
    def _objects(self) -> tuple[_Answered, ...]:
        return self._history[-1] if self._history else ()

    @torch.inference_mode()
    def _answer(self, objects: Sequence[tuple[ObjectPrompt, Tensor | None]]) -> tuple[_Answered, ...]:
        logits = prompt_logits(self._model, self._encoded, objects, sizes=self._sizes)
        return tuple(_Answered(prompt, row) for (prompt, _), row in zip(objects, logits, strict=True))
