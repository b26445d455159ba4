"""The fine-tuning benchmark: its COCO json is the folder, and the page shows the commands that it runs."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import finetuning, make_tables
from omgvision.data.catalog import open_dataset
from omgvision.data.datasets.coco import CocoInstances
from omgvision.data.datasets.mask_folder import MaskFolder

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def nuclei(tmp_path: Path) -> Path:
    """Six pictures of two sizes in the layout of dsb2018_mini: one or two discs that touch."""
    root = tmp_path / "nuclei"
    for folder in ("images", "instances"):
        (root / folder).mkdir(parents=True)
    for number in range(6):
        rows, columns = np.mgrid[: 40 + 8 * (number % 2), :64]
        labels = np.zeros(rows.shape, dtype=np.uint16)
        for identity, column in ((300, 20), (7, 34))[: 1 + number % 2]:
            labels[(rows - 20) ** 2 + (columns - column) ** 2 < 60] = identity
        picture = np.where(labels[..., None] > 0, (200, 40, 90), (10, 20, 30)).astype(np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{number}.jpg", quality=95)
        Image.fromarray(labels).save(root / "instances" / f"{number}.png")
    return root


def plan(data: Path, work: Path, *, start: Path | None = None) -> finetuning.Plan:
    return finetuning.Plan(
        data=data,
        work=work,
        length={"minutes": "15"},
        results=work / "finetuning.json",
        pictures=work,
        start=None if start is None else str(start),
    )


def test_both_ways_to_say_it_give_the_same_samples(nuclei: Path) -> None:
    path = nuclei.parent / "nuclei.json"
    path.write_text(json.dumps(finetuning.coco_json(nuclei)))
    folder, coco = open_dataset(nuclei, classes=["nucleus"]), open_dataset(path, images=nuclei / "images")
    assert isinstance(folder, MaskFolder) and isinstance(coco, CocoInstances)
    assert (folder.names, folder.things) == (coco.names, coco.things) == (("nucleus",), (True,))
    assert len(folder) == len(coco) == 6
    for index in range(6):
        one, other = folder[index], coco[index]
        assert torch.equal(one.image, other.image)
        assert one.labels.tolist() == other.labels.tolist() == [0] * (1 + index % 2)
        assert torch.equal(one.masks, other.masks)


def test_the_page_shows_the_commands_that_are_run() -> None:
    page = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
    for part in finetuning.PARTS:
        shown = finetuning.shown_command(plan(Path("data"), Path("work")), part)
        assert shown in page
        assert len(shlex.split(shown)) == len(plan(Path("data"), Path("work")).command(part))


def test_no_model_is_better_than_its_resolution(nuclei: Path) -> None:
    """Discs of 15 pixels: on a grid of their own pixels they are what they are, on a coarse one they are not."""
    samples = [finetuning.nuclei(nuclei)[index] for index in range(6)]
    fine, coarse = (finetuning.best_possible(samples, image_size=size) for size in (256, 32))
    assert fine > 0.95 > 0.9 > coarse > 0.2


@pytest.mark.slow
def test_the_benchmark_runs_is_not_repeated_and_its_table_is_made(
    nuclei: Path, tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", str(nuclei), "--work", str(tmp_path / "work"), "--start", str(tiny_model_dir), "--quick"]
    finetuning.main([*arguments, "--only", "masks", "--only", "lora"])
    report = json.loads((tmp_path / "work" / "finetuning.json").read_text())
    assert set(report["parts"]) == {"masks", "lora"}
    masks, lora = report["parts"]["masks"], report["parts"]["lora"]
    assert masks["steps"] == 3 and lora["trained_parameters"] < masks["trained_parameters"]
    assert lora["adapter_megabytes"] < lora["weights_megabytes"] * 2
    assert [point[0] for point in masks["curves"]["AP"]] == sorted(point[0] for point in masks["curves"]["AP"])
    for name in ("curves.png", "before_after.jpg"):
        assert Image.open(tmp_path / "work" / name).width > 300
    assert "| folder of masks |" in make_tables.finetuning(report)
    capsys.readouterr()
    finetuning.main([*arguments, "--only", "masks"])
    assert "done before" in capsys.readouterr().out
    assert json.loads((tmp_path / "work" / "finetuning.json").read_text())["parts"]["lora"] == lora
