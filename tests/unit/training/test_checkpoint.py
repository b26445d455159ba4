"""Checkpoints: whole or not there, the newest kept, one clear line when they cannot be written or read."""

from pathlib import Path

import pytest
import torch

from omgvision.training import checkpoint


def write(out: Path, step: int, *, keep: int = 2, numbers: int = 1000) -> Path:
    partial = checkpoint.folder_of(out, step).with_suffix(checkpoint.PARTIAL)
    checkpoint.begin(partial)
    return checkpoint.finish({"step": step, "weights": torch.arange(numbers)}, partial, keep=keep)


def newest(out: Path) -> int | None:
    found = checkpoint.newest(out, check=lambda state: None)
    return None if found is None else found[0]["step"]


def names(out: Path) -> list[str]:
    return sorted(path.name for path in (out / "checkpoints").iterdir())


def test_the_newest_are_kept(tmp_path: Path):
    assert newest(tmp_path) is None
    for step in (5, 10, 1000):
        assert write(tmp_path, step).name == f"step_{step:08d}"
    assert names(tmp_path) == ["step_00000010", "step_00001000"]
    assert newest(tmp_path) == 1000
    write(tmp_path, 1000)
    assert names(tmp_path) == ["step_00000010", "step_00001000"]


def test_what_a_crash_left_is_no_checkpoint(tmp_path: Path):
    write(tmp_path, 5)
    leftover = checkpoint.folder_of(tmp_path, 10).with_suffix(checkpoint.PARTIAL)
    checkpoint.begin(leftover)
    (leftover / checkpoint.STATE).write_bytes(b"half")
    assert newest(tmp_path) == 5
    checkpoint.discard(tmp_path)
    assert names(tmp_path) == ["step_00000005"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("numbers", [10, 10**6])
def test_a_full_disk_is_one_clear_line_and_leaves_the_earlier_one(tmp_path: Path, numbers: int):
    """Small files fail when they are closed, large ones in the middle of torch's archive."""
    write(tmp_path, 5)
    partial = checkpoint.folder_of(tmp_path, 10).with_suffix(checkpoint.PARTIAL)
    checkpoint.begin(partial)
    (partial / checkpoint.STATE).symlink_to("/dev/full")
    with pytest.raises(ValueError, match=r"step_00000010: the checkpoint cannot be written .No space left") as caught:
        checkpoint.finish({"weights": torch.arange(numbers)}, partial, keep=2)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["step_00000005"]
    assert newest(tmp_path) == 5


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("a file where a folder should be")
    with pytest.raises(ValueError, match="step_00000005: the checkpoint cannot be written"):
        write(tmp_path, 5)


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(path.read_bytes()[:-100]), Path.unlink])
def test_a_torn_one_falls_back_to_the_one_before(tmp_path: Path, damage, caplog: pytest.LogCaptureFixture):
    write(tmp_path, 5)
    damage(write(tmp_path, 10) / checkpoint.STATE)
    assert newest(tmp_path) == 5
    assert "step_00000010 cannot be read" in caplog.text
    damage(checkpoint.folder_of(tmp_path, 5) / checkpoint.STATE)
    with pytest.raises(ValueError, match="none of 2 can be read") as caught:
        newest(tmp_path)
    assert "\n" not in str(caught.value)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path):
    target = write(tmp_path, 5) / checkpoint.STATE
    torch.save({"step": Path("x")}, target)
    with pytest.raises(ValueError, match="none of 1 can be read"):
        newest(tmp_path)
