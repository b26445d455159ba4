"""What users hold: pictures in, results out. Thin: processor → model → post-processing."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .chat import Answer, Conversation, MaskListener, PhraseListener, TextListener
from .chat_tasks import ChatTask
from .errors import UserError
from .inputs import ImageList, ImageSource, NamedImage, load_images
from .llava import ChatModel
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput
from .models.omg_seg.processing_omg_seg import OmgSegProcessor
from .prompts import ObjectPrompt, video_prompts
from .reading import DEFAULT_THRESHOLDS, MAX_MASKS, TASKS, Reading, SegmentTask
from .results import Result
from .session import ImageSession, mask_sizes
from .video_inputs import VideoInput, VideoSource, open_video
from .video_session import VideoSession
from .vocabulary import Vocabulary, read_vocabulary, stored_names
from .whole_video import WholeVideo, check_first_masks

VideoTask = Literal["panoptic", "instance", "semantic", "everything", "objects"]
VideoMode = Literal["stream", "offline"]
VIDEO_TASKS: tuple[VideoTask, ...] = get_args(VideoTask)
VIDEO_MODES: tuple[VideoMode, ...] = get_args(VideoMode)

CROWD = 1000
"""Instances of a picture at most, of models with a grid of queries."""


class ResultStream:
    """The results of several pictures, computed one at a time when they are asked for; nothing is kept."""

    def __init__(self, images: ImageList, predict: "_Predict") -> None:
        self._images = images
        self._predict = predict

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Result:
        return self._predict(self._images[index], self._images.names[index])

    def __iter__(self) -> Iterator[Result]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """What the pictures are called, without repetitions; results are saved under these names."""
        return self._images.names


@dataclass(frozen=True)
class _Predict:
    """The arguments of one `segment` call, checked."""

    predictor: "Predictor"
    reading: Reading

    def __call__(self, named: NamedImage, stem: str) -> Result:
        return self.predictor._segment(named, stem, self.reading)


class Predictor:
    """A model and its processor, ready for pictures.

    Attributes:
        model: in evaluation mode.
        processor: turns pictures into tensors and class names into embeddings.
        name: what the weights are called; written into results.

    Args:
        load_chat: gives the model that `chat` asks when it is first needed; None = this one does not chat.
    """

    def __init__(
        self,
        model: OmgSegForUniversalSegmentation,
        processor: OmgSegProcessor,
        *,
        name: str = "omg-seg",
        load_chat: Callable[[], ChatModel] | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self._load_chat = load_chat

    def __repr__(self) -> str:
        return f"Predictor({self.name}, {len(self.classes)} classes, {self.device}, {self.model.dtype})"

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def classes(self) -> list[str]:
        """Names of the vocabulary that is stored with the weights."""
        return stored_names(self.model)

    # -------------------------------------------------------------------------------------------------------- segment

    @overload
    def segment(
        self,
        source: Image.Image | np.ndarray | Tensor,
        *,
        task: SegmentTask = "panoptic",
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
    ) -> Result: ...

    @overload
    def segment(
        self,
        source: str | os.PathLike[str],
        *,
        task: SegmentTask = "panoptic",
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
    ) -> Any: ...

    @overload
    def segment(
        self,
        source: Iterable[ImageSource],
        *,
        task: SegmentTask = "panoptic",
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
    ) -> ResultStream: ...

    def segment(
        self,
        source: ImageSource | Iterable[ImageSource],
        *,
        task: SegmentTask = "panoptic",
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
    ) -> Result | ResultStream:
        """Segment a picture, or many.

        Args:
            source: one picture (file, http(s) address, PIL image, array, tensor) or several (folder, pattern, list);
                see `omgvision.inputs.load_images`.
            task: "panoptic": every pixel to one segment, things counted; "instance": the countable things, masks may
                overlap; "semantic": a class for every pixel; "everything": masks of all that looks like an object,
                without classes.
            classes: words of your choice, synonyms of one class separated by commas ("sofa, couch"); or the name of a
                bundled list: "coco", "coco-things", "camvid"; None = the vocabulary stored with the weights. They are
                encoded once and not stored in the model.
            things: which of `classes` are countable. None = all but those that COCO or CamVid count as stuff (sky,
                grass, road, …).
            clip_fusion: mix in CLIP's own opinion of each mask, as the original does for classes outside of its
                training vocabulary. Needs CLIP weights in the backbone.
            threshold: scores that a segment must exceed, 0 to 1; None = `DEFAULT_THRESHOLDS[task]`. Not for "semantic".

        Returns:
            A `Result` for one picture; for several a `ResultStream`, which has a length and computes each result when
            it is reached.

        Raises:
            UserError: anything above is not as described.
        """
        reading = self._reading(task, classes, things=things, clip_fusion=clip_fusion, threshold=threshold)
        images = load_images(source)
        predict = _Predict(self, reading)
        return predict(images[0], "") if images.single else ResultStream(images, predict)

    @torch.inference_mode()
    def _segment(self, named: NamedImage, stem: str, reading: Reading) -> Result:
        encoded = self._encode(named.image)
        return reading.result(
            reading.predict(self.model, encoded),
            sizes=mask_sizes(encoded, named.image),
            image=named.image,
            name=named.name,
            model_name=self.name,
            stem=stem,
        )

    def _reading(
        self,
        task: SegmentTask,
        classes: Sequence[str] | str | None,
        *,
        things: Sequence[str] | None,
        clip_fusion: bool,
        threshold: float | None,
    ) -> Reading:
        """The arguments of `segment`, checked."""
        if task not in TASKS:
            raise UserError(f"unknown task {task!r}: expected one of {', '.join(TASKS)}")
        if threshold is not None:
            if task == "semantic":
                raise UserError("task semantic has no threshold: every pixel gets its best class; leave threshold out")
            if not 0 <= threshold <= 1:
                raise UserError(f"threshold must lie between 0 and 1, got {threshold}")
        if clip_fusion and (task == "everything" or self.model.clip_head is None):
            raise UserError(
                "clip_fusion compares masks with class names: leave it off for task everything"
                if task == "everything"
                else f"{self.name} has no CLIP head: leave clip_fusion off"
            )
        if task == "everything" and (classes is not None or things is not None):
            raise UserError("task everything knows no classes: leave classes and things out, or choose another task")
        return Reading(
            task=task,
            vocabulary=None if task == "everything" else self.vocabulary(classes, things=things),
            threshold=DEFAULT_THRESHOLDS[task] if threshold is None else threshold,
            clip_fusion=clip_fusion,
            # A grid of queries is there for crowds.
            max_masks=CROWD if self.model.config.query_stride else MAX_MASKS,
        )

    # --------------------------------------------------------------------------------------------------------- videos

    def open_video(
        self,
        *,
        task: VideoTask = "panoptic",
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
        name: str = "video",
    ) -> VideoSession:
        """A session that takes the frames of one video as they come and answers at once.

        Args:
            task: as of `segment`; or "objects" to follow what is pointed at (`VideoSession.prompt`).
            classes, things, clip_fusion, threshold: as of `segment`; the vocabulary is this video's own.
            name: of the video, written into results.

        Raises:
            UserError: an argument is not as described.
        """
        reading = self._video_reading(task, classes, things=things, clip_fusion=clip_fusion, threshold=threshold)
        return VideoSession(self.model, self._encode, reading, model_name=self.name, name=name)

    def track(
        self,
        source: VideoInput,
        *,
        task: VideoTask | None = None,
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | Mapping[int, Any] | None = None,
        prompts: Mapping[int, Mapping[int, ObjectPrompt]] | None = None,
        mode: VideoMode = "stream",
        clip_frames: int = 1,
    ) -> Iterator[Result]:
        """Segment a video and keep the identity of what is in it.

        Args:
            source: a file, a folder of frames, an address, a webcam, arrays, …: see `video_inputs.open_video`, which
                also says how to look at a part of the frames only.
            task: as of `segment`; or "objects" to follow what is pointed at. None = "objects" if anything is,
                otherwise "panoptic".
            classes, things, clip_fusion, threshold: as of `segment`; the vocabulary is this video's own.
            points, labels, boxes, masks: objects in the first frame, as of `ImageSession.click`; they are numbered from
                1 in the order points, boxes, masks. Masks may come with numbers of their own: {number: mask}.
            prompts: what is pointed at in any frame: {frame: {object: ObjectPrompt}}, frames counted from 0. Known
                objects are corrected.
            mode: "stream" answers each frame when it comes, in memory that does not depend on the length; "offline"
                answers after the last one, as the original does: clip by clip, classes averaged over the whole video.
                It holds all frames and mask logits (queries × 1/16 of the pixels, 4 bytes each, a frame), and follows
                objects from masks in the first frame only.
            clip_frames: of a stream, are decoded together, see `VideoSession.feed_clip`: the first of them is answered
                when the last one has come. Not for task "objects".

        Returns:
            One result a frame, made when it is asked for. The ids of segments are tracks: see `VideoSession`.

        Raises:
            UserError: an argument is not as described or the source cannot be opened; while frames are read: one has
                another size or cannot be read, or a prompt is for a frame that does not exist.
        """
        if mode not in VIDEO_MODES:
            raise UserError(f"unknown mode {mode!r}: expected one of {', '.join(VIDEO_MODES)}")
        if clip_frames < 1:
            raise UserError(f"clip_frames must be 1 or more, got {clip_frames}")
        pointed = any(each is not None for each in (points, boxes, masks, prompts))
        task = task or ("objects" if pointed else "panoptic")
        if clip_frames > 1 and (mode == "offline" or task == "objects"):
            how = "mode offline has clips of its own" if mode == "offline" else "task objects goes frame by frame"
            raise UserError(f"{how}: leave clip_frames out")
        reading = self._video_reading(task, classes, things=things, clip_fusion=clip_fusion, threshold=threshold)
        if pointed != (task == "objects"):
            raise UserError(
                f"task {task} finds its segments by itself: leave points, boxes, masks and prompts out"
                if pointed
                else "nothing to follow: task objects needs points, boxes, masks or prompts"
            )
        video = open_video(source)
        try:
            height, width = video.size
            named = video_prompts(
                Image.new("1", (width, height)), points=points, labels=labels, boxes=boxes, masks=masks, prompts=prompts
            )
            for frame in named:
                video.expect(frame)
            if pointed and not named:
                raise UserError("nothing to follow: give at least one point, box or mask")
            if mode == "offline":
                check_first_masks(named)
        except BaseException:
            video.close()
            raise
        if mode == "offline":
            return self._track_whole(video, reading, named)
        session = VideoSession(self.model, self._encode, reading, model_name=self.name, name=video.name)
        if reading is None:
            return self._track_objects(video, session, named)
        return self._track_stream(video, session, clip_frames)

    def _track_stream(self, video: VideoSource, session: VideoSession, clip_frames: int) -> Iterator[Result]:
        with video:
            frames = iter(video)
            while clip := list(itertools.islice(frames, clip_frames)):
                yield from session.feed_clip(clip)

    def _track_objects(
        self, video: VideoSource, session: VideoSession, prompts: dict[int, dict[int, ObjectPrompt]]
    ) -> Iterator[Result]:
        with video:
            for frame in video:
                yield session.feed(frame, objects=prompts.pop(frame.index, None))
        if prompts:
            raise UserError(
                f"{video.name} has no frame {min(prompts)}, in which an object is pointed at: it ended after"
                f" {session.frames} frames"
            )

    def _track_whole(
        self, video: VideoSource, reading: Reading | None, prompts: dict[int, dict[int, ObjectPrompt]]
    ) -> Iterator[Result]:
        with video:
            whole = WholeVideo(
                video,
                model=self.model,
                encode=self._encode,
                reading=reading or Reading("everything", None, threshold=0.0, clip_fusion=False),
                model_name=self.name,
                name=video.name,
            )
        if reading is not None:
            yield from whole.results()
        else:
            regions = {number: prompt.region for number, prompt in prompts[0].items() if prompt.region is not None}
            yield from whole.follow(regions)

    def _video_reading(self, task: VideoTask, classes: Sequence[str] | str | None, **arguments: Any) -> Reading | None:
        """The arguments of `track`, checked; None for task "objects"."""
        if task not in VIDEO_TASKS:
            raise UserError(f"unknown task {task!r}: expected one of {', '.join(VIDEO_TASKS)}")
        if task != "objects":
            return self._reading(task, classes, **arguments)
        if classes is not None or any(arguments.values()) or arguments["threshold"] is not None:
            raise UserError(
                "task objects follows what is pointed at: leave classes, things, clip_fusion and threshold out"
            )
        if not self.model.config.prompt_queries:
            raise UserError(f"{self.name} takes no prompts: choose another task or other weights")
        return None

    # ----------------------------------------------------------------------------------------------------- vocabulary

    def vocabulary(
        self, classes: Sequence[str] | str | None = None, *, things: Sequence[str] | None = None
    ) -> Vocabulary:
        """Class names → what the model compares with; see `segment` for the arguments and `read_vocabulary`."""
        return read_vocabulary(self.model, self.processor, classes, things=things, model_name=self.name)

    # ---------------------------------------------------------------------------------------------------------- click

    def open(self, image: ImageSource) -> ImageSession:
        """Encode a picture once; the session answers clicks from that."""
        source = load_images(image)
        if not source.single:
            raise UserError(f"a session holds one image, got {len(source)}: name a single file")
        named = source[0]
        with torch.inference_mode():
            encoded = self._encode(named.image)
        return ImageSession(self.model, named, encoded, model_name=self.name)

    def click(
        self,
        image: ImageSource,
        points: Sequence[Any] | None = None,
        *,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> Result:
        """Masks of what is pointed at, in one go; see `ImageSession.click` for the prompts."""
        return self.open(image).click(points, labels=labels, boxes=boxes, masks=masks)

    # ----------------------------------------------------------------------------------------------------------- chat

    def open_chat(self, image: ImageSource | None = None, *, system: str | None = None) -> Conversation:
        """A conversation about a picture, which is seen once, or about none; `Conversation.ask` goes on with it.

        Args:
            image: see `omgvision.inputs.load_image`.
            system: what the model is told before everything else.

        Raises:
            UserError: the picture cannot be read; this model does not chat.
        """
        return Conversation(*self.chat_model, image=image, system=system)

    def chat(
        self,
        image: ImageSource | None,
        question: str = "",
        *,
        task: ChatTask | None = None,
        options: Sequence[str] = (),
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
        system: str | None = None,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 50,
        on_text: TextListener | None = None,
        on_phrase: PhraseListener | None = None,
        on_mask: MaskListener | None = None,
    ) -> Answer:
        """One question about a picture, answered in words and masks; for follow-ups see `open_chat`.

        Args:
            image, system: as of `open_chat`.
            question, task, options: what to ask; a task alone may be enough, as in `chat("street.jpg", task="gcg")`;
                see `chat_tasks.task_question`.
            points, labels, boxes, masks: what is pointed at, as of `ImageSession.click`.
            max_new_tokens, temperature, top_p, top_k, on_text, on_phrase, on_mask: as of `Conversation.ask`.

        Returns:
            The answer: `text`, `phrases`, `masks`, `boxes`, `scores`, `overlay()`, `save(folder)`.

        Raises:
            UserError: as of `open_chat` and `Conversation.ask`.
        """
        return self.open_chat(image, system=system).ask(
            question,
            task=task,
            options=options,
            points=points,
            labels=labels,
            boxes=boxes,
            masks=masks,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            on_text=on_text,
            on_phrase=on_phrase,
            on_mask=on_mask,
        )

    @functools.cached_property
    def chat_model(self) -> ChatModel:
        """OMG-LLaVA and its processor, loaded when they are first needed.

        Raises:
            UserError: this model does not chat.
        """
        if self._load_chat is None:
            raise UserError(
                f"{self.name} is a segmenter and does not chat: load OMG-LLaVA instead, a folder that `omg convert` or"
                " `omg train` made"
            )
        return self._load_chat()

    # ---------------------------------------------------------------------------------------------------------- model

    def _encode(self, image: Image.Image) -> OmgSegEncoderOutput:
        inputs = self.processor.image_processor(images=image, return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.device, self.model.dtype)
        return self.model.encode(pixels, pixel_mask=inputs["pixel_mask"].to(self.device))
