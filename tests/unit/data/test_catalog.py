"""What `open_dataset` makes of a path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omgvision.data import (
    Ade20kPanoptic,
    Ade20kSemantic,
    Cityscapes,
    CityscapesPanoptic,
    CocoInstances,
    CocoPanoptic,
    Davis,
    FrameSampling,
    Lvis,
    MaskFolder,
    Objects365,
    PascalVoc,
    SegmentAnything,
    VipSeg,
    Vspw,
    YouTubeVis,
    open_dataset,
)

SQUARE = [[2, 2, 8, 2, 8, 6, 2, 6]]


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((12, 16, 3), dtype=np.uint8)).save(path)


def label_map(path: Path, value: int = 1, *, rest: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.full((12, 16), rest, dtype=np.uint8)
    values[2:8, 2:8] = value
    Image.fromarray(values).save(path)


def dump(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def instances_json(path: Path, **entry: Any) -> Path:
    return dump(
        path,
        {
            "images": [{"id": 1, "height": 12, "width": 16, **entry}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": SQUARE}],
            "categories": [{"id": 1, "name": "Person"}],
        },
    )


@pytest.mark.parametrize("place", ["images", "train2017", "train/data", "../train2017", "."])
def test_images_are_found_near_the_json(tmp_path: Path, place: str) -> None:
    folder = tmp_path / "annotations"
    folder.mkdir()
    image(folder / place / "a.jpg")
    dataset = open_dataset(instances_json(folder / "instances_train.json", file_name="a.jpg"))
    assert isinstance(dataset, CocoInstances)
    assert dataset[0].labels.tolist() == [0]


def test_json_files_by_their_content(
    tmp_path: Path, panoptic_folder: Path, instances_folder: Path, video_folder: Path
) -> None:
    panoptic = open_dataset(panoptic_folder / "panoptic.json")
    assert type(panoptic) is CocoPanoptic
    assert panoptic.names == ("dog", "tree")
    assert type(open_dataset(instances_folder / "instances.json")) is CocoInstances
    assert type(open_dataset(video_folder / "videos.json", sampling=FrameSampling(1))) is YouTubeVis
    image(tmp_path / "lvis" / "val2017" / "1.jpg")
    url = "http://images.cocodataset.org/val2017/1.jpg"
    assert type(open_dataset(instances_json(tmp_path / "lvis" / "lvis_v1_val.json", coco_url=url))) is Lvis
    image(tmp_path / "objects" / "patch0" / "objects365_v1_1.jpg")
    name = "images/v1/patch0/objects365_v1_1.jpg"
    boxes = open_dataset(instances_json(tmp_path / "objects" / "train.json", file_name=name))
    assert type(boxes) is Objects365
    assert boxes.names == ("person",)


def test_json_that_is_not_understood(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is not a JSON file"):
        open_dataset(tmp_path / "broken.json")
    with pytest.raises(ValueError, match="holds no json object"):
        open_dataset(dump(tmp_path / "list.json", [1]))
    with pytest.raises(ValueError, match=r"names no image.*--images"):
        open_dataset(dump(tmp_path / "empty.json", {}))
    with pytest.raises(ValueError, match=r"names a\.jpg, which is not in .*images.*--images"):
        open_dataset(instances_json(tmp_path / "alone.json", file_name="a.jpg"))


def test_ade20k(tmp_path: Path) -> None:
    root = tmp_path / "ADEChallengeData2016"
    image(root / "images" / "training" / "a.jpg")
    image(root / "images" / "validation" / "b.jpg")
    label_map(root / "annotations" / "training" / "a.png")
    label_map(root / "annotations" / "validation" / "b.png")
    assert type(open_dataset(tmp_path)) is Ade20kSemantic
    assert open_dataset(root, split="val").names[0] == "wall"
    with pytest.raises(ValueError, match=r"split: expected one of train, val of .*, got test"):
        open_dataset(root, split="test")
    label_map(root / "ade20k_panoptic_val" / "b.png")
    Image.open(root / "ade20k_panoptic_val" / "b.png").convert("RGB").save(root / "ade20k_panoptic_val" / "b.png")
    segments = [{"id": 1 + 256 + 65536, "category_id": 0}]
    content = {
        "images": [{"id": "b", "file_name": "b.jpg", "height": 12, "width": 16}],
        "annotations": [{"image_id": "b", "file_name": "b.png", "segments_info": segments}],
        "categories": [{"id": 0, "name": "wall", "isthing": 0}],
    }
    path = dump(root / "ade20k_panoptic_val.json", content)
    assert type(open_dataset(root, split="val")) is Ade20kPanoptic
    by_json = open_dataset(path)
    assert type(by_json) is CocoPanoptic
    assert by_json[0].areas().tolist() == [36]


def test_cityscapes(tmp_path: Path) -> None:
    image(tmp_path / "leftImg8bit" / "val" / "ulm" / "ulm_0_leftImg8bit.png")
    label_map(tmp_path / "gtFine" / "val" / "ulm" / "ulm_0_gtFine_instanceIds.png", 7)
    derived = open_dataset(tmp_path)
    assert type(derived) is Cityscapes, "val is the only part"
    assert derived[0].labels.tolist() == [0]
    segments = [{"id": 1 + 256 + 65536, "category_id": 7}]
    content = {
        "images": [{"id": "ulm_0", "file_name": "ulm_0_gtFine_leftImg8bit.png", "height": 12, "width": 16}],
        "annotations": [{"image_id": "ulm_0", "file_name": "ulm_0_gtFine_panoptic.png", "segments_info": segments}],
        "categories": [{"id": 7, "name": "road", "isthing": 0}],
    }
    path = dump(tmp_path / "gtFine" / "cityscapes_panoptic_val.json", content)
    label_map(tmp_path / "gtFine" / "cityscapes_panoptic_val" / "ulm_0_gtFine_panoptic.png")
    coded = tmp_path / "gtFine" / "cityscapes_panoptic_val" / "ulm_0_gtFine_panoptic.png"
    Image.open(coded).convert("RGB").save(coded)
    for opened in (open_dataset(tmp_path), open_dataset(path)):
        assert type(opened) is CityscapesPanoptic
        assert opened[0].areas().tolist() == [36]


def test_pascal_voc_and_segment_anything(tmp_path: Path) -> None:
    root = tmp_path / "voc" / "VOCdevkit" / "VOC2012"
    image(root / "JPEGImages" / "a.jpg")
    label_map(root / "SegmentationClass" / "a.png", 8)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for part in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("a\n")
    voc = open_dataset(tmp_path / "voc")
    assert type(voc) is PascalVoc
    assert voc[0].labels.tolist() == [7]
    image(tmp_path / "sa" / "sa_000000" / "sa_1.jpg")
    dump(tmp_path / "sa" / "sa_000000" / "sa_1.json", {"annotations": [{"segmentation": SQUARE}]})
    masks = open_dataset(tmp_path / "sa")
    assert type(masks) is SegmentAnything
    assert masks[0].areas().tolist() == [24]


def test_video_folders(tmp_path: Path) -> None:
    single = FrameSampling(1)
    for number in range(2):
        image(tmp_path / "davis" / "JPEGImages" / "480p" / "dog" / f"{number}.jpg")
        label_map(tmp_path / "davis" / "Annotations" / "480p" / "dog" / f"{number}.png", 2)
        image(tmp_path / "old" / "JPEGImages" / "dog" / f"{number}.jpg")
        label_map(tmp_path / "old" / "Annotations" / "dog" / f"{number}.png", 255)
        image(tmp_path / "vspw" / "data" / "street" / "origin" / f"{number}.jpg")
        label_map(tmp_path / "vspw" / "data" / "street" / "mask" / f"{number}.png", 1)
        image(tmp_path / "vipseg" / "images" / "road" / f"{number}.jpg")
        label_map(tmp_path / "vipseg" / "panomasksRGB" / "road" / f"{number}.png", 5)
        coded = tmp_path / "vipseg" / "panomasksRGB" / "road" / f"{number}.png"
        pixels = np.array(Image.open(coded))
        Image.fromarray(np.stack([pixels, 0 * pixels, 0 * pixels], axis=2)).save(coded)
    for year in ("2016", "2017"):
        (tmp_path / "davis" / "ImageSets" / year).mkdir(parents=True)
        (tmp_path / "davis" / "ImageSets" / year / "train.txt").write_text("dog\n")
    davis = open_dataset(tmp_path / "davis", sampling=single)
    assert type(davis) is Davis
    assert davis.frame(0, 1).areas().tolist() == [36]
    old = open_dataset(tmp_path / "old", sampling=single)
    assert type(old) is Davis
    assert old.frame(0, 0).areas().tolist() == [36], "255 is the object of DAVIS 2016"
    (tmp_path / "vspw" / "train.txt").write_text("street\n")
    assert type(open_dataset(tmp_path / "vspw", sampling=single)) is Vspw
    frames = [{"id": str(n), "file_name": f"{n}.jpg", "height": 12, "width": 16} for n in range(2)]
    maps = [
        {"image_id": str(n), "file_name": f"{n}.png", "segments_info": [{"id": 5, "category_id": 1, "iscrowd": 0}]}
        for n in range(2)
    ]
    content = {
        "videos": [{"video_id": "road", "images": frames}],
        "annotations": [{"video_id": "road", "annotations": maps}],
        "categories": [{"id": 1, "name": "car", "isthing": 1}],
    }
    path = dump(tmp_path / "vipseg" / "panoptic_gt_VIPSeg_train.json", content)
    for opened in (open_dataset(tmp_path / "vipseg", sampling=single), open_dataset(path, sampling=single)):
        assert type(opened) is VipSeg
        assert opened.frame(0, 0).areas().tolist() == [36]


def mask_folder(path: Path, **options: Any) -> MaskFolder:
    dataset = open_dataset(path, **options)
    assert type(dataset) is MaskFolder
    return dataset


def test_folders_of_masks(tmp_path: Path) -> None:
    for part in ("train", "val"):
        image(tmp_path / "images" / part / "a.png")
        label_map(tmp_path / "labels" / part / "a.png", 1, rest=9)
    with pytest.raises(ValueError, match=r"need names.*classes\.json"):
        open_dataset(tmp_path)
    dump(tmp_path / "classes.json", {"classes": ["road", "car"], "things": ["car"], "void": 9, "split_things": True})
    dataset = mask_folder(tmp_path, split="val")
    assert (dataset.names, dataset.things) == (("road", "car"), (False, True))
    assert dataset[0].labels.tolist() == [1]
    alone = mask_folder(tmp_path / "images" / "val", masks=tmp_path / "labels" / "val")
    assert alone[0].labels.tolist() == [1], "classes.json is found from the part, too"
    dump(tmp_path / "classes.json", ["road", "car"])
    with pytest.raises(ValueError, match="value 9"):
        mask_folder(tmp_path)[0]
    for wrong in ({"classes": "road"}, {"classes": ["a"], "void": "b"}, {"classes": [1]}, 5):
        dump(tmp_path / "classes.json", wrong)
        with pytest.raises(ValueError, match=r"classes: .*classes\.json: expected"):
            open_dataset(tmp_path)


def test_folder_of_numbered_objects(tmp_path: Path) -> None:
    image(tmp_path / "images" / "a.png")
    label_map(tmp_path / "instances" / "a.png", 200)
    dataset = mask_folder(tmp_path, classes=["nucleus"])
    assert dataset.name == tmp_path.name
    assert (dataset[0].labels.tolist(), dataset[0].areas().tolist()) == ([0], [36])
    pair = mask_folder(
        tmp_path / "images", masks=tmp_path / "instances", classes=["nucleus"], instances=True, strict=True
    )
    assert pair[0].areas().tolist() == [36]
    with pytest.raises(ValueError, match="has no parts, got 'val'"):
        open_dataset(tmp_path, classes=["nucleus"], split="val")


def test_what_is_not_understood_lists_what_is(tmp_path: Path) -> None:
    (tmp_path / "things.json").write_text("{}")
    with pytest.raises(
        ValueError, match=r"no layout that is known; .*things\.json.*Known are: .*ADE20K.*Cityscapes.*VSPW"
    ):
        open_dataset(tmp_path)
    image(tmp_path / "pictures" / "a.jpg")
    with pytest.raises(ValueError, match=r"pictures is a folder of images: .*--masks"):
        open_dataset(tmp_path / "pictures")
    with pytest.raises(ValueError, match=r"nowhere does not exist: expected a json file or a folder"):
        open_dataset(tmp_path / "nowhere")
