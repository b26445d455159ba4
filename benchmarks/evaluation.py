"""The bundled weights on what shared/data holds out: reports of `omg evaluate` → docs/results/evaluation.json.

    for name in coco-mini-panoptic coco-mini-instances coco-mini-clicks camvid davis2016-mini-clicks; do
        omg evaluate $name --data ../shared/data --out runs/evaluation --device cpu; done
    python -m benchmarks.evaluation --runs runs/evaluation
    python benchmarks/make_tables.py

Nothing is computed here: numbers, checksums and versions are those of the reports, which must be of the same weights
and of whole benchmarks (`--parts` lets parts through, to try it out).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omgvision.output_files import write_json

ROOT = Path(__file__).resolve().parent.parent
SHOWN: dict[str, tuple[str, ...]] = {
    "coco-mini-panoptic": ("PQ", "SQ", "RQ"),
    "coco-mini-instances": ("AP", "AP50", "AP75"),
    "coco-mini-clicks": ("IoU@1", "IoU@3", "IoU@5", "box IoU"),
    "camvid": ("mIoU", "pixel_accuracy"),
    "davis2016-mini-clicks": ("IoU@1", "IoU@3", "IoU@5", "box IoU"),
}
"""Benchmark → the numbers of its row."""


class Unusable(ValueError):
    """A report that is missing, of a part or of other weights."""


def collect(runs: Path, *, parts: bool) -> dict[str, Any]:
    """What docs/results/evaluation.json holds.

    Args:
        runs: Folder of the runs, one folder a benchmark.
        parts: Take reports of some samples too.

    Raises:
        Unusable: See above.
    """
    reports = {name: _read(runs / name / "report.json") for name in SHOWN}
    weights = {name: report["model"]["sha256"] for name, report in reports.items()}
    first = next(iter(weights))
    rows = []
    for name, report in reports.items():
        if weights[name] != weights[first]:
            raise Unusable(f"{name}: expected the weights of {first} {weights[first]}, got {weights[name]}")
        if report["samples"] < report["samples_in_all"] and not parts:
            raise Unusable(
                f"{name}: expected a whole run, got {report['samples']} of {report['samples_in_all']} samples"
            )
        rows.append(
            {
                "benchmark": name,
                "title": report["title"],
                "samples": report["samples"],
                "samples_in_all": report["samples_in_all"],
                "numbers": {number: report["numbers"][number] for number in SHOWN[name]},
                "settings": report["settings"],
            }
        )
    report = reports[first]
    return {"model": report["model"], "environment": report["environment"], "rows": rows}


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: expected the report of `omg evaluate`, got none that can be read ({error})") from None


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="docs/results/evaluation.json from the reports of omg evaluate.")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "evaluation", help="folder of the runs")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "evaluation.json")
    parser.add_argument("--parts", action="store_true", help="take runs of some samples too: to try it out")
    options = parser.parse_args(arguments)
    try:
        content = collect(options.runs, parts=options.parts)
    except Unusable as error:
        print(error, file=sys.stderr)
        return 2
    write_json(options.out, content)
    print(f"written: {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
