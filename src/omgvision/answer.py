"""What the model said and what it pointed at: words, phrases, masks, boxes, scores, an overlay, files.

Letters: N masks of an answer, H×W the picture.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import visualization
from .errors import UserError
from .output_files import png_bytes, write_files
from .run_lengths import RunLengthMask


@dataclass(frozen=True, eq=False)
class GroundedPhrase:
    """What an answer points at.

    Attributes:
        text: The words; "" for a mask without any.
        start, end: Where they are in the answer's text.
        mask: bool [H, W].
        score: Mean probability of the mask's pixels; 0 for an empty mask.
    """

    text: str
    start: int
    end: int
    mask: np.ndarray
    score: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height in pixels; zeros for an empty mask."""
        return RunLengthMask.encode(self.mask).box

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said and what it pointed at.

    Attributes:
        text: Without tags.
        tagged: As the model wrote it.
        phrases: What has a mask, in the order of the masks.
        complete: False if the answer was cut at its limit.
        image: The picture; None in a conversation without one.
    """

    text: str
    tagged: str
    phrases: list[GroundedPhrase]
    complete: bool
    image: Image.Image | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        masks = f", {len(self.phrases)} mask{'' if len(self.phrases) == 1 else 's'}" if self.phrases else ""
        return f"Answer({self.text!r}{masks}{'' if self.complete else ', cut at its limit'})"

    @property
    def masks(self) -> list[np.ndarray]:
        """bool [H, W] each."""
        return [phrase.mask for phrase in self.phrases]

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """x, y, width, height in pixels of each mask."""
        return [phrase.box for phrase in self.phrases]

    @property
    def scores(self) -> list[float]:
        """Of each mask, see `GroundedPhrase`."""
        return [phrase.score for phrase in self.phrases]

    @property
    def colors(self) -> list[visualization.Color]:
        """Of each mask in the overlay, and of its words beside it."""
        return [visualization.identity_color(number) for number in range(1, len(self.phrases) + 1)]

    def colored_text(self) -> list[tuple[str, visualization.Color | None]]:
        """The text in pieces, those that have a mask with its colour."""
        pieces: list[tuple[str, visualization.Color | None]] = []
        last = 0
        for phrase, color in zip(self.phrases, self.colors, strict=True):
            if phrase.text and phrase.start >= last:
                pieces += [(self.text[last : phrase.start], None), (phrase.text, color)]
                last = phrase.end
        pieces.append((self.text[last:], None))
        return [piece for piece in pieces if piece[0]]

    def overlay(self, *, words: bool = False) -> Image.Image:
        """The picture with the masks and their phrases.

        Args:
            words: Write the whole answer below it, the phrases in the colours of their masks.

        Raises:
            UserError: There is no picture.
        """
        if self.image is None:
            raise UserError("overlay: expected a conversation about a picture, got one without")
        picture = visualization.draw_segments(
            self.image, self.masks, colors=self.colors, labels=[phrase.text for phrase in self.phrases]
        )
        return visualization.draw_words(picture, self.colored_text()) if words else picture

    def to_dict(self) -> dict[str, Any]:
        """For JSON; masks as COCO's run lengths."""
        return {
            "text": self.text,
            "complete": self.complete,
            "phrases": [
                {
                    "text": phrase.text,
                    "start": phrase.start,
                    "end": phrase.end,
                    "score": round(phrase.score, 6),
                    "box": list(phrase.box),
                    "mask": RunLengthMask.encode(phrase.mask).to_coco(),
                }
                for phrase in self.phrases
            ],
        }

    def save(self, folder: str | Path) -> list[Path]:
        """Writes `answer.json`; where there is a picture `overlay.png`, and `mask-1.png`, … (0 and 255).

        Returns:
            The written files. Either all are written or none.

        Raises:
            UserError: The folder cannot be made or written to.
        """
        return write_files(Path(folder), self.files())

    def files(self, *, prefix: str = "", question: str | None = None) -> dict[str, Callable[[], bytes]]:
        """Names of files and what makes their content, for `write_files`; with a question it stands in the JSON."""
        asked = {} if question is None else {"question": question}
        contents: dict[str, Callable[[], bytes]] = {}
        if self.image is not None:
            contents["overlay.png"] = lambda: png_bytes(self.overlay())
        for number, mask in enumerate(self.masks, start=1):
            contents[f"mask-{number}.png"] = _mask_writer(mask)
        contents["answer.json"] = lambda: (
            json.dumps(asked | self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        ).encode()
        return {f"{prefix}{name}": make for name, make in contents.items()}


def save_turns(turns: Sequence[tuple[str, Answer]], folder: str | Path) -> list[Path]:
    """Writes questions and answers: as `Answer.save` for one, with turn-1., turn-2., … before the names for several.

    Returns:
        The written files. Either all are written or none.

    Raises:
        UserError: There are none; the folder cannot be made or written to.
    """
    if not turns:
        raise UserError("save: expected at least one answer, nothing was said yet")
    contents: dict[str, Callable[[], bytes]] = {}
    for number, (question, answer) in enumerate(turns, start=1):
        prefix = f"turn-{number}." if len(turns) > 1 else ""
        contents |= answer.files(prefix=prefix, question=question)
    return write_files(Path(folder), contents)


def _mask_writer(mask: np.ndarray) -> Callable[[], bytes]:
    return lambda: png_bytes(Image.fromarray(mask.astype(np.uint8) * 255))


__all__ = ["Answer", "GroundedPhrase", "save_turns"]
