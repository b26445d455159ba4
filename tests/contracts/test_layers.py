"""Who may import whom (ARCHITECTURE.md), read off the source files."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src"
PACKAGE = SOURCE / "omgvision"
FORBIDDEN = {"torchvision", "cv2", "timm", "mmcv", "mmdet", "mmengine"}
MODEL_LIBRARIES = {"torch", "transformers", "scipy", "numpy", "huggingface_hub", "PIL"}
LIGHT = {"typer", "rich", "click", "omg_cli"}
"""What the shell may import before a command runs."""


def python_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


def imports(path: Path, *, nested: bool = True) -> set[str]:
    """Full names of what a file imports; with `nested=False` only what runs when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(SOURCE).with_suffix("").parts[:-1]
    names: set[str] = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
        skipped = not nested and (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        )
        if not skipped:
            stack += ast.iter_child_nodes(node)
    return names


def layer(name: str) -> str | None:
    """The part of omgvision that an import leads to, such as `models` or `results`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "omgvision" and len(parts) > 1 else None


def groups() -> dict[str, list[Path]]:
    """The bottom group; of evaluation/ the metrics alone, its runner sits above."""
    metrics = [path for path in python_files(PACKAGE / "evaluation") if path.stem not in ("__init__", "evaluate")]
    return {
        "models": python_files(PACKAGE / "models"),
        "data": python_files(PACKAGE / "data"),
        "evaluation": metrics,
        "visualization": [PACKAGE / "visualization.py"],
    }


@pytest.mark.parametrize("group", ["models", "data", "evaluation", "visualization"])
def test_the_bottom_group_knows_itself_alone(group: str) -> None:
    for path in groups()[group]:
        others = {name for name in imports(path) if layer(name) not in (None, group)}
        assert not others, f"{path.relative_to(SOURCE)} imports {sorted(others)}"


def test_model_files_stand_by_themselves() -> None:
    allowed = MODEL_LIBRARIES | set(sys.stdlib_module_names)
    for path in python_files(PACKAGE / "models"):
        here = ".".join(path.relative_to(SOURCE).parts[:-1])
        foreign = {n for n in imports(path) if n.split(".")[0] not in allowed and not n.startswith(f"{here}.")}
        assert not foreign, f"{path.relative_to(SOURCE)} imports {sorted(foreign)}"
        assert "__future__.annotations" not in imports(path), path


def test_no_forbidden_library() -> None:
    for path in python_files(SOURCE):
        assert not {name.split(".")[0] for name in imports(path)} & FORBIDDEN, path


def test_the_shell_is_light_until_a_command_runs() -> None:
    allowed = LIGHT | set(sys.stdlib_module_names)
    for path in python_files(SOURCE / "omg_cli"):
        heavy = {name for name in imports(path, nested=False) if name.split(".")[0] not in allowed}
        assert not heavy, f"{path.relative_to(SOURCE)} imports {sorted(heavy)}"
