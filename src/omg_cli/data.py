"""`omg data`: look at a data set before training on it."""

import logging
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from PIL import Image

    from omgvision.data.catalog import Reader
    from omgvision.data.sample import Sample

app = typer.Typer(help="Check data sets and look at them.", no_args_is_help=True)

DataPath = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        help="A json (COCO panoptic or instances, LVIS, YouTube-VIS, VIPSeg …, conversations), the folder of a known"
        " data set (ADE20K, Cityscapes, VOC, DAVIS, SA-1B …), or a folder with images and masks.",
    ),
]
Images = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where the images of a json are; by default looked for near it.")
]
Masks = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Of a folder of images: the masks, PNG, same stems; of a json with boxes: json."),
]
Classes = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="For masks: the class of each value, as for [bold]omg segment[/bold]; by default from classes.json.",
    ),
]
Instances = Annotated[bool, typer.Option("--instances", help="The masks number the objects of one class.")]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Which part: train (default), val, …")]

_FRAMES = 4  # of a video, in a preview
_LONGEST_SIDE = 640  # of a picture there


@dataclass
class _Counts:
    """What was seen while reading."""

    segments: Counter[int] = field(default_factory=Counter)
    samples_with: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    all_pixels: int = 0
    read: int = 0
    images: int = 0
    empty: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    bad: list[str] = field(default_factory=list)

    def add(self, frames: "Iterable[Sample]") -> None:
        """One image, or the frames of one video (which share their labels), one after the other.

        Where one of them cannot be read, the error passes on and nothing is counted.
        """
        labels: list[int] = []
        sizes: Counter[tuple[int, int]] = Counter()
        pixels: Counter[int] = Counter()
        for frame in frames:
            labels = frame.labels.tolist()
            sizes[frame.size] += 1
            for label, area in zip(labels, frame.areas().tolist(), strict=True):
                pixels[label] += area
        self.sizes.update(sizes)
        self.pixels.update(pixels)
        self.all_pixels += sum(height * width * number for (height, width), number in sizes.items())
        self.read += 1
        self.images += sizes.total()
        self.empty += not labels
        self.segments.update(labels)
        self.samples_with.update(set(labels))


@app.command("check")
def check(
    path: DataPath,
    images: Images = None,
    masks: Masks = None,
    classes: Classes = None,
    instances: Instances = False,
    split: Split = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail (exit code 2) if anything at all is wrong.")] = False,
) -> None:
    """Read every sample, count what is there, and say what is wrong."""
    from omgvision.data.datasets.conversations.own import holds_conversations

    if holds_conversations(path):
        _check_conversations(path, images=images, strict=strict)
        return
    dataset = _open(path, images=images, masks=masks, classes=classes, instances=instances, split=split)

    from rich.console import Console
    from rich.progress import track

    from omgvision.data.datasets.video import VideoReader
    from omgvision.errors import UserError

    counts = _Counts()
    for index in track(range(len(dataset)), description="reading", console=Console(stderr=True)):
        try:
            counts.add(dataset.whole(index) if isinstance(dataset, VideoReader) else [dataset[index]])
        except ValueError as error:
            counts.bad.append(str(error))
    _report(dataset, counts, videos=isinstance(dataset, VideoReader))
    faults = sum(dataset.findings.counts.values()) + len(counts.bad)
    if not counts.segments:
        raise UserError(f"{path} has no segment that could be used")
    if strict and faults:
        raise UserError(f"{path} has {faults} faults (see above), --strict allows none")


def _check_conversations(path: Path, *, images: Path | None, strict: bool) -> None:
    from rich.console import Console
    from rich.progress import track

    from omgvision.data.datasets.conversations.own import OwnConversations
    from omgvision.errors import UserError

    logging.getLogger("omgvision").setLevel(logging.ERROR)  # the report says what was left out
    dataset = OwnConversations(path, images=images)
    turns: Counter[int] = Counter()
    prompts: Counter[str] = Counter()
    masks, pictured, bad = 0, 0, []
    for index in track(range(len(dataset)), description="reading", console=Console(stderr=True)):
        try:
            conversation = dataset.draw(index)
        except ValueError as error:
            bad.append(str(error))
            continue
        turns[len(conversation.turns)] += 1
        masks += len(conversation.masks)
        pictured += conversation.image is not None
        prompts.update(kind for prompt in conversation.prompts for kind in prompt if kind != "labels")
    read = turns.total()
    print(f"{dataset.name}: {read} conversations, {pictured} with a picture, {read - pictured} of text alone")
    if turns:
        print(f"turns: {sum(count * number for count, number in turns.items())}, at most {max(turns)} a conversation")
    print(f"masks: {masks}")
    print(f"prompts: {', '.join(f'{count} {kind}' for kind, count in sorted(prompts.items())) or 'none'}")
    for line in dataset.findings.lines(dataset.findings.counts):
        print(f"left out: {line}")
    if bad:
        print(f"cannot be read: {len(bad)} of {len(dataset)}")
    for message in bad:
        print(f"  {message}")
    faults = sum(dataset.findings.counts.values()) + len(bad)
    if not read:
        raise UserError(f"{path} has no conversation that could be used")
    if strict and faults:
        raise UserError(f"{path} has {faults} faults (see above), --strict allows none")


def _report(dataset: "Reader", counts: _Counts, *, videos: bool) -> None:
    what = f"{counts.read} videos with {counts.images} frames" if videos else f"{counts.read} images"
    unit = "videos" if videos else "images"
    print(f"{dataset.name}: {what}, {counts.segments.total()} segments, {counts.empty} {unit} without any")
    if counts.sizes:
        heights, widths = zip(*counts.sizes, strict=True)
        print(f"sizes: {min(widths)}…{max(widths)} wide, {min(heights)}…{max(heights)} high")
    for line in (*dataset.findings.lines(dataset.findings.counts), *dataset.findings.lines(dataset.findings.notes)):
        print(f"left out: {line}")
    if counts.bad:
        print(f"cannot be read: {len(counts.bad)} of {len(dataset)}")
    for message in counts.bad:
        print(f"  {message}")
    if not dataset.names:
        print(f"classes: none, masks only ({_share(counts.pixels[-1], counts.all_pixels)} of the pixels)")
        return
    print(f"classes: {len(counts.segments)} of {len(dataset.names)} occur")
    if counts.segments:
        print(f"  {'segments':>8}  {unit:>7}   pixels  class")
    for label, count in sorted(counts.segments.items(), key=lambda item: (-item[1], item[0])):
        kind = "thing" if dataset.things[label] else "stuff"
        share = _share(counts.pixels[label], counts.all_pixels)
        print(f"  {count:8d}  {counts.samples_with[label]:7d}  {share:>7}  {dataset.names[label]} ({kind})")


def _share(part: int, whole: int) -> str:
    return f"{100 * part / max(whole, 1):.2f}%"


@app.command("preview")
def preview(
    path: DataPath,
    images: Images = None,
    masks: Masks = None,
    classes: Classes = None,
    instances: Instances = False,
    split: Split = None,
    number: Annotated[
        int | None,
        typer.Option(min=1, max=100, help="How many samples, evenly spread; by default 9 images or 4 videos."),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE|FOLDER", help="A .png file, or where preview.png goes.")
    ] = Path("omg_out"),
) -> None:
    """Draw some samples with their annotations into one picture; of a video some frames in a row."""
    target = _preview_path(out)
    dataset = _open(path, images=images, masks=masks, classes=classes, instances=instances, split=split)

    from PIL import Image

    from omgvision.data.datasets.video import VideoReader
    from omgvision.errors import UserError
    from omgvision.output_files import ensure_writable, write_image
    from omgvision.visualization import grid

    ensure_writable(target.parent)
    videos = isinstance(dataset, VideoReader)
    rows: list[list[Sample]] = []
    for index in _spread(len(dataset), number or (4 if videos else 9)):
        try:
            rows.append(_some_frames(dataset, index) if isinstance(dataset, VideoReader) else [dataset[index]])
        except ValueError as error:
            print(f"omg: left out: {error}", file=sys.stderr)
    if not rows:
        raise UserError(f"{path}: none of the samples can be read")
    columns = max(map(len, rows)) if videos else min(3, len(rows))
    cells = [(_draw(sample), sample.sample_id) for row in rows for sample in row]
    if videos:  # a short video leaves the end of its row empty
        blank = (Image.new("RGB", cells[0][0].size, "white"), "")
        pictures = iter(cells)
        cells = [next(pictures) if place < len(row) else blank for row in rows for place in range(columns)]
    height = cells[0][0].height
    # As many characters as fit above a picture: grid writes them at a 22nd of its height, but not under 11 points.
    titles = [
        name[-max(4, int(picture.width / picture.height * height / (0.6 * max(11, height / 22)))) :]
        for picture, name in cells
    ]
    print(f"written: {write_image(grid([picture for picture, _ in cells], columns=columns, titles=titles), target)}")


def _preview_path(out: Path) -> Path:
    if out.suffix.lower() == ".png" and not out.is_dir():
        return out
    if out.suffix.lower() in {".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"}:
        raise options.complain(f"--out: expected a .png file or a folder, got {out}")
    return out / "preview.png"


def _spread(length: int, number: int) -> list[int]:
    """At most `number` of 0 … length - 1, evenly spread, the first and the last among them."""
    number = min(number, length)
    return [round(place * (length - 1) / max(number - 1, 1)) for place in range(number)]


def _some_frames(dataset: "Reader", index: int) -> "list[Sample]":
    from omgvision.data.datasets.video import VideoReader

    assert isinstance(dataset, VideoReader)
    wanted = _spread(len(dataset.videos[index].files), _FRAMES)
    return [frame for place, frame in enumerate(dataset.whole(index)) if place in wanted]


def _draw(sample: "Sample") -> "Image.Image":
    """The picture with its segments; a colour depends on the place among the labels, so that frames agree."""
    from PIL import Image

    from omgvision.visualization import draw_segments, segment_color

    colors, texts = [], []
    seen: Counter[int] = Counter()
    for number, label in enumerate(sample.labels.tolist()):
        if label < 0:
            colors.append(segment_color(number + 12))  # the first is blue, as in results
            texts.append("")
            continue
        thing = sample.things[label]
        colors.append(segment_color(label, is_thing=thing, instance=seen[label] if thing else 0))
        texts.append(sample.names[label].split(",")[0] if len(sample.names) > 1 else "")
        seen[label] += 1

    areas = sample.areas().tolist()
    order = sorted(range(len(areas)), key=lambda number: -areas[number])  # small ones on top
    layers = sample.segment_layers.numpy()
    picture = draw_segments(
        Image.fromarray(sample.image.permute(1, 2, 0).numpy()),
        ((layers == number + 1).any(axis=0) for number in order),
        colors=[colors[number] for number in order],
        labels=[texts[number] for number in order],
    )
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return picture


def _open(
    path: Path,
    *,
    images: Path | None,
    masks: Path | None,
    classes: str | None,
    instances: bool,
    split: str | None,
) -> "Reader":
    names = None if classes is None else options.read_names(classes)

    from omgvision.data import load_class_list
    from omgvision.data.catalog import open_dataset
    from omgvision.data.clips import FrameSampling

    options.quiet_libraries()
    logging.getLogger("omgvision").setLevel(logging.ERROR)  # the report says what was left out
    return open_dataset(
        path,
        images=images,
        masks=masks,
        classes=load_class_list(names).names if isinstance(names, str) else names,
        split=split,
        instances=instances,
        sampling=FrameSampling(1),  # single frames: short videos count too
    )
