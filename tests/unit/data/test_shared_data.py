"""The readers on the project's real pictures (skipped where those are not)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omgvision.data import Augmentation, CocoInstances, CocoPanoptic, MaskFolder, YouTubeVisFrames, load_class_list


@pytest.mark.parametrize(("part", "pictures"), [("train", 70), ("val", 68)])
def test_coco_panoptic(shared_data: Path, part: str, pictures: int) -> None:
    coco = shared_data / "coco_mini"
    dataset = CocoPanoptic(coco / f"panoptic_{part}.json", images=coco / "images")
    assert len(dataset) == pictures
    bundled = load_class_list("coco")
    assert (dataset.names, dataset.things, dataset.category_ids) == (
        bundled.names,
        bundled.things,
        bundled.category_ids,
    )
    sample = dataset[0]
    assert len(sample.segment_layers) == 1
    assert int(sample.areas().sum()) > 0.8 * sample.size[0] * sample.size[1]


def test_coco_panoptic_areas_are_those_of_the_json(shared_data: Path) -> None:
    import json

    path = shared_data / "coco_mini" / "panoptic_val.json"
    dataset = CocoPanoptic(path, images=shared_data / "coco_mini" / "images")
    annotations = {str(entry["image_id"]): entry for entry in json.loads(path.read_text())["annotations"]}
    for index in range(5):
        sample = dataset[index]
        infos = [info for info in annotations[sample.sample_id]["segments_info"] if not info["iscrowd"]]
        assert sorted(sample.areas().tolist()) == sorted(info["area"] for info in infos)


def test_coco_instances(shared_data: Path) -> None:
    coco = shared_data / "coco_mini"
    dataset = CocoInstances(coco / "instances_val.json", images=coco / "images")
    assert dataset.names == load_class_list("coco-things").names
    assert 100 < len(dataset) <= 120
    assert all(len(dataset[index].labels) for index in range(5))


def test_camvid(shared_data: Path) -> None:
    folder, classes = shared_data / "camvid", load_class_list("camvid")
    things = [name for name, thing in zip(classes.names, classes.things, strict=True) if thing]
    dataset = MaskFolder(
        folder / "images" / "train",
        masks=folder / "labels" / "train",
        classes=classes.names,
        things=things,
        void=11,
        split_things=True,
    )
    assert len(dataset) == 367
    labels = dataset[0].labels.tolist()
    assert labels.count(classes.names.index("road")) == 1
    assert labels.count(classes.names.index("car")) >= 1


def test_davis(shared_data: Path) -> None:
    folder = shared_data / "davis2016_mini"
    dataset = YouTubeVisFrames(folder / "instances_train.json", images=folder / "JPEGImages", every=10)
    sample = dataset[0]
    assert sample.size == (216, 384)
    assert len(sample.labels) == 1


def test_nuclei(shared_data: Path) -> None:
    folder = shared_data / "dsb2018_mini"
    dataset = MaskFolder(folder / "images", masks=folder / "instances", classes=["nucleus"], kind="instance")
    assert len(dataset) == 664
    sample = dataset[0]
    assert len(sample.labels) > 5
    augmented = Augmentation()(sample, np.random.default_rng(0))
    assert augmented.size == (256, 256)
