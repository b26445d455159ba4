"""`omg score prompted`: one mask for each object of an instances json."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.scoring import Score, last_line, refused

SIZE = [4, 5]


def mask(first: int, pixels: int) -> dict[str, Any]:
    return {"size": SIZE, "counts": [first, pixels, 20 - first - pixels]}


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures of two objects and a crowd; the answers are right, half right, and wrong."""
    objects = [(1, 1, 1, mask(0, 8), 0), (2, 1, 2, mask(8, 8), 0), (3, 2, 1, mask(0, 4), 0), (4, 2, 1, mask(0, 9), 1)]
    truth = {
        "images": [{"id": number, "height": SIZE[0], "width": SIZE[1]} for number in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [
            dict(zip(("id", "image_id", "category_id", "segmentation", "iscrowd"), row, strict=True)) for row in objects
        ],
    }
    answers = [
        {"id": 3, "segmentation": mask(10, 4), "category_id": 2},
        {"id": 1, "segmentation": mask(0, 8), "category_id": 1},
        {"id": 2, "segmentation": mask(8, 4), "category_id": 2},
    ]
    for name, content in (("gt", truth), ("pred", answers)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path / "gt.json", tmp_path / "pred.json"


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_objects_are_answered_by_id(score: Score, files: tuple[Path, Path]):
    assert last_line(score("prompted", *files)) == {"mIoU": 0.5, "accuracy": pytest.approx(2 / 3)}
    numbers = last_line(score("prompted", *files, "--unseen", "dog"))
    assert (numbers["mIoU_seen"], numbers["mIoU_unseen"], numbers["accuracy_seen"]) == (0.5, 0.5, 0.5)
    change(files[1], lambda answers: [answer.pop("category_id") for answer in answers])
    assert last_line(score("prompted", *files)) == {"mIoU": 0.5}


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (1, lambda answers: answers.pop(), "pred.json: expected an answer for every object, got none for 2"),
        (1, lambda answers: answers[0].pop("category_id"), "pred.json: expected every entry to have 'category_id'"),
        (1, lambda answers: answers[0].update(segmentation=mask(0, 30)), "does not decode"),
        (0, lambda truth: truth["annotations"][0].update(image_id=9), "expected objects of its images, got one of 9"),
        (0, lambda truth: truth["annotations"].clear(), "gt.json: expected objects, got none"),
    ],
)
def test_faults_are_one_line(score: Score, files: tuple[Path, Path], file: int, edit, message: str):
    change(files[file], edit)
    assert message in refused(score("prompted", *files))


def test_unknown_names(score: Score, files: tuple[Path, Path]):
    assert "expected category names of the ground truth, got 'cow'" in refused(
        score("prompted", *files, "--unseen", "cow")
    )
