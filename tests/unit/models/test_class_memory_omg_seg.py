"""What pixels were taken for before: it counts where the picture is as it was, and nowhere else."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from omgvision.models.omg_seg import class_memory_omg_seg as memory_file
from omgvision.models.omg_seg.class_memory_omg_seg import ClassMemory
from omgvision.models.omg_seg.clips_omg_seg import QueryPrediction
from omgvision.models.omg_seg.postprocessing_omg_seg import MaskSizes, PastQueries, semantic

GRID, WIDTH = 16, 4
SIZES = MaskSizes(canvas=(64, 64), image=(64, 64), target=(64, 64))


def prediction(*rows: tuple[int, float], classes: int = 3) -> QueryPrediction:
    """Queries that cover all, given as class and its logit."""
    logits = torch.zeros(len(rows), classes + 1)
    for row, (label, certainty) in enumerate(rows):
        logits[row, label] = certainty
    return QueryPrediction(
        class_logits=logits,
        iou_logits=torch.zeros(len(rows)),
        mask_logits=torch.full((len(rows), GRID, GRID), 4.0),
        query_features=torch.zeros(len(rows), WIDTH),
    )


def looks(left: int, right: int) -> Tensor:
    """Mask features with one direction in the left half and one in the right."""
    features = torch.zeros(WIDTH, GRID, GRID)
    features[left, :, : GRID // 2] = features[right, :, GRID // 2 :] = 1.0
    return features


def map_of(memory: ClassMemory, frame: QueryPrediction, features: Tensor) -> Tensor:
    past = memory.recall(features)
    memory.remember(frame, mask_features=features)
    return semantic(frame.class_logits, mask_logits=frame.mask_logits, sizes=SIZES, past=past)


def test_a_doubtful_frame_is_read_as_before_where_it_looks_as_before():
    memory = ClassMemory()
    assert (map_of(memory, prediction((0, 4.0)), looks(0, 1)) == 0).all()
    doubtful = prediction((1, 1.0), (0, 0.9))
    assert (semantic(doubtful.class_logits, mask_logits=doubtful.mask_logits, sizes=SIZES) == 1).all()
    classes = map_of(memory, doubtful, looks(0, 2))
    assert (classes[:, :28] == 0).all() and (classes[:, 36:] == 1).all()


def test_what_a_frame_is_surer_of_is_read_at_once_and_only_the_last_frame_counts():
    memory = ClassMemory()
    for _ in range(5):
        map_of(memory, prediction((0, 2.0)), looks(0, 0))
    assert (map_of(memory, prediction((1, 6.0)), looks(0, 0)) == 1).all()
    assert (map_of(memory, prediction((2, 1.0), (0, 0.5)), looks(0, 0)) == 1).all()


def test_the_first_frame_and_one_that_repeats_are_as_they_are():
    generator = torch.Generator().manual_seed(1)
    masks, logits = torch.randn(6, GRID, GRID, generator=generator), torch.randn(6, 5, generator=generator)
    frame = QueryPrediction(
        class_logits=logits, iou_logits=torch.zeros(6), mask_logits=masks, query_features=torch.zeros(6, WIDTH)
    )
    features = torch.randn(WIDTH, GRID, GRID, generator=generator)
    alone = semantic(logits, mask_logits=masks, sizes=SIZES)
    memory = ClassMemory()
    assert memory.recall(features) is None
    for _ in range(3):
        assert torch.equal(map_of(memory, frame, features), alone)


def test_the_share_follows_the_cosine():
    memory = ClassMemory()
    memory.remember(prediction((0, 1.0)), mask_features=looks(0, 1))
    past = memory.recall(looks(0, 2))
    assert past is not None
    share = past.weight / (1 + past.weight)
    full = memory_file.PAST_SHARE * torch.tensor((1 - memory_file.ALIKE) / memory_file.ALIKE_RANGE).sigmoid()
    torch.testing.assert_close(share[:, : GRID // 2], full.expand(GRID, GRID // 2))
    assert share[:, GRID // 2 :].max() < 1e-6


@pytest.mark.parametrize("seed", range(5))
def test_maps_with_a_past_are_those_of_the_weighted_sum(seed):
    """Tile by tile, with bounds, against all of it at once."""
    generator = torch.Generator().manual_seed(seed)
    sizes = MaskSizes(canvas=(96, 128), image=(90, 120), target=(180, 240))
    masks, before = (
        F.interpolate(3 * torch.randn(1, count, 6, 8, generator=generator), size=(24, 32), mode="bicubic")[0]
        for count in (8, 5)
    )
    logits, earlier = (2 * torch.randn(count, 12, generator=generator) for count in (8, 5))
    weight = torch.rand(24, 32, generator=generator) ** 3

    def resized(values: Tensor) -> Tensor:
        whole = F.interpolate(values[None], size=(96, 128), mode="bilinear")[..., :90, :120]
        return F.interpolate(whole, size=(180, 240), mode="bilinear")[0]

    def scores_of(logits: Tensor, masks: Tensor) -> Tensor:
        return torch.einsum("qk,qhw->khw", logits.softmax(-1)[:, :-1], resized(masks).sigmoid())

    scores = scores_of(logits, masks) + resized(weight[None]) * scores_of(earlier, before)
    past = PastQueries(class_logits=earlier, mask_logits=before, weight=weight)
    found = semantic(logits, mask_logits=masks, sizes=sizes, past=past)
    assert (scores.gather(0, found[None])[0] >= scores.max(0).values - 1e-5).all()
    assert (found == scores.argmax(0)).float().mean() > 0.999
