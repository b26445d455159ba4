"""Grounded captions: which phrases are found, greedy pairs, shares of processes."""

import math
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omgvision.evaluation.grounded_captions import GroundedCaptions
from omgvision.evaluation.phrase_similarity import exact


def runs(first: int, last: int) -> dict[str, Any]:
    """Ten columns of one row, true from `first` to before `last`."""
    mask = np.zeros((1, 10), dtype=np.uint8, order="F")
    mask[:, first:last] = 1
    encoded: Any = coco_mask.encode(mask)
    return {"size": [1, 10], "counts": encoded["counts"].decode()}


def annotation(number: int, image: str, first: int, last: int) -> dict[str, Any]:
    box = [first, 0, last - first, 1]
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "segmentation": runs(first, last),
        "area": last - first,
        "bbox": box,
        "iscrowd": 0,
    }


MASKS = {
    "images": [{"id": name, "height": 1, "width": 10} for name in ("one", "two")],
    "annotations": [annotation(1, "one", 0, 4), annotation(2, "one", 5, 10), annotation(3, "two", 0, 8)],
    "categories": [{"id": 1, "name": "object"}],
}
ANSWERS = {
    "one": (["a dog", "a cat"], [runs(0, 4), runs(6, 10)], ["a dog", "a cat"]),
    "two": (["a bus"], [runs(0, 6)], ["a bus"]),
}


def new() -> GroundedCaptions:
    return GroundedCaptions(MASKS, list, similarity=exact)


def add(metric: GroundedCaptions, name: str, **changes: Any) -> GroundedCaptions:
    phrases, masks, labels = ANSWERS[name]
    given = {"phrases": phrases, "masks": masks, "labels": labels, "references": ["a dog and a cat"], **changes}
    metric.update(name, "a dog", **given)
    return metric


def test_numbers_by_hand():
    numbers = add(add(new(), "one"), "two").compute()
    assert numbers["mIoU"] == pytest.approx(((1 + 0.8) / 2 + 0.75) / 2)
    assert numbers["Recall"] == 1
    assert numbers["AP50"] == 1
    assert numbers["ROUGE_L"] > 0
    assert math.isnan(numbers["METEOR"])


def test_search_ends_at_the_first_wrong_phrase():
    # The best pair has the wrong name: the other one is not tried any more.
    numbers = add(new(), "one", phrases=["a cow", "a cat"]).compute()
    assert numbers["Recall"] == 0
    numbers = add(new(), "one", phrases=["a dog", "a cow"]).compute()
    assert numbers["Recall"] == 0.5


def test_a_mask_without_phrase_spoils_its_picture():
    assert add(new(), "one", phrases=["a dog"]).compute()["Recall"] == 0


def test_no_masks():
    numbers = add(add(new(), "one", masks=[], phrases=[]), "two").compute()
    assert numbers["mIoU"] == pytest.approx(0.375)
    assert numbers["Recall"] == pytest.approx(1 / 3)


def test_shares_repeats_and_any_order():
    left = add(new(), "two")
    left.merge(add(add(new(), "one"), "two"))
    add(left, "one", masks=[])
    assert repr(left.compute()) == repr(add(add(new(), "one"), "two").compute())


def test_nothing():
    assert all(map(math.isnan, new().compute().values()))


def test_faulty_pictures():
    with pytest.raises(ValueError, match="image id: expected an image of the ground truth, got three"):
        new().update("three", "", [], [], references=["a"], labels=[])
    with pytest.raises(ValueError, match=r"expected the size of the image \[1, 10\], got \[2, 5\] \(image one\)"):
        add(new(), "one", masks=[{**runs(0, 4), "size": [2, 5]}])
