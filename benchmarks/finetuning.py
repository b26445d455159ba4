"""What fine-tuning gives on pictures that the bundled weights have never seen: the commands of docs/finetuning.md.

dsb2018_mini (nuclei under the microscope, CC0) is trained on three times: as a folder of masks, as the COCO json that
is made of it here, and through low-rank adapters. Every fifth picture is held back; all of these are measured with the
weights before and after, at full size. Curves and pictures are drawn for the page.

    python -m benchmarks.finetuning --data ../shared/data/dsb2018_mini    # three times 15 minutes, and measuring
    python -m benchmarks.finetuning --only lora                           # one of them; the others stay as they are
    python -m benchmarks.finetuning --quick --data FOLDER                 # three steps: shows that it runs

What is done is not done again: a run that was interrupted is continued, numbers that are there are kept. `--fresh`
throws a part's run away first.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional

import omgvision as omg
from benchmarks import make_tables
from benchmarks.segment import machine
from omgvision.data.datasets.mask_folder import MaskFolder
from omgvision.data.sample import Sample
from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.evaluate import picture
from omgvision.output_files import write_json
from omgvision.run_lengths import RunLengthMask
from omgvision.training.recipes.finetune import split
from omgvision.training.run import build
from omgvision.training.validation import Validation
from omgvision.visualization import draw_segments, segment_color

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "finetuning.json"
PICTURES = ROOT / "docs" / "pictures" / "finetuning"

CLASS, HOLDOUT = "nucleus", 5
PARTS = ("masks", "coco", "lora")
TITLES = {"masks": "folder of masks", "coco": "COCO json", "lora": "adapters (lora)"}
GRID = {"query_stride": "24"}
"""Nuclei are many and small."""
METRICS = ("AP", "AP50", "PQ")
IMAGE_SIZES, MASK_STRIDE = (256, 384, 512), 4
SHOWN = (26, 112, 122, 106, 72)
"""Held-out pictures on the page: fluorescence sparse and dense, two stains, and grey cells whose nuclei are small."""


@dataclass(frozen=True)
class Plan:
    """Where the data is, where runs and results go, and how long is trained.

    Attributes:
        data: Folder with `images` and `instances`.
        work: Folder of the runs.
        length: `minutes=15`, or less.
        results: The JSON file.
        pictures: Folder of the curves and pictures.
        start: Weights to begin with, as `omg.load` takes them; None for the bundled ones.
    """

    data: Path
    work: Path
    length: Mapping[str, str]
    results: Path
    pictures: Path
    start: str | None = None

    @property
    def json(self) -> Path:
        return self.work / "nuclei.json"

    def run(self, part: str) -> Path:
        return self.work / part

    def settings(self, part: str) -> dict[str, str]:
        """What the command of a part sets."""
        start = {} if self.start is None else {"start": self.start}
        where = {"data": str(self.data), "classes": CLASS}
        if part == "coco":
            where = {"data": str(self.json), "images": str(self.data / "images")}
        return where | {"holdout": str(HOLDOUT)} | GRID | dict(self.length) | start | {"out": str(self.run(part))}

    def command(self, part: str) -> list[str]:
        recipe = "lora" if part == "lora" else "finetune"
        return ["omg", "train", recipe, *[f"{name}={text}" for name, text in self.settings(part).items()]]


def say(text: str) -> None:
    print(text, flush=True)


# --- data ---


def nuclei(folder: Path) -> MaskFolder:
    """The pictures, sorted by name, with their objects."""
    return MaskFolder(folder / "images", masks=folder / "instances", classes=[CLASS], kind="instance")


def coco_json(folder: Path) -> dict[str, Any]:
    """The content of a COCO instances json with the objects of a folder of instance masks, in the same order."""
    dataset = nuclei(folder)
    files = {path.stem: path.name for path in sorted((folder / "images").iterdir())}
    return annotated((dataset[index] for index in range(len(dataset))), files=files)


def annotated(samples: Iterable[Sample], *, files: Mapping[str, str]) -> dict[str, Any]:
    """The content of a COCO instances json; `files` has the file of each sample's id."""
    images, annotations = [], []
    for number, sample in enumerate(samples):
        # The reader of COCO leaves out pictures without objects; the held-out ones would be others then.
        assert len(sample.labels), sample.sample_id
        height, width = sample.size
        images.append({"id": number + 1, "file_name": files[sample.sample_id], "height": height, "width": width})
        for mask in sample.masks.numpy():
            runs = RunLengthMask.encode(mask)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number + 1,
                    "category_id": 1,
                    "segmentation": runs.to_coco(),
                    "area": runs.area,
                    "bbox": list(runs.box),
                    "iscrowd": 0,
                }
            )
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": CLASS}]}


def held_out(folder: Path) -> list[Sample]:
    """The pictures that no run trains on, all of them."""
    dataset = nuclei(folder)
    return [dataset[index] for index in split(len(dataset), HOLDOUT)[1]]


# --- runs ---


def train(plan: Plan, part: str) -> None:
    """The command of the page, in a process of its own; nothing if its weights are there already."""
    command = plan.command(part)
    say(f"$ {shlex.join(command)}")
    if (plan.run(part) / "weights").is_dir():
        say("  done before")
        return
    arguments = [*command[1:], "--resume"]  # starts a run where there is none
    subprocess.run([sys.executable, "-m", "omg_cli", *arguments], check=True, stdin=subprocess.DEVNULL)


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def curves(folder: Path) -> dict[str, list[list[float]]]:
    """Metric → (minute, value) of what was measured during training, and the loss."""
    log = entries(folder)
    trained = [entry for entry in log if "loss" in entry]
    steps, minutes = [0, *[e["step"] for e in trained]], [0.0, *[e["elapsed"] / 60 for e in trained]]
    lines: dict[str, list[list[float]]] = {"loss": [[round(e["elapsed"] / 60, 2), e["loss"]] for e in trained]}
    for entry in log:
        for name, value in entry.get("evaluation", {}).items():
            if name in METRICS:
                minute = round(float(np.interp(entry["step"], steps, minutes)), 2)
                lines.setdefault(name, []).append([minute, round(value, 5)])
    return lines


def predictor_of(folder: Path | str | None) -> omg.Predictor:
    """Weights that answer with the class of the data, as they are or as they have learned it."""
    predictor = omg.load(folder, device="cpu")
    if list(predictor.classes) != [CLASS]:
        predictor.model.set_vocabulary([CLASS], processor=predictor.processor, things=[True])
    return predictor


def measure(folder: Path | str | None, samples: Sequence[Sample]) -> dict[str, float]:
    """AP, AP50 and PQ (with SQ and RQ) on all samples."""
    numbers = Validation(samples).measure(predictor_of(folder))
    say("  " + " ".join(f"{name} {value:.4f}" for name, value in numbers.items()))
    return {name: round(value, 6) for name, value in numbers.items()}


def report_of(plan: Plan, part: str, samples: Sequence[Sample]) -> dict[str, Any]:
    """Numbers of a finished run."""
    folder = plan.run(part)
    log = entries(folder)
    trained = [entry for entry in log if "loss" in entry]
    built = build(plan.command(part)[2], plan.settings(part))
    parameters = [parameter for parameter in built.objective.parameters() if parameter.requires_grad]
    say(f"measuring {folder / 'weights'} on {len(samples)} held-out pictures")
    report: dict[str, Any] = {
        "command": shown_command(plan, part),
        "steps": log[-1]["step"],
        "minutes": round(trained[-1]["elapsed"] / 60, 2),
        "images_per_second": round(float(np.mean([entry["images_per_second"] for entry in trained])), 2),
        "trained_parameters": sum(parameter.numel() for parameter in parameters),
        "weights_megabytes": megabytes(folder / "weights" / "model.safetensors"),
        "after": measure(folder / "weights", samples),
        "curves": curves(folder),
    }
    if part == "lora":
        report["adapter_megabytes"] = megabytes(folder / "adapter" / "adapter_model.safetensors")
    return report


def shown_command(plan: Plan, part: str) -> str:
    """The command with the paths that the page uses."""
    settings = plan.settings(part) | {"out": f"runs/{'nuclei' if part != 'lora' else 'nuclei-lora'}"}
    settings["data"] = "nuclei.json" if part == "coco" else "dsb2018_mini"
    if part == "coco":
        settings["images"] = "dsb2018_mini/images"
    return shlex.join(["omg", "train", plan.command(part)[2], *[f"{name}={text}" for name, text in settings.items()]])


def megabytes(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 2)


def best_possible(samples: Sequence[Sample], *, image_size: int) -> float:
    """AP of the annotated masks themselves at the resolution at which masks are predicted, every fourth pixel."""
    precision = AveragePrecision(annotated(samples, files={sample.sample_id: "" for sample in samples}))
    for number, sample in enumerate(samples, start=1):
        scale = image_size / max(sample.size) / MASK_STRIDE
        grid = tuple(max(1, round(side * scale)) for side in sample.size)
        coarse = functional.interpolate(sample.masks[None].float(), size=grid, mode="area")
        fine = functional.interpolate(coarse, size=sample.size, mode="bilinear", align_corners=False)[0] > 0.5
        runs = [RunLengthMask.encode(mask).to_coco() for mask in fine.numpy()]
        precision.update(str(number), [{"category_id": 1, "score": 1.0, "segmentation": one} for one in runs])
    return round(precision.compute()["AP"], 6)


# --- pictures ---


def draw_curves(report: Mapping[str, Any], path: Path) -> None:
    """AP50, AP and PQ over the minutes, one panel a metric, one line a part."""
    parts = [part for part in PARTS if part in report["parts"]]
    colors = {"masks": (31, 119, 180), "coco": (230, 140, 20), "lora": (44, 160, 44)}
    width, height, margin, scale = 300, 220, 44, 2  # drawn at twice the size, for smooth lines
    font = ImageFont.load_default(size=12 * scale)
    page = Image.new("RGB", (len(METRICS) * width * scale, (height + 26) * scale), "white")
    draw = ImageDraw.Draw(page)
    for panel, metric in enumerate(METRICS):
        lines = {part: report["parts"][part]["curves"].get(metric, []) for part in parts}
        right = max((minute for line in lines.values() for minute, _ in line), default=1.0) or 1.0
        top = max((value for line in lines.values() for _, value in line), default=0.0) * 1.1 or 0.01
        left, bottom = panel * width + margin, height - 28

        def place(minute: float, value: float, left=left, bottom=bottom, right=right, top=top) -> tuple[float, float]:
            x = left + minute / right * (width - margin - 14)
            return x * scale, (bottom - value / top * (bottom - 26)) * scale

        for share in (0.0, 0.5, 1.0):
            value = share * top / 1.1
            draw.line([place(0, value), place(right, value)], fill=(225, 225, 225), width=scale)
            draw.text(place(0, value), f"{100 * value:.1f} ", fill=(90, 90, 90), font=font, anchor="rm")
            minute = share * right
            x, y = place(minute, 0)
            draw.text((x, y + 10 * scale), f"{minute:.0f}", fill=(90, 90, 90), font=font, anchor="mm")
        draw.text(((left + 4) * scale, 12 * scale), f"{metric}, %", fill="black", font=font, anchor="lm")
        x, y = place(right, 0)
        draw.text((x, y + 22 * scale), "minutes", fill=(90, 90, 90), font=font, anchor="rm")
        for part, line in lines.items():
            points = [place(minute, value) for minute, value in line]
            if len(points) > 1:
                draw.line(points, fill=colors[part], width=2 * scale, joint="curve")
            for x, y in points:
                draw.ellipse((x - 3 * scale, y - 3 * scale, x + 3 * scale, y + 3 * scale), fill=colors[part])
    for index, part in enumerate(parts):
        x, y = (margin + index * 170) * scale, (height + 12) * scale
        draw.line([(x, y), (x + 22 * scale, y)], fill=colors[part], width=3 * scale)
        draw.text((x + 28 * scale, y), TITLES[part], fill="black", font=font, anchor="lm")
    path.parent.mkdir(parents=True, exist_ok=True)
    page.resize((page.width // scale * 3 // 2, page.height // scale * 3 // 2), Image.Resampling.LANCZOS).save(path)


def draw_pictures(plan: Plan, samples: Sequence[Sample], path: Path) -> None:
    """Held-out pictures: as they are, as annotated, and what each of the weights finds."""
    chosen = [samples[index] for index in SHOWN if index < len(samples)] or list(samples[:4])
    columns: list[tuple[str, Any]] = [("picture", None), ("annotated", "truth"), ("before", predictor_of(plan.start))]
    done = [part for part in ("masks", "lora") if (plan.run(part) / "weights").is_dir()]
    columns += [(TITLES[part], predictor_of(plan.run(part) / "weights")) for part in done]
    side, gap, head = 256, 6, 22
    page = Image.new("RGB", (len(columns) * (side + gap) - gap, head + len(chosen) * (side + gap) - gap), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=15)
    for column, (title, who) in enumerate(columns):
        draw.text((column * (side + gap), head // 2), title, fill="black", font=font, anchor="lm")
        for row, sample in enumerate(chosen):
            image = picture(sample)
            masks: list[np.ndarray] = []
            if who == "truth":
                masks = list(sample.masks.numpy())
            elif who is not None:
                masks = [segment.mask for segment in who.segment(image, task="panoptic").segments]
            drawn = draw_segments(image, masks, colors=[segment_color(number) for number in range(len(masks))])
            drawn.thumbnail((side, side))
            page.paste(drawn, (column * (side + gap), head + row * (side + gap)))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85)


# --- all of it ---


def benchmark(plan: Plan, parts: Sequence[str]) -> dict[str, Any]:
    """Trains and measures `parts`, and draws what there is of all."""
    plan.work.mkdir(parents=True, exist_ok=True)
    if not plan.json.exists():
        say(f"writing {plan.json}")
        plan.json.write_text(json.dumps(coco_json(plan.data)), encoding="utf-8")
    samples = held_out(plan.data)
    report: dict[str, Any] = json.loads(plan.results.read_text(encoding="utf-8")) if plan.results.exists() else {}
    report["command"] = "python -m benchmarks.finetuning"
    report["machine"] = machine()
    report["held_out"] = {"pictures": len(samples), "objects": sum(len(sample.labels) for sample in samples)}
    report["best_possible"] = {str(size): best_possible(samples, image_size=size) for size in IMAGE_SIZES}
    report.setdefault("parts", {})
    say(f"measuring the weights as they are on {len(samples)} held-out pictures")
    report["before"] = measure(plan.start, samples)
    for part in parts:
        train(plan, part)
        report["parts"][part] = report_of(plan, part, samples)
        write_json(plan.results, report)
    draw_curves(report, plan.pictures / "curves.png")
    draw_pictures(plan, samples, plan.pictures / "before_after.jpg")
    return report


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Fine-tuning on dsb2018_mini: commands, numbers, curves, pictures.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dsb2018_mini"))
    parser.add_argument("--work", type=Path, default=Path("runs/finetuning"), help="folder of the runs")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be repeated")
    parser.add_argument("--fresh", action="store_true", help="throw away the runs of these parts first")
    parser.add_argument("--minutes", type=float, default=15, help="of each training")
    parser.add_argument("--start", help="weights to begin with; the bundled ones by default")
    parser.add_argument("--quick", action="store_true", help="three steps, results beside the runs")
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/finetuning.json unless --quick")
    options = parser.parse_args(arguments)
    small = {f"stages.{number}.size": "64,64" for number in range(2)}
    quick = {"steps": "3", "log_every": "1", "validate": "2", "workers": "0", **small}
    plan = Plan(
        data=options.data.resolve(),
        work=options.work.resolve(),
        length=quick if options.quick else {"minutes": f"{options.minutes:g}"},
        results=options.output or (options.work.resolve() / "finetuning.json" if options.quick else RESULTS),
        pictures=options.work.resolve() if options.quick else PICTURES,
        start=options.start,
    )
    parts = options.only or PARTS
    if options.fresh:
        for part in parts:
            shutil.rmtree(plan.run(part), ignore_errors=True)
    report = benchmark(plan, parts)
    say(make_tables.finetuning(report))
    say(f"wrote {plan.results}")


if __name__ == "__main__":
    main()
