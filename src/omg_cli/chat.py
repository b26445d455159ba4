"""`omg chat`: a conversation about a picture, in words and masks."""

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options

if TYPE_CHECKING:
    from PIL import Image

    from omgvision.models.omg_llava.prompts_omg_llava import Prompt

    from .chat_terminal import Turn


class Task(str, Enum):
    """What to ask, in the words that the published weights know."""

    caption = "caption"
    refer = "refer"
    gcg = "gcg"
    region = "region"
    segment = "segment"
    vqa = "vqa"
    choice = "choice"


class Bits(str, Enum):
    """Of the language model's matrices."""

    four = "4bit"
    eight = "8bit"


WORDLESS = ("caption", "gcg", "region")


def chat(
    image: Annotated[
        str | None, typer.Argument(metavar="[IMAGE]", help="Image file or http(s) address; none = words alone.")
    ] = None,
    ask: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="A question; several are turns of one conversation.")
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(
            help="Ask for a caption, a caption with a mask for each phrase (gcg), what is pointed at (region), or, with"
            " the words of --ask, a mask of what is meant (refer), of a class (segment), an answer (vqa), one of"
            " several --choice."
        ),
    ] = None,
    choice: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="An option of task choice; repeat for A, B, …")
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(metavar="X,Y", help="Point at something; repeat for more. <mark> in the question stands for it."),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(metavar="X0,Y0,X1,Y1", help="A box around something; <region> in the question stands for it."),
    ] = None,
    mask: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="A region as an image of the same size, not black inside.")
    ] = None,
    model: options.Model = None,
    adapter: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="A peft adapter that was trained on the model.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="FOLDER", help="Where answer.json, overlay.png and the masks go; by default nowhere."
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told before everything else.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Longest answer, in tokens; by default 512, if the model reads that."),
    ] = None,
    temperature: Annotated[float, typer.Option(metavar="T", help="0 = the likeliest words; more is livelier.")] = 0.0,
    top_p: Annotated[float, typer.Option(metavar="P", help="With a temperature: share of likely words.")] = 1.0,
    top_k: Annotated[int, typer.Option(metavar="K", help="With a temperature: how many likely words; 0 = all.")] = 50,
    drop_oldest: Annotated[
        bool, typer.Option("--drop-oldest", help="Forget the oldest turns when the conversation grows too long.")
    ] = False,
    quantization: Annotated[Bits | None, typer.Option(help="Fewer bits for the language model, on a GPU.")] = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
) -> int:
    """Talk about a picture: captions, answers, masks of what is meant, descriptions of what you point at.

    [bold]omg chat photo.jpg[/bold] opens a conversation (/help lists its commands).

    [bold]omg chat photo.jpg --task refer --ask "the man on the left" --out result[/bold] asks once.
    """
    _check(task, ask=ask, choice=choice, pointed=bool(point or box or mask), has_image=image is not None)
    points = [[options.read_numbers(text, "--point", "X,Y", counts=(2,))] for text in point or ()]
    boxes = [options.read_numbers(text, "--box", "X0,Y0,X1,Y1", counts=(4,)) for text in box or ()]

    from omgvision import load
    from omgvision.hub import BUNDLED_CHAT
    from omgvision.inputs import load_image
    from omgvision.output_files import ensure_writable

    from .chat_terminal import ChatTerminal, Settings

    options.quiet_libraries()
    # What cannot be read, written or asked is reported before the weights are loaded.
    if out is not None:
        ensure_writable(out)
    picture = None if image is None else load_image(image)
    turns = _turns(task, ask or [], choice or [], _pointed(picture, points=points, boxes=boxes, masks=mask))
    predictor = load(
        model or BUNDLED_CHAT,
        device=device,
        dtype=dtype,  # type: ignore[arg-type]
        adapter=adapter,
        quantization=None if quantization is None else quantization.value,
    )
    settings = Settings(
        max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k, drop_oldest=drop_oldest
    )
    terminal = ChatTerminal(predictor, picture, settings=settings, system=system)
    if turns and (task or ask):
        try:
            for turn in turns:
                terminal.answer(turn)
        finally:
            # What was answered before an error is written all the same.
            if out is not None and terminal.turns:
                terminal.save(out)
        return 0
    return terminal.talk(pointed=[prompt for turn in turns for prompt in turn.prompts], out=out)


def _check(
    task: Task | None, *, ask: list[str] | None, choice: list[str] | None, pointed: bool, has_image: bool
) -> None:
    """Raises what is wrong about the options without a look at anything else."""
    name = "" if task is None else task.value
    if not has_image and pointed:
        raise options.complain("--point, --box and --mask are places in a picture: give IMAGE as well")
    if not has_image and name not in ("", "vqa", "choice"):
        raise options.complain(f"--task {name} is about a picture: give IMAGE as well")
    if name not in ("", *WORDLESS) and not ask:
        raise options.complain(f"--task {name}: expected words with --ask, got none")
    if name == "region" and not pointed:
        raise options.complain("--task region: expected --point, --box or --mask, got none of them")
    if name in ("caption", "gcg") and pointed:
        raise options.complain(
            f"--task {name} is about the whole picture: leave --point, --box and --mask out, or ask --task region"
        )
    if bool(choice) != (task is Task.choice):
        raise options.complain("--choice gives the options of --task choice: give both or neither")
    if any(not text.strip() for text in ask or ()):
        raise options.complain("--ask: expected some words, got none")


def _pointed(
    picture: "Image.Image | None", *, points: list[list[list[float]]], boxes: list[list[float]], masks: list[str] | None
) -> "list[Prompt]":
    from omgvision.chat_prompts import pointed_at

    return [] if picture is None else pointed_at(picture, points=points, boxes=boxes, masks=masks)


def _turns(task: Task | None, ask: list[str], choice: list[str], prompts: "list[Prompt]") -> "list[Turn]":
    """What is asked one after the other; what is pointed at belongs to the first question."""
    from omgvision.chat_prompts import placeholder, worded
    from omgvision.chat_tasks import task_question

    from .chat_terminal import Turn

    turns: list[Turn] = []
    name = None if task is None else task.value
    if name == "region":  # one question for each
        turns += [Turn("", task=name, prompts=(prompt,)) for prompt in prompts]
        name, prompts = None, []
    elif name == "caption" or name == "gcg":
        turns.append(Turn("", task=name))
        name = None
    for text in ask:
        turns.append(Turn(text, task=name, options=tuple(choice), prompts=tuple(prompts)))
        prompts = []
    for turn in turns:
        names = [placeholder(prompt) for prompt in turn.prompts]
        worded(
            turn.words
            if turn.task is None
            else task_question(turn.task, turn.words, placeholders=names, options=turn.options),
            turn.prompts,
        )
    return turns or ([Turn("", prompts=tuple(prompts))] if prompts else [])
