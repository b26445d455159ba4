"""Validation: what counts on pictures with background, with void, and with objects on top of each other."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from omgvision.data.sample import Sample, layers_from_masks
from omgvision.predictor import Predictor
from omgvision.training.validation import Validation

SIZE = (12, 16)
Label = tuple[np.ndarray, int]


def box(top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


@dataclass
class Finds:
    """A predictor that finds the same on every picture: masks and labels, later ones on top."""

    segments: list[Label]

    def segment(self, image: Any, **_: Any) -> Any:
        label_map = np.zeros(SIZE, dtype=np.int64)
        semantic = np.full(SIZE, -1)
        for identity, (mask, label) in enumerate(self.segments, start=1):
            label_map[mask], semantic[mask] = identity, label
        found = [SimpleNamespace(id=identity, label_id=label) for identity, (_, label) in enumerate(self.segments, 1)]
        return SimpleNamespace(segments=found, label_map=label_map, semantic_map=lambda: semantic)


def validation(segments: list[Label], *, things: tuple[bool, ...]) -> Validation:
    sample = Sample(
        image=torch.zeros(3, *SIZE, dtype=torch.uint8),
        segment_layers=layers_from_masks([mask for mask, _ in segments], *SIZE),
        labels=torch.tensor([label for _, label in segments]),
        names=tuple(f"class {label}" for label in range(len(things))),
        things=things,
        sample_id="a",
        dataset="stub",
    )
    return Validation([sample])


def panoptic_quality(truth: list[Label], found: list[Label], *, things: tuple[bool, ...] = (True,)) -> Any:
    return validation(truth, things=things).panoptic_quality(cast(Predictor, Finds(found)))


OBJECT, ELSEWHERE = (box(2, 2, 6, 6), 0), [(box(8, left, 11, left + 3), 0) for left in (0, 4, 8)]


def test_what_is_found_on_background_is_wrong():
    assert panoptic_quality([OBJECT], [OBJECT])["PQ"] == 1
    # One found of one, with three false ones: 1 / (1 + 3 / 2).
    assert panoptic_quality([OBJECT], [OBJECT, *ELSEWHERE])["PQ"] == pytest.approx(0.4)
    # A mask that spills over the background is worse for it.
    assert panoptic_quality([OBJECT], [(box(2, 2, 6, 8), 0)])["SQ"] == pytest.approx(16 / 24)


def test_void_is_passed_over_where_there_is_stuff():
    ground = (box(0, 0, 7, 16) & ~OBJECT[0], 1)
    found = panoptic_quality([OBJECT, ground], [OBJECT, ground, *ELSEWHERE], things=(True, False))
    assert found["PQ"] == 1


def test_objects_that_overlap_all_count():
    """A cup before a table: the smaller one has the shared pixels."""
    table, cup = (box(2, 0, 12, 16), 0), (box(0, 6, 6, 10), 1)
    seen = (table[0] & ~cup[0], 0)
    both = (True, True)
    assert panoptic_quality([table, cup], [seen, cup], things=both)["PQ"] == 1
    assert panoptic_quality([table, cup], [seen], things=both)["PQ"] == 0.5, "the cup is missed"
    assert panoptic_quality([cup, table], [seen, cup], things=both)["PQ"] == 1, "in any order"
    twice = panoptic_quality([OBJECT, OBJECT], [OBJECT])
    assert (twice["RQ"], twice["SQ"]) == (pytest.approx(2 / 3), 1), "the second of two alike is missed"


def test_classes_of_segments_that_overlap():
    ground, cup = (np.ones(SIZE, dtype=bool), 0), (box(0, 6, 6, 10), 1)
    measured = validation([ground, cup], things=(False, True))
    assert measured.mean_iou(cast(Predictor, Finds([ground, cup]))) == 1
