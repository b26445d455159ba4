"""The recipes of the bundled weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from omgvision.data import Source, SyntheticScenes
from omgvision.data.mixture import Mixture
from omgvision.hub import load
from omgvision.training.optimizer import build_optimizer
from omgvision.training.recipes import nano
from omgvision.training.run import RECIPES

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"


def test_with_prompts_alone_nothing_else_learns(tmp_path):
    recipe = replace(nano.nano_prompts(), out=tmp_path)
    torch.manual_seed(0)
    objective = RECIPES["nano_prompts"].objective(recipe)
    mixture = Mixture([Source(SyntheticScenes(size=(64, 96), length=4), weight=1.0)], seed=0)
    batch = mixture.batch(0, batch_size=2, size=(64, 96))
    assert not objective.trains_objects(batch)
    losses = objective(batch)
    assert "objects" not in losses and "words" not in losses
    losses["loss"].backward()
    optimizer = build_optimizer(objective, recipe.optimizer)
    optimizer.step()
    exported = load(str(RECIPES["nano_prompts"].export(objective, recipe)), device="cpu").model.state_dict()
    start = load(None, device="cpu").model.state_dict()
    moved = {name for name, tensor in exported.items() if not torch.equal(tensor, start[name])}
    assert moved and all(name.startswith("model.prompt_encoder.") for name in moved)


def test_no_data_set_of_the_prompt_recipe_trains_objects():
    if not (DATA / "coco_mini").is_dir():
        pytest.skip(f"no {DATA / 'coco_mini'}")
    recipe = replace(nano.nano_prompts(), data=DATA)
    assert {name for name, *_ in nano.prompt_source(recipe).contents()} == set(recipe.objective.prompts_only)


def test_the_bundled_weights_are_better_than_the_first_on_every_number_of_the_card():
    rows = json.loads((ROOT / "docs" / "results" / "nano.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 15
    assert [row["metric"] for row in rows if row["trained"] <= row["earlier"]] == []
