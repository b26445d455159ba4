"""Rendered scenes: the truth is exact, the same every time, and as named."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omgvision.data import SyntheticScenes
from omgvision.data.synthetic_objects import COLOURS, SHAPES


def test_scene_depends_on_seed_and_index_only() -> None:
    first, again = SyntheticScenes(seed=3, length=10), SyntheticScenes(seed=3, length=20)
    first[0]
    assert torch.equal(first[4].image, again[4].image)
    assert torch.equal(first[4].segment_layers, again[4].segment_layers)
    assert torch.equal(first[4].labels, again[4].labels)
    assert not torch.equal(first[4].image, first[5].image)
    assert not torch.equal(first[4].image, SyntheticScenes(seed=4, length=10)[4].image)


def test_segments_are_exclusive_numbered_and_things_first() -> None:
    scenes = SyntheticScenes(seed=0, size=(96, 128), length=30)
    covered = []
    for index in range(len(scenes)):
        sample = scenes[index]
        assert sample.size == (96, 128)
        assert sample.image.dtype == torch.uint8
        assert len(sample.segment_layers) == 1
        assert bool((sample.areas() >= 20).all())
        things = [sample.things[label] for label in sample.labels.tolist()]
        assert things == sorted(things, reverse=True)
        covered.append(float((sample.segment_layers > 0).float().mean()))
    assert min(covered) > 0.9
    assert sum(covered) / len(covered) > 0.99


@pytest.mark.parametrize("colour", ["red", "blue", "green"])
def test_objects_have_the_colour_of_their_name(colour: str) -> None:
    scenes = SyntheticScenes(seed=1, size=(128, 128), length=40)
    found = []
    for index in range(len(scenes)):
        sample = scenes[index]
        masks = sample.masks
        for mask, label in zip(masks, sample.labels.tolist(), strict=True):
            if sample.names[label].startswith(f"{colour} "):
                found.append(sample.image[:, mask].float().mean(1).numpy())
    assert len(found) >= 3
    strongest = int(np.argmax(COLOURS[colour]))
    assert all(int(np.argmax(mean)) == strongest for mean in found)


def test_every_shape_fills_its_place() -> None:
    axis = np.linspace(-1.3, 1.3, 131, dtype=np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    for name, inside in SHAPES.items():
        mask = inside(x, y)
        reach = np.maximum(np.abs(x), np.abs(y))[mask]
        assert 0.1 < mask.mean() < 0.6, name
        assert 0.7 < reach.max() < 1.25, name


def test_every_name_occurs() -> None:
    scenes = SyntheticScenes(seed=2, size=(48, 48), length=400, objects=(6, 8))
    seen = {scenes.names[label] for index in range(len(scenes)) for label in scenes[index].labels.tolist()}
    surfaces = {name for name, thing in zip(scenes.names, scenes.things, strict=True) if not thing}
    assert surfaces <= seen
    assert len(seen) > 120


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="size"):
        SyntheticScenes(size=(16, 64))
    with pytest.raises(ValueError, match="objects"):
        SyntheticScenes(objects=(5, 2))
    with pytest.raises(IndexError):
        SyntheticScenes(length=3)[3]
