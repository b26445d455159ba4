"""What docs/video.md tells people to type works, in its order, with the tiny model and a tiny clip."""

import functools
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import omgvision
from omg_cli.main import run
from tests.clips import HEIGHT, WIDTH, scene, write_clip

PAGE = (Path(__file__).parents[2] / "docs" / "video.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)\n```", PAGE, re.DOTALL)


@pytest.fixture
def workplace(tmp_path, tiny_model_dir, monkeypatch):
    """A folder with the files that the page speaks of."""
    write_clip(tmp_path / "clip.mp4", frames=4, sound="aac")
    (tmp_path / "frames").mkdir()
    for index in range(4):
        Image.fromarray(scene(index)).save(tmp_path / "frames" / f"{index}.png")
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[20:40, :20], ids[2:15, 30:60] = 1, 2
    palette = Image.fromarray(ids, mode="P")
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    palette.save(tmp_path / "first.png")
    Image.fromarray((ids == 1).astype(np.uint8) * 255).save(tmp_path / "mask.png")
    monkeypatch.setattr(omgvision, "load", functools.partial(_load, omgvision.load, tiny_model_dir))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _load(load, folder, model=None, **arguments):
    """The tiny model in the place of the bundled one."""
    return load(folder, **arguments)


def test_commands(workplace, capsys):
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) >= 5
    for command in commands:
        verb, *words = shlex.split(command)
        assert verb == "omg"
        assert run(words) == 0, capsys.readouterr().err
        assert (workplace / words[words.index("--out") + 1] / "overlay.mp4").is_file()


def test_python(workplace, capsys):
    names: dict = {}
    for code in blocks("python"):
        exec(compile(code, "docs/video.md", "exec"), names)
    assert capsys.readouterr().out.count("\n") == 4
    assert (workplace / "written" / "overlay.mp4").is_file()
    assert (workplace / "written" / "mots" / "clip.txt").is_file()
    assert list(names["results"])[3].frame.index == 3


def test_table_of_constants_is_true():
    from omgvision.models.omg_seg import class_memory_omg_seg, tracking_omg_seg

    rows = re.findall(r"^\| `([A-Z_]+)` \| ([\d.]+) \|", PAGE.split("## What the past changes")[1], re.MULTILINE)
    known = {**vars(tracking_omg_seg), **vars(class_memory_omg_seg)}
    constants = {name: value for name, value in known.items() if re.fullmatch("[A-Z_]{2,}", name)}
    assert {name: float(value) for name, value in rows} == constants


def test_table_of_formats_is_complete():
    from omg_cli.track import DEFAULT_FORMATS, FORMATS

    rows = dict(re.findall(r"^\| `([a-z0-9-]+)` \|.*?\|(.*?)\|", PAGE.split("## Files")[1], re.MULTILINE))
    assert set(rows) == set(FORMATS)
    for task, formats in DEFAULT_FORMATS.items():
        assert formats[0] == "mp4"
        assert task.value in rows[formats[1]]
