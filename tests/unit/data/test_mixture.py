"""Which samples a step takes: the same ones however the step is reached or divided, each once an epoch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omgvision.data import (
    Augmentation,
    Batch,
    ClipSource,
    FrameSampling,
    InMemory,
    Mixture,
    PromptSampling,
    PseudoClips,
    Sample,
    Source,
    Subset,
    SyntheticScenes,
)
from omgvision.data.sample import Clip, layers_from_masks, portrait_of

PLAIN = Augmentation(scale=(1.0, 1.0), aspect=1.0, antialias=False, flip_probability=0.0, colour_probability=0.0)


class Numbered:
    """Grey pictures whose brightness is their number; some cannot be read."""

    def __init__(
        self,
        length: int,
        *,
        portrait: Sequence[bool] | None = None,
        bad: Sequence[int] = (),
        error: type[Exception] = ValueError,
    ) -> None:
        self._length, self.portrait, self._bad, self._error = length, portrait, set(bad), error

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Sample:
        if index in self._bad:
            raise self._error(f"cannot read {index}.jpg")
        size = (48, 32) if self.portrait is not None and self.portrait[index] else (32, 48)
        return Sample(
            image=torch.full((3, *size), index, dtype=torch.uint8),
            segment_layers=layers_from_masks([np.ones(size, dtype=bool)], *size),
            labels=torch.tensor([0]),
            names=("a",),
            things=(True,),
            sample_id=str(index),
            dataset="numbered",
        )


def small_mixture(*, seed: int = 0, augmentation: Augmentation = PLAIN) -> Mixture:
    return Mixture(
        [
            Source(
                SyntheticScenes(seed=1, size=(32, 32), length=7, name="seven"), weight=3.0, augmentation=augmentation
            ),
            Source(
                SyntheticScenes(seed=2, size=(32, 48), length=5, name="five"), weight=1.0, augmentation=augmentation
            ),
        ],
        seed=seed,
    )


def assert_equal(first: Batch, second: Batch) -> None:
    assert first.sample_ids == second.sample_ids
    assert first.dataset == second.dataset
    assert torch.equal(first.pixel_values, second.pixel_values)
    assert all(torch.equal(a, b) for a, b in zip(first.mask_labels, second.mask_labels, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.class_labels, second.class_labels, strict=True))


def joined(batches: Sequence[Batch]) -> Batch:
    """Parts of a step as one batch."""
    return replace(
        batches[0],
        pixel_values=torch.cat([batch.pixel_values for batch in batches]),
        mask_labels=[masks for batch in batches for masks in batch.mask_labels],
        class_labels=[labels for batch in batches for labels in batch.class_labels],
        sample_ids=tuple(name for batch in batches for name in batch.sample_ids),
    )


def test_steps_are_the_same_in_any_order() -> None:
    forwards, backwards = small_mixture(), small_mixture()
    indices = [(forwards.source_of(step), forwards.indices(step, batch_size=2)) for step in range(60)]
    again = [(backwards.source_of(step), backwards.indices(step, batch_size=2)) for step in reversed(range(60))]
    assert indices == again[::-1]
    other = small_mixture(seed=1)
    assert indices != [(other.source_of(step), other.indices(step, batch_size=2)) for step in range(60)]
    assert small_mixture().indices(5000, batch_size=2) == small_mixture().indices(5000, batch_size=2)


def test_weights_are_shares_of_the_steps_at_any_time() -> None:
    mixture = Mixture([Source(Numbered(3), weight=weight) for weight in (0.5, 3.0, 0.02, 6.48)])
    drawn = np.array([mixture.source_of(step) for step in range(5000)])
    for stop in (100, 1024, 1500, 5000):
        counts = np.bincount(drawn[:stop], minlength=4)
        assert np.abs(counts - stop * np.array([0.05, 0.3, 0.002, 0.648])).max() < 4


def test_repeats_are_passes_an_epoch() -> None:
    mixture = Mixture([Source(Numbered(40)), Source(Numbered(3), repeat=30), Source(Numbered(10), repeat=0.5)])
    assert mixture.samples_per_epoch == 40 + 90 + 5
    taken: Counter[tuple[int, int]] = Counter()
    for step in range(135 * 4):
        taken[mixture.source_of(step), mixture.indices(step, batch_size=1)[0]] += 1
    assert all(3 <= taken[0, index] <= 5 for index in range(40))
    assert all(118 <= taken[1, index] <= 122 for index in range(3))
    assert all(1 <= taken[2, index] <= 3 for index in range(10))
    weighted = Mixture([Source(Numbered(4), weight=0.9), Source(Numbered(6), weight=0.1)])
    assert weighted.samples_per_epoch == 10


@settings(deadline=None, max_examples=60)
@given(
    portrait=st.lists(st.booleans(), min_size=1, max_size=23),
    grouped=st.booleans(),
    batch_size=st.integers(1, 5),
    parts=st.integers(1, 4),
    seed=st.integers(0, 3),
)
def test_parts_of_an_epoch_are_every_sample_once(
    portrait: list[bool], grouped: bool, batch_size: int, parts: int, seed: int
) -> None:
    """The stream of one dataset, cut into epochs (of each orientation), holds each sample once, whoever reads it."""
    dataset = Numbered(len(portrait), portrait=portrait if grouped else None)
    mixture = Mixture([Source(dataset), Source(Numbered(9))], seed=seed)
    streams: dict[bool, list[int]] = {False: [], True: []}
    steps = [step for step in range(150) if mixture.source_of(step) == 0][:40]
    for step in steps:
        shares = [mixture.indices(step, batch_size=batch_size, part=part, parts=parts) for part in range(parts)]
        whole = [index for share in shares for index in share]
        assert whole == mixture.indices(step, batch_size=batch_size * parts), "no overlap, no loss, the same order"
        orientations = {portrait[index] for index in whole} if grouped else {False}
        assert len(orientations) == 1, "a step has one orientation"
        streams[orientations.pop()] += whole
    for orientation, stream in streams.items():
        group = [index for index, flag in enumerate(portrait) if not grouped or flag == orientation]
        for start in range(0, len(stream) - len(group) + 1, max(len(group), 1)):
            assert sorted(stream[start : start + len(group)]) == group
    if grouped:
        due = len(steps) * batch_size * parts * np.mean(portrait)
        assert abs(len(streams[True]) - due) <= batch_size * parts, "each orientation has its share"


@pytest.mark.parametrize("clips", [False, True])
@pytest.mark.parametrize(("batch_size", "parts"), [(1, 4), (2, 2)])
def test_parts_are_the_same_samples_with_the_same_augmentation(clips: bool, batch_size: int, parts: int) -> None:
    scenes = SyntheticScenes(seed=1, size=(48, 64), length=7)
    if clips:
        mixture = Mixture([ClipSource(PseudoClips(scenes), augmentation=Augmentation(crops="independent"))], seed=3)
    else:
        mixture = Mixture([Source(scenes, augmentation=Augmentation(donors=scenes))], seed=3)
    for step in range(3):
        pieces = [
            mixture.batch(step, size=(32, 64), batch_size=batch_size, part=part, parts=parts)
            for part in reversed(range(parts))
        ]
        assert_equal(joined(pieces[::-1]), mixture.batch(step, size=(32, 64), batch_size=4))
    assert mixture.batch(0, size=(32, 64), batch_size=4).pixel_values.shape == ((4, 2, 3) if clips else (4, 3)) + (
        32,
        64,
    )


def test_canvas_is_turned_for_portraits() -> None:
    mixture = Mixture([Source(Numbered(9, portrait=[index % 3 == 0 for index in range(9)]), augmentation=PLAIN)])
    shapes = Counter()
    for step in range(9):
        batch = mixture.batch(step, size=(64, 96), batch_size=2)
        assert all((int(name) % 3 == 0) == (batch.pixel_values.shape[2] == 96) for name in batch.sample_ids)
        assert bool(torch.cat(batch.mask_labels).all()), "the picture fills its canvas"
        shapes[tuple(batch.pixel_values.shape[2:])] += 1
    assert shapes == {(64, 96): 6, (96, 64): 3}
    upright = [mixture.batch(step, size=(96, 64), batch_size=2).pixel_values for step in range(3)]
    assert torch.equal(upright[0], mixture.batch(0, size=(64, 96), batch_size=2).pixel_values)


@pytest.mark.parametrize("error", [ValueError, OSError])
def test_bad_samples_are_replaced_and_reported(error: type[Exception]) -> None:
    portrait = [index >= 12 for index in range(20)]
    dataset = Numbered(20, portrait=portrait, bad=[3, 15], error=error)
    mixture = Mixture([Source(dataset, augmentation=PLAIN)])
    skipped: list[str] = []
    for step in range(10):
        indices = mixture.indices(step, batch_size=2)
        batch = mixture.batch(step, size=(32, 64), batch_size=2)
        assert_equal(batch, mixture.batch(step, size=(32, 64), batch_size=2))
        assert len({portrait[int(name)] for name in batch.sample_ids}) == 1
        for index, name in zip(indices, batch.sample_ids, strict=True):
            assert name not in ("3", "15")
            assert index in (3, 15) or name == str(index)
        assert len(batch.skipped) >= sum(index in (3, 15) for index in indices)
        skipped += batch.skipped
    assert "numbered: sample 3: cannot read 3.jpg" in skipped
    assert "numbered: sample 15: cannot read 15.jpg" in skipped


def test_contents_are_told_without_samples_that_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    sources = [Source(Numbered(4, bad=[0, 1]), augmentation=PLAIN), Source(Numbered(4), augmentation=PLAIN)]
    assert Mixture(sources).contents() == [("numbered", 4, 0.5), ("numbered", 4, 0.5)]
    assert caplog.messages == [f"left out: numbered: sample {number}: cannot read {number}.jpg" for number in (0, 1)]
    with pytest.raises(ValueError, match=r"sample 0 of dataset 0 of the mixture: cannot read 0\.jpg"):
        Mixture(sources, strict=True).contents()
    with pytest.raises(ValueError, match="4 samples in a row cannot be read; sample 3"):
        Mixture([Source(Numbered(4, bad=range(4)))]).contents()


def test_strict_mixture_and_broken_dataset_stop() -> None:
    strict = Mixture([Source(Numbered(1, bad=[0]))], strict=True)
    with pytest.raises(ValueError, match=r"sample 0 of dataset 0 of the mixture: cannot read 0\.jpg"):
        strict.batch(0, size=(32, 32), batch_size=1)
    broken = Mixture([Source(Numbered(4, bad=range(4)))])
    with pytest.raises(ValueError, match="20 samples in a row cannot be read; sample"):
        broken.batch(0, size=(32, 32), batch_size=1)
    faulty = Mixture([Source(Numbered(1, bad=[0], error=KeyError))])
    with pytest.raises(KeyError):
        faulty.batch(0, size=(32, 32), batch_size=1)


def test_step_is_of_one_kind() -> None:
    scenes = SyntheticScenes(seed=1, size=(48, 64), length=7)
    mixture = Mixture(
        [
            Source(scenes),
            ClipSource(PseudoClips(scenes, frames=3)),
            Source(scenes, prompts=PromptSampling(points=5, boxes=2)),
        ]
    )
    kinds = set()
    for step in range(12):
        batch = mixture.batch(step, size=(32, 64), batch_size=2)
        kinds.add((batch.pixel_values.dim(), batch.prompts is not None))
        assert (batch.pixel_values.dim(), batch.prompts is not None) == {
            0: (4, False),
            1: (5, False),
            2: (4, True),
        }[mixture.source_of(step)]
    assert len(kinds) == 3


def test_prompts_do_not_depend_on_the_parts() -> None:
    scenes = SyntheticScenes(seed=1, size=(48, 64), length=7)
    mixture = Mixture([Source(scenes, prompts=PromptSampling(points=4, boxes=3))], seed=5)
    whole = mixture.batch(2, size=(32, 64), batch_size=2).prompts
    assert whole is not None and whole.points is not None and whole.boxes is not None
    for part in range(2):
        piece = mixture.batch(2, size=(32, 64), batch_size=1, part=part, parts=2).prompts
        assert piece is not None and piece.points is not None and piece.boxes is not None
        assert torch.equal(piece.points[0], whole.points[part])
        assert torch.equal(piece.boxes[0], whole.boxes[part])
        assert torch.equal(piece.mask_labels[0], whole.mask_labels[part])
    assert not torch.equal(whole.points[0], whole.points[1])


def test_clips_draw_their_frames_by_step() -> None:
    class Video:
        def __len__(self) -> int:
            return 1

        def clip(self, index: int, generator: np.random.Generator, /) -> Clip:
            frames = FrameSampling().draw(50, generator)
            return Clip(tuple(replace(Numbered(99)[frame], sample_id="video") for frame in frames))

    mixture = Mixture([ClipSource(Video(), augmentation=PLAIN)])
    starts = {float(mixture.batch(step, size=(32, 64), batch_size=1).pixel_values[0, 0].min()) for step in range(12)}
    assert len(starts) > 6
    assert_equal(*(mixture.batch(3, size=(32, 64), batch_size=2) for _ in range(2)))


def test_in_memory_reads_once() -> None:
    calls: list[int] = []

    class Counting(SyntheticScenes):
        def __getitem__(self, index: int) -> Sample:
            calls.append(index)
            return super().__getitem__(index)

    dataset = InMemory(Counting(size=(32, 32), length=3))
    assert torch.equal(dataset[1].image, dataset[1].image)
    assert (calls, len(dataset)) == ([1], 3)


def test_subset_keeps_order_and_orientation() -> None:
    subset = Subset(Numbered(4, portrait=[True, False, False, True]), [2, 0])
    assert (len(subset), [subset[place].sample_id for place in range(2)]) == (2, ["2", "0"])
    assert portrait_of(subset) == [False, True]
    assert portrait_of(Subset(Numbered(4), [2])) is None


def test_arguments_are_checked() -> None:
    scenes = Numbered(1)
    with pytest.raises(ValueError, match="at least one"):
        Mixture([])
    with pytest.raises(ValueError, match="weight of dataset 0"):
        Mixture([Source(scenes, weight=0.0)])
    with pytest.raises(ValueError, match="repeat of dataset 1"):
        Mixture([Source(scenes), Source(scenes, repeat=-1)])
    with pytest.raises(ValueError, match="for all of them"):
        Mixture([Source(scenes, weight=1.0), Source(scenes)])
    with pytest.raises(ValueError, match="without repeats"):
        Mixture([Source(scenes, weight=1.0, repeat=2)])
    with pytest.raises(ValueError, match="empty"):
        Mixture([Source(Numbered(0))])
    with pytest.raises(ValueError, match="part < parts"):
        Mixture([Source(scenes)]).batch(0, size=(32, 32), batch_size=1, part=2, parts=2)
