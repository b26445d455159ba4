"""The result type and its files, read back with the tools that others would use."""

import json
import os
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from omgvision.errors import UserError
from omgvision.output_files import ensure_writable
from omgvision.results import Category, FrameStamp, Result, SegmentLabel
from omgvision.run_lengths import RunLengthMask

HEIGHT, WIDTH = 30, 40
CATEGORIES = (Category("person, child", True), Category("sky", False), Category("car", True))


@pytest.fixture
def image() -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def panoptic(image) -> Result:
    label_map = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    label_map[:10] = 7
    label_map[15:25, 5:12] = 300
    label_map[15:20, 20:24] = 2
    labels = {7: SegmentLabel(1, 0.5), 300: SegmentLabel(0, 0.9), 2: SegmentLabel(0, 0.8), 99: SegmentLabel(2, 1.0)}
    return Result.from_label_map(label_map, labels, task="panoptic", image=image, categories=CATEGORIES, name="street")


@pytest.fixture
def overlapping(image) -> Result:
    masks = np.zeros((3, HEIGHT, WIDTH), dtype=bool)
    masks[0, 5:15, 5:20] = True
    masks[1, 10:20, 10:30] = True
    masks[2, 12:14, 12:14] = True
    labels = [SegmentLabel(0, 0.9), SegmentLabel(2, 0.6), SegmentLabel(2, 0.1)]
    return Result.from_masks(iter(masks), labels, task="instance", image=image, categories=CATEGORIES)


def test_segments_of_a_map(panoptic):
    assert [s.id for s in panoptic] == [1, 2, 3]
    assert panoptic.labels == ["sky", "person, child", "person, child"]
    assert panoptic.label_ids.tolist() == [1, 0, 0]
    assert [s.is_thing for s in panoptic] == [False, True, True]
    assert [s.area for s in panoptic] == [400, 70, 20]
    assert panoptic.segments[1].bbox == (5, 15, 7, 10)
    assert panoptic.boxes[1].tolist() == [5, 15, 12, 25]
    assert panoptic.scores.tolist() == pytest.approx([0.5, 0.9, 0.8])
    assert panoptic.masks.shape == (3, HEIGHT, WIDTH)
    assert panoptic.masks.sum(axis=(1, 2)).tolist() == [400, 70, 20]
    assert "person, child ×2" in repr(panoptic)


def test_frames_of_a_video_keep_their_ids(image):
    label_map = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    label_map[:10] = 7
    label_map[15:25, 5:12] = 300
    labels = {7: SegmentLabel(1, 0.5), 300: SegmentLabel(0, 0.9)}
    stamp = FrameStamp(index=4, time=0.16)
    about = {"task": "panoptic", "image": image, "categories": CATEGORIES, "frame": stamp}
    result = Result.from_label_map(label_map, labels, **about)
    assert result.frame == stamp
    assert [(s.id, s.label_id, s.area) for s in result] == [(7, 1, 400), (300, 0, 70)]
    assert np.array_equal(result.label_map, label_map)
    assert np.array_equal(result.segments[1].mask, label_map == 300)
    assert {record["id"]: record["area"] for record in result.segments_info()} == {7: 400, 300: 70}
    assert set(np.unique(result.semantic_map())) == {0, 1, 255}

    about["task"] = "instance"
    result = Result.from_masks(
        [label_map == 300, label_map == 7], [SegmentLabel(0), SegmentLabel(2)], ids=[9, 2], **about
    )
    assert [(s.id, s.area) for s in result] == [(9, 70), (2, 400)]
    assert set(np.unique(result.label_map)) == {0, 2, 9}
    with pytest.raises(ValueError):
        Result.from_masks([label_map == 300], [SegmentLabel(0)], ids=[1, 2], **about)


def test_colour_of_a_track_is_the_same_in_every_frame():
    """Whatever its place, its class and its neighbours; stuff and classes of a semantic map go by class."""
    plain = Image.new("RGB", (WIDTH, HEIGHT))

    def colours(values: dict[int, int], *, task="panoptic") -> dict[int, tuple[int, ...]]:
        label_map = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
        for place, value in enumerate(values):
            label_map[:, 10 * place : 10 * place + 10] = value
        labels = {value: SegmentLabel(label) for value, label in values.items()}
        about = {"task": task, "image": plain, "categories": CATEGORIES, "frame": FrameStamp(0, 0.0)}
        overlay = np.asarray(Result.from_label_map(label_map, labels, **about).overlay(labels=False, opacity=1.0))
        return {value: tuple(overlay[15, 10 * place + 5]) for place, value in enumerate(values)}

    first, second = colours({1: 0, 2: 0, 3: 1}), colours({5: 1, 2: 2, 9: 0, 1: 0})
    assert first[1] == second[1]
    assert first[2] == second[2]
    assert first[3] == second[5]
    assert len({*first.values(), *second.values()}) == 4
    assert colours({1: 0, 2: 2}, task="semantic") == colours({2: 2, 1: 0}, task="semantic")
    assert colours({1: 0}, task="semantic")[1] == colours({4: 0}, task="semantic")[4]


def test_of_overlapping_segments_the_surer_one_is_on_top_and_without_classes_the_smaller_one(overlapping, image):
    assert overlapping.label_map[12, 12] == 1 and overlapping.label_map[18, 10] == 2
    agnostic = [SegmentLabel(score=segment.score) for segment in overlapping]
    result = Result.from_masks(iter(overlapping.masks), agnostic, task="everything", image=image)
    assert result.label_map[12, 12] == 3 and result.label_map[12, 16] == 1 and result.label_map[18, 10] == 2


def test_overlapping_masks_are_kept_whole(overlapping):
    assert [s.area for s in overlapping] == [150, 200, 4]
    assert overlapping.segments[1].mask[10:20, 10:30].all()
    # The best score is on top where they meet, and a segment that is hidden altogether is not in the panoptic records.
    assert overlapping.label_map[12, 12] == 1
    records = overlapping.segments_info()
    assert [(r["id"], r["area"]) for r in records] == [(1, 150), (2, 150)]
    assert records[1]["bbox"] == [10, 10, 20, 10]


def test_empty_results(image, tmp_path):
    nothing = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for result in (
        Result.from_label_map(nothing, {}, task="panoptic", image=image, categories=CATEGORIES),
        Result.from_masks([], [], task="click", image=image),
    ):
        assert len(result) == 0
        assert result.masks.shape == (0, HEIGHT, WIDTH)
        assert result.boxes.shape == (0, 4)
        result.save(tmp_path)


def test_masks_of_another_size_are_refused(image):
    with pytest.raises(ValueError, match=r"expected \(30, 40\)"):
        Result.from_masks([np.zeros((WIDTH, HEIGHT), bool)], [SegmentLabel()], task="click", image=image)


def test_run_lengths_round_trip():
    mask = np.random.default_rng(1).random((HEIGHT, WIDTH)) > 0.5
    packed = RunLengthMask.encode(mask)
    assert np.array_equal(packed.decode(), mask)
    assert packed.area == mask.sum()


def test_saved_files(panoptic, tmp_path):
    written = panoptic.save(tmp_path / "new" / "out")
    assert [path.name for path in written] == ["overlay.png", "panoptic.png", "semantic.png", "result.json"]
    assert sorted(os.listdir(tmp_path / "new" / "out")) == sorted(path.name for path in written)
    out = tmp_path / "new" / "out"

    rgb = np.asarray(Image.open(out / "panoptic.png")).astype(int)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    data = json.loads((out / "result.json").read_text())
    assert {r["id"]: r["area"] for r in data["segments_info"]} == {i: (ids == i).sum() for i in np.unique(ids) if i}

    semantic = np.asarray(Image.open(out / "semantic.png"))
    assert semantic.dtype == np.uint8
    assert semantic[0, 0] == 1
    assert semantic[16, 6] == 0
    assert semantic[29, 39] == 255
    assert Image.open(out / "overlay.png").size == (WIDTH, HEIGHT)


def test_json_is_a_coco_file(panoptic, tmp_path, capsys):
    panoptic.save(tmp_path)
    coco = COCO(str(tmp_path / "result.json"))
    annotations = coco.loadAnns(coco.getAnnIds(catIds=[0]))
    assert len(annotations) == 2
    assert np.array_equal(coco.annToMask(annotations[0]).astype(bool), panoptic.segments[1].mask)
    assert coco_mask.area(json.loads((tmp_path / "result.json").read_text())["annotations"][1]["segmentation"]) == 70
    assert coco.loadCats(1)[0]["name"] == "sky"


def test_large_ids_and_large_vocabularies(image):
    label_map = np.arange(HEIGHT * WIDTH, dtype=np.int32).reshape(HEIGHT, WIDTH)
    categories = tuple(Category(f"class {i}", True) for i in range(1200))
    labels = {i: SegmentLabel(i, 0.5) for i in range(HEIGHT * WIDTH)}
    result = Result.from_label_map(label_map, labels, task="panoptic", image=image, categories=categories)
    rgb = np.asarray(result.panoptic_png()).astype(int)
    assert (rgb[..., 0] + 256 * rgb[..., 1]).max() == len(result) == 1199
    semantic = np.asarray(result.semantic_png())
    assert semantic.dtype == np.uint16
    assert semantic[0, 0] == 65535
    assert semantic[29, 39] == 1199


def test_stems_keep_results_apart(panoptic, overlapping, tmp_path):
    panoptic.save(tmp_path, stem="a")
    overlapping.save(tmp_path, stem="b", artifacts=["overlay", "masks"])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("a.overlay.png", "a.panoptic.png", "a.semantic.png", "a.result.json"),
        *("b.overlay.png", "b.mask-1.png", "b.mask-2.png", "b.mask-3.png"),
    }
    mask = np.asarray(Image.open(tmp_path / "b.mask-1.png"))
    assert set(np.unique(mask)) == {0, 255}


def test_saving_is_all_or_nothing(panoptic, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    panoptic.save(kept)
    before = {path.name: path.read_bytes() for path in kept.iterdir()}

    def fail() -> Image.Image:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(panoptic, "semantic_png", fail)
    for folder in (kept, tmp_path / "fresh" / "deep"):
        with pytest.raises(UserError, match="No space left"):
            panoptic.save(folder)
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == before
    assert not (tmp_path / "fresh").exists()


def test_folders_that_cannot_be_written(panoptic, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    (tmp_path / "file").touch()
    for folder, part in [(locked, "read-only"), (locked / "new", "read-only"), (tmp_path / "file", "not a folder")]:
        with pytest.raises(UserError, match=part):
            panoptic.save(folder)
        with pytest.raises(UserError, match=part):
            ensure_writable(folder)
    with pytest.raises(UserError, match="cannot write"):
        panoptic.save(tmp_path / ("x" * 400))
    assert not list(locked.iterdir())


def test_written_files_follow_the_umask(panoptic, tmp_path):
    previous = os.umask(0o022)
    try:
        path = panoptic.save(tmp_path)[0]
    finally:
        os.umask(previous)
    assert path.stat().st_mode & 0o777 == 0o644


def test_supervision_is_optional(panoptic, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match=r"omgvision\[supervision\]"):
        panoptic.to_supervision()


def test_supervision_arguments(panoptic, monkeypatch):
    @dataclass
    class Detections:
        xyxy: np.ndarray
        mask: np.ndarray
        confidence: np.ndarray
        class_id: np.ndarray
        data: dict

    monkeypatch.setitem(sys.modules, "supervision", types.SimpleNamespace(Detections=Detections))  # type: ignore[arg-type]
    detections = panoptic.to_supervision()
    assert detections.xyxy.shape == (3, 4)
    assert detections.mask.dtype == bool
    assert detections.class_id.tolist() == [1, 0, 0]
    assert detections.data["class_name"].tolist() == ["sky", "person, child", "person, child"]


def test_supervision_itself(panoptic):
    supervision = pytest.importorskip("supervision")
    detections = panoptic.to_supervision()
    assert isinstance(detections, supervision.Detections)
    assert len(detections[detections.class_id == 0]) == 2
    assert detections.area.tolist() == [400, 70, 20]


def test_paths_may_be_text(panoptic, tmp_path):
    assert all(isinstance(path, Path) and path.exists() for path in panoptic.save(str(tmp_path)))
