"""`omg score` on tiny benchmarks of videos: layouts, and one clear line for whatever is wrong with a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omg_cli.main import run
from omgvision.evaluation.panoptic_files import write_ids
from omgvision.evaluation.scores import gather as gathering
from omgvision.evaluation.scores import vipseg
from omgvision.evaluation.scores.video_panoptic_quality import score as score_vpq

SIZE = (6, 8)
VIDEOS = ("a", "b")
FRAMES = ("0.png", "1.png", "2.png")


def image(labels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_vipseg(root: Path) -> tuple[Path, Path]:
    ids = np.repeat([[70000] * 4 + [2] * 4], SIZE[0], axis=0)
    # Stuff first: VIPSeg's STQ takes a thing in this place for a crowd.
    segments = [{"id": 2, "category_id": 5, "iscrowd": 0}, {"id": 70000, "category_id": 0, "iscrowd": 0, "area": 24}]
    frames = [{"file_name": name, "segments_info": segments} for name in FRAMES]
    annotations = [{"video_id": video, "annotations": frames} for video in VIDEOS]
    truth = {
        "videos": [{"video_id": video, "images": [{"file_name": name} for name in FRAMES]} for video in VIDEOS],
        "annotations": annotations,
        "categories": [{"id": 0, "name": "cat", "isthing": 1}, {"id": 5, "name": "sky", "isthing": 0}],
    }
    for folder in (root / "gt" / "panomasksRGB", root / "pred" / "pan_pred"):
        for video in VIDEOS:
            (folder / video).mkdir(parents=True)
            for name in FRAMES:
                write_ids(ids, folder / video / name)
    (root / "gt" / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(truth))
    (root / "pred" / "pred.json").write_text(json.dumps({"annotations": annotations}))
    return root / "gt", root / "pred"


def write_youtube_vis(root: Path) -> tuple[Path, Path]:
    runs = {"size": list(SIZE), "counts": [12, 24, 12]}
    tracks = [
        {"id": 1, "video_id": video, "category_id": 3, "iscrowd": 0, "segmentations": [runs, None, runs], "score": 0.5}
        for video in (1, 2)
    ]
    videos = [{"id": video, "height": SIZE[0], "width": SIZE[1], "file_names": list(FRAMES)} for video in (1, 2)]
    truth = {"videos": videos, "annotations": tracks, "categories": [{"id": 3, "name": "cat"}]}
    (root / "gt.json").write_text(json.dumps(truth))
    (root / "pred.json").write_text(json.dumps(tracks))
    return root / "gt.json", root / "pred.json"


def write_vspw(root: Path, *, shift: int = 0) -> tuple[Path, Path]:
    labels = np.repeat([[0, 3, 3, 123, 1, 1, 1, 2]], SIZE[0], axis=0).astype(np.uint8)
    for video in VIDEOS:
        for name in FRAMES:
            image(labels + np.uint8(shift), root / "gt" / "data" / video / "mask" / name)
            image(labels, root / "pred" / video / name)
    (root / "gt" / "val.txt").write_text("a\nb\n")
    return root / "gt", root / "pred"


def write_davis(root: Path) -> tuple[Path, Path]:
    labels = np.repeat([[0, 0, 1, 1, 1, 2, 2, 0]], SIZE[0], axis=0).astype(np.uint8)
    for video in VIDEOS:
        for name in FRAMES:
            image(labels, root / "gt" / "Annotations" / "480p" / video / name)
            image(labels, root / "pred" / video / name)
    names = root / "gt" / "ImageSets" / "2017" / "val.txt"
    names.parent.mkdir(parents=True)
    names.write_text("a\nb\n")
    return root / "gt", root / "pred"


WRITERS = {
    "vpq": write_vipseg,
    "stq": write_vipseg,
    "youtube-vis": write_youtube_vis,
    "vspw": write_vspw,
    "davis": write_davis,
    "davis-unsupervised": write_davis,
}
BEST = {"vpq": "VPQ@2", "stq": "STQ", "youtube-vis": "AP", "vspw": "mIoU", "davis": "J&F", "davis-unsupervised": "J&F"}


def score(metric: str, truth: Path, guess: Path, *options: str) -> int:
    return run(["score", metric, "--gt", str(truth), "--pred", str(guess), "--workers", "1", *options])


@pytest.mark.parametrize("metric", WRITERS)
def test_the_truth_is_perfect(metric: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, guess = WRITERS[metric](tmp_path)
    assert score(metric, truth, guess) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])[BEST[metric]] == pytest.approx(1)


def number(capsys: pytest.CaptureFixture[str], name: str) -> float:
    return json.loads(capsys.readouterr().out.splitlines()[-1])[name]


def test_png_folders_of_the_same_stem(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, guess = write_vipseg(tmp_path)
    (truth / "panomasksRGB").rename(truth / "panoptic_gt_VIPSeg_val")
    (guess / "pan_pred").rename(guess / "mine")
    (guess / "pred.json").rename(guess / "mine.json")
    assert score("vpq", truth / "panoptic_gt_VIPSeg_val.json", guess / "mine.json") == 0
    assert number(capsys, "VPQ@2") == 1


def test_labels_as_vspw_distributes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, guess = write_vspw(tmp_path, shift=1)
    assert score("vspw", truth, guess) == 2
    assert "--from-one" in capsys.readouterr().err
    assert score("vspw", truth, guess, "--from-one") == 0
    assert number(capsys, "mIoU") == 1


def test_plain_folders_and_one_bit_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mask = np.zeros(SIZE, dtype=bool)
    mask[2:4] = True
    for name in FRAMES:
        image(mask, tmp_path / "gt" / "a" / name)
    image(mask.astype(np.uint8), tmp_path / "pred" / "a" / FRAMES[1])  # the others do not count
    assert score("davis", tmp_path / "gt", tmp_path / "pred") == 0
    assert number(capsys, "J&F") == 1
    assert score("davis-unsupervised", tmp_path / "gt", tmp_path / "pred") == 2
    assert "pred/a/0.png: expected a PNG file, got no file" in capsys.readouterr().err


def test_surplus_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, guess = write_vipseg(tmp_path)
    edit(guess / "pred.json", lambda content: content["annotations"].append({"video_id": "c", "annotations": []}))
    assert score("stq", truth, guess) == 0
    assert "left out 1 videos" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "what"), [("vspw", "videos"), ("davis", "sequences"), ("davis-unsupervised", "sequences")]
)
def test_surplus_folders_are_left_out(metric: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    truth, guess = WRITERS[metric](tmp_path)
    image(np.zeros(SIZE, np.uint8), guess / "c" / FRAMES[0])
    assert score(metric, truth, guess) == 0
    assert capsys.readouterr().err == f"omg: {guess}: left out 1 {what} that gt lacks\n"


def first_frame(content: Any) -> Any:
    return content["annotations"][0]["annotations"][0]


def of_vipseg(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda root: edit(root / "pred" / "pred.json", change)


def of_true_vipseg(change: Callable[[Any], object]) -> Callable[[Path], None]:
    return lambda root: edit(root / "gt" / "panoptic_gt_VIPSeg_val.json", change)


def of_youtube_vis(**changes: Any) -> Callable[[Path], None]:
    return lambda root: edit(root / "pred.json", lambda content: content[0].update(changes))


def masks(counts: Any, *, size: tuple[int, int] = SIZE) -> dict[str, Any]:
    return {"segmentations": [{"size": list(size), "counts": counts}] * 3}


def small(path: str) -> Callable[[Path], None]:
    return lambda root: image(np.zeros((5, 8), np.uint8), root / path)


FAULTS: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "vpq",
        lambda root: (root / "pred/pan_pred/a/1.png").unlink(),
        "pan_pred/a/1.png: expected a PNG file, got no file",
    ),
    ("stq", lambda root: (root / "gt/panomasksRGB/b/0.png").write_text("x"), "panomasksRGB/b/0.png: expected a PNG"),
    ("vpq", small("pred/pan_pred/a/0.png"), "pan_pred/a/0.png: expected the size of the target (6, 8), got (5, 8)"),
    (
        "vpq",
        of_vipseg(lambda one: first_frame(one)["segments_info"].pop()),
        "pixels with id 70000, which is not described",
    ),
    (
        "vpq",
        of_vipseg(lambda one: first_frame(one)["segments_info"][0].pop("id")),
        "pred.json: expected every entry to have 'id'",
    ),
    (
        "stq",
        of_true_vipseg(lambda one: first_frame(one)["segments_info"][0].pop("category_id")),
        "panoptic_gt_VIPSeg_val.json: expected every entry to have 'category_id'",
    ),
    ("stq", of_vipseg(lambda one: first_frame(one)["segments_info"][0].update(category_id=9)), "unknown category 9"),
    ("vpq", of_vipseg(lambda one: one["annotations"].pop()), "expected annotations of every video, got none of b"),
    (
        "stq",
        of_vipseg(lambda one: one["annotations"][1]["annotations"].pop()),
        "b: expected annotations of 3 frames",
    ),
    ("vpq", lambda root: (root / "pred/pred.json").unlink(), "expected a pred.json in this folder, got 0"),
    ("vpq", of_true_vipseg(lambda one: one["videos"].clear()), "got none"),
    ("youtube-vis", of_youtube_vis(score=float("nan")), "1: expected scores, got NaN"),
    ("youtube-vis", of_youtube_vis(score=None), "expected a number as score, got None"),
    ("youtube-vis", of_youtube_vis(video_id=7), "expected results for the videos of gt.json, got 7"),
    ("youtube-vis", of_youtube_vis(**masks("garbage!")), "pred.json: video 1: segmentation: expected"),
    ("youtube-vis", of_youtube_vis(**masks([12, 24])), "does not decode"),
    ("youtube-vis", of_youtube_vis(**masks([48], size=(8, 6))), "expected the size of the image [6, 8], got [8, 6]"),
    ("youtube-vis", of_youtube_vis(segmentations=[None]), "expected tracks over 3 frames, got one over 1"),
    ("youtube-vis", lambda root: (root / "pred.json").write_text("{}"), "expected a list of results, got a dict"),
    ("youtube-vis", lambda root: edit(root / "gt.json", lambda one: one["videos"].clear()), "of video 1"),
    ("vspw", lambda root: (root / "pred/b/2.png").unlink(), "pred/b/2.png: expected a PNG file, got no file"),
    ("vspw", small("pred/b/2.png"), "pred/b/2.png: expected the size of the target (6, 8), got (5, 8)"),
    ("vspw", lambda root: image(np.full(SIZE, 200, np.uint8), root / "pred/a/0.png"), "classes 0 to 123, got 200"),
    ("vspw", lambda root: (root / "gt/val.txt").write_text("c"), "expected PNG files, got none"),
    ("vspw", lambda root: (root / "gt/val.txt").write_text("\n"), "val.txt: expected names of videos, got none"),
    (
        "davis",
        lambda root: (root / "gt/ImageSets/2017/val.txt").write_text(""),
        "expected names of sequences, got none",
    ),
    ("davis", lambda root: (root / "pred/a/1.png").unlink(), "pred/a/1.png: expected a PNG file, got no file"),
    ("davis", small("pred/a/1.png"), "pred/a/1.png: expected the size of the target (6, 8), got (5, 8)"),
    ("davis", lambda root: image(np.full(SIZE, 3, np.uint8), root / "pred/a/1.png"), "labels up to 2, got 3"),
    ("davis", lambda root: image(np.zeros((*SIZE, 3), np.uint8), root / "pred/a/1.png"), "expected one channel"),
    ("davis-unsupervised", small("pred/b/0.png"), "expected the size of the target"),
    ("davis", lambda root: (root / "gt/ImageSets/2017/val.txt").unlink(), "expected a list of sequences, got no file"),
    ("davis", lambda root: (root / "gt/Annotations").rename(root / "gt/annotations"), "expected PNG files, got none"),
]


@pytest.mark.parametrize(("metric", "damage", "message"), FAULTS)
def test_faults_are_one_line(
    metric: str, damage: Callable[[Path], object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    truth, guess = WRITERS[metric](tmp_path)
    damage(tmp_path)
    assert score(metric, truth, guess, "--out", str(tmp_path / "report.json")) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert printed.out == ""
    assert not (tmp_path / "report.json").exists()


@pytest.mark.slow
def test_processes_do_not_change_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    truth, guess = write_vipseg(tmp_path)
    write_ids(np.full(SIZE, 2), guess / "pan_pred" / "a" / "1.png")
    edit(guess / "pred.json", lambda content: content["annotations"][0]["annotations"][1]["segments_info"].pop())
    alone = score_vpq(truth, guess)
    started = []
    original = gathering.ProcessPoolExecutor
    monkeypatch.setattr(gathering, "ProcessPoolExecutor", lambda *a, **k: started.append(a) or original(*a, **k))
    monkeypatch.setattr(vipseg, "ITEMS_A_PROCESS", 1)
    shared = score_vpq(truth, guess, workers=2)
    assert started
    assert {key: repr(value) for key, value in shared.items()} == {key: repr(value) for key, value in alone.items()}
