"""`omg track`: sources, files, prompts, interruption, and bad input with one clear line and exit code 2."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import omgvision
from omg_cli import track
from omg_cli.main import run
from omgvision.video_outputs import VideoFormat, davis_palette
from tests.clips import HEIGHT, WIDTH, read_clip, read_tone, scene, write_clip, write_tone


@pytest.fixture
def omg(tiny_model_dir, tmp_path, capsys):
    """Runs `omg track` with the tiny model; returns exit code, standard output, standard error."""

    def call(*arguments: object) -> tuple[int, str, str]:
        words = ["track", "--model", tiny_model_dir, "--device", "cpu", "--out", tmp_path / "out", *arguments]
        code = run([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def refused(omg, tmp_path):
    """Runs a command that must fail: exit code 2, one line that names the matter, nothing written."""

    def call(*arguments: object, say: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        code, _, err = omg(*arguments)
        assert code == 2, err
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert lines[0].startswith("omg: ")
        assert say in lines[0], lines[0]
        assert sorted(tmp_path.rglob("*")) == before

    return call


@pytest.fixture
def clip(tmp_path) -> Path:
    return write_clip(tmp_path / "clip.mp4", frames=4, times=[0, 0.1, 0.3, 0.4], sound="aac")


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "horse").mkdir()
    for index in range(3):
        Image.fromarray(scene(index)).save(tmp_path / "horse" / f"{index}.png")
    return tmp_path / "horse"


def files(path: Path) -> set[str]:
    return {entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()}


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("panoptic", {"vipseg/pred.json", *(f"vipseg/pan_pred/clip/{index:05d}.png" for index in range(4))}),
        ("instance", {"youtube_vis/results.json", "youtube_vis/annotations.json"}),
        ("semantic", {f"vspw/clip/{index:05d}.png" for index in range(4)}),
        ("everything", {"youtube_vis/results.json", "youtube_vis/annotations.json"}),
    ],
)
def test_tasks_and_their_files(omg, clip, tmp_path, task, expected):
    code, out, err = omg(clip, "--task", task)
    assert (code, err) == (0, "")
    assert files(tmp_path / "out") == {"overlay.mp4"} | expected
    assert "clip: 4 frames" in out
    assert str(tmp_path / "out" / "overlay.mp4") in out


def test_mp4_has_the_times_and_the_sound_of_the_source(omg, clip, tmp_path):
    assert omg(clip, "--format", "mp4,png")[0] == 0
    pictures, times = read_clip(tmp_path / "out" / "overlay.mp4")
    assert times == pytest.approx([0, 0.1, 0.3, 0.4], abs=1e-4)
    assert pictures[0].shape == (HEIGHT, WIDTH, 3)
    assert len(read_tone(tmp_path / "out" / "overlay.mp4")[0])
    assert len(files(tmp_path / "out")) == 5


def test_folder_of_frames(omg, folder, tmp_path):
    assert omg(folder, "--task", "semantic", "--fps", "10", "--every", "2")[0] == 0
    assert files(tmp_path / "out") == {"overlay.mp4", "vspw/horse/0.png", "vspw/horse/2.png"}
    assert read_clip(tmp_path / "out" / "overlay.mp4")[1] == pytest.approx([0, 0.2], abs=1e-4)
    assert omg(folder / "*.png", "--limit", "1")[0] == 0


def test_words_have_the_numbers_of_their_list(omg, clip, tmp_path):
    assert omg(clip, "--task", "instance", "--classes", "youtube_vis_2019")[0] == 0
    content = json.loads((tmp_path / "out" / "youtube_vis" / "annotations.json").read_text())
    assert content["categories"][0] == {"id": 1, "name": "person"}
    assert omg(clip, "--classes", "dog,sky", "--things", "dog", "--threshold", "0.1", "--dtype", "bfloat16")[0] == 0
    content = json.loads((tmp_path / "out" / "vipseg" / "pred.json").read_text())
    assert [(entry["name"], entry["isthing"]) for entry in content["categories"]] == [("dog", 1), ("sky", 0)]


def test_offline(omg, clip, tmp_path):
    assert omg(clip, "--mode", "offline")[0] == 0
    assert len(read_clip(tmp_path / "out" / "overlay.mp4")[0]) == 4


def test_clips(omg, clip, tmp_path):
    assert omg(clip, "--clip-frames", "3", "--format", "vipseg")[0] == 0
    assert len(files(tmp_path / "out" / "vipseg" / "pan_pred" / "clip")) == 4


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.fixture
def asked(monkeypatch):
    """What `Predictor.track` is asked to follow: {frame: {object: prompt}}."""
    prompts: dict = {}

    def follow(self, source, **arguments):
        prompts.update(arguments["prompts"])
        assert arguments["task"] == "objects"
        return iter(())

    monkeypatch.setattr(omgvision.Predictor, "track", follow)
    return prompts


def test_points_boxes_and_masks(omg, clip, asked, tmp_path):
    region = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    region[5:20, 8:30] = 255
    Image.fromarray(region).save(tmp_path / "region@1.png")
    words = ("--point", "10,20", "--negative", "50.5,9@0", "--point", "12,20@2", "--box", "1,2,30,40")
    assert omg(clip, *words, "--mask", f"{tmp_path / 'region@1.png'}@1", "--box", "9:3,3,9,9@3")[0] == 0
    assert set(asked) == {0, 1, 2, 3}
    assert asked[0][1].points == ((10, 20), (50.5, 9))
    assert asked[0][1].labels == (1, 0)
    assert asked[0][2].box == (1, 2, 30, 40)
    assert asked[2][1].points == ((12, 20),)
    assert np.array_equal(asked[1][3].region, region > 0)
    assert asked[3][9].box == (3, 3, 9, 9)


def test_numbers_of_objects(omg, clip, asked, tmp_path):
    """A palette PNG has an object a value, 255 is void; what has no number gets a free one."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    ids[5:10, 5:10], ids[20:30, 20:30], ids[40:, 40:] = 1, 4, 255
    image = Image.fromarray(ids, mode="P")
    image.putpalette(davis_palette())
    image.save(tmp_path / "first.png")
    words = ("--mask", tmp_path / "first.png", "--box", "1,2,30,40", "--point", "4:25,25@3", "--point", "10,10@1")
    assert omg(clip, *words)[0] == 0
    assert set(asked[0]) == {1, 4, 3}
    assert np.array_equal(asked[0][4].region, ids == 4)
    assert set(asked[3]) == {4}
    assert set(asked[1]) == {2}


def test_objects_are_followed(omg, clip, tmp_path):
    code, out, err = omg(clip, "--point", "10,30@1", "--box", "7:2,2,30,40", "--format", "mp4,davis,mots")
    assert (code, err) == (0, "")
    assert "2 segments: object ×2" in out or "1 segment: object" in out
    values = [
        np.unique(np.asarray(Image.open(path))) for path in sorted((tmp_path / "out" / "davis" / "clip").iterdir())
    ]
    assert len(values) == 4
    assert set(np.concatenate(values)) <= {0, 1, 7}


def test_prompts_refused(refused, clip, folder, tmp_path):
    Image.new("L", (20, 20), 255).save(tmp_path / "small.png")
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "black.png")
    for words, say in [
        (("--task", "objects"), "nothing to follow"),
        (("--task", "panoptic", "--point", "3,3"), "finds its segments by itself"),
        (("--point", "3"), "--point 3: expected X,Y"),
        (("--point", "3,4@x"), "expected X,Y"),
        (("--box", "1,2,3@0"), "X0,Y0,X1,Y1"),
        (("--point", "0:3,4"), "numbered from 1"),
        (("--point", "300,4"), "outside of the image"),
        (("--box", "30,4,3,40"), "inverted"),
        (("--point", "3,4@4"), "no frame 4: expected one of 0 to 3"),
        (("--point", "3,4@1", "--every", "2"), "left out"),
        (("--point", "3,4@3", "--limit", "2"), "last of 2 frames"),
        (("--box", "1:1,2,3,4", "--point", "1:3,4"), "another prompt in this frame"),
        (("--mask", tmp_path / "small.png"), "[20, 20]"),
        (("--mask", tmp_path / "black.png"), "empty"),
        (("--mask", tmp_path / "none.png"), "does not exist"),
        (("--mask", "none.png@2"), "none.png does not exist"),
        (("--point", "3,4", "--classes", "dog"), "leave classes"),
    ]:
        refused(clip, *words, say=say)


# ------------------------------------------------------------------------------------------------------------ bad input


def test_sources_refused(refused, clip, folder, tmp_path):
    whole = clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.mp4").write_text("words")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "nothing").mkdir()
    write_tone(tmp_path / "tone.m4a")
    for source, say in [
        (tmp_path / "missing.mp4", "does not exist"),
        (tmp_path / "tone.m4a", "has no video"),
        (tmp_path / "cut.mp4", "cut off"),
        (tmp_path / "words.mp4", "it is no video"),
        (tmp_path / "empty.mp4", "0 bytes"),
        (tmp_path / "nothing", "holds no frames"),
        ("webcam:63", "webcam:63"),
        ("http://127.0.0.1:1/a.mp4", "Connection refused"),
    ]:
        refused(source, say=say)
    Image.fromarray(scene(0, width=80)).save(folder / "7.png")
    refused(folder, say="7.png has 80x48 pixels, expected 64x48")


def test_options_refused(omg, refused, clip, folder, tmp_path):
    for words, say in [
        ((clip, "--task", "all"), "panoptic"),
        ((clip, "--format", "avi"), "'avi'"),
        ((clip, "--format", ""), "--format"),
        ((clip, "--every", "0"), "--every"),
        ((clip, "--limit", "0"), "--limit"),
        ((clip, "--clip-frames", "0"), "--clip-frames"),
        ((clip, "--clip-frames", "2", "--mode", "offline"), "leave clip_frames out"),
        ((clip, "--fps", "10"), "times of its own"),
        ((folder, "--fps", "-1"), "rate"),
        ((clip, "--threshold", "7"), "threshold"),
        ((clip, "--task", "semantic", "--threshold", "0.5"), "no threshold"),
        ((clip, "--classes", "dog,,cat"), "''"),
    ]:
        refused(*words, say=say)
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(0o555)
    code, _, err = omg(clip, "--out", locked)
    assert (code, list(locked.iterdir())) == (2, [])
    assert "read-only" in err


def test_source_is_not_written_over(omg, tmp_path):
    out = tmp_path / "out"
    folders = ("frames", "vspw/clip", "davis/clip", "vipseg/pan_pred/clip", ".")
    for folder in folders:
        (out / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(scene(0)).save(out / folder / "00000.png")
    write_clip(out / "overlay.mp4", frames=2)
    (tmp_path / "link.mp4").symlink_to(out / "overlay.mp4")
    before = {path: path.read_bytes() for path in out.rglob("*.*")}
    for source in (*folders, *(f"{folder}/*.png" for folder in folders), "f*/0*.png", "overlay.mp4", "../link.mp4"):
        code, _, err = omg(out / source, "--format", "mp4,png,vspw")
        assert code == 2, source
        assert len(err.splitlines()) == 1
        assert "written over" in err
    assert {path: path.read_bytes() for path in out.rglob("*.*")} == before


def test_a_video_beside_its_results(omg, clip):
    """Also under a name that results have in another folder."""
    source = clip.rename(clip.parent / "overlay.mp4")
    assert omg(source, "--out", clip.parent / "results", "--limit", "1")[0] == 0
    assert omg(source.rename(clip), "--out", clip.parent, "--limit", "1")[0] == 0


def test_truncated_video_is_done_as_far_as_it_goes(omg, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (10, HEIGHT, WIDTH, 3), dtype=np.uint8)
    whole = write_clip(tmp_path / "a.mp4", frames=list(noise), options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    code, _, err = omg(tmp_path / "cut.mp4")
    assert code == 0
    assert "breaks off after" in err
    assert 2 <= len(read_clip(tmp_path / "out" / "overlay.mp4")[0]) < 10


def test_frames_before_a_change_of_size_are_kept(omg, tmp_path):
    parts = [
        write_clip(tmp_path / f"{height}.ts", frames=[scene(i, height=height) for i in range(6)]) for height in (48, 96)
    ]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    code, out, err = omg(tmp_path / "both.ts", "--format", "mp4,vipseg")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "64x96 pixels, expected 64x48" in err
    frames = len(read_clip(tmp_path / "out" / "overlay.mp4")[0])
    assert f"both: {frames} frames" in out
    (video,) = json.loads((tmp_path / "out" / "vipseg" / "pred.json").read_text())["annotations"]
    assert len(video["annotations"]) == frames


# --------------------------------------------------------------------------------------------------------- interruption


def test_interruption_keeps_what_was_done(omg, clip, tmp_path, monkeypatch):
    follow = omgvision.Predictor.track
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(self, source, **arguments):
        for number, result in enumerate(follow(self, source, **arguments)):
            if number == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(omgvision.Predictor, "track", interrupted)
    try:
        code, out, err = omg(clip, "--format", ",".join(track.FORMATS))
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # a second Ctrl-C changes nothing
    finally:
        signal.signal(signal.SIGINT, handler)
    assert code == 130
    assert err == "omg: interrupted after 2 frames, which are written\n"
    assert "written: " in out
    assert len(read_clip(tmp_path / "out" / "overlay.mp4")[0]) == 2
    json.loads((tmp_path / "out" / "youtube_vis" / "results.json").read_text())
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_of_a_running_command(tiny_model_dir, tmp_path):
    """A signal to the process, as the terminal sends it, twice."""
    source = write_clip(tmp_path / "long.mp4", frames=2000, sound="aac")
    words = ["track", source, "--model", tiny_model_dir, "--device", "cpu", "--out", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, "-m", "omg_cli", *map(str, words)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # What a shell starts in the background ignores the signal, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    done = tmp_path / "out" / "vipseg" / "pan_pred" / "long" / "00003.png"
    while process.poll() is None and not done.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert 3 <= len(read_clip(tmp_path / "out" / "overlay.mp4")[0]) < 2000
    assert not list(tmp_path.rglob("*.partial"))


def test_the_shell_knows_every_format():
    assert get_args(track.Format) == get_args(VideoFormat)
