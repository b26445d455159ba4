"""Measures on videos: right for who knows the truth, less for who does not; what is handed to whom."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from omgvision.data import Sample, SyntheticVideo
from omgvision.data.synthetic import NAMES, THINGS
from omgvision.evaluation import video_benchmarks
from omgvision.evaluation.video_benchmarks import (
    AnnotatedVideo,
    VideoSet,
    instances,
    objects,
    panoptic,
    predicted_tracks,
    semantic,
    true_classes,
)
from omgvision.evaluation.video_segmenters import VideoTask, Words
from omgvision.results import Category, FrameStamp, Result, SegmentLabel
from omgvision.run_lengths import RunLengthMask

LENGTH = 9
VIDEO = SyntheticVideo(seed=2, size=(60, 80), objects=4, staying=2)
GIVEN = VideoSet(
    "rendered",
    [AnnotatedVideo("a", lambda: (VIDEO.frame(index) for index in range(LENGTH)))],
    NAMES,
    THINGS,
    Words(NAMES),
)


class Oracle:
    """Knows the truth; `forget` gives every segment a new id from frame 3 on, `hide` leaves the last object out."""

    def __init__(self, *, forget: bool = False, hide: bool = False) -> None:
        self.forget, self.hide = forget, hide

    def segment(self, frames: Iterable[Image.Image], *, task: VideoTask, words: Words) -> Iterator[Result]:
        assert words is GIVEN.words
        for index, image in enumerate(frames):
            sample = VIDEO.frame(index)
            assert np.array_equal(np.asarray(image), sample.image.permute(1, 2, 0).numpy())
            yield self.result(sample, index, task)

    def result(self, sample: Sample, index: int, task: VideoTask) -> Result:
        numbers = sample.segment_layers[0].numpy().astype(np.int64)
        if self.hide:
            numbers = np.where(numbers == 4, 0, numbers)
        labels = {number + 1: SegmentLabel(label, 0.9) for number, label in enumerate(sample.labels.tolist())}
        categories = [Category(name, thing) for name, thing in zip(NAMES, THINGS, strict=True)]
        about: dict[str, Any] = {
            "task": task,
            "image": Image.fromarray(sample.image.permute(1, 2, 0).numpy()),
            "categories": categories,
            "frame": FrameStamp(index, float(index)),
        }
        if task == "semantic":
            classes = np.append(-1, sample.labels.numpy())[numbers] + 1
            found = {index + 1: SegmentLabel(index) for index in range(len(categories))}
            return Result.from_label_map(classes, found, **about)
        shift = 100 if self.forget and index >= 3 else 0
        if task == "instance":
            seen = [number for number in np.unique(numbers).tolist() if number and THINGS[labels[number].label_id or 0]]
            masks = [numbers == number for number in seen]
            ids = [number + shift for number in seen]
            return Result.from_masks(masks, [labels[number] for number in seen], ids=ids, **about)
        moved = np.where(numbers > 0, numbers + shift, 0)
        return Result.from_label_map(moved, {number + shift: label for number, label in labels.items()}, **about)

    def follow(self, frames: Iterable[Image.Image], *, first: np.ndarray) -> Iterator[np.ndarray]:
        lookup = np.zeros(10, dtype=np.int64)
        for number in np.unique(first):
            lookup[VIDEO.frame(0).segment_layers[0].numpy()[first == number][0]] = number
        for index, _ in enumerate(frames):
            numbers = lookup[VIDEO.frame(index).segment_layers[0].numpy()]
            yield np.where(numbers == 1, 0, numbers) if self.hide else numbers


def test_panoptic() -> None:
    right = panoptic(Oracle(), GIVEN)
    assert (right["videos"], right["frames"]) == (1, LENGTH)
    assert right["VPQ"] == pytest.approx(1) == right["STQ"]
    assert (right["switches"], right["followed"]) == (0, 1)
    assert right["objects_throughout"] >= 2
    forgotten = panoptic(Oracle(forget=True), GIVEN)
    assert forgotten["VPQ@1"] == pytest.approx(1)
    assert forgotten["VPQ@6"] < 0.6
    assert forgotten["switches"] >= forgotten["switches_throughout"] == forgotten["objects_throughout"]
    assert panoptic(Oracle(hide=True), GIVEN)["followed"] < 1


def test_instances() -> None:
    assert instances(Oracle(), GIVEN)["AP"] == pytest.approx(1)
    assert instances(Oracle(forget=True), GIVEN)["AP"] < 0.5
    assert instances(Oracle(hide=True), GIVEN)["AP"] < 1


def test_semantic() -> None:
    longer = VideoSet(
        "", [AnnotatedVideo("a", lambda: (VIDEO.frame(index) for index in range(20)))], NAMES, THINGS, GIVEN.words
    )
    right = semantic(Oracle(), longer)
    assert (right["mIoU"], right["VC8"], right["VC16"]) == (1, 1, 1)
    assert right["frames"] == 20


def test_objects() -> None:
    right = objects(Oracle(), GIVEN)
    assert right["J&F"] == pytest.approx(1)
    assert right["objects"] >= 2
    assert objects(Oracle(hide=True), GIVEN)["J"] < 1


def test_videos_without_objects_to_follow_are_left_out() -> None:
    empty = SyntheticVideo(seed=0, size=(40, 40), objects=0)
    given = VideoSet("", [AnnotatedVideo("a", lambda: iter([empty.frame(0)] * 4))], NAMES, THINGS, GIVEN.words)
    assert objects(Oracle(), given)["videos"] == 0


def test_true_classes_are_void_where_nothing_is() -> None:
    sample = VIDEO.frame(0).keeping(torch.tensor([True, *[False] * (len(VIDEO.labels) - 1)]))
    classes = true_classes(sample)
    assert set(np.unique(classes)) <= {int(VIDEO.labels[0]), 255}


def test_a_track_has_the_class_that_its_scores_favour_and_their_mean() -> None:
    mask = RunLengthMask.encode(np.ones((2, 2), dtype=bool))
    tracks = list(predicted_tracks([[(5, 1, 0.9, mask)], [(5, 2, 0.5, mask), (6, 0, 0.4, mask)], [(5, 2, 0.7, mask)]]))
    assert [(track.category, track.score) for track in tracks] == [(2, pytest.approx(0.7)), (0, 0.4)]
    assert [mask is None for mask in tracks[1].masks] == [True, False, True]


def test_the_report_has_a_row_for_each_number_and_steps_can_be_made_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = [("VPQ", "VPQ", False), ("identity switches", "switches", True)]
    every = {
        "rendered": video_benchmarks.Step(GIVEN, panoptic, rows, in_clips=True),
        "objects": video_benchmarks.Step(GIVEN, objects, [("J", "J", False)]),
    }
    monkeypatch.setattr(video_benchmarks, "steps", lambda data: every)
    monkeypatch.setattr(video_benchmarks, "load", lambda weights: None)
    monkeypatch.setattr(video_benchmarks, "TrackingSegmenter", lambda predictor, clip_frames=1: Oracle())
    monkeypatch.setattr(video_benchmarks, "PerFrameSegmenter", lambda predictor: Oracle(forget=True, hide=True))
    out = tmp_path / "results" / "video.json"

    def run(*arguments: str) -> dict[str, Any]:
        video_benchmarks.main(["--data", str(tmp_path), "--out", str(out), *arguments])
        return json.loads(out.read_text(encoding="utf-8"))

    assert [row["metric"] for row in run("--only", "objects")["rows"]] == ["J"]
    made = run("--only", "rendered")
    assert [row["metric"] for row in made["rows"]] == ["VPQ", "identity switches", "J"]
    first, second, third = made["rows"]
    assert first["tracked"] == pytest.approx(1)
    assert first["per_frame"] < 1
    assert (first["videos"], first["frames"]) == (1, LENGTH)
    assert second["tracked"] == 0
    assert second["per_frame"] > 0
    assert third["tracked"] > third["per_frame"]
    assert "clips" in first and "clips" not in third
    assert run()["rows"] == made["rows"]
    assert [path.name for path in out.parent.iterdir()] == ["video.json"]
    with pytest.raises(SystemExit):
        run("--only", "nothing")


def test_sets_are_limited_evenly() -> None:
    videos = [AnnotatedVideo(str(number), partial(iter, ())) for number in range(5)]
    part = VideoSet("", videos, NAMES, THINGS, GIVEN.words).part(3)
    assert [video.name for video in part.videos] == ["0", "2", "4"]
