"""Whatever stands in the place of an entry of a json is one line and exit code 2, or is treated as the tool does."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omgvision.evaluation.runner.task import run_lengths
from tests.scoring import Score
from tests.unit.evaluation.runner import layouts

WRONG: tuple[Any, ...] = (None, {}, 10**12)


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


@pytest.mark.parametrize("make", [panoptic, instances, tracks, sentences])
def test_one_line(make, score: Score, tmp_path: Path):
    metric, truth, guess = make(tmp_path)
    assert score(metric, truth, guess)[0] == 0
    refusals = 0
    for path in (truth, guess):
        content = json.loads(path.read_text())
        for place in places(content):
            for value in WRONG:
                layouts.dump(changed(content, place, value), path)
                code, _, err = score(metric, truth, guess)
                assert code in (0, 2), (path.name, place, value, err)
                assert code == 0 or err.count("\n") == 1, (place, value, err)
                refusals += code == 2
        layouts.dump(content, path)
    assert refusals > 10
