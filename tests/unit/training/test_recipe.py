"""Recipes: overrides by text, stages."""

from pathlib import Path

import pytest

from omgvision.training.recipe import OptimizerSettings, Recipe, Stage, override


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
    ],
)
def test_wrong_overrides_are_one_clear_line(key: str, text: str, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        override(recipe(), {key: text})
    assert "\n" not in str(caught.value)


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
