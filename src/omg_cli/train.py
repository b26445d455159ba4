"""`omg train`: a recipe → weights."""

from typing import Annotated

import typer

from . import options


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="Name of a recipe, such as nano; without one they are listed."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="Changes to the recipe: data=FOLDER out=FOLDER steps=100 …"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in out=, if there is one; start it otherwise.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, data, parameters, steps and memory, and do nothing.")
    ] = False,
    launch_files: Annotated[
        bool, typer.Option("--launch-files", help="Show the launch files for several processes or GPUs.")
    ] = False,
) -> None:
    """Train by a recipe.

    [bold]omg train nano data=FOLDER out=runs/nano[/bold]

    On several GPUs: accelerate launch --config_file FILE -m omg_cli train nano …, with a FILE of
    [bold]omg train --launch-files[/bold], changed or not.

    SIGTERM and Ctrl-C save a checkpoint and leave with exit code 0 (accelerate's launcher itself leaves with 1 then);
    [bold]--resume[/bold] continues from it.
    """
    if launch_files:
        from omgvision.training.run import LAUNCH_FILES

        print("\n".join(str(path) for path in sorted(LAUNCH_FILES.glob("*.yaml"))))
        return
    if recipe is None:
        from omgvision.training.run import RECIPES

        width = max(map(len, RECIPES))
        print("\n".join(f"{name:{width}}  {entry.summary}" for name, entry in RECIPES.items()))
        return
    changes: dict[str, str] = {}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise options.complain(f"{setting!r}: expected KEY=VALUE, such as steps=100")
        changes[key.strip()] = value.strip()

    from omgvision.training.memory import keep_freed_memory
    from omgvision.training.processes import on_cpu
    from omgvision.training.run import build, run

    options.quiet_libraries(progress=True)
    if dry_run:
        from omgvision.training.plan import plan

        print("\n".join(plan(build(recipe, changes)).lines()))
        return
    if on_cpu():
        keep_freed_memory()
    folder = run(recipe, changes, resume=resume)
    if folder is not None:
        print(f"written: {folder}")
