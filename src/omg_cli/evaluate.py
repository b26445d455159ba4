"""`omg evaluate`: a model on a benchmark → its number beside the published one, and a report."""

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from . import options

if TYPE_CHECKING:
    from omgvision.evaluation.benchmark import Row
    from omgvision.evaluation.benchmarks import Benchmark
    from omgvision.evaluation.language_benchmarks import LanguageBenchmark
    from omgvision.evaluation.runner.run import Size
    from omgvision.predictor import Predictor
    from omgvision.training.processes import Processes

ALL = "all"


def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Benchmark, or all; without one they are listed."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The data set's folder, or one with the folders of many.")
    ] = None,
    model: options.Model = None,
    backbone: options.Backbone = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the folder of the run, called NAME, goes.")
    ] = Path("omg_evaluation"),
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many samples, spread evenly over all.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, if there is one; start it otherwise.")
    ] = False,
    size: Annotated[
        str,
        typer.Option(
            metavar="LONG,SHORT|own|published",
            help="Edges that pictures are resized to (type omg_seg). By default as published for models of the"
            " original's size, and the model's own for others.",
        ),
    ] = "auto",
    mode: Annotated[
        Literal["stream", "offline"],
        typer.Option(help="How videos are tracked: frame by frame, or whole ones as the original does it."),
    ] = "offline",
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> None:
    """Measure a model on a benchmark, beside the published numbers.

    [bold]omg evaluate coco-panoptic --data coco --model LXT/OMG_Seg[/bold]

    Writes prediction files in the benchmark's own format (for `omg score` and the official tool), report.json,
    report.md and worst.png. Several processes share the samples: torchrun --nproc-per-node 4 -m omg_cli evaluate …
    """
    edges = _read_size(size)
    from omgvision.evaluation.benchmarks import BENCHMARKS
    from omgvision.evaluation.language_benchmarks import GROUPS, LANGUAGE_BENCHMARKS

    if name is None:
        _list()
        return
    if name != ALL and name not in (known := [*BENCHMARKS, *GROUPS, *LANGUAGE_BENCHMARKS]):
        raise options.complain(f"{name}: expected a benchmark ({', '.join(known)}) or {ALL}")
    if data is None:
        raise options.complain("--data: expected the folder of the data set, got none")
    of_words = _is_language_model(model)
    if name != ALL and of_words != (name not in BENCHMARKS):
        raise _other_model(name, model)
    if of_words:
        if edges != "auto":
            raise options.complain(f"--size {size}: {name} needs none, pictures are as large as the model takes them")
        names = list(LANGUAGE_BENCHMARKS) if name == ALL else list(GROUPS.get(name, (name,)))
        assert model is not None
        _evaluate_words(names, model, data=data, out=out, limit=limit, resume=resume, device=device, dtype=dtype)
        return

    from omgvision.training.processes import launched_processes

    processes = launched_processes()
    options.quiet_libraries()
    wanted = _present(list(BENCHMARKS.values()), data) if name == ALL else [BENCHMARKS[name]]
    for benchmark in wanted:
        benchmark.locate(data)  # data that are missing are reported before the weights are loaded
    predictor = _load(model, backbone=backbone, device=device, dtype=dtype, processes=processes)
    measure = partial(
        _evaluate,
        predictor=predictor,
        data=data,
        out=out,
        limit=limit,
        resume=resume,
        size=edges,
        mode=mode,
        processes=processes,
    )
    _each(wanted, measure, processes=processes)


def _read_size(text: str) -> "Size":
    words: tuple[Literal["auto", "own", "published"], ...] = ("auto", "own", "published")
    for word in words:
        if text == word:
            return word
    try:
        long, short = (int(edge) for edge in text.split(","))
    except ValueError:
        long = short = 0
    if not 1 <= short <= long:
        raise options.complain(f"--size {text}: expected LONG,SHORT in pixels (as 1333,800), own or published")
    return long, short


RowT = TypeVar("RowT", bound="Row[Any, Any, Any]")


def _list() -> None:
    from omgvision.evaluation.benchmarks import BENCHMARKS
    from omgvision.evaluation.language_benchmarks import GROUPS, LANGUAGE_BENCHMARKS, MODEL_TYPE

    titles = {row.name: row.title for row in BENCHMARKS.values()}
    grouped = {name: group for group, names in GROUPS.items() for name in names}
    for row in LANGUAGE_BENCHMARKS.values():
        key = grouped.get(row.name, row.name)
        titles[key] = f"{row.title} (needs a model of type {MODEL_TYPE})"
        if key in GROUPS:
            titles[key] = f"{', '.join(GROUPS[key])} (needs a model of type {MODEL_TYPE})"
    width = max(map(len, titles))
    print("\n".join(f"{key:{width}}  {title}" for key, title in titles.items()))


def _is_language_model(model: str | None) -> bool:
    """Whether it is a folder of a model that reads sentences."""
    from omgvision.evaluation.language_benchmarks import MODEL_TYPE

    if model is None:
        return False
    try:
        fields = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(fields, dict) and fields.get("model_type") == MODEL_TYPE


def _other_model(name: str, model: str | None) -> typer.BadParameter:
    from omgvision.evaluation.benchmarks import BENCHMARKS
    from omgvision.evaluation.language_benchmarks import GRADED_BY, GROUPS, MODEL_TYPE

    got = "the bundled weights" if model is None else model
    if name in BENCHMARKS:
        return options.complain(f"{name}: expected a model of type omg_seg, got {got} of type {MODEL_TYPE}")
    group = next((group for group, names in GROUPS.items() if name in names), name)
    return options.complain(
        f"{name}: needs a model of type {MODEL_TYPE}, which reads sentences: give its folder as --model (made by omg"
        f" convert or omg train), got {got}. Answers that you have are graded by `omg score {GRADED_BY[group]}`"
    )


def _evaluate_words(
    names: list[str], model: str, *, data: Path, out: Path, device: str | None, dtype: str | None, **arguments: Any
) -> None:
    from omgvision.evaluation.language_benchmarks import LANGUAGE_BENCHMARKS
    from omgvision.evaluation.runner.run import evaluate_language
    from omgvision.evaluation.runner.speaker import load_speaker
    from omgvision.training.processes import launched_processes

    processes = launched_processes()
    options.quiet_libraries()
    rows = [LANGUAGE_BENCHMARKS[name] for name in names]
    wanted = _present(rows, data) if len(rows) > 1 else rows
    for row in wanted:
        row.locate(data)  # data that are missing are reported before the weights are loaded
    if processes.count > 1 and device is None:
        device = _own_device(processes.local_rank)
    speaker = load_speaker(Path(model).expanduser(), device=device, dtype=dtype)

    def measure(row: "LanguageBenchmark") -> None:
        folder = out / row.name
        report = evaluate_language(row, data, speaker, out=folder, processes=processes, **arguments)
        _show(report, folder, model=speaker.name)

    _each(wanted, measure, processes=processes)


def _each(rows: list[RowT], measure: Callable[[RowT], None], *, processes: "Processes") -> None:
    """Measures on all of them; of several, one that cannot be measured does not keep the others from it."""
    all_well = True
    for row in rows:
        try:
            measure(row)
        except ValueError as error:
            # Processes wait for each other: one that goes on would meet the rest in the middle of another benchmark.
            if len(rows) == 1 or processes.count > 1 or not options.is_users(error):
                raise
            print(f"omg: {row.name}: {' '.join(str(error).split())}", file=sys.stderr)
            all_well = False
    if not all_well:
        raise typer.Exit(2)


def _present(rows: list[RowT], data: Path) -> list[RowT]:
    """Those whose data are there; the others are named."""
    places = {row.name: (data, *(data / folder for folder in row.folders)) for row in rows}
    there = [row for row in rows if any(not row.missing(place) for place in places[row.name])]
    absent = [row.name for row in rows if row not in there]
    if not there:
        raise options.complain(f"--data {data}: expected the data of at least one benchmark, got none of {len(rows)}")
    if absent:
        print(f"omg: left out, their data are not in {data}: {', '.join(absent)}", file=sys.stderr)
    return there


def _load(
    model: str | None, *, backbone: str | None, device: str | None, dtype: str | None, processes: "Processes"
) -> "Predictor":
    from omgvision import load

    if processes.count > 1 and device is None:
        device = _own_device(processes.local_rank)
    return load(model, device=device, dtype=dtype, backbone=backbone)  # type: ignore[arg-type]


def _own_device(local_rank: int) -> str | None:
    """One accelerator a process, where there are some."""
    import torch

    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return None if accelerator is None else f"{accelerator.type}:{local_rank % torch.accelerator.device_count()}"


def _evaluate(benchmark: "Benchmark", *, predictor: "Predictor", data: Path, out: Path, **arguments: Any) -> None:
    from omgvision.evaluation.runner.run import evaluate as measure

    folder = out / benchmark.name
    report = measure(benchmark, data, predictor, out=folder, **arguments)
    _show(report, folder, model=predictor.name)


def _show(report: dict[str, Any] | None, folder: Path, *, model: str) -> None:
    from omgvision.evaluation.runner.report import comparison

    if report is None:
        return
    print(f"{report['title']}: {report['samples']} of {report['samples_in_all']} samples, {model}")
    rows = [["", "ours", "published", "noise", ""], *comparison(report)]
    width = max(len(row[0]) for row in rows)
    for number, ours, published, noise, remark in rows:
        print(f"{number:{width}s}  {ours:>7s}  {published:>9s}  {noise:>7s}  {remark}".rstrip())
    if report["note"]:
        print(report["note"])
    print(f"written: {folder / 'report.md'}")
