"""Folders of weights: whole or not there, and the earlier one until then."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from omgvision.errors import UserError
from omgvision.training.export import written_whole

NUMBERS = {"numbers": torch.arange(10**5)}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder that an earlier run wrote."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text("earlier")
    return folder


def is_as_it_was(folder: Path) -> bool:
    return [path.name for path in folder.parent.iterdir()] == [folder.name] and (
        (folder / "config.json").read_text() == "earlier"
    )


def test_a_folder_is_replaced_when_all_is_written(weights: Path):
    with written_whole(weights) as partial:
        partial.mkdir()
        save_file(NUMBERS, partial / "model.safetensors")
        assert (weights / "config.json").read_text() == "earlier"
    assert [path.name for path in weights.parent.iterdir()] == ["weights"]
    assert [path.name for path in weights.iterdir()] == ["model.safetensors"]
    assert (weights / "model.safetensors").stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(sys.platform == "win32", reason="no limits")
@pytest.mark.parametrize(
    "write", [lambda path: save_file(NUMBERS, path), lambda path: path.write_bytes(bytes(1001))], ids=["torch", "else"]
)
def test_a_file_that_cannot_be_written_is_one_clear_line(weights: Path, write: Callable[[Path], object]):
    """Safetensors has an error of its own for it."""
    import resource

    def export() -> None:
        with written_whole(weights) as partial:
            partial.mkdir()
            write(partial / "file")

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"weights: cannot be written \(.*File too large.*with --resume") as caught:
            export()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(caught.value)
    assert is_as_it_was(weights)


def test_the_earlier_folder_is_never_gone(weights: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever happens when the new one should take its place."""
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.suffix == ".partial":
            [elsewhere] = weights.parent.glob("*/config.json")
            assert elsewhere.read_text() == "earlier"
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt), written_whole(weights) as partial:
        partial.mkdir()
    assert is_as_it_was(weights)
