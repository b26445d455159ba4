"""From the name of a recipe to a folder of weights: what `omg train` calls."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from omgvision.output_files import ensure_writable
from omgvision.training import checkpoint
from omgvision.training.export import WEIGHTS, export_with_coco
from omgvision.training.probe import Evaluation
from omgvision.training.processes import joined
from omgvision.training.recipe import Recipe, override
from omgvision.training.recipes import chat, finetune, joint, llava, llava_mix, llava_nano, nano
from omgvision.training.recipes.llava_mix import Mix
from omgvision.training.trainer import RecipeObjective, RecipeSource, train

R = TypeVar("R", bound=Recipe)
M = TypeVar("M", bound=RecipeObjective)

LAUNCH_FILES = Path(__file__).parent / "accelerate"
"""Folder of the launch files: `accelerate launch --config_file FILE -m omg_cli train RECIPE …`."""


@dataclass(frozen=True)
class Entry(Generic[R, M]):
    """A recipe and the functions that build what it describes."""

    recipe: Callable[[], R]
    objective: Callable[[R], M]
    source: Callable[[R], RecipeSource]
    probe: Callable[[R], Evaluation]
    export: Callable[[M, R], Path]
    prepare: Callable[[M, R], None] | None = None
    """Done once, before the first step of a run."""

    @property
    def summary(self) -> str:
        """First line of the recipe's docstring."""
        return (self.recipe.__doc__ or "").strip().splitlines()[0]


JOINT = Entry(
    recipe=joint.joint,
    objective=joint.objective,
    source=joint.joint_source,
    probe=joint.probe,
    export=export_with_coco,
)

NANO = Entry(
    recipe=nano.nano,
    objective=nano.objective,
    source=nano.source,
    probe=nano.probe,
    export=export_with_coco,
)


def llava_stage(recipe: Callable[[], llava.LlavaRecipe], mix: Callable[[Any], Mix]) -> Entry[Any, Any]:
    """A stage of OMG-LLaVA, on its data sets."""
    return Entry(
        recipe=recipe,
        objective=llava.objective,
        source=partial(llava.source, mix=mix),
        probe=partial(llava.probe, mix=mix),
        export=llava.export,
    )


RECIPES: Mapping[str, Entry[Any, Any]] = {
    "nano": NANO,
    "nano_joint": replace(NANO, recipe=nano.nano_joint, source=nano.joint_source),
    "nano_prompts": replace(
        NANO,
        recipe=nano.nano_prompts,
        objective=nano.prompt_objective,
        source=nano.prompt_source,
        export=nano.export_prompts,
    ),
    "finetune": Entry(
        recipe=finetune.finetune,
        objective=finetune.objective,
        source=finetune.source,
        probe=finetune.probe,
        export=finetune.export,
    ),
    "lora": Entry(
        recipe=finetune.lora,
        objective=finetune.lora_objective,
        source=finetune.source,
        probe=finetune.probe,
        export=finetune.export_lora,
    ),
    "joint": JOINT,
    "joint_yt21": replace(JOINT, recipe=joint.joint_yt21, source=joint.joint_yt21_source),
    "single_machine": replace(JOINT, recipe=joint.single_machine),
    "closed_set": replace(JOINT, recipe=joint.closed_set, source=joint.closed_set_source),
    "objects365": replace(JOINT, recipe=joint.objects365, source=joint.objects365_source),
    "llava_pretrain": llava_stage(llava.pretrain, partial(llava.published_mix, ingredients=llava_mix.PRETRAIN)),
    "llava_finetune": llava_stage(llava.finetune, partial(llava.published_mix, ingredients=llava_mix.FINETUNE)),
    "llava_refseg": llava_stage(llava.refseg, partial(llava.published_mix, ingredients=llava_mix.REFERRING)),
    "llava_gcg": llava_stage(llava.gcg, partial(llava.published_mix, ingredients=llava_mix.GROUNDED)),
    "llava_nano": Entry(
        recipe=llava_nano.llava_nano,
        objective=llava_nano.objective,
        source=llava_nano.source,
        probe=llava_nano.probe,
        export=llava_nano.export,
        prepare=llava_nano.prepare,
    ),
    "chat_finetune": llava_stage(chat.chat_finetune, chat.conversations),
}


@dataclass(frozen=True)
class Built(Generic[R, M]):
    """A recipe with the command line's changes, its steps counted, and what it trains on what."""

    entry: Entry[R, M]
    recipe: R
    objective: M
    source: RecipeSource


def build(name: str, overrides: Mapping[str, str]) -> Built[Any, Any]:
    """Everything that a run needs.

    Args:
        name: A key of `RECIPES`.
        overrides: Field name → text, see `override`; for example `{"data": "/data", "out": "runs/nano"}`.

    Raises:
        ValueError: An unknown recipe or setting, a missing data set, a folder `out` that cannot be written.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe: expected one of {', '.join(RECIPES)}, got {name!r}")
    entry = RECIPES[name]
    recipe = override(entry.recipe(), overrides)
    ensure_writable(recipe.out)  # told before weights and data are loaded
    torch.manual_seed(recipe.seed)
    objective = entry.objective(recipe)
    source = entry.source(recipe)
    processes = joined().num_processes
    recipe = recipe.with_steps(source.samples_per_epoch, processes=processes)
    if recipe.gradient_checkpointing:
        objective.model.gradient_checkpointing_enable({"use_reentrant": False})
    return Built(entry, recipe, objective, source)


def run(name: str, overrides: Mapping[str, str], *, resume: bool = False) -> Path | None:
    """Trains a recipe and exports its averaged weights.

    Args:
        name, overrides: As of `build`.
        resume: Continue the run that `out` holds, if it holds one.

    Returns:
        The exported folder: weights in half precision, processor, configuration with the recipe's vocabulary. None when
        a signal ended the run early; its checkpoint is written then.

    Raises:
        ValueError: As `build` and `train`.
    """
    if not joined().is_main_process:
        logging.getLogger("omgvision").setLevel(logging.ERROR)
    built = build(name, overrides)
    recipe = built.recipe
    probe = built.entry.probe(recipe) if recipe.evaluate_every else None
    if built.entry.prepare is not None and not checkpoint.kept(recipe.out):
        built.entry.prepare(built.objective, recipe)
    finished = train(
        built.objective,
        built.source,
        recipe,
        evaluate=probe,
        pictures=None if probe is None else probe.pictures,
        resume=resume,
    )
    if finished.share < 1:
        return None
    with finished.averaged_objective() as objective:
        if objective is not None:
            assert isinstance(objective, type(built.objective))
            built.entry.export(objective, recipe)
    return recipe.out / WEIGHTS
