"""Readers of videos on their layouts: clips, whole videos, frames, and what they say about data that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from omgvision.data.class_lists import ClassListName, load_class_list
from omgvision.data.clips import FrameSampling
from omgvision.data.datasets.davis import Davis
from omgvision.data.datasets.video import VideoFrames, VideoReader
from omgvision.data.datasets.vipseg import VipSeg
from omgvision.data.datasets.vspw import Vspw
from omgvision.data.datasets.youtube_vis import YouTubeVis, YouTubeVisFrames
from omgvision.data.sample import Sample

SIZE = (12, 16)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def picture(path: Path, *, seed: int = 0, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)


def label_map(path: Path, values: np.ndarray, *, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8))
    if palette:
        image.putpalette([channel for index in range(256) for channel in (index, 255 - index, 128)])
    image.save(path)


def coded(path: Path, ids: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)).save(path)


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[rows, columns] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    runs: Any = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": runs["counts"].decode()}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.T.ravel()
    ends = [*(np.flatnonzero(np.diff(flat)) + 1).tolist(), len(flat)]
    counts = np.diff([0, *ends]).tolist()
    return {"size": list(mask.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# ---------------------------------------------------------------------------------------------- YouTube-VIS and OVIS


@pytest.fixture
def tracks_folder(tmp_path: Path) -> Path:
    """Two videos: "v" of five frames, in which a panda walks over a duck that is not seen in frames 2 to 4, and a
    crowd; "w" of two frames with a polygon."""
    for frame in range(5):
        picture(tmp_path / "JPEGImages" / "v" / f"{frame * 5:05d}.jpg", seed=frame)
    for frame in range(2):
        picture(tmp_path / "JPEGImages" / "w" / f"{frame * 5:05d}.jpg", seed=10 + frame)
    panda = [uncompressed(box(slice(2, 8), slice(frame, frame + 6))) for frame in range(5)]
    duck = [compressed(box(slice(6, 11), slice(3, 9))) for _ in range(2)] + [None] * 3
    size = {"height": SIZE[0], "width": SIZE[1]}
    content = {
        "videos": [
            {"id": 1, "file_names": [f"v/{frame * 5:05d}.jpg" for frame in range(5)], **size},
            {"id": 2, "file_names": [f"w/{frame * 5:05d}.jpg" for frame in range(2)], **size},
        ],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 2, "iscrowd": 0, "segmentations": panda},
            {"id": 2, "video_id": 1, "category_id": 13, "iscrowd": 0, "segmentations": duck},
            {"id": 3, "video_id": 1, "category_id": 13, "iscrowd": 1, "segmentations": panda},
            {
                "id": 4,
                "video_id": 2,
                "category_id": 13,
                "segmentations": [[[1, 1, 5, 1, 5, 5, 1, 5]], None],
            },
        ],
        "categories": [{"id": 2, "name": "giant_panda"}, {"id": 13, "name": "duck"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def tracks(folder: Path, **options: Any) -> YouTubeVis:
    return YouTubeVis(folder / "train.json", images=folder / "JPEGImages", **options)


def test_youtube_vis_clip(tracks_folder: Path) -> None:
    dataset = tracks(tracks_folder)
    assert (dataset.names, dataset.things, dataset.category_ids) == (("giant panda", "duck"), (True, True), (2, 13))
    assert len(dataset) == 1, "the video of two frames has no two frames at distance 2"
    assert dataset.findings.notes == {"videos that are shorter than a clip": 1}
    assert dataset.portrait == (False,)
    starts = set()
    for seed in range(20):
        clip = dataset.clip(0, np.random.default_rng(seed))
        first, second = (int(frame.sample_id.removeprefix("v/")) // 5 for frame in clip.frames)
        assert second == first + 2
        starts.add(first)
        assert clip.labels.tolist() == ([0, 1] if first < 2 else [0])
        for number, frame in zip((first, second), clip.frames, strict=True):
            assert np.array_equal(frame.masks[0].numpy(), box(slice(2, 8), slice(number, number + 6)))
            with Image.open(tracks_folder / "JPEGImages" / f"{frame.sample_id}.jpg") as image:
                assert np.array_equal(frame.image.permute(1, 2, 0).numpy(), np.array(image))
    assert starts == {0, 1, 2}


def test_youtube_vis_overlaps_and_absences_keep_their_numbers(tracks_folder: Path) -> None:
    dataset = tracks(tracks_folder, sampling=FrameSampling(3, 2))
    clip = dataset.clip(0, rng())
    assert [len(frame.segment_layers) for frame in clip.frames] == [2, 1, 1]
    assert [frame.areas().tolist() for frame in clip.frames] == [[36, 30], [36, 0], [36, 0]]
    assert int((clip.frames[0].masks[0] & clip.frames[0].masks[1]).sum()) == 2 * 3


def test_youtube_vis_whole_video(tracks_folder: Path) -> None:
    dataset = tracks(tracks_folder, sampling=FrameSampling(1))
    assert len(dataset) == 2
    frames = list(dataset.whole(0))
    assert [frame.sample_id for frame in frames] == [f"v/{number * 5:05d}" for number in range(5)]
    assert all(frame.labels.tolist() == [0, 1] for frame in frames)
    assert [frame.areas().tolist()[1] for frame in frames] == [30, 30, 0, 0, 0]
    polygon, nothing = dataset.whole(1)
    assert polygon.areas().tolist() == [16]
    assert nothing.areas().tolist() == [0]


def test_youtube_vis_frames_are_the_same_pictures(tracks_folder: Path) -> None:
    frames = YouTubeVisFrames(tracks_folder / "train.json", images=tracks_folder / "JPEGImages")
    assert [frames[index].sample_id for index in range(len(frames))] == [
        *(f"v/{number * 5:05d}" for number in range(5)),
        "w/00000",
    ]
    assert [frames[index].labels.tolist() for index in range(3)] == [[0, 1], [0, 1], [0]]
    assert frames.portrait == (False,) * 6
    every = YouTubeVisFrames(tracks_folder / "train.json", images=tracks_folder / "JPEGImages", every=3)
    assert [every[index].sample_id for index in range(len(every))] == ["v/00000", "v/00015", "w/00000"]
    with pytest.raises(ValueError, match="every: expected 1 or more, got 0"):
        YouTubeVisFrames(tracks_folder / "train.json", images=tracks_folder / "JPEGImages", every=0)


@pytest.mark.parametrize(
    ("change", "reason", "example"),
    [
        (
            lambda content: content["annotations"][1]["segmentations"].pop(),
            "tracks of another length than their video",
            "track 2 has 4 masks, its video 5 frames",
        ),
        (
            lambda content: content["annotations"][1].update(category_id=99),
            "tracks of an unknown category",
            "track 2 has category id 99",
        ),
        (
            lambda content: content["annotations"][1].update(video_id=77),
            "tracks of a video that the json lacks",
            "track 2 of video 77",
        ),
        (
            lambda content: content["annotations"][1].update(segmentations=[None] * 5),
            "tracks that are empty in every frame",
            "track 2",
        ),
        (
            lambda content: content["annotations"][1]["segmentations"].__setitem__(0, {"size": [3, 4], "counts": [12]}),
            "tracks with a mask that cannot be used",
            r"track 2, frame 0: a mask of (3, 4) (height, width), its video is (12, 16)",
        ),
        (
            lambda content: content["annotations"][1]["segmentations"].__setitem__(
                1, {"size": [12, 16], "counts": [1, 2, 3]}
            ),
            "tracks with a mask that cannot be used",
            "track 2, frame 1: run lengths over 6 pixels, its video has 192",
        ),
        (
            lambda content: content["annotations"][1].update(segmentations=None),
            "tracks without a list of masks",
            "track 2 has None",
        ),
        (
            lambda content: content["annotations"][1]["segmentations"].__setitem__(1, [[]]),
            "tracks with a mask that cannot be used",
            "track 2, frame 1: polygons of less than three corners",
        ),
    ],
)
def test_youtube_vis_leaves_out_tracks(
    tracks_folder: Path, change: Callable[[Any], object], reason: str, example: str
) -> None:
    edit(tracks_folder / "train.json", change)
    dataset = tracks(tracks_folder)
    assert dataset.findings.counts == {reason: 1}
    assert dataset.findings.examples[reason] == example
    assert next(iter(dataset.whole(0))).labels.tolist() == [0]
    with pytest.raises(ValueError, match=reason):
        tracks(tracks_folder, strict=True)


def test_youtube_vis_missing_frames(tracks_folder: Path) -> None:
    (tracks_folder / "JPEGImages" / "v" / "00005.jpg").unlink()
    dataset = tracks(tracks_folder)
    assert dataset.findings.counts == {"frames that are missing": 1}
    ids = [frame.sample_id for frame in dataset.whole(0)]
    assert ids == ["v/00000", "v/00010", "v/00015", "v/00020"]
    assert [frame.areas().tolist()[1] for frame in dataset.whole(0)] == [30, 0, 0, 0]
    with pytest.raises(ValueError, match="images: no such folder"):
        YouTubeVis(tracks_folder / "train.json", images=tracks_folder / "none")


def test_youtube_vis_frames_are_turned_unless_the_json_has_the_size_of_the_file(tracks_folder: Path) -> None:
    path = tracks_folder / "JPEGImages" / "v" / "00000.jpg"

    def stored(size: tuple[int, int]) -> Image.Image:
        picture(path, size=size)
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).convert("RGB").save(path, exif=exif)
        return Image.open(path)

    dataset = tracks(tracks_folder)
    upright = np.array(ImageOps.exif_transpose(stored((SIZE[1], SIZE[0]))))
    assert np.array_equal(dataset.frame(0, 0).image.permute(1, 2, 0).numpy(), upright)
    lying = np.array(stored(SIZE))
    assert np.array_equal(dataset.frame(0, 0).image.permute(1, 2, 0).numpy(), lying)


def test_youtube_vis_videos_without_an_object_are_no_fault(tracks_folder: Path) -> None:
    edit(tracks_folder / "train.json", lambda content: content["annotations"].pop())
    dataset = tracks(tracks_folder, sampling=FrameSampling(1), strict=True)
    assert len(dataset) == 1
    assert dataset.findings.notes == {"videos without an object": 1}


@pytest.mark.parametrize(
    ("counts", "fault"), [("abcde~~~", "compressed run lengths are broken"), ("33", "a run-length mask covers 6 pix")]
)
def test_youtube_vis_run_lengths_that_do_not_decode(tracks_folder: Path, counts: str, fault: str) -> None:
    edit(
        tracks_folder / "train.json",
        lambda content: content["annotations"][0]["segmentations"].__setitem__(
            3, {"size": list(SIZE), "counts": counts}
        ),
    )
    dataset = tracks(tracks_folder, sampling=FrameSampling(5, 1))
    with pytest.raises(ValueError, match=rf"train\.json: track 1 in v/00015\.jpg: {fault}"):
        dataset.clip(0, rng())


def test_memory_of_a_whole_video_is_one_frame(tracks_folder: Path) -> None:
    dataset = tracks(tracks_folder)
    frames = dataset.whole(0)
    next(frames)
    (tracks_folder / "JPEGImages" / "v" / "00020.jpg").unlink()
    for _ in range(3):
        next(frames)
    with pytest.raises(ValueError, match=r"v/00020\.jpg"):
        next(frames)


# ------------------------------------------------------------------------------------------------------------ VIPSeg

PERSON_LATE, PERSON_EARLY, SKY, SKY_AGAIN, CROWD = 900, 70_000, 255, 131_072, 5


def vipseg_ids(frame: int) -> np.ndarray:
    """Sky above (its right half under a second id), nothing below, a person that moves and one that leaves."""
    ids = np.zeros(SIZE, dtype=np.int64)
    ids[:6] = SKY
    ids[:6, 8:] = SKY_AGAIN
    ids[8:11, frame : frame + 3] = PERSON_EARLY
    if frame < 2:
        ids[3:9, 10:13] = PERSON_LATE
    ids[11, 15] = CROWD
    ids[11, 0] = 12_345  # an id that the json does not have
    return ids


@pytest.fixture
def vipseg_folder(tmp_path: Path) -> Path:
    segments = [
        {"id": SKY, "category_id": 28, "iscrowd": 0, "area": 1},
        {"id": SKY_AGAIN, "category_id": 28, "iscrowd": 0, "area": 1},
        {"id": PERSON_EARLY, "category_id": 60, "iscrowd": 0, "area": 1},
        {"id": CROWD, "category_id": 60, "iscrowd": 1, "area": 1},
    ]
    images, annotations = [], []
    for frame in range(4):
        stem = f"{frame:08d}"
        picture(tmp_path / "images" / "12_ab" / f"{stem}.jpg", seed=frame)
        coded(tmp_path / "panomasksRGB" / "12_ab" / f"{stem}.png", vipseg_ids(frame))
        images.append({"id": stem, "file_name": f"{stem}.png", "height": SIZE[0], "width": SIZE[1]})
        late = [{"id": PERSON_LATE, "category_id": 60, "iscrowd": 0, "area": 1}] if frame < 2 else []
        annotations.append({"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments + late})
    content = {
        "videos": [{"video_id": "12_ab", "images": images}],
        "annotations": [{"video_id": "12_ab", "annotations": annotations}],
        "categories": [
            {"id": 28, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
            {"id": 40, "name": "billboard_or_Bulletin_Board", "isthing": 0, "color": [3, 2, 1]},
            {"id": 60, "name": "person", "isthing": 1, "color": [4, 5, 6]},
        ],
    }
    (tmp_path / "panoptic_gt_VIPSeg_train.json").write_text(json.dumps(content))
    return tmp_path


def vipseg(folder: Path, **options: Any) -> VipSeg:
    return VipSeg(folder / "panoptic_gt_VIPSeg_train.json", **options)


def test_vipseg_things_by_id_then_stuff(vipseg_folder: Path) -> None:
    dataset = vipseg(vipseg_folder, strict=True)
    assert dataset.names == ("sky", "billboard, bulletin board", "person")
    assert dataset.things == (False, False, True)
    assert dataset.category_ids == (28, 40, 60)
    frames = list(dataset.whole(0))
    assert [frame.sample_id for frame in frames] == [f"12_ab/{number:08d}" for number in range(4)]
    for number, frame in enumerate(frames):
        assert frame.labels.tolist() == [2, 2, 0], "the smaller id first, then the sky"
        ids = vipseg_ids(number)
        expected = [ids == PERSON_LATE, ids == PERSON_EARLY, (ids == SKY) | (ids == SKY_AGAIN)]
        assert np.array_equal(frame.masks.numpy(), np.stack(expected))


def test_vipseg_clip(vipseg_folder: Path) -> None:
    dataset = vipseg(vipseg_folder)
    for seed in range(8):
        clip = dataset.clip(0, np.random.default_rng(seed))
        start = int(clip.sample_id.removeprefix("12_ab/"))
        assert start in (0, 1)
        assert clip.labels.tolist() == [2, 2, 0]
        assert [int(frame.areas()[0]) for frame in clip.frames] == [18, 0]


def test_vipseg_clip_has_only_what_is_seen_in_it(vipseg_folder: Path) -> None:
    dataset = vipseg(vipseg_folder, sampling=FrameSampling(1))
    labels = {dataset.frame(0, number).sample_id: dataset.frame(0, number).labels.tolist() for number in range(4)}
    assert labels == {
        "12_ab/00000000": [2, 2, 0],
        "12_ab/00000001": [2, 2, 0],
        "12_ab/00000002": [2, 0],
        "12_ab/00000003": [2, 0],
    }
    frames = VideoFrames(dataset, every=2)
    assert [frames[index].labels.tolist() for index in range(len(frames))] == [[2, 2, 0], [2, 0]]
    assert frames.names == dataset.names and frames.category_ids == dataset.category_ids


def test_vipseg_findings(vipseg_folder: Path) -> None:
    path = vipseg_folder / "panoptic_gt_VIPSeg_train.json"

    def change(content: Any) -> None:
        content["categories"].pop(0)  # the sky: twice in each of four frames
        content["annotations"].append({"video_id": "gone", "annotations": []})
        content["annotations"][0]["annotations"][1]["segments_info"][2]["category_id"] = 40
        content["annotations"][0]["annotations"].append(
            {**content["annotations"][0]["annotations"][0], "image_id": "x"}
        )
        content["annotations"][0]["annotations"].pop(3)

    edit(path, change)
    (vipseg_folder / "images" / "12_ab" / "00000002.jpg").unlink()
    dataset = vipseg(vipseg_folder, sampling=FrameSampling(1))
    assert dataset.findings.counts == {
        "frames that are missing": 1,
        "frames without an annotation": 1,
        "segments of an unknown category": 4,
        "segments whose class changes (the first is kept)": 1,
        "annotations of a frame that the json lacks": 1,
        "annotated videos that the json lacks": 1,
    }
    assert [frame.labels.tolist() for frame in dataset.whole(0)] == [[1, 1]] * 2
    (vipseg_folder / "panomasksRGB" / "12_ab" / "00000001.png").unlink()
    assert vipseg(vipseg_folder, sampling=FrameSampling(1)).findings.counts["label maps that are missing"] == 1


def test_vipseg_says_what_makes_the_file_unusable(vipseg_folder: Path) -> None:
    path = vipseg_folder / "panoptic_gt_VIPSeg_train.json"
    edit(path, lambda content: content["videos"][0]["images"][2].update(height=13))
    with pytest.raises(ValueError, match=r"not of one size: 1, the first 12_ab with \[\(12, 16\), \(13, 16\)\]"):
        vipseg(vipseg_folder)
    edit(path, lambda content: content["videos"][0]["images"][2].pop("height"))
    with pytest.raises(ValueError, match="an entry of 12_ab lacks 'height'"):
        vipseg(vipseg_folder)
    with pytest.raises(ValueError, match="segmentations: no such folder"):
        vipseg(vipseg_folder, segmentations=vipseg_folder / "none")


def test_vipseg_corrupt_files_are_named_at_access(vipseg_folder: Path) -> None:
    dataset = vipseg(vipseg_folder, sampling=FrameSampling(1))
    mask, image = (vipseg_folder / part for part in ("panomasksRGB/12_ab/00000001.png", "images/12_ab/00000002.jpg"))
    mask.write_bytes(mask.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot read .*panomasksRGB/12_ab/00000001\.png"):
        dataset.frame(0, 1)
    label_map(mask, np.zeros(SIZE))
    with pytest.raises(ValueError, match=r"00000001\.png is not an RGB file"):
        dataset.frame(0, 1)
    coded(mask, np.zeros((12, 15), dtype=np.int64))
    with pytest.raises(ValueError, match=r"00000001\.png is \(12, 15\)"):
        dataset.frame(0, 1)
    picture(image, size=(12, 15))
    with pytest.raises(ValueError, match=r"00000002\.jpg is \(12, 15\) .*the annotations say \(12, 16\)"):
        dataset.frame(0, 2)


# -------------------------------------------------------------------------------------------------------------- VSPW


def vspw_values(frame: int) -> np.ndarray:
    """Wall (1), a moving train (124), a strip of "others", 254 and 255."""
    values = np.ones(SIZE, dtype=np.uint8)
    values[4:8, frame : frame + 5] = 124
    values[10], values[11, :8], values[11, 8:] = 0, 254, 255
    return values


@pytest.fixture
def vspw_folder(tmp_path: Path) -> Path:
    for video, length in (("7_x", 5), ("8_y", 2)):
        for frame in range(length):
            picture(tmp_path / "data" / video / "origin" / f"{frame:08d}.jpg", seed=frame)
            label_map(tmp_path / "data" / video / "mask" / f"{frame:08d}.png", vspw_values(frame))
    (tmp_path / "train.txt").write_text("7_x\n8_y\n")
    classes = load_class_list("vspw")
    numbers = dict(zip(classes.official_names, map(str, classes.category_ids), strict=True))
    (tmp_path / "label_num_dic_final.json").write_text(json.dumps({"others": "0", **numbers}))
    return tmp_path


def test_vspw(vspw_folder: Path) -> None:
    dataset = Vspw(vspw_folder, split="train", strict=True)
    assert len(dataset) == 1
    assert len(dataset.names) == 124
    assert dataset.category_ids == tuple(range(1, 125))
    clip = dataset.clip(0, rng())
    assert [dataset.names[label] for label in clip.labels.tolist()] == ["wall", "train"]
    assert all(frame.areas().tolist() == [160 - 20, 20] for frame in clip.frames)
    whole = list(dataset.whole(0))
    assert len(whole) == 5
    for number, frame in enumerate(whole):
        assert np.array_equal(frame.masks[1].numpy(), vspw_values(number) == 124)
        assert np.array_equal(frame.masks[0].numpy(), vspw_values(number) == 1)


def test_vspw_says_what_is_wrong(vspw_folder: Path) -> None:
    with pytest.raises(ValueError, match=r"split: no such file: .*test\.txt"):
        Vspw(vspw_folder, split="test")
    data = vspw_folder / "data"
    label_map(data / "7_x" / "mask" / "00000003.png", np.full(SIZE, 125))
    (data / "7_x" / "mask" / "00000004.png").unlink()
    (data / "7_x" / "origin" / "00000000.jpg").unlink()
    (vspw_folder / "train.txt").write_text("7_x\n8_y\n9_z\n")
    dataset = Vspw(vspw_folder, split="train", sampling=FrameSampling(1))
    assert dataset.findings.counts == {
        "frames without an annotation": 1,
        "frames that are missing": 1,
        "videos without frames": 1,
    }
    with pytest.raises(ValueError, match=r"00000003\.png has value 125"):
        list(dataset.whole(0))
    edit(vspw_folder / "label_num_dic_final.json", lambda numbers: numbers.update(wall="2"))
    with pytest.raises(ValueError, match="expected 'wall' to be 1, got 2"):
        Vspw(vspw_folder, split="train")


# ------------------------------------------------------------------------------------------------------------- DAVIS


def davis_values(frame: int) -> np.ndarray:
    """Object 1 is not seen in the last frame, object 3 only there; the last row is void."""
    values = np.zeros(SIZE, dtype=np.uint8)
    values[2:4, 2:6] = 1 if frame < 3 else 3
    values[6:9, frame : frame + 4] = 2
    values[11] = 255
    return values


@pytest.fixture
def davis_folder(tmp_path: Path) -> Path:
    for video in ("judo", "loading"):
        for frame in range(4):
            picture(tmp_path / "JPEGImages" / "480p" / video / f"{frame:05d}.jpg", seed=frame)
            label_map(tmp_path / "Annotations" / "480p" / video / f"{frame:05d}.png", davis_values(frame), palette=True)
    (tmp_path / "ImageSets" / "2017").mkdir(parents=True)
    (tmp_path / "ImageSets" / "2017" / "train.txt").write_text("loading\n")
    return tmp_path


def test_davis(davis_folder: Path) -> None:
    dataset = Davis(davis_folder, split="2017/train", strict=True)
    assert [next(dataset.whole(index)).sample_id for index in range(len(dataset))] == ["loading/00000"]
    assert dataset.names == () and dataset.things == ()
    frames = list(dataset.whole(0))
    for number, frame in enumerate(frames):
        assert frame.labels.tolist() == [-1, -1, -1]
        expected = np.stack([davis_values(number) == value for value in (1, 2, 3)])
        assert np.array_equal(frame.masks.numpy(), expected)
    clip = Davis(davis_folder, sampling=FrameSampling(3, 1)).clip(1, np.random.default_rng(3))
    assert clip.labels.tolist() in ([-1, -1], [-1, -1, -1])
    assert len(Davis(davis_folder)) == 2, "without a split, all that are annotated"


def test_davis_single_object(davis_folder: Path) -> None:
    for frame in range(4):
        path = davis_folder / "Annotations" / "480p" / "loading" / f"{frame:05d}.png"
        label_map(path, np.where(davis_values(frame) == 2, 255, 0))
    dataset = Davis(davis_folder, split="2017/train", single_object=True)
    assert [frame.areas().tolist() for frame in dataset.whole(0)] == [[12]] * 4


def test_davis_says_what_is_wrong(davis_folder: Path) -> None:
    annotations = davis_folder / "Annotations" / "480p"
    label_map(annotations / "judo" / "00000.png", np.zeros((12, 15)))
    for path in (annotations / "loading").iterdir():
        path.unlink()
    with pytest.raises(
        ValueError, match=r"label maps are of another size: 1, the first .*videos without an annotation"
    ):
        Davis(davis_folder)
    with pytest.raises(ValueError, match="davis: no such folder"):
        Davis(davis_folder / "ImageSets")
    (davis_folder / "JPEGImages" / "480p" / "judo" / "00000.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"first frame cannot be read: 1, the first .*judo/00000\.jpg"):
        Davis(davis_folder)


def test_frames_that_differ_in_size_are_named(davis_folder: Path) -> None:
    dataset = Davis(davis_folder, split="2017/train", sampling=FrameSampling(4, 1))
    path = davis_folder / "JPEGImages" / "480p" / "loading" / "00002.jpg"
    picture(path, size=(10, 16))
    with pytest.raises(ValueError, match=r"loading/00002\.jpg is \(10, 16\) .*the annotations say \(12, 16\)"):
        dataset.clip(0, rng())
    picture(path)
    label_map(davis_folder / "Annotations" / "480p" / "loading" / "00002.png", np.zeros((10, 16)))
    with pytest.raises(ValueError, match=r"loading/00002\.png is \(10, 16\)"):
        dataset.clip(0, rng())
    coded(davis_folder / "Annotations" / "480p" / "loading" / "00002.png", np.zeros(SIZE, dtype=np.int64))
    with pytest.raises(ValueError, match="has 3 channels, expected one"):
        dataset.clip(0, rng())


# --------------------------------------------------------------------------------------------- what holds for them all


def test_the_same_generator_draws_the_same_clip(
    tracks_folder: Path, vipseg_folder: Path, vspw_folder: Path, davis_folder: Path
) -> None:
    readers: list[VideoReader] = [
        tracks(tracks_folder),
        vipseg(vipseg_folder),
        Vspw(vspw_folder, split="train"),
        Davis(davis_folder),
    ]
    for reader in readers:
        for seed in range(3):
            first, second = (reader.clip(0, np.random.default_rng(seed)) for _ in range(2))
            for left, right in zip(first.frames, second.frames, strict=True):
                assert left.sample_id == right.sample_id
                assert torch.equal(left.image, right.image) and torch.equal(left.masks, right.masks)


@pytest.mark.parametrize(
    ("name", "classes", "things", "first_id", "some"),
    [
        ("vipseg", 124, 58, 0, {0: "wall", 60: "person", 7: "handrail_or_fence", 123: "train"}),
        ("vspw", 124, 58, 1, {0: "wall", 60: "person", 7: "handrail_or_fence", 123: "train"}),
        ("youtube_vis_2019", 40, 40, 1, {0: "person", 5: "sedan", 39: "tennis_racket"}),
        ("youtube_vis_2021", 40, 40, 1, {0: "airplane", 25: "person", 39: "zebra"}),
        ("ovis", 25, 25, 1, {0: "Person", 12: "Giant_panda", 24: "Vehical"}),
    ],
)
def test_class_lists_of_videos(
    name: ClassListName, classes: int, things: int, first_id: int, some: dict[int, str]
) -> None:
    bundled = load_class_list(name)
    assert len(bundled.names) == classes
    assert sum(bundled.things) == things
    assert bundled.category_ids == tuple(range(first_id, first_id + classes))
    assert {label: bundled.official_names[label] for label in some} == some
    synonyms = [piece.strip() for entry in bundled.names for piece in entry.split(",")]
    assert len(set(synonyms)) == len(synonyms), "no two classes share a word"


def test_shared_davis_is_the_same_both_ways(shared_data: Path) -> None:
    folder = shared_data / "davis2016_mini"
    every = FrameSampling(1)
    tracks = YouTubeVis(folder / "instances_val.json", images=folder / "JPEGImages", sampling=every, strict=True)
    maps = Davis(folder, sampling=every, strict=True)
    assert len(maps) == 42
    places = {maps.videos[index].files[0].split("/")[0]: index for index in range(len(maps))}
    for index in range(2):
        both = zip(tracks.whole(index), maps.whole(places[tracks.videos[index].files[0].split("/")[0]]), strict=True)
        for track, label_map in both:
            assert_same(track, label_map)


def assert_same(left: Sample, right: Sample) -> None:
    assert left.sample_id == right.sample_id
    assert torch.equal(left.image, right.image)
    assert torch.equal(left.masks, right.masks)
