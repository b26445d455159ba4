"""What is wrong with a file: as the official tool treats it where it does, else one line and exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omgvision.evaluation.panoptic_files import write_ids
from tests.golden import metrics
from tests.scoring import Score, last_line, refused


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def panoptic(tmp_path: Path) -> Path:
    """A folder with gt.json and pred.json: two images, right but for an eighth of the car."""
    for stem in ("gt", "pred"):
        (tmp_path / stem).mkdir()
        annotations = []
        for image in (1, 2):
            ids = np.full((4, 8), 300)
            ids[:2, 2 : 6 if stem == "gt" or image == 2 else 5] = 5
            ids[3] = 0
            write_ids(ids, tmp_path / stem / f"{image}.png")
            segments = [{"id": 5, "category_id": 1, "iscrowd": 0}, {"id": 300, "category_id": 2, "iscrowd": 0}]
            annotations.append({"image_id": image, "file_name": f"{image}.png", "segments_info": segments})
        categories = [{"id": 1, "name": "car", "isthing": 1}, {"id": 2, "name": "road", "isthing": 0}]
        content = {"annotations": annotations, "categories": categories}
        (tmp_path / f"{stem}.json").write_text(json.dumps(content))
    return tmp_path


def panoptic_of(score: Score, folder: Path, *options: object) -> tuple[int, str, str]:
    return score("coco-panoptic", folder / "gt.json", folder / "pred.json", *options)


def test_panoptic_report(score: Score, panoptic: Path):
    report = panoptic / "reports" / "report.json"
    numbers = last_line(panoptic_of(score, panoptic, "--out", report, "--unseen", "car"))
    assert numbers["PQ_things"] == numbers["PQ_unseen"] == pytest.approx((1 + 6 / 8) / 2)
    written = json.loads(report.read_text())
    assert written["PQ/car"] == numbers["PQ_things"]
    assert {name: value for name, value in written.items() if "/" not in name} == numbers
    assert [path.name for path in report.parent.iterdir()] == ["report.json"]
    assert "expected category names" in refused(panoptic_of(score, panoptic, "--unseen", "cars"))


def test_what_is_nowhere_is_null(score: Score, panoptic: Path):
    for name in ("gt", "pred"):
        change(panoptic / f"{name}.json", lambda content: content["annotations"].pop())
        change(panoptic / f"{name}.json", lambda content: content["annotations"][0]["segments_info"].pop())
        write_ids(np.full((4, 8), 5), panoptic / name / "1.png")
    code, out, _ = panoptic_of(score, panoptic)
    assert code == 0
    assert json.loads(out.splitlines()[-1])["PQ_stuff"] is None
    assert [line.split()[1] for line in out.splitlines() if line.startswith("PQ_stuff")] == ["–"]


def test_surplus_images_are_left_out_with_a_warning(score: Score, panoptic: Path):
    before = last_line(panoptic_of(score, panoptic))
    change(
        panoptic / "pred.json",
        lambda content: content["annotations"].append({**content["annotations"][0], "image_id": 99}),
    )
    code, out, err = panoptic_of(score, panoptic)
    assert code == 0
    assert json.loads(out.splitlines()[-1]) == before
    assert "left out 1 images that gt.json lacks" in err


def first(content: Any) -> Any:
    return content["annotations"][0]


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        (
            "pred",
            lambda content: content["annotations"].pop(0),
            "expected a prediction for every image, got none for 1",
        ),
        ("pred", lambda content: first(content)["segments_info"].pop(), "pixels with id 300, which is not described"),
        (
            "pred",
            lambda content: first(content)["segments_info"].append({"id": 9, "category_id": 1}),
            "segment 9 is described, but no pixel has it",
        ),
        (
            "pred",
            lambda content: first(content)["segments_info"][0].update(category_id=7),
            "pred.json: image 1: segment 5 has the unknown category 7",
        ),
        (
            "gt",
            lambda content: first(content)["segments_info"][0].update(category_id=7),
            "gt.json: image 1: segment 5 has the unknown category 7",
        ),
        (
            "pred",
            lambda content: first(content)["segments_info"][0].pop("category_id"),
            "pred.json: expected every entry to have 'category_id'",
        ),
        (
            "gt",
            lambda content: first(content)["segments_info"][0].pop("category_id"),
            "gt.json: expected every entry to have 'category_id'",
        ),
        (
            "gt",
            lambda content: first(content)["segments_info"][0].update(area="much"),
            "gt.json: expected a number as area, got 'much'",
        ),
        ("pred", lambda content: first(content).pop("file_name"), "expected every entry to have 'file_name'"),
        ("pred", lambda content: first(content).update(segments_info=[3]), "expected entries of the official form"),
        ("pred", lambda content: content.pop("annotations"), "expected a list 'annotations'"),
        ("pred", lambda content: first(content).update(file_name="no.png"), "no.png: expected a PNG file, got no file"),
        ("gt", lambda content: content["annotations"].clear(), "expected annotated images, got none"),
    ],
)
def test_panoptic_json(score: Score, panoptic: Path, file: str, edit: Callable[[Any], object], message: str):
    change(panoptic / f"{file}.json", edit)
    assert message in refused(panoptic_of(score, panoptic))


def test_panoptic_png(score: Score, panoptic: Path):
    path = panoptic / "pred" / "2.png"
    write_ids(np.full((4, 9), 5), path)
    assert f"{path}: prediction: expected the size of the target (4, 8), got (4, 9)" in refused(
        panoptic_of(score, panoptic)
    )
    path.write_bytes(path.read_bytes()[:50])
    assert f"{path}: expected a PNG file, got an unreadable one" in refused(panoptic_of(score, panoptic))


def test_json_itself(score: Score, panoptic: Path):
    (panoptic / "pred.json").write_text("{")
    assert "pred.json: expected a json file" in refused(panoptic_of(score, panoptic))
    (panoptic / "pred.json").unlink()
    assert "expected a json file, got no file" in refused(panoptic_of(score, panoptic))


@pytest.fixture
def instances(tmp_path: Path) -> Path:
    """gt.json and pred.json: one 8x8 image with one square, found."""
    runs = {"size": [8, 8], "counts": "bN"}
    counts = [18, 4, 4, 4, 4, 4, 4, 4, 18]
    truth = {
        "images": [{"id": 1, "height": 8, "width": 8}],
        "categories": [{"id": 1, "name": "square"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "area": 16,
                "bbox": [2, 2, 4, 4],
                "segmentation": {**runs, "counts": counts},
            }
        ],
    }
    guess = [{"image_id": 1, "category_id": 1, "score": 0.5, "segmentation": {**runs, "counts": counts}}]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    (tmp_path / "pred.json").write_text(json.dumps(guess))
    return tmp_path


def instances_of(score: Score, folder: Path, *options: object) -> tuple[int, str, str]:
    return score("coco-instances", folder / "gt.json", folder / "pred.json", *options)


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_instances(score: Score, instances: Path, kind: str):
    numbers = last_line(instances_of(score, instances, "--iou-type", kind))
    assert numbers["AP"] == pytest.approx(1)
    assert numbers["APl"] is None
    change(instances / "pred.json", lambda content: content.clear())
    assert last_line(instances_of(score, instances, "--iou-type", kind))["AP"] == 0


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("pred", lambda content: content[0].update(image_id=7), "expected an image of the ground truth, got 7"),
        ("pred", lambda content: content[0].update(score=float("nan")), "score: expected a number, got nan in image 1"),
        ("pred", lambda content: content[0]["segmentation"].update(counts="P"), "a text that does not decode"),
        ("pred", lambda content: content[0]["segmentation"].update(size=[8, 9]), "expected the size of the image"),
        ("pred", lambda content: content[0].pop("score"), "expected every entry to have 'score'"),
        ("pred", lambda content: content[0].pop("segmentation"), "segmentation: expected one in every detection"),
        ("pred", lambda content: content.append("x"), "expected entries of the official form"),
        ("gt", lambda content: content["images"].clear(), "expected images, got none"),
        (
            "gt",
            lambda content: content["annotations"][0]["segmentation"].update(counts=[1000]),
            "gt.json: segmentation: expected runs over 64 pixels, got 1000: does not decode (image 1)",
        ),
        (
            "gt",
            lambda content: content["annotations"][0]["segmentation"].update(counts="P"),
            "gt.json: segmentation: expected compressed run lengths",
        ),
        ("gt", lambda content: content.pop("categories"), "expected a list 'categories'"),
    ],
)
def test_instances_json(score: Score, instances: Path, file: str, edit: Callable[[Any], object], message: str):
    change(instances / f"{file}.json", edit)
    assert message in refused(instances_of(score, instances))


def test_no_ground_truth_has_no_number(score: Score, instances: Path):
    change(instances / "gt.json", lambda content: content["annotations"].clear())
    assert set(last_line(instances_of(score, instances)).values()) == {None}


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    """gt/ and pred/ with one map each."""
    for name, values in (("gt", [[0, 1, 1, 150]]), ("pred", [[9, 1, 2, 0]])):
        (tmp_path / name).mkdir()
        Image.fromarray(np.array(values, dtype=np.uint8)).save(tmp_path / name / "ADE_val_1.png")
    return tmp_path


def test_ade20k(score: Score, ade20k: Path):
    report = ade20k / "report.json"
    numbers = last_line(score("ade20k-semantic", ade20k / "gt", ade20k / "pred", "--out", report))
    assert numbers == pytest.approx(
        {
            "mIoU": 0.5 / 150,
            "mIoU_present": 0.25,
            "pixel_accuracy": 1 / 3,
            "mean_accuracy": 0.25,
            "FWIoU": 1 / 3,
        }
    )
    written = json.loads(report.read_text())
    assert (written["IoU/1"], written["IoU/2"], written["IoU/150"]) == (0.5, None, 0)


def test_ade20k_files(score: Score, ade20k: Path):
    def refuse() -> str:
        return refused(score("ade20k-semantic", ade20k / "gt", ade20k / "pred"))

    path = ade20k / "pred" / "ADE_val_1.png"
    Image.fromarray(np.zeros((2, 4), dtype=np.uint8)).save(path)
    assert "expected the size of the target (1, 4), got (2, 4)" in refuse()
    Image.fromarray(np.zeros((1, 4, 3), dtype=np.uint8)).save(path)
    assert "expected one channel, got 3" in refuse()
    path.unlink()
    assert "ADE_val_1.png: expected a PNG file, got no file" in refuse()
    Image.fromarray(np.full((1, 4), 151, dtype=np.uint8)).save(ade20k / "gt" / "ADE_val_1.png")
    Image.fromarray(np.full((1, 4), 1, dtype=np.uint8)).save(path)
    assert "ADE_val_1.png: expected labels 0 to 150, got 151" in refuse()
    shutil.rmtree(ade20k / "gt")
    assert "expected PNG files below it, got none" in refuse()


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    shutil.copytree(metrics("cityscapes"), tmp_path / "cityscapes")
    return tmp_path / "cityscapes"


def test_cityscapes_unseen(score: Score, cityscapes: Path):
    paths = cityscapes, cityscapes / "results_panoptic"
    report = cityscapes / "report.json"
    numbers = last_line(score("cityscapes-panoptic", *paths, "--unseen", "car", "--out", report))
    assert numbers["PQ_unseen"] == json.loads(report.read_text())["PQ/car"]
    assert "expected category names" in refused(score("cityscapes-panoptic", *paths, "--unseen", "cars"))


def test_cityscapes_files(score: Score, cityscapes: Path):
    truth, guesses = cityscapes / "gtFine", cityscapes / "results_semantic"
    path = min((guesses / "testcity").iterdir())
    shutil.copy(path, path.with_name(f"{path.stem}_again.png"))
    assert "again.png" in (message := refused(score("cityscapes-semantic", truth, guesses)))
    assert f"expected one {'_'.join(path.stem.split('_')[:3])}*.png below it" in message
    path.with_name(f"{path.stem}_again.png").unlink()
    Image.fromarray(np.full((2, 3), 7, dtype=np.uint8)).save(path)
    assert "expected the size of the target (254, 384), got (2, 3)" in refused(
        score("cityscapes-semantic", truth, guesses)
    )
    Image.fromarray(np.full((254, 384), 255, dtype=np.uint8)).save(path)
    assert "no train ids), got 255" in refused(score("cityscapes-semantic", truth, guesses))
    path.unlink()
    assert "got none" in refused(score("cityscapes-semantic", truth, guesses))
    assert "*_gtFine_labelIds.png below it, got none" in refused(score("cityscapes-semantic", guesses, guesses))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("masks/a.png 26", "expected lines of mask, label id and confidence"),
        ("masks/a.png car 0.5", "expected lines of mask, label id and confidence"),
        ("masks/none.png 26 0.5", "none.png: expected a PNG file, got no file"),
        ("../gtFine/a.png 26 0.5", "expected a mask below"),
        ("masks/testcity_000000_000019_000.png 26 nan", "confidence: expected a number, got nan"),
        ("masks/testcity_000000_000019_000.png 99 0.5", "label: expected an id 0 to 33"),
    ],
)
def test_cityscapes_instance_lines(score: Score, cityscapes: Path, line: str, message: str):
    guesses = cityscapes / "results_instance"
    (guesses / "testcity_000000_000019.txt").write_text(f"{line}\n")
    found = refused(score("cityscapes-instances", cityscapes / "gtFine", guesses))
    assert "testcity_000000_000019.txt" in found
    assert message in found


def test_clicks(score: Score, tmp_path: Path):
    truth, guess = tmp_path / "gt.json", tmp_path / "pred.json"
    runs = {"size": [2, 2], "counts": [0, 4]}
    truth.write_text(json.dumps({"samples": [{"id": "a", "gt": runs}, {"id": "b", "gt": runs, "ignore": runs}]}))

    def clicked(**of_b: Any) -> tuple[int, str, str]:
        half = {"size": [2, 2], "counts": [2, 2]}
        guess.write_text(json.dumps({"samples": [{"id": "a", "masks": [half, runs]}, {"id": "b", **of_b}]}))
        return score("clicks", truth, guess, "--max-clicks", 3)

    code, out, _ = clicked(ious=[0.1])
    numbers = json.loads(out.splitlines()[-1])
    assert code == 0
    assert {name: numbers[name] for name in ("IoU@1", "IoU@3", "NoC@90", "over_max@90")} == pytest.approx(
        {"IoU@1": 0.3, "IoU@3": 0.55, "NoC@90": 2.5, "over_max@90": 1}
    )
    assert "NoC@90" in out and "2.50" in out
    assert "ious: expected 1 to 3" in refused(clicked(ious=[]))
    assert "ious: expected 0 to 1, got nan" in refused(clicked(ious=[float("nan")]))
    assert "expected the size of the image [2, 2], got [2, 3]" in refused(
        clicked(masks=[{"size": [2, 3], "counts": [6]}])
    )
    assert "expected every entry to have 'ious'" in refused(clicked())
    guess.write_text(json.dumps({"samples": [{"id": "a", "ious": [1]}]}))
    assert "expected a prediction for every sample, got none for b" in refused(score("clicks", truth, guess))
    guess.write_text(json.dumps({"samples": [{"id": name, "ious": [1]} for name in "abcd"]}))
    code, _, err = score("clicks", truth, guess)
    assert (code, err) == (0, f"omg: {guess}: left out 2 samples that gt.json lacks\n")
    truth.write_text(json.dumps({"samples": []}))
    assert "expected samples, got none" in refused(score("clicks", truth, guess))
