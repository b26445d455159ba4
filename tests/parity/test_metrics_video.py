"""Metrics of videos equal to the official tools: through the classes and through `omg score` on the recorded files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omg_cli.main import run
from omgvision.evaluation.davis import ObjectQuality
from omgvision.evaluation.panoptic_quality import SegmentLabel
from omgvision.evaluation.run_lengths import compressed
from omgvision.evaluation.scores import vipseg
from omgvision.evaluation.video_average_precision import Track, VideoAveragePrecision
from omgvision.evaluation.video_consistency import VideoConsistency
from omgvision.evaluation.video_panoptic_quality import VOID, PanopticFrame, VideoPanopticQuality
from tests import golden


def omg_score(capsys: pytest.CaptureFixture[str], report: Path, *arguments: str | Path) -> dict[str, Any]:
    """The report; its headline is the last line printed."""
    assert run(["score", *map(str, arguments), "--out", str(report)]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    numbers = json.loads(report.read_text())
    assert printed == {name: value for name, value in numbers.items() if "/" not in name}
    return numbers


def read(folder: Path, name: str = "expected") -> Any:
    return json.loads((folder / f"{name}.json").read_text())


KINDS = (("All", ""), ("Things", "_things"), ("Stuff", "_stuff"))


def test_video_panoptic_quality():
    folder = golden.metrics("video_panoptic")
    expected = read(folder, "expected_vpq")["windows"]
    benchmark = vipseg.read_benchmark(folder, folder)
    metric = VideoPanopticQuality(benchmark.things)
    for video in benchmark.videos:
        metric.update(
            video.name,
            vipseg.read_frames(
                video, target_label=lambda entry: SegmentLabel(entry["category_id"], bool(entry["iscrowd"]))
            ),
        )
    assert metric.windows == tuple(map(int, expected))
    windows, qualities = metric.per_window(), metric.per_category()
    for counts, (size, recorded) in zip(metric.totals(), expected.items(), strict=True):
        for kind, suffix in KINDS:
            found = windows[int(size)][suffix]
            assert found.categories == recorded[kind]["n"]
            assert found[:3] == pytest.approx([recorded[kind][name] for name in ("pq", "sq", "rq")], abs=1e-12)
        of_class = recorded["per_class"].values()
        for column, name in enumerate(("iou", "tp", "fp", "fn")):
            assert counts[:, column] == pytest.approx([one[name] for one in of_class], abs=1e-9)
        for category, one in recorded["per_class"].items():
            found = qualities[int(size)][int(category)]
            assert found == pytest.approx((one["pq"], one["sq"], one["rq"]), abs=1e-12)


WINDOWS_OF_OMG_SEG = (1, 2, 3, 4, 6)


def test_video_panoptic_quality_of_omg_seg():
    """`eval_video.py` of the original, with all digits: a class that does not occur would count 0, all nine occur."""
    expected, maps = golden.read_json("metrics")["offline_VPQ_full_precision"], golden.arrays("metrics_inputs")
    metric = VideoPanopticQuality({category: category < 5 for category in range(9)}, windows=WINDOWS_OF_OMG_SEG)
    for name in ("vid0", "vid1", "vid2"):
        pairs = zip(maps[f"{name}.pred"], maps[f"{name}.gt"], strict=True)
        metric.update(name, ((frame_of_omg_seg(guess), frame_of_omg_seg(truth)) for guess, truth in pairs))
    qualities, windows = metric.per_category(), metric.per_window()
    for size in WINDOWS_OF_OMG_SEG:
        recorded = expected[f"k{size}"]
        assert [quality[0] for quality in qualities[size].values()] == pytest.approx(recorded["per_class"], abs=1e-13)
        for suffix, name in (("", "PQ"), ("_things", "PQ_thing"), ("_stuff", "PQ_stuff")):
            assert windows[size][suffix].pq == pytest.approx(recorded[name] / 100, abs=1e-13)


def frame_of_omg_seg(codes: np.ndarray) -> PanopticFrame:
    """The original's maps, class · 10000 + instance; pixels of no class (truth) or of class 9 (prediction) are void."""
    ids = np.where(codes >= 9 * 10_000, VOID, codes + 1)
    return PanopticFrame(
        ids, {one: SegmentLabel((one - 1) // 10_000) for one in np.unique(ids).tolist() if one != VOID}
    )


def test_score_vpq(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = golden.metrics("video_panoptic")
    expected = read(folder, "expected_vpq")
    numbers = omg_score(capsys, tmp_path / "r.json", "vpq", "--gt", folder, "--pred", folder)
    for kind, suffix in KINDS:
        assert numbers[f"VPQ{suffix}"] == pytest.approx(expected[f"mean_VPQ_{kind}"] / 100, abs=1e-12)
        for size, recorded in expected["windows"].items():
            assert numbers[f"VPQ@{size}{suffix}"] == pytest.approx(recorded[kind]["pq"], abs=1e-12)
    assert numbers["VPQ@1/person"] == pytest.approx(expected["windows"]["1"]["per_class"]["0"]["pq"], abs=1e-12)


def test_score_stq(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = golden.metrics("video_panoptic")
    expected = read(folder, "expected_stq")["vipseg"]
    truth = folder / "panoptic_gt_VIPSeg_val.json"
    numbers = omg_score(capsys, tmp_path / "r.json", "stq", "--gt", truth, "--pred", folder / "pred.json")
    videos = [entry["video_id"] for entry in read(folder, truth.stem)["videos"]]
    # The tool's own numbers differ by 2e-9 between numpy 1 and 2.
    for name, theirs in (("STQ", "STQ"), ("AQ", "AQ"), ("SQ", "IoU")):
        assert numbers[name] == pytest.approx(expected[theirs], abs=5e-9)
        of_videos = [numbers[f"{name}/{video}"] for video in videos]
        assert of_videos == pytest.approx(expected[f"{theirs}_per_seq"], abs=5e-9)


@pytest.mark.parametrize(("option", "key"), [([], "results"), (["--class-agnostic"], "results_class_agnostic")])
def test_score_youtube_vis(option: list[str], key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = golden.metrics("vis")
    expected = read(folder)[key]
    files = ["--gt", folder / "gt.json", "--pred", folder / "results.json"]
    numbers = omg_score(capsys, tmp_path / "r.json", "youtube-vis", *files, *option)
    of_category = expected.pop("per_category_AP")
    for name, value in expected.items():
        assert numbers[name] == (None if value == -1 else pytest.approx(value, abs=1e-12)), name
    names = {entry["id"]: entry["name"] for entry in read(folder, "gt")["categories"]}
    for category, value in of_category.items():
        found = numbers[f"AP/{names[int(category)]}"]
        assert found == (None if value is None else pytest.approx(value, abs=1e-12)), category


def test_average_precision_of_tracks():
    """The class, video by video, in two shares and from the last to the first."""
    folder = golden.metrics("vis")
    truth, results, expected = read(folder, "gt"), read(folder, "results"), read(folder)["results"]
    shares = [VideoAveragePrecision([entry["id"] for entry in truth["categories"]]) for _ in range(2)]
    for index, video in enumerate(reversed(truth["videos"])):
        size = (video["height"], video["width"])
        found, true = (
            [
                Track(
                    entry["category_id"],
                    [compressed(mask, size=size) if mask else None for mask in entry["segmentations"]],
                    score=entry.get("score", 0),
                    is_crowd=bool(entry.get("iscrowd", 0)),
                    areas=entry.get("areas"),
                )
                for entry in entries
                if entry["video_id"] == video["id"]
            ]
            for entries in (results, truth["annotations"])
        )
        shares[index % 2].update(str(video["id"]), found, true)
    shares[0].merge(shares[1])
    of_category = expected.pop("per_category_AP")
    defined = {name: value for name, value in expected.items() if value != -1}
    numbers = shares[0].compute()
    assert {name: value for name, value in numbers.items() if value == value} == pytest.approx(defined, abs=1e-12)
    for category, value in shares[0].per_category().items():
        recorded = of_category[str(category)]
        assert value == pytest.approx(math.nan if recorded is None else recorded, abs=1e-12, nan_ok=True), category


def test_score_vspw(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = golden.metrics("video_panoptic")
    expected = read(folder, "expected_vspw")
    files = ["--gt", folder / "semantic_gt", "--pred", folder / "semantic_pred"]
    numbers = omg_score(capsys, tmp_path / "r.json", "vspw", *files)
    for name in ("mIoU", "FWIoU", "pixel_accuracy", "VC8", "VC16"):
        assert numbers[name] == pytest.approx(expected[name], abs=1e-12)
    for video, value in expected["per_video_mIoU"].items():
        assert numbers[f"mIoU/{video}"] == pytest.approx(value, abs=1e-12)


def labels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_video_consistency_of_every_clip():
    folder = golden.metrics("video_panoptic")
    expected = read(folder, "expected_vspw")
    metric = VideoConsistency(expected["num_class"])
    videos = (folder / "val.txt").read_text().split()
    for video in videos:
        files = sorted((folder / "semantic_gt" / video).iterdir())
        frames = ((labels(folder / "semantic_pred" / video / file.name), labels(file)) for file in files)
        metric.update(video, frames)
    for index, length in enumerate(metric.clips):
        clips = np.concatenate([metric.records[video].clips[index] for video in videos])
        assert clips == pytest.approx(expected[f"VC{length}_clips"], abs=1e-12)


@pytest.mark.parametrize("sequence", ["blackswan", "car-shadow", "dog", "judo", "lab-coat", "libby", "loading"])
def test_j_and_f_of_every_frame(sequence: str):
    folder = golden.metrics("davis")
    expected = read(folder, "expected_per_frame")["semi_supervised_per_frame"][sequence]
    metric = ObjectQuality()
    files = sorted((folder / "gt" / "Annotations" / "480p" / sequence).iterdir())
    frames = ((labels(folder / "semi_supervised_pred" / sequence / file.name), labels(file)) for file in files)
    metric.update(sequence, frames)
    record = metric.records[sequence]
    # They were recorded with ten digits.
    np.testing.assert_allclose(record.region, expected["J"], atol=1e-10, rtol=0)
    np.testing.assert_allclose(record.boundary, expected["F"], atol=1e-10, rtol=0)


@pytest.mark.parametrize(("metric", "key"), [("davis", "semi-supervised"), ("davis-unsupervised", "unsupervised")])
def test_score_davis(metric: str, key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = golden.metrics("davis")
    expected = read(folder)[key]
    predictions = folder / f"{key.replace('-', '_')}_pred"
    numbers = omg_score(capsys, tmp_path / "r.json", metric, "--gt", folder / "gt", "--pred", predictions)
    for name, of_object in expected.pop("per_object").items():
        for what, value in of_object.items():
            assert numbers[f"{what.removesuffix('-Mean')}/{name}"] == pytest.approx(value, abs=1e-12), (what, name)
    for what, value in expected.items():
        assert numbers[what.removesuffix("-Mean")] == pytest.approx(value, abs=1e-12), what
