"""How fast the image metrics are beside the official implementations: the same files, one process, one run.

Official ones are taken where the package index has them: pycocotools (COCO AP) and cityscapesScripts, whose panoptic
part is the code of panopticapi, which is not on the index. cityscapesScripts wants packages that clash with ours,
so it is put beside them; without it only COCO is measured:

    pip install --no-deps --target OFFICIAL cityscapesScripts pyquaternion
    PYTHONPATH=OFFICIAL python -m benchmarks.metrics images            # two minutes
    PYTHONPATH=OFFICIAL python -m benchmarks.metrics images --quick    # seconds: shows that it runs, measures nothing

Repeats of the two alternate; the fastest of each counts, from files to numbers, in seconds of processor time, which
other work on the machine disturbs little. The numbers have to be equal.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from omgvision.evaluation.cityscapes_labels import CITYSCAPES_LABELS
from omgvision.evaluation.machine import cpu_name
from omgvision.evaluation.panoptic_files import write_ids
from omgvision.evaluation.scores import average_precision, cityscapes, panoptic_quality
from omgvision.output_files import write_json

HERE = Path(__file__).resolve().parent
EVALUATED = [label for label in CITYSCAPES_LABELS if label.evaluated]

Numbers = dict[str, float]


@dataclass(frozen=True)
class Setup:
    frames: int
    size: tuple[int, int]
    streets: int
    street_size: tuple[int, int]
    images: int
    repeats: int


FULL = Setup(frames=100, size=(720, 1280), streets=4, street_size=(1024, 2048), images=100, repeats=3)
QUICK = Setup(frames=4, size=(72, 128), streets=2, street_size=(64, 128), images=5, repeats=1)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny inputs: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, help="json file; benchmarks/results/metrics.json unless --quick")
    arguments = parser.parse_args(words)
    report = measure(QUICK if arguments.quick else FULL)
    for row in report["rows"]:
        print(f"{row['metric']:40s} {row['ours_s']:8.2f} s  official {row['official_s']:8.2f} s  {row['ratio']:6.1f} ×")
    out = arguments.out or (None if arguments.quick else HERE / "results" / "metrics.json")
    if out is not None:
        write_json(out, report)
        print(f"written: {out}")


def measure(setup: Setup) -> dict[str, Any]:
    """All rows, and where they were measured."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        coco = write_detections(root / "coco", setup)
        for kind in ("segm", "bbox"):
            ours, theirs = _coco_pair(coco, kind)
            rows.append(compare(f"COCO {kind} AP, {setup.images} images", ours, theirs, setup=setup))
        if importlib.util.find_spec("cityscapesscripts") is None:
            print("cityscapesScripts is not installed: its three rows are left out", file=sys.stderr)
        else:
            size = "×".join(map(str, setup.size[::-1]))
            panoptic = write_panoptic(root / "panoptic", setup, frames=setup.frames)
            rows.append(compare(f"PQ, {setup.frames} frames of {size}", *_panoptic_pair(panoptic), setup=setup))
            panoptic = write_panoptic(root / "decoded", setup, frames=setup.frames // 4)
            with mock.patch.object(Image, "open", decoded(panoptic).__getitem__):
                name = f"PQ, {setup.frames // 4} frames of {size}, decoded already"
                more = replace(setup, repeats=5 * setup.repeats)  # short, so noisy
                rows.append(compare(name, *_panoptic_pair(panoptic), setup=more))
            streets = write_streets(root / "streets", setup)
            size = f"{setup.streets} frames of {'×'.join(map(str, setup.street_size[::-1]))}"
            rows.append(compare(f"Cityscapes IoU, {size}", *_semantic_pair(streets), setup=setup))
            rows.append(compare(f"Cityscapes AP, {size}", *_instances_pair(streets), setup=setup))
    machine = {"cpus": os.cpu_count(), "processor": cpu_name(), "system": platform.platform()}
    versions = {"python": platform.python_version(), "numpy": np.__version__, "pillow": Image.__version__}
    return {"repeats": setup.repeats, "machine": machine, "versions": versions, "rows": rows}


def compare(metric: str, ours: Callable[[], Numbers], theirs: Callable[[], Numbers], *, setup: Setup) -> dict[str, Any]:
    """Processor seconds of both, the fastest of alternating repeats; the numbers of `theirs` must be among ours."""
    seconds: dict[Callable[[], Numbers], list[float]] = {ours: [], theirs: []}
    found: dict[Callable[[], Numbers], Numbers] = {}
    for _ in range(setup.repeats):
        for run in (ours, theirs):
            started = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                found[run] = run()
            seconds[run].append(time.process_time() - started)
    for name, value in found[theirs].items():
        mine = found[ours][name]
        assert np.isclose(mine, value, rtol=0, atol=1e-9, equal_nan=True), (
            f"{metric} {name}: {mine}, officially {value}"
        )
    best, official = min(seconds[ours]), min(seconds[theirs])
    return {
        "metric": metric,
        "ours_s": round(best, 3),
        "official_s": round(official, 3),
        "ratio": round(official / max(best, 1e-9), 2),
        "numbers": found[theirs],
    }


def regions(generator: np.random.Generator, size: tuple[int, int], count: int) -> np.ndarray:
    """Region numbers [H, W] with ragged borders, as annotated photographs have them."""
    height, width = size
    rows, columns = np.mgrid[:height:4, :width:4].astype(np.float32)
    wobble = ndimage.gaussian_filter(generator.normal(0, 1, (2, *rows.shape)), (0, 4, 4)) * 60
    centres = generator.uniform(0, 1, (count, 2)) * size
    distance = [(rows + wobble[0] - y) ** 2 + (columns + wobble[1] - x) ** 2 for y, x in centres]
    coarse = np.argmin(distance, axis=0)
    return coarse.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]


def perturbed(generator: np.random.Generator, truth: np.ndarray) -> np.ndarray:
    """The same regions, moved by some pixels, a tenth of them merged into others."""
    moved = np.roll(truth, tuple(generator.integers(-6, 7, 2)), axis=(0, 1))
    table = np.arange(truth.max() + 1)
    lost = generator.random(table.size) < 0.1
    table[lost] = generator.integers(0, table.size, lost.sum())
    return table[moved]


class _Pictures(dict[str, Image.Image]):
    """By path, whichever kind of path is asked for."""

    def __getitem__(self, path: str | Path) -> Image.Image:
        return super().__getitem__(str(path))


def decoded(root: Path) -> _Pictures:
    """All PNG files below, in memory: decompressing is the same work for everyone, and most of the work."""
    pictures = _Pictures()
    for path in root.rglob("*.png"):
        with Image.open(path) as picture:
            pictures[str(path)] = picture.copy()
    return pictures


def write_panoptic(root: Path, setup: Setup, *, frames: int) -> Path:
    """gt.json and pred.json with their PNG folders: 40 segments a frame of 19 categories."""
    generator = np.random.default_rng(0)
    annotations: dict[str, list[dict[str, Any]]] = {"gt": [], "pred": []}
    for frame in range(frames):
        truth = regions(generator, setup.size, 40)
        ids = generator.choice(2**24 - 1, 40, replace=False) + 1
        categories = generator.integers(0, len(EVALUATED), 40)
        for stem, numbers in (("gt", truth), ("pred", perturbed(generator, truth))):
            (root / stem).mkdir(parents=True, exist_ok=True)
            write_ids(ids[numbers], root / stem / f"{frame}.png")
            segments = [
                {
                    "id": int(ids[number]),
                    "category_id": EVALUATED[categories[number]].id,
                    "area": int((numbers == number).sum()),
                    "iscrowd": 0,
                }
                for number in np.unique(numbers)
            ]
            annotations[stem].append({"image_id": frame, "file_name": f"{frame}.png", "segments_info": segments})
    categories = [{"id": one.id, "name": one.name, "isthing": int(one.is_thing)} for one in EVALUATED]
    for stem, entries in annotations.items():
        (root / f"{stem}.json").write_text(json.dumps({"annotations": entries, "categories": categories}))
    return root


def _panoptic_pair(root: Path) -> tuple[Callable[[], Numbers], Callable[[], Numbers]]:
    official: Any = _official("evalPanopticSemanticLabeling")

    def theirs() -> Numbers:
        truth, guess = (json.loads((root / f"{stem}.json").read_text()) for stem in ("gt", "pred"))
        categories = {entry["id"]: entry for entry in truth["categories"]}
        by_image = {entry["image_id"]: entry for entry in guess["annotations"]}
        pairs = [(entry, by_image[entry["image_id"]]) for entry in truth["annotations"]]
        counts = official.pq_compute_single_core(0, pairs, str(root / "gt"), str(root / "pred"), categories)
        means = official.average_pq(counts, categories)["All"]
        return {name.upper(): means[name] for name in ("pq", "sq", "rq")}

    return lambda: panoptic_quality.score(root / "gt.json", root / "pred.json"), theirs


def write_streets(root: Path, setup: Setup) -> Path:
    """Cityscapes' layout: gtFine/val/city, semantic/ and instances/ with predictions. 60 regions a frame."""
    generator = np.random.default_rng(0)
    for folder in ("gtFine/val/city", "semantic", "instances/masks"):
        (root / folder).mkdir(parents=True)
    for frame in range(setup.streets):
        truth = regions(generator, setup.street_size, 60)
        guess = perturbed(generator, truth)
        labels = generator.choice([label.id for label in EVALUATED] + [4, 29], 60)
        things = np.isin(labels, [label.id for label in EVALUATED if label.is_thing])
        instances = np.where(things, labels * 1000 + np.arange(60), labels)
        name = f"city_{frame:06d}_000019"
        for kind, values in (("labelIds", labels.astype(np.uint8)), ("instanceIds", instances.astype(np.uint16))):
            Image.fromarray(values[truth]).save(root / "gtFine/val/city" / f"{name}_gtFine_{kind}.png")
        Image.fromarray(labels.astype(np.uint8)[guess]).save(root / "semantic" / f"{name}.png")
        lines = []
        for number in np.flatnonzero(things):
            mask = f"masks/{name}_{number}.png"
            Image.fromarray((guess == number).astype(np.uint8) * 255).save(root / "instances" / mask)
            lines.append(f"{mask} {labels[number]} {generator.random():.4f}\n")
        (root / "instances" / f"{name}.txt").write_text("".join(lines))
    return root


def _semantic_pair(root: Path) -> tuple[Callable[[], Numbers], Callable[[], Numbers]]:
    official: Any = _official("evalPixelLevelSemanticLabeling")

    def theirs() -> Numbers:
        truths = sorted(map(str, root.rglob("*_labelIds.png")))
        guesses = sorted(map(str, (root / "semantic").iterdir()))
        official.args.quiet, official.args.JSONOutput = True, False
        result = official.evaluateImgLists(guesses, truths, official.args)
        return {"mIoU": result["averageScoreClasses"], "iIoU": result["averageScoreInstClasses"]}

    return lambda: cityscapes.score_semantic(root, root / "semantic"), theirs


def _instances_pair(root: Path) -> tuple[Callable[[], Numbers], Callable[[], Numbers]]:
    official: Any = _official("evalInstanceLevelSemanticLabeling")

    def theirs() -> Numbers:
        truths = sorted(map(str, root.rglob("*_instanceIds.png")))
        guesses = sorted(map(str, (root / "instances").glob("*.txt")))
        arguments = SimpleNamespace(**vars(official.args))
        arguments.quiet, arguments.JSONOutput, arguments.predictionPath = True, False, str(root / "instances")
        official.setInstanceLabels(arguments)
        found = official.instances2dict(truths, False)  # not from the cache of an earlier run
        matches = official.matchGtWithPreds(guesses, truths, found, arguments)
        means = official.computeAverages(official.evaluateMatches(matches, arguments), arguments)
        return {"AP": float(means["allAp"]), "AP50": float(means["allAp50%"])}

    return lambda: cityscapes.score_instances(root, root / "instances"), theirs


def _official(module: str) -> Any:
    """A part of cityscapesScripts, which uses a name that numpy 2.4 has no more."""
    np.__dict__.setdefault("in1d", np.isin)
    return importlib.import_module(f"cityscapesscripts.evaluation.{module}")


def write_detections(root: Path, setup: Setup) -> Path:
    """gt.json, segm.json and bbox.json: about 7 objects and 20 detections an image, 80 categories."""
    generator = np.random.default_rng(0)
    root.mkdir(parents=True)
    tools: Any = coco_mask
    images, annotations, detections = [], [], []
    for image in range(1, setup.images + 1):
        truth = regions(generator, (480, 640), 30)
        images.append({"id": image, "height": 480, "width": 640})
        for number in generator.choice(30, 7, replace=False):
            mask = truth == number
            if not mask.any():
                continue
            runs = tools.encode(np.asfortranarray(mask, dtype=np.uint8))
            category = int(generator.integers(1, 81))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": category,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": tools.toBbox(runs).tolist(),
                    "segmentation": {"size": [480, 640], "counts": runs["counts"].decode()},
                }
            )
            for _ in range(3):
                moved = np.roll(mask, tuple(generator.integers(-9, 10, 2)), axis=(0, 1))
                runs = tools.encode(np.asfortranarray(moved, dtype=np.uint8))
                wrong = generator.random() < 0.2
                detections.append(
                    {
                        "image_id": image,
                        "category_id": int(generator.integers(1, 81)) if wrong else category,
                        "score": round(float(generator.random()), 4),
                        "segmentation": {"size": [480, 640], "counts": runs["counts"].decode()},
                    }
                )
    categories = [{"id": number, "name": str(number)} for number in range(1, 81)]
    truth_file = {"images": images, "annotations": annotations, "categories": categories}
    (root / "gt.json").write_text(json.dumps(truth_file))
    (root / "segm.json").write_text(json.dumps(detections))
    boxes = [{**one, "bbox": tools.toBbox(one.pop("segmentation")).tolist()} for one in detections]
    (root / "bbox.json").write_text(json.dumps(boxes))
    return root


def _coco_pair(root: Path, kind: Any) -> tuple[Callable[[], Numbers], Callable[[], Numbers]]:
    def theirs() -> Numbers:
        truth: Any = COCO(str(root / "gt.json"))
        evaluation: Any = COCOeval(truth, truth.loadRes(str(root / f"{kind}.json")), iouType=kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return {name: float(value) for name, value in zip(("AP", "AP50", "AP75"), evaluation.stats, strict=False)}

    return lambda: average_precision.score(root / "gt.json", root / f"{kind}.json", kind=kind), theirs


if __name__ == "__main__":
    main()
