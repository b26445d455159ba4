"""Options that several verbs share, and how their texts are read."""

import dis
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import typer

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Folder, checkpoint file or Hub id; by default the bundled weights (see [bold]omg models[/bold]).",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(metavar="FILE|ID", help="OpenCLIP weights for an original checkpoint that has no backbone."),
]
Device = Annotated[
    str | None, typer.Option(metavar="DEVICE", help="cpu, cuda, cuda:1, mps, …; by default an accelerator if any.")
]
Dtype = Annotated[str | None, typer.Option(metavar="DTYPE", help="float32 (default), bfloat16 or float16.")]
Out = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the results go.")]

Artifact = Literal["overlay", "panoptic", "semantic", "json", "masks"]
ARTIFACTS: tuple[Artifact, ...] = get_args(Artifact)
ClassList = Literal[
    "coco",
    "coco-things",
    "ade20k",
    "cityscapes",
    "pascal_voc",
    "objects365",
    "camvid",
    "coco_stuff",
    "vipseg",
    "vspw",
    "youtube_vis_2019",
    "youtube_vis_2021",
    "ovis",
]
CLASS_LISTS: tuple[ClassList, ...] = get_args(ClassList)


def complain(message: str) -> typer.BadParameter:
    """A user's error before omgvision is imported; `main` prints it as one line."""
    return typer.BadParameter(message)


def is_users(error: Exception) -> bool:
    """Whether the user can repair it: a ValueError (UserError is one) that a `raise` of our own code made."""
    trace = error.__traceback__
    if not isinstance(error, ValueError) or trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "")
    # Python, numpy and torch raise ValueErrors in the middle of our lines as well, without a `raise` of ours.
    is_raise = trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return is_raise and module.startswith(("omgvision.", "omg_cli."))


def read_artifacts(text: str) -> list[Artifact]:
    """ "overlay,json" → what `Result.save` takes."""
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    unknown = sorted(wanted - set(ARTIFACTS))
    if unknown or not wanted:
        raise complain(f"--save: expected some of {','.join(ARTIFACTS)}, got {unknown[0] if unknown else 'nothing'!r}")
    return [name for name in ARTIFACTS if name in wanted]


def read_numbers(text: str, option: str, form: str, *, counts: tuple[int, ...]) -> list[float]:
    """ "410,220" → [410.0, 220.0], as many as one of `counts`."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in counts:
        raise complain(f"{option} {text}: expected {form} in pixels of the image")
    return values


def read_names(text: str) -> ClassList | list[str]:
    """--classes: a bundled list, a file with one class a line, or names separated by commas.

    Synonyms of one class are separated by slashes on the command line ("sofa/couch"), by commas in a file.
    """
    for known in CLASS_LISTS:
        if text == known:
            return known
    path = Path(text).expanduser()
    if _is_file(path):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            raise complain(f"--classes: {path} is no text file: expected one class name a line") from None
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if path.suffix == ".txt":
        raise complain(f"--classes: the file {path} does not exist")
    return split_names(text)


def split_names(text: str) -> list[str]:
    """ "a,b" → ["a", "b"]; empty pieces stay, so that a forgotten name is noticed."""
    return [name.strip() for name in text.split(",")] if text.strip() else []


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a long list of names is no valid file name
        return False


def quiet_libraries(*, progress: bool = False) -> None:
    """Of all that is logged only our own warnings (and with `progress`, our news), one line each, on stderr."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("omg: %(message)s"))
    logger = logging.getLogger("omgvision")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO if progress else logging.WARNING)


def summary(labels: Sequence[str]) -> str:
    """ "7 segments: person ×3, sky, …"."""
    counts: dict[str, int] = {}
    for label in labels:
        counts[label] = counts.get(label, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    names = [name if count == 1 else f"{name} ×{count}" for name, count in ordered[:8]]
    rest = f", and {len(ordered) - 8} classes more" if len(ordered) > 8 else ""
    many = f"{len(labels)} segment{'' if len(labels) == 1 else 's'}"
    return f"{many}: {', '.join(names)}{rest}" if names else many
