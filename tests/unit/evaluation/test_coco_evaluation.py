"""Equal to pycocotools' evaluation, number by number, on what may occur."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from omgvision.evaluation.coco_evaluation import SparseEvaluation


def annotations(generator: np.random.Generator, *, images: int, scored: bool) -> list[dict[str, Any]]:
    """Boxes of four categories in some of the images; crowds, equal scores and images with more than ten among them."""
    found = []
    for image in range(1, images + 1):
        for _ in range(int(generator.choice([0, 1, 3, 14]))):
            x, y, width, height = generator.integers(1, 40, 4).tolist()
            one = {
                "id": len(found) + 1,
                "image_id": image,
                "category_id": int(generator.integers(1, 5)),
                "bbox": [x, y, 4 * width, 4 * height],
                "area": 16 * width * height,
                "iscrowd": int(not scored and generator.random() < 0.1),
            }
            found.append(one | ({"score": round(float(generator.random()), 1)} if scored else {}))
    return found


def index(content: list[dict[str, Any]], *, images: int) -> Any:
    coco: Any = COCO()
    coco.dataset = {
        "images": [{"id": number, "height": 200, "width": 200} for number in range(1, images + 1)],
        "categories": [{"id": number, "name": str(number)} for number in range(1, 7)],
        "annotations": [dict(one) for one in content],
    }
    coco.createIndex()
    return coco


@pytest.mark.parametrize("by_category", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_pycocotools(seed: int, by_category: bool):
    generator = np.random.default_rng(seed)
    truth = annotations(generator, images=8, scored=False)
    # Half of the detections are moved objects, so that some fit well.
    moved = [{**one, "score": 0.5, "iscrowd": 0, "bbox": (np.array(one["bbox"]) + 2).tolist()} for one in truth[::2]]
    found = [
        {**one, "id": number} for number, one in enumerate([*annotations(generator, images=8, scored=True), *moved], 1)
    ]
    results = []
    with contextlib.redirect_stdout(io.StringIO()):
        for kind in (COCOeval, SparseEvaluation):
            evaluation: Any = kind(index(truth, images=8), index(found, images=8), iouType="bbox")
            evaluation.params.useCats = int(by_category)
            evaluation.params.imgIds = [1, 2, 3, 5, 6, 7]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            results.append(evaluation)
    official, ours = results
    assert np.array_equal(ours.stats, official.stats)
    assert np.array_equal(ours.eval["recall"], official.eval["recall"])
    assert np.array_equal(ours.eval["precision"][..., -1], official.eval["precision"][..., -1])
    assert official.stats[0] > 0.01


def test_nothing_at_all():
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation: Any = SparseEvaluation(index([], images=2), index([], images=2), iouType="bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert set(evaluation.stats.tolist()) == {-1}
