"""A model on a benchmark: predict sample by sample, grade the files, write the report.

OUT/run.json            what is measured: has to be the same when a run is resumed
OUT/samples/*.jsonl     what has been predicted, one file a process (`Journal`)
OUT/predictions/        files in the benchmark's own format
OUT/report.json, report.md, worst.png
"""

import copy
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from transformers.image_utils import SizeDict

from omgvision.errors import UserError
from omgvision.evaluation.benchmark import Row
from omgvision.evaluation.benchmarks import Benchmark, backbone_of
from omgvision.evaluation.language_benchmarks import LanguageBenchmark
from omgvision.evaluation.runner import report
from omgvision.evaluation.runner.journal import Journal
from omgvision.evaluation.runner.speaker import Speaker
from omgvision.evaluation.runner.task import Measured, Settings, Task
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.output_files import ensure_writable, write_json
from omgvision.predictor import Predictor, VideoMode
from omgvision.training.processes import Processes

logger = logging.getLogger(__name__)

Size = Literal["auto", "own", "published"] | tuple[int, int]
T = TypeVar("T")


def evaluate(
    benchmark: Benchmark,
    data: Path,
    predictor: Predictor,
    *,
    out: Path,
    limit: int | None = None,
    resume: bool = False,
    size: Size = "auto",
    mode: VideoMode | None = None,
    processes: Processes = Processes(),  # noqa: B008 - immutable
) -> dict[str, Any] | None:
    """Measures a model.

    Args:
        benchmark: A row of `BENCHMARKS`.
        data: The data set's folder, or one that has it.
        predictor: The model.
        out: Folder of the run.
        limit: At most so many samples, spread evenly over all.
        resume: Go on with the run in `out`, if there is one.
        size: What pictures are resized to: long and short edge; "published" = as the original was measured; "own" = as
            the model's processor does it; "auto" = "published" for a model of the original's size, else "own".
        mode: How videos are tracked; None = as the original does it.
        processes: This process among those that share the samples. All of them write below `out`.

    Returns:
        The content of report.json; None in processes other than the first.

    Raises:
        UserError: The data are not there, the model lacks what the benchmark asks for, or `out` has another run.
    """
    root = benchmark.locate(data)
    settings = _settings(benchmark, predictor, size, mode)
    predictor = _resized(predictor, settings.size)
    task = benchmark.task(root, predictor, settings)
    run = {"data": str(root), "limit": limit, "settings": asdict(settings)}
    return _measure(benchmark, task, predictor, run=run, out=out, resume=resume, processes=processes)


def evaluate_language(
    benchmark: LanguageBenchmark,
    data: Path,
    speaker: Speaker,
    *,
    out: Path,
    limit: int | None = None,
    resume: bool = False,
    processes: Processes = Processes(),  # noqa: B008 - immutable
) -> dict[str, Any] | None:
    """Measures a model that reads and writes sentences.

    Args:
        benchmark: A row of `LANGUAGE_BENCHMARKS`.
        data, out, limit, resume, processes: As of `evaluate`.
        speaker: The model.

    Returns:
        As `evaluate`.

    Raises:
        UserError: The data are not there, or `out` has another run.
    """
    root = benchmark.locate(data)
    task = benchmark.task(root, speaker, benchmark.settings)
    run = {"data": str(root), "limit": limit, "settings": asdict(benchmark.settings)}
    return _measure(benchmark, task, speaker, run=run, out=out, resume=resume, processes=processes)


def _measure(
    benchmark: Row[Any, Any, Any],
    task: Task,
    measured: Measured,
    *,
    run: dict[str, Any],
    out: Path,
    resume: bool,
    processes: Processes,
) -> dict[str, Any] | None:
    """Predicts what is not predicted yet, grades all files and writes the report."""
    chosen = evenly(task.sample_ids, run["limit"])
    if processes.rank == 0:  # it alone reads the weights anew, for their checksums
        run = {"model": report.describe(measured), **run}
        _prepare(out, {"benchmark": benchmark.name, **run}, resume=resume)
    processes.wait()
    journal = Journal(out / "samples", writer=f"{processes.rank:03d}")
    mine = [one for one in chosen[processes.rank :: processes.count] if one not in journal]
    if processes.rank == 0 and len(journal):
        logger.info("%s: %d of %d samples were done already", benchmark.name, len(journal), len(chosen))
    predictions = out / "predictions"
    with _progress(benchmark.name, shown=processes.rank == 0) as bar:
        for one in bar.track(mine, description=benchmark.name):
            outcome = task.predict(one, predictions)
            journal.append(one, outcome.record, outcome.quality)
    processes.wait()
    if processes.rank:
        return None
    journal = Journal(out / "samples", writer="000")
    graded = task.grade(chosen, journal, predictions, workers=os.cpu_count() or 1)
    content = report.build(
        benchmark,
        graded,
        run=run,
        measured=measured,
        task=task,
        journal=journal,
        sample_ids=chosen,
        processes=processes.count,
    )
    report.write(content, out, task=task, journal=journal, sample_ids=chosen)
    return content


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """At most `limit` items, spread evenly."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, limit).astype(int).tolist()]


def _settings(benchmark: Benchmark, predictor: Predictor, size: Size, mode: VideoMode | None) -> Settings:
    """The benchmark's, with the size and the mode that are used."""
    settings = benchmark.settings
    if size == "auto":
        size = "own" if backbone_of(predictor.model.config) is None else "published"
    if size != "published":
        settings = replace(settings, size=None if size == "own" else size)
    if mode is not None and settings.mode is not None:
        settings = replace(settings, mode=mode)
    return settings


def _resized(predictor: Predictor, size: tuple[int, int] | None) -> Predictor:
    """The same model behind a processor of another size."""
    if size is None:
        return predictor
    images = copy.copy(predictor.processor.image_processor)
    images.size = SizeDict(longest_edge=max(size), shortest_edge=min(size))
    processor = OmgSegProcessor(images, predictor.processor.tokenizer)
    return Predictor(predictor.model, processor, name=predictor.name)


def _prepare(out: Path, run: dict[str, Any], *, resume: bool) -> None:
    """Makes the folder of a new run, or checks that the one that is there is the same."""
    ensure_writable(out)
    path = out / "run.json"
    if not path.exists():
        if any((out / "samples").glob("*.jsonl")):
            raise UserError(f"{out} has samples of a run that it does not describe (no run.json): choose another --out")
        write_json(path, run)
        return
    if not resume:
        raise UserError(f"{out} has a run already: continue it with --resume, or choose another --out")
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: choose another --out") from None
    now = json.loads(json.dumps(run))
    for key in now:
        if before.get(key) != now[key]:
            raise UserError(
                f"{out} has a run with another {key}: {_short(before.get(key))}, now {_short(now[key])}: choose another"
                " --out"
            )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 200 else f"{text[:200]}…"


def _progress(title: str, *, shown: bool) -> Progress:
    del title
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal))
