"""What `--dry-run` shows; layers that compute their activations anew."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from omgvision.data import Augmentation, Mixture, Source, SyntheticScenes
from omgvision.training.plan import activations, plan
from omgvision.training.recipe import Recipe, Stage
from omgvision.training.run import RECIPES, Built
from tests.integration.training_runs import recipe as small_recipe
from tests.integration.training_runs import scenes, segmentation_objective

pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable.*:FutureWarning")


@pytest.fixture
def built(tmp_path: Path) -> Built[Any, Any]:
    recipe = small_recipe(tmp_path, batch_size=2, stages=(Stage((96, 96), 2, 0.5), Stage((160, 224), 1, 0.5)))
    objective = segmentation_objective()
    objective.model.model.backbone.requires_grad_(False)
    source = Mixture(
        [
            Source(SyntheticScenes(size=(96, 96), length=30), augmentation=Augmentation(), repeat=2),
            Source(SyntheticScenes(size=(96, 96), length=20, name="more"), augmentation=Augmentation()),
        ],
        seed=1,
    )
    return Built(RECIPES["nano"], recipe, objective, source)


def test_a_plan_counts(built: Built[Any, Any]):
    shown = plan(built)
    assert shown.datasets == (("synthetic", 60, 0.75), ("more", 20, 0.25))
    assert (shown.samples_per_epoch, shown.steps) == (80, 5)
    parameters = list(built.objective.parameters())
    rows = {name: (total, trained) for name, total, trained in shown.modules}
    total, trained = rows.pop("all")
    assert total == sum(p.numel() for p in parameters) == sum(row[0] for row in rows.values())
    assert trained == sum(row[1] for row in rows.values()) == total - rows["backbone"][0]
    assert rows["backbone"][1] == 0 and "text_model" in rows
    assert shown.memory["weights"] == 4 * total
    assert shown.memory["optimizer"] == 2 * shown.memory["gradients"] == 8 * trained
    text = "\n".join(shown.lines())
    for line in ("optimizer:\n  learning_rate: 0.001", "  - size (96, 96), batch_size 2, share 0.5", "steps "):
        assert line in text


def test_the_clock_has_no_steps(built: Built[Any, Any]):
    timed = replace(built.recipe, minutes=5.0)
    assert plan(replace(built, recipe=timed)).steps is None


def test_activations_grow_with_the_canvas_and_shrink_when_they_are_computed_anew(built: Built[Any, Any]):
    base, slope = activations(built.objective, built.source, built.recipe, 0)
    assert slope > 0
    built.objective.model.gradient_checkpointing_enable({"use_reentrant": False})
    anew = activations(built.objective, built.source, built.recipe, 0)
    large = 512 * 512
    assert anew[0] + anew[1] * large < 0.9 * (base + slope * large)


def test_activations_computed_anew_give_the_same_gradients():
    batch = scenes().batch(0, size=(64, 64), batch_size=2)
    gradients: list[dict[str, torch.Tensor]] = []
    for anew in (False, True):
        objective = segmentation_objective().train()
        if anew:
            objective.model.gradient_checkpointing_enable({"use_reentrant": False})
        torch.manual_seed(1)
        objective(batch, None, [3, 4])["loss"].backward()
        gradients.append({name: p.grad for name, p in objective.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


def test_every_recipe_has_a_line():
    assert all(isinstance(entry.recipe(), Recipe) and entry.summary for entry in RECIPES.values())
