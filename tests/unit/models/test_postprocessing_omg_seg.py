"""The tile by tile decisions against the plain way of making them, on masks of every kind and any sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omgvision.models.omg_seg import postprocessing_omg_seg as postprocessing
from omgvision.models.omg_seg.postprocessing_omg_seg import (
    MaskSizes,
    exclusive_map,
    instances,
    panoptic,
    prompt_masks,
    proposals,
    semantic,
)

CLASSES = 6
THINGS = torch.tensor([True, True, True, False, False, False])


def resized(mask_logits: Tensor, sizes: MaskSizes) -> Tensor:
    """The plain way: to the canvas, crop, to the target; in float64, so that it can arbitrate."""
    masks = F.interpolate(mask_logits[None].double(), size=sizes.canvas, mode="bilinear", align_corners=False)
    masks = masks[..., : sizes.image[0], : sizes.image[1]]
    return F.interpolate(masks, size=sizes.target, mode="bilinear", align_corners=False)[0]


def scene(seed: int, sizes: MaskSizes, *, kind: str, queries: int = 24) -> tuple[Tensor, Tensor]:
    """Class logits [Q,K+1] and mask logits [Q,h,w] at stride 4: noise, smooth blobs, or mostly empty ground."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (max(1, side // 4) for side in sizes.canvas)
    class_logits = torch.randn(queries, CLASSES + 1, generator=generator) * 2
    if kind == "noise":
        masks = torch.randn(queries, height, width, generator=generator) * 5
    else:
        coarse = torch.randn(queries, 1, 4, 4, generator=generator) * 6 - (4 if kind == "sparse" else 0)
        masks = F.interpolate(coarse, size=(height, width), mode="bilinear")[:, 0]
    return class_logits, masks


@st.composite
def any_sizes(draw: st.DrawFn) -> MaskSizes:
    image = draw(st.tuples(st.integers(1, 150), st.integers(1, 150)))
    target = draw(st.one_of(st.just(image), st.tuples(st.integers(1, 300), st.integers(1, 300))))
    canvas = tuple(-(-side // 32) * 32 for side in image)
    return MaskSizes(canvas=(canvas[0], canvas[1]), image=image, target=target)


kinds = st.sampled_from(["noise", "smooth", "sparse"])
seeds = st.integers(0, 10_000)


def decided(values: Tensor, *, margin: float = 1e-4) -> Tensor:
    """Where the largest of [n,H,W] leads clearly; elsewhere rounding may choose."""
    if len(values) == 1:
        return torch.ones(values.shape[1:], dtype=torch.bool)
    first, second = values.topk(2, dim=0).values
    return first - second > margin * first


@settings(max_examples=60, deadline=None)
@given(sizes=any_sizes(), seed=seeds, kind=kinds, threshold=st.sampled_from([0.0, 0.4]), drop=st.booleans())
def test_panoptic_equals_the_plain_way(sizes: MaskSizes, seed: int, kind: str, threshold: float, drop: bool):
    class_logits, mask_logits = scene(seed, sizes, kind=kind)
    segment_map, segments = panoptic(
        class_logits,
        mask_logits=mask_logits,
        thing_mask=THINGS,
        sizes=sizes,
        threshold=threshold,
        overlap_threshold=0.3,
        drop_uncertain=drop,
    )
    assert segment_map.dtype == torch.int32 and tuple(segment_map.shape) == sizes.target
    scores, labels = class_logits.double().softmax(-1).max(-1)
    kept = ((labels != CLASSES) & (scores > threshold)).nonzero()[:, 0]
    expected = torch.full(sizes.target, -1)
    if len(kept):
        logits = resized(mask_logits[kept], sizes)
        probabilities = scores[kept, None, None] * logits.sigmoid()
        winner = probabilities.argmax(0)
        clear = decided(probabilities) & (logits.abs() > 1e-4).all(0)
        for index, query in enumerate(kept.tolist()):
            won, inside = (winner == index), logits[index] >= 0
            if won.any() and inside.any():
                ratio = int(won.sum()) / int(inside.sum())
                if abs(ratio - 0.3) < 0.02 and not clear.all():
                    return  # rounding may decide whether this is a segment
                if ratio >= 0.3:
                    expected[won & inside if drop else won] = query
    else:
        clear = torch.ones(sizes.target, dtype=torch.bool)
    query_of = torch.full((len(segments) + 1,), -1)
    for segment in segments:
        query_of[segment.id] = segment.query
        assert segment.area == int((segment_map == segment.id).sum()) > 0
        assert segment.is_thing == bool(THINGS[segment.label_id]) and segment.was_fused != segment.is_thing
        assert segment.label_id == int(labels[segment.query])
    ours = query_of[segment_map]
    same_class = labels[ours] == labels[expected]
    fused = (ours >= 0) & (expected >= 0) & same_class & ~THINGS[labels[expected] % CLASSES]
    assert ((ours == expected) | fused)[clear].all()
    stuff = [segment.label_id for segment in segments if not segment.is_thing]
    assert len(stuff) == len(set(stuff))


@settings(max_examples=40, deadline=None)
@given(sizes=any_sizes(), seed=seeds, kind=kinds)
def test_semantic_equals_the_plain_way(sizes: MaskSizes, seed: int, kind: str):
    class_logits, mask_logits = scene(seed, sizes, kind=kind)
    labels = semantic(class_logits, mask_logits=mask_logits, sizes=sizes)
    probabilities = class_logits.double().softmax(-1)[:, :-1]
    expected = torch.einsum("qc,qhw->chw", probabilities, resized(mask_logits, sizes).sigmoid())
    clear = decided(expected)
    assert labels.dtype == torch.long
    assert torch.equal(labels[clear], expected.argmax(0)[clear])


def test_semantic_with_more_classes_than_a_chunk():
    sizes = MaskSizes(canvas=(64, 64), image=(64, 64), target=(64, 64))
    generator = torch.Generator().manual_seed(0)
    class_logits = torch.randn(10, 1001, generator=generator) * 3
    mask_logits = torch.randn(10, 16, 16, generator=generator)
    expected = torch.einsum(
        "qc,qhw->chw", class_logits.softmax(-1)[:, :-1], resized(mask_logits, sizes).sigmoid().float()
    )
    clear = decided(expected)
    labels = semantic(class_logits, mask_logits=mask_logits, sizes=sizes)
    assert torch.equal(labels[clear], expected.argmax(0)[clear])


@settings(max_examples=40, deadline=None)
@given(sizes=any_sizes(), seed=seeds, kind=kinds)
def test_instances_equal_the_plain_way(sizes: MaskSizes, seed: int, kind: str):
    class_logits, mask_logits = scene(seed, sizes, kind=kind)
    found = instances(class_logits, mask_logits=mask_logits, thing_mask=THINGS, sizes=sizes, max_instances=20)
    logits = resized(mask_logits, sizes)
    probabilities = class_logits.double().softmax(-1)
    assert (found.scores.diff() <= 0).all() and THINGS[found.labels].all() and (found.scores > 0).all()
    for mask, box, score, label, query in zip(
        found.masks, found.boxes, found.scores, found.labels, found.queries, strict=True
    ):
        clear = logits[query].abs() > 1e-4
        assert torch.equal(mask[clear], (logits[query] > 0)[clear])
        inside = logits[query].sigmoid()[mask].mean()
        assert score.item() == pytest.approx((probabilities[query, label] * inside).item(), rel=1e-3)
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_instances_take_the_best_pairs_before_they_drop_stuff():
    class_logits = torch.full((2, CLASSES + 1), -10.0)
    class_logits[0, 4], class_logits[1, 0] = 5.0, 1.0  # stuff first
    arguments = {
        "mask_logits": torch.ones(2, 8, 8),
        "thing_mask": THINGS,
        "sizes": MaskSizes(canvas=(32, 32), image=(32, 32), target=(32, 32)),
    }
    assert len(instances(class_logits, max_instances=1, **arguments).scores) == 0
    assert instances(class_logits, max_instances=2, **arguments).labels.tolist() == [0]
    assert len(instances(class_logits, max_instances=2, threshold=0.9, **arguments).scores) == 0


@settings(max_examples=40, deadline=None)
@given(sizes=any_sizes(), seed=seeds, kind=kinds)
def test_prompt_masks_equal_the_plain_way(sizes: MaskSizes, seed: int, kind: str):
    _, mask_logits = scene(seed, sizes, kind=kind, queries=3)
    logits = resized(mask_logits, sizes)
    clear = logits.abs() > 1e-4
    assert torch.equal(prompt_masks(mask_logits, sizes=sizes)[clear], (logits > 0)[clear])


def test_proposals_suppress_duplicates():
    masks = torch.full((4, 16, 16), -5.0)
    masks[0, :8, :8] = masks[1, :8, :9] = masks[2, 9:, 9:] = 5.0  # the last is empty
    arguments = {"mask_logits": masks, "sizes": MaskSizes(canvas=(64, 64), image=(64, 64), target=(64, 64))}
    logits = torch.tensor([1.0, 2.0, 0.5, 3.0])
    assert proposals(logits, **arguments).queries.tolist() == [1, 2]
    assert proposals(logits, nms_threshold=0.95, **arguments).queries.tolist() == [1, 0, 2]
    assert proposals(logits, nms_threshold=None, **arguments).queries.tolist() == [3, 1, 0, 2]
    assert proposals(logits, max_proposals=1, **arguments).queries.tolist() == [1]
    assert proposals(logits, threshold=0.7, **arguments).queries.tolist() == [1]
    assert proposals(logits, threshold=1.0, **arguments).masks.shape == (0, 64, 64)


@settings(max_examples=30, deadline=None)
@given(seed=seeds, threshold=st.floats(0.1, 0.9))
def test_proposals_left_overlap_no_more_than_allowed(seed: int, threshold: float):
    sizes = MaskSizes(canvas=(64, 96), image=(60, 88), target=(80, 70))
    _, masks = scene(seed, sizes, kind="smooth", queries=12)
    logits = torch.randn(12, generator=torch.Generator().manual_seed(seed))
    found = proposals(logits, mask_logits=masks, sizes=sizes, nms_threshold=threshold)
    flat = (masks[:, :15, :22] > 0).flatten(1).double()  # the grid without padding
    shared = flat @ flat.T
    area = shared.diagonal()
    overlap = shared / (area[:, None] + area - shared)
    kept = found.queries
    assert (overlap[kept][:, kept].triu(1) <= threshold).all() and (found.scores.diff() <= 0).all()
    for query in set(range(12)) - set(kept.tolist()):
        better = kept[logits[kept] > logits[query]]
        assert area[query] == 0 or (overlap[query, better] > threshold).any()  # nothing is left out without a reason


def test_what_wins_is_rarely_everything(monkeypatch: pytest.MonkeyPatch):
    """The point of the bounds: on smooth masks only a small part is ever resized."""
    sizes = MaskSizes(canvas=(512, 512), image=(512, 512), target=(512, 512))
    generator = torch.Generator().manual_seed(0)
    centres, radii = (
        torch.rand(100, 2, 1, 1, generator=generator) * 128,
        torch.rand(100, 1, 1, generator=generator) * 30,
    )
    grid = torch.stack(torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij"))
    masks = (radii - (grid - centres).square().sum(1).sqrt()).clamp(-10, 10)
    resizes = 0
    plain = postprocessing._TiledMasks.logits

    def counting(self, queries, tile):
        nonlocal resizes
        resizes += len(queries) * tile.area
        return plain(self, queries, tile)

    monkeypatch.setattr(postprocessing._TiledMasks, "logits", counting)
    panoptic(torch.randn(100, CLASSES + 1, generator=generator), mask_logits=masks, thing_mask=THINGS, sizes=sizes)
    assert resizes < 0.25 * 100 * math.prod(sizes.target)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits(dtype: torch.dtype):
    sizes = MaskSizes(canvas=(64, 96), image=(60, 90), target=(80, 70))
    class_logits, mask_logits = (tensor.to(dtype) for tensor in scene(3, sizes, kind="smooth"))
    arguments = {"thing_mask": THINGS, "sizes": sizes, "overlap_threshold": 0.1}
    half = panoptic(class_logits, mask_logits=mask_logits, **arguments)
    full = panoptic(class_logits.float(), mask_logits=mask_logits.float(), **arguments)
    assert torch.equal(half[0], full[0]) and half[1] == full[1] and half[1]


def test_gradients_are_left_alone():
    sizes = MaskSizes(canvas=(64, 96), image=(60, 90), target=(80, 70))
    class_logits, mask_logits = (tensor.requires_grad_() for tensor in scene(3, sizes, kind="smooth"))
    arguments = {"mask_logits": mask_logits, "sizes": sizes}
    found = instances(class_logits, thing_mask=THINGS, **arguments)
    assert not found.scores.requires_grad
    assert not proposals(class_logits[:, 0], **arguments).scores.requires_grad
    assert panoptic(class_logits, thing_mask=THINGS, overlap_threshold=0.1, **arguments)[1]
    assert semantic(class_logits, **arguments).any()


@pytest.mark.parametrize("kind", ["noise", "blobs"])
def test_pixels_belong_to_one_mask(kind: str):
    sizes = MaskSizes(canvas=(96, 128), image=(90, 120), target=(135, 180))
    _, masks = scene(3, sizes, kind=kind, queries=5)
    masks = torch.cat([masks, torch.full_like(masks[:1], -100.0)])  # one that is nowhere
    best, index = resized(masks, sizes).max(0)
    clear = (best.abs() > 1e-4) & (resized(masks, sizes).topk(2, dim=0).values.diff(dim=0)[0].abs() > 1e-4)
    found = exclusive_map(masks, sizes=sizes)
    assert found.dtype == torch.int32 and found.max() <= 5
    assert torch.equal(found[clear].long(), torch.where(best > 0, index + 1, 0)[clear])
    assert clear.float().mean() > 0.99
    assert not exclusive_map(masks[:0], sizes=sizes).any()


def test_nothing_kept():
    sizes = MaskSizes(canvas=(32, 32), image=(20, 30), target=(7, 9))
    void = F.one_hot(torch.full((5,), CLASSES), CLASSES + 1) * 20.0
    segment_map, segments = panoptic(void, mask_logits=torch.zeros(5, 8, 8), thing_mask=THINGS, sizes=sizes)
    assert segments == [] and segment_map.shape == (7, 9) and not segment_map.any()


@pytest.mark.parametrize("target", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_targets(target: tuple[int, int]):
    sizes = MaskSizes(canvas=(32, 64), image=(1, 40), target=target)
    class_logits, mask_logits = scene(1, sizes, kind="smooth")
    assert panoptic(class_logits, mask_logits=mask_logits, thing_mask=THINGS, sizes=sizes)[0].shape == target
    assert semantic(class_logits, mask_logits=mask_logits, sizes=sizes).shape == target
    found = instances(class_logits, mask_logits=mask_logits, thing_mask=THINGS, sizes=sizes)
    assert found.masks.shape[1:] == target


@pytest.mark.parametrize("bad", [{"image": (40, 20)}, {"target": (0, 5)}, {"image": (0, 1)}])
def test_sizes_that_cannot_be(bad: dict):
    with pytest.raises(ValueError, match="mask sizes: expected"):
        MaskSizes(**({"canvas": (32, 32), "image": (20, 30), "target": (7, 9)} | bad))


@pytest.mark.parametrize("bad", [0.0, 1.0, 7.0])
def test_mask_threshold_is_a_probability(bad: float):
    sizes = MaskSizes(canvas=(32, 32), image=(20, 30), target=(7, 9))
    class_logits, mask_logits = scene(0, sizes, kind="noise")
    with pytest.raises(ValueError, match="mask_threshold: expected"):
        panoptic(class_logits, mask_logits=mask_logits, thing_mask=THINGS, sizes=sizes, mask_threshold=bad)
