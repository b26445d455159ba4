"""Augmentations, called explicitly with a seeded generator. Pixels and label maps get the same geometry.

What a clip's frames share is drawn once; a picture is a clip of one frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .sample import Clip, Sample, SampleDataset

ScaleLaw = Literal["log-uniform", "uniform"]
Crops = Literal["shared", "independent", "moving"]
Padding = Literal["around", "after"]

IMAGE_MEAN = (123.675, 116.28, 103.53)
IMAGE_STD = (58.395, 57.12, 57.375)

# Rec. 601 luma weights, and the YIQ chroma axes in which turning the hue is a rotation.
_LUMA = np.array([0.299, 0.587, 0.114])
_RGB_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)

# How far a moving crop goes in one clip: of its room to move, and as a factor of its scale.
_PAN = 0.35
_ZOOM = 1.25


def resize(sample: Sample, *, size: tuple[int, int], antialias: bool = False) -> Sample:
    """Scales to `size` (height, width): bilinear for pixels, nearest (at pixel centres) for label maps."""
    return replace(
        sample,
        image=_resize_pixels(sample.image, size, antialias),
        segment_layers=_resize_layers(sample.segment_layers, size),
    )


def resize_to_longest_edge(sample: Sample, *, longest_edge: int, antialias: bool = False) -> Sample:
    """Scales, keeping the aspect ratio, so that the longer side has `longest_edge` pixels."""
    height, width = sample.size
    factor = longest_edge / max(height, width)
    size = (max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5)))
    return resize(sample, size=size, antialias=antialias)


def horizontal_flip(sample: Sample) -> Sample:
    """Left becomes right."""
    return replace(sample, image=sample.image.flip(-1), segment_layers=sample.segment_layers.flip(-1))


def large_scale_jitter(
    frames: Sequence[Sample],
    generator: np.random.Generator,
    *,
    size: tuple[int, int],
    scale: tuple[float, float] = (0.8, 2.0),
    scale_law: ScaleLaw = "log-uniform",
    longest_edge: int | None = None,
    aspect: float = 1.0,
    crops: Crops = "shared",
    padding: Padding = "around",
    antialias: bool | None = None,
) -> list[Sample]:
    """Scales at random, then crops to `size`.

    Args:
        frames: of any one size. They share the scale.
        generator: source of randomness.
        size: (height, width) of the crop.
        scale: range of the factor over the scale at which the image just fits into `size`, or has `longest_edge`.
        scale_law: how the factor is distributed; the original's is uniform.
        longest_edge: length in pixels of the image's longer side at a factor of 1; None for what fits into `size`.
        aspect: width and height are scaled by factors whose ratio is up to this (log-uniform); 1 keeps the shape.
        crops: `shared` by the frames, `independent`ly drawn for each (the original's pseudo-clips), or `moving`: from
            the first frame to the last, a crop glides and zooms, as a camera would.
        padding: where the image is smaller than the crop, `around` puts it anywhere on a canvas of mean colour without
            segments; `after` leaves the frames smaller than `size`, for `collate` to pad on the right and below.
        antialias: low-pass before shrinking; None tosses a coin, as photographs reach a model either way.
    """
    height, width = frames[0].size
    fits = min(size[0] / height, size[1] / width)
    factor = fits if longest_edge is None else longest_edge / max(height, width)
    if scale_law == "uniform":
        factor *= generator.uniform(*scale)
    else:
        factor *= np.exp(generator.uniform(*np.log(scale)))
    stretch = np.exp(generator.uniform(-0.5, 0.5) * np.log(aspect))
    zooms, places = _course(len(frames), generator, crops=crops)
    if antialias is None:
        antialias = bool(generator.random() < 0.5)
    spans = [
        (
            _crop_span(height, size[0], factor * zoom / stretch, place[0], padding),
            _crop_span(width, size[1], factor * zoom * stretch, place[1], padding),
        )
        for zoom, place in zip(zooms, places, strict=True)
    ]
    canvas = size
    if padding == "after":
        canvas = (max(rows[1].stop for rows, _ in spans), max(columns[1].stop for _, columns in spans))
    return [
        _view(frame, rows=rows, columns=columns, canvas=canvas, antialias=antialias)
        for frame, (rows, columns) in zip(frames, spans, strict=True)
    ]


def colour_jitter(
    frames: Sequence[Sample],
    generator: np.random.Generator,
    *,
    brightness: float = 0.3,
    contrast: float = 0.3,
    saturation: float = 0.3,
    hue: float = 0.05,
    grey_probability: float = 0.0,
) -> list[Sample]:
    """Random brightness, contrast, saturation and hue, as one affine map of the colours of all frames.

    Args:
        frames: their segments stay as they are.
        generator: source of randomness.
        brightness, contrast, saturation: each factor is uniform in 1 ± this.
        hue: the hue turns by up to ± this, in turns.
        grey_probability: how often all colour is taken away.
    """
    amounts = np.array([brightness, contrast, saturation])
    bright, contrasted, saturated = (1 + generator.uniform(-1, 1, 3) * amounts).tolist()
    angle = 2 * np.pi * generator.uniform(-hue, hue)
    if generator.random() < grey_probability:
        saturated = 0.0
    turn = saturated * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    chroma = np.eye(3)
    chroma[1:, 1:] = turn
    matrix = torch.from_numpy((bright * contrasted * (_YIQ_TO_RGB @ chroma @ _RGB_TO_YIQ)).T).to(torch.float32)
    pixels = [frame.image.permute(1, 2, 0).to(torch.float32) for frame in frames]
    mean_luma = float(np.mean([one.mean((0, 1)).numpy() @ _LUMA for one in pixels]))
    offset = bright * (1 - contrasted) * mean_luma + 0.5  # half a level: the conversion to uint8 cuts off
    return [
        replace(frame, image=(one @ matrix).add_(offset).clamp_(0, 255).to(torch.uint8).permute(2, 0, 1))
        for frame, one in zip(frames, pixels, strict=True)
    ]


@dataclass(frozen=True)
class Augmentation:
    """The usual training augmentation: scale jitter and crop, flip, colours, small remains dropped, objects pasted.

    Attributes:
        size: (height, width) of the result.
        scale, scale_law, longest_edge, aspect, crops, padding, antialias: see `large_scale_jitter`.
        flip_probability, colour_probability: how often each is applied.
        grey_probability: how often, of the coloured ones, all colour is taken away.
        min_area: segments of fewer pixels after the crop are dropped; objects of a clip, if it is so in every frame.
        attempts: crops that are tried until one holds a segment; 1 takes any, as the original does.
        donors: pictures of the same vocabulary whose objects may be laid on top of an image (not of a clip), augmented
            likewise; None for never.
        paste_probability: how often that happens.
    """

    size: tuple[int, int] = (256, 256)
    scale: tuple[float, float] = (0.8, 2.0)
    scale_law: ScaleLaw = "log-uniform"
    longest_edge: int | None = None
    aspect: float = 1.2
    crops: Crops = "shared"
    padding: Padding = "around"
    antialias: bool | None = None
    flip_probability: float = 0.5
    colour_probability: float = 0.8
    grey_probability: float = 0.05
    min_area: int = 16
    attempts: int = 3
    donors: SampleDataset | None = None
    paste_probability: float = 0.5

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        sample = self._single(sample, generator)
        if self.donors is None or generator.random() >= self.paste_probability:
            return sample
        donor = self._single(self.donors[int(generator.integers(len(self.donors)))], generator)
        return copy_paste(sample, donor, generator, min_area=self.min_area)

    def clip(self, clip: Clip, generator: np.random.Generator) -> Clip:
        """The frames share scale, flip and colours; whether they share the crop is up to `crops`."""
        frames = self._crop(clip, generator).frames
        if generator.random() < self.flip_probability:
            frames = [horizontal_flip(frame) for frame in frames]
        if generator.random() < self.colour_probability:
            frames = colour_jitter(frames, generator, grey_probability=self.grey_probability)
        return Clip(tuple(frames))

    def _single(self, sample: Sample, generator: np.random.Generator) -> Sample:
        return self.clip(Clip((sample,)), generator).frames[0]

    def _crop(self, clip: Clip, generator: np.random.Generator) -> Clip:
        cropped = clip
        for _ in range(self.attempts):
            frames = large_scale_jitter(
                clip.frames,
                generator,
                size=self.size,
                scale=self.scale,
                scale_law=self.scale_law,
                longest_edge=self.longest_edge,
                aspect=self.aspect,
                crops=self.crops,
                padding=self.padding,
                antialias=self.antialias,
            )
            cropped = Clip(tuple(frames)).with_areas_of_at_least(self.min_area)
            if len(cropped.labels):
                break
        return cropped


ORIGINAL_AUGMENTATION = Augmentation(
    size=(736, 1280),
    scale=(0.8, 2.0),
    scale_law="uniform",
    aspect=1.0,
    padding="after",
    antialias=False,
    colour_probability=0.0,
    min_area=1,
    attempts=1,
)
"""OMG-Seg's joint recipe. Its pseudo-clips have `crops="independent"`, Cityscapes `scale=(0.8, 1.5)`, ADE20K
`scale=(0.1, 2.0)`, COCO-SAM that and `min_area=32`."""


def copy_paste(
    sample: Sample, donor: Sample, generator: np.random.Generator, *, min_area: int = 16, max_part: float = 0.25
) -> Sample:
    """Lays some of the donor's countable objects over the sample (Ghiasi et al., 2021), hiding what is beneath.

    Args:
        sample, donor: of one size and one vocabulary.
        generator: decides which objects, each with a chance of one half.
        min_area: segments of which fewer pixels stay visible are dropped.
        max_part: objects that cover more of the picture than this are not pasted.
    Raises:
        ValueError: sizes or vocabularies differ.
    """
    if sample.size != donor.size or sample.names != donor.names:
        raise ValueError(
            f"donor: expected size {sample.size} and the same names, got {donor.size} from {donor.dataset}"
        )
    thing = torch.tensor([label >= 0 and donor.things[label] for label in donor.labels.tolist()], dtype=torch.bool)
    small = donor.areas() <= max_part * sample.size[0] * sample.size[1]
    taken = thing & small & torch.from_numpy(generator.random(len(thing)) < 0.5)
    if not bool(taken.any()):
        return sample
    number = torch.zeros(len(taken) + 1, dtype=sample.segment_layers.dtype)
    number[1:][taken] = torch.arange(1, int(taken.sum()) + 1, dtype=number.dtype) + len(sample.labels)
    pasted = number[donor.segment_layers.long()]
    covered = (pasted > 0).any(0)
    layers = torch.zeros((max(len(pasted), len(sample.segment_layers)), *sample.size), dtype=number.dtype)
    layers[: len(sample.segment_layers)] = sample.segment_layers.masked_fill(covered, 0)
    layers[: len(pasted)] += pasted
    return replace(
        sample,
        image=torch.where(covered, donor.image, sample.image),
        segment_layers=layers,
        labels=torch.cat([sample.labels, donor.labels[taken]]),
    ).with_areas_of_at_least(min_area)


def normalise(image: Tensor) -> Tensor:
    """uint8 [3, H, W] → float32, by ImageNet's mean and deviation in 0..255."""
    mean = torch.tensor(IMAGE_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGE_STD).view(3, 1, 1)
    return (image.to(torch.float32) - mean) / std


def _course(number: int, generator: np.random.Generator, *, crops: Crops) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame, the factor [T] of its scale and where [T, 2] in its vertical and horizontal room the crop lies."""
    if crops == "independent":
        return np.ones(number), generator.random((number, 2))
    place = generator.random(2)
    if crops == "shared":
        return np.ones(number), np.tile(place, (number, 1))
    time = np.linspace(0, 1, number)
    end = np.clip(place + generator.uniform(-_PAN, _PAN, 2), 0, np.nextafter(1, 0))
    return _ZOOM ** (time * generator.uniform(-1, 1)), place + time[:, None] * (end - place)


def _crop_span(length: int, target: int, factor: float, place: float, padding: Padding) -> tuple[slice, slice]:
    """Where a window of `target` pixels lies on one axis scaled by `factor`: slices of the source and of the target.

    `place`, at least 0 and less than 1, says where in the room there is.
    """
    window = max(1, round(target / factor))
    if window <= length:
        start = int(place * (length - window + 1))
        return slice(start, start + window), slice(0, target)
    inner = min(target, max(1, round(length * factor)))
    start = int(place * (target - inner + 1)) if padding == "around" else 0
    return slice(0, length), slice(start, start + inner)


def _view(
    sample: Sample,
    *,
    rows: tuple[slice, slice],
    columns: tuple[slice, slice],
    canvas: tuple[int, int],
    antialias: bool,
) -> Sample:
    """A part of a sample, scaled to a part of a canvas (both of each axis); the rest is mean colour."""
    source, target = (..., rows[0], columns[0]), (..., rows[1], columns[1])
    inner = (rows[1].stop - rows[1].start, columns[1].stop - columns[1].start)
    pixels = _resize_pixels(sample.image[source], inner, antialias)
    layers = _resize_layers(sample.segment_layers[source], inner)
    if inner == canvas:
        return replace(sample, image=pixels, segment_layers=layers)
    image = torch.tensor(IMAGE_MEAN).round().to(torch.uint8).repeat(*canvas, 1).permute(2, 0, 1)
    image[target] = pixels
    segment_layers = torch.zeros((len(layers), *canvas), dtype=layers.dtype)
    segment_layers[target] = layers
    return replace(sample, image=image, segment_layers=segment_layers)


def _resize_pixels(image: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    if image.shape[-2:] == size:
        return image
    if min(*size, *image.shape[-2:]) == 1:  # torch's kernel for bytes fails on some of these
        pixels = F.interpolate(image[None].float(), size=size, mode="bilinear", antialias=antialias)[0]
        return pixels.round_().to(torch.uint8)
    return F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=antialias)[0]


def _resize_layers(layers: Tensor, size: tuple[int, int]) -> Tensor:
    height, width = layers.shape[-2:]
    if (height, width) == size:
        return layers
    rows = ((torch.arange(size[0]) + 0.5) * (height / size[0])).long().clamp_(max=height - 1)
    columns = ((torch.arange(size[1]) + 0.5) * (width / size[1])).long().clamp_(max=width - 1)
    return layers[:, rows][:, :, columns]
