"""The table of verbs, and what becomes of errors.

Exit codes: 0 done; 2 for what the user got wrong, with one line on stderr; 1 for our own fault, with a traceback;
130 when interrupted.
"""

import importlib.metadata
import sys
import traceback
from typing import Annotated

import typer

from . import chat, click, convert, data, evaluate, models, options, score, segment, serve, track, train

# Depending on its version, typer brings its own copy of click or uses the installed one. This is the base of either's
# errors about arguments.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="omg",
    help="One model for every segmentation task, by words, clicks, boxes, or everything; and it talks about it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("segment")(segment.segment)
app.command("click")(click.click)
app.command("track")(track.track)
app.command("chat")(chat.chat)
app.command("convert")(convert.convert)
app.command("models")(models.models)
app.command("serve")(serve.serve)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(data.app, name="data")
app.add_typer(score.app, name="score")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"omg {importlib.metadata.version('omgvision')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and leave.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and leave with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run the command line and return its exit code."""
    try:
        code = app(arguments, standalone_mode=False, prog_name="omg")
        return code if isinstance(code, int) else 0
    except typer.Exit as exit_request:
        return exit_request.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _complain("interrupted", 130)
    except BrokenPipeError:  # e.g. `omg models | head -1`
        sys.stderr.close()
        return 0
    except _UsageError as error:
        message = error.format_message()  # type: ignore[attr-defined]
        if not message:  # no arguments at all: the help was shown
            return 0
        return _complain(f"{message.rstrip('.')} (omg COMMAND --help explains)", 2)
    except Exception as error:
        if options.is_users(error):
            return _complain(str(error), 2)
        traceback.print_exc()
        return _complain("this is a bug in omgvision: please report it with the lines above", 1)


def _complain(message: str, code: int) -> int:
    print(f"omg: {' '.join(message.split())}", file=sys.stderr)
    return code
