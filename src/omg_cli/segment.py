"""`omg segment`: pictures → overlays, maps, JSON."""

import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from . import options


class Task(str, Enum):
    """What to look for."""

    panoptic = "panoptic"
    instance = "instance"
    semantic = "semantic"
    everything = "everything"


def segment(
    source: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="Image files, folders, patterns or http(s) addresses.")
    ],
    task: Annotated[Task, typer.Option(help="Every pixel, countable things, classes of pixels, or all objects.")] = (
        Task.panoptic
    ),
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Words of your choice: 'person,sofa/couch,sky', a file with one class a line, or one of the lists"
            " coco, coco-things, ade20k, cityscapes, … (omg models). By default the model's own.",
        ),
    ] = None,
    things: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Which of the classes are countable; by default known ones, others are."),
    ] = None,
    threshold: Annotated[float | None, typer.Option(metavar="0…1", help="Leave out segments of lower score.")] = None,
    clip_fusion: Annotated[
        bool, typer.Option("--clip-fusion", help="Mix in CLIP's opinion of each mask (CLIP backbones).")
    ] = False,
    model: options.Model = None,
    backbone: options.Backbone = None,
    out: options.Out = Path("omg_out"),
    save: Annotated[
        str, typer.Option(metavar="KINDS", help="What to write: some of overlay,panoptic,semantic,json,masks.")
    ] = "overlay,panoptic,semantic,json",
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> int:
    """Segment pictures, by the model's classes or by words of your choice.

    [bold]omg segment street.jpg --classes "person,car,road,sky"[/bold]
    """
    artifacts = options.read_artifacts(save)
    names = None if classes is None else options.read_names(classes)
    countable = None if things is None else options.split_names(things)

    from omgvision import load
    from omgvision.errors import UserError
    from omgvision.inputs import load_images
    from omgvision.output_files import ensure_writable
    from omgvision.results import Result

    options.quiet_libraries()
    ensure_writable(out)
    chosen = source[0] if len(source) == 1 else source
    images = load_images(chosen)
    if images.single:
        images[0]  # a picture that cannot be read is reported before the weights are loaded
    predictor = load(model, device=device, dtype=dtype, backbone=backbone)  # type: ignore[arg-type]
    results = predictor.segment(
        chosen, task=task.value, classes=names, things=countable, clip_fusion=clip_fusion, threshold=threshold
    )
    if isinstance(results, Result):
        paths = results.save(out, artifacts=artifacts)
        print(f"{results.name}: {options.summary(results.labels)}")
        print(f"written: {', '.join(map(str, paths))}")
        return 0

    from rich.console import Console
    from rich.progress import track

    failed = written = 0
    for index in track(range(len(results)), description="segmenting", console=Console(stderr=True)):
        try:
            written += len(results[index].save(out, artifacts=artifacts))
        except UserError as error:  # one bad picture must not cost the others
            failed += 1
            print(f"omg: {error}", file=sys.stderr)
    done = len(results) - failed
    print(f"written: {written} files of {done} image{'' if done == 1 else 's'} in {out}")
    return 2 if failed else 0
