"""AP equal to pycocotools' own run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omgvision.evaluation.average_precision import NAMES, AveragePrecision


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("by_category", [True, False])
def test_equal_to_cocoeval(recorded: Path, kind, by_category: bool):
    folder = recorded / "coco_instances"
    expected = json.loads((folder / "expected.json").read_text())
    key = kind if by_category else f"{kind}_no_categories"
    if key not in expected:
        key = next(name for name in expected if name.startswith(kind) and name != kind)
    metric = AveragePrecision(json.loads((folder / "gt.json").read_text()), kind=kind, by_category=by_category)
    metric.update(json.loads((folder / f"pred_{kind}.json").read_text()))
    numbers = metric.compute()
    for name in NAMES:
        assert numbers[name] == pytest.approx(expected[key][name], abs=1e-9), name


def truth() -> dict:
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[2:6, 2:6] = 1
    runs: Any = coco_mask.encode(np.asfortranarray(mask))
    return {
        "images": [{"id": 1, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 16,
                "bbox": [2, 2, 4, 4],
                "segmentation": {"size": [8, 8], "counts": runs["counts"].decode()},
            }
        ],
    }


def test_the_truth_is_perfect_and_nothing_is_zero(capsys: pytest.CaptureFixture[str]):
    metric = AveragePrecision(truth())
    assert metric.compute()["AP"] == 0
    metric.update(
        [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": truth()["annotations"][0]["segmentation"]}]
    )
    assert metric.compute()["AP"] == pytest.approx(1)
    assert metric.compute() == metric.compute()
    assert capsys.readouterr().out == ""
