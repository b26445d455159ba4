"""Tracks in the files of benchmarks, read back by `omg score` and by our own readers of data sets."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omgvision.data.datasets.vipseg import VipSeg
from omgvision.data.datasets.youtube_vis import YouTubeVis
from omgvision.errors import UserError
from omgvision.evaluation.scores import segmentation_tracking_quality, video_average_precision, video_panoptic_quality
from omgvision.results import FrameStamp, Result, SegmentLabel
from omgvision.video_annotations import MotsWriter, VipSegWriter, YouTubeVisWriter
from tests.video_results import CAR, CATEGORIES, FRAMES, HEIGHT, PERSON, SKY, WIDTH, picture, track_map, video_results


def write_frames(folder: Path, *, first: int = 0) -> None:
    """The frames that results belong to, as files of a data set."""
    folder.mkdir(parents=True)
    for index in range(FRAMES):
        picture(index).save(folder / f"{index + first:05d}.jpg")


# ------------------------------------------------------------------------------------------------------------- VIPSeg


def test_vipseg_files(tmp_path):
    writer = VipSegWriter(tmp_path, name="street", category_ids=None)
    for result in video_results():
        writer.write(result)
    assert writer.close() == [tmp_path / "pred.json", tmp_path / "pan_pred" / "street"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pan_pred", "pred.json"]
    content = json.loads((tmp_path / "pred.json").read_text())
    assert content["categories"][1] == {"id": 1, "name": "person, child", "isthing": 1}
    (video,) = content["annotations"]
    assert [len(frame["segments_info"]) for frame in video["annotations"]] == [3, 3, 2, 3, 3]
    for index, frame in enumerate(video["annotations"]):
        rgb = np.asarray(Image.open(tmp_path / "pan_pred" / "street" / frame["file_name"])).astype(int)
        assert np.array_equal(rgb @ [1, 256, 65536], track_map(index))
        assert {entry["id"]: entry["category_id"] for entry in frame["segments_info"]}[CAR] == 0


def test_vipseg_files_are_scored(tmp_path):
    """A prediction is perfect beside itself, and worse when ids change."""
    for folder in ("truth", "other"):
        writer = VipSegWriter(tmp_path / folder, name="street", category_ids=(10, 20, 30))
        for index, result in enumerate(video_results()):
            if folder == "other" and index == 3:
                ids = track_map(3)
                ids[ids == CAR] = 99
                labels = {99: SegmentLabel(0), PERSON: SegmentLabel(1), SKY: SegmentLabel(2)}
                result = Result.from_label_map(
                    ids, labels, task="panoptic", image=picture(3), categories=CATEGORIES, frame=FrameStamp(3, 0.3)
                )
            writer.write(result)
        writer.close()
    (tmp_path / "truth" / "pan_pred").rename(tmp_path / "truth" / "panomasksRGB")
    (tmp_path / "truth" / "pred.json").rename(tmp_path / "truth" / "panoptic_gt_VIPSeg_val.json")
    writer = VipSegWriter(tmp_path / "same", name="street", category_ids=(10, 20, 30))
    for result in video_results():
        writer.write(result)
    writer.close()
    assert video_panoptic_quality.score(tmp_path / "truth", tmp_path / "same")["VPQ@4"] == pytest.approx(1.0)
    assert segmentation_tracking_quality.score(tmp_path / "truth", tmp_path / "same")["STQ"] == pytest.approx(1.0)
    assert video_panoptic_quality.score(tmp_path / "truth", tmp_path / "other")["VPQ@4"] < 0.95


def test_vipseg_files_are_a_data_set(tmp_path):
    writer = VipSegWriter(tmp_path, name="street", category_ids=None)
    for result in video_results(names=True):
        writer.write(result)
    writer.close()
    write_frames(tmp_path / "images" / "street", first=7)
    reader = VipSeg(tmp_path / "pred.json", segmentations=tmp_path / "pan_pred", strict=True)
    (video,) = reader.videos
    assert list(video.labels) == [0, 1, 2]
    layers = video.layers(4)[0].numpy()
    for number, track in enumerate((CAR, PERSON, SKY), start=1):
        assert np.array_equal(layers == number, track_map(4) == track)


# -------------------------------------------------------------------------------------------------------- YouTube-VIS


def test_youtube_vis_files(tmp_path):
    writer = YouTubeVisWriter(tmp_path, name="street", category_ids=None)
    for result in video_results():
        writer.write(result)
    assert writer.close() == [tmp_path / "results.json", tmp_path / "annotations.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["annotations.json", "results.json"]
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(track["category_id"], track["score"]) for track in results] == [(1, 0.8), (2, 0.6)]
    assert [mask is None for mask in results[1]["segmentations"]] == [False, False, True, False, False]
    for index, mask in enumerate(results[0]["segmentations"]):
        assert np.array_equal(coco_mask.decode(mask), track_map(index) == CAR)


def test_what_a_frame_costs_does_not_depend_on_those_before(tmp_path):
    """Frames are appended: nothing that was written is looked at."""
    writer = YouTubeVisWriter(tmp_path, name="street", category_ids=None)
    first, *others = video_results()
    writer.write(first)
    statements: list[str] = []
    assert writer._database is not None
    writer._database.set_trace_callback(statements.append)
    for result in others:
        writer.write(result)
    assert {statement.split()[0] for statement in statements} == {"BEGIN", "INSERT", "COMMIT"}
    writer.close()


def test_youtube_vis_files_are_scored_and_a_data_set(tmp_path):
    writer = YouTubeVisWriter(tmp_path, name="street", category_ids=(5, 6, 7))
    for result in video_results():
        writer.write(result)
    writer.close()
    numbers = video_average_precision.score(tmp_path / "annotations.json", tmp_path / "results.json")
    assert numbers["AP"] == pytest.approx(1.0)
    write_frames(tmp_path / "images" / "street")
    reader = YouTubeVis(tmp_path / "annotations.json", images=tmp_path / "images", strict=True)
    (video,) = reader.videos
    assert reader.category_ids == (5, 6, 7)
    assert list(video.labels) == [0, 1]
    assert np.array_equal(video.layers(3)[0].numpy() == 1, track_map(3) == CAR)


def test_class_of_a_track_is_the_one_with_most_of_the_score(tmp_path):
    writer = YouTubeVisWriter(tmp_path, name="a", category_ids=None)
    for index, (label, score) in enumerate([(0, 0.9), (1, 0.5), (1, 0.6)]):
        writer.write(
            Result.from_masks(
                [track_map(0) == CAR],
                [SegmentLabel(label, score)],
                ids=[4],
                task="instance",
                image=picture(0),
                categories=CATEGORIES,
                frame=FrameStamp(index, float(index)),
            )
        )
    writer.close()
    (track,) = json.loads((tmp_path / "results.json").read_text())
    assert track["category_id"] == 2
    assert track["score"] == pytest.approx(2 / 3, abs=1e-6)


def test_objects_without_class(tmp_path):
    writers = [
        YouTubeVisWriter(tmp_path, name="a", category_ids=None),
        VipSegWriter(tmp_path, name="a", category_ids=None),
        MotsWriter(tmp_path / "a.txt", category_ids=None),
    ]
    result = Result.from_label_map(
        track_map(0) // CAR * (track_map(0) == CAR),
        {1: SegmentLabel()},
        task="objects",
        image=picture(0),
        frame=FrameStamp(0, 0.0),
    )
    for writer in writers:
        writer.write(result)
        writer.close()
    (track,) = json.loads((tmp_path / "results.json").read_text())
    assert (track["category_id"], track["score"]) == (1, 1.0)
    assert json.loads((tmp_path / "pred.json").read_text())["categories"] == [{"id": 0, "name": "object", "isthing": 1}]
    assert (tmp_path / "a.txt").read_text().startswith("0 1 1 48 64 ")


# --------------------------------------------------------------------------------------------------------------- MOTS


@pytest.mark.parametrize("names", [False, True])
def test_mots_file(tmp_path, names):
    writer = MotsWriter(tmp_path / "new" / "street.txt", category_ids=None)
    for result in video_results(names=names):
        writer.write(result)
    assert writer.close() == [tmp_path / "new" / "street.txt"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["street.txt"]
    rows = [line.split(" ") for line in (tmp_path / "new" / "street.txt").read_text().splitlines()]
    first = 7 if names else 0
    both = [(CAR, 1), (PERSON, 2)]
    expected = [(index + first, *row) for index in range(FRAMES) for row in (both if index != 2 else both[:1])]
    assert [(int(row[0]), int(row[1]), int(row[2])) for row in rows] == expected
    for row in rows:
        mask = coco_mask.decode({"size": [int(row[3]), int(row[4])], "counts": row[5].encode()})
        assert np.array_equal(mask, track_map(int(row[0]) - first) == int(row[1]))


def test_masks_of_mots_do_not_overlap(tmp_path):
    whole = np.ones((HEIGHT, WIDTH), dtype=bool)
    small = track_map(0) == CAR
    result = Result.from_masks(
        [whole, small],
        [SegmentLabel(0, 0.4), SegmentLabel(0, 0.9)],
        task="instance",
        image=picture(0),
        categories=CATEGORIES,
        frame=FrameStamp(0, 0.0),
    )
    writer = MotsWriter(tmp_path / "a.txt", category_ids=None)
    writer.write(result)
    writer.close()
    masks = [
        coco_mask.decode({"size": [HEIGHT, WIDTH], "counts": line.split(" ")[5].encode()})
        for line in (tmp_path / "a.txt").read_text().splitlines()
    ]
    assert np.array_equal(masks[1], small)
    assert np.array_equal(masks[0], ~small)


# --------------------------------------------------------------------------------------------------------- all of them


@pytest.mark.parametrize("frames", [0, 1])
def test_writers_leave_nothing_half_written(tmp_path, frames):
    writers = [
        YouTubeVisWriter(tmp_path / "y", name="a", category_ids=None),
        VipSegWriter(tmp_path / "v", name="a", category_ids=None),
        MotsWriter(tmp_path / "m" / "a.txt", category_ids=None),
    ]
    for writer in writers:
        for result in list(video_results())[:frames]:
            writer.write(result)
        assert bool(writer.close()) == bool(frames)
        assert writer.close() == []
    assert not list(tmp_path.rglob("*.partial"))
    assert bool(list(tmp_path.iterdir())) == bool(frames)
    if frames:
        for path in tmp_path.rglob("*.json"):
            json.loads(path.read_text())
            assert path.stat().st_mode & 0o044


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    result = next(video_results())
    for writer in (
        YouTubeVisWriter(tmp_path / "file", name="a", category_ids=None),
        VipSegWriter(tmp_path / "file", name="a", category_ids=None),
        MotsWriter(tmp_path / "file" / "a.txt", category_ids=None),
    ):
        with pytest.raises(UserError, match="not a folder"):
            writer.write(result)
