"""Referring segmentation: sentences with and without a target, ignored pixels, shares of processes."""

import math

import numpy as np
import pytest

from omgvision.evaluation.referring import Protocol, ReferringIoU


def columns(first: int, last: int) -> np.ndarray:
    """Ten columns of one row, true from `first` to before `last`."""
    mask = np.zeros((1, 10), dtype=bool)
    mask[:, first:last] = True
    return mask


EMPTY = columns(0, 0)


def test_means_and_ratios():
    metric = ReferringIoU()
    metric.update("half", columns(0, 4), columns(0, 8))
    metric.update("all", columns(0, 2), columns(0, 2))
    numbers = metric.compute()
    assert numbers["gIoU"] == pytest.approx(0.75, abs=1e-5)
    assert numbers["cIoU"] == pytest.approx(6 / 10, abs=1e-9)
    assert [numbers[f"Pr@{name}"] for name in ("0.5", "0.6", "0.9")] == [1, 0.5, 0.5]
    assert "N-acc" not in numbers


def test_two_empty_masks_agree_in_lisa():
    metric = ReferringIoU()
    metric.update("a", EMPTY, EMPTY)
    metric.update("b", columns(0, 5), EMPTY)
    numbers = metric.compute()
    assert numbers["gIoU"] == pytest.approx(0.5, abs=1e-5)
    assert numbers["cIoU"] == 0


def test_sentences_without_target_in_gres():
    metric = ReferringIoU("gres")
    metric.update("recognised", EMPTY, EMPTY)
    metric.update("invented", columns(0, 5), EMPTY)
    metric.update("denied", columns(0, 5), columns(0, 5), predicted_no_target=True)
    metric.update("found", columns(0, 4), columns(0, 5))
    numbers = metric.compute()
    assert numbers["gIoU"] == pytest.approx((1 + 0 + 0 + 0.8) / 4)
    assert numbers["cIoU"] == pytest.approx(4 / (0 + 5 + 5 + 5))
    assert (numbers["N-acc"], numbers["T-acc"]) == (0.5, 0.5)
    assert numbers["Pr@0.8"] == 0.5  # of the two with a target


def test_a_mask_does_not_count_when_the_model_says_no_target():
    metric = ReferringIoU("gres")
    metric.update("a", columns(0, 5), EMPTY, no_target=True, predicted_no_target=True)
    assert metric.compute()["gIoU"] == 1
    assert math.isnan(metric.compute()["cIoU"])


def test_accuracies_are_zero_if_every_sentence_has_a_target():
    metric = ReferringIoU("gres")
    metric.update("a", columns(0, 5), columns(0, 5))
    numbers = metric.compute()
    assert (numbers["gIoU"], numbers["N-acc"], numbers["T-acc"]) == (1, 0, 0)


def test_ignored_pixels_count_for_nothing():
    metric = ReferringIoU()
    metric.update("a", columns(0, 8), columns(0, 4), ignore=columns(4, 6))
    assert metric.compute()["cIoU"] == pytest.approx(4 / 6)


@pytest.mark.parametrize("protocol", ["lisa", "gres"])
def test_shares_repeats_and_any_order(protocol: Protocol):
    generator = np.random.default_rng(0)
    masks = {f"{number}": generator.random((2, 6, 7)) > generator.random() for number in range(20)}

    def score(names: list[str]) -> ReferringIoU:
        metric = ReferringIoU(protocol)
        for name in names:
            metric.update(name, *masks[name], source=str(int(name) % 2))
        return metric

    everything = list(masks)
    left = score(everything[::-1][:12])
    left.merge(score(everything[:12]))
    left.update("3", ~masks["3"][1], masks["3"][1])
    assert left.compute() == score(everything).compute()
    assert left.per_source() == score(everything).per_source()


def test_nothing_and_another_size():
    for protocol in ("lisa", "gres"):
        assert all(map(math.isnan, ReferringIoU(protocol).compute().values()))
    with pytest.raises(ValueError, match=r"prediction: expected the target's size \(1, 10\), got \(2, 10\) \(a\)"):
        ReferringIoU().update("a", np.zeros((2, 10), dtype=bool), EMPTY)
    with pytest.raises(ValueError, match="ignore: expected the target's size"):
        ReferringIoU().update("a", EMPTY, EMPTY, ignore=np.zeros((2, 10), dtype=bool))


def test_no_mask_at_all():
    """OMG-LLaVA's evaluation: 0 in gIoU, nothing in cIoU; in gRefCOCO it says that nothing is meant."""
    target, half = np.ones((2, 4), dtype=bool), np.zeros((2, 4), dtype=bool)
    half[0] = True
    expected: dict[Protocol, float] = {"lisa": 0.5, "gres": 0.25}
    for protocol, ciou in expected.items():
        metric = ReferringIoU(protocol)
        metric.update("a", half, target)
        metric.update("b", None, target)
        numbers = metric.compute()
        assert (numbers["gIoU"], numbers["cIoU"]) == (pytest.approx(0.25, abs=1e-5), pytest.approx(ciou))
        assert metric.count_missed() == 1
    metric = ReferringIoU("gres")
    metric.update("a", None, ~target)
    assert metric.compute()["N-acc"] == metric.compute()["gIoU"] == 1
