"""From the name of a recipe to a folder of weights: what `omg train` calls."""

import difflib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from omgvision.training.objective import SegmentationObjective
from omgvision.training.recipe import Recipe, override
from omgvision.training.recipes import nano
from omgvision.training.trainer import BatchSource, Evaluate, train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A recipe and the functions that build what it describes."""

    recipe: Callable[[], Recipe]
    objective: Callable[[Recipe], SegmentationObjective]
    source: Callable[[Recipe], BatchSource]
    probe: Callable[[Recipe], Evaluate]
    vocabulary: Callable[[], tuple[list[str], list[bool]]]


RECIPES: Mapping[str, Entry] = {
    "nano": Entry(
        recipe=nano.nano,
        objective=nano.objective,
        source=nano.source,
        probe=nano.probe,
        vocabulary=nano.vocabulary,
    ),
}


def run(name: str, overrides: Mapping[str, str]) -> Path:
    """Trains a recipe, or continues it where `out` holds a checkpoint, and exports its averaged weights.

    Args:
        name: A key of `RECIPES`.
        overrides: Field name → text, see `override`; for example `{"data": "/data", "out": "runs/nano"}`.

    Returns:
        The exported folder: weights in half precision, processor, configuration with the recipe's vocabulary.

    Raises:
        ValueError: An unknown recipe or setting, a missing data set.
    """
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=3) or list(RECIPES)
        raise ValueError(f"recipe: expected one of {', '.join(near)}, got {name!r}")
    entry = RECIPES[name]
    recipe = override(entry.recipe(), overrides)
    torch.manual_seed(recipe.seed)
    objective = entry.objective(recipe)
    source = entry.source(recipe)
    probe = entry.probe(recipe) if recipe.evaluate_every else None
    averaged = train(objective, source, recipe, evaluate=probe)
    from omgvision.training.export import export

    folder = recipe.out / "weights"
    if PartialState().is_main_process:
        names, things = entry.vocabulary()
        with averaged.applied(objective):
            export(objective.model, folder, names=names, things=things, image_size=recipe.image_size)
    PartialState().wait_for_everyone()
    return folder
