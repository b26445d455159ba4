"""Image metrics equal to the official tools' recorded numbers, through `omg score` and through the classes."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from omg_cli.main import run
from omgvision.evaluation.average_precision import NAMES, AveragePrecision
from omgvision.evaluation.cityscapes_instances import CityscapesInstances
from omgvision.evaluation.cityscapes_semantic import CityscapesSemantic
from omgvision.evaluation.class_agnostic import PromptedIoU
from omgvision.evaluation.click_iou import ClickIoU, mask_iou, next_click
from omgvision.evaluation.panoptic_conversions import convert_cityscapes
from omgvision.evaluation.panoptic_files import read_ids
from omgvision.evaluation.panoptic_quality import PanopticQuality, SegmentLabel
from omgvision.evaluation.scores import gather as gathering
from omgvision.evaluation.scores.panoptic_quality import score as score_panoptic
from tests import golden
from tests.golden import metrics

EXACT = 1e-9


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def omg_score(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: object) -> dict[str, float | None]:
    """All numbers of the report, after a look at what was printed."""
    report = tmp_path / "report.json"
    assert run(["score", *map(str, words), "--out", str(report)]) == 0, capsys.readouterr().err
    numbers = read(report)
    headline = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert headline == {name: value for name, value in numbers.items() if "/" not in name}
    return numbers


def close(value: float | None, expected: float | None, *, tolerance: float = EXACT) -> bool:
    return value is expected is None or value == pytest.approx(expected, abs=tolerance)


def check_quality(numbers: dict[str, Any], expected: dict[str, Any], *, names: dict[int, str]) -> None:
    for kind, suffix in (("All", ""), ("Things", "_things"), ("Stuff", "_stuff")):
        for name in ("pq", "sq", "rq"):
            assert close(numbers[f"{name.upper()}{suffix}"], expected[kind][name]), (kind, name)
    for category, row in expected.get("per_class", {}).items():
        for name, value in row.items():
            assert close(numbers[f"{name.upper()}/{names[int(category)]}"], value), (category, name)


@pytest.mark.parametrize(("prediction", "key"), [("panoptic_pred", "pred"), ("panoptic_gt", "gt_vs_gt")])
def test_coco_panoptic(capsys, tmp_path: Path, prediction: str, key: str):
    folder = metrics("coco_panoptic")
    truth, guess = folder / "panoptic_gt.json", folder / f"{prediction}.json"
    numbers = omg_score(capsys, tmp_path, "coco-panoptic", "--gt", truth, "--pred", guess)
    check_quality(numbers, read(folder / "expected.json")[key], names=names_of(truth))


def names_of(truth: Path) -> dict[int, str]:
    return {entry["id"]: entry["name"] for entry in read(truth)["categories"]}


def panoptic_quality(truth: Path, prediction: Path) -> dict[str, float]:
    """What the class says of two jsons, image by image, in two shares and from the last to the first."""
    true, guesses = read(truth), {entry["image_id"]: entry for entry in read(prediction)["annotations"]}
    shares = [PanopticQuality({entry["id"]: bool(entry["isthing"]) for entry in true["categories"]}) for _ in range(2)]
    for index, entry in enumerate(reversed(true["annotations"])):
        sides = []
        for path, described in ((prediction, guesses[entry["image_id"]]), (truth, entry)):
            labels = {
                one["id"]: SegmentLabel(one["category_id"], bool(one.get("iscrowd", 0)))
                for one in described["segments_info"]
            }
            sides += [read_ids(path.with_suffix("") / described["file_name"]), labels]
        shares[index % 2].update(str(entry["image_id"]), *sides)
    shares[0].merge(shares[1])
    numbers, names = shares[0].compute(), names_of(truth)
    for category, qualities in shares[0].per_category().items():
        numbers |= {
            f"{name}/{names[category]}": value for name, value in zip(("PQ", "SQ", "RQ"), qualities, strict=True)
        }
    return numbers


def test_panoptic_quality_of_coco():
    folder = metrics("coco_panoptic")
    truth = folder / "panoptic_gt.json"
    numbers = panoptic_quality(truth, folder / "panoptic_pred.json")
    check_quality(numbers, read(folder / "expected.json")["pred"], names=names_of(truth))


@pytest.mark.slow
def test_coco_panoptic_in_several_processes(monkeypatch: pytest.MonkeyPatch):
    folder = metrics("coco_panoptic")
    paths = folder / "panoptic_gt.json", folder / "panoptic_pred.json"
    alone = score_panoptic(*paths)
    monkeypatch.setattr(gathering, "ITEMS_A_PROCESS", 25)
    assert score_panoptic(*paths, workers=4) == alone


def test_panoptic_quality_of_omg_seg():
    """panopticapi, run by the original on two images, one with a crowd."""
    expected, tensors = golden.read_json("metrics"), golden.arrays("metrics_inputs")
    metric = PanopticQuality({category: category < 5 for category in range(9)})
    for name in ("img0", "img1"):
        labels = [
            {
                entry["id"]: SegmentLabel(entry["category_id"], bool(entry.get("iscrowd", 0)))
                for entry in expected[f"coco_pq.{name}.{side}_segments"]
            }
            for side in ("pred", "gt")
        ]
        prediction, target = tensors[f"coco_pq.{name}.pred_ids"], tensors[f"coco_pq.{name}.gt_ids"]
        metric.update(name, prediction, labels[0], target, labels[1])
    numbers = metric.compute()
    for name in ("PQ", "SQ", "RQ"):
        assert close(numbers[name], expected["coco_pq.result"]["All"][name.lower()])
    for category, row in expected["coco_pq.result"]["per_class"].items():
        assert metric.per_category()[int(category)] == pytest.approx((row["pq"], row["sq"], row["rq"]), abs=EXACT)


def test_instance_iou_of_omg_seg():
    """`InsClsIoUMetric`, class 3 being novel; the original computes in float32 and says the accuracy in per cent."""
    expected, tensors = golden.read_json("metrics"), golden.arrays("metrics_inputs")
    metric, masks_alone = PromptedIoU(unseen=[3]), PromptedIoU()
    for name in ("img2", "img0", "img1"):
        prediction, target = (tensors[f"inscls.{name}.{side}"].astype(bool) for side in ("pred", "gt"))
        labels, guesses = tensors[f"inscls.{name}.gt_labels"], tensors[f"inscls.{name}.pred_labels"]
        metric.update(name, prediction, target, labels=labels, predicted_labels=guesses)
        masks_alone.update(name, prediction, target)
    numbers, recorded = metric.compute(), expected["InsClsIoU"]
    for ours, theirs, unit in (
        ("mIoU", "miou", 1),
        ("mIoU_seen", "base_iou", 1),
        ("mIoU_unseen", "novel_iou", 1),
        ("accuracy", "score", 100),
        ("accuracy_seen", "base_score", 100),
        ("accuracy_unseen", "novel_score", 100),
    ):
        assert numbers[ours] == pytest.approx(recorded[theirs] / unit, abs=1e-6), ours
    assert masks_alone.compute()["mIoU"] == pytest.approx(expected["InsClsIoU_mask_only"]["miou"], abs=1e-6)
    ious = [metric.records[name].ious for name in ("img0", "img1", "img2")]
    for ours, theirs in zip(ious, expected["InsClsIoU_per_instance"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_score_prompted(capsys, tmp_path: Path):
    """The same through files."""
    tensors = golden.arrays("metrics_inputs")
    images, objects, answers = [], [], []
    for image in range(3):
        sides = {side: tensors[f"inscls.img{image}.{side}"] for side in ("gt", "pred")}
        images.append({"id": image, "height": sides["gt"].shape[1], "width": sides["gt"].shape[2]})
        for side, entries in (("gt", objects), ("pred", answers)):
            for mask, label in zip(sides[side], tensors[f"inscls.img{image}.{side}_labels"].tolist(), strict=True):
                runs: Any = coco_mask.encode(np.asfortranarray(mask))
                entry = {"id": len(entries) + 1, "image_id": image, "category_id": label}
                entries.append({**entry, "segmentation": {**runs, "counts": runs["counts"].decode()}})
    categories = [{"id": label, "name": f"class {label}"} for label in range(9)]
    truth, guess = tmp_path / "gt.json", tmp_path / "pred.json"
    truth.write_text(json.dumps({"images": images, "annotations": objects, "categories": categories}))
    guess.write_text(json.dumps(answers))
    numbers = omg_score(capsys, tmp_path, "prompted", "--gt", truth, "--pred", guess, "--unseen", "class 3,class 8")
    recorded = golden.read_json("metrics")["InsClsIoU"]
    for ours, theirs in (("mIoU", "miou"), ("mIoU_seen", "base_iou"), ("mIoU_unseen", "novel_iou")):
        assert close(numbers[ours], recorded[theirs], tolerance=1e-6)
    assert close(numbers["accuracy"], recorded["score"] / 100, tolerance=1e-6)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
@pytest.mark.parametrize("by_category", [True, False])
def test_coco_instances(capsys, tmp_path: Path, kind, by_category: bool):
    folder = metrics("coco_instances")
    expected = read(folder / "expected.json")[kind if by_category else f"{kind}_class_agnostic"]
    truth, guess = folder / "gt.json", folder / f"pred_{kind}.json"
    options = ["--iou-type", kind, *([] if by_category else ["--class-agnostic"])]
    numbers = omg_score(capsys, tmp_path, "coco-instances", "--gt", truth, "--pred", guess, *options)
    for name in NAMES:
        assert close(numbers[name], expected[name]), name
    names = {entry["id"]: entry["name"] for entry in read(truth)["categories"]}
    for category, value in expected.get("per_category_AP", {}).items():
        assert close(numbers[f"AP/{names[int(category)]}"], value), category

    # The class, image by image, in shares and from the last to the first.
    detections = read(guess)
    shares = [AveragePrecision(read(truth), kind=kind, by_category=by_category) for _ in range(2)]
    for index, image in enumerate(sorted({one["image_id"] for one in detections}, reverse=True)):
        shares[index % 2].update(str(image), [one for one in detections if one["image_id"] == image])
    shares[0].merge(shares[1])
    assert shares[0].compute() == {name: numbers[name] for name in NAMES}


def test_cityscapes_panoptic(capsys, tmp_path: Path):
    folder = metrics("cityscapes")
    numbers = omg_score(
        capsys, tmp_path, "cityscapes-panoptic", "--gt", folder / "gtFine", "--pred", folder / "results_panoptic"
    )
    names = names_of(folder / "gtFine" / CITYSCAPES_JSON)
    check_quality(numbers, read(folder / "expected.json")["panoptic"], names=names)


CITYSCAPES_JSON = "cityscapes_panoptic_val.json"


def test_panoptic_quality_of_cityscapes():
    folder = metrics("cityscapes")
    truth = folder / "gtFine" / CITYSCAPES_JSON
    numbers = panoptic_quality(truth, folder / "results_panoptic" / CITYSCAPES_JSON)
    check_quality(numbers, read(folder / "expected.json")["panoptic"], names=names_of(truth))


def cityscapes_pictures() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Name and label maps of every picture, the last first."""
    for path in sorted((metrics("cityscapes") / "gtFine").rglob("*_instanceIds.png"), reverse=True):
        maps = {kind: path.with_name(path.name.replace("instanceIds", kind)) for kind in ("instanceIds", "labelIds")}
        yield path.name.removesuffix("_gtFine_instanceIds.png"), {kind: pixels(one) for kind, one in maps.items()}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_cityscapes_semantic(capsys, tmp_path: Path):
    folder = metrics("cityscapes")
    numbers = omg_score(
        capsys, tmp_path, "cityscapes-semantic", "--gt", folder / "gtFine", "--pred", folder / "results_semantic"
    )
    check_cityscapes_semantic(numbers)


def test_class_of_cityscapes_semantic():
    folder = metrics("cityscapes") / "results_semantic"
    metric = CityscapesSemantic()
    for name, maps in cityscapes_pictures():
        (guess,) = folder.rglob(f"{name}*.png")
        metric.update(name, pixels(guess), maps["labelIds"], maps["instanceIds"])
    check_cityscapes_semantic(metric.compute() | metric.per_class())


def check_cityscapes_semantic(numbers: dict[str, Any]) -> None:
    expected = read(metrics("cityscapes") / "expected.json")["pixel"]
    for ours, mean, rows in (
        ("mIoU", "averageScoreClasses", "classScores"),
        ("iIoU", "averageScoreInstClasses", "classInstScores"),
        ("mIoU_categories", "averageScoreCategories", "categoryScores"),
        ("iIoU_categories", "averageScoreInstCategories", "categoryInstScores"),
    ):
        assert close(numbers[ours], expected[mean]), ours
        prefix = f"{ours.removeprefix('m')}/"
        found = {name.removeprefix(prefix): value for name, value in numbers.items() if name.startswith(prefix)}
        defined = {name: value for name, value in expected[rows].items() if value is not None}
        assert found == pytest.approx(defined, abs=EXACT)


def test_cityscapes_instances(capsys, tmp_path: Path):
    folder = metrics("cityscapes")
    numbers = omg_score(
        capsys, tmp_path, "cityscapes-instances", "--gt", folder / "gtFine/val", "--pred", folder / "results_instance"
    )
    check_cityscapes_instances(numbers)


def test_class_of_cityscapes_instances():
    folder = metrics("cityscapes") / "results_instance"
    metric = CityscapesInstances()
    for name, maps in cityscapes_pictures():
        lines = [line.split() for line in (folder / f"{name}.txt").read_text().splitlines()]
        found = [(int(label), float(confidence), pixels(folder / mask) > 0) for mask, label, confidence in lines]
        metric.update(name, maps["instanceIds"], found)
    numbers = metric.compute()
    for name, precisions in metric.per_class().items():
        numbers |= {f"AP/{name}": float(precisions.mean()), f"AP50/{name}": float(precisions[0])}
    check_cityscapes_instances(numbers)


def check_cityscapes_instances(numbers: dict[str, Any]) -> None:
    expected = read(metrics("cityscapes") / "expected.json")["instance"]["averages"]
    assert close(numbers["AP"], expected["allAp"])
    assert close(numbers["AP50"], expected["allAp50%"])
    for name, row in expected["classes"].items():
        assert close(numbers[f"AP/{name}"], row["ap"]), name
        assert close(numbers[f"AP50/{name}"], row["ap50%"]), name


@pytest.mark.parametrize("train_ids", [False, True])
def test_cityscapes_panoptic_files_are_the_official_ones(tmp_path: Path, train_ids: bool):
    folder = metrics("cityscapes") / "gtFine"
    stem = f"cityscapes_panoptic_val{'_trainId' if train_ids else ''}"
    convert_cityscapes(folder / "val", tmp_path / f"{stem}.json", train_ids=train_ids)
    assert (tmp_path / f"{stem}.json").read_text() == (folder / f"{stem}.json").read_text()
    paths = sorted((folder / stem).iterdir())
    assert sorted(path.name for path in (tmp_path / stem).iterdir()) == [path.name for path in paths]
    for path in paths:
        assert np.array_equal(np.asarray(Image.open(tmp_path / stem / path.name)), np.asarray(Image.open(path)))


def decode(runs: Any) -> np.ndarray:
    return coco_mask.decode(runs).astype(bool)


def shifted(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    moved = np.zeros_like(mask)
    height, width = mask.shape
    moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = mask[
        max(-rows, 0) : height - max(rows, 0), max(-columns, 0) : width - max(columns, 0)
    ]
    return moved


def replay(sample: dict[str, Any]) -> tuple[list[list[Any]], list[float], list[np.ndarray]]:
    """Clicks, IoU and masks of the recorded toy predictor: the moved object, corrected in a disk around each click."""
    target = decode(sample["gt"])
    ignore = None if sample["ignore"] is None else decode(sample["ignore"])
    guess, prediction = shifted(target, 15, -20), np.zeros_like(target)
    rows, columns = np.ogrid[: target.shape[0], : target.shape[1]]
    clicks: list[list[Any]] = []
    ious, masks = [], []
    for _ in sample["ious"]:
        row, column, positive = next_click(target, prediction, taken=[(y, x) for y, x, _ in clicks], ignore=ignore)
        clicks.append([row, column, positive])
        disk = (rows - row) ** 2 + (columns - column) ** 2 <= sample["disk_radius"] ** 2
        guess[disk] = target[disk]
        prediction = guess.copy()
        ious.append(mask_iou(prediction, target, ignore=ignore))
        masks.append(prediction)
    return clicks, ious, masks


def number_of_clicks(numbers: Sequence[tuple[str, dict[str, float]]], metric: ClickIoU, *, clicks: int) -> None:
    for threshold, row in numbers:
        assert close(metric.number_of_clicks(float(threshold)), row["NoC"])
        assert metric.clicks_needed(float(threshold)).count(clicks) == row["over_max"]


def test_clicks(capsys, tmp_path: Path):
    folder = metrics("interactive")
    expected = read(folder / "expected.json")
    metric, answers = ClickIoU(20), []
    for sample in expected["samples"]:
        clicks, ious, masks = replay(sample)
        assert clicks == sample["clicks_yx_positive"], sample["id"]
        assert ious == pytest.approx(sample["ious"], abs=1e-6)
        metric.update(str(sample["id"]), ious)
        runs: list[Any] = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
        answers.append({"id": sample["id"], "masks": [{**one, "counts": one["counts"].decode()} for one in runs]})
    number_of_clicks(list(expected["NoC"].items()), metric, clicks=20)

    (tmp_path / "pred.json").write_text(json.dumps({"samples": answers}))
    for guess in (tmp_path / "pred.json", folder / "expected.json"):  # masks, and IoU values
        numbers = omg_score(capsys, tmp_path, "clicks", "--gt", folder / "expected.json", "--pred", guess)
        for threshold in (80, 85, 90):
            assert close(numbers[f"NoC@{threshold}"], expected["NoC"][str(threshold / 100).rstrip("0")]["NoC"])
        assert {name: numbers[name] for name in metric.compute()} == pytest.approx(metric.compute(), abs=1e-6)


def test_number_of_clicks_of_given_values():
    expected = read(metrics("interactive") / "expected.json")["noc_from_iou_lists"]
    metric = ClickIoU(expected["max_clicks"])
    for index, ious in enumerate(expected["iou_lists"]):
        metric.update(str(index), ious)
    number_of_clicks(list(expected["NoC"].items()), metric, clicks=expected["max_clicks"])
