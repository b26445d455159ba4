"""All files of a video together, PNG files, and what remains when the work is interrupted."""

import json
import logging

import numpy as np
import pytest
from PIL import Image

from omgvision.data.datasets.davis import Davis
from omgvision.errors import UserError
from omgvision.evaluation.scores import davis as davis_score
from omgvision.results import FrameStamp, Result, SegmentLabel
from omgvision.video_outputs import VIDEO_FORMATS, PngWriter, VideoOutputs, davis_palette, davis_png
from tests.clips import read_clip
from tests.video_results import CATEGORIES, FRAMES, HEIGHT, WIDTH, picture, track_map, video_results


def objects(index: int) -> Result:
    """Frame `index` with objects 1 and 2."""
    return Result.from_label_map(
        np.unique(track_map(index) * (track_map(index) != 7), return_inverse=True)[1].reshape(HEIGHT, WIDTH),
        {1: SegmentLabel(), 2: SegmentLabel()},
        task="objects",
        image=picture(index),
        frame=FrameStamp(index, index / 10, f"{index:05d}"),
    )


def test_all_formats_at_once(tmp_path):
    with VideoOutputs(tmp_path / "out", formats=VIDEO_FORMATS, name="street") as outputs:
        for result in video_results():
            outputs.write(result)
    written = {str(path.relative_to(tmp_path / "out")) for path in outputs.written}
    assert written == {
        "overlay.mp4",
        "frames",
        "youtube_vis/results.json",
        "youtube_vis/annotations.json",
        "vipseg/pred.json",
        "vipseg/pan_pred/street",
        "vspw/street",
        "davis/street",
        "mots/street.txt",
    }
    names = [f"{index:05d}.png" for index in range(FRAMES)]
    for folder in ("frames", "vipseg/pan_pred/street", "vspw/street", "davis/street"):
        assert sorted(path.name for path in (tmp_path / "out" / folder).iterdir()) == names
    pictures, times = read_clip(tmp_path / "out" / "overlay.mp4")
    assert times == pytest.approx([0, 0.1, 0.2, 0.3, 0.4], abs=1e-4)
    still = np.asarray(Image.open(tmp_path / "out" / "frames" / "00003.png")).astype(float)
    assert np.abs(pictures[3] - still).mean() < 8
    classes = np.asarray(Image.open(tmp_path / "out" / "vspw" / "street" / "00000.png"))
    assert (classes[0, 0], classes[35, 5], classes[25, 42], classes[45, 0]) == (2, 0, 1, 255)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("a frame of another size")])
def test_what_was_done_is_kept(tmp_path, error):
    """After Ctrl-C, or an error in the middle: whole files of the frames so far."""

    def work() -> None:
        with VideoOutputs(tmp_path, formats=VIDEO_FORMATS, name="street") as outputs:
            for index, result in enumerate(video_results()):
                if index == 2:
                    raise error
                outputs.write(result)

    with pytest.raises(type(error)):
        work()
    assert not list(tmp_path.rglob("*.partial"))
    assert len(read_clip(tmp_path / "overlay.mp4")[0]) == 2
    assert len(json.loads((tmp_path / "youtube_vis" / "results.json").read_text())[0]["segmentations"]) == 2
    (video,) = json.loads((tmp_path / "vipseg" / "pred.json").read_text())["annotations"]
    assert len(video["annotations"]) == 2


def test_nothing_is_written_without_a_frame(tmp_path):
    with VideoOutputs(tmp_path / "out", formats=VIDEO_FORMATS, name="street") as outputs:
        pass
    assert outputs.written == []
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="not a folder"):
        VideoOutputs(tmp_path / "file", formats=["mp4"], name="street")


def test_one_failing_writer_does_not_cost_the_others(tmp_path, monkeypatch):
    def broken(self) -> list:
        raise UserError("disk full")

    monkeypatch.setattr("omgvision.video_outputs.Mp4Writer.close", broken)
    outputs = VideoOutputs(tmp_path, formats=["mp4", "vipseg"], name="street")
    outputs.write(next(video_results()))
    with pytest.raises(UserError, match="disk full"):
        outputs.close()
    assert (tmp_path / "vipseg" / "pred.json").is_file()


# -------------------------------------------------------------------------------------------------------------- DAVIS


def test_palette_is_the_one_of_davis():
    colors = np.frombuffer(davis_palette(), dtype=np.uint8).reshape(256, 3).tolist()
    # The first ones as davis2017-evaluation and PASCAL VOC have them, and the last, which is void.
    assert colors[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colors[7:10] == [[128, 128, 128], [64, 0, 0], [192, 0, 0]]
    assert colors[255] == [224, 224, 192]
    assert len({tuple(color) for color in colors}) == 256


def test_davis_files_are_scored_and_a_data_set(tmp_path):
    with VideoOutputs(tmp_path, formats=["davis"], name="horse") as outputs:
        for index in range(FRAMES):
            outputs.write(objects(index))
    image = Image.open(tmp_path / "davis" / "horse" / "00001.png")
    assert (image.mode, image.getpalette()) == ("P", list(davis_palette()))
    assert davis_score.score(tmp_path / "davis", tmp_path / "davis")["J&F"] == pytest.approx(1.0)
    (tmp_path / "davis").rename(tmp_path / "Annotations")
    frames = tmp_path / "JPEGImages" / "horse"
    frames.mkdir(parents=True)
    for index in range(FRAMES):
        picture(index).save(frames / f"{index:05d}.jpg")
    (video,) = Davis(tmp_path, strict=True).videos
    assert np.array_equal(video.layers(4)[0].numpy(), objects(4).label_map)


def test_ids_that_a_davis_file_cannot_hold(caplog):
    result = next(video_results())
    with caplog.at_level(logging.WARNING):
        values = np.asarray(davis_png(result))
    assert set(np.unique(values)) == {0, 3, 7}
    assert "left out" in caplog.text


def test_pictures_of_an_earlier_run_are_told_and_left_alone(tmp_path, caplog):
    (tmp_path / "00099.png").touch()
    writer = PngWriter(tmp_path, picture=Result.overlay)
    writer.write(
        Result.from_masks([], [], task="panoptic", image=picture(0), categories=CATEGORIES, frame=FrameStamp(0, 0))
    )
    with caplog.at_level(logging.WARNING):
        writer.close()
    assert "1 pictures more" in caplog.text
    assert (tmp_path / "00099.png").exists()
