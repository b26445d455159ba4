"""What one can watch: the journal over processes, TensorBoard's files, a full disk."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from omgvision.training import monitor
from omgvision.training.monitor import Journal


def journal(out: Path, **changes: Any) -> Journal:
    settings: dict[str, Any] = {"main": True, "gather": lambda one: [one], "resumed_at": 0, "divisor": 1}
    return Journal(out, **(settings | changes))


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def filled(out: Path, **changes: Any) -> Journal:
    """Two steps of two batches."""
    watched = journal(out, **changes)
    for norm in (1.0, 3.0):
        for loss in (1.0, 2.0):
            watched.add({"loss": torch.tensor(loss)}, images=2, skipped=["torn.png"] if loss > 1 else [])
        watched.end_step(norm)
    return watched


def write(watched: Journal) -> None:
    watched.write(step=2, share=0.5, elapsed=10.0, learning_rate=1e-3)


def test_losses_add_up_over_the_batches_of_a_step_and_the_processes(tmp_path: Path):
    write(filled(tmp_path, gather=lambda one: [one, ({"loss": 4.0, "prompts": 2.0}, 4, ["hazy.png"])]))
    (entry,) = entries(tmp_path)
    assert (entry["loss"], entry["prompts"], entry["gradient_norm"]) == (5.0, 1.0, 2.0)
    assert (entry["skipped"], entry["learning_rate"], entry["step"]) == (3, 1e-3, 2)


def test_losses_are_averaged_where_each_batch_has_its_own_number(tmp_path: Path):
    write(filled(tmp_path, gather=lambda one: [one, one], divisor=4))
    assert entries(tmp_path)[0]["loss"] == 1.5


def test_only_the_main_process_writes(tmp_path: Path):
    write(filled(tmp_path, main=False))
    assert list(tmp_path.iterdir()) == []


def test_the_main_process_names_what_any_process_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    filled(tmp_path, main=False)
    assert caplog.messages == []
    watched = filled(tmp_path, gather=lambda one: [one, ({}, 4, ["hazy.png", "torn.png", "hazy.png"])])
    assert caplog.messages == ["left out: torn.png"]
    write(watched)
    write(watched)
    assert caplog.messages == ["left out: torn.png", "left out: hazy.png"]
    assert [entry["skipped"] for entry in entries(tmp_path)] == [5, 8]


def test_a_step_that_was_left_out_does_not_count(tmp_path: Path):
    watched = filled(tmp_path)
    watched.add({"loss": torch.tensor(torch.nan)}, images=2, skipped=[])
    watched.end_step(None)
    write(watched)
    assert entries(tmp_path)[0]["loss"] == 3.0


def test_time_that_remains_is_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    watched = filled(tmp_path)
    watched.write(step=2, share=0.25, elapsed=600.0, learning_rate=1e-3)
    assert "25.0%" in caplog.text
    assert "30 min left" in caplog.text


def test_a_new_run_forgets_the_entries_of_one_that_left_no_checkpoint(tmp_path: Path):
    write(filled(tmp_path))
    journal(tmp_path)
    assert entries(tmp_path) == []


def test_curves_and_pictures_for_tensorboard(tmp_path: Path):
    pytest.importorskip("tensorboardX")
    watched = filled(tmp_path)
    write(watched)
    watched.write_evaluation({"PQ": 0.25}, {"street": torch.zeros(3, 8, 12, dtype=torch.uint8)}, step=2)
    watched.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    for name in (b"train/loss", b"train/learning_rate", b"evaluation/PQ", b"street"):
        assert name in content
    assert entries(tmp_path)[-1] == {"step": 2, "evaluation": {"PQ": 0.25}}


def test_without_tensorboard_there_is_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert monitor.open_board(tmp_path, resumed_at=0) is None
    assert "pip install 'omgvision[train]'" in caplog.text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_line(tmp_path: Path):
    watched = filled(tmp_path)
    (tmp_path / "log.jsonl").unlink(missing_ok=True)
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"the log cannot be written .No space left") as caught:
        write(watched)
    assert "\n" not in str(caught.value)
