"""`omg score semantic`: folders of label maps, of any classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.scoring import Score, last_line, refused


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """gt/ and pred/ with one map each."""
    for name, values in (("gt", [[0, 1, 1, 2]]), ("pred", [[0, 1, 0, 0]])):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array(values, dtype=np.uint8)).save(tmp_path / name / "a.png")
    return tmp_path


def test_void_does_not_count(score: Score, maps: Path):
    report = maps / "report.json"
    files = ("semantic", maps / "gt", maps / "pred")
    numbers = last_line(score(*files, "--classes", 2, "--void", 2, "--out", report))
    assert (numbers["mIoU"], numbers["pixel_accuracy"]) == (0.5, pytest.approx(2 / 3))
    assert json.loads(report.read_text())["IoU/1"] == 0.5
    numbers = last_line(score(*files, "--classes", 4))
    assert numbers["pixel_accuracy"] == 0.5
    assert numbers["mIoU"] == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)


def test_labels_that_are_none(score: Score, maps: Path):
    files = ("semantic", maps / "gt", maps / "pred")
    assert "target: expected 0 to 1 or None, got 2" in refused(score(*files, "--classes", 2))
    (maps / "pred" / "a.png").unlink()
    assert "a.png: expected a PNG file, got no file" in refused(score(*files, "--classes", 4))
