"""One result type for every task, and the files that it writes."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from scipy import ndimage

from . import visualization
from .errors import UserError
from .output_files import png_bytes, write_files
from .run_lengths import RunLengthMask

if TYPE_CHECKING:
    import supervision  # pyright: ignore[reportMissingImports]

Task = Literal["panoptic", "instance", "semantic", "everything", "click", "objects"]
Artifact = Literal["overlay", "panoptic", "semantic", "json", "masks"]
DEFAULT_ARTIFACTS: tuple[Artifact, ...] = ("overlay", "panoptic", "semantic", "json")
CLASS_AGNOSTIC_LABEL = "object"


@dataclass(frozen=True)
class Category:
    """One class of the vocabulary that a result was made with; its index in `Result.categories` is its label id."""

    name: str
    is_thing: bool


@dataclass(frozen=True)
class FrameStamp:
    """Which frame of a video a result belongs to.

    Attributes:
        index: from 0, counted over all frames of the video, those that are not looked at included.
        time: seconds since the first frame.
        name: of the file that a frame of a folder comes from (without ending); "" for other videos.
    """

    index: int
    time: float
    name: str = ""

    @property
    def stem(self) -> str:
        """What files of this frame are called: as its picture, or by its number ("00012")."""
        return self.name or f"{self.index:05d}"


@dataclass(frozen=True, eq=False)
class Segment:
    """One region of a picture.

    Attributes:
        id: 1, 2, … within its result; in a video the track, the same in every frame. The value of its pixels in
            `Result.label_map`.
        label_id: index into `Result.categories`; None where the task knows no classes.
        label: class name, "object" without classes.
        is_thing: countable (a car) rather than stuff (sky).
        score: confidence in [0, 1]; None where the task gives none (semantic).
        area: pixels.
        bbox: x, y, width, height in pixels.
    """

    id: int
    label_id: int | None
    label: str
    is_thing: bool
    score: float | None
    area: int
    bbox: tuple[int, int, int, int]
    _read_mask: Callable[[], np.ndarray] = field(repr=False)

    @property
    def mask(self) -> np.ndarray:
        """bool [H, W] at the size of the picture; unpacked anew at each access."""
        return self._read_mask()


@dataclass(frozen=True)
class SegmentLabel:
    """What `Result`'s constructors need to know of a segment besides its pixels."""

    label_id: int | None = None
    score: float | None = None


class Result:
    """What a model found in one picture.

    Made by `Predictor`; `from_label_map` and `from_masks` make one from other sources. Masks are kept packed: one map
    of ids where segments exclude each other, run lengths where they may overlap.

    Attributes:
        task: "panoptic", "instance", "semantic", "everything", "click" or (in videos) "objects".
        image: the picture, upright RGB.
        name: what the picture is called (its file name without ending).
        model_name: the weights that made the result.
        categories: the vocabulary; empty where the task knows no classes.
        segments: in the order of the model: by size in maps, by score otherwise, by prompt after clicks.
        stem: what the names of saved files start with; empty for a single picture.
        prompt_points, prompt_boxes: after clicks, where they were: (x, y, positive) and (x0, y0, x1, y1).
        frame: of a video, which frame this is; None for a picture.
    """

    def __init__(
        self,
        *,
        task: Task,
        image: Image.Image,
        segments: Sequence[Segment],
        categories: Sequence[Category],
        name: str,
        model_name: str,
        stem: str = "",
        points: Sequence[visualization.Point] = (),
        boxes: Sequence[visualization.Box] = (),
        frame: FrameStamp | None = None,
    ) -> None:
        self.task: Task = task
        self.image = image
        self.segments = tuple(segments)
        self.categories = tuple(categories)
        self.name = name
        self.model_name = model_name
        self.stem = stem
        self.prompt_points = tuple(points)
        self.prompt_boxes = tuple(boxes)
        self.frame = frame
        self._label_map: np.ndarray | None = None

    @classmethod
    def from_label_map(
        cls,
        label_map: np.ndarray,
        labels: dict[int, SegmentLabel],
        *,
        task: Task,
        image: Image.Image,
        categories: Sequence[Category] = (),
        name: str = "image",
        model_name: str = "",
        stem: str = "",
        points: Sequence[visualization.Point] = (),
        boxes: Sequence[visualization.Box] = (),
        frame: FrameStamp | None = None,
    ) -> "Result":
        """Make a result of segments that exclude each other.

        Args:
            label_map: int [H, W] of the image's size; 0 is nobody's, other values are the keys of `labels`.
            labels: class and score of each value; values without pixels are left out.
            frame: of a video, whose values are tracks and become the ids of the segments; without it they are numbered
                anew, the largest first.
        """
        _check_shape(label_map, image)
        if label_map.min() < 0:
            raise ValueError(f"the map holds negative values ({label_map.min()}), expected 0 for pixels of no segment")
        areas = np.bincount(label_map.ravel())
        areas[0] = 0
        order = np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]
        new_ids = np.zeros(len(areas), dtype=np.int32)
        new_ids[order] = np.arange(1, len(order) + 1) if frame is None else order
        renumbered = new_ids[label_map]
        extents = _boxes(renumbered)
        segments = []
        for value in order.tolist():
            if value not in labels:
                raise ValueError(f"the map holds the value {value}, for which no label was given")
            new_id = int(new_ids[value])
            read = _map_reader(renumbered, new_id)
            segments.append(_segment(new_id, labels[value], categories, int(areas[value]), extents[new_id], read))
        result = cls(
            task=task,
            image=image,
            segments=segments,
            categories=categories,
            name=name,
            model_name=model_name,
            stem=stem,
            points=points,
            boxes=boxes,
            frame=frame,
        )
        result._label_map = renumbered
        return result

    @classmethod
    def from_masks(
        cls,
        masks: Iterator[np.ndarray] | Sequence[np.ndarray],
        labels: Sequence[SegmentLabel],
        *,
        task: Task,
        image: Image.Image,
        categories: Sequence[Category] = (),
        name: str = "image",
        model_name: str = "",
        stem: str = "",
        points: Sequence[visualization.Point] = (),
        boxes: Sequence[visualization.Box] = (),
        ids: Sequence[int] | None = None,
        frame: FrameStamp | None = None,
    ) -> "Result":
        """Make a result of masks (bool [H, W] each, consumed one at a time) that may overlap.

        Args:
            ids: of the segments, positive and different: the tracks of a video. None numbers them from 1.
        """
        segments = []
        numbers = range(1, len(labels) + 1) if ids is None else ids
        for number, mask, label in zip(numbers, masks, labels, strict=True):
            _check_shape(mask, image)
            packed = RunLengthMask.encode(mask)
            segments.append(_segment(number, label, categories, packed.area, packed.box, packed.decode))
        return cls(
            task=task,
            image=image,
            segments=segments,
            categories=categories,
            name=name,
            model_name=model_name,
            stem=stem,
            points=points,
            boxes=boxes,
            frame=frame,
        )

    # ------------------------------------------------------------------------------------------------- what was found

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __repr__(self) -> str:
        counts = Counter(segment.label for segment in self.segments).most_common(8)
        found = ", ".join(label if count == 1 else f"{label} ×{count}" for label, count in counts)
        return f"Result({self.task}, {self.width}x{self.height}, {len(self)} segments{': ' + found if found else ''})"

    @property
    def width(self) -> int:
        return self.image.width

    @property
    def height(self) -> int:
        return self.image.height

    @property
    def masks(self) -> np.ndarray:
        """bool [N, H, W]. Large for many segments; `segment.mask` gives them one at a time."""
        masks = np.zeros((len(self), self.height, self.width), dtype=bool)
        for index, segment in enumerate(self.segments):
            masks[index] = segment.mask
        return masks

    @property
    def labels(self) -> list[str]:
        return [segment.label for segment in self.segments]

    @property
    def label_ids(self) -> np.ndarray:
        """int64 [N], -1 without class."""
        return np.array([-1 if s.label_id is None else s.label_id for s in self.segments], dtype=np.int64)

    @property
    def scores(self) -> np.ndarray:
        """float32 [N], NaN without score."""
        return np.array([np.nan if s.score is None else s.score for s in self.segments], dtype=np.float32)

    @property
    def boxes(self) -> np.ndarray:
        """float32 [N, 4]: x0, y0, x1, y1 in pixels, the far sides exclusive."""
        boxes = np.array([s.bbox for s in self.segments], dtype=np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    @property
    def label_map(self) -> np.ndarray:
        """int32 [H, W] of segment ids, 0 where there is none; of overlapping segments the best score is on top.

        Segments without a class are things and their parts: of these the smaller one is.
        """
        if self._label_map is None:
            label_map = np.zeros((self.height, self.width), dtype=np.int32)
            for segment in sorted(self.segments, key=lambda one: (one.score or 0.0) if self.categories else -one.area):
                label_map[segment.mask] = segment.id
            self._label_map = label_map
        return self._label_map

    @property
    def _highest_id(self) -> int:
        return max((segment.id for segment in self.segments), default=0)

    # --------------------------------------------------------------------------------------------------- other forms

    def semantic_map(self) -> np.ndarray:
        """Class index of every pixel: uint8 with 255 for no class; over 255 classes uint16 with 65535."""
        dtype = np.uint8 if len(self.categories) <= 255 else np.uint16
        void = np.iinfo(dtype).max
        if len(self.categories) > void:
            raise UserError(f"a semantic PNG holds at most {void} classes, the vocabulary has {len(self.categories)}")
        lookup = np.full(self._highest_id + 1, void, dtype=dtype)
        for segment in self.segments:
            if segment.label_id is not None:
                lookup[segment.id] = segment.label_id
        return lookup[self.label_map]

    def semantic_png(self) -> Image.Image:
        """`semantic_map` as a grey picture of 8 or 16 bits."""
        return Image.fromarray(self.semantic_map())

    def panoptic_png(self) -> Image.Image:
        """Segment ids in COCO's colours: id = R + 256 G + 65536 B, 0 where there is none."""
        ids = self.label_map
        return Image.fromarray(np.stack([ids & 255, (ids >> 8) & 255, (ids >> 16) & 255], axis=-1).astype(np.uint8))

    def segments_info(self) -> list[dict[str, Any]]:
        """What belongs to `panoptic_png`: COCO's panoptic records, of the segments that are seen in it."""
        areas = np.bincount(self.label_map.ravel(), minlength=self._highest_id + 1)
        boxes = _boxes(self.label_map)
        records = []
        for segment in self.segments:
            if areas[segment.id] == 0:
                continue
            record: dict[str, Any] = {
                "id": segment.id,
                "category_id": segment.label_id or 0,
                "isthing": int(segment.is_thing),
                "area": int(areas[segment.id]),
                "bbox": list(boxes[segment.id]),
                "iscrowd": 0,
            }
            if segment.score is not None:
                record["score"] = round(segment.score, 6)
            records.append(record)
        return records

    def to_coco(self) -> list[dict[str, Any]]:
        """COCO annotations, one a segment, with run-length masks; the image's id is 1."""
        annotations = []
        for segment in self.segments:
            annotation: dict[str, Any] = {
                "id": segment.id,
                "image_id": 1,
                "category_id": segment.label_id or 0,
                "segmentation": RunLengthMask.encode(segment.mask).to_coco(),
                "area": segment.area,
                "bbox": list(segment.bbox),
                "iscrowd": 0,
            }
            if segment.score is not None:
                annotation["score"] = round(segment.score, 6)
            annotations.append(annotation)
        return annotations

    def to_dict(self) -> dict[str, Any]:
        """What `result.json` holds: a COCO instances file with the panoptic records beside."""
        categories = self.categories or (Category(name=CLASS_AGNOSTIC_LABEL, is_thing=True),)
        return {
            "info": {"description": "made by omgvision", "task": self.task, "model": self.model_name},
            "images": [{"id": 1, "file_name": self.name, "width": self.width, "height": self.height}],
            "categories": [
                {"id": index, "name": category.name, "isthing": int(category.is_thing)}
                for index, category in enumerate(categories)
            ],
            "annotations": self.to_coco(),
            "segments_info": self.segments_info(),
        }

    def to_supervision(self) -> "supervision.Detections":
        """`supervision.Detections` with boxes, masks, scores and class names (`data["class_name"]`).

        Raises:
            UserError: supervision is not installed.
        """
        try:
            import supervision  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError(
                "to_supervision needs the package supervision: pip install 'omgvision[supervision]'"
            ) from None
        return supervision.Detections(
            xyxy=self.boxes,
            mask=self.masks if len(self) else None,
            confidence=np.nan_to_num(self.scores, nan=1.0),
            class_id=np.maximum(self.label_ids, 0).astype(int),
            data={"class_name": np.array(self.labels)},
        )

    def overlay(self, *, labels: bool | None = None, opacity: float = 0.5) -> Image.Image:
        """The picture with its segments in colour, and their names if the task knows any (or `labels` says so).

        In a video the colour of a countable thing goes with its id, so that it keeps it from frame to frame.
        """
        agnostic = not self.categories
        # Smaller segments on top of larger ones, so that nothing is hidden.
        order = sorted(self.segments, key=lambda segment: -segment.area)
        seen: Counter[int] = Counter()
        colors: dict[int, visualization.Color] = {}
        for segment in self.segments:
            counted = segment.is_thing and self.task != "semantic"
            if segment.label_id is None or (self.frame is not None and counted):
                colors[segment.id] = visualization.identity_color(segment.id)
                continue
            instance = seen[segment.label_id] if counted else 0
            seen[segment.label_id] += 1
            colors[segment.id] = visualization.segment_color(
                segment.label_id, is_thing=segment.is_thing, instance=instance
            )
        show = not agnostic if labels is None else labels
        names = [self._tag(segment) for segment in order] if show else []
        picture = visualization.draw_segments(
            self.image,
            (segment.mask for segment in order),
            colors=[colors[segment.id] for segment in order],
            labels=names,
            opacity=opacity,
        )
        if not self.prompt_points and not self.prompt_boxes:
            return picture
        return visualization.draw_prompts(picture, points=self.prompt_points, boxes=self.prompt_boxes)

    def _tag(self, segment: Segment) -> str:
        # Class names may list synonyms ("person, child"): the first is enough for a picture.
        name = segment.label.split(",")[0].strip()
        if self.frame is not None:
            return f"{name} {segment.id}" if segment.is_thing and self.task != "semantic" else name
        return f"{name} {segment.score:.2f}" if self.task == "instance" and segment.score is not None else name

    # -------------------------------------------------------------------------------------------------------- writing

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        stem: str | None = None,
        artifacts: Sequence[Artifact] = DEFAULT_ARTIFACTS,
    ) -> list[Path]:
        """Write the result into a folder, which is made if need be.

        Args:
            folder: where to.
            stem: what the file names start with: `overlay.png` without, `street.overlay.png` with "street". By default
                nothing for a single picture and its name for one of several.
            artifacts: "overlay" → overlay.png; "panoptic" → panoptic.png (`panoptic_png`); "semantic" → semantic.png
                (`semantic_png`; left out where the task knows no classes); "json" → result.json (`to_dict`);
                "masks" → mask-1.png, mask-2.png, … (0 and 255).

        Returns:
            The written files. Either all are written or none: each is first written under a temporary name.

        Raises:
            UserError: the folder cannot be made or written to.
        """
        prefix = self.stem if stem is None else stem
        contents = self._contents(artifacts)
        return write_files(Path(folder), {f"{prefix}.{name}" if prefix else name: make for name, make in contents})

    def _contents(self, artifacts: Sequence[Artifact]) -> list[tuple[str, Callable[[], bytes]]]:
        contents: list[tuple[str, Callable[[], bytes]]] = []
        if "overlay" in artifacts:
            contents.append(("overlay.png", lambda: png_bytes(self.overlay())))
        if "panoptic" in artifacts:
            contents.append(("panoptic.png", lambda: png_bytes(self.panoptic_png())))
        if "semantic" in artifacts and self.categories:
            contents.append(("semantic.png", lambda: png_bytes(self.semantic_png())))
        if "masks" in artifacts:
            contents.extend((f"mask-{segment.id}.png", _mask_writer(segment)) for segment in self.segments)
        if "json" in artifacts:
            contents.append(("result.json", lambda: json.dumps(self.to_dict(), ensure_ascii=False).encode()))
        return contents


def _mask_writer(segment: Segment) -> Callable[[], bytes]:
    return lambda: png_bytes(Image.fromarray(segment.mask.astype(np.uint8) * 255))


def _map_reader(label_map: np.ndarray, value: int) -> Callable[[], np.ndarray]:
    return lambda: label_map == value


def _segment(
    number: int,
    label: SegmentLabel,
    categories: Sequence[Category],
    area: int,
    bbox: tuple[int, int, int, int],
    read_mask: Callable[[], np.ndarray],
) -> Segment:
    category = Category(CLASS_AGNOSTIC_LABEL, True) if label.label_id is None else categories[label.label_id]
    return Segment(
        id=number,
        label_id=label.label_id,
        label=category.name,
        is_thing=category.is_thing,
        score=label.score,
        area=area,
        bbox=bbox,
        _read_mask=read_mask,
    )


def _boxes(label_map: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """x, y, width, height of every value over 0 that occurs."""
    boxes = {}
    for value, found in enumerate(ndimage.find_objects(label_map), start=1):
        if found is not None:
            rows, columns = found
            boxes[value] = (columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start)
    return boxes


def _check_shape(array: np.ndarray, image: Image.Image) -> None:
    if array.shape != (image.height, image.width):
        raise ValueError(
            f"got a mask of shape {array.shape}, expected ({image.height}, {image.width}), the image's size"
        )
