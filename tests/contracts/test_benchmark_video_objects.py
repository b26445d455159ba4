"""The comparison of ways to follow an object runs, and knows a good one from a bad one."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import make_tables, video_objects


@pytest.mark.slow
def test_every_method_is_measured(tmp_path: Path) -> None:
    """A bright disk that moves over a dark picture."""
    rows, columns = np.mgrid[:96, :128]
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / folder / "disk").mkdir(parents=True)
    for number in range(5):
        disk = np.hypot(rows - 48, columns - 30 - 12 * number) < 20
        picture = np.where(disk[..., None], (240, 220, 40), (20, 60, 30)).astype(np.uint8)
        Image.fromarray(picture).save(tmp_path / "JPEGImages" / "disk" / f"{number:05d}.jpg")
        Image.fromarray(disk.astype(np.uint8)).save(tmp_path / "Annotations" / "disk" / f"{number:05d}.png")
    listed = {"videos": [{"file_names": ["disk/00000.jpg"]}]}
    (tmp_path / "instances_val.json").write_text(json.dumps(listed), encoding="utf-8")
    output, sheets = tmp_path / "report.json", tmp_path / "sheets"
    video_objects.main(["--data", str(tmp_path), "--output", str(output), "--sheets", str(sheets)])
    report = json.loads(output.read_text(encoding="utf-8"))
    numbers = {name: values["J"] for name, values in report["numbers"].items()}
    assert set(report["milliseconds a frame"]) == {*numbers, "encoder"}
    assert numbers["tracker"] > 0.8 > numbers["static copy"]
    assert Image.open(sheets / "disk.png").size == (5 * 128 // 2, (1 + len(numbers)) * 96 // 2)
    assert re.search(r"^\| tracker \| \d+\.\d \|", make_tables.video_objects(report), re.MULTILINE)
