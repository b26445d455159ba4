"""`omg score METRIC`: grade predictions in the official file formats, whoever made them."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

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


Unseen = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Categories never trained on (a,b or a file): told apart.")
]


@app.command("coco-panoptic")
def coco_panoptic(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    unseen: Unseen = None,
    out: Report = None,
) -> None:
    """PQ, SQ, RQ of anything in COCO's panoptic format (COCO, ADE20K, …)."""
    names = _read_unseen(unseen)
    from omgvision.evaluation.scores.panoptic_quality import score

    options.quiet_libraries()
    _report(score(gt, pred, unseen=names, workers=workers), out)


@app.command("coco-instances")
def coco_instances(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    iou_type: Annotated[Literal["segm", "bbox"], typer.Option(help="Compare masks or boxes.")] = "segm",
    class_agnostic: Annotated[bool, typer.Option("--class-agnostic", help="Take all categories for one.")] = False,
    out: Report = None,
) -> None:
    """AP and AR of masks or boxes, by pycocotools."""
    from omgvision.evaluation.scores.average_precision import score

    options.quiet_libraries()
    _report(score(gt, pred, kind=iou_type, by_category=not class_agnostic, workers=workers), out)


@app.command("ade20k-semantic")
def ade20k_semantic(gt: GroundTruth, pred: Predictions, workers: Workers, out: Report = None) -> None:
    """mIoU and pixel accuracy of ADE20K's 150 classes, from folders of label PNG files (0 does not count)."""
    from omgvision.evaluation.scores.mean_iou import score_ade20k

    options.quiet_libraries()
    _report(score_ade20k(gt, pred, workers=workers), out)


@app.command("semantic")
def semantic(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    classes: Annotated[int, typer.Option(min=1, metavar="N", help="How many there are: labels 0 to N-1.")],
    void: Annotated[
        int | None, typer.Option(metavar="V", help="True label of pixels that do not count; none without.")
    ] = None,
    out: Report = None,
) -> None:
    """mIoU and pixel accuracy of folders of label PNG files of the same names (CamVid and your own)."""
    from omgvision.evaluation.scores.mean_iou import score_labels

    options.quiet_libraries()
    _report(score_labels(gt, pred, num_classes=classes, void=void, workers=workers), out)


@app.command("cityscapes-panoptic")
def cityscapes_panoptic(
    gt: GroundTruth, pred: Predictions, workers: Workers, unseen: Unseen = None, out: Report = None
) -> None:
    """PQ, SQ, RQ of Cityscapes."""
    names = _read_unseen(unseen)
    from omgvision.evaluation.scores.cityscapes import score_panoptic

    options.quiet_libraries()
    _report(score_panoptic(gt, pred, unseen=names, workers=workers), out)


@app.command("cityscapes-semantic")
def cityscapes_semantic(gt: GroundTruth, pred: Predictions, workers: Workers, out: Report = None) -> None:
    """IoU and instance-weighted IoU of Cityscapes' classes and categories."""
    from omgvision.evaluation.scores.cityscapes import score_semantic

    options.quiet_libraries()
    _report(score_semantic(gt, pred, workers=workers), out)


@app.command("cityscapes-instances")
def cityscapes_instances(gt: GroundTruth, pred: Predictions, workers: Workers, out: Report = None) -> None:
    """AP and AP50 of Cityscapes' objects, from text files and mask PNG files."""
    from omgvision.evaluation.scores.cityscapes import score_instances

    options.quiet_libraries()
    _report(score_instances(gt, pred, workers=workers), out)


@app.command("clicks")
def clicks(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    max_clicks: Annotated[int, typer.Option(min=1, help="Most that an object gets.")] = 20,
    out: Report = None,
) -> None:
    """IoU at k clicks and NoC@80/85/90, from the masks (or IoU values) after each click."""
    from omgvision.evaluation.scores.click_iou import score

    options.quiet_libraries()
    _report(score(gt, pred, clicks=max_clicks, workers=workers), out, plain=("NoC@", "over_max@"))


@app.command("prompted")
def prompted(gt: GroundTruth, pred: Predictions, workers: Workers, unseen: Unseen = None, out: Report = None) -> None:
    """IoU of masks that answer prompts, one for each object of a COCO instances json, named by its id."""
    names = _read_unseen(unseen)

    from omgvision.evaluation.scores.class_agnostic import score

    options.quiet_libraries()
    _report(score(gt, pred, unseen=names, workers=workers), out)


@app.command("vpq")
def vpq(gt: GroundTruth, pred: Predictions, workers: Workers, out: Report = None) -> None:
    """VPQ of VIPSeg over windows of 1, 2, 4, 6 and 8 frames."""
    from omgvision.evaluation.scores.video_panoptic_quality import score

    options.quiet_libraries()
    _report(score(gt, pred, workers=workers), out)


@app.command("stq")
def stq(gt: GroundTruth, pred: Predictions, workers: Workers, out: Report = None) -> None:
    """STQ, AQ, SQ of VIPSeg's files."""
    from omgvision.evaluation.scores.segmentation_tracking_quality import score

    options.quiet_libraries()
    _report(score(gt, pred, workers=workers), out)


@app.command("youtube-vis")
def youtube_vis(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    class_agnostic: Annotated[bool, typer.Option("--class-agnostic", help="Take all categories for one.")] = False,
    out: Report = None,
) -> None:
    """AP and AR of tracks (YouTube-VIS, OVIS)."""
    from omgvision.evaluation.scores.video_average_precision import score

    options.quiet_libraries()
    _report(score(gt, pred, by_category=not class_agnostic, workers=workers), out)


@app.command("vspw")
def vspw(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    from_one: Annotated[
        bool, typer.Option("--from-one", help="True classes start at 1, 0 is void: VSPW's own numbering.")
    ] = False,
    out: Report = None,
) -> None:
    """mIoU, FWIoU and video consistency (VC8, VC16) of VSPW."""
    from omgvision.evaluation.scores.video_consistency import score

    options.quiet_libraries()
    _report(score(gt, pred, from_one=from_one, workers=workers), out)


Split = Annotated[str, typer.Option(metavar="NAME", help="Which list of sequences in ImageSets/2017.")]


@app.command("davis")
def davis(gt: GroundTruth, pred: Predictions, workers: Workers, split: Split = "val", out: Report = None) -> None:
    """J, F and J&F of DAVIS, semi-supervised: the first frame is given."""
    from omgvision.evaluation.scores.davis import score

    options.quiet_libraries()
    _report(score(gt, pred, split=split, workers=workers), out)


@app.command("davis-unsupervised")
def davis_unsupervised(
    gt: GroundTruth, pred: Predictions, workers: Workers, split: Split = "val", out: Report = None
) -> None:
    """J, F and J&F of DAVIS, unsupervised: up to 20 proposals, best assignment."""
    from omgvision.evaluation.scores.davis import score

    options.quiet_libraries()
    _report(score(gt, pred, protocol="unsupervised", split=split, workers=workers), out)


@app.command("referring")
def referring(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    protocol: Annotated[
        Literal["lisa", "gres"], typer.Option(help="How sentences without a target count; gres: gRefCOCO.")
    ] = "lisa",
    ignore: Annotated[bool, typer.Option("--ignore", help="Leave the pixels of ignore masks out: ReasonSeg.")] = False,
    split: Annotated[
        str, typer.Option(metavar="NAME", help="Which part, if --gt is a folder as RefCOCO and ReasonSeg have it.")
    ] = "val",
    out: Report = None,
) -> None:
    """gIoU, cIoU and Pr@X of masks for sentences (RefCOCO, gRefCOCO, ReasonSeg)."""
    from omgvision.evaluation.runner.sentence_files import read_samples
    from omgvision.evaluation.scores.referring import score

    options.quiet_libraries()
    samples = read_samples(gt, split=split) if gt.is_dir() else None
    _report(score(gt, pred, samples=samples, protocol=protocol, ignore=ignore, workers=workers), out)


@app.command("captions")
def captions(gt: GroundTruth, pred: Predictions, out: Report = None) -> None:
    """BLEU, METEOR, ROUGE-L and CIDEr of COCO captions. METEOR needs Java and omgvision\\[captions]."""
    from omgvision.evaluation.scores.captions import score

    options.quiet_libraries()
    _report(score(gt, pred), out)


@app.command("gcg")
def gcg(
    gt: GroundTruth,
    pred: Predictions,
    workers: Workers,
    split: Annotated[Literal["val", "test"], typer.Option(help="Which files of GranD-f.")] = "val",
    similarity: Annotated[
        Literal["bert", "jaccard", "exact", "any"],
        typer.Option(help="When a phrase is the right one; bert is the official way, any takes all."),
    ] = "bert",
    out: Report = None,
) -> None:
    """AP50, mIoU, Recall, METEOR and CIDEr of captions with masks (GranD-f)."""
    from omgvision.evaluation.scores.grounded_captions import score

    options.quiet_libraries()
    _report(score(gt, pred, split=split, similarity=similarity, workers=workers), out)


@app.command("multiple-choice")
def multiple_choice(
    gt: GroundTruth,
    pred: Predictions,
    matching: Annotated[
        Literal["exact", "letters"],
        typer.Option(help="How answers are read; exact: VLMEvalKit's, letters: OMG-LLaVA's, the first A to D."),
    ] = "exact",
    out: Report = None,
) -> None:
    """Accuracy over multiple-choice questions: circular evaluation (MMBench). Tables are tsv, csv, xlsx or json."""
    from omgvision.evaluation.scores.multiple_choice import score

    options.quiet_libraries()
    _report(score(gt, pred, matching=matching), out)


@app.command("pope")
def pope(gt: GroundTruth, pred: Predictions, out: Report = None) -> None:
    """Accuracy, precision, recall, F1 and yes-ratio of POPE, of one list or a folder of them."""
    from omgvision.evaluation.scores.pope import score

    options.quiet_libraries()
    _report(score(gt, pred), out)


@app.command("mme")
def mme(gt: GroundTruth, pred: Predictions, out: Report = None) -> None:
    """Perception and cognition scores of MME, in points, from folders with a text file for each subtask."""
    from omgvision.evaluation.scores.mme import score

    options.quiet_libraries()
    _report(score(gt, pred), out, plain=("perception", "cognition"))


def _read_unseen(text: str | None) -> list[str] | None:
    names = None if text is None else options.read_names(text)
    if isinstance(names, str):
        raise options.complain("--unseen: expected names separated by commas, or a file with one name a line")
    return names


def _report(numbers: Mapping[str, float | None], out: Path | None, *, plain: tuple[str, ...] = ()) -> None:
    """Prints the table in percent and the JSON line; writes the report.

    Args:
        numbers: Name → fraction, NaN or None where there is none. "AP/person" is one class's: for the report alone.
        out: Where the report goes.
        plain: Beginnings of names whose values are no fractions: printed as they are.
    """
    defined = {
        name: None if value is None or not math.isfinite(value) else float(value) for name, value in numbers.items()
    }
    if out is not None:
        _write(json.dumps(defined, indent=1), out)
    headline = {name: value for name, value in defined.items() if "/" not in name}
    width = max(map(len, headline))
    for name, value in headline.items():
        shown = "–" if value is None else f"{value:.2f}" if name.startswith(plain) else f"{100 * value:.2f}"
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
