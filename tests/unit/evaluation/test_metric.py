"""Records by sample id: repeats, order and shares of several processes."""

import itertools
from collections.abc import Sequence
from functools import partial

import pytest

from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.scores import gather as gathering
from omgvision.evaluation.scores.gather import gather


class Total(PerSample[float]):
    def compute(self) -> dict[str, float]:
        return {"total": sum(self.ordered(), 0.0)}


VALUES = {"a": 1e16, "b": 1.0, "c": -1e16, "d": 0.1}
"""The sum depends on the order of its terms."""


def total(names: Sequence[str]) -> Total:
    metric = Total()
    for name in names:
        metric.add(name, VALUES[name])
    return metric


def test_any_order_gives_the_same_number():
    assert len({total(names).compute()["total"] for names in itertools.permutations(VALUES)}) == 1


def test_a_repeated_sample_counts_once():
    metric = total("ab")
    metric.add("a", 5.0)
    assert metric.compute() == total("ab").compute()


def test_merged_shares_equal_one_process():
    left, right = total("cb"), total("dab")
    left.merge(right)
    assert left.compute() == total("abcd").compute()


def add_length(metric: Total, item: str, *, unit: float = 1.0) -> None:
    if item.startswith("bad"):
        raise ValueError(f"{item}: expected a good one")
    metric.add(item, unit * len(item))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_gather(monkeypatch: pytest.MonkeyPatch, workers: int):
    monkeypatch.setattr(gathering, "ITEMS_A_PROCESS", 2)
    metric = Total()
    gather(metric, partial(add_length, unit=0.1), ["x" * count for count in range(1, 9)], workers=workers, title="x")
    assert metric.ordered() == [0.1 * count for count in range(1, 9)]
    with pytest.raises(ValueError, match="bad one: expected a good one"):
        gather(metric, add_length, ["a", "bad one", "b", "c"], workers=workers, title="x")
