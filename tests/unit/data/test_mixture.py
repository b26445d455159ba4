"""Batches: the canvas, and that step n is the same batch however it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from omgvision.data import Augmentation, Batch, InMemory, Mixture, Sample, Source, SyntheticScenes, batches, collate


def untouched(sample: Sample, generator: np.random.Generator) -> Sample:
    return sample


def small_mixture(seed: int = 0, transform: Callable[[Sample, np.random.Generator], Sample] = untouched) -> Mixture:
    return Mixture(
        [
            Source(SyntheticScenes(seed=1, size=(32, 32), length=7, name="seven"), 3.0, transform),
            Source(SyntheticScenes(seed=2, size=(32, 48), length=5, name="five"), 1.0, transform),
        ],
        batch_size=2,
        seed=seed,
    )


def assert_equal(first: Batch, second: Batch) -> None:
    assert first.sample_ids == second.sample_ids
    assert first.dataset == second.dataset
    assert torch.equal(first.pixel_values, second.pixel_values)
    assert all(torch.equal(a, b) for a, b in zip(first.mask_labels, second.mask_labels, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first.class_labels, second.class_labels, strict=True))


def test_collate_pads_right_and_bottom() -> None:
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


def test_collate_takes_one_vocabulary() -> None:
    sample = SyntheticScenes(length=1)[0]
    with pytest.raises(ValueError, match="one vocabulary"):
        collate([sample, replace(sample, names=("a",), dataset="b")])
    with pytest.raises(ValueError, match="at least one"):
        collate([])


def test_steps_are_the_same_in_any_order() -> None:
    forwards, backwards = small_mixture(), small_mixture()
    indices = [(forwards.source_of(step), forwards.indices(step)) for step in range(60)]
    assert indices == [(backwards.source_of(step), backwards.indices(step)) for step in reversed(range(60))][::-1]
    assert indices[:20] != [(small_mixture(seed=1).source_of(step), []) for step in range(20)]


def test_far_step_is_reached_across_blocks() -> None:
    assert small_mixture().indices(5000) == small_mixture().indices(5000)


def test_every_sample_once_an_epoch() -> None:
    mixture = small_mixture()
    taken: dict[int, list[int]] = {0: [], 1: []}
    for step in range(80):
        taken[mixture.source_of(step)] += mixture.indices(step)
    for number, length in ((0, 7), (1, 5)):
        epochs = [taken[number][start : start + length] for start in range(0, len(taken[number]), length)]
        assert all(sorted(epoch) == list(range(length)) for epoch in epochs[:-1])
        assert len({tuple(epoch) for epoch in epochs[:-1]}) > 1


def test_weights_are_shares_of_the_steps() -> None:
    mixture = small_mixture()
    counts = Counter(mixture.source_of(step) for step in range(4000))
    assert counts[0] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("workers", [0, 1])
def test_resumed_run_goes_on_with_the_same_batches(workers: int) -> None:
    augmentation = Augmentation(size=(32, 32), donors=SyntheticScenes(seed=1, size=(32, 32), length=7))
    whole = list(batches(small_mixture(transform=augmentation), start=0, stop=8))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    rest = list(batches(small_mixture(transform=augmentation), start=5, stop=8, workers=workers))
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert len(rest) == 3
    for resumed, original in zip(rest, whole[5:], strict=True):
        assert_equal(resumed, original)


def test_batch_is_of_one_dataset() -> None:
    mixture = small_mixture()
    for step in range(10):
        assert len({sample.dataset for sample in mixture.batch_samples(step)}) == 1


def test_in_memory_reads_once() -> None:
    calls: list[int] = []

    class Counting(SyntheticScenes):
        def __getitem__(self, index: int) -> Sample:
            calls.append(index)
            return super().__getitem__(index)

    dataset = InMemory(Counting(size=(32, 32), length=3))
    assert torch.equal(dataset[1].image, dataset[1].image)
    assert (calls, len(dataset)) == ([1], 3)


def test_arguments_are_checked() -> None:
    scenes = SyntheticScenes(length=1)
    with pytest.raises(ValueError, match="at least one"):
        Mixture([], batch_size=1)
    with pytest.raises(ValueError, match="weight"):
        Mixture([Source(scenes, 0.0, untouched)], batch_size=1)
    with pytest.raises(ValueError, match="empty"):
        Mixture([Source(SyntheticScenes(length=0), 1.0, untouched)], batch_size=1)
    with pytest.raises(ValueError, match="batch_size"):
        Mixture([Source(scenes, 1.0, untouched)], batch_size=0)
