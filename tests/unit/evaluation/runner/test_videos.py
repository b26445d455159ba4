"""Videos from frames to files and numbers, with somebody in the place of the tracker who knows the answers."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omg_cli.main import run
from omgvision import Predictor, Result, UserError
from omgvision.data.class_lists import load_class_list
from omgvision.evaluation.benchmarks import BENCHMARKS
from omgvision.evaluation.runner.run import evaluate
from omgvision.evaluation.runner.videos import collect_tracks, write_palette
from omgvision.results import Category, SegmentLabel
from tests.scoring import last_line

from . import layouts

OFFICIAL = {"vipseg": (61, 2, 0), "ovis": (1, 2, 1), "vspw": (3, 5, 1)}
"""List → numbers of the left and the right box and of the background."""


class Knowing(Predictor):
    """Finds both boxes in every frame."""

    def track(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, source: Iterable[Image.Image], *, task: str, mode: str, **arguments: Any
    ) -> Iterator[Result]:
        assert mode == "offline"
        for number, image in enumerate(source):
            yield self.answer(number, image, task=task, **arguments)

    def answer(
        self,
        number: int,
        image: Image.Image,
        *,
        task: str,
        classes: Any = None,
        clip_fusion: bool = False,
        threshold: float | None = None,
        masks: Mapping[int, np.ndarray] | None = None,
    ) -> Result:
        del clip_fusion
        assert (threshold == 0.0) == (task == "instance")
        if masks is not None:
            assert sorted(masks) == [1, 2]
            assert masks[2].sum() == layouts.masks(0)[1].sum()
            return Result.from_label_map(
                layouts.labels(number, (0, 1, 2)).astype(np.int32),
                {1: SegmentLabel(), 2: SegmentLabel()},
                task="click",
                image=image,
            )
        listed = load_class_list(classes)
        categories = [Category(name, thing) for name, thing in zip(listed.names, listed.things, strict=True)]
        left, right, ground = (listed.category_ids.index(one) for one in OFFICIAL[classes])
        about: dict[str, Any] = {"image": image, "categories": categories}
        if task == "instance":
            found = [SegmentLabel(left, score=0.9 - 0.1 * number), SegmentLabel(right, score=0.5)]
            return Result.from_masks(layouts.masks(number), found, task="instance", **about)
        labels = {1: SegmentLabel(left), 2: SegmentLabel(right), 3: SegmentLabel(ground)}
        ids = layouts.labels(number, (3, 1, 2)).astype(np.int32)
        return Result.from_label_map(ids, labels, task="panoptic" if task == "panoptic" else "semantic", **about)


@pytest.fixture
def knowing(predictor) -> Predictor:
    return Knowing(predictor.model, predictor.processor, name="knowing")


@pytest.mark.parametrize(
    ("name", "make", "numbers"),
    [
        # The original's VPQ is over all classes of VIPSeg, of which three occur here.
        ("vipseg-panoptic", layouts.vipseg, {"VPQ": 1.0, "VPQ@1,2,4,6": 3 / 124, "SQ": 1.0}),
        ("ovis", layouts.ovis, {"AP": 1.0, "AR10": 1.0}),
        ("vspw", layouts.vspw, {"mIoU": 1.0}),
        ("davis-2017", layouts.davis, {"J&F": 1.0, "J": 1.0}),
    ],
)
def test_who_knows_the_answers_gets_full_marks(name, make, numbers, knowing, tmp_path, capsys):
    make(tmp_path)
    report = evaluate(BENCHMARKS[name], tmp_path, knowing, out=tmp_path / "run")
    assert report is not None
    assert {key: report["numbers"][key] for key in numbers} == pytest.approx(numbers)
    assert list(report["per_sample"]["values"].values()) == pytest.approx([1.0, 1.0])
    code = run(report["check"].split(" ")[1:])
    captured = capsys.readouterr()
    scored = last_line((code, captured.out, captured.err))
    assert {key: report["numbers"][key] for key in scored} == scored
    assert scored.keys() & numbers.keys()
    part = evaluate(BENCHMARKS[name], tmp_path, knowing, out=tmp_path / "part", limit=1)
    assert part is not None
    assert (part["samples"], part["numbers"][next(iter(numbers))]) == (1, pytest.approx(1.0))
    assert Image.open(tmp_path / "run" / "worst.png").width > 100


@pytest.mark.parametrize(
    ("name", "make", "mode"),
    [
        ("vipseg-panoptic", layouts.vipseg, "stream"),
        ("ovis", layouts.ovis, "offline"),
        ("vspw", layouts.vspw, "stream"),
        ("davis-2017", layouts.davis, "offline"),
        ("davis-2017", layouts.davis, "stream"),
    ],
)
def test_the_real_tracker(name, make, mode, predictor, tmp_path):
    make(tmp_path)
    report = evaluate(BENCHMARKS[name], tmp_path, predictor, out=tmp_path / "run", limit=1, mode=mode)
    assert report is not None
    assert report["settings"]["mode"] == mode
    assert 0 <= next(iter(report["numbers"].values())) <= 1


@pytest.mark.parametrize(
    ("name", "own", "other", "message"),
    [
        (
            "youtube-vis-2019",
            "youtube_vis_2019",
            "youtube_vis_2021",
            "expected 28 as the category id of 'airplane', got 1",
        ),
        (
            "youtube-vis-2021",
            "youtube_vis_2021",
            "youtube_vis_2019",
            "expected 26 as the category id of 'person', got 1",
        ),
    ],
)
def test_the_same_numbers_of_other_classes(name, own, other, message, knowing, tmp_path):
    row = BENCHMARKS[name]
    for listed in (own, other):
        layouts.dump({"videos": [], "categories": layouts.categories(listed)}, tmp_path / "valid.json")
        if listed == own:
            assert not row.task(tmp_path, knowing, row.settings).sample_ids
    with pytest.raises(UserError, match=rf"valid\.json: {message}"):
        row.task(tmp_path, knowing, row.settings)


def test_annotations_that_are_not_public(knowing, tmp_path):
    layouts.ovis(tmp_path, annotated=False)
    report = evaluate(BENCHMARKS["ovis"], tmp_path, knowing, out=tmp_path / "run")
    assert report is not None
    assert (report["numbers"], report["check"]) == ({}, None)
    assert "not public" in report["note"]
    assert (tmp_path / "run" / "predictions" / "results.json").is_file()
    assert not (tmp_path / "run" / "worst.png").exists()


def test_tracks_have_their_mean_score_and_most_frequent_class(photo):
    categories = [Category("cat", True), Category("dog", True)]
    nothing, whole = np.zeros((60, 90), dtype=bool), np.ones((60, 90), dtype=bool)

    def result(masks, labels):
        return Result.from_masks(iter(masks), labels, task="instance", image=photo, categories=categories)

    one = SegmentLabel
    tracks = collect_tracks(
        [
            result([whole, nothing], [one(0, score=0.9), one(1, score=0.8)]),
            result([whole, whole], [one(1, score=0.6), one(0, score=0.4)]),
            result([whole], [one(1, score=0.3)]),
        ],
        length=4,
    )
    assert [(track.label, round(track.score, 6)) for track in tracks] == [(1, 0.6), (0, 0.4)]
    assert [[mask is not None for mask in track.masks] for track in tracks] == [
        [True, True, True, False],
        [False, True, False, False],
    ]


def test_palette(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_palette(labels, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), labels)
        palette = image.getpalette()
    assert palette is not None
    # The first colours of PASCAL VOC: nothing, aeroplane, bicycle, …; and the last, the void.
    assert palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert palette[255 * 3 :] == [255, 255, 255] or palette[255 * 3 :] == [224, 224, 192]


def test_missing_frames(knowing, tmp_path):
    folder = layouts.davis(tmp_path)
    (folder / "JPEGImages" / "480p" / "dog" / "00001.jpg").unlink()
    with pytest.raises(UserError, match=r"00001\.jpg"):
        evaluate(BENCHMARKS["davis-2017"], tmp_path, knowing, out=tmp_path / "run")
    for path in (folder / "Annotations" / "480p" / "dog").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="a PNG file for every frame"):
        evaluate(BENCHMARKS["davis-2017"], tmp_path, knowing, out=tmp_path / "other")
