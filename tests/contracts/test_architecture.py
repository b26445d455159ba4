"""Who may import whom, as ARCHITECTURE.md says: read off the source, nothing is imported here."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
FILES = sorted(path for path in SOURCE.rglob("*.py"))
BOTTOM = ("models", "data", "evaluation", "visualization")
"""Parts that know nothing of each other (evaluation stands for its metrics; its runner is excepted below)."""
RUNNERS = (
    "omgvision/evaluation/evaluate.py",
    "omgvision/evaluation/card_numbers.py",
    "omgvision/evaluation/chat_numbers.py",
    "omgvision/evaluation/benchmarks.py",
    "omgvision/evaluation/language_benchmarks.py",
    "omgvision/evaluation/runner/",
    "omgvision/evaluation/video_benchmarks.py",
    "omgvision/evaluation/video_segmenters.py",
)
FORBIDDEN = {"torchvision", "cv2", "timm", "mmcv", "mmdet", "mmengine", "detectron2"}
MODEL_LIBRARIES = {"torch", "transformers", "safetensors", "scipy", "numpy", "PIL", "huggingface_hub"}


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Absolute names of all that a file imports, wherever in it, and the lines."""
    package = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def part_of(module: str) -> str | None:
    """ "omgvision.models.omg_seg.x" → "models"."""
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 and pieces[0] == "omgvision" else None


def violations(files: list[Path], forbidden) -> list[str]:
    return [
        f"{name_of(path)}:{line} imports {module}"
        for path in files
        for module, line in imports(path)
        if forbidden(path, module)
    ]


def files_of(part: str) -> list[Path]:
    folder = SOURCE / "omgvision" / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def test_there_is_something_to_check():
    assert len(FILES) > 20
    assert any(module == "torch" for path in FILES for module, _ in imports(path))


def test_nothing_needs_compiled_or_heavy_frameworks():
    assert not violations(FILES, lambda path, module: module.split(".")[0] in FORBIDDEN)


@pytest.mark.parametrize("part", BOTTOM)
def test_bottom_group_members_do_not_know_each_other(part):
    others = set(BOTTOM) - {part}
    files = [path for path in files_of(part) if not name_of(path).startswith(RUNNERS)]
    assert not violations(files, lambda path, module: part_of(module) in others)


@pytest.mark.parametrize("part", [*BOTTOM, "results"])
def test_lower_layers_do_not_import_upper_ones(part):
    upper = {"predictor", "session", "hub", "training", "conversion", "serving"}
    files = [path for path in files_of(part) if not name_of(path).startswith(RUNNERS)]
    assert not violations(files, lambda path, module: part_of(module) in upper or module.startswith("omg_cli"))


def test_models_import_siblings_and_a_few_libraries_only():
    """Hugging Face copies a model's files flat into one folder: `from ..x` would break there."""
    import sys

    allowed = MODEL_LIBRARIES | set(sys.stdlib_module_names)

    def forbidden(path: Path, module: str) -> bool:
        sibling = ".".join(("omgvision", *path.relative_to(SOURCE / "omgvision").parts[:-1]))
        return not (module.startswith(f"{sibling}.") or module.split(".")[0] in allowed)

    assert not violations(files_of("models"), forbidden)


def test_model_files_are_flat_and_keep_their_annotations():
    for folder in (SOURCE / "omgvision" / "models").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert not [path for path in folder.rglob("*.py") if path.parent != folder]
    for path in files_of("models"):
        # With it, transformers takes the class annotation `config: OmgSegConfig` for a string.
        assert "__future__.annotations" not in {module for module, _ in imports(path)}, name_of(path)


def test_only_training_knows_about_processes_and_devices():
    def forbidden(path: Path, module: str) -> bool:
        return module.startswith(("torch.distributed", "torch.cuda", "accelerate"))

    outside = [path for path in FILES if "training" not in path.relative_to(SOURCE).parts]
    assert not violations(outside, forbidden)
    used = [
        f"{name_of(path)}:{node.lineno}"
        for path in outside
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in {"cuda", "distributed"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "torch"
    ]
    assert not used


def test_command_line_is_light():
    """Nothing of the library, torch or transformers at the top of a file of `omg_cli`."""
    heavy = {"torch", "transformers", "omgvision", "numpy", "PIL", "scipy"}
    for path in sorted((SOURCE / "omg_cli").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names.append(node.module or "")
            assert not {name.split(".")[0] for name in names} & heavy, f"{name_of(path)}:{node.lineno}"


def test_the_library_logs_and_never_prints():
    printed = [
        f"{name_of(path)}:{node.lineno}"
        for path in FILES
        if path.relative_to(SOURCE).parts[0] == "omgvision"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not printed
