"""What the runner needs to know of a benchmark: its samples, files for the prediction of one, and how files are graded.

Predictions become files in the benchmark's own format, and numbers come from these files, as `omg score` reads them:
what the report says is what the official tool says of the same files.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from transformers import PreTrainedModel

from omgvision.data.class_lists import ClassList, ClassListName, load_class_list
from omgvision.errors import UserError
from omgvision.predictor import Predictor, VideoMode
from omgvision.visualization import Color, draw_segments, segment_color

Numbers = dict[str, float]
"""Name → fraction, NaN where there is none; "PQ/person" is one class's."""


@dataclass(frozen=True)
class Settings:
    """How the original was measured.

    Attributes:
        classes: The vocabulary; None for tasks without classes.
        size: Long and short edge that pictures are resized to; None = whatever the model was made for.
        clip_fusion: Mix in CLIP's opinion of each mask (open vocabulary), for models that can.
        mode: How videos are tracked: "offline" as the original does it, clip by clip (`whole_video`), or "stream".
        clicks: Clicks that an object gets.
        min_share: Objects of a smaller share of the picture are not clicked at.
        every: Of videos whose frames are taken for pictures, every n-th frame.
    """

    classes: ClassListName | None = None
    size: tuple[int, int] | None = None
    clip_fusion: bool = False
    mode: VideoMode | None = None
    clicks: int = 0
    min_share: float = 0.0
    every: int = 1


@dataclass(frozen=True)
class Outcome:
    """The prediction of one sample.

    Attributes:
        record: What the json of all predictions needs of this sample.
        quality: The benchmark's first number on this sample alone; None where nothing is to be found.
    """

    record: dict[str, Any]
    quality: float | None


@dataclass(frozen=True)
class Graded:
    """What became of all predictions.

    Attributes:
        numbers: Of the files; empty if the true annotations are not public.
        command: Words after `omg score` that grade the same files again; empty if there is no such metric.
        note: What else people should know; empty = nothing.
    """

    numbers: Numbers
    command: Sequence[str] = ()
    note: str = ""


class Measured(Protocol):
    """A model that is measured."""

    @property
    def name(self) -> str: ...

    @property
    def model(self) -> PreTrainedModel: ...

    @property
    def device(self) -> torch.device: ...


class Records(Protocol):
    """The records of the samples, read from disk one at a time."""

    def __getitem__(self, sample_id: str, /) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Panel:
    """One picture of the contact sheet: true and predicted masks, each a bool [H, W] and the number of its colour.

    Attributes:
        titles: Over the truth and over the prediction; None = name and quality of the sample.
    """

    image: Image.Image
    truth: Sequence[tuple[np.ndarray, int]] = ()
    prediction: Sequence[tuple[np.ndarray, int]] = ()
    titles: tuple[str, str] | None = None

    def draw(self, *, height: int = 240) -> tuple[Image.Image, Image.Image]:
        """The truth and the prediction, drawn over the picture."""
        width = max(1, round(self.image.width * height / self.image.height))
        small = self.image.convert("RGB").resize((width, height))
        truth, prediction = (
            draw_segments(small, [_shrink(mask, small) for mask, _ in masks], colors=_colors(masks))
            for masks in (self.truth, self.prediction)
        )
        return truth, prediction


def _shrink(mask: np.ndarray, image: Image.Image) -> np.ndarray:
    return np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))


def _colors(masks: Sequence[tuple[np.ndarray, int]]) -> list[Color]:
    seen: dict[int, int] = {}
    colors = []
    for _, number in masks:
        colors.append(segment_color(number, instance=seen.get(number, 0)))
        seen[number] = seen.get(number, 0) + 1
    return colors


class Task(ABC):
    """A benchmark with its data and the model that is measured.

    Attributes:
        sample_ids: All samples, in the benchmark's order; a sample is what one process predicts at once.
        quality: Name of the number in `Outcome.quality`.
    """

    sample_ids: Sequence[str]
    quality: str

    @abstractmethod
    def predict(self, sample_id: str, out: Path) -> Outcome:
        """Writes the sample's own files below `out` (a picture's PNG), and returns what goes into a common one."""

    @abstractmethod
    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        """Writes the common files below `out` and grades all of them.

        Args:
            sample_ids: What was predicted: all samples, or some.
            records: Of these samples.
            out: Where `predict` wrote to.
            workers: Processes at most.
        """

    @abstractmethod
    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        """Truth and prediction of a sample, to be looked at."""

    def name(self, sample_id: str, record: Mapping[str, Any]) -> str:
        """What the sample is called in the report."""
        del record
        return sample_id

    def only(self, sample_ids: Sequence[str]) -> Collection[str] | None:
        """None if these are all samples, else they: what the grading functions take as `only`."""
        return None if len(sample_ids) == len(self.sample_ids) else frozenset(sample_ids)


@dataclass(frozen=True)
class Words:
    """The benchmark's classes, as the model is asked for them.

    Attributes:
        listed: The benchmark's list.
        classes: For `Predictor.segment`; None where the model's own vocabulary is this very list.
        clip_fusion: For `Predictor.segment`.
    """

    listed: ClassList
    classes: ClassListName | None
    clip_fusion: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """For `Predictor.segment`."""
        return {"classes": self.classes, "clip_fusion": self.clip_fusion}

    def category(self, label: int | None) -> int:
        """The data set's number of a class."""
        assert label is not None
        return self.listed.category_ids[label]

    def check(self, categories: Mapping[int, str], where: Path) -> None:
        """Raises UserError if the ground truth numbers its categories otherwise.

        Names count as well, for lists share numbers: those of YouTube-VIS 2019 and 2021 both have 1 to 40. A name that
        is not listed passes, as another spelling.
        """
        numbers = {
            _spelling(name): number
            for name, number in zip(self.listed.official_names, self.listed.category_ids, strict=True)
        }
        for category, name in categories.items():
            if category not in numbers.values():
                raise UserError(
                    f"{where}: expected the official category ids, got {category}, which is none of this benchmark"
                )
            if (number := numbers.get(_spelling(name), category)) != category:
                raise UserError(
                    f"{where}: expected {number} as the category id of {name!r}, got {category}: these are the data of"
                    " another benchmark"
                )


def _spelling(name: str) -> str:
    return name.strip().casefold()


def words_of(predictor: Predictor, settings: Settings) -> Words:
    """How the model is asked for the classes of the benchmark.

    Raises:
        UserError: It can neither read them nor has them.
    """
    assert settings.classes is not None
    listed = load_class_list(settings.classes)
    own = predictor.classes == list(listed.names)
    if not own and predictor.model.text_model is None:
        stored = f"its {len(predictor.classes)} stored classes are others" if predictor.classes else "it stores none"
        raise UserError(
            f"{predictor.name} has no vocabulary for the {len(listed.names)} classes of {settings.classes}: it has no"
            f" text tower to read them, and {stored}: convert it together with OpenCLIP weights (omg convert)"
        )
    fusion = settings.clip_fusion and predictor.model.clip_head is not None
    return Words(listed, None if own else settings.classes, fusion)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Bool [H, W] → COCO's compressed run lengths, fit for json."""
    tools: Any = coco_mask
    runs = tools.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")}


def decoded(runs: Mapping[str, Any]) -> np.ndarray:
    """Run lengths made by `run_lengths` → bool [H, W]."""
    tools: Any = coco_mask
    return tools.decode({**runs, "counts": runs["counts"].encode("ascii")}).astype(bool)


def read_picture(path: Path) -> Image.Image:
    """RGB.

    Raises:
        UserError: No file, or none that can be read.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: expected a picture of the benchmark, got no file") from None
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: expected a picture of the benchmark, got an unreadable file ({error})") from None


def label_masks(labels: np.ndarray, numbers: Mapping[int, int]) -> Iterator[tuple[np.ndarray, int]]:
    """Label map [H, W] → for `Panel`; value → number of its colour, values without are left out."""
    for value in np.unique(labels).tolist():
        if value in numbers:
            yield labels == value, numbers[value]


def defined(value: float) -> float | None:
    """NaN → None."""
    return None if value != value else float(value)
