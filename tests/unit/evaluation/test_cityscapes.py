"""Cityscapes' rules on tiny maps; the official numbers are in tests/parity."""

import math

import numpy as np
import pytest

from omgvision.evaluation.cityscapes_instances import CityscapesInstances
from omgvision.evaluation.cityscapes_labels import CITYSCAPES_LABELS, label_of
from omgvision.evaluation.cityscapes_semantic import AVERAGE_SIZES, CityscapesSemantic

ROAD, SIDEWALK, PARKING, PERSON, RIDER, CAR, CARAVAN = 7, 8, 9, 24, 25, 26, 29


def test_labels():
    assert [label.train_id for label in CITYSCAPES_LABELS if label.evaluated] == list(range(19))
    assert [label.id for label in CITYSCAPES_LABELS] == list(range(34))
    car = label_of(26002)
    assert (car.name, car.category, car.is_thing, car.color) == ("car", "vehicle", True, (0, 0, 142))
    assert label_of(7).name == "road"
    with pytest.raises(ValueError, match="got 34000"):
        label_of(34000)


def semantic(prediction, target, instances=None) -> CityscapesSemantic:
    metric = CityscapesSemantic()
    metric.update(
        "a", np.array([prediction]), np.array([target]), np.array([target if instances is None else instances])
    )
    return metric


def test_ground_truth_that_is_not_evaluated_hurts_nobody():
    numbers = semantic([ROAD, ROAD, SIDEWALK, ROAD], [ROAD, PARKING, SIDEWALK, SIDEWALK]).per_class()
    assert numbers["IoU/road"] == 1 / 2
    assert numbers["IoU/sidewalk"] == 1 / 2
    assert numbers["IoU_categories/flat"] == 1
    assert math.isnan(numbers["IoU/car"])
    assert "IoU/parking" not in numbers


def test_objects_weigh_the_same_whatever_their_size():
    numbers = semantic(
        [CAR, CAR, CAR, ROAD], [CAR, CAR, CAR, CAR], [CAR * 1000, CAR * 1000, CAR * 1000, CAR * 1000 + 1]
    ).per_class()
    assert numbers["iIoU/car"] == 1 / 2
    assert numbers["IoU/car"] == 3 / 4
    surplus = semantic([CAR, CAR], [CAR, ROAD], [CAR * 1000, ROAD]).per_class()
    assert surplus["iIoU/car"] == AVERAGE_SIZES["car"] / (AVERAGE_SIZES["car"] + 1)


def test_a_category_accepts_all_its_labels():
    numbers = semantic([RIDER, CARAVAN], [PERSON, CAR], [PERSON * 1000, CAR * 1000]).per_class()
    assert numbers["iIoU/person"] == 0
    assert numbers["iIoU_categories/human"] == 1
    assert numbers["iIoU_categories/vehicle"] == 1
    assert numbers["IoU_categories/vehicle"] == 0  # officially caravan is no vehicle here


def test_train_ids_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"prediction: expected ids 0 to 33 \(no train ids\), got 255"):
        semantic([255], [ROAD])
    with pytest.raises(ValueError, match="expected the size of the target"):
        semantic([ROAD, ROAD], [ROAD])


def mask(start: int, stop: int) -> np.ndarray:
    values = np.zeros(1000, dtype=bool)
    values[start:stop] = True
    return values.reshape(20, 50)


def instances(*regions: tuple[int, int, int]) -> np.ndarray:
    values = np.full((20, 50), ROAD, dtype=np.int32)
    for identity, start, stop in regions:
        values[mask(start, stop)] = identity
    return values


def judge(truth: np.ndarray, *predictions: tuple[int, float, np.ndarray]) -> CityscapesInstances:
    metric = CityscapesInstances()
    metric.update("a", truth, predictions)
    return metric


def test_average_precision_is_found_by_hand():
    truth = instances((26000, 0, 200), (26001, 200, 400))
    right = (CAR, 0.5, mask(0, 200))
    assert judge(truth, right, (CAR, 0.4, mask(200, 400))).compute() == {"AP": 1.0, "AP50": 1.0}
    # Points (recall, precision) (1/2, 1) and (1, 0) artificial: each counts half of the way to its neighbours.
    assert judge(truth, right).per_class()["car"][0] == pytest.approx((0.5 - 0) / 2 + (0.5 - 0) / 2)
    assert judge(truth).compute() == {"AP": 0.0, "AP50": 0.0}
    assert math.isnan(judge(instances(), right).compute()["AP"])


def test_of_two_on_one_object_the_less_sure_is_surplus():
    truth = instances((26000, 0, 200))
    both = judge(truth, (CAR, 0.5, mask(0, 200)), (CAR, 0.9, mask(0, 190))).per_class()["car"]
    assert both[0] == 1.0  # the surplus one comes after full recall
    other = judge(truth, (CAR, 0.9, mask(400, 600)), (CAR, 0.5, mask(0, 200))).per_class()["car"]
    assert other[0] < 1


@pytest.mark.parametrize(
    "region",
    [
        pytest.param((26, 400, 600), id="group"),
        pytest.param((4, 400, 600), id="void"),
        pytest.param((26001, 400, 450), id="small object"),
    ],
)
def test_what_does_not_count_forgives(region):
    truth = instances((26000, 0, 200), region)
    ap = judge(truth, (CAR, 0.9, mask(400, min(region[2], 599))), (CAR, 0.5, mask(0, 200))).per_class()["car"]
    assert ap[0] == 1.0


def test_other_classes_and_empty_masks_are_left_out():
    truth = instances((26000, 0, 200))
    metric = judge(truth, (ROAD, 0.9, mask(0, 200)), (CAR, 0.9, mask(0, 0)), (CARAVAN, 0.9, mask(0, 9)))
    assert metric.compute()["AP"] == 0


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        ((CAR, math.nan, mask(0, 9)), "confidence: expected a number, got nan for car"),
        ((255, 0.5, mask(0, 9)), "label: expected an id 0 to 33"),
        ((CAR, 0.5, np.ones((2, 2), bool)), "mask: expected the size of the ground truth"),
    ],
)
def test_bad_predictions_are_named(prediction, message: str):
    with pytest.raises(ValueError, match=message):
        judge(instances(), prediction)


def random_semantic(names: str) -> CityscapesSemantic:
    metric = CityscapesSemantic()
    for name in names:
        target, prediction = np.random.default_rng(ord(name)).integers(PERSON, PERSON + 5, (2, 30, 30))
        metric.update(name, prediction, target, target * 1000 + prediction % 3)
    return metric


def random_instances(names: str) -> CityscapesInstances:
    metric = CityscapesInstances()
    for name in names:
        generator = np.random.default_rng(ord(name))
        starts = generator.integers(0, 600, 5).tolist()
        truth = instances(*[(26000 + index, start, start + 200) for index, start in enumerate(starts)])
        scores = generator.integers(1, 4, 5) / 4
        metric.update(
            name, truth, [(CAR, score, mask(start, start + 190)) for start, score in zip(starts, scores, strict=True)]
        )
    return metric


@pytest.mark.parametrize("make", [random_semantic, random_instances])
def test_shares_of_processes_and_any_order_are_the_same_to_the_bit(make):
    whole = make("abcdef").compute()
    assert str(make("fbcdea").compute()) == str(whole)
    merged = make("da")
    for share in ("ec", "b", "fd"):
        merged.merge(make(share))
    assert str(merged.compute()) == str(whole)
