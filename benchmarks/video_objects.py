"""How well objects that are pointed at on the first frame are followed: J&F of several methods on the same videos.

Every frame is encoded once, and each method goes on from the same features:

* ``static copy``: the first mask, for ever. What a method must at least beat.
* ``per frame``: everything is segmented in each frame, and the mask with the best IoU with the previous one is kept.
* ``query matching``: the same, by the cosine of the queries' features and the IoU (the original's way with DAVIS).
* ``re-prompting``: the previous mask becomes click and previous mask of the current frame.
* ``clip prompts``: the first frame and the current one are a clip of two; points and mask are given on the first.
* ``prototypes``: mean mask feature of the object and of its surroundings, first frame and running mean; each pixel goes
  to the more alike.
* ``tracker``: `ObjectTracker`, what users get; the same without the borders of queries, which is label propagation
  alone; with each mask sharpened by the prompt decoder instead; from a click or a box on the first frame; and with one
  correcting click in every tenth frame, in the middle of the largest error.

Numbers are those of `omg score davis`, semi-supervised: the first and the last frame do not count.

    python -m benchmarks.video_objects --data ../shared/data/davis2016_mini           # val; ten minutes of a core
    python -m benchmarks.video_objects --data … --split train --every 2 --videos 6    # what constants were chosen on
    python -m benchmarks.video_objects --data … --sheets out/                         # and pictures to look at
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import omgvision as omg
from benchmarks.segment import machine
from omgvision.evaluation.click_iou import next_click
from omgvision.evaluation.davis import ObjectQuality
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput
from omgvision.models.omg_seg.postprocessing_omg_seg import prompt_masks
from omgvision.models.omg_seg.prompt_encoder_omg_seg import region_centers
from omgvision.object_tracking import ObjectTracker
from omgvision.output_files import write_json
from omgvision.predictor import Predictor
from omgvision.prompts import ObjectPrompt
from omgvision.session import mask_sizes

HERE = Path(__file__).resolve().parent
SIDE = 4
"""Pixels of the network input to a cell of the mask logits."""
POINTS_OF_MASK = 6
"""As prompts on clips were trained."""
CORRECTED_EVERY = 10
"""Frames from one correcting click to the next."""
Start = Literal["mask", "click", "box"]


class Method(Protocol):
    """Follows one object; gives logits [h, w] of each frame."""

    def start(self, encoded: OmgSegEncoderOutput, prompt: ObjectPrompt, *, size: tuple[int, int]) -> Tensor: ...

    def step(self, encoded: OmgSegEncoderOutput) -> Tensor: ...


class Tracker:
    """`ObjectTracker` with one object."""

    def __init__(self, tracker: ObjectTracker) -> None:
        self.tracker = tracker

    def start(self, encoded: OmgSegEncoderOutput, prompt: ObjectPrompt, *, size: tuple[int, int]) -> Tensor:
        return self.tracker.prompt(encoded, {1: prompt}, size=size)[0]

    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        return self.tracker.propagate(encoded)[0]


class LabelPropagation(ObjectTracker):
    """Without the borders of queries."""

    def _with_borders(self, encoded: OmgSegEncoderOutput, logits: Tensor) -> Tensor:
        return logits


class CorrectedTracker(Tracker):
    """With somebody who looks at it now and then."""

    def correct(self, encoded: OmgSegEncoderOutput, mask: np.ndarray, truth: np.ndarray) -> Tensor:
        row, column, positive = next_click(truth > 0, mask > 0)
        prompt = ObjectPrompt(points=((column + 0.5, row + 0.5),), labels=(int(positive),))
        return self.tracker.prompt(encoded, {1: prompt}, size=mask.shape)[0]


class SharpenedTracker(Tracker):
    """The prompt decoder makes a mask of what was propagated, which goes on as it was."""

    def __init__(self, model: OmgSegForUniversalSegmentation) -> None:
        super().__init__(LabelPropagation(model))
        self.model = model

    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        return sharpened(self.model, encoded, super().step(encoded))


def sharpened(model: OmgSegForUniversalSegmentation, encoded: OmgSegEncoderOutput, logits: Tensor) -> Tensor:
    """A mask [h, w], decoded with its middle as a click and itself as the previous mask; an empty one stays empty."""
    if not (logits > 0).any():
        return logits
    points = (region_centers(logits[None] > 0) + 0.5) * SIDE
    previous = logits[None, None]
    return model(
        encoder_outputs=encoded, input_points=points[None, :, None], previous_mask_logits=previous
    ).masks_queries_logits[0, 0]


class FromFirstMask:
    """A method that begins with the logits of the first mask, however that was given."""

    def __init__(self, model: OmgSegForUniversalSegmentation) -> None:
        self.model = model
        self.logits = torch.empty(0)

    def start(self, encoded: OmgSegEncoderOutput, prompt: ObjectPrompt, *, size: tuple[int, int]) -> Tensor:
        self.logits = ObjectTracker(self.model).prompt(encoded, {1: prompt}, size=size)[0]
        self.begin(encoded)
        return self.logits

    def begin(self, encoded: OmgSegEncoderOutput) -> None:
        """Looks at the first frame."""


class StaticCopy(FromFirstMask):
    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        return self.logits


class PerFrame(FromFirstMask):
    feature_weight = 0.0

    def begin(self, encoded: OmgSegEncoderOutput) -> None:
        features, masks = self.queries(encoded)
        self.features = features[self.ious(masks).argmax()]

    def queries(self, encoded: OmgSegEncoderOutput) -> tuple[Tensor, Tensor]:
        decoded = self.model.model.decode_objects(encoded)
        assert decoded.layer_query_features is not None and decoded.layer_mask_logits is not None
        return F.normalize(decoded.layer_query_features[-1][0], dim=-1), decoded.layer_mask_logits[-1][0, :, 0]

    def ious(self, masks: Tensor) -> Tensor:
        inside, before = masks > 0, self.logits > 0
        return (inside & before).sum((1, 2)) / (inside | before).sum((1, 2)).clamp_min(1)

    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        features, masks = self.queries(encoded)
        likeness = self.ious(masks) + self.feature_weight * features @ self.features
        best = likeness.argmax()
        self.logits, self.features = masks[best], features[best]
        return self.logits


class QueryMatching(PerFrame):
    feature_weight = 1.0


class RePrompting(FromFirstMask):
    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        self.logits = sharpened(self.model, encoded, self.logits)
        return self.logits


class ClipPrompts(FromFirstMask):
    def begin(self, encoded: OmgSegEncoderOutput) -> None:
        self.reference = encoded
        inside = (self.logits > 0).nonzero()
        chosen = torch.randint(len(inside), (POINTS_OF_MASK,), generator=torch.Generator().manual_seed(0))
        self.points = (inside[chosen].flip(1) + 0.5) * SIDE

    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        return self.model(
            encoder_outputs=joined(self.reference, encoded),
            input_points=self.points[None, None],
            previous_mask_logits=self.logits[None, None],
        ).masks_queries_logits[0, 0, 1]


def joined(reference: OmgSegEncoderOutput, current: OmgSegEncoderOutput) -> OmgSegEncoderOutput:
    """Two frames that were encoded one by one, as a clip for the mask decoder."""
    assert reference.mask_features is not None and current.mask_features is not None
    assert reference.memories is not None and current.memories is not None
    return OmgSegEncoderOutput(
        mask_features=torch.cat((reference.mask_features, current.mask_features), dim=2),
        memories=tuple(torch.cat(levels, dim=1) for levels in zip(reference.memories, current.memories, strict=True)),
        memory_shapes=current.memory_shapes,
        image_sizes=current.image_sizes,
        canvas_size=current.canvas_size,
    )


class Prototypes(FromFirstMask):
    sharpness = 20.0
    momentum = 0.9

    def begin(self, encoded: OmgSegEncoderOutput) -> None:
        self.first = self.running = self.means(encoded)

    @staticmethod
    def planes(encoded: OmgSegEncoderOutput) -> Tensor:
        assert encoded.mask_features is not None
        return F.normalize(encoded.mask_features[0, :, 0], dim=0)

    def means(self, encoded: OmgSegEncoderOutput) -> Tensor:
        inside = torch.stack((self.logits > 0, self.logits <= 0)).flatten(1).float()
        return F.normalize(inside @ self.planes(encoded).flatten(1).T, dim=1)

    def step(self, encoded: OmgSegEncoderOutput) -> Tensor:
        prototypes = F.normalize(self.first + self.running, dim=1)
        alike = torch.einsum("nc,chw->nhw", prototypes, self.planes(encoded))
        self.logits = self.sharpness * (alike[0] - alike[1])
        if (self.logits > 0).any():
            self.running = self.momentum * self.running + (1 - self.momentum) * self.means(encoded)
        return self.logits


def methods(model: OmgSegForUniversalSegmentation) -> dict[str, tuple[Method, Start]]:
    """Name → a method of its own for one video, and how the object is given to it."""
    return {
        "static copy": (StaticCopy(model), "mask"),
        "per frame": (PerFrame(model), "mask"),
        "query matching": (QueryMatching(model), "mask"),
        "re-prompting": (RePrompting(model), "mask"),
        "clip prompts": (ClipPrompts(model), "mask"),
        "prototypes": (Prototypes(model), "mask"),
        "label propagation": (Tracker(LabelPropagation(model)), "mask"),
        "tracker": (Tracker(ObjectTracker(model)), "mask"),
        "label propagation, sharpened": (SharpenedTracker(model), "mask"),
        "tracker, from a click": (Tracker(ObjectTracker(model)), "click"),
        "tracker, from a box": (Tracker(ObjectTracker(model)), "box"),
        "tracker, corrected": (CorrectedTracker(ObjectTracker(model)), "mask"),
    }


@dataclass(frozen=True)
class Video:
    """A video of DAVIS 2016: pictures and the label maps of its one object."""

    name: str
    frames: list[tuple[Path, Path]]

    def __iter__(self) -> Iterator[tuple[Image.Image, np.ndarray]]:
        for picture, labels in self.frames:
            yield Image.open(picture).convert("RGB"), (np.asarray(Image.open(labels)) > 0).astype(np.uint8)


def read_videos(root: Path, *, split: str, every: int, count: int | None) -> list[Video]:
    """The first `count` videos of a split, of each every so many-th frame."""
    listed = json.loads((root / f"instances_{split}.json").read_text(encoding="utf-8"))["videos"]
    names = sorted({entry["file_names"][0].split("/")[0] for entry in listed})[:count]
    return [
        Video(
            name,
            [
                (picture, root / "Annotations" / name / f"{picture.stem}.png")
                for picture in sorted((root / "JPEGImages" / name).glob("*.jpg"))[::every]
            ],
        )
        for name in names
    ]


def first_prompt(mask: np.ndarray, start: Start) -> ObjectPrompt:
    """What a user would give on the first frame: the mask, a click in its middle, or its box."""
    if start == "mask":
        return ObjectPrompt(region=mask > 0)
    if start == "click":
        x, y = region_centers(torch.from_numpy(mask > 0)[None])[0].tolist()
        return ObjectPrompt(points=((x + 0.5, y + 0.5),), labels=(1,))
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return ObjectPrompt(box=(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)))


@dataclass(frozen=True)
class Followed:
    """Of one video: true masks, masks by method, seconds of the process by method, pictures for the sheets."""

    truth: list[np.ndarray]
    masks: dict[str, list[np.ndarray]]
    seconds: dict[str, float]


@torch.inference_mode()
def follow(predictor: Predictor, video: Video, *, only: Sequence[str]) -> Followed:
    chosen = {name: pair for name, pair in methods(predictor.model).items() if not only or name in only}
    found = Followed([], {name: [] for name in chosen}, dict.fromkeys((*chosen, "encoder"), 0.0))
    for number, (picture, mask) in enumerate(video):
        began = time.process_time()
        encoded = predictor._encode(picture)
        found.seconds["encoder"] += time.process_time() - began
        sizes = mask_sizes(encoded, picture)
        found.truth.append(mask)
        for name, (method, start) in chosen.items():
            began = time.process_time()
            logits = (
                method.step(encoded)
                if number
                else method.start(encoded, first_prompt(mask, start), size=(picture.height, picture.width))
            )
            result = prompt_masks(logits[None].float(), sizes=sizes)[0].numpy().astype(np.uint8)
            if isinstance(method, CorrectedTracker) and number and number % CORRECTED_EVERY == 0 and mask.any():
                logits = method.correct(encoded, result, mask)
                result = prompt_masks(logits[None].float(), sizes=sizes)[0].numpy().astype(np.uint8)
            found.seconds[name] += time.process_time() - began
            found.masks[name].append(result)
    return found


def save_sheet(video: Video, found: Followed, path: Path, *, columns: int = 8) -> None:
    """A row a method, the truth first; frames spread evenly. Red: the mask."""
    chosen = np.unique(np.linspace(0, len(found.truth) - 1, columns).round().astype(int))
    pictures = [np.asarray(picture) for number, (picture, _) in enumerate(video) if number in chosen]
    rows = []
    for masks in (found.truth, *found.masks.values()):
        row = [
            np.where(masks[number][..., None] > 0, picture // 2 + np.array([127, 0, 0], np.uint8), picture)
            for number, picture in zip(chosen, pictures, strict=True)
        ]
        rows.append(np.concatenate(row, axis=1))
    sheet = Image.fromarray(np.concatenate(rows).astype(np.uint8))
    sheet.resize((sheet.width // 2, sheet.height // 2)).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="J&F of ways to follow an object that was given on the first frame.")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with JPEGImages, Annotations, instances_*.json"
    )
    parser.add_argument("--weights", default=None, help="as of omgvision.load; the bundled ones if not given")
    parser.add_argument("--split", default="val", choices=("train", "val"))
    parser.add_argument("--every", type=int, default=1, help="take every so many-th frame")
    parser.add_argument("--videos", type=int, help="take the first so many videos")
    parser.add_argument("--only", nargs="*", default=(), help="methods by name; all if not given")
    parser.add_argument("--sheets", type=Path, help="folder for pictures of what was found")
    parser.add_argument("--output", type=Path, help="JSON; benchmarks/results/video_objects.json for all videos of val")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    predictor = omg.load(options.weights) if options.weights else omg.load()
    quality: dict[str, ObjectQuality] = {}
    seconds: dict[str, float] = {}
    frames = 0
    videos = read_videos(options.data, split=options.split, every=options.every, count=options.videos)
    for video in videos:
        found = follow(predictor, video, only=options.only)
        frames += len(found.truth)
        for name, masks in found.masks.items():
            quality.setdefault(name, ObjectQuality()).update(video.name, zip(masks, found.truth, strict=True))
        for name, spent in found.seconds.items():
            seconds[name] = seconds.get(name, 0.0) + spent
        if options.sheets:
            options.sheets.mkdir(parents=True, exist_ok=True)
            save_sheet(video, found, options.sheets / f"{video.name}.png")
    report = {
        "data": f"DAVIS 2016 {options.split}, {len(videos)} videos of 384×216, {frames} frames (one in "
        f"{2 * options.every} of the originals)",
        "weights": predictor.name,
        "numbers": {name: metric.compute() for name, metric in quality.items()},
        "videos": {
            name: {video: {"J": one["J"], "F": one["F"]} for video, one in metric.per_object().items()}
            for name, metric in quality.items()
        },
        "milliseconds a frame": {name: 1000 * spent / frames for name, spent in seconds.items()},
        "machine": machine(),
        "command": f"python -m benchmarks.video_objects --data DATA --split {options.split} --every {options.every}",
    }
    for name, numbers in report["numbers"].items():
        cost = report["milliseconds a frame"][name]
        print(f"{name:24} J&F {numbers['J&F']:.3f}  J {numbers['J']:.3f}  F {numbers['F']:.3f}  {cost:.0f} ms a frame")
    whole = options.split == "val" and not options.videos and not options.only
    output = options.output or (HERE / "results" / "video_objects.json" if whole else None)
    if output:
        write_json(output, report)


if __name__ == "__main__":
    main()
