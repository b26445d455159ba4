"""What the README tells people to type works, in the order in which they would type it."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w+)\n(?P<code>.*?)\n```", re.DOTALL)
NOT_RUN = "<!-- not run by the tests: "


@dataclass(frozen=True)
class Block:
    language: str
    code: str
    skipped: bool


def blocks() -> list[Block]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["before"].startswith(NOT_RUN)) for found in FENCE.finditer(text)
    ]


def commands() -> list[str]:
    shell = [block.code for block in blocks() if block.language == "bash" and not block.skipped]
    return [line for code in shell for line in code.splitlines() if line.strip()]


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder that looks like a clone as far as the commands see it."""
    for folder in ("images", "videos"):
        shutil.copytree(ROOT / "examples" / folder, tmp_path / "examples" / folder)
    return tmp_path


def environment() -> dict[str, str]:
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"], "HF_HUB_OFFLINE": "1"}


def test_only_known_kinds_of_blocks() -> None:
    assert {block.language for block in blocks() if not block.skipped} == {"python", "bash"}
    assert len(commands()) >= 4


@pytest.mark.slow
def test_python_blocks_run_one_after_the_other(workplace: Path) -> None:
    code = "\n\n".join(block.code for block in blocks() if block.language == "python")
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (workplace / "out").iterdir()) == [
        "overlay.png",
        "panoptic.png",
        "result.json",
        "semantic.png",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_shell_command(command: str, workplace: Path) -> None:
    run = subprocess.run(
        command,
        shell=True,
        cwd=workplace,
        env=environment(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert run.returncode == 0, run.stderr
    if "--out" in command:
        assert any((workplace / "out").rglob("*overlay.*"))


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs"])
def test_links_inside_the_repository_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for file in sorted(path.glob("*.md")) if path.is_dir() else [path]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", file.read_text(encoding="utf-8")):
            assert (file.parent / target).exists(), f"{file.relative_to(ROOT)} points to {target}"
