"""The objective: next clicks, small masks, chosen classes, and a step that learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import CLIPTextConfig

import omgvision  # noqa: F401  (registers the backbone)
from omgvision.data import SyntheticScenes
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.vocabulary_omg_seg import TEMPLATES, build_clip_tokenizer
from omgvision.training.card import card
from omgvision.training.objective import SegmentationObjective, next_clicks, with_small_masks
from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage
from omgvision.training.sources import MixtureBatches, Part
from omgvision.training.trainer import train


def tiny(settings: ObjectiveSettings) -> SegmentationObjective:
    torch.manual_seed(0)
    config = OmgSegConfig(
        backbone_config=ClipConvNextConfig(hidden_sizes=(8, 16, 16, 32), depths=(1, 1, 1, 1)),
        text_config=CLIPTextConfig(
            vocab_size=49408,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            projection_dim=16,
        ),
        clip_head="linear",
        embedding_dim=16,
        hidden_size=32,
        num_attention_heads=2,
        num_queries=8,
        encoder_layers=1,
        encoder_ffn_dim=32,
        decoder_layers=2,
        decoder_ffn_dim=32,
        point_refinement=True,
        freeze_backbone=False,
        num_loss_points=64,
        dense_loss_weight=1.0,
        region_loss_weight=1.0,
    )
    return SegmentationObjective(
        OmgSegForUniversalSegmentation(config),
        tokenizer=build_clip_tokenizer(),
        templates=TEMPLATES,
        settings=settings,
    )


@pytest.fixture
def source() -> MixtureBatches:
    return MixtureBatches([Part(SyntheticScenes(size=(64, 64), length=100), weight=1.0)], seed=0)


def test_parts_of_the_loss_add_up(source: MixtureBatches):
    objective = tiny(ObjectiveSettings(points=2, boxes=1, prompt_weight=0.5))
    losses = objective(source.batch(0, size=(64, 64), batch_size=2))
    expected = losses["objects"] + 0.5 * losses["prompts"] + 0.5 * losses["refined"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    losses["loss"].backward()
    text = objective.model.text_model
    assert text is not None
    assert all(parameter.grad is not None for parameter in text.parameters())


def test_data_sets_can_train_the_prompts_alone(source: MixtureBatches):
    objective = tiny(ObjectiveSettings(points=2, boxes=1, prompts_only=("synthetic",)))
    assert "objects" not in objective(source.batch(0, size=(64, 64), batch_size=2))


def test_a_batch_without_masks_still_has_a_loss(source: MixtureBatches):
    batch = source.batch(0, size=(64, 64), batch_size=2)
    empty = replace(
        batch,
        mask_labels=[masks[:0] for masks in batch.mask_labels],
        class_labels=[labels[:0] for labels in batch.class_labels],
    )
    losses = tiny(ObjectiveSettings())(empty)
    assert losses["loss"].isfinite()
    losses["loss"].backward()


def test_chosen_classes_hold_those_of_the_batch():
    objective = tiny(ObjectiveSettings(max_classes=5))
    names = [f"class {index}" for index in range(20)]
    labels = [torch.tensor([17, 3, -1]), torch.tensor([3, 11])]
    chosen, renumbered = objective.choose_classes(names, labels)
    assert len(chosen) == 5
    assert [chosen[index] for index in renumbered[1].tolist()] == ["class 3", "class 11"]
    assert renumbered[0][2] == -1
    assert chosen[renumbered[0][0]] == "class 17"


def test_next_clicks_lie_in_the_error():
    targets = torch.zeros(1, 3, 16, 16, dtype=torch.bool)
    targets[0, :, 4:12, 4:12] = True
    logits = torch.full((1, 3, 16, 16), -1.0)
    logits[0, 1] = 1.0  # leaks everywhere
    logits[0, 2][targets[0, 2]] = 1.0  # perfect
    points, labels = next_clicks(logits, targets, canvas=(64, 64))
    assert labels[0, :, 0].tolist() == [1, 0, 1]
    for prompt, inside in ((0, True), (1, False), (2, True)):
        column, row = (points[0, prompt, 0] / 4).long().tolist()
        assert bool(targets[0, prompt, row, column]) is inside


def test_small_masks_keep_their_area(source: MixtureBatches):
    batch = source.batch(1, size=(64, 64), batch_size=2)
    small = with_small_masks(batch)
    for before, after in zip(batch.mask_labels, small.mask_labels, strict=True):
        assert after.shape[1:] == (32, 32)
        assert (after.sum((1, 2)) * 4).tolist() == pytest.approx(before.sum((1, 2)).tolist(), rel=0.3, abs=60)


def test_a_short_run_learns(tmp_path: Path, source: MixtureBatches):
    objective = tiny(ObjectiveSettings(points=2, boxes=1))
    batch = source.batch(0, size=(64, 64), batch_size=2)

    def loss() -> float:
        torch.manual_seed(1)
        with torch.no_grad():
            return objective(batch)["loss"].item()

    before = loss()
    recipe = Recipe(
        name="tiny",
        data=tmp_path,
        out=tmp_path / "run",
        steps=15,
        stages=(Stage((64, 64), 2, 1.0),),
        optimizer=OptimizerSettings(learning_rate=2e-3, backbone_factor=1.0, warmup_steps=2, clip_norm=1.0),
        workers=0,
        log_every=5,
        checkpoint_every=0,
    )
    train(objective, source, recipe)
    assert loss() < 0.8 * before


def test_the_card_is_made_of_results():
    row = {"metric": "PQ", "data": "COCO", "trained": 0.1, "untrained": 0.0, "trivial": 0.01, "trivial_is": "sky"}
    results = {
        "rows": [row],
        "note": "A note.",
        "training": {"steps": 5, "minutes": 1.0},
        "machine": {"cpu": "some cores"},
        "parameters": 8_000_000,
    }
    page = card(results)
    assert "| PQ | COCO | 10.0 | 0.0 | 1.0 | sky |" in page
    assert "license: cc-by-nc-sa-4.0" in page
    with pytest.raises(ValueError, match="--run"):
        card({**results, "training": None})
