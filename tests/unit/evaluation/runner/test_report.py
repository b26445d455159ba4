"""What a report says about published numbers and of the model, and which samples it shows."""

import hashlib
import os

import numpy as np
from PIL import Image

from omgvision import ClipConvNextConfig, OmgSegConfig
from omgvision.evaluation.benchmarks import BENCHMARKS, backbone_of
from omgvision.evaluation.runner.journal import Journal
from omgvision.evaluation.runner.report import checksums, comparison, shown, verdict, write
from omgvision.evaluation.runner.task import Panel, Task
from omgvision.visualization import grid
from omgvision.whole_video import CLIP_FRAMES, SHORT_CLIP_FRAMES, SHORT_VIDEO


def report(**changes):
    entry = BENCHMARKS["coco-panoptic"].published_for(OmgSegConfig())[0]
    return {
        "numbers": {"PQ": 0.5351, "SQ": 0.8},
        "published": [{**entry, "difference": 0.5351 - 0.538}],
        "samples": 5000,
        "samples_in_all": 5000,
        "original": "ConvNeXt-L",
        **changes,
    }


def test_within_the_noise_and_outside():
    assert comparison(report()) == [
        ["PQ", "53.51", "53.80", "±0.5", "OMG-Seg ConvNeXt-L; -0.29, within the published noise"],
        ["SQ", "80.00", "", "", ""],
    ]
    made = report()
    made["published"][0]["difference"] = -0.02
    assert comparison(made)[0][-1] == "OMG-Seg ConvNeXt-L; -2.00, outside the published noise"


def test_numbers_that_cannot_be_compared():
    part, other = report(samples=8), report(original=None)
    assert verdict(part, part["published"][0]).endswith("ours on 8 of 5000 samples: not comparable")
    assert verdict(other, other["published"][0]) == "OMG-Seg ConvNeXt-L; ours is another model"
    qwen = report(original="Qwen2-7B")
    assert verdict(qwen, {**qwen["published"][0], "model": "OMG-LLaVA InternLM2-7B, all tasks"}) == (
        "OMG-LLaVA InternLM2-7B, all tasks; ours is another model"
    )
    unsure = {**report()["published"][0], "confirmed": False, "noise": None}
    assert verdict(report(), unsure) == "OMG-Seg ConvNeXt-L, unconfirmed; -0.29"


class Drawn(Task):
    """Samples of one grey each."""

    quality = "PQ"
    sample_ids = [f"{number:02d}" for number in range(25)]

    def predict(self, sample_id, out):
        raise NotImplementedError

    def grade(self, sample_ids, records, out, *, workers):
        raise NotImplementedError

    def name(self, sample_id, record):
        return f"picture {record['number']}"

    def panel(self, sample_id, record, out):
        return Panel(Image.new("RGB", (30, 20), (10 * record["number"],) * 3))


def test_the_worst_samples(tmp_path):
    task, journal = Drawn(), Journal(tmp_path / "samples", writer="000")
    qualities = {number: (7 * number % 25) / 25 for number in range(25)} | {3: None}
    for number, quality in qualities.items():
        journal.append(f"{number:02d}", {"number": number}, quality)
    described = {"title": "Greys", "data": "-", "note": "", "check": None, "settings": {}, "environment": {}}
    described |= {"model": {"name": "tiny", "sha256": {}, "parameters": 1}, "per_class": {}}
    write(
        report(**described, per_sample={"number": "PQ"}),
        tmp_path,
        task=task,
        journal=journal,
        sample_ids=task.sample_ids,
    )
    # Twenty of the 24 with a number, the lowest first.
    rated = sorted((quality, number) for number, quality in qualities.items() if quality is not None)[:20]
    told = (tmp_path / "report.md").read_text().partition("## The worst 20 samples")[2].splitlines()
    rows = [f"| picture {number} | {100 * quality:.2f} |" for quality, number in rated]
    assert [line for line in told if line.startswith("| picture")] == rows
    pictures = [side for _, number in rated for side in task.panel("", {"number": number}, tmp_path).draw()]
    titles = [text for quality, number in rated for text in (f"picture {number}", f"PQ: {100 * quality:.1f}")]
    with Image.open(tmp_path / "worst.png") as sheet:
        assert np.array_equal(np.asarray(sheet), np.asarray(grid(pictures, columns=4, titles=titles)))


def test_shown():
    assert shown("PQ", 0.12345) == "12.35"
    assert shown("NoC@85", 3.5) == "3.50"
    assert shown("AP", None) == shown("AP", float("nan")) == "–"


def test_the_backbone_decides_which_number_is_beside_ours():
    large, huge = (
        OmgSegConfig(),
        OmgSegConfig(
            backbone_config=ClipConvNextConfig(hidden_sizes=(384, 768, 1536, 3072), depths=(3, 4, 30, 3)),
            clip_head="linear",
            embedding_dim=1024,
        ),
    )
    other = OmgSegConfig(backbone_config=ClipConvNextConfig(hidden_sizes=(8, 16, 24, 32), depths=(1, 1, 1, 1)))
    assert [backbone_of(config) for config in (large, huge, other)] == ["ConvNeXt-L", "ConvNeXt-XXL", None]
    values = [
        [entry["value"] for entry in BENCHMARKS["vipseg-panoptic"].published_for(config)]
        for config in (large, huge, other)
    ]
    assert values == [[0.498], [0.531], [0.498]]


def test_the_table_is_that_of_published_md():
    published = {
        (row.name, one.model.rpartition(" ")[2]): (one.value, one.confirmed)
        for row in BENCHMARKS.values()
        for one in row.published
    }
    assert published == {
        ("coco-panoptic", "ConvNeXt-L"): (0.538, True),
        ("coco-panoptic", "ConvNeXt-XXL"): (0.554, False),
        ("coco-instances", "ConvNeXt-L"): (0.445, False),
        ("coco-instances", "ConvNeXt-XXL"): (0.465, False),
        ("coco-interactive", "ConvNeXt-L"): (0.580, False),
        ("coco-interactive", "ConvNeXt-XXL"): (0.593, True),
        ("ade20k-panoptic", "ConvNeXt-L"): (0.279, True),
        ("ade20k-panoptic", "ConvNeXt-XXL"): (0.278, False),
        ("cityscapes-panoptic", "ConvNeXt-L"): (0.657, False),
        ("cityscapes-panoptic", "ConvNeXt-XXL"): (0.653, False),
        ("vipseg-panoptic", "ConvNeXt-L"): (0.498, True),
        ("vipseg-panoptic", "ConvNeXt-XXL"): (0.531, False),
        ("youtube-vis-2019", "ConvNeXt-L"): (0.564, True),
        ("youtube-vis-2019", "ConvNeXt-XXL"): (0.603, False),
        ("youtube-vis-2021", "ConvNeXt-L"): (0.505, True),
        ("youtube-vis-2021", "ConvNeXt-XXL"): (0.552, False),
        ("davis-2017", "ConvNeXt-L"): (0.743, False),
        ("davis-2017", "ConvNeXt-XXL"): (0.769, False),
    }
    noise = {
        row.name: row.published[0].noise for row in BENCHMARKS.values() if row.published and row.published[0].noise
    }
    assert noise == {"coco-panoptic": 0.005, "ade20k-panoptic": 0.008, "cityscapes-panoptic": 0.003}


def test_settings_of_the_original():
    settings = {name: row.settings for name, row in BENCHMARKS.items()}
    assert settings["coco-panoptic"].size == settings["coco-interactive"].size == (1333, 800)
    assert (settings["ade20k-panoptic"].size, settings["ade20k-panoptic"].clip_fusion) == ((2560, 640), True)
    assert settings["cityscapes-panoptic"].size == (2048, 1024)
    for name in ("vipseg-panoptic", "youtube-vis-2019", "youtube-vis-2021", "davis-2017"):
        assert (settings[name].size, settings[name].mode) == ((1280, 736), "offline")
    # Frames of a clip on VIPSeg; on YouTube-VIS and DAVIS; on both in videos of at most 15 frames.
    clips = CLIP_FRAMES["panoptic"], CLIP_FRAMES["instance"], CLIP_FRAMES["everything"], SHORT_CLIP_FRAMES, SHORT_VIDEO
    assert clips == (2, 5, 5, 3, 15)


def test_files_of_weights_are_read_once(predictor, tmp_path, monkeypatch):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"before")
    monkeypatch.setattr(predictor.model.config, "name_or_path", str(tmp_path))
    opened, original = [], hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *data: opened.append(data) or original(*data))
    before = checksums(predictor)
    assert checksums(predictor) == before == {weights.name: original(b"before").hexdigest()}
    assert len(opened) == 1
    weights.write_bytes(b"after")
    os.utime(weights, ns=(1, 1))
    assert checksums(predictor) == {weights.name: original(b"after").hexdigest()}
