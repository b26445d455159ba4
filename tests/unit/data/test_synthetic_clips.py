"""Rendered videos: exact, the same every time, and with all that makes following objects hard."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omgvision.data import Clip, SyntheticClips, SyntheticScenes, SyntheticVideo
from omgvision.data.sample import ClipDataset
from omgvision.data.synthetic_objects import COLOURS


def same(one: Clip, other: Clip) -> bool:
    return all(
        torch.equal(a.image, b.image)
        and torch.equal(a.segment_layers, b.segment_layers)
        and torch.equal(a.labels, b.labels)
        for a, b in zip(one.frames, other.frames, strict=True)
    )


def test_clip_depends_on_seed_index_and_generator_only() -> None:
    first, again = SyntheticClips(seed=3, size=(48, 64), length=9), SyntheticClips(seed=3, size=(48, 64), length=20)
    clip = first.clip(4, np.random.default_rng(0))
    again.clip(5, np.random.default_rng(1))
    assert same(clip, again.clip(4, np.random.default_rng(0)))
    assert not same(clip, first.clip(4, np.random.default_rng(1)))
    assert not same(clip, first.clip(5, np.random.default_rng(0)))
    assert not same(clip, SyntheticClips(seed=4, size=(48, 64)).clip(4, np.random.default_rng(0)))


def test_frames_of_a_video_are_rendered_in_any_order() -> None:
    video, again = (SyntheticVideo(seed=1, size=(48, 64)) for _ in range(2))
    late = video.frame(9000)
    frame = video.frame(3)
    assert torch.equal(again.frame(3).image, frame.image)
    assert torch.equal(again.frame(9000).segment_layers, late.segment_layers)
    assert late.labels is video.labels


def test_clips_keep_the_conventions() -> None:
    clips = SyntheticClips(seed=0, size=(72, 96), length=40, frames=3)
    assert isinstance(clips, ClipDataset)
    assert clips.names == SyntheticScenes().names
    assert clips.things == SyntheticScenes().things
    seen_late = 0
    for index in range(len(clips)):
        clip = clips.clip(index, np.random.default_rng(index))
        assert len(clip.frames) == 3
        assert clip.size == (72, 96)
        things = [clip.things[label] for label in clip.labels.tolist()]
        assert things == sorted(things, reverse=True)
        areas = torch.stack([frame.areas() for frame in clip.frames])
        assert bool((areas.amax(0) >= 20).all())
        seen_late += int((areas[0] == 0).sum())
        for frame in clip.frames:
            assert len(frame.segment_layers) == 1
            assert float((frame.segment_layers > 0).float().mean()) > 0.85
    assert seen_late, "in no clip does an object come in after the first frame"


def test_every_pixel_of_a_video_belongs_to_a_segment() -> None:
    """The camera never looks beyond the canvas, however long the picture."""
    for size in ((32, 200), (200, 32), (64, 64)):
        for seed in range(4):
            video = SyntheticVideo(seed=seed, size=size, objects=2)
            assert all(int(video.frame(index).segment_layers.min()) > 0 for index in range(0, 3000, 500))


def test_masks_lie_on_the_pixels_of_the_object() -> None:
    found = 0
    for seed in range(12):
        video = SyntheticVideo(seed=seed, size=(96, 128), objects=5)
        frame = video.frame(40 * seed)
        for mask, label in zip(frame.masks, frame.labels.tolist(), strict=True):
            colour = frame.names[label].split(" ")[0]
            if colour in {"red", "green", "blue"} and frame.things[label] and mask.sum() > 60:
                strongest = int(np.argmax(COLOURS[colour]))
                assert int(frame.image[:, mask].float().mean(1).argmax()) == strongest
                found += 1
    assert found >= 5


def test_objects_move_smoothly_pass_behind_one_another_leave_and_return() -> None:
    left_and_returned = covered = 0
    for seed in range(4):
        video = SyntheticVideo(seed=seed, size=(48, 64), objects=7)
        views = [video.view(index) for index in range(0, 300, 3)]
        visible = torch.stack([frame.areas() for frame, _ in views])[:, :7]
        full = torch.stack([areas for _, areas in views])[:, :7]
        assert bool((visible <= full).all())
        covered += int(((visible < 0.5 * full) & (full > 50)).sum())
        inside = full > 0
        for one in inside.T:
            changes = int((one[1:] != one[:-1]).sum())
            left_and_returned += changes >= 2 and bool(one[0])
        # From one frame to the next but two no object that is well inside gains or loses much of its area.
        large = (full[1:] > 75) & (full[:-1] > 75)
        assert float(((full[1:] - full[:-1]).abs()[large] / full[1:][large]).median()) < 0.1
    assert left_and_returned >= 3
    assert covered >= 20


def test_staying_objects_are_seen_whole_in_every_frame() -> None:
    for seed in range(3):
        video = SyntheticVideo(seed=seed, size=(60, 80), objects=6, staying=3)
        sizes = []
        for index in range(0, 2000, 25):
            frame, full = video.view(index)
            assert torch.equal(frame.areas()[3:6], full[3:6])
            sizes.append(full[3:6])
        areas = torch.stack(sizes)
        assert int(areas.min()) >= 20
        assert bool((areas.amax(0) < 3 * areas.amin(0)).all()), "cut off by the picture's border"


def test_frames_of_a_clip_are_as_far_apart_as_asked() -> None:
    clips = SyntheticClips(size=(48, 64), length=30, frames=3, interval=(2, 4))
    seen = set()
    for index in range(30):
        times = [
            int(frame.sample_id.split("-")[-1]) for frame in clips.clip(index, np.random.default_rng(index)).frames
        ]
        assert times[1] - times[0] == times[2] - times[1]
        seen.add(times[1] - times[0])
    assert seen == {2, 3, 4}


def test_arguments_are_checked() -> None:
    for make, word in (
        (lambda: SyntheticClips(size=(16, 64)), "size"),
        (lambda: SyntheticClips(length=-1), "length"),
        (lambda: SyntheticClips(frames=0), "frames"),
        (lambda: SyntheticClips(interval=(0, 2)), "interval"),
        (lambda: SyntheticClips(objects=(3, 2)), "objects"),
    ):
        with pytest.raises(ValueError, match=word):
            make()
    with pytest.raises(ValueError, match="staying"):
        SyntheticVideo(objects=2, staying=3)
    with pytest.raises(ValueError, match="size"):
        SyntheticVideo(size=(16, 64))
    with pytest.raises(IndexError):
        SyntheticClips(length=3).clip(3, np.random.default_rng(0))
    with pytest.raises(IndexError):
        SyntheticVideo(size=(48, 64)).frame(-1)
