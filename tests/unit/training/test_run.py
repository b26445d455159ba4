"""From the name of a recipe to a run: what is refused before anything is loaded."""

from pathlib import Path

import pytest

from omg_cli.main import run


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_folder_that_cannot_be_written_is_told_first(tmp_path: Path, capsys: pytest.CaptureFixture[str], dry: list):
    """Before the data, which is not there either."""
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    assert run(["train", "finetune", "data=nowhere", f"out={out}", *dry]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"omg: cannot write to {out}: {tmp_path / 'file'} is not a folder"
