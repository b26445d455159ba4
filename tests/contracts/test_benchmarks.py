"""The benchmark runs, its plain path decides as the model does, and the pages show what the result files say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import make_tables, segment, training

ROOT = Path(__file__).resolve().parents[2]


def test_the_plain_path_equals_the_shipped_one() -> None:
    setup = segment.quick_setup()
    size = setup.sizes[0]
    model = segment.build_ours(setup)
    ours, plain = segment.Ours(model), segment.Plain(model)
    image = segment.picture(size)
    with torch.inference_mode():
        for survivors in (1, 4, setup.config.num_queries):
            decided = segment.decisions(setup, size, survivors)
            our_map, our_segments = ours.decide(ours.predict(image, segment.Clock()), decided, size)
            plain_map, plain_segments = plain.decide(plain.predict(image, segment.Clock()), decided, size)
            assert len(our_segments) == len(plain_segments) > 0
            assert torch.equal(our_map, plain_map)


def test_the_plain_decoder_equals_the_shipped_one() -> None:
    setup = segment.quick_setup()
    model = segment.build_ours(setup)
    with torch.inference_mode():
        outputs = model(pixel_values=torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1)))
        encoded = outputs.encoder_outputs
        masks = segment.Plain(model).decode(encoded.mask_features, encoded.memories, encoded.memory_shapes)
    torch.testing.assert_close(outputs.masks_queries_logits, masks[:, :, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_benchmark_runs_and_its_table_is_made(tmp_path: Path) -> None:
    output = tmp_path / "segment.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "segment.py"), "--quick", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    report = json.loads(output.read_text(encoding="utf-8"))
    assert "| 128×96, 4 queries hold a segment |" in make_tables.segment_summary(report)
    table = make_tables.segment(report)
    assert "128×96, 4 queries hold a segment" in table
    assert "transformers' Mask2Former head, over omgvision" in table


def test_transformers_losses_are_the_same_as_ours() -> None:
    """What is timed side by side computes the same, up to the random points."""
    setup = training.quick_setup()
    given = training.problem(setup)
    torch.manual_seed(0)
    ours, theirs = (build(setup)(given, training.Stages()) for build in training.LOSSES.values())
    for name, loss in ours.items():
        torch.testing.assert_close(loss, theirs[name], rtol=0.03, atol=0)


def test_medians_are_of_the_steps_that_have_a_stage() -> None:
    # Batches of prompts match nothing.
    runs = [{"data": 1.0, "loss": 2.0}, {"data": 3.0, "matcher": 4.0, "loss": 6.0}, {"data": 5.0, "loss": 1.0}]
    assert training.medians(runs) == {"data": 3.0, "matcher": 4.0, "loss": 2.0, "whole": 6.0}


@pytest.mark.slow
def test_the_training_benchmark_runs_and_its_table_is_made(tmp_path: Path) -> None:
    output = tmp_path / "training.json"
    command = [sys.executable, "-m", "benchmarks.training", "--quick", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd=ROOT)
    report = json.loads(output.read_text(encoding="utf-8"))
    assert set(report["peak_bytes"]) == set(training.SUBJECTS)
    assert 0 <= report["waiting"]["share"] < 1
    assert "12 queries, 7 classes, 4 predictions" in make_tables.training(report)


@pytest.mark.slow
def test_the_video_benchmark_runs_and_its_table_is_made(tmp_path: Path) -> None:
    output = tmp_path / "video.json"
    command = [sys.executable, "-m", "benchmarks.video", "--quick", "--output", str(output)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, cwd=ROOT)
    report = json.loads(output.read_text(encoding="utf-8"))
    assert list(report["stream"]["resident_bytes"]) == ["2", "4", "6"]
    table = make_tables.video(report)
    assert "A stream of 6 frames of 96×64" in table
    assert "96×64: clip of 2 frames |" in table
    assert report["stages"]["96x64"]["segment"]["whole: over segment"] == 1
    assert {"followed_throughout", "switches_throughout"} <= set(report["identities"])


def test_the_measured_stream_keeps_its_memory_and_its_pace() -> None:
    path = ROOT / "benchmarks" / "results" / "video.json"
    if not path.exists():
        pytest.skip("not measured yet")
    report = json.loads(path.read_text(encoding="utf-8"))
    stream, identities = report["stream"], report["identities"]
    assert (stream["block"], stream["frames"]) == (1000, 10_000)
    assert stream["memory: last over first"] <= 1.02
    assert stream["time: last over first"] <= 1.1
    # What nobody follows keeps its id for nothing.
    assert identities["frames"] == 10_000 and identities["followed_throughout"] > 0.5


def test_numbers_on_videos_become_a_table() -> None:
    row = {"data": "rendered", "videos": 24, "frames": 1768}
    rows = [
        {**row, "metric": "VPQ", "is_count": False, "tracked": 0.5, "clips": 0.4, "per_frame": 0.25},
        {**row, "metric": "identity switches", "is_count": True, "tracked": 3.0, "per_frame": 12.0},
    ]
    table = make_tables.video_quality({"rows": rows, "note": "Held out.", "clip_frames": 4})
    assert "| held-out data | tracked | in clips of 4 | frame by frame |" in table
    assert "| VPQ | rendered: 24 videos, 1,768 frames | 50.0 | 40.0 | 25.0 |" in table
    assert "| identity switches | rendered: 24 videos, 1,768 frames | 3 |  | 12 |" in table
    assert table.endswith("Held out.")


def test_pages_show_the_result_files() -> None:
    assert make_tables.main(["--check"]) == 0, "run: python benchmarks/make_tables.py"
