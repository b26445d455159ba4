"""Checkpoints of a run: one folder a step, written beside its name and renamed into place when it is whole.

A crash, a signal or a full disk while saving therefore leaves the earlier checkpoints as they were.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

STATE = "state.pt"
PARTIAL = ".partial"

State = dict[str, Any]


def folder_of(out: Path, step: int) -> Path:
    """Where the checkpoint of a step lies in a run's folder."""
    return out / "checkpoints" / f"step_{step:08d}"


def kept(out: Path) -> list[Path]:
    """The whole checkpoints of a run's folder, the oldest first."""
    return sorted(path for path in (out / "checkpoints").glob("step_*") if path.name.removeprefix("step_").isdigit())


def begin(partial: Path) -> None:
    """Makes the empty folder `partial` (`folder_of` with the suffix `PARTIAL`), to which `finish` gives its name.

    Raises:
        ValueError: It cannot be made.
    """
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise _cannot_write(partial.with_suffix(""), error) from error


def discard(out: Path) -> None:
    """Removes what a crash left half-written."""
    for leftover in (out / "checkpoints").glob(f"step_*{PARTIAL}"):
        shutil.rmtree(leftover, ignore_errors=True)


def finish(state: State, partial: Path, *, keep: int) -> Path:
    """Writes `state` (tensors, numbers, strings, lists and dicts), renames the folder, and removes the oldest ones.

    Raises:
        ValueError: It cannot be written; nothing of it is left then.
    """
    target = partial.with_suffix("")
    try:
        with (partial / STATE).open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        _sync_folder(target.parent)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise _cannot_write(target, error) from error
    for old in kept(target.parent.parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _cannot_write(target: Path, error: OSError | RuntimeError) -> ValueError:
    # torch's writer replaces the system's error by one of its own when it closes the archive.
    cause = error if isinstance(error, OSError) else error.__context__
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error).splitlines()[0]
    return ValueError(
        f"{target}: the checkpoint cannot be written ({reason}); earlier ones are untouched: "
        "make room and continue with --resume"
    )


def newest(out: Path, *, check: Callable[[State], None]) -> tuple[State, Path] | None:
    """The newest checkpoint that can be read, on the CPU, and its folder; None where there is none.

    Args:
        out: The run's folder.
        check: Raises ValueError for a state that belongs to another run.

    Raises:
        ValueError: There are checkpoints, but none of them can be read, or `check` refuses.
    """
    folders = kept(out)
    for folder in reversed(folders):
        try:
            state = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        except Exception as error:
            logger.warning("%s cannot be read (%s); trying the one before", folder, type(error).__name__)
            continue
        check(state)
        return state, folder
    if folders:
        raise ValueError(
            f"{out}: expected checkpoints of this trainer, but none of {len(folders)} can be read "
            f"(the newest is {folders[-1]}); move them away or give another out= folder"
        )
    return None


def _sync_folder(folder: Path) -> None:
    """A rename is safe from a power cut only once its folder is on the disk; Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
