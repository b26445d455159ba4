"""The report of a run: report.json for programs, report.md for people, worst.png for the eyes."""

import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from omgvision.evaluation.benchmark import Row
from omgvision.evaluation.runner.journal import Journal
from omgvision.evaluation.runner.task import Graded, Measured, Task, defined
from omgvision.output_files import write_image, write_json, write_text
from omgvision.visualization import grid

WORST = 20
TITLE = 46
"""Characters that fit over a picture."""

PACKAGES = ("omgvision", "torch", "transformers", "numpy", "pillow", "pycocotools", "scipy")
PLAIN = ("NoC@", "over_max@", "perception", "cognition", "score")
"""Beginnings of names whose values are no fractions."""


def build(
    benchmark: Row[Any, Any, Any],
    graded: Graded,
    *,
    run: Mapping[str, Any],
    measured: Measured,
    task: Task,
    journal: Journal,
    sample_ids: Sequence[str],
    processes: int,
) -> dict[str, Any]:
    """The content of report.json.

    Args:
        run: Content of run.json: model, data, settings.
        sample_ids: What was predicted.
        processes: How many predicted.
    """
    numbers = {name: defined(value) for name, value in graded.numbers.items()}
    per_sample = {task.name(one, journal[one]): journal.quality(one) for one in sample_ids}
    whole = len(sample_ids) == len(task.sample_ids)
    return {
        "benchmark": benchmark.name,
        "title": benchmark.title,
        "numbers": {name: value for name, value in numbers.items() if "/" not in name},
        "published": [
            {**entry, "difference": _difference(numbers, entry) if whole else None}
            for entry in benchmark.published_for(measured.model.config)
        ],
        "original": benchmark.original_of(measured.model.config),
        "per_class": {name: value for name, value in numbers.items() if "/" in name},
        "per_sample": {"number": task.quality, "values": per_sample},
        "samples": len(sample_ids),
        "samples_in_all": len(task.sample_ids),
        **run,
        "note": graded.note,
        "check": " ".join(["omg score", *graded.command]) if graded.command and whole else None,
        "environment": environment(measured, processes=processes),
    }


def _difference(numbers: Mapping[str, float | None], entry: Mapping[str, Any]) -> float | None:
    ours = numbers.get(entry["number"])
    return None if ours is None else ours - entry["value"]


def environment(measured: Measured, *, processes: int) -> dict[str, Any]:
    """What a number may depend on besides model and data."""
    return {
        "versions": {"python": platform.python_version(), **{one: importlib.metadata.version(one) for one in PACKAGES}},
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(measured.device),
        "dtype": str(measured.model.dtype).removeprefix("torch."),
        "processes": processes,
    }


def describe(measured: Measured) -> dict[str, Any]:
    """Which model it is."""
    return {
        "name": measured.name,
        "sha256": checksums(measured),
        "parameters": sum(parameter.numel() for parameter in measured.model.parameters()),
    }


def checksums(measured: Measured) -> dict[str, str]:
    """File → sha256 of the weights' files; of the tensors themselves for a model that was never a file."""
    folder = Path(measured.model.config.name_or_path or "-")
    # An adapter lies in a folder of its own.
    files = sorted(path for form in ("*", "*/adapter_model") for path in folder.glob(f"{form}.safetensors"))
    if files:
        return {path.relative_to(folder).as_posix(): _sha256(path, path.stat().st_mtime_ns) for path in files}
    digest = hashlib.sha256()
    for name, tensor in sorted(measured.model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return {"state_dict": digest.hexdigest()}


@cache
def _sha256(path: Path, changed: int) -> str:
    """Of a file that was written at `changed`: read once for all benchmarks."""
    del changed
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write(report: dict[str, Any], folder: Path, *, task: Task, journal: Journal, sample_ids: Sequence[str]) -> None:
    """All files of the report."""
    worst = worst_of(journal, sample_ids)
    if worst:
        pictures, titles = [], []
        for one in worst:
            record = journal[one]
            panel = task.panel(one, record, folder / "predictions")
            pictures += panel.draw()
            usual = task.name(one, record), f"{task.quality}: {100 * (journal.quality(one) or 0):.1f}"
            titles += [_fitted(title) for title in panel.titles or usual]
        write_image(grid(pictures, columns=4, titles=titles), folder / "worst.png")
    write_json(folder / "report.json", report)
    shown = [(task.name(one, journal[one]), journal.quality(one) or 0.0) for one in worst]
    write_text(folder / "report.md", markdown(report, worst=shown))


def _fitted(title: str) -> str:
    """No wider than a picture of the sheet."""
    return title if len(title) <= TITLE else f"{title[: TITLE - 1]}…"


def worst_of(journal: Journal, sample_ids: Sequence[str]) -> list[str]:
    """The samples with the lowest numbers of their own; those without any are left out."""
    rated = [(quality, one) for one in sample_ids if (quality := journal.quality(one)) is not None]
    return [one for _, one in sorted(rated)[:WORST]]


def shown(name: str, value: float | None) -> str:
    """Per cent, or as it is for what is no fraction."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.2f}" if name.startswith(PLAIN) else f"{100 * value:.2f}"


def comparison(report: Mapping[str, Any]) -> list[list[str]]:
    """Number, ours, published, its noise, what it is."""
    by_number: dict[str, list[Mapping[str, Any]]] = {}
    for entry in report["published"]:
        by_number.setdefault(entry["number"], []).append(entry)
    rows = []
    for name, value in report["numbers"].items():
        ours = shown(name, value)
        for entry in by_number.get(name, [{}]):
            if not entry:
                rows.append([name, ours, "", "", ""])
                continue
            noise = "unknown" if entry["noise"] is None else f"±{100 * entry['noise']:.1f}"
            rows.append([name, ours, shown(name, entry["value"]), noise, verdict(report, entry)])
            ours = ""
    return rows


def verdict(report: Mapping[str, Any], entry: Mapping[str, Any]) -> str:
    """What the published number is, and how ours compares."""
    origin = f"{entry['model']}{'' if entry['confirmed'] else ', unconfirmed'}"
    if report["samples"] < report["samples_in_all"]:
        return f"{origin}; ours on {report['samples']} of {report['samples_in_all']} samples: not comparable"
    if report["original"] is None or report["original"] not in entry["model"]:
        return f"{origin}; ours is another model"
    if entry["difference"] is None:
        return origin
    scale = 1 if entry["number"].startswith(PLAIN) else 100
    text = f"{origin}; {scale * entry['difference']:+.2f}"
    if entry["noise"] is None:
        return text
    return f"{text}, {'within' if abs(entry['difference']) <= entry['noise'] else 'outside'} the published noise"


def markdown(report: Mapping[str, Any], *, worst: Sequence[tuple[str, float]]) -> str:
    """report.md."""
    model, settings, environ = report["model"], report["settings"], report["environment"]
    samples = f"{report['samples']} of {report['samples_in_all']} samples"
    parts = [f"# {report['title']}: {model['name']}", f"{samples}. In percent.", ""]
    if report["numbers"]:
        parts.append(_table(["number", "ours", "published", "noise", ""], comparison(report)))
    if report["note"]:
        parts += ["", report["note"]]
    if report["check"]:
        parts += ["", "The same from the prediction files:", "", f"    {report['check']}"]
    if report["published"]:
        sources = dict.fromkeys(entry["source"] for entry in report["published"])
        noise = " Noise: what the original's README says of its own runs." if _has_noise(report) else ""
        parts += ["", f"Published: {'; '.join(sources)}.{noise}"]
    parts += ["", "## How", ""]
    rows = [
        ["data", report["data"]],
        *[[f"weights `{name}`", f"sha256 `{sum_}`"] for name, sum_ in model["sha256"].items()],
    ]
    rows += [["parameters", f"{model['parameters']:,}"]]
    rows += [[key.replace("_", " "), json.dumps(value)] for key, value in settings.items() if value]
    rows += [[key, json.dumps(value) if isinstance(value, dict) else str(value)] for key, value in environ.items()]
    parts.append(_table(["", ""], rows))
    classes = _by_class(report["per_class"])
    if classes:
        names = list(dict.fromkeys(name for row in classes.values() for name in row))[:6]
        rows = [[one, *[shown(name, row.get(name)) for name in names]] for one, row in classes.items()]
        parts += ["", "## By class, video or object", "", _table(["", *names], rows)]
    if worst:
        number = report["per_sample"]["number"]
        parts += ["", f"## The worst {len(worst)} samples", "", "Left the truth, right the prediction: `worst.png`."]
        parts += ["", _table(["sample", number], [[name, shown(number, value)] for name, value in worst])]
    return "\n".join(parts) + "\n"


def _has_noise(report: Mapping[str, Any]) -> bool:
    return any(entry["noise"] is not None for entry in report["published"])


def _by_class(numbers: Mapping[str, float | None]) -> dict[str, dict[str, float | None]]:
    """ "PQ/person" → person → PQ; classes without any number are left out."""
    rows: dict[str, dict[str, float | None]] = {}
    for key, value in numbers.items():
        name, _, one = key.partition("/")
        rows.setdefault(one, {})[name] = value
    return {one: row for one, row in rows.items() if any(value is not None for value in row.values())}


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
