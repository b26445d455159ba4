"""Images and clips on a common canvas."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omgvision.data import SyntheticScenes, collate
from omgvision.data.sample import Clip, Sample


def moving(sample: Sample, *, frames: int) -> Clip:
    """The sample, one pixel further to the right in each frame."""
    return Clip(
        tuple(
            replace(
                sample,
                image=sample.image.roll(time, -1),
                segment_layers=sample.segment_layers.roll(time, -1),
            )
            for time in range(frames)
        )
    )


def test_pads_right_and_bottom() -> None:
    scenes = SyntheticScenes(size=(40, 33), length=2), SyntheticScenes(size=(33, 70), length=2)
    samples = [scenes[0][0], replace(scenes[1][1], sample_id="other")]
    batch = collate(samples)
    assert batch.pixel_values.shape == (2, 3, 64, 96)
    assert batch.pixel_mask.sum((1, 2)).tolist() == [40 * 33, 33 * 70]
    assert bool(batch.pixel_mask[0, :40, :33].all())
    assert float(batch.pixel_values[0, :, 40:].abs().max()) == 0
    assert torch.equal(batch.mask_labels[1][:, :33, :70], samples[1].masks)
    assert not batch.mask_labels[1][:, :, 70:].any()
    assert batch.sample_ids == ("0-0", "other")


def test_canvas_has_at_least_the_size_asked_for() -> None:
    sample = SyntheticScenes(size=(40, 33), length=1)[0]
    assert collate([sample], size=(96, 50)).pixel_values.shape == (1, 3, 96, 64)
    assert collate([sample], size=(32, 32)).pixel_values.shape == (1, 3, 64, 64)


def test_clips_keep_their_frames_in_order() -> None:
    scenes = SyntheticScenes(size=(32, 48), length=2)
    clips = [moving(scenes[index], frames=3) for index in range(2)]
    batch = collate(clips)
    assert batch.pixel_values.shape == (2, 3, 3, 32, 64)
    assert batch.pixel_mask.shape == (2, 32, 64)
    for index, clip in enumerate(clips):
        assert batch.mask_labels[index].shape == (len(clip.labels), 3, 32, 64)
        assert torch.equal(batch.class_labels[index], clip.labels)
        for time, frame in enumerate(clip.frames):
            alone = collate([frame])
            assert torch.equal(batch.pixel_values[index, time], alone.pixel_values[0])
            assert torch.equal(batch.mask_labels[index][:, time], alone.mask_labels[0])
    assert batch.sample_ids == ("0-0", "0-1")


def test_one_batch_takes_one_kind() -> None:
    sample = SyntheticScenes(size=(32, 32), length=1)[0]
    with pytest.raises(ValueError, match="images and clips of 2 frames"):
        collate([sample, moving(sample, frames=2)])
    with pytest.raises(ValueError, match="clips of 2 frames and clips of 3 frames"):
        collate([moving(sample, frames=3), moving(sample, frames=2)])


def test_one_batch_takes_one_vocabulary() -> None:
    sample = SyntheticScenes(size=(32, 32), length=1)[0]
    with pytest.raises(ValueError, match="one vocabulary"):
        collate([sample, replace(sample, names=("a",), dataset="b")])
    with pytest.raises(ValueError, match="at least one"):
        collate([])
