"""Four processes give the numbers of one, to the last digit, for every metric that shares out its files."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omgvision.evaluation.scores import (
    average_precision,
    cityscapes,
    click_iou,
    davis,
    grounded_captions,
    mean_iou,
    referring,
    segmentation_tracking_quality,
    video_average_precision,
    video_consistency,
    vipseg,
)
from omgvision.evaluation.scores import gather as gathering
from omgvision.run_lengths import RunLengthMask
from tests.golden import metrics

Numbers = dict[str, float]
Grade = Callable[..., Numbers]
"""A score with its files: takes `workers`."""


def label_maps(root: Path, *, folders: int, files: int) -> tuple[Path, Path]:
    """Folders of label maps 0 to 3, and others of which a third of the pixels differ."""
    generator = np.random.default_rng(0)
    for folder in range(folders):
        for file in range(files):
            truth, other = generator.integers(0, 4, (2, 12, 20), dtype=np.uint8)
            truth[0, 0] = 3  # DAVIS' first frame has all objects
            guess = np.where(generator.random(truth.shape) < 1 / 3, other, truth)
            for side, values in (("gt", truth), ("pred", guess)):
                path = root / side / str(folder) / f"{file}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(path)
    return root / "gt", root / "pred"


def of_stq(root: Path) -> Grade:
    del root
    return partial(segmentation_tracking_quality.score, *[metrics("video_panoptic")] * 2)


def of_tracks(root: Path) -> Grade:
    del root
    return partial(video_average_precision.score, metrics("vis") / "gt.json", metrics("vis") / "results.json")


def of_vspw(root: Path) -> Grade:
    del root
    folder = metrics("video_panoptic")
    return partial(video_consistency.score, folder / "semantic_gt", folder / "semantic_pred")


def of_davis(root: Path) -> Grade:
    return partial(davis.score, *label_maps(root, folders=5, files=4))


def of_instances(root: Path) -> Grade:
    del root
    folder = metrics("coco_instances")
    return partial(average_precision.score, folder / "gt.json", folder / "pred_segm.json")


def of_clicks(root: Path) -> Grade:
    masks = np.random.default_rng(0).random((9, 3, 12, 20)) < 0.5
    runs = [[RunLengthMask.encode(mask).to_coco() for mask in of_object] for of_object in masks]
    for side in ("gt", "pred"):
        samples = [{"id": index, "gt": truth, "masks": found} for index, (truth, *found) in enumerate(runs)]
        (root / f"{side}.json").write_text(json.dumps({"samples": samples}))
    return partial(click_iou.score, root / "gt.json", root / "pred.json")


def of_sentences(root: Path) -> Grade:
    del root
    return partial(referring.score, *[metrics("referring") / "samples.json"] * 2, protocol="gres")


def of_grounded_captions(root: Path) -> Grade:
    del root
    return partial(grounded_captions.score, metrics("gcg"), metrics("gcg") / "predictions", similarity="jaccard")


def of_semantic_maps(root: Path) -> Grade:
    truth, guess = label_maps(root, folders=1, files=9)
    return partial(mean_iou.score_labels, truth / "0", guess / "0", num_classes=4, void=None)


def of_ade20k(root: Path) -> Grade:
    return partial(mean_iou.score_ade20k, *label_maps(root, folders=1, files=9))


def of_cityscapes(kind: str) -> Callable[[Path], Grade]:
    def grade(root: Path) -> Grade:
        del root
        folder = metrics("cityscapes")
        score = {
            "semantic": cityscapes.score_semantic,
            "instance": cityscapes.score_instances,
            "panoptic": cityscapes.score_panoptic,
        }
        return partial(score[kind], folder / "gtFine", folder / f"results_{kind}")

    return grade


CASES = {
    "STQ": of_stq,
    "tracks": of_tracks,
    "VSPW": of_vspw,
    "DAVIS": of_davis,
    "AP": of_instances,
    "clicks": of_clicks,
    "sentences": of_sentences,
    "grounded captions": of_grounded_captions,
    "maps": of_semantic_maps,
    "ADE20K": of_ade20k,
    **{f"Cityscapes {kind}": of_cityscapes(kind) for kind in ("semantic", "instance", "panoptic")},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_four_processes_are_one(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    grade = CASES[case](tmp_path)
    alone = grade()
    started, pool = [], gathering.ProcessPoolExecutor
    monkeypatch.setattr(gathering, "ProcessPoolExecutor", lambda count, **k: started.append(count) or pool(count, **k))
    for module in (gathering, vipseg, video_average_precision, video_consistency, davis):
        monkeypatch.setattr(module, "ITEMS_A_PROCESS", 1)
    monkeypatch.setattr(click_iou, "OBJECTS_A_PROCESS", 1)
    monkeypatch.setattr(referring, "SAMPLES_A_PROCESS", 1)
    shared = grade(workers=4)
    assert started == [4]
    # Not all are numbers: NaN is unequal to itself.
    assert {name: repr(value) for name, value in shared.items()} == {name: repr(one) for name, one in alone.items()}
