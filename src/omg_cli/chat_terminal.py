"""A conversation in the terminal: what is typed, and answers as they come, phrases in the colours of their masks."""

import contextlib
import dataclasses
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from . import options

if TYPE_CHECKING:
    from PIL import Image

    from omgvision.answer import Answer
    from omgvision.models.omg_llava.prompts_omg_llava import Prompt
    from omgvision.predictor import Predictor

TaskName = Literal["caption", "refer", "gcg", "region", "segment", "vqa", "choice"]

HELP = """\
Type a question; what was said before is kept in mind. Commands:
  /point X,Y            point at something: <mark> in the next question stands for it
  /box X0,Y0,X1,Y1      a box around something: <region> stands for it
  /mask FILE            a region as an image, not black inside: <region> stands for it
  /caption              the picture in a sentence
  /gcg                  a caption with a mask for each phrase
  /region               what you pointed at, one after the other
  /refer WORDS          the mask of what the words mean
  /segment WORDS        the masks of a class
  /image FILE           another picture, a new conversation
  /reset                a new conversation about the same picture
  /save FOLDER          write all answers so far: answer.json, overlay.png, mask-1.png, …
  /help                 this
  /exit                 leave; so does the end of input (Ctrl-D)
Ctrl-C ends an answer that is too long."""


@dataclass(frozen=True)
class Turn:
    """What is asked: words, or a task with or without words; `prompts` are pointed at, `options` those of choice."""

    words: str
    task: TaskName | None = None
    options: tuple[str, ...] = ()
    prompts: "tuple[Prompt, ...]" = ()


@dataclass(frozen=True)
class Settings:
    """See `Conversation.ask`."""

    max_new_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    drop_oldest: bool


class ChatTerminal:
    """A conversation on standard input and output.

    Args:
        picture: What it is about; None = words alone.
        system: What the model is told before everything else.

    Attributes:
        turns: Questions and answers of all conversations: another picture, or a reset, takes nothing back.
    """

    def __init__(
        self, predictor: "Predictor", picture: "Image.Image | None", *, settings: Settings, system: str | None
    ) -> None:
        from rich.console import Console

        self._predictor, self._settings, self._system = predictor, settings, system
        self._console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
        self._conversation = predictor.open_chat(picture, system=system)
        self.turns: list[tuple[str, Answer]] = []
        self._pointed: list[Prompt] = []
        self._commands: dict[str, Callable[[str], object]] = {
            "/point": lambda text: self._point(points=[[options.read_numbers(text, "/point", "X,Y", counts=(2,))]]),
            "/box": lambda text: self._point(boxes=[options.read_numbers(text, "/box", "X0,Y0,X1,Y1", counts=(4,))]),
            "/mask": lambda text: self._point(masks=[text]),
            "/caption": lambda text: self._ask(text, task="caption"),
            "/gcg": lambda text: self._ask(text, task="gcg"),
            "/region": lambda text: self._ask_regions(text),
            "/refer": lambda text: self._ask(text, task="refer"),
            "/segment": lambda text: self._ask(text, task="segment"),
            "/image": self._open,
            "/reset": lambda text: self._reset(),
            "/save": lambda text: (
                self.save(Path(text).expanduser()) if text else self._complain("/save needs a folder")
            ),
            "/help": lambda text: self._console.print(HELP),
        }

    # --- asking ----------------------------------------------------------------------------------------------------

    def answer(self, turn: Turn) -> "Answer":
        """Asks, and prints the answer while it comes, then what it points at."""
        from rich.style import Style
        from rich.text import Text

        from omgvision.visualization import identity_color

        style, has_spoken = Style(), False

        def enter(mask: int | None) -> None:
            nonlocal style
            style = Style() if mask is None else _style(identity_color(mask + 1))

        def say(text: str) -> None:
            nonlocal has_spoken
            has_spoken = True
            self._console.print(Text(text, style), end="")

        try:
            answer = self._conversation.ask(
                turn.words,
                task=turn.task,
                options=turn.options,
                prompts=turn.prompts,
                on_text=say,
                on_phrase=enter,
                **dataclasses.asdict(self._settings),
            )
        finally:
            if has_spoken:
                self._console.print()
        self.turns.append(self._conversation.turns[-1])
        self._tell_masks(answer, turn)
        return answer

    def _tell_masks(self, answer: "Answer", turn: Turn) -> None:
        from rich.text import Text

        for number, (phrase, color) in enumerate(zip(answer.phrases, answer.colors, strict=True), start=1):
            name = f" {phrase.text}" if phrase.text else ""
            share = phrase.area / phrase.mask.size
            what = f": {phrase.area} pixels ({share:.1%}), score {phrase.score:.2f}" if phrase.area else ": empty"
            self._console.print(Text(f"  mask {number}{name}", _style(color)), Text(what), sep="")
        if not answer.complete:
            self._note("the answer was cut at its limit: --max-new-tokens sets it")
        if not answer.phrases and turn.task in ("refer", "segment", "gcg"):
            self._note("the answer points at nothing: no mask came")

    def save(self, folder: Path) -> None:
        """Writes all turns, see `Conversation.save`."""
        from omgvision.answer import save_turns

        paths = save_turns(self.turns, folder)
        self._console.print(f"written: {', '.join(map(str, paths))}")

    # --- talking ---------------------------------------------------------------------------------------------------

    def talk(self, *, pointed: "Sequence[Prompt]" = (), out: Path | None = None) -> int:
        """Reads questions and commands until the end of input; then the answers are written to `out`, if there is one.

        Returns:
            The exit code.
        """
        from omgvision.errors import UserError

        self._pointed = list(pointed)
        typed = sys.stdin.isatty()
        if typed:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (input() edits lines with it)
            self._note(f"{self._predictor.name}: ask something; /help lists the commands")
        while True:
            try:
                line = input("> " if typed else "").strip()
                if line == "/exit":
                    break
                if line:
                    self._take(line)
            except EOFError:
                break
            except KeyboardInterrupt:
                self._note("interrupted; /exit leaves")
            except (UserError, typer.BadParameter) as error:
                self._complain(str(error))
        if out is not None and self.turns:
            self.save(out)
        return 0

    def _take(self, line: str) -> None:
        name, _, rest = line.partition(" ")
        if not name.startswith("/"):
            self._ask(line)
        elif name in self._commands:
            self._commands[name](rest.strip())
        else:
            self._complain(f"there is no command {name}: /help lists them")

    def _ask(self, words: str, *, task: TaskName | None = None) -> None:
        prompts, self._pointed = tuple(self._pointed), []
        try:
            self.answer(Turn(words, task=task, prompts=prompts))
        except BaseException:
            self._pointed = [*prompts]  # what was not answered can be asked again
            raise

    def _ask_regions(self, words: str) -> None:
        """One question for each."""
        for prompt in [*self._pointed][:-1]:
            self.answer(Turn(words, task="region", prompts=(prompt,)))
            self._pointed.remove(prompt)
        self._ask(words, task="region")

    def _point(self, **given: object) -> None:
        from omgvision.chat_prompts import pointed_at
        from omgvision.errors import UserError

        if self._conversation.image is None:
            raise UserError("there is no picture to point at: /image FILE opens one")
        self._pointed += pointed_at(self._conversation.image, **given)  # type: ignore[arg-type]
        self._note(f"{len(self._pointed)} pointed at, for the next question")

    def _reset(self) -> None:
        self._conversation.reset()
        self._pointed = []
        self._note("a new conversation")

    def _open(self, text: str) -> None:
        from omgvision.inputs import load_image

        self._conversation = self._predictor.open_chat(load_image(text), system=self._system)
        self._pointed = []
        self._note("a new conversation about this picture")

    def _note(self, text: str) -> None:
        print(f"({text})", file=sys.stderr)

    def _complain(self, text: str) -> None:
        print(f"omg: {' '.join(text.split())}", file=sys.stderr)


def _style(color: tuple[int, int, int]):
    from rich.color import Color
    from rich.style import Style

    return Style(color=Color.from_rgb(*color), bold=True)
