"""The objective: a step that learns, split in any way, on images, clips and prompts; next clicks, chosen classes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import omgvision  # noqa: F401  (registers the backbone)
from omgvision.data import SyntheticScenes
from omgvision.data.collate import collate
from omgvision.data.sample import Batch
from omgvision.models.omg_seg.points_omg_seg import PointSource
from omgvision.training.card import card
from omgvision.training.export import processor_for
from omgvision.training.guidance import WordGuidance
from omgvision.training.objective import SegmentationObjective, next_clicks, with_small_masks
from omgvision.training.recipe import ObjectiveSettings, OptimizerSettings, Recipe, Stage
from omgvision.training.recipes import joint
from omgvision.training.trainer import train
from tests.integration.training_runs import segmentation_objective


class Scenes:
    """Rendered scenes as batches by number."""

    def __init__(self):
        self.scenes = SyntheticScenes(size=(64, 64), length=100)

    def batch(self, step: int, *, size: tuple[int, int], batch_size: int, part: int = 0, parts: int = 1) -> Batch:
        first = (step * parts + part) * batch_size
        return collate([self.scenes[index % 100] for index in range(first, first + batch_size)])


@pytest.fixture
def source() -> Scenes:
    return Scenes()


class GridPoints:
    """The same points for every mask."""

    def points(self) -> Tensor:
        side = (torch.arange(8) + 0.3) / 8
        return torch.cartesian_prod(side, side)

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        return self.points()

    def loss(self, layer: int, logits: Tensor) -> Tensor:
        return self.points().expand(len(logits), -1, -1)


def split(batch: Batch) -> list[Batch]:
    """Its samples as batches of one."""
    return [
        replace(
            batch,
            pixel_values=batch.pixel_values[index : index + 1],
            pixel_mask=batch.pixel_mask[index : index + 1],
            mask_labels=[batch.mask_labels[index]],
            class_labels=[batch.class_labels[index]],
            sample_ids=(batch.sample_ids[index],),
        )
        for index in range(len(batch.mask_labels))
    ]


def as_clips(batch: Batch) -> Batch:
    """Every image as a clip of two frames, the second one mirrored."""
    return replace(
        batch,
        pixel_values=torch.stack((batch.pixel_values, batch.pixel_values.flip(-1)), dim=1),
        mask_labels=[torch.stack((masks, masks.flip(-1)), dim=1) for masks in batch.mask_labels],
    )


def step(
    objective: SegmentationObjective, batches: Sequence[Batch], seeds: Sequence[Sequence[int]]
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Sums of the losses and gradients over the batches of one step."""
    counts = [objective.normalizers(batch) for batch in batches]
    totals = {name: torch.stack([count[name] for count in counts]).sum() for name in counts[0]}
    objective.zero_grad()
    sums: dict[str, float] = {}
    for batch, seed in zip(batches, seeds, strict=True):
        torch.manual_seed(3)  # names, templates and words are those of the step
        losses = objective(batch, totals, seed)
        losses["loss"].backward()
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.item()
    return sums, {name: p.grad.clone() for name, p in objective.named_parameters() if p.grad is not None}


def assert_split_is_equal(objective: SegmentationObjective, batch: Batch) -> dict[str, float]:
    whole, whole_gradient = step(objective, [batch], [[5, 6]])
    parts, parts_gradient = step(objective, split(batch), [[5], [6]])
    assert parts == pytest.approx(whole, rel=1e-5)
    assert parts_gradient.keys() == whole_gradient.keys()
    largest = max(float(gradient.abs().max()) for gradient in whole_gradient.values())
    for name, gradient in whole_gradient.items():
        torch.testing.assert_close(parts_gradient[name], gradient, rtol=1e-4, atol=1e-6 * largest, msg=name)
    return whole


SETTINGS = ObjectiveSettings(points=2, boxes=1, prompt_weight=0.5, refinement_rounds=2)


@pytest.mark.parametrize("points", [GridPoints(), None], ids=["grid", "random"])
def test_a_split_step_is_the_whole_step(source: Scenes, points: PointSource | None):
    """One batch of two is two batches of one, whether the points are given or drawn."""
    torch.manual_seed(0)
    words = WordGuidance(["cat", "dog"], ["car", "tree", "sky"], teach=lambda names: torch.eye(len(names)), draws=8)
    batch = source.batch(1, size=(64, 64), batch_size=2)
    assert len(batch.mask_labels[0]) != len(batch.mask_labels[1])
    losses = assert_split_is_equal(segmentation_objective(SETTINGS, guidance=words, points=points), batch)
    assert {"objects", "prompts", "refined", "words", "objects/loss_dense", "objects/loss_region"} <= losses.keys()


def test_a_split_step_of_clips_is_the_whole_step(source: Scenes):
    batch = as_clips(source.batch(1, size=(64, 64), batch_size=2))
    losses = assert_split_is_equal(segmentation_objective(SETTINGS), batch)
    assert {"objects", "objects/loss_dense", "objects/loss_region", "prompts", "followed"} <= losses.keys()
    assert "refined" not in losses


def test_prompts_of_a_clip_are_on_its_first_frame(source: Scenes):
    """Objects that are not there yet are not asked for; those asked for are compared with their masks in all frames."""
    clips = as_clips(source.batch(1, size=(64, 64), batch_size=2))
    absent = clips.mask_labels[0].clone()
    absent[1:, 0] = False
    clips.mask_labels[0] = absent
    objective = segmentation_objective(SETTINGS)
    generators = [torch.Generator().manual_seed(index) for index in range(2)]
    prompts = objective.draw_prompts(clips.mask_labels, canvas=(64, 64), generators=generators)
    assert all(torch.equal(target, absent[0]) for target in prompts.mask_labels[0])
    assert prompts.points is not None
    x, y = prompts.points[0, 0, 0].long().tolist()
    assert absent[0, 0, y, x]


def test_no_prompts_are_drawn_where_none_are_wanted(source: Scenes):
    losses = segmentation_objective(replace(SETTINGS, points=0, boxes=0))(source.batch(1, size=(64, 64), batch_size=2))
    assert not {"prompts", "refined", "followed"} & losses.keys()


def test_an_image_without_masks_in_a_split_step(source: Scenes):
    batch = source.batch(1, size=(64, 64), batch_size=2)
    batch.mask_labels[0], batch.class_labels[0] = batch.mask_labels[0][:0], batch.class_labels[0][:0]
    assert_split_is_equal(segmentation_objective(SETTINGS), batch)


def test_a_batch_without_objects_takes_the_same_way(source: Scenes):
    """Sliced weights are gathered as the decoder runs: all processes have to run it equally often."""
    objective = segmentation_objective(SETTINGS)
    batch = source.batch(1, size=(64, 64), batch_size=2)
    usual = objective(batch)
    for image in range(2):
        batch.mask_labels[image], batch.class_labels[image] = (
            batch.mask_labels[image][:0],
            batch.class_labels[image][:0],
        )
    losses = objective(batch)
    assert losses.keys() == usual.keys()
    assert losses["prompts"].item() == losses["refined"].item() == 0
    losses["loss"].backward()
    assert all(p.grad.isfinite().all() for p in objective.parameters() if p.grad is not None)


def test_normalizers_follow_from_the_labels(source: Scenes):
    objective = segmentation_objective(SETTINGS)
    batch = source.batch(1, size=(64, 64), batch_size=2)
    masks = sum(map(len, batch.class_labels))
    counts = {name: float(count) for name, count in objective.normalizers(batch).items()}
    assert 0 < counts.pop("pixels") <= 2 * 1024
    assert counts == pytest.approx(
        {
            "masks": masks,
            "regions": masks,
            "classes": masks + 0.1 * (16 - masks),
            "prompts": 6,
            "clicks": 4,
            "batches": 1,
        }
    )
    assert {"prompts": 6.0, "clicks": 4.0}.items() <= objective.normalizers(as_clips(batch)).items()


def test_a_batch_with_prompts_trains_these_alone(source: Scenes):
    objective = segmentation_objective(SETTINGS)
    batch = source.batch(1, size=(64, 64), batch_size=2)
    generators = [torch.Generator().manual_seed(index) for index in range(2)]
    prompts = objective.draw_prompts(batch.mask_labels, canvas=(64, 64), generators=generators)
    given = replace(batch, prompts=prompts)
    assert {name: float(count) for name, count in objective.normalizers(given).items()} == {
        **dict.fromkeys(("masks", "classes", "regions", "pixels"), 0.0),
        "prompts": 6.0,
        "clicks": 4.0,
        "batches": 1.0,
    }
    assert objective(given).keys() == {"loss", "prompts", "refined"}
    boxes = replace(
        prompts,
        points=None,
        point_labels=None,
        prompt_mask=prompts.prompt_mask[:, 2:],
        mask_labels=[masks[2:] for masks in prompts.mask_labels],
    )
    assert objective(replace(batch, prompts=boxes)).keys() == {"loss", "prompts"}


def test_parts_of_the_loss_add_up(source: Scenes):
    objective = segmentation_objective(ObjectiveSettings(points=2, boxes=1, prompt_weight=0.5))
    losses = objective(source.batch(0, size=(64, 64), batch_size=2))
    expected = losses["objects"] + 0.5 * losses["prompts"] + 0.5 * losses["refined"]
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    losses["loss"].backward()
    text = objective.model.text_model
    assert text is not None
    assert all(parameter.grad is not None for parameter in text.parameters())


def test_data_sets_can_train_the_prompts_alone(source: Scenes):
    objective = segmentation_objective(ObjectiveSettings(points=2, boxes=1, prompts_only=("synthetic",)))
    assert "objects" not in objective(source.batch(0, size=(64, 64), batch_size=2))


def test_a_batch_without_masks_still_has_a_loss(source: Scenes):
    batch = source.batch(0, size=(64, 64), batch_size=2)
    empty = replace(
        batch,
        mask_labels=[masks[:0] for masks in batch.mask_labels],
        class_labels=[labels[:0] for labels in batch.class_labels],
    )
    losses = segmentation_objective(ObjectiveSettings())(empty)
    assert losses["loss"].isfinite()
    losses["loss"].backward()


def test_chosen_classes_hold_those_of_the_batch():
    objective = segmentation_objective(ObjectiveSettings(max_classes=5))
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
    points, labels = next_clicks(logits, targets, canvas=(64, 64), generators=[torch.Generator()])
    assert labels[0, :, 0].tolist() == [1, 0, 1]
    for prompt, inside in ((0, True), (1, False), (2, True)):
        column, row = (points[0, prompt, 0] / 4).long().tolist()
        assert bool(targets[0, prompt, row, column]) is inside


def test_small_masks_keep_their_area(source: Scenes):
    batch = source.batch(1, size=(64, 64), batch_size=2)
    small = with_small_masks(batch)
    for before, after in zip(batch.mask_labels, small.mask_labels, strict=True):
        assert after.shape[1:] == (32, 32)
        assert (after.sum((1, 2)) * 4).tolist() == pytest.approx(before.sum((1, 2)).tolist(), rel=0.3, abs=60)


def test_the_published_recipes_compare_with_whole_masks(monkeypatch: pytest.MonkeyPatch, source: Scenes):
    monkeypatch.setattr(joint, "over_clip", lambda *_: (segmentation_objective().model, processor_for(64)))
    objective = joint.objective(joint.joint())
    objective.points = GridPoints()
    batch = source.batch(0, size=(64, 64), batch_size=2)
    output = objective.model(
        batch.pixel_values,
        pixel_mask=batch.pixel_mask,
        class_embeddings=objective.embed(batch.names),
        mask_labels=batch.mask_labels,
        class_labels=batch.class_labels,
        loss_points=GridPoints(),
    )
    losses = objective(batch)
    for name in ("loss_mask", "loss_dice"):
        torch.testing.assert_close(losses[f"objects/{name}"], output.loss_dict[name])
    objective.half_masks = True
    assert abs(objective(batch)["objects/loss_mask"] - losses["objects/loss_mask"]) > 1e-4


def test_a_short_run_learns(tmp_path: Path, source: Scenes):
    objective = segmentation_objective(ObjectiveSettings(points=2, boxes=1))
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
    numbers = {"trained": 0.1, "earlier": 0.09, "untrained": 0.0, "trivial": 0.01}
    row = {"metric": "PQ", "data": "COCO", **numbers, "trivial_is": "sky"}
    results = {
        "rows": [row],
        "note": "A note.",
        "training": [{"steps": 7, "minutes": 2.0}, {"steps": 5, "minutes": 1.0}],
        "machine": {"cpu": "some cores"},
        "parameters": 8_000_000,
    }
    page = card(results)
    assert "| PQ | COCO | 10.0 | 9.0 | 0.0 | 1.0 | sky |" in page
    assert "| Steps | 7 + 5 |" in page
    assert "license: cc-by-nc-sa-4.0" in page
    with pytest.raises(ValueError, match="--earlier"):
        card({**results, "training": results["training"][:1]})
