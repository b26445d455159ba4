"""Every reader on its layout: what it yields, and what it says about data that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from omgvision.data import CocoInstances, CocoPanoptic, MaskFolder, YouTubeVisFrames, load_class_list


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_panoptic_yields_things_first_without_the_crowd(panoptic_folder: Path) -> None:
    dataset = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")
    sample = dataset[0]
    assert len(dataset) == 1
    assert sample.names == ("dog", "tree")
    assert sample.things == (True, False)
    assert sample.labels.tolist() == [0, 0, 1]
    assert sample.areas().tolist() == [24, 50, 20 * 29 - 24 - 50 - 36]
    assert not sample.masks[:, 17, 25].any(), "crowd pixels belong to nothing"
    with Image.open(panoptic_folder / "images" / "a.png") as image:
        assert np.array_equal(sample.image.permute(1, 2, 0).numpy(), np.array(image))


def test_panoptic_keeps_official_names_when_asked(panoptic_folder: Path) -> None:
    dataset = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images", plain=False)
    assert dataset.names == ("dog", "tree-merged")
    assert dataset.category_ids == (18, 184)


def test_instances_overlap_without_loss(instances_folder: Path) -> None:
    dataset = CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")
    sample = dataset[0]
    assert len(dataset) == 1, "the picture without an object is left out"
    assert sample.labels.tolist() == [0, 1, 0]
    assert sample.areas().tolist() == [80, 80, 15]
    assert (sample.masks[0] & sample.masks[1]).sum() == 6 * 6
    assert len(sample.segment_layers) == 2


def test_instances_keep_empty_pictures_when_asked(instances_folder: Path) -> None:
    dataset = CocoInstances(instances_folder / "instances.json", images=instances_folder / "images", keep_empty=True)
    assert [len(dataset[index].labels) for index in range(len(dataset))] == [3, 0]
    assert dataset[1].masks.shape == (0, 20, 30)


def test_video_frames_with_an_object(video_folder: Path) -> None:
    dataset = YouTubeVisFrames(video_folder / "videos.json", images=video_folder / "frames")
    assert [dataset[index].sample_id for index in range(len(dataset))] == ["dog/0", "dog/2", "dog/3"]
    assert dataset[1].labels.tolist() == [1]
    assert torch.nonzero(dataset[1].masks[0])[0].tolist() == [5, 8]


def test_every_second_video_frame(video_folder: Path) -> None:
    dataset = YouTubeVisFrames(video_folder / "videos.json", images=video_folder / "frames", every=2)
    assert [dataset[index].sample_id for index in range(len(dataset))] == ["dog/0", "dog/2"]


def semantic(folder: Path, **options: Any) -> MaskFolder:
    options = {"classes": ["road", "car"], "things": ["car"], "void": 255, **options}
    return MaskFolder(folder / "images", masks=folder / "masks", **options)


def test_semantic_folder_one_segment_a_class(semantic_folder: Path) -> None:
    dataset = semantic(semantic_folder)
    assert dataset[0].labels.tolist() == [0, 1]
    assert dataset[0].areas().tolist() == [600 - 5 - 129, 129]
    assert dataset[1].labels.tolist() == []


def test_semantic_folder_components_as_objects(semantic_folder: Path) -> None:
    dataset = semantic(semantic_folder, split_things=True)
    assert dataset[0].labels.tolist() == [0, 1, 1]
    assert sorted(dataset[0].areas()[1:].tolist()) == [48, 80]


def test_instance_folder(nuclei_folder: Path) -> None:
    dataset = MaskFolder(
        nuclei_folder / "images", masks=nuclei_folder / "masks", classes=["nucleus"], kind="instance", stems=["n"]
    )
    assert dataset.things == (True,)
    assert dataset[0].areas().tolist() == [40, 9]
    assert dataset[0].labels.tolist() == [0, 0]


def test_missing_picture_is_named(panoptic_folder: Path) -> None:
    (panoptic_folder / "images" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 1 files are missing, the first: .*a\.png"):
        CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")


def test_missing_segmentation_folder_is_named(panoptic_folder: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        CocoPanoptic(
            panoptic_folder / "panoptic.json", images=panoptic_folder / "images", segmentations=panoptic_folder / "none"
        )


def test_unknown_category_is_named(panoptic_folder: Path, instances_folder: Path) -> None:
    edit(panoptic_folder / "panoptic.json", lambda content: content["categories"].pop())
    with pytest.raises(ValueError, match="category id 184"):
        CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")
    edit(instances_folder / "instances.json", lambda content: content["categories"].pop())
    with pytest.raises(ValueError, match="category id 3"):
        CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")


def test_missing_key_is_named(instances_folder: Path) -> None:
    edit(instances_folder / "instances.json", lambda content: content["images"][1].pop("height"))
    with pytest.raises(ValueError, match="entry 1 of images lacks height"):
        CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")


def test_unknown_picture_is_named(instances_folder: Path) -> None:
    edit(instances_folder / "instances.json", lambda content: content["images"].pop())
    with pytest.raises(ValueError, match="annotates image 1, which it lacks"):
        CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")


def test_size_that_differs_is_told(panoptic_folder: Path) -> None:
    edit(panoptic_folder / "panoptic.json", lambda content: content["images"][0].update(height=21))
    dataset = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")
    with pytest.raises(ValueError, match=r"\(20, 30\).*\(21, 30\)"):
        dataset[0]


def test_video_of_another_length_is_told(video_folder: Path) -> None:
    edit(video_folder / "videos.json", lambda content: content["annotations"][0]["segmentations"].pop())
    with pytest.raises(ValueError, match="3 masks, its video 4 frames"):
        YouTubeVisFrames(video_folder / "videos.json", images=video_folder / "frames")


@pytest.mark.parametrize(("text", "message"), [("{", "is not json"), ("{}", "lacks"), ("[]", "lacks")])
def test_broken_json_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        CocoInstances(tmp_path / "broken.json", images=tmp_path)


def test_mask_folder_says_what_is_wrong(semantic_folder: Path) -> None:
    with pytest.raises(ValueError, match="things: bus"):
        semantic(semantic_folder, things=["bus"])
    with pytest.raises(ValueError, match="void: 1 is the index of class 'car'"):
        semantic(semantic_folder, void=1)
    with pytest.raises(ValueError, match="no image of stem 'z'"):
        semantic(semantic_folder, stems=["z"])
    with pytest.raises(ValueError, match=r"value 255, expected 0\.\.1"):
        semantic(semantic_folder, void=None)[0]
    Image.fromarray(np.zeros((20, 31), dtype=np.uint8)).save(semantic_folder / "masks" / "y.png")
    with pytest.raises(ValueError, match=r"\(20, 31\).*\(20, 30\)"):
        semantic(semantic_folder)
    (semantic_folder / "masks" / "y.png").unlink()
    with pytest.raises(ValueError, match="has no partner"):
        semantic(semantic_folder)


def test_mask_that_is_no_picture_is_told(nuclei_folder: Path) -> None:
    (nuclei_folder / "masks" / "n.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"cannot read .*n\.png"):
        MaskFolder(nuclei_folder / "images", masks=nuclei_folder / "masks", classes=["nucleus"], kind="instance")


def test_class_lists() -> None:
    coco = load_class_list("coco")
    assert len(coco.names) == 133
    assert sum(coco.things) == 80
    assert len(set(coco.names)) == 133
    assert coco.names[coco.official_names.index("wall-brick")] == "brick wall"
    assert load_class_list("coco-things").names == coco.names[:80]
    assert len(load_class_list("camvid").names) == 11
    with pytest.raises(ValueError, match="class list"):
        load_class_list("nope")  # pyright: ignore[reportArgumentType]
