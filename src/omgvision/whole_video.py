"""Videos as a whole, as the original does it: clip by clip, queries matched between clips, classes averaged over all.

It looks at the end before it answers for the beginning: all frames and their mask logits (Q·h·w floats a frame) are
held. `VideoSession` answers at once and holds a bounded past.
"""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from .errors import UserError
from .models.omg_seg.clips_omg_seg import (
    QueryPrediction,
    clip_instances,
    clip_panoptic,
    follow_first_masks,
    fuse_whole,
    join_clips,
    split_frames,
)
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.postprocessing_omg_seg import MaskSizes, semantic
from .prompts import ObjectPrompt
from .reading import Reading, SegmentTask
from .results import Result, SegmentLabel
from .session import mask_sizes
from .video_inputs import Frame
from .video_session import Encode, about_frame

CLIP_FRAMES: dict[SegmentTask, int] = {"panoptic": 2, "semantic": 2, "instance": 5, "everything": 5}
"""Frames decoded together, as the original is evaluated on VIPSeg (panoptic) and YouTube-VIS (instances)."""

SHORT_CLIP_FRAMES, SHORT_VIDEO = 3, 15
"""The same for videos of at most 15 frames."""

FIRST_FRAME_PROPOSALS = 25
"""Proposals among which the objects of the first frame are looked for, as the original does on DAVIS."""


class WholeVideo:
    """The frames of one video, decoded.

    Attributes:
        prediction: the queries over all frames, see `join_clips`.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        *,
        model: OmgSegForUniversalSegmentation,
        encode: Encode,
        reading: Reading,
        model_name: str,
        name: str,
    ) -> None:
        """Reads and decodes everything.

        Args:
            frames: at least one, all of one size.
            model, encode: pictures → encoded pictures → queries.
            reading: what is asked for; "everything" for objects of the first frame.
            model_name, name: written into results.
        """
        self._frames = list(frames)
        self._reading, self._model_name, self._name = reading, model_name, name
        count = len(self._frames)
        length = SHORT_CLIP_FRAMES if count <= SHORT_VIDEO else CLIP_FRAMES[reading.task]
        sizes: list[MaskSizes] = []
        clip_features: list[Tensor] = []

        def clips() -> Iterator[QueryPrediction]:
            # CLIP's opinion is of the averaged classes: it is mixed in at the end.
            own = Reading(reading.task, reading.vocabulary, reading.threshold, clip_fusion=False)
            for part in split_frames(count, length=length):
                encoded = [encode(frame.image) for frame in self._frames[part]]
                sizes.append(mask_sizes(encoded[0], self._frames[0].image))
                for frame in encoded if reading.clip_fusion else ():
                    assert frame.clip_features is not None
                    clip_features.append(frame.clip_features)
                yield own.predict_clip(model, encoded)

        with torch.inference_mode():
            self.prediction = join_clips(clips())
            self._sizes = sizes[0]
            if reading.clip_fusion and reading.vocabulary is not None:
                self.prediction = fuse_whole(
                    model,
                    self.prediction,
                    clip_features=torch.cat(clip_features, dim=1),
                    canvas=self._sizes.canvas,
                    class_embeddings=reading.vocabulary.embeddings,
                    seen_mask=reading.vocabulary.seen_mask,
                )

    def results(self) -> Iterator[Result]:
        """One result a frame; the ids of segments are the same in all."""
        reading, whole, sizes = self._reading, self.prediction, self._sizes
        masks = whole.mask_logits
        if reading.task == "panoptic":
            found = clip_panoptic(
                whole.class_logits,
                mask_logits=masks,
                thing_mask=reading.thing_mask,
                sizes=sizes,
                threshold=reading.threshold,
            )
            for frame, (label_map, segments) in zip(self._frames, found, strict=True):
                yield reading.of_map(label_map, segments, **self._about(frame))
        elif reading.task == "instance":
            found = clip_instances(
                whole.class_logits,
                mask_logits=masks,
                thing_mask=reading.thing_mask,
                sizes=sizes,
                threshold=reading.threshold,
            )
            for frame, (ids, instances) in zip(self._frames, found, strict=True):
                yield reading.of_masks(instances, ids=ids.tolist(), **self._about(frame))
        else:
            for index, frame in enumerate(self._frames):
                now = whole.with_masks(masks[:, index])
                if reading.task == "semantic":
                    classes = semantic(now.class_logits, mask_logits=now.mask_logits, sizes=sizes)
                    yield reading.of_classes(classes, **self._about(frame))
                else:
                    proposals = reading.masks(now, sizes=sizes)
                    ids = (proposals.queries + 1).tolist()
                    yield reading.of_masks(proposals, ids=ids, **self._about(frame))

    def follow(self, masks: Mapping[int, np.ndarray]) -> Iterator[Result]:
        """Objects of the first frame, bool [H, W] by their number, in all frames; see `follow_first_masks`."""
        maps = follow_first_masks(
            self.prediction.iou_logits,
            mask_logits=self.prediction.mask_logits,
            first_masks=torch.from_numpy(np.stack(list(masks.values()))).to(self.prediction.mask_logits.device),
            ids=list(masks),
            sizes=self._sizes,
            max_proposals=FIRST_FRAME_PROPOSALS,
        )
        labels = {number: SegmentLabel() for number in masks}
        for frame, label_map in zip(self._frames, maps, strict=True):
            yield Result.from_label_map(label_map.cpu().numpy(), labels, task="objects", **self._about(frame))

    def _about(self, frame: Frame) -> dict:
        return about_frame(frame.image, frame.stamp, name=self._name, model_name=self._model_name)


def check_first_masks(prompts: Mapping[int, Mapping[int, ObjectPrompt]]) -> None:
    """Raise a `UserError` unless {frame: {object: prompt}} is what `WholeVideo.follow` can do."""
    if any(frame != 0 or prompt.region is None for frame, objects in prompts.items() for prompt in objects.values()):
        raise UserError("mode offline follows objects from masks in the first frame only: choose mode stream")
