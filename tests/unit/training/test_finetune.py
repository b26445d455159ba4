"""Fine-tuning: what is held back, what is trained, what comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import omgvision as omg
from omgvision.data.sample import Sample, layers_from_masks
from omgvision.training.prompt_validation import PromptValidation
from omgvision.training.recipe import override
from omgvision.training.recipes import finetune
from omgvision.training.run import run
from omgvision.training.start import with_places
from omgvision.training.validation import Validation, processor_of, run_lengths

SMALL = {
    "steps": "1",
    "stages.0.size": "64,64",
    "stages.0.batch_size": "2",
    "stages.1.size": "64,64",
    "stages.1.batch_size": "2",
    "evaluate_every": "1",
    "validate": "1",
    "workers": "0",
    "objective.points": "1",
    "objective.boxes": "1",
    "holdout": "3",
}


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Four pictures with two discs each, as a folder of images beside one of instance maps."""
    root = tmp_path / "cells"
    for folder in ("images", "instances"):
        (root / folder).mkdir(parents=True)
    rows, columns = np.mgrid[:48, :64]
    for number in range(4):
        labels = np.zeros((48, 64), dtype=np.uint8)
        for identity, centre in enumerate(((14, 16 + number), (32, 44)), start=1):
            labels[(rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < 64] = identity
        picture = np.where(labels[..., None] > 0, (200, 40, 90), (10, 20, 30)).astype(np.uint8)
        Image.fromarray(picture).save(root / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "instances" / f"{number}.png")
    return root


def as_segment_anything(cells: Path) -> Path:
    """The same pictures, each with a json of its masks."""
    root = cells / "sa-1b"
    root.mkdir()
    for path in (cells / "images").iterdir():
        Image.open(path).save(root / f"sa_{path.stem}.jpg")
        labels = np.asarray(Image.open(cells / "instances" / path.name))
        masks = [run_lengths(labels == identity) for identity in (1, 2)]
        entries = [{"segmentation": runs | {"counts": runs["counts"].decode()}} for runs in masks]
        (root / f"sa_{path.stem}.json").write_text(json.dumps({"annotations": entries}))
    return root


def as_davis(cells: Path) -> Path:
    """Two videos of the same four pictures."""
    root = cells / "davis"
    for video in ("a", "b"):
        for folder, images in (("JPEGImages", "images"), ("Annotations", "instances")):
            (root / folder / video).mkdir(parents=True)
            for path in (cells / images).iterdir():
                suffix = "jpg" if images == "images" else "png"
                Image.open(path).save(root / folder / video / f"{path.stem}.{suffix}")
    return root


def logged(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def settings(tiny_model_dir: Path, cells: Path, out: Path) -> dict[str, str]:
    return SMALL | {"start": str(tiny_model_dir), "data": str(cells), "classes": "cell", "out": str(out)}


@pytest.mark.parametrize(("length", "holdout", "back"), [(10, 5, [4, 9]), (4, 3, [2]), (2, 10, [1]), (7, 3, [2, 5])])
def test_split_holds_back_every_so_many(length, holdout, back):
    kept, held = finetune.split(length, holdout)
    assert held == back
    assert sorted(kept + held) == list(range(length))


def test_finetune_writes_weights_that_know_the_new_class(tiny_model_dir, cells, tmp_path):
    out = tmp_path / "run"
    folder = run("finetune", settings(tiny_model_dir, cells, out) | {"image_size": "96", "loss_points": "50"})
    assert folder == out / "weights"
    model = omg.load(folder)
    assert model.processor.image_processor.size["longest_edge"] == 96
    assert model.model.config.num_loss_points == 50
    assert model.classes == ["cell"]
    result = model.segment(cells / "images" / "0.png", task="instance", threshold=0.0)
    assert {segment.label for segment in result.segments} <= {"cell"}
    measured = {entry["step"]: entry["evaluation"] for entry in logged(out) if "evaluation" in entry}
    assert list(measured) == [0, 1]  # before and after
    assert set(measured[0]) == {"AP", "AP50", "PQ", "SQ", "RQ"}


@pytest.mark.parametrize(
    ("recipe", "layout", "parts"),
    [
        ("finetune", as_segment_anything, {"prompts", "refined"}),
        ("finetune", as_davis, {"prompts", "followed"}),
        ("lora", as_davis, {"prompts", "followed"}),
    ],
)
def test_data_without_classes_trains_and_measures_clicks_and_boxes(
    recipe, layout, parts, tiny_model_dir, cells, tmp_path
):
    out = tmp_path / "run"
    wanted = settings(tiny_model_dir, layout(cells), out) | {"classes": "", "log_every": "1"}
    folder = run(recipe, wanted)
    assert folder is not None
    assert omg.load(folder).classes == omg.load(tiny_model_dir).classes
    before, step, after = logged(out)
    assert step.keys() & {"objects", "prompts", "refined", "followed"} == parts
    assert step["gradient_norm"] > 0 and step["skipped"] == 0
    for entry in (before, after):
        assert set(entry["evaluation"]) == {"click IoU@1", "click IoU@2", "click IoU@3", "box IoU"}
        assert all(0 <= value <= 1 for value in entry["evaluation"].values())


def test_few_objects_of_a_picture_are_clicked_and_shown(tiny_model_dir, cells, tmp_path):
    recipe = override(finetune.finetune(), settings(tiny_model_dir, as_segment_anything(cells), tmp_path))
    validation, objective = finetune.probe(recipe), finetune.objective(recipe).eval()
    [picture] = validation.pictures(objective).values()
    assert picture.dtype == torch.uint8 and picture.shape == (3, 2 * 48, 64)
    masks = [np.roll(np.eye(48, 64, dtype=bool), shift, axis=1) for shift in range(9)]
    crowd = Sample(
        image=torch.zeros(3, 48, 64, dtype=torch.uint8),
        segment_layers=layers_from_masks(masks, 48, 64),
        labels=torch.full((9,), -1),
        names=(),
        things=(),
        sample_id="0",
        dataset="crowd",
    )
    kept = PromptValidation([crowd, crowd.keeping(torch.zeros(9, dtype=torch.bool))]).samples
    assert [len(sample.labels) for sample in kept] == [4]
    with pytest.raises(ValueError, match="expected pictures with objects, got 1 without"):
        PromptValidation([crowd.keeping(torch.zeros(9, dtype=torch.bool))])


@pytest.mark.parametrize("strict", [False, True])
def test_a_held_out_picture_that_cannot_be_read_is_left_out(strict, tiny_model_dir, cells, tmp_path, caplog):
    wanted = settings(tiny_model_dir, cells, tmp_path / "run") | {"val": str(cells), "validate": "4"}
    recipe = override(finetune.finetune(), wanted | {"strict": str(strict).lower()})
    finetune.parts(recipe)  # what cannot be opened at all is left out here
    (cells / "images" / "2.png").write_bytes((cells / "images" / "2.png").read_bytes()[:80])
    if strict:
        with pytest.raises(ValueError, match=r"evaluation: sample 2: .*2\.png"):
            finetune.probe(recipe)
        return
    validation = finetune.probe(recipe)
    assert isinstance(validation, Validation)
    assert [sample.sample_id for sample in validation.samples] == ["0", "1", "3"]
    (message,) = caplog.messages
    assert message.startswith("evaluation: left out 1 of 4 samples: sample 2: ") and "2.png" in message
    for number in (0, 1, 3):
        (cells / "images" / f"{number}.png").write_bytes(b"torn")
    with pytest.raises(ValueError, match=r"evaluation: sample 3: .*3\.png"):
        finetune.probe(recipe)


def test_pictures_are_measured_and_trained_on_at_the_size_that_was_asked_for(tiny_model_dir, cells, tmp_path):
    wanted = settings(tiny_model_dir, cells, tmp_path / "run")
    kept = override(finetune.finetune(), wanted | {"image_size": "0"})
    own = omg.load(tiny_model_dir).processor.image_processor.size
    assert processor_of(finetune.objective(kept)).image_processor.size == own
    recipe = override(finetune.finetune(), wanted | {"image_size": "96"})
    assert processor_of(finetune.objective(recipe)).image_processor.size["longest_edge"] == 96
    assert [finetune.source(each).sources[0].augmentation.longest_edge for each in (kept, recipe)] == [None, 96]


def test_more_segments_than_queries_are_mentioned(tiny_model_dir, cells, tmp_path, caplog):
    data = finetune.parts(override(finetune.finetune(), settings(tiny_model_dir, cells, tmp_path)))
    (cells / "images" / "0.png").write_bytes(b"torn")  # that is for the run to say
    finetune.warn_of_crowds(data, queries=2)
    assert not caplog.text
    finetune.warn_of_crowds(data, queries=1)
    assert "a picture holds 2 segments, and the weights have 1 queries" in caplog.text


def test_lora_trains_little_and_merges_to_the_same_outputs(tiny_model_dir, cells, tmp_path):
    recipe = override(finetune.lora(), settings(tiny_model_dir, cells, tmp_path / "run"))
    built = finetune.lora_objective(recipe)
    trained = [name for name, parameter in built.model.named_parameters() if parameter.requires_grad]
    assert trained and all("lora_" in name or "modules_to_save" in name for name in trained)
    with torch.no_grad():
        for name, parameter in built.model.named_parameters():
            if name in trained:
                parameter.add_(0.05 * torch.randn_like(parameter))
    built.model.eval()
    pixels = torch.randn(1, 3, 64, 64)
    folder = finetune.export_lora(built, recipe)
    merged = omg.load(folder, dtype="float32")
    with torch.inference_mode():
        expected = built.model(pixels)
        found = merged.model(pixels)
    # Stored in half precision.
    torch.testing.assert_close(found.masks_queries_logits, expected.masks_queries_logits, atol=0.05, rtol=0.02)
    base = omg.load(tiny_model_dir).model
    base.load_adapter(str(tmp_path / "run" / "adapter"))
    adapter = {name: tensor for name, tensor in base.state_dict().items() if name in trained}
    assert len(adapter) == len(trained)
    for name, tensor in adapter.items():
        torch.testing.assert_close(tensor, built.model.get_parameter(name))


def test_a_grid_of_queries_is_trained_and_kept(tiny_model_dir, cells, tmp_path):
    out = tmp_path / "run"
    folder = run("finetune", settings(tiny_model_dir, cells, out) | {"image_size": "96", "query_stride": "16"})
    assert folder is not None
    model = omg.load(folder, dtype="float32")
    assert model.model.config.query_stride == 16
    start = omg.load(tiny_model_dir).model.model.prompt_encoder
    trained = model.model.model.prompt_encoder
    assert start is not None and trained is not None and trained.place_embed is not None
    click = start.mask_token + start.prompt_embed[:1]
    assert 0 < float((trained.place_embed.weight - click).detach().abs().max()) < 0.1
    assert len(model.segment(cells / "images" / "0.png", task="instance", threshold=0.0).segments)


def test_adapters_hold_a_grid_of_queries(tiny_model_dir, cells, tmp_path):
    wanted = settings(tiny_model_dir, cells, tmp_path / "run") | {"query_stride": "16"}
    recipe = override(finetune.lora(), wanted)
    built = finetune.lora_objective(recipe)
    places = [name for name, parameter in built.model.named_parameters() if "place_embed" in name]
    [learned] = [name for name in places if built.model.get_parameter(name).requires_grad]
    with torch.no_grad():
        built.model.get_parameter(learned).add_(1.0)
    merged = omg.load(finetune.export_lora(built, recipe), dtype="float32").model.model.prompt_encoder
    base = with_places(omg.load(tiny_model_dir).model, 16)
    base.load_adapter(str(tmp_path / "run" / "adapter"))
    assert merged is not None and merged.place_embed is not None
    torch.testing.assert_close(merged.place_embed.weight, built.model.get_parameter(learned), atol=1e-2, rtol=1e-2)
    torch.testing.assert_close(base.get_parameter(learned), built.model.get_parameter(learned))


def test_a_grid_finds_more_than_a_hundred(tiny_model_dir, cells):
    model = omg.load(tiny_model_dir)
    placed = omg.Predictor(with_places(model.model, 8), model.processor)
    placed.processor.image_processor.size = {"longest_edge": 128, "shortest_edge": 96}
    picture = cells / "images" / "0.png"
    assert len(model.segment(picture, task="instance", threshold=0.0)) <= 100
    assert len(placed.segment(picture, task="instance", threshold=0.0)) > 100


def test_validation_data_must_have_the_same_classes(tiny_model_dir, cells, tmp_path):
    recipe = override(finetune.finetune(), settings(tiny_model_dir, cells, tmp_path) | {"val": str(cells)})
    assert len(finetune.parts(recipe).val) == 4
    (cells / "other").mkdir()
    annotations = {
        "images": [{"id": 1, "file_name": "0.png", "height": 48, "width": 64}],
        "categories": [{"id": 1, "name": "bacterium"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "iscrowd": 0}],
    }
    path = cells / "other.json"
    path.write_text(json.dumps(annotations))
    with pytest.raises(ValueError, match="val: expected the classes of"):
        finetune.parts(override(finetune.finetune(), settings(tiny_model_dir, cells, tmp_path) | {"val": str(path)}))
