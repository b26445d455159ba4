"""The official layouts of image datasets, as tiny folders: what each reader yields, leaves out and refuses."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from omgvision.data import (
    Ade20kInstances,
    Ade20kPanoptic,
    Ade20kSemantic,
    Cityscapes,
    CityscapesPanoptic,
    ClassAgnostic,
    CocoPanoptic,
    Lvis,
    Objects365,
    PascalVoc,
    Sample,
    SegmentAnything,
    cityscapes_panoptic,
    load_class_list,
)

SIZE = (12, 16)


def write_picture(path: Path, *, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def write_map(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_coded(path: Path, ids: np.ndarray) -> None:
    write_map(path, np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8))


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def blank(dtype: Any = np.uint8) -> np.ndarray:
    return np.zeros(SIZE, dtype=dtype)


def runs(mask: np.ndarray) -> dict[str, Any]:
    api: Any = coco_mask
    encoded = api.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def named_areas(sample: Sample) -> list[tuple[str, int]]:
    return [(sample.names[label], area) for label, area in zip(sample.labels, sample.areas().tolist(), strict=True)]


# ----------------------------------------------------------------------------------------------------------------- LVIS


@pytest.fixture
def lvis(tmp_path: Path) -> Path:
    """Three photographs in two folders, one of them missing; the json names them by address only."""
    write_picture(tmp_path / "train2017" / "000000000001.jpg")
    write_picture(tmp_path / "val2017" / "000000000002.jpg", size=(16, 12))
    square = [[2, 2, 8, 2, 8, 6, 2, 6]]
    size = {"height": SIZE[0], "width": SIZE[1], "neg_category_ids": [], "not_exhaustive_category_ids": [2]}
    address = "http://images.cocodataset.org"
    content = {
        "images": [
            {"id": 1, "coco_url": f"{address}/train2017/000000000001.jpg", **size},
            {"id": 2, "coco_url": f"{address}/val2017/000000000002.jpg", **size, "height": 16, "width": 12},
            {"id": 3, "coco_url": f"{address}/val2017/000000000003.jpg", **size},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": square},
            {"id": 2, "image_id": 2, "category_id": 2, "segmentation": square},
            {"id": 3, "image_id": 3, "category_id": 2, "segmentation": square},
        ],
        "categories": [
            {"id": 2, "name": "baby_buggy", "synonyms": ["baby_buggy", "pram"], "frequency": "r"},
            {"id": 7, "name": "bow_(weapon)", "synonyms": ["bow_(weapon)"], "frequency": "c"},
        ],
    }
    return write_json(tmp_path / "lvis_v1_train.json", content)


def test_lvis_finds_photographs_by_address(lvis: Path) -> None:
    dataset = Lvis(lvis, images=lvis.parent)
    assert dataset.names == ("baby buggy, pram", "bow (weapon)")
    assert dataset.category_ids == (2, 7)
    assert [named_areas(sample) for sample in (dataset[0], dataset[1])] == [
        [("bow (weapon)", 24)],
        [("baby buggy, pram", 24)],
    ]
    assert dataset.portrait == [False, True]
    assert dataset.findings.counts == {"images that are missing": 1}
    assert "val2017/000000000003.jpg" in dataset.findings.examples["images that are missing"]


def test_lvis_in_one_folder(lvis: Path) -> None:
    dataset = Lvis(lvis, images=lvis.parent / "val2017")
    assert dataset[0].sample_id == "2"
    assert pickle.loads(pickle.dumps(dataset))[0].areas().tolist() == [24], "worker processes get a copy"  # noqa: S301
    assert dataset.findings.counts == {"images that are missing": 2}


# --------------------------------------------------------------------------------------------------------------- ADE20K


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    """Two training pictures, one of them without an annotation; wall (1), bed (8), flag (150) and void (0)."""
    for name in ("ADE_train_00000001", "ADE_train_00000002"):
        write_picture(tmp_path / "images" / "training" / f"{name}.jpg")
    values = blank()
    values[:4], values[4:8, :5], values[11, 15] = 1, 8, 150
    write_map(tmp_path / "annotations" / "training" / "ADE_train_00000001.png", values)
    return tmp_path


def test_ade20k_semantic(ade20k: Path) -> None:
    dataset = Ade20kSemantic(ade20k)
    assert len(dataset) == 1
    assert named_areas(dataset[0]) == [("wall", 64), ("bed", 20), ("flag", 1)]
    assert dataset.things[7] and not dataset.things[0]
    assert not dataset[0].masks[:, 9, 9].any()
    assert dataset.findings.counts == {"images without an annotation": 1}
    with pytest.raises(ValueError, match="ADE_train_00000002"):
        Ade20kSemantic(ade20k, strict=True)
    with pytest.raises(ValueError, match=r"no such folder: .*validation"):
        Ade20kSemantic(ade20k, split="val")


def test_ade20k_value_that_is_no_class(ade20k: Path) -> None:
    write_map(ade20k / "annotations" / "training" / "ADE_train_00000001.png", blank() + np.uint8(151))
    with pytest.raises(ValueError, match=r"00000001\.png has value 151, expected 1\.\.150 or void 0"):
        Ade20kSemantic(ade20k)[0]


def test_ade20k_panoptic_and_instances(ade20k: Path) -> None:
    ids = blank(np.int32)
    ids[:4], ids[4:8, :5], ids[8:, :5] = 300, 7, 70_000
    write_coded(ade20k / "ade20k_panoptic_train" / "ADE_train_00000001.png", ids)
    image = {"id": "ADE_train_00000001", "file_name": "ADE_train_00000001.jpg", "height": SIZE[0], "width": SIZE[1]}
    categories = [{"id": 0, "name": "wall", "isthing": 0}, {"id": 8, "name": "window ", "isthing": 1}]
    segments = [
        {"id": 300, "category_id": 0, "iscrowd": 0},
        {"id": 7, "category_id": 8, "iscrowd": 0},
        {"id": 70_000, "category_id": 8, "iscrowd": 0},
    ]
    annotation = {"image_id": image["id"], "file_name": "ADE_train_00000001.png", "segments_info": segments}
    write_json(
        ade20k / "ade20k_panoptic_train.json",
        {"images": [image], "annotations": [annotation], "categories": categories},
    )
    sample = Ade20kPanoptic(ade20k, strict=True)[0]
    assert named_areas(sample) == [("window", 20), ("window", 20), ("wall", 64)]
    content = {
        "images": [image],
        "annotations": [{"id": 1, "image_id": image["id"], "category_id": 8, "segmentation": runs(ids == 7)}],
        "categories": [{"id": 8, "name": "tub"}],
    }
    write_json(ade20k / "ade20k_instance_train.json", content)
    assert named_areas(Ade20kInstances(ade20k)[0]) == [("bathtub", 20)]


# ----------------------------------------------------------------------------------------------------------- Cityscapes


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """One scene: road (7), two cars (26), a group of persons (24), ego vehicle (1, void); a second without maps."""
    for number in range(2):
        write_picture(tmp_path / "leftImg8bit" / "train" / "ulm" / f"ulm_00000{number}_000019_leftImg8bit.png")
    instances = blank(np.uint16)
    instances[6:], instances[11] = 7, 1
    instances[2:5, 1:4], instances[2:5, 8:12], instances[0, :4] = 26_001, 26_000, 24
    stem = tmp_path / "gtFine" / "train" / "ulm" / "ulm_000000_000019_gtFine"
    write_map(stem.with_name(f"{stem.name}_instanceIds.png"), instances)
    labels = np.where(instances >= 1000, instances // 1000, instances).astype(np.uint8)
    write_map(stem.with_name(f"{stem.name}_labelIds.png"), labels)
    return tmp_path


def test_cityscapes_panoptic_from_instance_ids(cityscapes: Path) -> None:
    dataset = Cityscapes(cityscapes)
    sample = dataset[0]
    assert named_areas(sample) == [("car", 12), ("car", 9), ("road", 80)]
    assert not sample.masks[:, 0, 0].any(), "a group belongs to nothing"
    assert dataset.category_ids[:2] == (7, 8)
    assert sample.sample_id == "ulm_000000_000019"
    assert dataset.findings.counts == {"images without a map gtFine_instanceIds.png": 1}


def test_cityscapes_instances_and_classes(cityscapes: Path) -> None:
    objects = Cityscapes(cityscapes, kind="instance")
    assert objects.names[0] == "person" and all(objects.things) and len(objects.names) == 8
    assert named_areas(objects[0]) == [("car", 12), ("car", 9)]
    semantic = Cityscapes(cityscapes, kind="semantic")
    assert named_areas(semantic[0]) == [("road", 80), ("person", 4), ("car", 21)]


def test_cityscapes_train_ids(cityscapes: Path) -> None:
    folder = cityscapes / "gtFine" / "train" / "ulm"
    (folder / "ulm_000000_000019_gtFine_labelIds.png").unlink()
    values = blank() + np.uint8(255)
    values[3:6], values[0, 0] = 13, 0
    write_map(folder / "ulm_000000_000019_gtFine_labelTrainIds.png", values)
    assert named_areas(Cityscapes(cityscapes, kind="semantic")[0]) == [("road", 1), ("car", 48)]


def test_cityscapes_value_that_is_no_label(cityscapes: Path) -> None:
    path = cityscapes / "gtFine" / "train" / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png"
    write_map(path, blank(np.uint16) + np.uint16(77))
    with pytest.raises(ValueError, match="has value 77, which is no label id"):
        Cityscapes(cityscapes)[0]
    with pytest.raises(ValueError, match="no such folder"):
        Cityscapes(cityscapes, split="val")


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes_official_panoptic_files_are_what_instance_ids_say(
    tmp_path: Path, shared_data: Path, train_ids: bool
) -> None:
    recorded = shared_data.parent / "golden" / "metrics" / "cityscapes" / "gtFine"
    if not recorded.is_dir():
        pytest.skip(f"no {recorded}")
    shutil.copytree(recorded, tmp_path / "gtFine")
    for path in recorded.glob("val/*/*_instanceIds.png"):
        with Image.open(path) as image:
            size = (image.height, image.width)
        stem = path.name.removesuffix("_gtFine_instanceIds.png")
        write_picture(tmp_path / "leftImg8bit" / "val" / path.parent.name / f"{stem}_leftImg8bit.png", size=size)
    official = CityscapesPanoptic(tmp_path, split="val", train_ids=train_ids, strict=True)
    derived = Cityscapes(tmp_path, split="val", strict=True)
    assert official.names == derived.names == load_class_list("cityscapes").names
    assert official.things == derived.things
    assert len(official) == len(derived) == 8
    for index in range(len(derived)):
        one, other = official[index], derived[index]
        assert one.sample_id == other.sample_id
        found = [
            sorted(
                (label, *mask.flatten().nonzero()[[0, -1], 0].tolist(), int(mask.sum()))
                for label, mask in zip(sample.labels.tolist(), sample.masks, strict=True)
            )
            for sample in (one, other)
        ]
        assert found[0] == found[1]
        assert torch.equal(one.masks.any(0), other.masks.any(0))
    assert isinstance(cityscapes_panoptic(tmp_path, split="val"), CityscapesPanoptic)
    for path in tmp_path.glob("gtFine/*.json"):
        path.unlink()
    assert isinstance(cityscapes_panoptic(tmp_path, split="val"), Cityscapes)


# ----------------------------------------------------------------------------------------------------------- Objects365


@pytest.fixture
def objects365(tmp_path: Path) -> Path:
    """Boxes of a person and of a camel, and a crowd; the photograph lies in a patch folder."""
    write_picture(tmp_path / "train" / "patch8" / "objects365_v2_00420917.jpg")
    content = {
        "images": [
            {
                "id": 420917,
                "file_name": "images/v2/patch8/objects365_v2_00420917.jpg",
                "height": SIZE[0],
                "width": SIZE[1],
            }
        ],
        "annotations": [
            {"id": 1, "image_id": 420917, "category_id": 1, "bbox": [1, 1, 4, 4], "iscrowd": 0},
            {"id": 2, "image_id": 420917, "category_id": 308, "bbox": [8, 1, 4, 4], "iscrowd": 0},
            {"id": 3, "image_id": 420917, "category_id": 308, "bbox": [8, 1, 4, 4], "iscrowd": 1},
        ],
        "categories": [{"id": 1, "name": "Person"}, {"id": 308, "name": "Campel"}],
    }
    return write_json(tmp_path / "zhiyuan_objv2_train.json", content)


def test_objects365_with_masks_of_its_boxes(objects365: Path) -> None:
    mask = blank()
    mask[1:4, 1:5] = 1
    masks = write_json(objects365.parent / "masks.json", [{"id": 2, "segmentation": runs(mask)}])
    dataset = Objects365(objects365, images=objects365.parent / "train", masks=masks)
    assert dataset.names == ("person", "camel")
    assert named_areas(dataset[0]) == [("camel", 12)]
    assert dataset.findings.counts == {"objects without a mask": 1}
    nested = write_json(masks, {"annotations": [{"id": 1, "segmentation": runs(mask)}]})
    assert named_areas(Objects365(objects365, images=objects365.parent / "train", masks=nested)[0]) == [("person", 12)]


def test_objects365_without_masks_is_refused(objects365: Path) -> None:
    with pytest.raises(ValueError, match=r"has boxes and no masks.*second json"):
        Objects365(objects365, images=objects365.parent / "train")
    with pytest.raises(ValueError, match=r"masks: .*: expected a list of objects"):
        Objects365(objects365, images=objects365.parent / "train", masks=objects365)


# ----------------------------------------------------------------------------------------------------------- Pascal VOC


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A picture with two cats (8) and a chair (9) with void rims, one without its object map, one that is missing."""
    for stem in ("2007_000001", "2007_000002"):
        write_picture(tmp_path / "JPEGImages" / f"{stem}.jpg")
        classes = blank()
        classes[1:5, 1:5], classes[1:5, 8:12], classes[8:11, 2:6] = 8, 8, 9
        classes[1:5, 5] = 255
        write_map(tmp_path / "SegmentationClass" / f"{stem}.png", classes)
    objects = blank()
    objects[1:5, 1:5], objects[1:5, 8:12], objects[8:11, 2:6] = 2, 1, 3
    objects[1:5, 5] = 255
    objects[1, 1] = 3  # a stray pixel over a cat: the chair remains a chair
    write_map(tmp_path / "SegmentationObject" / "2007_000001.png", objects)
    listed = tmp_path / "ImageSets" / "Segmentation" / "train.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("2007_000001\n2007_000002\n2007_000003\n")
    return tmp_path


def test_voc_objects_have_the_class_of_their_pixels(voc: Path) -> None:
    dataset = PascalVoc(voc)
    assert named_areas(dataset[0]) == [("cat", 16), ("cat", 15), ("chair", 13)]
    assert not dataset[0].masks[:, 1:5, 5].any()
    assert dataset.findings.counts == {"object maps that are missing": 1, "images that are missing": 1}
    with pytest.raises(ValueError, match=r"no such file: .*val\.txt"):
        PascalVoc(voc, split="val")


def test_voc_classes(voc: Path) -> None:
    dataset = PascalVoc(voc, kind="semantic")
    assert len(dataset) == 2
    assert named_areas(dataset[1]) == [("cat", 32), ("chair", 12)]


def test_voc_object_without_class_is_named(voc: Path) -> None:
    write_map(voc / "SegmentationClass" / "2007_000001.png", blank())
    with pytest.raises(ValueError, match=r"object 1 of .*2007_000001\.png has no class"):
        PascalVoc(voc)[0]


# ----------------------------------------------------------------------------------------------------- Segment Anything


@pytest.fixture
def sa1b(tmp_path: Path) -> Path:
    """Two photographs in two folders, one broken, one json without a photograph."""
    masks = [blank(), blank()]
    masks[0][2:6, 2:6], masks[1][4:9, 4:9] = 1, 1
    content = {
        "image": {"image_id": 1, "width": SIZE[1], "height": SIZE[0], "file_name": "sa_1.jpg"},
        "annotations": [{"id": 1, "segmentation": runs(mask), "predicted_iou": 0.9} for mask in masks],
    }
    write_picture(tmp_path / "sa_1.jpg")
    write_picture(tmp_path / "sa_000001" / "sa_2.jpg")
    (tmp_path / "sa_3.jpg").write_bytes(b"no picture")
    for name in ("sa_1", "sa_000001/sa_2", "sa_3", "sa_4"):
        write_json(tmp_path / f"{name}.json", content)
    return tmp_path


def test_sa1b_masks_without_class(sa1b: Path) -> None:
    dataset = SegmentAnything(sa1b)
    assert [dataset[index].sample_id for index in range(len(dataset))] == ["sa_2", "sa_1"]
    sample = dataset[1]
    assert (sample.names, sample.labels.tolist(), sample.areas().tolist()) == ((), [-1, -1], [16, 25])
    assert (sample.masks[0] & sample.masks[1]).sum() == 4
    assert dataset.findings.counts == {"images that cannot be read": 1, "json without an image": 1}
    with pytest.raises(ValueError, match=r"sa_3\.jpg"):
        SegmentAnything(sa1b, strict=True)


def test_sa1b_names_the_json_that_is_wrong(sa1b: Path) -> None:
    dataset = SegmentAnything(sa1b)
    write_json(sa1b / "sa_1.json", {"annotations": [{"segmentation": {"size": [4, 4], "counts": [16]}}]})
    with pytest.raises(ValueError, match=r"sa_1\.json: annotation number 0: .*\[4, 4\]"):
        dataset[1]
    write_json(sa1b / "sa_1.json", {"annotations": [{}]})
    with pytest.raises(ValueError, match=r"sa_1\.json has no annotations with a segmentation"):
        dataset[1]
    (sa1b / "sa_1.json").write_text("{")
    with pytest.raises(ValueError, match=r"sa_1\.json is not json"):
        dataset[1]


def test_coco_sam_is_coco_without_classes(panoptic_folder: Path) -> None:
    coco = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")
    prompts = ClassAgnostic(coco)
    assert len(prompts) == 1
    assert prompts[0].labels.tolist() == [-1, -1, -1]
    assert torch.equal(prompts[0].masks, coco[0].masks)
    assert (prompts.names, prompts[0].names, prompts[0].dataset) == ((), (), "coco-sam")
