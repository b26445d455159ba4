"""Whatever stands in the place of an entry of a json is one line and exit code 2, or is treated as the tool does."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omgvision.evaluation import caption_tools
from omgvision.evaluation.runner.task import run_lengths
from tests.scoring import Score
from tests.unit.evaluation.runner import layouts, word_layouts

WRONG: tuple[Any, ...] = (None, {}, 10**12, 10**20)


def places(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of lists, the first entry."""
    if path:
        yield path
    if isinstance(content, dict):
        for key in content:
            yield from places(content[key], (*path, key))
    elif isinstance(content, list) and content:
        yield from places(content[0], (*path, 0))


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return content


def panoptic(root: Path) -> tuple[str, Path, Path]:
    folder = layouts.coco_mini(root, count=1)
    content = json.loads((folder / "panoptic_val.json").read_text())
    content["categories"] = [one for one in content["categories"] if one["id"] in (1, 3, 187)]
    layouts.dump(content, folder / "panoptic_val.json")
    (folder / "panoptic_val").rename(folder / "mine")
    layouts.coco_mini(root, count=1)
    layouts.dump(content, folder / "panoptic_val.json")
    layouts.dump({"annotations": content["annotations"]}, folder / "mine.json")
    return "coco-panoptic", folder / "panoptic_val.json", folder / "mine.json"


def instances(root: Path) -> tuple[str, Path, Path]:
    folder = layouts.coco_mini(root, count=1)
    content = json.loads((folder / "instances_val.json").read_text())
    content["categories"] = content["categories"][:3]
    layouts.dump(content, folder / "instances_val.json")
    keys = ("image_id", "category_id", "segmentation")
    found = [{**{key: one[key] for key in keys}, "score": 0.5} for one in content["annotations"]]
    layouts.dump(found, folder / "mine.json")
    return "coco-instances", folder / "instances_val.json", folder / "mine.json"


def tracks(root: Path) -> tuple[str, Path, Path]:
    folder = layouts.ovis(root)
    path = folder / "annotations_valid.json"
    content = json.loads(path.read_text())
    content["categories"], content["videos"] = content["categories"][:2], content["videos"][:1]
    content["annotations"] = content["annotations"][:2]
    layouts.dump(content, path)
    keys = ("video_id", "category_id", "segmentations")
    layouts.dump(
        [{key: one[key] for key in keys} | {"score": 0.5} for one in content["annotations"]], root / "mine.json"
    )
    return "youtube-vis", path, root / "mine.json"


def sentences(root: Path) -> tuple[str, Path, Path]:
    runs = run_lengths(layouts.masks(0)[0])
    layouts.dump({"samples": [{"id": "a", "gt": runs, "source": "x", "gt_no_target": False}]}, root / "gt.json")
    layouts.dump({"samples": [{"id": "a", "pred": runs, "pred_no_target": False}]}, root / "mine.json")
    return "referring", root / "gt.json", root / "mine.json"


def captions(root: Path) -> tuple[str, Path, Path]:
    images = [{"id": 1}]
    layouts.dump({"images": images, "annotations": [{"image_id": 1, "caption": "a dog"}]}, root / "gt.json")
    layouts.dump([{"image_id": 1, "caption": "a cat"}], root / "mine.json")
    return "captions", root / "gt.json", root / "mine.json"


def grounded(root: Path) -> tuple[str, Path, Path]:
    word_layouts.grand_f(root)
    folder = root / "GranDf" / "annotations" / "val_test"
    for kind in ("caption", "mask"):  # one picture is enough
        path = folder / f"val_gcg_coco_{kind}_gt.json"
        content = json.loads(path.read_text())
        content["images"] = content["images"][:1]
        content["annotations"] = [one for one in content["annotations"] if one["image_id"] == "sa_1"][:1]
        layouts.dump(content, path)
    answer = {"caption": "a box", "phrases": ["a box"], "pred_masks": [run_lengths(layouts.masks(1)[0])]}
    layouts.dump(answer, root / "mine" / "sa_1.json")
    return "gcg", folder, root / "mine"


def clicks(root: Path) -> tuple[str, Path, Path]:
    runs = run_lengths(layouts.masks(0)[0])
    layouts.dump({"samples": [{"id": "a", "gt": runs, "ignore": runs}]}, root / "gt.json")
    layouts.dump({"samples": [{"id": "a", "masks": [runs]}]}, root / "mine.json")
    return "clicks", root / "gt.json", root / "mine.json"


def probes(root: Path) -> tuple[str, Path, Path]:
    layouts.dump([{"question_id": 1, "label": "yes", "text": "?", "image": "a.jpg"}], root / "gt.json")
    layouts.dump([{"question_id": 1, "answer": "yes"}], root / "mine.json")
    return "pope", root / "gt.json", root / "mine.json"


def choices(root: Path) -> tuple[str, Path, Path]:
    question = {"index": 1, "A": "red", "B": "blue", "answer": "A", "split": "dev", "category": "colour", "g_index": 1}
    layouts.dump([question], root / "gt.json")
    layouts.dump([{"index": 1, "prediction": "A"}], root / "mine.json")
    return "multiple-choice", root / "gt.json", root / "mine.json"


OPTIONS = {"gcg": ("--similarity", "exact")}
LENIENT = {"pope": 5, "multiple-choice": 8}
"""Where most cells are read as texts, whatever they are, as the official tools do: refusals at least."""


@pytest.mark.parametrize("make", [panoptic, instances, tracks, sentences, captions, grounded, clicks, probes, choices])
def test_one_line(make, score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_tools.shutil, "which", lambda name: None)
    metric, truth, guess = make(tmp_path)
    options = OPTIONS.get(metric, ())
    assert score(metric, truth, guess, *options)[0] == 0
    refusals = 0
    files = [truth, guess] if truth.is_file() else [*sorted(truth.glob("val*.json")), *sorted(guess.iterdir())]
    for path in files:
        content = json.loads(path.read_text())
        for place in places(content):
            for value in WRONG:
                layouts.dump(changed(content, place, value), path)
                code, _, err = score(metric, truth, guess, *options)
                assert code in (0, 2), (path.name, place, value, err)
                assert code == 0 or err.count("\n") == 1, (place, value, err)
                refusals += code == 2
        layouts.dump(content, path)
    assert refusals >= LENIENT.get(metric, 10)
