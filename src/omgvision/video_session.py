"""Videos frame by frame or in small clips: what is kept of the past is bounded, whatever the length.

Letters: Q queries, N objects, h×w the stride-4 grid of the network input.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from torch import Tensor

from .errors import UserError
from .inputs import ImageSource, load_image
from .models.omg_seg.class_memory_omg_seg import ClassMemory
from .models.omg_seg.clips_omg_seg import QueryPrediction, renumber
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput
from .models.omg_seg.postprocessing_omg_seg import InstanceMasks, MaskSizes, exclusive_map, panoptic, semantic
from .models.omg_seg.tracking_omg_seg import TrackMemory
from .object_tracking import ObjectTracker
from .prompts import ObjectPrompt, checked_object
from .reading import Reading
from .results import FrameStamp, Result, SegmentLabel
from .session import mask_sizes
from .video_decoding import UNKNOWN_RATE
from .video_inputs import Frame

Encode = Callable[[Image.Image], OmgSegEncoderOutput]


class VideoSession:
    """One video; `feed` answers each frame at once, `feed_clip` several together. The ids of segments are tracks: they
    follow what they name.

    Memory and time of a frame do not depend on how many came before. Without prompts, objects are told apart by their
    queries: see `TrackMemory` for how, and the constants of its file for when a track begins, ends and is recognised.
    The classes of a track are voted on by the frames in which it was seen. Ids of "panoptic" and "everything" are
    given once for each object, stuff has one for each class; in "instance" an object that passes for two classes has
    two; in "semantic" the id is the class.

    For task "objects", `prompt` says what to follow and corrects it later; see `ObjectTracker`.

    Attributes:
        frames: how many were fed.
    """

    def __init__(
        self,
        model: OmgSegForUniversalSegmentation,
        encode: Encode,
        reading: Reading | None,
        *,
        model_name: str,
        name: str = "video",
    ) -> None:
        """Made by `Predictor.open_video`.

        Args:
            model, encode: pictures → encoded pictures → queries.
            reading: what is asked for; None = the objects that are pointed at.
            model_name, name: written into results.
        """
        self.frames = 0
        self._model, self._encode, self._reading = model, encode, reading
        self._model_name, self._name = model_name, name
        self._memory = TrackMemory()
        self._classes = ClassMemory()
        self._objects = ObjectTracker(model)
        self._ids = 0
        self._stuff: dict[int, int] = {}
        self._size: tuple[int, int] | None = None
        self._current: _Current | None = None

    def feed(self, frame: Frame | ImageSource, *, objects: Mapping[int, ObjectPrompt] | None = None) -> Result:
        """The next frame.

        Args:
            frame: a `Frame`, or a picture as `Predictor.segment` takes it; those come 25 a second.
            objects: for task "objects", what is pointed at in this frame; see `prompt`.

        Returns:
            The result of this frame, in which ids are tracks and `frame` is set.

        Raises:
            UserError: a frame of another size than the first, or faulty prompts; the session is as it was then.
        """
        (read,) = self._read([frame])
        checked = None if objects is None else self._checked(objects, read.image)
        with torch.inference_mode():
            current = self._see(read)
            if self._reading is None:
                return self._follow_objects(current, checked)
            return self._segment([current], self._reading)[0]

    def feed_clip(self, frames: Iterable[Frame | ImageSource]) -> list[Result]:
        """The next frames, decoded together: a query is one object with one class in all of them.

        They are held until the last of them is done. A clip of one frame is `feed`.

        Args:
            frames: at least one, each as of `feed`. Not for task "objects", which is followed frame by frame.

        Returns:
            One result a frame.

        Raises:
            UserError: no frame, one of another size than the first, or task "objects"; the session is as it was then.
        """
        if self._reading is None:
            raise UserError("task objects is followed frame by frame: feed one frame at a time")
        read = self._read(frames)
        if not read:
            raise UserError("a clip has at least one frame, got none")
        with torch.inference_mode():
            return self._segment([self._see(frame) for frame in read], self._reading)

    def _read(self, frames: Iterable[Frame | ImageSource]) -> list[Frame]:
        """The next frames, with numbers and times if they have none."""
        read: list[Frame] = []
        for number, frame in enumerate(frames, start=self.frames):
            if not isinstance(frame, Frame):
                frame = Frame(load_image(frame), number, float(number / UNKNOWN_RATE))
            image = frame.image
            expected = self._size or (read[0].image.size if read else image.size)
            if image.size != expected:
                raise UserError(
                    f"frame {frame.index} has {image.width}x{image.height} pixels, expected {expected[0]}x{expected[1]}"
                    " as in the first: frames of one video have one size, open a new session for another"
                )
            read.append(frame)
        return read

    def _see(self, frame: Frame) -> "_Current":
        encoded = self._encode(frame.image)
        self._current = _Current(encoded, mask_sizes(encoded, frame.image), frame.image, frame.stamp)
        self._size = frame.image.size
        self.frames += 1
        return self._current

    def prompt(self, objects: Mapping[int, ObjectPrompt]) -> Result:
        """Point at objects in the frame that was fed last; that frame's result is made anew.

        Args:
            objects: prompts in pixels of the frame, by numbers of your choice (from 1), which become the ids of the
                segments. New numbers are new objects; for known ones points correct the mask in this frame, a box or a
                region replaces it.

        Raises:
            UserError: no frame yet, a session for another task, or a faulty prompt.
        """
        if self._current is None:
            raise UserError("there is no frame to point at: feed one first")
        checked = self._checked(objects, self._current.image)
        with torch.inference_mode():
            return self._follow_objects(self._current, checked, again=True)

    # -------------------------------------------------------------------------------------------------- by themselves

    def _segment(self, clip: Sequence["_Current"], reading: Reading) -> list[Result]:
        prediction = reading.predict_clip(self._model, [each.encoded for each in clip])
        sizes = clip[0].sizes
        if reading.task == "everything":
            return self._proposals(clip, reading, prediction)
        visible = _unique(row for frame in prediction.frames() for row in self._visible(frame, reading, sizes))
        frames = self._memory.follow(prediction, visible=visible).frames()
        if reading.task == "panoptic":
            maps = [reading.panoptic(frame, sizes=sizes) for frame in frames]
            # Names are given in the order of a picture's: the largest first.
            orders = [sorted(segments, key=lambda segment: (-segment.area, segment.id)) for _, segments in maps]
            things = _unique(segment.query for order in orders for segment in order if segment.is_thing)
            tracks = self._memory.remember(_unique([*things, *visible]))
            results = []
            for current, (label_map, segments), order in zip(clip, maps, orders, strict=True):
                ids = {
                    segment.id: self._named(tracks[segment.query].ids, None)
                    if segment.is_thing
                    else self._named(self._stuff, segment.label_id)
                    for segment in order
                }
                named = renumber(label_map, segments, ids=[ids[segment.id] for segment in segments])
                results.append(reading.of_map(*named, **current.about(self)))
            return results
        if reading.task == "semantic":
            self._memory.remember(visible)
            # The frames of a clip have seen each other: only from clip to clip is anything to be recalled.
            past = self._classes.recall(clip[0].mask_features)
            results = []
            for current, frame in zip(clip, frames, strict=True):
                classes = semantic(frame.class_logits, mask_logits=frame.mask_logits, sizes=sizes, past=past)
                results.append(reading.of_classes(classes, **current.about(self)))
                past = None
            self._classes.remember(frames[-1], mask_features=clip[-1].mask_features)
            return results
        return self._masks(clip, reading, [reading.masks(frame, sizes=sizes) for frame in frames])

    def _proposals(self, clip: Sequence["_Current"], reading: Reading, prediction: QueryPrediction) -> list[Result]:
        shown = self._memory.follow_proposals(prediction, threshold=reading.threshold)
        reading = replace(reading, threshold=0.0)  # what is not to be shown has no objectness at all
        found = [reading.masks(frame, sizes=clip[0].sizes) for frame in shown.frames()]
        return self._masks(clip, reading, found)

    def _masks(self, clip: Sequence["_Current"], reading: Reading, found: Sequence[InstanceMasks]) -> list[Result]:
        tracks = self._memory.remember(_unique(query for each in found for query in each.queries.tolist()))
        results = []
        for current, each in zip(clip, found, strict=True):
            numbers, named = [], set[int]()
            for query, label in zip(each.queries.tolist(), each.labels.tolist(), strict=True):
                # The best class of a query comes first and has its name.
                numbers.append(self._named(tracks[query].ids, label if query in named else None))
                named.add(query)
            results.append(reading.of_masks(each, ids=numbers, **current.about(self)))
        return results

    @staticmethod
    def _visible(prediction: QueryPrediction, reading: Reading, sizes: MaskSizes) -> list[int]:
        """Queries that this frame alone would show, decided on the grid of the masks."""
        low = (
            -(-cells * image // canvas)
            for cells, image, canvas in zip(prediction.mask_logits.shape[-2:], sizes.image, sizes.canvas, strict=True)
        )
        grid = MaskSizes(canvas=sizes.canvas, image=sizes.image, target=(next(low), next(low)))
        if reading.task == "instance":
            return _unique(reading.masks(prediction, sizes=grid).queries.tolist())
        _, segments = panoptic(
            prediction.class_logits,
            mask_logits=prediction.mask_logits,
            thing_mask=torch.ones_like(reading.thing_mask),  # so that queries of one kind of stuff are not merged
            sizes=grid,
            threshold=reading.threshold,
        )
        return [segment.query for segment in segments]

    def _named(self, ids: dict, key: int | None) -> int:
        if key not in ids:
            self._ids += 1
            ids[key] = self._ids
        return ids[key]

    # --------------------------------------------------------------------------------------------------------- objects

    def _checked(self, objects: Mapping[int, ObjectPrompt], image: Image.Image) -> dict[int, ObjectPrompt]:
        if self._reading is not None:
            raise UserError(
                f"a session for task {self._reading.task} takes no prompts: open one for task objects to point at them"
            )
        if not objects:
            raise UserError("nothing to follow: give at least one point, box or mask")
        return {number: checked_object(number, prompt, image) for number, prompt in objects.items()}

    def _follow_objects(
        self, current: "_Current", prompts: Mapping[int, ObjectPrompt] | None, *, again: bool = False
    ) -> Result:
        logits: Tensor | None = None
        if self._objects.object_ids and not again:
            logits = self._objects.propagate(current.encoded)
        if prompts is not None:
            size = (current.image.height, current.image.width)
            logits = self._objects.prompt(current.encoded, prompts, size=size)
        return object_result(
            logits,
            ids=self._objects.object_ids,
            prompts=list((prompts or {}).values()),
            sizes=current.sizes,
            **current.about(self),
        )


@dataclass(frozen=True)
class _Current:
    """The frame that was fed last."""

    encoded: OmgSegEncoderOutput
    sizes: MaskSizes
    image: Image.Image
    stamp: FrameStamp

    @property
    def mask_features(self) -> Tensor:
        """[C, h, w]."""
        assert self.encoded.mask_features is not None
        return self.encoded.mask_features[0, :, 0]

    def about(self, session: VideoSession) -> dict:
        return about_frame(self.image, self.stamp, name=session._name, model_name=session._model_name)


def _unique(rows: Iterable[int]) -> list[int]:
    """Each once, in the order in which they come."""
    return list(dict.fromkeys(rows))


def about_frame(image: Image.Image, stamp: FrameStamp, *, name: str, model_name: str) -> dict:
    """What a `Result` needs to know of its frame."""
    return {
        "image": image,
        "name": name,
        "model_name": model_name,
        "stem": stamp.name or f"{stamp.index:05d}",
        "frame": stamp,
    }


def object_result(
    logits: Tensor | None, *, ids: Sequence[int], prompts: Sequence[ObjectPrompt], sizes: MaskSizes, **about
) -> Result:
    """The result of objects that exclude each other.

    Args:
        logits: [N, h, w]; None without objects. The largest one over 0 wins a pixel.
        ids: of the objects.
        prompts: those made on this frame, to be drawn.
    """
    label_map = torch.zeros(sizes.target, dtype=torch.int32)
    labels: dict[int, SegmentLabel] = {}
    if logits is not None:
        numbers = torch.tensor([0, *ids], dtype=torch.int32)
        label_map = numbers[exclusive_map(logits, sizes=sizes).cpu().long()]
        inside = logits > 0
        quality = (logits.sigmoid() * inside).sum((1, 2)) / inside.sum((1, 2)).clamp_min(1)
        labels = {number: SegmentLabel(score=score) for number, score in zip(ids, quality.tolist(), strict=True)}
    points = [
        (x, y, label == 1) for prompt in prompts for (x, y), label in zip(prompt.points, prompt.labels, strict=True)
    ]
    boxes = [prompt.box for prompt in prompts if prompt.box is not None]
    return Result.from_label_map(label_map.numpy(), labels, task="objects", points=points, boxes=boxes, **about)
