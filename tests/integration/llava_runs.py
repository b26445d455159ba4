"""Small runs of OMG-LLaVA's recipes; two processes do theirs with `python -m tests.integration.llava_runs FOLDER`.

FOLDER holds `data` (all data sets in their layouts) and `start` (a model with a decoder of its own).
"""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from omgvision.training.llava_objective import ConversationObjective
from omgvision.training.processes import joined
from omgvision.training.recipe import OptimizerSettings, Stage
from omgvision.training.recipes import llava, llava_mix
from omgvision.training.recipes.llava import LlavaRecipe
from omgvision.training.trainer import Run, train
from tests.integration.training_runs import use_fsdp2
from tests.llava_folders import SIDE

STEPS = 3


def small_objective(start: Path, *, batch_size: int = 2, **changes: Any) -> tuple[ConversationObjective, LlavaRecipe]:
    """Referring with adapters and a decoder of its own, from the folder `start`; always the same weights."""
    recipe = replace(
        llava.refseg(),
        start=start,
        rank=2,
        steps=STEPS,
        epochs=None,
        stages=(Stage((SIDE, SIDE), batch_size, 1.0),),
        precision="fp32",
        gradient_checkpointing=False,
        workers=0,
        log_every=1,
        **{"accumulation": 1, "checkpoint_every": 1, "keep_checkpoints": 3, **changes},
    )
    torch.manual_seed(0)
    return llava.objective(recipe), recipe


def referring(recipe: LlavaRecipe) -> Any:
    return llava.source(recipe, mix=partial(llava.published_mix, ingredients=llava_mix.REFERRING))


def divided_run(folder: Path, name: str, *, batch_size: int, accumulation: int = 1) -> Run:
    """A run of two samples a step, without dropout, that ends with `FOLDER/NAME/learned.pt`."""
    objective, recipe = small_objective(
        folder / "start",
        data=folder / "data",
        out=folder / name,
        batch_size=batch_size,
        accumulation=accumulation,
        checkpoint_every=0,
        dropout=0.0,
        optimizer=OptimizerSettings(learning_rate=1e-3, warmup_steps=0, clip_norm=1.0),
    )
    run = train(objective, referring(recipe), recipe)
    learned = {each for each, value in objective.named_parameters() if value.requires_grad}
    if state := run.sharding.full():  # of the first process
        torch.save({each: state[each] for each in learned}, folder / name / "learned.pt")
    return run


def in_two_processes(folder: Path) -> None:
    """The runs of `test_llava_distributed.py`, under DDP and, sliced, under FSDP2."""
    assert joined().num_processes == 2
    divided_run(folder, "ddp", batch_size=1)
    use_fsdp2()
    assert divided_run(folder, "fsdp2", batch_size=1).sharding.slices_parameters


if __name__ == "__main__":
    in_two_processes(Path(sys.argv[1]))
