"""Folders with one folder of label maps for every video."""

from pathlib import Path


def subfolders(path: Path) -> list[str]:
    """Names of the folders in a folder.

    Raises:
        ValueError: No folder, or none in it.
    """
    names = folder_names(path)
    if not names:
        raise ValueError(f"{path}: expected a folder of videos, got {'an empty one' if path.is_dir() else 'no folder'}")
    return sorted(names)


def folder_names(path: Path) -> set[str]:
    """As `subfolders`, in no order; none where there is no folder."""
    return {one.name for one in path.iterdir() if one.is_dir()} if path.is_dir() else set()
