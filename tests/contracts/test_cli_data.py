"""`omg data`: what it counts, what it complains about, where its pictures go."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omg_cli.main import run
from omgvision.data.datasets.video import VideoReader
from omgvision.data.sample import Sample

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def omg_data(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs `omg data` with words; returns exit code, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        code = run(["data", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def dump(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Three pictures, the second with a mask that does not decode, the third missing; of two classes one occurs."""
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.zeros((40, 60, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{name}.png")
    square = [[10, 10, 30, 10, 30, 20, 10, 20]]
    content = {
        "images": [
            {"id": number, "file_name": f"{name}.png", "height": 40, "width": 60}
            for number, name in enumerate(("a", "b", "c"))
        ],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "segmentation": square},
            {"id": 2, "image_id": 0, "category_id": 1, "segmentation": square},
            {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {"size": [40, 60], "counts": [5, 5]}},
            {"id": 4, "image_id": 2, "category_id": 1, "segmentation": square},
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    return dump(tmp_path / "instances.json", content)


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Two videos of six and of two frames, with an object that comes in late in the first."""
    for video, length in (("long", 6), ("short", 2)):
        for number in range(length):
            values = np.zeros((40, 60), dtype=np.uint8)
            values[5:20, 5 + number : 25 + number] = 1
            if number > 3:
                values[30:38, 40:55] = 2
            for folder, array in (("JPEGImages", np.zeros((40, 60, 3), dtype=np.uint8)), ("Annotations", values)):
                path = tmp_path / folder / video / f"{number}.{'png' if folder == 'Annotations' else 'jpg'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return tmp_path


def test_check_counts_and_names_what_is_wrong(omg_data: Call, coco: Path) -> None:
    code, out, err = omg_data("check", coco)
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == "coco-instances: 1 images, 2 segments, 0 images without any"
    assert lines[1] == "sizes: 60…60 wide, 40…40 high"
    assert lines[2].startswith("left out: images that are missing: 1, the first ") and lines[2].endswith("c.png")
    assert lines[3] == "cannot be read: 1 of 2"
    assert "annotation 3 of image b.png" in lines[4]
    assert lines[5] == "classes: 1 of 2 occur"
    assert lines[7].split() == ["2", "1", "16.67%", "cat", "(thing)"]
    assert "reading" in err and "omg:" not in err


def test_check_strict_fails_on_any_fault(omg_data: Call, coco: Path) -> None:
    code, out, err = omg_data("check", coco, "--strict")
    assert code == 2
    assert "cannot be read: 1 of 2" in out
    assert "2 faults" in err.splitlines()[-1]


def test_check_of_what_has_nothing_usable(omg_data: Call, coco: Path) -> None:
    content = json.loads(coco.read_text())
    content["annotations"] = content["annotations"][2:3]
    code, out, err = omg_data("check", dump(coco, content))
    assert code == 2
    assert "0 segments" in out
    assert "no segment that could be used" in err.splitlines()[-1]


def test_check_of_videos(omg_data: Call, davis: Path) -> None:
    code, out, err = omg_data("check", davis, "--strict")
    assert code == 0, err
    assert out.splitlines()[0] == "davis: 2 videos with 8 frames, 3 segments, 0 videos without any"
    assert "classes: none, masks only" in out


def test_check_holds_a_video_frame_by_frame(omg_data: Call, davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that is counted and the one that is read."""
    alive: list[weakref.ref[Sample]] = []

    def whole(reader: VideoReader, index: int) -> Iterator[Sample]:
        for number in range(len(reader.videos[index].files)):
            assert sum(frame() is not None for frame in alive) <= 1
            frame = reader.frame(index, number)
            alive.append(weakref.ref(frame))
            yield frame

    monkeypatch.setattr(VideoReader, "whole", whole)
    code, out, err = omg_data("check", davis)
    assert code == 0, err
    assert out.startswith("davis: 2 videos with 8 frames")


def test_check_counts_nothing_of_a_video_with_a_torn_frame(omg_data: Call, davis: Path) -> None:
    (davis / "JPEGImages" / "long" / "5.jpg").write_bytes(b"torn")
    code, out, err = omg_data("check", davis)
    assert code == 0, err
    assert out.splitlines()[0] == "davis: 1 videos with 2 frames, 1 segments, 0 videos without any"
    assert "cannot be read: 1 of 2" in out and "5.jpg" in out
    assert f"masks only ({100 * 15 * 20 / (40 * 60):.2f}% of the pixels)" in out


def test_check_of_a_folder_with_its_classes(omg_data: Call, tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder / "val").mkdir(parents=True)
        Image.fromarray(np.ones((10, 10), dtype=np.uint8)).save(tmp_path / folder / "val" / "a.png")
    dump(tmp_path / "classes.json", ["ground", "cat"])
    code, out, err = omg_data("check", tmp_path, "--split", "val")
    assert code == 0, err
    assert "1 images, 1 segments" in out
    code, _, err = omg_data("check", tmp_path, "--split", "train")
    assert code == 2
    assert "split: expected one of val" in err


def test_preview_writes_the_picture_that_was_asked_for(omg_data: Call, coco: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "grid.png"
    code, out, err = omg_data("preview", coco, "--out", target)
    assert code == 0, err
    assert out == f"written: {target}\n"
    assert "left out: " in err and "annotation 3" in err
    assert [path.name for path in target.parent.iterdir()] == ["grid.png"]
    code, out, _ = omg_data("preview", coco, "--out", tmp_path / "folder")
    assert code == 0
    assert out == f"written: {tmp_path / 'folder' / 'preview.png'}\n"
    code, _, err = omg_data("preview", coco, "--out", tmp_path / "grid.jpg")
    assert code == 2
    assert "expected a .png file or a folder" in err


def test_preview_of_videos_has_a_row_each_and_colours_that_stay(omg_data: Call, davis: Path, tmp_path: Path) -> None:
    target = tmp_path / "grid.png"
    code, _, err = omg_data("preview", davis, "--out", target)
    assert code == 0, err
    with Image.open(target) as grid:
        pixels = np.array(grid)
    pitch, left = 60 + 8, 8  # cells of 60×40 pixels, gaps of 8
    top = next(row for row in range(60) if (pixels[row, left : left + 60] != 255).any(axis=-1).all())
    first, second = (pixels[top + 12, left + column * pitch + 15 : left + column * pitch + 18] for column in (0, 3))
    assert np.array_equal(first, second), "the first object has its colour in the first and in the last frame"
    assert not np.array_equal(first[0], pixels[top + 34, left + 3 * pitch + 47]), "the second has another"
    assert (pixels[-30:, left + 2 * pitch :] == 255).all(), "the short video leaves its row's end empty"


def test_preview_of_what_cannot_be_read(omg_data: Call, coco: Path, tmp_path: Path) -> None:
    content = json.loads(coco.read_text())
    content["annotations"] = content["annotations"][2:3]
    code, _, err = omg_data("preview", dump(coco, content), "--out", tmp_path / "grid.png")
    assert code == 2
    assert "none of the samples can be read" in err
    assert not (tmp_path / "grid.png").exists()
