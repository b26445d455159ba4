"""`omg train`: a recipe → weights."""

from typing import Annotated

import typer

from . import options


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a recipe, such as nano.")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE…", help="Changes to the recipe: data=FOLDER out=FOLDER steps=100 …"),
    ] = None,
) -> None:
    """Train by a recipe, or continue where it stopped.

    [bold]omg train nano data=FOLDER out=runs/nano[/bold]
    """
    changes: dict[str, str] = {}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key.strip():
            raise options.complain(f"{setting!r}: expected KEY=VALUE, such as steps=100")
        changes[key.strip()] = value.strip()

    from omgvision.training.run import run

    options.quiet_libraries(progress=True)
    folder = run(recipe, changes)
    print(f"written: {folder}")
