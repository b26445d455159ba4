"""Tiny data sets in the real layouts, written by the test run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask


@pytest.fixture
def shared_data() -> Path:
    """The project's real pictures; tests that need them skip where they are not."""
    beside = Path(__file__).resolve().parents[4] / "shared"
    folder = Path(os.environ.get("OMGVISION_SHARED", beside)) / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set OMGVISION_SHARED)")
    return folder


def _write_image(path: Path, height: int, width: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def panoptic_folder(tmp_path: Path) -> Path:
    """One 20×30 photograph: a tree (stuff), two dogs, a crowd of dogs, and a strip of nothing."""
    _write_image(tmp_path / "images" / "a.png", 20, 30, 0)
    ids = np.full((20, 30), 70_000)
    ids[2:6, 3:9] = 5
    ids[10:15, 10:20] = 300
    ids[16:20, 20:30] = 999
    ids[:, 29] = 0
    coded = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    (tmp_path / "panoptic").mkdir()
    Image.fromarray(coded).save(tmp_path / "panoptic" / "a.png")
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 20, "width": 30}],
        "annotations": [
            {
                "image_id": 7,
                "file_name": "a.png",
                "segments_info": [
                    {"id": 70_000, "category_id": 184, "iscrowd": 0},
                    {"id": 5, "category_id": 18, "iscrowd": 0},
                    {"id": 300, "category_id": 18, "iscrowd": 0},
                    {"id": 999, "category_id": 18, "iscrowd": 1},
                ],
            }
        ],
        "categories": [
            {"id": 18, "name": "dog", "isthing": 1},
            {"id": 184, "name": "tree-merged", "isthing": 0},
        ],
    }
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def instances_folder(tmp_path: Path) -> Path:
    """Two 20×30 photographs: one with two overlapping polygons, a run-length object and a crowd, one with nothing."""
    for seed, name in enumerate(("a.png", "b.png")):
        _write_image(tmp_path / "images" / name, 20, 30, seed)
    far = np.zeros((20, 30), dtype=np.uint8)
    far[15:18, 20:25] = 1
    runs: Any = coco_mask.encode(np.asfortranarray(far))
    content = {
        "images": [
            {"id": 2, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 1, "file_name": "a.png", "height": 20, "width": 30},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[2, 2, 12, 2, 12, 10, 2, 10]]},
            {"id": 2, "image_id": 1, "category_id": 3, "segmentation": [[6, 4, 16, 4, 16, 12, 6, 12]]},
            {
                "id": 3,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentation": {"size": [20, 30], "counts": runs["counts"].decode()},
            },
            {
                "id": 4,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 1,
                "segmentation": {"size": [20, 30], "counts": [100, 500]},
            },
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def video_folder(tmp_path: Path) -> Path:
    """A video of four 20×30 frames with one object, absent from the second frame."""
    tracks: list[dict[str, object] | None] = []
    for frame in range(4):
        _write_image(tmp_path / "frames" / "dog" / f"{frame}.png", 20, 30, frame)
        mask = np.zeros((20, 30), dtype=np.uint8)
        mask[5:10, frame * 4 : frame * 4 + 6] = 1
        runs: Any = coco_mask.encode(np.asfortranarray(mask))
        tracks.append({"size": [20, 30], "counts": runs["counts"].decode()} if frame != 1 else None)
    content = {
        "videos": [{"id": 1, "height": 20, "width": 30, "file_names": [f"dog/{frame}.png" for frame in range(4)]}],
        "annotations": [{"id": 1, "video_id": 1, "category_id": 4, "iscrowd": 0, "segmentations": tracks}],
        "categories": [{"id": 2, "name": "cat"}, {"id": 4, "name": "dog"}],
    }
    (tmp_path / "videos.json").write_text(json.dumps(content))
    return tmp_path


@pytest.fixture
def semantic_folder(tmp_path: Path) -> Path:
    """Two 20×30 pictures of road (0) and cars (1), void 255; the first has two cars and a speck."""
    for seed, name in enumerate(("x", "y")):
        _write_image(tmp_path / "images" / f"{name}.png", 20, 30, seed)
    (tmp_path / "masks").mkdir()
    first = np.zeros((20, 30), dtype=np.uint8)
    first[2:10, 2:8] = 1
    first[2:10, 15:25] = 1
    first[18, 28] = 1
    first[19, :5] = 255
    Image.fromarray(first).save(tmp_path / "masks" / "x.png")
    Image.fromarray(np.full((20, 30), 255, dtype=np.uint8)).save(tmp_path / "masks" / "y.png")
    return tmp_path


@pytest.fixture
def nuclei_folder(tmp_path: Path) -> Path:
    """One 20×30 picture with two objects, numbered 3 and 700, in 16 bits."""
    _write_image(tmp_path / "images" / "n.png", 20, 30, 0)
    (tmp_path / "masks").mkdir()
    numbers = np.zeros((20, 30), dtype=np.uint16)
    numbers[1:4, 1:4] = 700
    numbers[10:14, 10:20] = 3
    Image.fromarray(numbers).save(tmp_path / "masks" / "n.png")
    return tmp_path
