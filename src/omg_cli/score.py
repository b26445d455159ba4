"""`omg score METRIC`: grade predictions in the official file formats, whoever made them."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from . import options

app = typer.Typer(
    help="Grade prediction files as the official tools do. The last line is one JSON object, as fractions.",
    no_args_is_help=True,
)

GroundTruth = Annotated[
    Path, typer.Option("--gt", metavar="PATH", help="Ground truth: a json (PNG folder of the same stem) or a folder.")
]
Predictions = Annotated[
    Path, typer.Option("--pred", metavar="PATH", help="Predictions: a json (PNG folder of the same stem) or a folder.")
]
Report = Annotated[
    Path | None,
    typer.Option("--out", "-o", metavar="FILE", help="Write all numbers, each class's too, as json."),
]
Workers = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes at most.", default_factory=lambda: os.cpu_count() or 1)
]


@app.command("coco-panoptic")
def coco_panoptic(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    unseen: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Categories never trained on (a,b or a file): told apart.")
    ] = None,
    out: Report = None,
) -> None:
    """PQ, SQ, RQ of anything in COCO's panoptic format (COCO, ADE20K, …)."""
    names = None if unseen is None else options.read_names(unseen)
    if isinstance(names, str):
        raise options.complain("--unseen: expected names separated by commas, or a file with one name a line")

    from omgvision.evaluation.scores.panoptic_quality import score

    options.quiet_libraries()
    _report(score(gt, pred, unseen=names, workers=workers), out)


def _report(numbers: Mapping[str, float | None], out: Path | None, *, counts: Sequence[str] = ()) -> None:
    """Prints the table in percent and the JSON line; writes the report.

    Args:
        numbers: Name → fraction, NaN or None where there is none. "AP/person" is one class's: for the report alone.
        out: Where the report goes.
        counts: Names whose values are no fractions: printed as they are.
    """
    defined = {
        name: None if value is None or not math.isfinite(value) else float(value) for name, value in numbers.items()
    }
    if out is not None:
        _write(json.dumps(defined, indent=1), out)
    headline = {name: value for name, value in defined.items() if "/" not in name}
    width = max(map(len, headline))
    for name, value in headline.items():
        shown = "–" if value is None else f"{value:.2f}" if name in counts else f"{100 * value:.2f}"
        print(f"{name:{width}s}  {shown:>7s}")
    print(json.dumps(headline))


def _write(text: str, path: Path) -> None:
    """All of the file or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise options.complain(f"--out {path}: cannot be written ({error.strerror})") from None
