"""What is read off the queries of a picture or a frame: a task, its words, and the result that users hold.

Letters: Q queries, K classes, T frames, h×w the stride-4 grid, H×W the size of the picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .models.omg_seg.clips_omg_seg import QueryPrediction, join_frames
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput
from .models.omg_seg.postprocessing_omg_seg import (
    InstanceMasks,
    MaskSizes,
    SegmentInfo,
    instances,
    panoptic,
    proposals,
    semantic,
)
from .results import Category, Result, SegmentLabel
from .vocabulary import Vocabulary

SegmentTask = Literal["panoptic", "instance", "semantic", "everything"]
TASKS: tuple[SegmentTask, ...] = get_args(SegmentTask)

DEFAULT_THRESHOLDS: dict[SegmentTask, float] = {"panoptic": 0.0, "instance": 0.2, "semantic": 0.0, "everything": 0.25}
"""Scores from which segments are shown. For panoptic maps the overlap rule of the original does the selection."""


MAX_MASKS = 100
"""Instances of a picture at most, the best ones, as the original has it."""


@dataclass(frozen=True)
class Reading:
    """A task and what it needs, checked.

    Attributes:
        task: see `Predictor.segment`.
        vocabulary: None for task "everything".
        threshold: scores that a segment must exceed.
        clip_fusion: mix in CLIP's opinion of each mask.
        max_masks: so many instances or proposals at most, the best ones.
    """

    task: SegmentTask
    vocabulary: Vocabulary | None
    threshold: float
    clip_fusion: bool
    max_masks: int = MAX_MASKS

    @property
    def categories(self) -> tuple[Category, ...]:
        return () if self.vocabulary is None else self.vocabulary.categories

    @property
    def thing_mask(self) -> Tensor:
        """Bool [K]; empty without classes."""
        return torch.zeros(0, dtype=torch.bool) if self.vocabulary is None else self.vocabulary.thing_mask

    def predict(self, model: OmgSegForUniversalSegmentation, encoded: OmgSegEncoderOutput) -> QueryPrediction:
        """The object queries of one picture, in float32, classified by the words of this reading."""
        words: dict[str, Tensor] = {}
        if self.vocabulary is not None:
            words = {
                "class_embeddings": self.vocabulary.embeddings,
                "thing_mask": self.vocabulary.thing_mask,
                "seen_mask": self.vocabulary.seen_mask,
            }
        output = model(encoder_outputs=encoded, clip_fusion=self.clip_fusion, **words)
        fused = output.fused_class_logits
        return QueryPrediction(
            class_logits=_first(output.class_queries_logits if fused is None else fused),
            iou_logits=_first(output.iou_logits),
            mask_logits=_first(output.masks_queries_logits),
            query_features=_first(output.query_features),
        )

    def predict_clip(
        self, model: OmgSegForUniversalSegmentation, frames: Sequence[OmgSegEncoderOutput]
    ) -> QueryPrediction:
        """The same of T encoded frames of one size that are decoded together; mask logits are [Q, T, h, w]."""
        prediction = self.predict(model, join_frames(frames))
        masks = prediction.mask_logits
        return prediction.with_masks(masks.reshape(len(masks), len(frames), *masks.shape[-2:]))

    def result(self, prediction: QueryPrediction, *, sizes: MaskSizes, **about: Any) -> Result:
        """The result of a picture; `about`: what else `Result` needs to know (image, name, …)."""
        classes, masks = prediction.class_logits, prediction.mask_logits
        if self.task == "panoptic":
            return self.of_map(*self.panoptic(prediction, sizes=sizes), **about)
        if self.task == "semantic":
            return self.of_classes(semantic(classes, mask_logits=masks, sizes=sizes), **about)
        return self.of_masks(self.masks(prediction, sizes=sizes), **about)

    def panoptic(self, prediction: QueryPrediction, *, sizes: MaskSizes) -> tuple[Tensor, list[SegmentInfo]]:
        """See `postprocessing_omg_seg.panoptic`."""
        return panoptic(
            prediction.class_logits,
            mask_logits=prediction.mask_logits,
            thing_mask=self.thing_mask,
            sizes=sizes,
            threshold=self.threshold,
        )

    def masks(self, prediction: QueryPrediction, *, sizes: MaskSizes) -> InstanceMasks:
        """Instances, or without classes proposals."""
        if self.task == "everything":
            return proposals(
                prediction.iou_logits,
                mask_logits=prediction.mask_logits,
                sizes=sizes,
                max_proposals=self.max_masks,
                threshold=self.threshold,
            )
        return instances(
            prediction.class_logits,
            mask_logits=prediction.mask_logits,
            thing_mask=self.thing_mask,
            sizes=sizes,
            max_instances=self.max_masks,
            threshold=self.threshold,
        )

    def of_map(self, label_map: Tensor, segments: Sequence[SegmentInfo], **about: Any) -> Result:
        """The result of a panoptic map int [H, W]."""
        labels = {segment.id: SegmentLabel(label_id=segment.label_id, score=segment.score) for segment in segments}
        return Result.from_label_map(label_map.cpu().numpy(), labels, **self._about(about))

    def of_classes(self, classes: Tensor, **about: Any) -> Result:
        """The result of a class map int [H, W]; the id of a segment is its class + 1."""
        labels = {index + 1: SegmentLabel(label_id=index) for index in range(len(self.categories))}
        return Result.from_label_map(classes.cpu().numpy() + 1, labels, **self._about(about))

    def of_masks(self, found: InstanceMasks, *, ids: Sequence[int] | None = None, **about: Any) -> Result:
        """The result of masks that may overlap; `ids`: one each, None = 1, 2, …."""
        rows = zip(found.labels.tolist(), found.scores.tolist(), strict=True)
        labels = [SegmentLabel(label_id=None if label < 0 else label, score=score) for label, score in rows]
        masks = (mask.cpu().numpy() for mask in found.masks)
        return Result.from_masks(masks, labels, ids=ids, **self._about(about))

    def _about(self, about: dict[str, Any]) -> dict[str, Any]:
        return {"task": self.task, "categories": self.categories, **about}


def _first(value: Tensor | None) -> Tensor:
    assert value is not None
    return value[0].float()
