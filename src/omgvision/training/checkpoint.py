"""One file a run: written beside its name and renamed into place, so that a crash leaves the previous one whole."""

import os
from pathlib import Path
from typing import Any

import torch

NAME = "checkpoint.pt"


def save(state: dict[str, Any], folder: Path) -> Path:
    """Writes `state` (tensors, numbers, strings, lists and dicts) to `folder`/checkpoint.pt in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / NAME
    partial = folder / f"{NAME}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
    return target


def load(folder: Path) -> dict[str, Any] | None:
    """The saved state on the CPU, or None where there is none yet.

    Raises:
        ValueError: The file cannot be read.
    """
    source = folder / NAME
    if not source.exists():
        return None
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{source}: expected a checkpoint of this trainer, but it cannot be read ({type(error).__name__}); "
            "move it away or give another out= folder"
        ) from error
