"""Recipes: overrides by text, stages."""

from dataclasses import replace
from pathlib import Path

import pytest

from omgvision.training.recipe import OptimizerSettings, Recipe, Stage, flat, override
from omgvision.training.recipes.finetune import finetune


def recipe() -> Recipe:
    return Recipe(name="stub", data=Path("d"), out=Path("o"), steps=10, stages=(Stage((8, 8), 1, 1.0),))


def test_overrides_are_parsed_by_type():
    changes = {
        "steps": "5",
        "minutes": "1.5",
        "out": "/tmp/run",
        "precision": "bf16",
        "optimizer.learning_rate": "3e-4",
        "optimizer.milestones": "0.5,0.75",
        "optimizer.betas": "0.9,0.95",
        "objective.prompts_only": "davis,sam",
    }
    changed = override(recipe(), changes)
    assert (changed.steps, changed.minutes, changed.out, changed.precision) == (5, 1.5, Path("/tmp/run"), "bf16")
    assert changed.optimizer == OptimizerSettings(learning_rate=3e-4, milestones=(0.5, 0.75), betas=(0.9, 0.95))
    assert changed.objective.prompts_only == ("davis", "sam")
    assert override(changed, {"minutes": "none"}).minutes is None


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("stepps", "5", "near names: steps"),
        ("steps", "five", "expected a whole number, got 'five'"),
        ("precision", "fp8", "expected one of fp32, bf16"),
        ("optimizer", "x", "expected one of its fields"),
        ("optimizer.betas", "0.9", "expected 2 values"),
        ("steps.more", "1", "steps has no fields of its own"),
        ("stages", "1", "write a recipe in Python"),
        ("steps", "0", "expected at least 1"),
        ("epochs", "0", "epochs: expected a positive number"),
        ("accumulation", "0", "accumulation: expected at least 1"),
        ("keep_checkpoints", "0", "keep_checkpoints: expected at least 1"),
    ],
)
def test_wrong_overrides_are_one_clear_line(key: str, text: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        override(recipe(), {key: text})
    assert "\n" not in str(caught.value)


def test_text_of_a_recipe_is_what_overrides_take():
    texts = flat(recipe())
    assert texts["optimizer.betas"] == "0.9,0.999"
    assert texts["strict"] == "false"
    changes = {name: text for name, text in texts.items() if name != "stages"}
    assert override(recipe(), changes) == recipe()


def test_epochs_become_steps():
    settings = replace(
        recipe(), steps=0, epochs=1.5, accumulation=2, stages=(Stage((8, 8), 4, 0.5), Stage((8, 8), 2, 0.5))
    )
    resolved = settings.with_steps(100, processes=2)
    # Half of the steps take 16 samples, half of them 8.
    assert (resolved.steps, resolved.epochs) == (13, None)
    assert recipe().with_steps(100, processes=2) == recipe()


def test_a_fingerprint_knows_the_samples_of_a_step_not_how_they_are_divided():
    one = replace(recipe(), stages=(Stage((8, 8), 4, 1.0),)).fingerprint(processes=1)
    other = replace(recipe(), stages=(Stage((8, 8), 1, 1.0),), accumulation=2, out=Path("x"), workers=7)
    assert other.fingerprint(processes=2) == one
    assert other.fingerprint(processes=1) != one
    assert replace(recipe(), seed=3).fingerprint(processes=1)["seed"] == "3"


def test_data_may_have_moved_when_a_run_continues():
    one = finetune()
    places = {name: Path("elsewhere", name) for name in ("data", "images", "masks", "val", "out")}
    assert replace(one, **places).fingerprint(processes=1) == one.fingerprint(processes=1)


def test_stages_by_share():
    three = Recipe(
        name="stub",
        data=Path("d"),
        out=Path("o"),
        steps=10,
        stages=(Stage((8, 8), 1, 0.5), Stage((16, 16), 1, 0.3), Stage((32, 32), 1, 0.2)),
    )
    assert [three.stage_at(share) for share in (0, 0.49, 0.5, 0.79, 0.8, 1)] == [0, 0, 1, 1, 2, 2]


def test_shares_must_add_up():
    with pytest.raises(ValueError, match="add up to 1"):
        Recipe(name="stub", data=Path("d"), out=Path("o"), steps=10, stages=(Stage((8, 8), 1, 0.5),))


def test_a_stage_is_reached_by_its_number():
    recipe = override(RECIPE_WITH_STAGES, {"stages.1.size": "64,96", "stages.0.batch_size": "3"})
    assert [stage.size for stage in recipe.stages] == [(32, 32), (64, 96)]
    assert [stage.batch_size for stage in recipe.stages] == [3, 1]


def test_changes_are_checked_together():
    """Each of them alone would not add up."""
    recipe = override(RECIPE_WITH_STAGES, {"stages.0.share": "0.25", "stages.1.share": "0.75"})
    assert [stage.share for stage in recipe.stages] == [0.25, 0.75]
    assert override(recipe, {"steps": "0", "epochs": "2"}).epochs == 2
    with pytest.raises(ValueError, match=r"add up to 1, got 1\.25"):
        override(recipe, {"stages.0.share": "0.5"})


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("stages.2.size", "stages.2.size: expected a number from 0 to 1 in place of '2'"),
        ("stages.first.size", "in place of 'first'"),
        ("stages.0", "stages.0: expected one of its fields .* size, batch_size, share"),
    ],
)
def test_a_stage_that_is_not_there(key, message):
    with pytest.raises(ValueError, match=message):
        override(RECIPE_WITH_STAGES, {key: "64,64"})


RECIPE_WITH_STAGES = Recipe(
    name="two", data=Path("."), out=Path("."), steps=1, stages=(Stage((32, 32), 1, 0.5), Stage((48, 48), 1, 0.5))
)
