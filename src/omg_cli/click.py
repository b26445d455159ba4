"""`omg click`: points, boxes and masks → segments."""

from pathlib import Path
from typing import Annotated

import typer

from . import options


def click(
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Image file or http(s) address.")],
    point: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y[,0|1]", help="A pixel on the object, or beside it (0). All points are of one object."
        ),
    ] = None,
    box: Annotated[
        list[str] | None, typer.Option(metavar="X0,Y0,X1,Y1", help="A box around an object; repeat for more objects.")
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A region as an image of the same size, not black inside.")
    ] = None,
    model: options.Model = None,
    backbone: options.Backbone = None,
    out: options.Out = Path("omg_out"),
    save: Annotated[
        str, typer.Option(metavar="KINDS", help="What to write: some of overlay,panoptic,json,masks.")
    ] = "overlay,masks,json",
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> int:
    """Segment what you point at: points, boxes, regions.

    [bold]omg click photo.jpg --point 410,220 --point 300,40,0[/bold]
    """
    artifacts = options.read_artifacts(save)
    points = [options.read_numbers(text, "--point", "X,Y or X,Y,1 or X,Y,0", counts=(2, 3)) for text in point or ()]
    boxes = [options.read_numbers(text, "--box", "X0,Y0,X1,Y1", counts=(4,)) for text in box or ()]
    labels = [int(values[2]) if len(values) == 3 and values[2] in (0, 1) else 1 for values in points]
    for text, values in zip(point or (), points, strict=True):
        if len(values) == 3 and values[2] not in (0, 1):
            raise options.complain(f"--point {text}: the third number says on (1) or beside (0) the object")
    if not (points or boxes or mask):
        raise options.complain("nothing to click: give --point, --box or --mask")

    from omgvision import load
    from omgvision.inputs import load_image
    from omgvision.output_files import ensure_writable
    from omgvision.prompts import checked_prompts

    options.quiet_libraries()
    ensure_writable(out)
    picture = load_image(image)
    prompts = {
        "points": [values[:2] for values in points] or None,
        "labels": labels or None,
        "boxes": boxes or None,
        "masks": mask or None,
    }
    checked_prompts(picture, **prompts)  # before the weights are loaded
    predictor = load(model, device=device, dtype=dtype, backbone=backbone)  # type: ignore[arg-type]
    result = predictor.click(image, **prompts)
    paths = result.save(out, artifacts=artifacts)
    for segment in result:
        share = segment.area / (result.width * result.height)
        score = "" if segment.score is None else f", score {segment.score:.2f}"
        print(f"segment {segment.id}: {segment.area} pixels ({share:.1%}){score}")
    print(f"written: {', '.join(map(str, paths))}")
    return 0
