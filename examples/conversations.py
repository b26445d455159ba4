"""Makes docs/conversations.md and its pictures: what `omg-llava-nano` says about photographs it has never seen.

python examples/conversations.py
python examples/conversations.py --model FOLDER --out SOMEWHERE    # other weights
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

from demo import IMAGES
from gallery import sheet
from PIL import Image

import omgvision as omg
from omgvision.chat_tasks import ChatTask

DOCS = Path(__file__).resolve().parent.parent / "docs"
Point = tuple[float, float]


@dataclass(frozen=True)
class Turn:
    """A question in words or a task, and where it points."""

    question: str = ""
    task: ChatTask | None = None
    point: Point | None = None
    box: tuple[float, float, float, float] | None = None

    def ask(self, conversation: omg.Conversation) -> omg.Answer:
        return conversation.ask(
            self.question,
            task=self.task,
            points=None if self.point is None else [self.point],
            boxes=None if self.box is None else [self.box],
        )

    def __str__(self) -> str:
        task = "" if self.task is None else f"({self.task}) "
        places = {"point": self.point, "box": self.box}
        return f"{task}{self.question}".strip() + "".join(f" [{k} {v}]" for k, v in places.items() if v is not None)


CONVERSATIONS: dict[str, tuple[Turn, ...]] = {
    "cat": (
        Turn(task="caption"),
        Turn("the cat", task="refer"),
        Turn(task="region", point=(240, 90)),
        Turn("How many cats are there?"),
    ),
    "coffee": (
        Turn(task="gcg"),
        Turn("the cup", task="refer"),
        Turn(task="region", box=(170, 15, 420, 310)),
        Turn("Is there a person in the picture?"),
    ),
    "astronaut": (
        Turn(task="gcg"),
        Turn("the person", task="refer"),
        Turn("What colour is the suit?"),
        Turn("Where in the picture is the person?"),
    ),
    "photographer": (
        Turn(task="caption"),
        Turn("the grass", task="segment"),
        Turn(task="region", point=(100, 300)),
        Turn("How many people are there?"),
    ),
    "admiral": (
        Turn(task="gcg"),
        Turn("the person", task="refer"),
        Turn("Is there a dog in the picture?"),
        Turn("Where in the picture is the person?"),
    ),
    "stairs": (
        Turn(task="caption"),
        Turn("the sky", task="segment"),
        Turn("the person", task="refer"),
        Turn("How many people are there?"),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Conversations about the demo's photographs, as a page.")
    parser.add_argument("--model", default="omg-llava-nano", help="as omg.load takes it")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder of conversations.md and pictures/chat")
    options = parser.parse_args()
    model = omg.load(options.model)
    pictures = options.out / "pictures" / "chat"
    pictures.mkdir(parents=True, exist_ok=True)
    page = [
        "# Conversations",
        "What `omg-llava-nano` says about the photographs in `examples/images`, which it has never seen; nothing is "
        "chosen or retouched (`python examples/conversations.py`). Each line of pictures is one conversation, left to "
        "right: what an answer points at has the colours of its words.",
    ]
    for name, turns in CONVERSATIONS.items():
        conversation = model.open_chat(IMAGES / f"{name}.jpg")
        answers = [turn.ask(conversation) for turn in turns]
        page.append(f"## {name.capitalize()}")
        page += [f"{turn}  \n**{answer.text}**" for turn, answer in zip(turns, answers, strict=True)]
        page.append(f"![{name}](pictures/chat/{name}.jpg)")
        shown: list[Image.Image] = [answer.overlay(words=True) for answer in answers]
        sheet(shown, columns=len(turns), cell=(400, 400)).save(pictures / f"{name}.jpg", quality=85, optimize=True)
        print("\n".join(page[-len(turns) - 2 :]), flush=True)
    (options.out / "conversations.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
