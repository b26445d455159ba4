"""`omg data`: look at a data set before training on it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from omgvision.data import CocoInstances, CocoPanoptic, MaskFolder, YouTubeVisFrames

app = typer.Typer(help="Check data sets and look at them.", no_args_is_help=True)

Annotations = Annotated[
    Path,
    typer.Argument(metavar="PATH", help="COCO panoptic, COCO instances or YouTube-VIS json; or a folder of images."),
]
Images = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where the images of a json are; by default images/ beside it.")
]
Masks = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="For a folder of images: the masks, PNG, same stems.")
]
Classes = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="For masks: the class of each value, as for [bold]omg segment[/bold]."),
]
Instances = Annotated[bool, typer.Option("--instances", help="The masks number the objects of one class.")]


@app.command("check")
def check(
    path: Annotations,
    images: Images = None,
    masks: Masks = None,
    classes: Classes = None,
    instances: Instances = False,
) -> None:
    """Read every sample and count what is there."""
    dataset = _open(path, images=images, masks=masks, classes=classes, instances=instances)
    counts = dict.fromkeys(range(len(dataset.names)), 0)
    empty = 0

    from rich.console import Console
    from rich.progress import track

    for index in track(range(len(dataset)), description="reading", console=Console(stderr=True)):
        labels = dataset[index].labels.tolist()
        empty += not labels
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    used = sorted(((count, label) for label, count in counts.items() if count), reverse=True)
    print(f"{dataset.name}: {len(dataset)} images, {sum(counts.values())} segments, {empty} images without any")
    print(f"classes: {len(used)} of {len(dataset.names)} occur")
    for count, label in used[:20]:
        name = dataset.names[label] if label >= 0 else "without class"
        kind = "thing" if label < 0 or dataset.things[label] else "stuff"
        print(f"  {count:6d}  {name} ({kind})")
    if len(used) > 20:
        print(f"  … and {len(used) - 20} more")


@app.command("preview")
def preview(
    path: Annotations,
    images: Images = None,
    masks: Masks = None,
    classes: Classes = None,
    instances: Instances = False,
    number: Annotated[int, typer.Option(min=1, max=100, help="How many samples, evenly spread.")] = 9,
    out: options.Out = Path("omg_out"),
) -> None:
    """Draw some samples with their annotations into one picture."""
    dataset = _open(path, images=images, masks=masks, classes=classes, instances=instances)

    import numpy as np
    from PIL import Image

    from omgvision.results import Category, Result, SegmentLabel, ensure_writable, write_image
    from omgvision.visualization import grid

    ensure_writable(out)
    number = min(number, len(dataset))
    pictures = []
    for index in np.linspace(0, len(dataset) - 1, number).round().astype(int).tolist():
        sample = dataset[index]
        labels = [SegmentLabel(label_id=label if label >= 0 else None) for label in sample.labels.tolist()]
        result = Result.from_masks(
            iter(sample.masks.numpy()),
            labels,
            task="panoptic",
            image=Image.fromarray(sample.image.permute(1, 2, 0).numpy()),
            categories=[Category(name, thing) for name, thing in zip(sample.names, sample.things, strict=True)],
        )
        pictures.append(result.overlay())
    print(f"written: {write_image(grid(pictures, columns=min(3, number)), out / 'preview.png')}")


def _open(
    path: Path, *, images: Path | None, masks: Path | None, classes: str | None, instances: bool
) -> "CocoInstances | CocoPanoptic | MaskFolder | YouTubeVisFrames":
    if not path.exists():
        raise options.complain(f"{path} does not exist: expected a json file or a folder of images")
    names = None if classes is None else options.read_names(classes)

    from omgvision.data import CocoInstances, CocoPanoptic, MaskFolder, YouTubeVisFrames, load_class_list

    options.quiet_libraries()
    if path.is_dir():
        if masks is None or names is None:
            raise options.complain("a folder of images needs --masks FOLDER and --classes NAMES")
        if isinstance(names, str):
            names = list(load_class_list(names).names)
        return MaskFolder(path, masks=masks, classes=names, kind="instance" if instances else "semantic")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise options.complain(f"{path} is not a JSON file: expected COCO panoptic, instances or YouTube-VIS") from None
    images = images or path.parent / "images"
    if isinstance(content, dict) and "videos" in content:
        return YouTubeVisFrames(path, images=images)
    entries = content.get("annotations") if isinstance(content, dict) else None
    if isinstance(entries, list) and entries and isinstance(entries[0], dict) and "segments_info" in entries[0]:
        return CocoPanoptic(path, images=images)
    return CocoInstances(path, images=images)
