"""What a dataset yields and what a training step receives: the one place where target shapes are defined.

Letters: B images, N masks of an image, L layers, H, W height and width, P points of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

NO_POINT = -10
"""Point label of padding, as in transformers' SAM; 1 is positive, 0 negative."""


@dataclass(frozen=True)
class Sample:
    """One image with its segments.

    Masks are kept as layers of label maps instead of N bitmaps: a tenth of the memory, and one nearest-neighbour gather
    crops and resizes all of them. Segments that overlap lie on different layers, so nothing is lost.

    Attributes:
        image: uint8 [3, H, W], RGB.
        segment_layers: int16 [L, H, W]; 0 is nothing, n + 1 is segment n. L is 1 when no two masks overlap.
        labels: int64 [N], index into `names`; -1 where the class is not known (class-agnostic targets).
        names: the dataset's vocabulary.
        things: for each name, whether it is countable.
        sample_id: unique within the dataset.
        dataset: the dataset's short name.
    """

    image: Tensor
    segment_layers: Tensor
    labels: Tensor
    names: tuple[str, ...]
    things: tuple[bool, ...]
    sample_id: str
    dataset: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    @property
    def masks(self) -> Tensor:
        """Bool [N, H, W], in the order of `labels`."""
        number = len(self.labels)
        ids = torch.arange(1, number + 1, dtype=self.segment_layers.dtype).view(-1, 1, 1)
        masks = torch.zeros((number, *self.size), dtype=torch.bool)
        for layer in self.segment_layers:
            masks |= layer == ids
        return masks

    def areas(self) -> Tensor:
        """Int64 [N], pixels of each segment."""
        return torch.bincount(self.segment_layers.flatten().long(), minlength=len(self.labels) + 1)[1:]

    def with_areas_of_at_least(self, pixels: int) -> Sample:
        """The sample without the segments that are smaller than `pixels`; layers left empty are dropped."""
        return self.keeping(self.areas() >= pixels)

    def keeping(self, keep: Tensor) -> Sample:
        """The sample with only the segments for which `keep` (bool [N]) is true; layers left empty are dropped."""
        if bool(keep.all()):
            return self
        renumber = torch.zeros(len(keep) + 1, dtype=self.segment_layers.dtype)
        renumber[1:][keep] = torch.arange(1, int(keep.sum()) + 1, dtype=renumber.dtype)
        layers = renumber[self.segment_layers.long()]
        used = layers.flatten(1).any(1)
        used[0] = True
        return replace(self, segment_layers=layers[used], labels=self.labels[keep])


@dataclass(frozen=True)
class Clip:
    """Consecutive frames of one video with their objects followed through time.

    Attributes:
        frames: at least one, of one size. All have the same `labels`: segment n is the same object in every frame, and
            has no pixels in a frame where it is not seen.
    """

    frames: tuple[Sample, ...]

    def __post_init__(self) -> None:
        assert self.frames
        first = self.frames[0]
        assert all(frame.size == first.size and frame.names == first.names for frame in self.frames)
        assert all(torch.equal(frame.labels, first.labels) for frame in self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of every frame in pixels."""
        return self.frames[0].size

    @property
    def labels(self) -> Tensor:
        """Int64 [N], of the objects, in all frames the same."""
        return self.frames[0].labels

    @property
    def names(self) -> tuple[str, ...]:
        return self.frames[0].names

    @property
    def things(self) -> tuple[bool, ...]:
        return self.frames[0].things

    @property
    def sample_id(self) -> str:
        """That of the first frame."""
        return self.frames[0].sample_id

    @property
    def dataset(self) -> str:
        return self.frames[0].dataset

    def with_areas_of_at_least(self, pixels: int) -> Clip:
        """The clip without the objects that are smaller than `pixels` in all of its frames."""
        keep = torch.stack([frame.areas() for frame in self.frames]).amax(0) >= pixels
        return Clip(tuple(frame.keeping(keep) for frame in self.frames))


class SampleDataset(Protocol):
    """What every reader of images is."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class ClipDataset(Protocol):
    """What every reader of videos is. One item a video; which frames are taken is drawn by the generator."""

    def __len__(self) -> int: ...

    def clip(self, index: int, generator: np.random.Generator, /) -> Clip: ...


@runtime_checkable
class Oriented(Protocol):
    """A reader that knows, without opening the pictures, which of them are higher than wide."""

    @property
    def portrait(self) -> Sequence[bool] | None:
        """One entry a sample; None where it is not known after all (a wrapper of a reader that does not say)."""
        ...


def portrait_of(dataset: SampleDataset | ClipDataset) -> Sequence[bool] | None:
    """`dataset.portrait` of an `Oriented` dataset, None of any other."""
    return dataset.portrait if isinstance(dataset, Oriented) else None


def layers_from_masks(masks: Sequence[np.ndarray], height: int, width: int) -> Tensor:
    """Bool [H, W] arrays → int16 [L, H, W] label maps; a mask goes to the first layer where it covers no other."""
    layers = [np.zeros((height, width), dtype=np.int16)]
    for number, mask in enumerate(masks, start=1):
        for layer in layers:
            if not layer[mask].any():
                break
        else:
            layer = np.zeros((height, width), dtype=np.int16)
            layers.append(layer)
        layer[mask] = number
    return torch.from_numpy(np.stack(layers))


@dataclass
class Prompts:
    """Clicks or boxes, one prompt a target mask; coordinates are xy pixels of the network input.

    Attributes:
        points: float [B, N, P, 2] or None.
        point_labels: int64 [B, N, P]: 1 positive, 0 negative, `NO_POINT` padding; None without points.
        boxes: float [B, N, 4] xyxy or None.
        prompt_mask: bool [B, N], which prompts are real (an image without masks has none).
        mask_labels: B tensors, bool [n, H, W]: the target of each real prompt, in order.
    """

    points: Tensor | None
    point_labels: Tensor | None
    boxes: Tensor | None
    prompt_mask: Tensor
    mask_labels: list[Tensor]


@dataclass
class Batch:
    """Samples or clips of one dataset on a common canvas; never both.

    Attributes:
        pixel_values: float32 [B, 3, H, W], or [B, T, 3, H, W] for clips, normalised; padding (right, bottom) is 0.
        pixel_mask: bool [B, H, W], true on the image (of every frame).
        mask_labels: B tensors, bool [n, H, W], or [n, T, H, W] for clips, on the canvas.
        class_labels: B tensors, int64 [n], index into `names`, -1 class-agnostic.
        names, things: the vocabulary of the dataset.
        sample_ids: of the B samples.
        dataset: short name of the dataset.
        prompts: optional, see `Prompts`.
        skipped: what was wrong with samples that others had to replace, one line each.
    """

    pixel_values: Tensor
    pixel_mask: Tensor
    mask_labels: list[Tensor]
    class_labels: list[Tensor]
    names: tuple[str, ...]
    things: tuple[bool, ...]
    sample_ids: tuple[str, ...]
    dataset: str
    prompts: Prompts | None = None
    skipped: tuple[str, ...] = ()
