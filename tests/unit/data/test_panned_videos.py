"""Photographs as videos: exact tracks, deterministic, and the camera stays on the photograph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from omgvision.data import PannedVideos, Sample, SyntheticScenes


class Coded:
    """Pictures whose colours and labels tell the place: red the row, green the column, one segment a quarter."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        height, width = self.size
        rows = torch.linspace(20, 220, height).view(-1, 1).expand(height, width)
        columns = torch.linspace(20, 220, width).expand(height, width)
        quarters = 1 + 2 * (torch.arange(height).view(-1, 1) * 2 // height) + torch.arange(width) * 2 // width
        return Sample(
            image=torch.stack([rows, columns, torch.full_like(rows, 99)]).to(torch.uint8),
            segment_layers=torch.stack([quarters, (quarters == 4) * 5]).to(torch.int16),
            labels=torch.tensor([0, 1, 2, 3, 0]),
            names=("a", "b", "c", "d"),
            things=(True, True, False, False),
            sample_id=f"photo{index}",
            dataset="coded",
        )


@pytest.mark.parametrize("size", [(120, 90), (60, 200)])
def test_pixels_and_segments_move_together_and_never_leave_the_photograph(size: tuple[int, int]) -> None:
    videos = PannedVideos(Coded(size), frames=60)
    for index in range(len(videos)):
        frames = list(videos.whole(index))
        assert {frame.size for frame in frames} == {(round(size[0] * 0.6), round(size[1] * 0.6))}
        assert all(torch.equal(frame.labels, frames[0].labels) for frame in frames)
        for frame in frames:
            assert int(frame.image[2].min()) == 99, "beyond the photograph there is black"
            assert int(frame.segment_layers[0].min()) > 0
            # A pixel's colour says in which quarter of the photograph it is.
            below, right = frame.image[0].float() - 120, frame.image[1].float() - 120
            sure = (below.abs() > 6) & (right.abs() > 6)
            quarter = torch.tensor([0, 1, 2, 3])[2 * (below > 0).long() + (right > 0).long()]
            assert torch.equal(frame.labels[frame.segment_layers[0].long() - 1][sure], quarter[sure])


def test_the_camera_moves_smoothly_and_far() -> None:
    videos = PannedVideos(Coded((200, 300)), frames=16)
    for index in range(3):
        means = torch.stack([frame.image[:2].float().mean((1, 2)) for frame in videos.whole(index)])
        steps = (means[1:] - means[:-1]).abs()
        assert float(steps.max()) < 12
        assert float((means.amax(0) - means.amin(0)).max()) > 5


def test_a_video_depends_on_seed_and_index_only() -> None:
    scenes = SyntheticScenes(size=(60, 80), length=3)
    first, again = PannedVideos(scenes, frames=3), PannedVideos(scenes, frames=3)
    list(first.whole(0))
    for one, other in zip(first.whole(2), again.whole(2), strict=True):
        assert torch.equal(one.image, other.image)
        assert torch.equal(one.segment_layers, other.segment_layers)
        assert one.sample_id == other.sample_id
    moved = next(iter(PannedVideos(scenes, frames=3, seed=1).whole(2)))
    assert not torch.equal(next(iter(first.whole(2))).image, moved.image)


def test_segments_that_are_never_seen_are_left_out_and_others_kept_in_every_frame() -> None:
    sample = Coded((100, 100))[0]
    corner = torch.zeros_like(sample.segment_layers)
    corner[0, 0, 0] = 1  # the camera sees the corner at no time
    corner[0, 50, 50] = 2
    videos = PannedVideos([replace(sample, segment_layers=corner)], frames=4)
    frames = list(videos.whole(0))
    assert [frame.labels.tolist() for frame in frames] == [[1]] * 4
    assert len({frame.sample_id for frame in frames}) == 4
    assert np.mean([int(frame.areas()[0]) for frame in frames]) >= 0.5


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="frames"):
        PannedVideos(Coded((40, 40)), frames=0)
