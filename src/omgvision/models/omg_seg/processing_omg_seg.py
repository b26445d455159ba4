"""The processor: pictures, prompts in pixels of the picture, and class names.

Letters: B pictures, N prompts a picture, P points a prompt, K classes, S prototypes a class, D width of the CLIP space.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_base import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .image_processing_omg_seg import OmgSegImageProcessor, SegmentationOutputs
from .postprocessing_omg_seg import InstanceMasks, Size
from .vocabulary_omg_seg import TEMPLATES, VocabularyCache, encode_names, fingerprint

PADDING_LABEL = -10


class TextModel(Protocol):
    """What encoding class names needs of `OmgSegForUniversalSegmentation`."""

    @property
    def text_model(self) -> nn.Module | None: ...

    @property
    def device(self) -> torch.device: ...

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor: ...


class OmgSegProcessor(ProcessorMixin):
    """Everything that `OmgSegForUniversalSegmentation` takes, from what people have.

    `processor(images, input_points=…, input_boxes=…, input_masks=…)` gives `pixel_values`, `pixel_mask` and, when there
    are prompts, these scaled to the network input, padded to a rectangle, with `prompt_mask` [B,Q] over points, boxes,
    masks in this order.
    """

    def __init__(self, image_processor: OmgSegImageProcessor, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(image_processor, tokenizer)
        self._vocabulary_cache = VocabularyCache()

    @property
    def model_input_names(self) -> list[str]:
        return [
            *self.image_processor.model_input_names,
            "input_points",
            "input_point_labels",
            "input_boxes",
            "input_masks",
            "prompt_mask",
        ]

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any,
        *,
        input_points: Any = None,
        input_point_labels: Any = None,
        input_boxes: Any = None,
        input_masks: Any = None,
        return_tensors: str = "pt",
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepares pictures and prompts. Prompts come as one list a picture, whatever its length.

        Args:
            images: B pictures, see `OmgSegImageProcessor`.
            input_points: B lists of N prompts, each a list of P (x, y) in pixels of the picture as it was given.
            input_point_labels: the same lists with 1 (on the object) or 0 (not on it); None = all are on it.
            input_boxes: B lists of N boxes (x1, y1, x2, y2); what lies outside of the picture is cut off.
            input_masks: B arrays [N,H,W] of the picture's size, not zero on the region.
            return_tensors: as for tokenizers.
            **kwargs: for the image processor.

        Returns:
            `pixel_values` [B,3,H,W], `pixel_mask` [B,H,W]; where given, `input_points` [B,N,P,2] with
            `input_point_labels` [B,N,P] (-10 = padding), `input_boxes` [B,N,4], `input_masks` [B,N,H,W] bool, and
            `prompt_mask` [B,Q] bool.

        Raises:
            ValueError: a point outside of its picture, a box that is inverted or outside, lists that do not fit.
        """
        pictures = self.image_processor.to_tensors(images, input_data_format=kwargs.pop("input_data_format", None))
        originals: list[Size] = [(picture.shape[1], picture.shape[2]) for picture in pictures]
        features = self.image_processor(pictures, return_tensors="pt", **kwargs)
        pixel_mask: Tensor = features["pixel_mask"]
        resized = list(zip(pixel_mask.any(2).sum(1).tolist(), pixel_mask.any(1).sum(1).tolist(), strict=True))
        data: dict[str, Tensor] = dict(features)
        real: list[Tensor] = []
        if input_point_labels is not None and input_points is None:
            raise ValueError("input_point_labels: expected input_points with them, got none")
        if input_points is not None:
            points, labels = _points(input_points, input_point_labels, originals=originals, resized=resized)
            data |= {"input_points": points, "input_point_labels": labels}
            real.append((labels != PADDING_LABEL).any(2))
        if input_boxes is not None:
            data["input_boxes"], present = _boxes(input_boxes, originals=originals, resized=resized)
            real.append(present)
        if input_masks is not None:
            canvas: Size = (pixel_mask.shape[1], pixel_mask.shape[2])
            data["input_masks"], present = _masks(input_masks, originals=originals, resized=resized, canvas=canvas)
            real.append(present)
        if real:
            data["prompt_mask"] = torch.cat(real, 1)
        return BatchFeature(data=data, tensor_type=return_tensors)

    def encode_vocabulary(
        self,
        names: Sequence[str],
        *,
        model: TextModel,
        templates: Sequence[str] = TEMPLATES,
        batch_size: int = 32,
    ) -> Tensor:
        """Class names → unit embeddings [K,S,D] on the model's device, without gradients.

        Words encoded before with the same weights and templates come from memory. Thousands of names are fine:
        `batch_size` words are encoded at a time.

        Args:
            names: synonyms of one class separated by commas; they become its prototypes.
            model: with a text tower.
            templates: sentences with one `{}` for the word.

        Raises:
            ValueError: no names, an empty one, two that say the same, or a model without a text tower.
        """
        tower = model.text_model
        weights = fingerprint(tower.state_dict().items()) if tower is not None else ""
        # No inference tensors, whoever calls: what is remembered may be a constant of a later training step.
        with torch.inference_mode(False), torch.no_grad():
            return encode_names(
                names,
                encode_text=model.encode_text,
                tokenizer=self.tokenizer,
                device=model.device,
                templates=templates,
                batch_size=batch_size,
                cache=self._vocabulary_cache,
                weights=f"{weights}{model.device}",
            )

    def post_process_panoptic_segmentation(self, outputs: SegmentationOutputs, **kwargs: Any) -> list[dict[str, Any]]:
        """See `OmgSegImageProcessor.post_process_panoptic_segmentation`."""
        return self.image_processor.post_process_panoptic_segmentation(outputs, **kwargs)

    def post_process_semantic_segmentation(self, outputs: SegmentationOutputs, **kwargs: Any) -> list[Tensor]:
        """See `OmgSegImageProcessor.post_process_semantic_segmentation`."""
        return self.image_processor.post_process_semantic_segmentation(outputs, **kwargs)

    def post_process_instance_segmentation(self, outputs: SegmentationOutputs, **kwargs: Any) -> list[dict[str, Any]]:
        """See `OmgSegImageProcessor.post_process_instance_segmentation`."""
        return self.image_processor.post_process_instance_segmentation(outputs, **kwargs)

    def post_process_proposals(self, outputs: SegmentationOutputs, **kwargs: Any) -> list[InstanceMasks]:
        """See `OmgSegImageProcessor.post_process_proposals`."""
        return self.image_processor.post_process_proposals(outputs, **kwargs)

    def post_process_prompts(self, outputs: SegmentationOutputs, **kwargs: Any) -> list[Tensor]:
        """See `OmgSegImageProcessor.post_process_prompts`."""
        return self.image_processor.post_process_prompts(outputs, **kwargs)


def _per_picture(values: Any, name: str, *, count: int) -> list[Any]:
    lists = list(values)
    if len(lists) != count:
        raise ValueError(f"{name}: expected one list a picture ({count}), got {len(lists)}")
    return lists


def _numbers(values: Any, name: str, form: str, *, width: int, where: str) -> Tensor:
    """[n, width] finite numbers."""
    if isinstance(values, Tensor):
        values = values.tolist()
    try:
        numbers = torch.from_numpy(np.array(values, dtype=np.float32).reshape(-1, width))
    except (TypeError, ValueError):
        numbers = None
    if numbers is None or len(numbers) != len(values) or not numbers.isfinite().all():
        raise ValueError(f"{name}: expected a list of {form} {where}, got {values!r}")
    return numbers


def _pad(rows: list[list[Tensor]], *, empty: Tensor) -> Tensor:
    """[B,N,…] from ragged lists, filled up with `empty`."""
    count = max(map(len, rows))
    if count == 0:
        return empty.new_zeros(len(rows), 0, *empty.shape)
    return torch.stack([torch.stack([*row, *[empty] * (count - len(row))]) for row in rows])


def _present(rows: list[list[Tensor]]) -> Tensor:
    counts = torch.tensor([len(row) for row in rows])
    return torch.arange(int(counts.max())) < counts[:, None]


def _points(points: Any, labels: Any, *, originals: list[Size], resized: list[Size]) -> tuple[Tensor, Tensor]:
    """[B,N,P,2] and [B,N,P]."""
    pictures = _per_picture(points, "input_points", count=len(originals))
    if labels is None:
        picture_labels = [[[1] * len(prompt) for prompt in picture] for picture in pictures]
    else:
        picture_labels = _per_picture(labels, "input_point_labels", count=len(originals))
    scaled: list[list[Tensor]] = []
    checked: list[list[Tensor]] = []
    for index, (picture, its_labels) in enumerate(zip(pictures, picture_labels, strict=True)):
        height, width = originals[index]
        scaled.append([])
        checked.append([])
        if len(its_labels) != len(picture):
            raise ValueError(
                f"input_point_labels: expected {len(picture)} lists for picture {index}, got {len(its_labels)}"
            )
        for prompt, prompt_labels in zip(picture, its_labels, strict=True):
            xy = _numbers(prompt, "input_points", "(x, y)", width=2, where=f"a prompt for picture {index}")
            kinds = torch.as_tensor(prompt_labels, device="cpu").long()
            if len(xy) == 0 or kinds.shape != xy.shape[:1] or not ((kinds == 0) | (kinds == 1)).all():
                raise ValueError(
                    f"input_point_labels: expected 1 or 0 for each of {len(xy)} points (at least one) of a prompt for "
                    f"picture {index}, got {kinds.tolist()}"
                )
            for x, y in xy.tolist():
                if not (0 <= x <= width and 0 <= y <= height):
                    raise ValueError(
                        f"input_points: expected a point inside the picture of {width}x{height} pixels, "
                        f"got ({x:g}, {y:g}) for picture {index}"
                    )
            scaled[-1].append(xy * _scale(originals[index], resized[index]))
            checked[-1].append(kinds)
    most = max((len(prompt) for picture in scaled for prompt in picture), default=1)
    scaled = [[F.pad(xy, (0, 0, 0, most - len(xy))) for xy in picture] for picture in scaled]
    checked = [[F.pad(kinds, (0, most - len(kinds)), value=PADDING_LABEL) for kinds in picture] for picture in checked]
    return (
        _pad(scaled, empty=torch.zeros(most, 2)),
        _pad(checked, empty=torch.full((most,), PADDING_LABEL)),
    )


def _boxes(boxes: Any, *, originals: list[Size], resized: list[Size]) -> tuple[Tensor, Tensor]:
    """[B,N,4] and which are real [B,N]."""
    scaled: list[list[Tensor]] = []
    for index, picture in enumerate(_per_picture(boxes, "input_boxes", count=len(originals))):
        height, width = originals[index]
        xyxy = _numbers(picture, "input_boxes", "(x1, y1, x2, y2)", width=4, where=f"for picture {index}")
        for x1, y1, x2, y2 in xyxy.tolist():
            if not (x1 < x2 and y1 < y2 and x1 < width and y1 < height and x2 > 0 and y2 > 0):
                raise ValueError(
                    f"input_boxes: expected x1 < x2 and y1 < y2 on the picture of {width}x{height} pixels, "
                    f"got ({x1:g}, {y1:g}, {x2:g}, {y2:g}) for picture {index}"
                )
        limits = torch.tensor([width, height, width, height])
        inside = torch.minimum(xyxy.clamp(min=0), limits)
        scaled.append(list(inside * _scale(originals[index], resized[index]).repeat(2)))
    return _pad(scaled, empty=torch.zeros(4)), _present(scaled)


def _masks(masks: Any, *, originals: list[Size], resized: list[Size], canvas: Size) -> tuple[Tensor, Tensor]:
    """Regions [B,N,H,W] on the canvas and which are real [B,N]."""
    placed: list[list[Tensor]] = []
    for index, picture in enumerate(_per_picture(masks, "input_masks", count=len(originals))):
        regions = [_region(region) for region in picture]
        if any(tuple(region.shape) != originals[index] for region in regions):
            raise ValueError(
                f"input_masks: expected masks {list(originals[index])} (height, width) for picture {index}, "
                f"got {[list(region.shape) for region in regions]}"
            )
        height, width = resized[index]
        padding = (0, canvas[1] - width, 0, canvas[0] - height)
        resizes = [
            F.interpolate(region[None, None].float(), size=(height, width), mode="nearest") for region in regions
        ]
        placed.append([F.pad(region[0, 0], padding) > 0 for region in resizes])
    return _pad(placed, empty=torch.zeros(canvas, dtype=torch.bool)), _present(placed)


def _region(region: Any) -> Tensor:
    return (region.cpu() if isinstance(region, Tensor) else torch.from_numpy(np.array(region))) != 0


def _scale(original: Size, resized: Size) -> Tensor:
    """Factors of x and y."""
    return torch.tensor([resized[1] / original[1], resized[0] / original[0]])
