"""Panoptic files, detections, semantic and two-channel maps: there, back, and what cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omgvision.evaluation.panoptic_conversions import (
    convert_detections_to_panoptic,
    convert_panoptic_to_detections,
    convert_panoptic_to_semantic,
    convert_two_channels_to_panoptic,
    detections_to_panoptic,
    instance_ids_to_panoptic,
    panoptic_to_semantic,
    two_channels_to_panoptic,
)
from omgvision.evaluation.panoptic_files import read_ids, write_ids

CATEGORIES: list[dict[str, Any]] = [
    {"id": 1, "name": "person", "isthing": 1, "color": [220, 20, 60], "supercategory": "human"},
    {"id": 200, "name": "rug", "isthing": 0, "color": [9, 80, 61], "supercategory": "floor"},
]
IDS = np.array([[5, 5, 70000, 0], [5, 5, 70000, 9], [0, 0, 9, 9]])
SEGMENTS: list[dict[str, Any]] = [
    {"id": 5, "category_id": 1, "area": 4, "iscrowd": 0},
    {"id": 70000, "category_id": 1, "area": 2, "iscrowd": 1},
    {"id": 9, "category_id": 200, "area": 3, "iscrowd": 0},
]


@pytest.fixture
def panoptic(tmp_path: Path) -> Path:
    path = tmp_path / "panoptic.json"
    (tmp_path / "panoptic").mkdir()
    write_ids(IDS, tmp_path / "panoptic" / "7.png")
    content = {
        "images": [{"id": 7, "file_name": "7.jpg", "height": 3, "width": 4}],
        "annotations": [{"image_id": 7, "file_name": "7.png", "segments_info": SEGMENTS}],
        "categories": CATEGORIES,
    }
    path.write_text(json.dumps(content))
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_ids_survive_a_png(tmp_path: Path, mode: str):
    ids = np.random.default_rng(0).integers(0, 256**3, (5, 7))
    write_ids(ids, tmp_path / "a.png")
    colours = np.asarray(Image.open(tmp_path / "a.png"))
    assert np.array_equal(colours.astype(int) @ [1, 256, 256**2], ids)
    Image.open(tmp_path / "a.png").convert(mode).save(tmp_path / "a.png")
    assert np.array_equal(read_ids(tmp_path / "a.png"), ids)
    with pytest.raises(ValueError, match="expected 0 to 16777215"):
        write_ids(np.array([[256**3]]), tmp_path / "b.png")


def test_panoptic_to_detections_and_back(panoptic: Path, tmp_path: Path):
    convert_panoptic_to_detections(panoptic, tmp_path / "detections.json")
    content = read(tmp_path / "detections.json")
    assert content["categories"][0] == {"id": 1, "name": "person", "supercategory": "human"}
    assert [one["id"] for one in content["annotations"]] == [0, 1, 2]
    first = content["annotations"][0]
    assert {key: first[key] for key in ("image_id", "category_id", "area", "iscrowd")} == {
        "image_id": 7,
        "category_id": 1,
        "area": 4,
        "iscrowd": 0,
    }
    assert np.array_equal(coco_mask.decode(first["segmentation"]), IDS == 5)

    convert_detections_to_panoptic(tmp_path / "detections.json", tmp_path / "back.json", categories=CATEGORIES)
    content = read(tmp_path / "back.json")
    assert content["categories"] == CATEGORIES
    (entry,) = content["annotations"]
    assert (entry["image_id"], entry["file_name"]) == (7, "7.png")
    ids = read_ids(tmp_path / "back" / "7.png")
    for before, after in zip(SEGMENTS, entry["segments_info"], strict=True):
        assert np.array_equal(ids == after["id"], before["id"] == IDS)
        assert {**after, "id": before["id"]} == before
    colours = [(one["id"] % 256, one["id"] // 256 % 256, one["id"] // 256**2) for one in entry["segments_info"]]
    assert colours[0] == (220, 20, 60)
    assert colours[2] == (9, 80, 61)
    assert max(np.abs(np.subtract(colours[1], colours[0]))) <= 30


def test_things_only(panoptic: Path, tmp_path: Path):
    convert_panoptic_to_detections(panoptic, tmp_path / "things.json", things_only=True)
    content = read(tmp_path / "things.json")
    assert [one["category_id"] for one in content["annotations"]] == [1, 1]
    assert [one["id"] for one in content["categories"]] == [1]


@pytest.mark.parametrize(("things_as_other", "person"), [(False, 1), (True, 183)])
def test_panoptic_to_semantic(panoptic: Path, tmp_path: Path, things_as_other: bool, person: int):
    convert_panoptic_to_semantic(panoptic, tmp_path / "semantic", things_as_other=things_as_other)
    values = np.asarray(Image.open(tmp_path / "semantic" / "7.png"))
    assert values.dtype == np.uint8
    assert values.tolist() == [[person] * 3 + [0], [person] * 3 + [200], [0, 0, 200, 200]]


def test_two_channels_to_panoptic(panoptic: Path, tmp_path: Path):
    values = np.zeros((3, 4, 3), dtype=np.uint8)
    values[:2, :2, 0], values[:2, 2, :2], values[IDS == 9, 0] = 1, (1, 3), 200
    values[2, 3, 1] = 8  # numbers do not tell stuff apart
    (tmp_path / "channels").mkdir()
    Image.fromarray(values).save(tmp_path / "channels" / "7.png")
    convert_two_channels_to_panoptic(
        tmp_path / "channels", tmp_path / "result.json", images=panoptic, categories=CATEGORIES
    )
    (entry,) = read(tmp_path / "result.json")["annotations"]
    assert [one["category_id"] for one in entry["segments_info"]] == [1, 1, 200]
    ids = read_ids(tmp_path / "result" / "7.png")
    for before, after in zip(SEGMENTS, entry["segments_info"], strict=True):
        assert np.array_equal(ids == after["id"], before["id"] == IDS)


def test_what_cannot_be_converted():
    known = {entry["id"]: entry for entry in CATEGORIES}
    runs = {"size": [1, 2], "counts": [0, 2]}
    twice = [{"category_id": 1, "segmentation": runs}] * 2
    with pytest.raises(ValueError, match="masks that do not overlap"):
        detections_to_panoptic(twice, size=(1, 2), categories=known)
    with pytest.raises(ValueError, match="expected one of the given 2, got 3"):
        detections_to_panoptic([{"category_id": 3, "segmentation": runs}], size=(1, 2), categories=known)
    with pytest.raises(ValueError, match="expected two channels or more"):
        two_channels_to_panoptic(np.zeros((2, 2)), categories=known)
    with pytest.raises(ValueError, match="1 to 255 in a semantic PNG, got 300"):
        panoptic_to_semantic(np.array([[1]]), [{"id": 1, "category_id": 300}])
    with pytest.raises(ValueError, match="got 40"):
        instance_ids_to_panoptic(np.array([[40]]))
