"""Objects through videos of coloured squares; a stand-in for the model segments by colour, so all is known exactly."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from omgvision import object_tracking
from omgvision.models.omg_seg.mask_decoder_omg_seg import OmgSegDecoderOutput
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.outputs_omg_seg import OmgSegEncoderOutput, OmgSegOutput
from omgvision.object_tracking import GONE, REFERENCES, ObjectTracker
from omgvision.prompts import ObjectPrompt
from tests.models import random_model, random_pixels

SIDE, CELL = 16, 4
SIZE = (SIDE * CELL, SIDE * CELL)
COLOURS = torch.eye(6)


def frame(*squares: tuple[int, int, int, int]) -> OmgSegEncoderOutput:
    """Squares (colour, row, column, cells a side) on a background of colour 0, on a grid of 16×16 cells of 4 pixels."""
    colours = torch.zeros(SIDE, SIDE, dtype=torch.long)
    for colour, row, column, side in squares:
        colours[max(row, 0) : max(row + side, 0), max(column, 0) : max(column + side, 0)] = colour
    return OmgSegEncoderOutput(
        mask_features=COLOURS[colours].permute(2, 0, 1)[None, :, None],
        image_sizes=torch.tensor([SIZE]),
        canvas_size=torch.tensor(SIZE),
    )


def cells(encoded: OmgSegEncoderOutput, *colours: int) -> Tensor:
    assert encoded.mask_features is not None
    shown = encoded.mask_features[0, :, 0].argmax(0)
    return torch.isin(shown, torch.tensor(colours))


class ColourModel:
    """Answers a click with everything of the colour under it, added to or taken from the previous mask; a box with what
    is not background in it. Its object queries see `queries` [Q, h, w] in every frame."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self) -> None:
        self.model = self
        self.queries = torch.full((1, SIDE, SIDE), -8.0)

    def decode_objects(self, encoded: OmgSegEncoderOutput) -> OmgSegDecoderOutput:
        return OmgSegDecoderOutput(layer_mask_logits=(self.queries[None, :, None],))

    def __call__(
        self,
        *,
        encoder_outputs: OmgSegEncoderOutput,
        input_points: Tensor | None = None,
        input_point_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        previous_mask_logits: Tensor | None = None,
    ) -> OmgSegOutput:
        assert encoder_outputs.mask_features is not None
        shown = encoder_outputs.mask_features[0, :, 0].argmax(0)
        masks = []
        for number, points in enumerate(() if input_points is None else input_points[0]):
            mask = torch.full((SIDE, SIDE), -8.0)
            if previous_mask_logits is not None and not previous_mask_logits[0, number].isnan().any():
                mask = previous_mask_logits[0, number].clone()
            for place, (x, y) in enumerate((points // CELL).long().tolist()):
                positive = input_point_labels is None or input_point_labels[0, number, place] == 1
                mask[shown == shown[y, x]] = 8.0 if positive else -8.0
            masks.append(mask)
        for box in () if input_boxes is None else input_boxes[0]:
            left, top, right, bottom = (box // CELL).long().tolist()
            mask = torch.full((SIDE, SIDE), -8.0)
            mask[top:bottom, left:right] = torch.where(shown[top:bottom, left:right] > 0, 8.0, -8.0)
            masks.append(mask)
        return OmgSegOutput(masks_queries_logits=torch.stack(masks)[None])


def tracker() -> ObjectTracker:
    return ObjectTracker(cast(OmgSegForUniversalSegmentation, ColourModel()))


def click(row: float, column: float, label: int = 1) -> ObjectPrompt:
    return ObjectPrompt(points=((CELL * (column + 0.5), CELL * (row + 0.5)),), labels=(label,))


def test_several_objects_are_followed_and_do_not_overlap() -> None:
    following = tracker()
    first = frame((1, 2, 2, 4), (2, 9, 9, 3))
    region = np.kron(cells(first, 2).numpy(), np.ones((CELL, CELL))) > 0
    prompts = {7: click(3, 3), 4: ObjectPrompt(region=region)}
    logits = following.prompt(first, prompts, size=SIZE)
    assert following.object_ids == (7, 4)
    assert torch.equal(logits[0] > 0, cells(first, 1))
    assert torch.equal(logits[1] > 0, cells(first, 2))
    for step in range(1, 5):
        moved = frame((1, 2 + step, 2 + step, 4), (2, 9 - step, 9, 3))
        logits = following.propagate(moved)
        owner = torch.where(logits.amax(0) > 0, logits.argmax(0), -1)
        assert torch.equal(owner == 0, cells(moved, 1))
        assert torch.equal(owner == 1, cells(moved, 2))


class Unsure(ObjectTracker):
    """Whose labels hardly say more than who is where."""

    @staticmethod
    def _show(shares: Tensor, *, grid: Sequence[int]) -> Tensor:
        return ObjectTracker._show(shares, grid=grid).clamp(-1, 1)


def test_an_object_takes_the_borders_of_the_query_that_agrees_with_it() -> None:
    """Of a square of 16 cells one query sees a half, one all and a row more: the row comes, in this frame only."""
    model = ColourModel()
    following = Unsure(cast(OmgSegForUniversalSegmentation, model))
    still = frame((1, 4, 4, 4), (2, 11, 11, 3))
    following.prompt(still, {1: click(5, 5), 2: click(12, 12)}, size=SIZE)
    taller, half = torch.full((2, SIDE, SIDE), -9.0)
    taller[3:8, 4:8] = 12.0
    half[4:6, 4:8] = 12.0
    for queries, seen in ((torch.stack((half, taller)), taller > 0), (half[None], cells(still, 1))):
        model.queries = queries
        logits = following.propagate(still)
        assert torch.equal(logits[0] > 0, seen)
        assert torch.equal(logits[1] > 0, cells(still, 2))


def test_borders_are_not_remembered_where_another_object_is_corrected() -> None:
    """Object 2 takes a row of a query in a frame in which object 1 is corrected; without the query the row is gone."""
    model = ColourModel()
    following = Unsure(cast(OmgSegForUniversalSegmentation, model))
    squares = (1, 2, 2, 3), (3, 2, 5, 3), (4, 8, 9, 4), (2, 9, 9, 4)  # of colour 4 one row is seen
    following.prompt(frame(*squares), {1: click(3, 3), 2: click(10, 10)}, size=SIZE)
    taller = torch.full((SIDE, SIDE), -9.0)
    taller[8:13, 9:13] = 12.0
    model.queries = taller[None]
    second = frame(*squares)
    following.propagate(second)
    logits = following.prompt(second, {1: click(3, 6)}, size=SIZE)
    assert torch.equal(logits[0] > 0, cells(second, 1, 3))
    assert torch.equal(logits[1] > 0, taller > 0)
    model.queries = torch.full((1, SIDE, SIDE), -8.0)
    logits = following.propagate(frame(*squares))
    assert torch.equal(logits[0] > 0, cells(second, 1, 3))
    assert torch.equal(logits[1] > 0, cells(second, 2))


def test_an_object_that_leaves_is_gone_until_it_returns_elsewhere() -> None:
    following = tracker()
    following.prompt(frame((1, 0, 4, 3), (2, 10, 2, 4)), {1: click(1, 5), 2: click(11, 3)}, size=SIZE)
    for row in (-1, -2):
        following.propagate(frame((1, row, 4, 3), (2, 10, 2, 4)))
    for _ in range(6):
        logits = following.propagate(frame((2, 10, 2, 4)))
        assert torch.equal(logits[0], torch.full((SIDE, SIDE), GONE))
        assert (logits[1] > 0).sum() == 16
    returned = frame((1, 12, 12, 3), (2, 10, 2, 4))
    logits = following.propagate(returned)
    assert torch.equal(logits[0] > 0, cells(returned, 1))
    assert torch.equal(logits[1] > 0, cells(returned, 2))


def test_a_correction_changes_its_frame_and_what_follows() -> None:
    """An object of two colours, of which the first click finds one."""
    following = tracker()
    squares = (1, 4, 4, 4), (2, 4, 8, 4), (3, 12, 1, 2)
    logits = following.prompt(frame(*squares), {1: click(5, 5), 2: click(12, 1)}, size=SIZE)
    assert (logits[0] > 0).sum() == 16
    second = frame(*squares)
    assert torch.equal(following.propagate(second)[0] > 0, cells(second, 1))
    corrected = following.prompt(second, {1: click(5, 9)}, size=SIZE)
    assert torch.equal(corrected[0] > 0, cells(second, 1, 2))
    assert torch.equal(corrected[1] > 0, cells(second, 3))
    for step in range(1, 4):
        moved = frame((1, 4 + step, 4, 4), (2, 4 + step, 8, 4), (3, 12, 1, 2))
        logits = following.propagate(moved)
        assert torch.equal(logits[0] > 0, cells(moved, 1, 2))
        assert torch.equal(logits[1] > 0, cells(moved, 3))


def test_corrections_of_one_frame_add_up() -> None:
    following = tracker()
    only = frame((1, 2, 2, 3), (2, 2, 6, 3), (3, 2, 10, 3))
    following.prompt(only, {1: click(3, 3)}, size=SIZE)
    following.prompt(only, {1: click(3, 7)}, size=SIZE)
    assert torch.equal(following.prompt(only, {1: click(3, 11)}, size=SIZE)[0] > 0, cells(only, 1, 2, 3))
    assert torch.equal(following.prompt(only, {1: click(3, 7, label=0)}, size=SIZE)[0] > 0, cells(only, 1, 3))
    assert torch.equal(following.propagate(only)[0] > 0, cells(only, 1, 3))


def test_a_correction_leaves_alone_what_it_is_not_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model answers with more than what was clicked; what was propagated stays, but for the region of the click."""
    following = tracker()
    squares = (1, 2, 2, 3), (2, 9, 9, 3), (3, 2, 11, 3)
    following.prompt(frame(*squares), {1: click(3, 3)}, size=SIZE)
    second = frame(*squares)
    following.propagate(second)
    colours = ColourModel.__call__

    def spilling(self: ColourModel, *, encoder_outputs: OmgSegEncoderOutput, **prompts: Tensor) -> OmgSegOutput:
        output = colours(self, encoder_outputs=encoder_outputs, **prompts)
        assert output.masks_queries_logits is not None
        output.masks_queries_logits[..., cells(encoder_outputs, 3)] = 8.0
        return output

    monkeypatch.setattr(ColourModel, "__call__", spilling)
    assert torch.equal(following.prompt(second, {1: click(10, 10)}, size=SIZE)[0] > 0, cells(second, 1, 2))


@pytest.mark.parametrize(
    ("before", "label", "spoilt", "after"),
    [((1,), 1, 1, (1, 2)), ((1, 2), 0, 3, (1,))],
    ids=["a click on it only adds", "a click beside it only removes"],
)
def test_a_correction_goes_one_way(
    before: tuple[int, ...], label: int, spoilt: int, after: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model changes colour 2, which was clicked, and what touches it the other way: one connected difference."""
    following = tracker()
    squares = (1, 2, 2, 4), (2, 2, 6, 4), (3, 2, 10, 4)
    first, second = frame(*squares), frame(*squares)
    region = np.kron(cells(first, *before).numpy(), np.ones((CELL, CELL))) > 0
    following.prompt(first, {1: ObjectPrompt(region=region)}, size=SIZE)
    following.propagate(second)
    colours = ColourModel.__call__

    def spoiling(self: ColourModel, *, encoder_outputs: OmgSegEncoderOutput, **prompts: Tensor) -> OmgSegOutput:
        output = colours(self, encoder_outputs=encoder_outputs, **prompts)
        assert output.masks_queries_logits is not None
        output.masks_queries_logits[..., cells(encoder_outputs, spoilt)] = -8.0 if label else 8.0
        return output

    monkeypatch.setattr(ColourModel, "__call__", spoiling)
    corrected = following.prompt(second, {1: click(3, 7, label=label)}, size=SIZE)[0]
    assert torch.equal(corrected > 0, cells(second, *after))


def test_a_box_replaces_what_an_object_was() -> None:
    following = tracker()
    only = frame((1, 2, 2, 3), (2, 9, 9, 3))
    following.prompt(only, {1: click(3, 3)}, size=SIZE)
    box = ObjectPrompt(box=(8.0 * CELL, 8.0 * CELL, 13.0 * CELL, 13.0 * CELL))
    assert torch.equal(following.prompt(only, {1: box}, size=SIZE)[0] > 0, cells(only, 2))


def test_an_object_may_come_later_and_earlier_frames_do_not_speak_against_it() -> None:
    following = tracker()
    squares = (1, 2, 2, 3), (2, 9, 9, 3)
    following.prompt(frame(*squares), {1: click(3, 3)}, size=SIZE)
    following.propagate(frame(*squares))
    later = frame(*squares)
    logits = following.prompt(later, {5: click(10, 10)}, size=SIZE)  # propagates to the frame by itself
    assert following.object_ids == (1, 5)
    assert torch.equal(logits[0] > 0, cells(later, 1))
    for step in range(1, 4):
        moved = frame((1, 2, 2, 3), (2, 9, 9 - step, 3))
        assert torch.equal(following.propagate(moved)[1] > 0, cells(moved, 2))


def test_prompts_are_in_pixels_of_the_frame_whatever_the_network_sees() -> None:
    following = tracker()
    only = frame((1, 2, 8, 4))
    prompt = ObjectPrompt(points=((10 * CELL * 3.0, 4 * CELL * 2.0),), labels=(1,))
    logits = following.prompt(only, {1: prompt}, size=(2 * SIZE[0], 3 * SIZE[1]))
    assert torch.equal(logits[0] > 0, cells(only, 1))


def test_a_tiny_region_is_not_lost() -> None:
    region = np.zeros((SIZE[0] * 4, SIZE[1] * 4), dtype=bool)
    region[33, 65] = True
    logits = tracker().prompt(frame(), {1: ObjectPrompt(region=region)}, size=region.shape)
    assert (logits[0] > 0).nonzero().tolist() == [[2, 4]]


def state_size(following: ObjectTracker) -> int:
    """Numbers that the tracker holds."""
    tensors: list[Any] = [tensor for memory in following._references for tensor in (memory.features, memory.labels)]
    assert following._current is not None
    tensors += [following._current.memory.features, following._current.memory.labels, following._current.logits]
    return sum(tensor.numel() for tensor in tensors)


def test_the_state_does_not_grow_with_the_video() -> None:
    following = tracker()
    squares = (1, 2, 2, 3), (2, 9, 9, 3)
    following.prompt(frame(*squares), {1: click(3, 3), 2: click(10, 10)}, size=SIZE)
    following.propagate(frame(*squares))
    small = state_size(following)
    for _ in range(20):
        following.propagate(frame(*squares))
    assert state_size(following) == small
    sizes = []
    for _ in range(8):
        following.prompt(frame(*squares), {1: click(3, 3)}, size=SIZE)
        sizes.append(state_size(following))
    assert len(set(sizes[REFERENCES:])) == 1
    # The frame on which the other object was pointed at is still known.
    assert len(following._references) == REFERENCES
    assert torch.equal(following.propagate(frame(*squares))[1] > 0, cells(frame(*squares), 2))


def test_rows_compared_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def last() -> Tensor:
        following = tracker()
        following.prompt(frame((1, 2, 2, 4), (2, 9, 9, 3)), {1: click(3, 3), 2: click(10, 10)}, size=SIZE)
        return following.propagate(frame((1, 3, 3, 4), (2, 8, 9, 3)))

    whole = last()
    monkeypatch.setattr(object_tracking, "ROWS_AT_ONCE", 7)
    torch.testing.assert_close(last(), whole)


def test_large_pictures_are_compared_on_a_coarser_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_tracking, "MAX_CELLS", 64)
    following = tracker()
    first = frame((1, 2, 2, 6))
    following.prompt(first, {1: click(3, 3)}, size=SIZE)
    assert following._references[0].features.shape[0] == 64
    moved = frame((1, 4, 4, 6))
    assert torch.equal(following.propagate(moved)[0] > 0, cells(moved, 1))


def test_faults_are_named() -> None:
    following = tracker()
    with pytest.raises(ValueError, match="call prompt first"):
        following.propagate(frame())
    with pytest.raises(ValueError, match="at least one object"):
        following.prompt(frame(), {}, size=SIZE)
    following.prompt(frame((1, 2, 2, 4)), {1: click(3, 3)}, size=SIZE)
    wider = OmgSegEncoderOutput(mask_features=torch.zeros(1, 6, 1, SIDE, SIDE + 1))
    with pytest.raises(ValueError, match="same size"):
        following.propagate(wider)


def test_objects_of_a_model_do_not_depend_on_each_other() -> None:
    """Tracked together or alone: the same logits, as long as their masks do not meet."""
    model = random_model(point_refinement=True, prompt_queries=True)
    with torch.inference_mode():
        frames = [model.encode(random_pixels(1, 3, 64, 96, seed=seed)) for seed in range(3)]
    squares = {}
    for object_id, column in ((1, 8), (2, 64)):
        region = np.zeros((64, 96), dtype=bool)
        region[16:40, column : column + 24] = True
        squares[object_id] = ObjectPrompt(region=region)
    together, alone = ObjectTracker(model), ObjectTracker(model)
    together.prompt(frames[0], squares, size=(64, 96))
    alone.prompt(frames[0], {1: squares[1]}, size=(64, 96))
    both, one = together.propagate(frames[1]), alone.propagate(frames[1])
    assert both.shape == (2, 16, 24)
    torch.testing.assert_close(both[0], one[0], atol=0.01, rtol=0)
    assert together.propagate(frames[2]).isfinite().all()
