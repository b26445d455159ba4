"""What docs/chat.md tells people to type works, here with random weights that say a few words."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from omg_cli.main import run
from tests.golden_llava import processor, random_llava

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"(?P<before>[^\n]*)\n```(?P<language>\w+)\n(?P<code>.*?)\n```", re.DOTALL)
PAGE = (ROOT / "docs" / "chat.md").read_text(encoding="utf-8")


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    shutil.copytree(ROOT / "examples" / "images", tmp_path / "examples" / "images")
    random_llava().save_pretrained(tmp_path / "llava")
    processor(128).save_pretrained(tmp_path / "llava")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("omgvision.chat.MAX_NEW_TOKENS", 4)
    return tmp_path


def blocks(language: str) -> list[str]:
    return [
        found["code"]
        for found in FENCE.finditer(PAGE)
        if found["language"] == language and not found["before"].startswith("<!-- not run by the tests: ")
    ]


@pytest.mark.slow
def test_python_blocks_run_one_after_the_other(workplace):
    code = "\n\n".join(blocks("python"))
    exec(compile(code, "docs/chat.md", "exec"), {})
    assert (workplace / "out" / "answer.json").is_file()
    assert (workplace / "out" / "coffee" / "turn-3.answer.json").is_file()


@pytest.mark.slow
def test_shell_commands(workplace, capsys):
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 5
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "omg" and run(arguments) == 0, capsys.readouterr().err
    assert (workplace / "out" / "turns" / "turn-2.overlay.png").is_file()
