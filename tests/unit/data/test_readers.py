"""Every reader on its layout: what it yields, and what it says about data that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngImageFile
from pycocotools import mask as coco_mask

from omgvision.data import CocoInstances, CocoPanoptic, MaskFolder, Sample, YouTubeVisFrames, load_class_list
from omgvision.data.class_lists import ClassListName
from omgvision.data.datasets.coco import decode_segmentation
from omgvision.data.datasets.reading import image_sizes, read_rgb


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
    dataset = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images", words=None)
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
    with pytest.raises(ValueError, match=r"no sample remains; images that are missing: 1, the first .*a\.png"):
        CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")


def test_missing_segmentation_folder_is_named(panoptic_folder: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        CocoPanoptic(
            panoptic_folder / "panoptic.json", images=panoptic_folder / "images", segmentations=panoptic_folder / "none"
        )


def test_panoptic_leaves_out_what_is_wrong(panoptic_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(content: Any) -> None:
        content["images"] += [
            {"id": 8, "file_name": "b.png", "height": 20, "width": 30},
            {"id": 9, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 10, "file_name": "a.png", "height": 0, "width": 30},
            {"id": 11, "file_name": "a.png", "height": 20, "width": 30},
        ]
        segments = content["annotations"][0]["segments_info"]
        segments[1]["category_id"] = 77
        segments[2]["area"] = 0
        content["annotations"] += [
            {"image_id": 8, "file_name": "a.png", "segments_info": segments},
            {"image_id": 10, "file_name": "a.png", "segments_info": segments},
            {"image_id": 11, "file_name": "c.png", "segments_info": segments},
            {"image_id": 99, "file_name": "a.png", "segments_info": segments},
        ]

    edit(panoptic_folder / "panoptic.json", change)
    dataset = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")
    assert dataset.findings.counts == {
        "images that are missing": 1,
        "images of impossible size in the json": 1,
        "annotations of images that the json lacks": 1,
        "segments of unknown category": 1,
        "segments without a pixel": 1,
        "segmentations that are missing": 1,
    }
    assert dataset.findings.notes == {"images without annotation": 1}
    assert "left out images that are missing: 1, the first" in caplog.text
    assert dataset[0].labels.tolist() == [1]
    assert dataset.portrait == [False]
    with pytest.raises(ValueError, match="category 77"):
        CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images", strict=True)


def test_instances_leave_out_what_is_wrong(instances_folder: Path) -> None:
    def change(content: Any) -> None:
        content["categories"].pop()
        content["annotations"][0]["segmentation"] = [[1, 1, 2, 2]]
        del content["annotations"][3]["iscrowd"], content["annotations"][3]["segmentation"]
        content["annotations"].append({"id": 5, "image_id": 77, "category_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5]]})

    edit(instances_folder / "instances.json", change)
    dataset = CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")
    assert dataset.findings.counts == {
        "objects of unknown category": 1,
        "empty masks": 1,
        "objects without a mask": 1,
        "annotations of images that the json lacks": 1,
    }
    assert dataset.findings.notes == {"images without an object": 1}
    assert dataset[0].areas().tolist() == [15]
    with pytest.raises(ValueError, match="annotation 2, category id 3"):
        CocoInstances(instances_folder / "instances.json", images=instances_folder / "images", strict=True)


def test_strict_takes_what_is_merely_empty(instances_folder: Path) -> None:
    dataset = CocoInstances(instances_folder / "instances.json", images=instances_folder / "images", strict=True)
    assert len(dataset) == 1
    assert dataset.findings.counts == {}


def test_categories_of_one_name_are_one_class(instances_folder: Path) -> None:
    edit(instances_folder / "instances.json", lambda content: content["categories"][1].update(name="person"))
    dataset = CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")
    assert dataset.names == ("person",)
    assert dataset[0].labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [20, 30], "counts": [100, 10]}, "covers 110 pixels, its image has 600"),
        ({"size": [20, 30], "counts": [100, -10, 510]}, "covers 600 pixels"),
        ({"size": [20, 30], "counts": [100.5, 499.5]}, "not whole numbers"),
        ({"size": [30, 20], "counts": [100, 500]}, r"\[30, 20\].*\[20, 30\]"),
        ({"size": [20, 30], "counts": "nonsense!"}, "broken"),
        ({"size": [20, 30], "counts": "oo"}, "broken"),
        ({"size": [20, 30]}, "neither a list of polygons nor run lengths"),
        ("x", "neither a list of polygons nor run lengths"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon is not a list"),
        ([["a"] * 6], "a polygon is not a list"),
        ([[1e999, 2, 3, 4, 5, 6]], "a polygon is not a list"),
    ],
)
def test_mask_that_does_not_decode_is_named(instances_folder: Path, segmentation: Any, message: str) -> None:
    edit(
        instances_folder / "instances.json",
        lambda content: content["annotations"][1].update(segmentation=segmentation),
    )
    dataset = CocoInstances(instances_folder / "instances.json", images=instances_folder / "images")
    with pytest.raises(ValueError, match=rf"instances\.json: annotation 2 of image a\.png: .*{message}"):
        dataset[0]


def test_run_lengths_are_those_of_pycocotools() -> None:
    api: Any = coco_mask
    generator = np.random.default_rng(0)
    for number in range(60):
        mask = generator.random(generator.integers(1, 40, 2)) < generator.choice([0, 0.05, 0.5, 0.95, 1])
        if number % 2:
            mask = np.kron(mask, np.ones(generator.integers(1, 30, 2), dtype=bool))
        runs = api.encode(np.asfortranarray(mask, dtype=np.uint8))
        text = {"size": list(mask.shape), "counts": runs["counts"].decode()}
        assert np.array_equal(decode_segmentation(text, *mask.shape), mask)


def test_cut_off_picture_is_named(panoptic_folder: Path) -> None:
    path = panoptic_folder / "images" / "a.png"
    dataset = CocoPanoptic(panoptic_folder / "panoptic.json", images=panoptic_folder / "images")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"cannot read .*a\.png"):
        dataset[0]


def test_missing_key_is_named(instances_folder: Path) -> None:
    edit(instances_folder / "instances.json", lambda content: content["images"][1].pop("height"))
    with pytest.raises(ValueError, match="entry 1 of images lacks height"):
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
    with pytest.raises(ValueError, match=r"value 255, expected 0\.\.1 or void None"):
        semantic(semantic_folder, void=None)[0]


def test_mask_folder_leaves_out_what_has_no_partner(semantic_folder: Path) -> None:
    for folder, name in (("images", "z"), ("masks", "w")):
        Image.fromarray(np.zeros((20, 30), dtype=np.uint8)).save(semantic_folder / folder / f"{name}.png")
    Image.fromarray(np.zeros((20, 31), dtype=np.uint8)).save(semantic_folder / "masks" / "y.png")
    for folder in ("images", "masks"):
        (semantic_folder / folder / "broken.png").write_bytes(b"no png")
    dataset = semantic(semantic_folder)
    assert len(dataset) == 1
    assert dataset.findings.counts == {
        "masks without an image": 1,
        "images without a mask": 1,
        "label maps of another size than their image": 1,
        "files that cannot be read": 1,
    }
    assert dataset.findings.examples["images without a mask"].endswith("z.png")
    with pytest.raises(ValueError, match=r"y\.png: \(20, 31\) \(height, width\), not \(20, 30\)"):
        semantic(semantic_folder, strict=True)
    assert semantic(semantic_folder, stems=["x", "v"]).findings.counts == {"images that are missing": 1}


def test_mask_that_is_no_picture_is_told(nuclei_folder: Path) -> None:
    options: Any = {"masks": nuclei_folder / "masks", "classes": ["nucleus"], "kind": "instance"}
    dataset = MaskFolder(nuclei_folder / "images", **options)
    (nuclei_folder / "masks" / "n.png").write_bytes(b"no png")
    with pytest.raises(ValueError, match=r"cannot read .*n\.png"):
        dataset[0]
    with pytest.raises(ValueError, match=r"no sample remains; files that cannot be read.*n\.png"):
        MaskFolder(nuclei_folder / "images", **options)


LYING = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
UPRIGHT = np.rot90(LYING, -1)


@pytest.fixture
def turned(tmp_path: Path) -> Path:
    """A picture as a phone stores it: 20×30, to be shown turned clockwise; one object in a json, one in a label map."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.fromarray(LYING).save(tmp_path / "images" / "a.png", exif=exif)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 20}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[0, 0, 8, 0, 8, 4, 0, 4]]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    Image.fromarray(np.eye(30, 20, dtype=np.uint8)).save(tmp_path / "masks" / "a.png")
    return tmp_path


def pixels(sample: Sample) -> np.ndarray:
    return sample.image.permute(1, 2, 0).numpy()


@pytest.mark.parametrize(("size", "shown"), [((30, 20), UPRIGHT), ((20, 30), LYING)])
def test_a_turned_picture_is_read_as_its_json_sees_it(turned: Path, size: tuple[int, int], shown: np.ndarray) -> None:
    """Upright, as in inference, unless the json has the size of the file."""
    edit(turned / "instances.json", lambda json: json["images"][0].update(height=size[0], width=size[1]))
    dataset = CocoInstances(turned / "instances.json", images=turned / "images")
    assert np.array_equal(pixels(dataset[0]), shown)
    assert dataset[0].masks.shape == (1, *size)
    assert dataset.portrait == [size == (30, 20)]


@pytest.mark.parametrize(("size", "shown"), [((30, 20), UPRIGHT), ((20, 30), LYING)])
def test_a_turned_picture_is_read_as_its_label_map_sees_it(
    turned: Path, size: tuple[int, int], shown: np.ndarray
) -> None:
    values = np.eye(*size, dtype=np.uint8)
    Image.fromarray(values).save(turned / "masks" / "a.png")
    dataset = MaskFolder(turned / "images", masks=turned / "masks", classes=["cat"], kind="instance")
    assert np.array_equal(pixels(dataset[0]), shown)
    assert np.array_equal(dataset[0].masks[0].numpy(), values)
    assert dataset.portrait == [size == (30, 20)]


def test_a_label_map_is_turned_with_its_picture(turned: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    Image.fromarray(np.eye(20, 30, dtype=np.uint8)).save(turned / "masks" / "a.png", exif=exif)
    sample = MaskFolder(turned / "images", masks=turned / "masks", classes=["cat"], kind="instance")[0]
    assert np.array_equal(pixels(sample), UPRIGHT)
    assert np.array_equal(sample.masks[0].numpy(), np.rot90(np.eye(20, 30, dtype=bool), -1))


def test_a_turned_picture_of_another_size_is_told(turned: Path) -> None:
    edit(turned / "instances.json", lambda json: json["images"][0].update(height=31))
    with pytest.raises(ValueError, match=r"a\.png is \(30, 20\) .*the annotations say \(31, 20\)"):
        CocoInstances(turned / "instances.json", images=turned / "images")[0]
    Image.fromarray(np.eye(31, 20, dtype=np.uint8)).save(turned / "masks" / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: \(31, 20\) \(height, width\), not \(30, 20\)"):
        MaskFolder(turned / "images", masks=turned / "masks", classes=["cat"], kind="instance")


def test_sizes_do_not_cost_the_pixels(turned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImageFile, "load", lambda image: pytest.fail("decoded for its size"))
    assert image_sizes(turned / "images" / "a.png") == ((30, 20), (20, 30))
    assert image_sizes(turned / "masks" / "a.png") == ((30, 20), (30, 20))


def test_a_damaged_orientation_does_not_cost_the_picture(turned: Path) -> None:
    Image.fromarray(LYING).save(turned / "images" / "a.png", exif=b"Exif\0\0no such thing")
    assert np.array_equal(read_rgb(turned / "images" / "a.png").permute(1, 2, 0).numpy(), LYING)


def test_class_lists() -> None:
    coco = load_class_list("coco")
    assert len(coco.names) == 133
    assert sum(coco.things) == 80
    assert len(set(coco.names)) == 133
    assert coco.names[coco.official_names.index("wall-brick")] == "brick wall"
    assert load_class_list("coco-things").names == coco.names[:80]
    assert len(load_class_list("camvid").names) == 11
    counts: dict[ClassListName, tuple[int, int]] = {
        "ade20k": (150, 100),
        "cityscapes": (19, 8),
        "pascal_voc": (20, 20),
        "objects365": (365, 365),
    }
    for name, (classes, things) in counts.items():
        listed = load_class_list(name)
        synonyms = [word.strip().lower() for spelled in listed.names for word in spelled.split(",")]
        assert (len(listed.names), sum(listed.things)) == (classes, things)
        assert len(set(synonyms)) == len(synonyms), f"two classes of {name} share a synonym"
        assert len(set(listed.category_ids)) == classes
    with pytest.raises(ValueError, match="class list"):
        load_class_list("nope")  # pyright: ignore[reportArgumentType]
