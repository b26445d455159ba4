"""From pictures to files, numbers and a report, on benchmarks of a few small pictures."""

import copy
import json
import threading
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image

from omg_cli.main import run
from omgvision import Predictor, UserError
from omgvision.evaluation.benchmarks import BENCHMARKS
from omgvision.evaluation.runner import report as run_report
from omgvision.evaluation.runner.run import evaluate, evenly
from omgvision.training.processes import Processes
from tests.scoring import last_line

from . import layouts


@dataclass(frozen=True)
class Together(Processes):
    """Threads in the place of processes."""

    barrier: threading.Barrier | None = None

    def wait(self) -> None:
        assert self.barrier is not None
        self.barrier.wait(60)


def numbers_of(report) -> dict[str, float]:
    return {key: value for key, value in report["numbers"].items() if value is not None}


PICTURES = {
    "coco-mini-panoptic": layouts.coco_mini,
    "coco-mini-instances": layouts.coco_mini,
    "coco-mini-clicks": layouts.coco_mini,
    "camvid": layouts.camvid,
    "ade20k-semantic": layouts.ade20k,
    "cityscapes-semantic": layouts.cityscapes,
    "cityscapes-instances": layouts.cityscapes,
}


@pytest.mark.parametrize("name", PICTURES)
def test_omg_score_says_the_same_of_the_files(name, predictor, tmp_path, capsys):
    PICTURES[name](tmp_path)
    report = evaluate(BENCHMARKS[name], tmp_path, predictor, out=tmp_path / "run")
    assert report is not None
    assert report["samples"] == report["samples_in_all"] == len(report["per_sample"]["values"]) >= 2
    assert (tmp_path / "run" / "report.md").read_text().startswith(f"# {BENCHMARKS[name].title}: tiny")
    assert json.loads((tmp_path / "run" / "report.json").read_text())["numbers"] == report["numbers"]
    assert Image.open(tmp_path / "run" / "worst.png").width > 100
    words = report["check"].split(" ")
    assert words[:2] == ["omg", "score"]
    code = run(words[1:])
    captured = capsys.readouterr()
    scored = last_line((code, captured.out, captured.err))
    assert {key: scored[key] for key in scored if scored[key] is not None}.items() <= numbers_of(report).items()


def test_a_sample_s_own_number_is_the_benchmark_s_on_it_alone(predictor, tmp_path):
    layouts.coco_mini(tmp_path, count=2)
    for name in ("coco-mini-panoptic", "coco-mini-instances"):
        whole = evaluate(BENCHMARKS[name], tmp_path, predictor, out=tmp_path / name)
        alone = evaluate(BENCHMARKS[name], tmp_path, predictor, out=tmp_path / f"{name} 1", limit=1)
        assert whole is not None
        assert alone is not None
        values = alone["per_sample"]
        assert values["values"] == {"1": pytest.approx(alone["numbers"][values["number"]])}
        assert values["values"]["1"] == whole["per_sample"]["values"]["1"]
        assert (alone["samples"], alone["samples_in_all"], alone["check"]) == (1, 2, None)


def test_four_processes_are_one(predictor, tmp_path, monkeypatch):
    layouts.coco_mini(tmp_path, count=6)
    benchmark = BENCHMARKS["coco-mini-panoptic"]
    single = evaluate(benchmark, tmp_path, predictor, out=tmp_path / "single")
    hashed, checksums = [], run_report.checksums
    monkeypatch.setattr(run_report, "checksums", lambda measured: hashed.append(measured) or checksums(measured))
    barrier = threading.Barrier(4)
    reports: dict[int, dict | None] = {}

    def work(rank: int) -> None:
        processes = Together(rank, 4, rank, barrier=barrier)
        reports[rank] = evaluate(benchmark, tmp_path, predictor, out=tmp_path / "four", processes=processes)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reports[rank] for rank in (1, 2, 3)] == [None] * 3
    assert single is not None
    four = reports[0]
    assert four is not None
    for key in ("numbers", "per_class", "per_sample", "samples"):
        assert four[key] == single[key]
    counts = [len(path.read_text().splitlines()) for path in sorted((tmp_path / "four" / "samples").iterdir())]
    assert counts == [2, 2, 1, 1]
    assert len(hashed) == 1


def test_an_interrupted_run_goes_on(predictor, tmp_path, monkeypatch):
    layouts.coco_mini(tmp_path, count=4)
    benchmark = BENCHMARKS["coco-mini-instances"]
    whole = evaluate(benchmark, tmp_path, predictor, out=tmp_path / "whole")
    segment, calls = predictor.segment, []

    def interrupted(*arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return segment(*arguments, **named)

    monkeypatch.setattr(predictor, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run")
    assert not (tmp_path / "run" / "report.json").exists()
    with (tmp_path / "run" / "samples" / "000.jsonl").open("a") as stream:
        stream.write('{"id": "3", "quali')
    with pytest.raises(UserError, match="--resume"):
        evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run")
    report = evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", resume=True)
    assert len(calls) == 3 + 2
    assert whole is not None
    assert report is not None
    assert (report["numbers"], report["per_sample"]) == (whole["numbers"], whole["per_sample"])
    assert evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", resume=True) == report
    assert len(calls) == 5


def test_a_resumed_run_must_be_the_same(predictor, tmp_path):
    layouts.camvid(tmp_path)
    benchmark = BENCHMARKS["camvid"]
    evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", limit=1)
    with pytest.raises(UserError, match="another limit"):
        evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", resume=True)
    with pytest.raises(UserError, match="another settings"):
        evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", limit=1, resume=True, size=(64, 32))
    layouts.coco_mini(tmp_path)
    with pytest.raises(UserError, match="another benchmark"):
        evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, predictor, out=tmp_path / "run", resume=True)
    (tmp_path / "run" / "run.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", limit=1, resume=True)
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match="does not describe"):
        evaluate(benchmark, tmp_path, predictor, out=tmp_path / "run", limit=1)


def test_sizes(predictor, tmp_path):
    layouts.camvid(tmp_path)
    seen = {}
    for size in ("auto", "own", "published", (96, 64)):
        out = tmp_path / str(size)
        report = evaluate(BENCHMARKS["camvid"], tmp_path, predictor, out=out, limit=1, size=size)
        assert report is not None
        seen[size] = report["settings"]["size"]
    # Nobody published anything about CamVid.
    assert seen == {"auto": None, "own": None, "published": None, (96, 64): (96, 64)}
    assert predictor.processor.image_processor.size["longest_edge"] == 128


def test_evenly():
    assert evenly(range(5), None) == evenly(range(5), 9) == [0, 1, 2, 3, 4]
    assert evenly(range(5), 3) == [0, 2, 4]


def test_clicks_of_small_objects_are_left_out(predictor, tmp_path):
    folder = layouts.coco_mini(tmp_path, count=1)
    content = json.loads((folder / "instances_val.json").read_text())
    speck = np.zeros(layouts.SIZE, dtype=bool)
    speck[0, 0] = True
    small = {**content["annotations"][0], "id": 99, "segmentation": layouts.run_lengths(speck), "area": 1}
    layouts.dump({**content, "annotations": [*content["annotations"], small]}, folder / "instances_val.json")
    evaluate(BENCHMARKS["coco-mini-clicks"], tmp_path, predictor, out=tmp_path / "run")
    samples = json.loads((tmp_path / "run" / "predictions" / "clicks.json").read_text())["samples"]
    assert [len(one["masks"]) for one in samples] == [5, 5]


def test_a_model_without_words_is_told_so(predictor, tmp_path):
    layouts.coco_mini(tmp_path)
    model = copy.deepcopy(predictor.model)
    model.text_model = None
    mute = Predictor(model, predictor.processor, name="mute")
    with pytest.raises(UserError, match=r"no vocabulary for the 133 classes of coco.*its 4 stored classes are others"):
        evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, mute, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_data(predictor, tmp_path):
    with pytest.raises(UserError, match=r"expected panoptic_val.json, panoptic_val, images .*coco_mini.*panoptic_val"):
        evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, predictor, out=tmp_path / "run")
    folder = layouts.coco_mini(tmp_path)
    (folder / "images" / "002.png").write_text("no picture")
    with pytest.raises(UserError, match=r"002\.png: expected a picture"):
        evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, predictor, out=tmp_path / "run")
    (folder / "images" / "002.png").unlink()
    with pytest.raises(UserError, match=r"002\.png.*no file"):
        evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, predictor, out=tmp_path / "run", resume=True)
    layouts.save(layouts.picture(2), folder / "images" / "002.png")
    assert evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, predictor, out=tmp_path / "run", resume=True)
    content = json.loads((folder / "panoptic_val.json").read_text())
    content["categories"][0]["id"] = 4711
    layouts.dump(content, folder / "panoptic_val.json")
    with pytest.raises(UserError, match="4711"):
        evaluate(BENCHMARKS["coco-mini-panoptic"], tmp_path, predictor, out=tmp_path / "other")
