"""Frames of a clip, photographs as clips, and what a clip keeps of its objects."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from omgvision.data import InMemory, Sample, SyntheticScenes
from omgvision.data.clips import FrameSampling, PseudoClips
from omgvision.data.sample import Clip, layers_from_masks, portrait_of


def test_frames_are_equally_far_apart_from_any_start() -> None:
    sampling = FrameSampling(frames=3, interval=2)
    assert sampling.span == 5
    drawn = Counter(tuple(sampling.draw(7, np.random.default_rng(seed))) for seed in range(300))
    assert set(drawn) == {(0, 2, 4), (1, 3, 5), (2, 4, 6)}
    assert min(drawn.values()) > 60
    assert FrameSampling(frames=1, interval=4).draw(1, np.random.default_rng(0)) == [0]
    assert FrameSampling().draw(3, np.random.default_rng(0)) == [0, 2], "the original: two frames, one between them"


def test_short_videos_and_empty_clips_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 3 frames, got 2"):
        FrameSampling().draw(2, np.random.default_rng(0))
    with pytest.raises(ValueError, match="1 or more"):
        FrameSampling(frames=0)
    with pytest.raises(ValueError, match="frames"):
        PseudoClips(SyntheticScenes(length=1), frames=0)


def test_a_photograph_becomes_a_still_clip() -> None:
    scenes = SyntheticScenes(size=(32, 48), length=3)
    clips = PseudoClips(scenes, frames=3)
    clip = clips.clip(1, np.random.default_rng(0))
    assert (len(clips), len(clip.frames), clip.size) == (3, 3, (32, 48))
    assert clip.frames[0] is clip.frames[2]
    assert torch.equal(clip.frames[0].image, scenes[1].image)


def test_objects_leave_a_clip_only_when_no_frame_shows_them() -> None:
    def frame(*areas: int) -> Sample:
        masks = [np.zeros((8, 8), dtype=bool) for _ in areas]
        for row, area in enumerate(areas):
            masks[row][row, :area] = True
        return Sample(
            image=torch.zeros((3, 8, 8), dtype=torch.uint8),
            segment_layers=layers_from_masks(masks, 8, 8),
            labels=torch.tensor([4, 5, 6]),
            names=tuple("abcdefg"),
            things=(True,) * 7,
            sample_id="0",
            dataset="test",
        )

    clip = Clip((frame(0, 2, 0), frame(5, 1, 0)))
    assert clip.with_areas_of_at_least(1).labels.tolist() == [4, 5]
    large = clip.with_areas_of_at_least(3)
    assert large.labels.tolist() == [4]
    assert [one.areas().tolist() for one in large.frames] == [[0], [5]]


def test_portrait_is_passed_on_and_optional() -> None:
    class Oriented(SyntheticScenes):
        portrait = (True, False)

    assert portrait_of(SyntheticScenes(length=2)) is None
    assert portrait_of(PseudoClips(SyntheticScenes(length=2))) is None
    for wrapped in (
        InMemory(Oriented(length=2)),
        PseudoClips(Oriented(length=2)),
        PseudoClips(InMemory(Oriented(length=2))),
    ):
        assert portrait_of(wrapped) == (True, False)


def test_clip_frames_must_agree() -> None:
    sample = SyntheticScenes(size=(32, 32), length=1)[0]
    with pytest.raises(AssertionError):
        Clip((sample, replace(sample, labels=sample.labels + 1)))
