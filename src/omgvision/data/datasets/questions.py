"""Questions about pictures with answers of one word: MMBench and its like, POPE, MME."""

from __future__ import annotations

import base64
import binascii
import io
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from omgvision.tables import read_rows

from .reading import IMAGE_SUFFIXES

ROTATION = 1_000_000
"""Of a question that is asked with its options in another order, the index is larger by a multiple of this."""

SHORTEST_PICTURE = 16
"""Characters: a shorter cell is the index of the row that has the picture."""


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with options.

    Attributes:
        index: of this asking.
        question: which question it is an asking of: the same for all rotations of its options.
        text: as it was written.
        hint: what is told beforehand; "" without any.
        options: letter → text.
        answer: the letter of the right one; None where that is not public.
        row: all cells but the picture.
    """

    index: int
    question: int
    text: str
    hint: str
    options: Mapping[str, str]
    answer: str | None
    row: Mapping[str, str]


class ChoiceQuestions(Sequence[ChoiceQuestion]):
    """A table of MMBench's form: `index`, `question`, `A`, `B`, … and `image` (base64, or the index of the row that has
    it), and where there are such `hint`, `answer`, `category`, `l2-category`, `split`, `g_index`."""

    def __init__(self, path: str | Path) -> None:
        """Reads the table.

        Args:
            path: a tsv, csv or xlsx.
        Raises:
            ValueError: no such file, another form, a picture that a row names and no row has.
        """
        self.path = Path(path)
        rows = read_rows(self.path, keys=("index", "question", "image"))
        self._pictures: dict[int, str] = {}
        self._questions = [self._read(row, number) for number, row in enumerate(rows, start=1)]
        for one in self._questions:
            self._encoded(one.index)

    def _read(self, row: Mapping[str, object], number: int) -> ChoiceQuestion:
        cells = {key: str(cell) for key, cell in row.items()}
        try:
            index = int(float(cells["index"]))
            question = int(float(cells.get("g_index", index % ROTATION)))
        except (ValueError, OverflowError):
            raise ValueError(
                f"{self.path}: expected numbers as index, got {cells['index']!r} in row {number}"
            ) from None
        if index in self._pictures:
            raise ValueError(f"{self.path}: expected an index once, got {index} again in row {number}")
        self._pictures[index] = cells.pop("image")
        options = {letter: cells[letter] for letter in string.ascii_uppercase if letter in cells}
        if not options:
            raise ValueError(f"{self.path}: expected options A, B, …, got none in row {number}")
        return ChoiceQuestion(
            index, question, cells["question"], cells.get("hint", ""), options, cells.get("answer"), cells
        )

    def __len__(self) -> int:
        return len(self._questions)

    def __getitem__(self, number):  # pyright: ignore[reportIncompatibleMethodOverride]
        return self._questions[number]

    def _encoded(self, index: int) -> str:
        seen = {index}
        cell = self._pictures[index]
        while len(cell) < SHORTEST_PICTURE:
            try:
                place = int(float(cell))
            except (ValueError, OverflowError):
                place = -1
            if place not in self._pictures or place in seen:
                raise ValueError(f"{self.path}: expected a picture or the index of its row, got {cell!r} at {index}")
            seen.add(place)
            cell = self._pictures[place]
        return cell

    def picture(self, index: int) -> Image.Image:
        """The RGB picture of an asking.

        Raises:
            ValueError: it cannot be decoded.
        """
        try:
            with Image.open(io.BytesIO(base64.b64decode(self._encoded(index), validate=True))) as image:
                return image.convert("RGB")
        except (binascii.Error, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{self.path}: the picture of {index} cannot be read ({error})") from error


@dataclass(frozen=True)
class YesNoQuestion:
    """A question that is answered by yes or no.

    Attributes:
        group: which part of the benchmark it is of.
        identity: unique within the part.
        image: the file.
        text: as it was written.
        answer: the right one.
    """

    group: str
    identity: str
    image: Path
    text: str
    answer: Literal["yes", "no"]


def read_pope(path: str | Path, *, images: str | Path) -> list[YesNoQuestion]:
    """A list of POPE (`coco_pope_random.json`): json lines of `question_id`, `image`, `text` and `label`.

    Args:
        path: the file; what follows its last underscore is the questions' group.
        images: folder of COCO's val2014.
    Raises:
        ValueError: no such file, another form, an answer that is neither yes nor no, an image that is missing.
    """
    path, group = Path(path), Path(path).stem.rpartition("_")[2]
    questions = []
    for number, row in enumerate(read_rows(path, keys=("question_id", "image", "text", "label")), start=1):
        image = Path(images) / str(row["image"])
        answer = _yes_or_no(row["label"], path, number)
        questions.append(
            YesNoQuestion(group, str(row["question_id"]), _existing(image, path), str(row["text"]), answer)
        )
    return questions


def read_mme(root: str | Path, *, subtasks: Sequence[str]) -> list[YesNoQuestion]:
    """MME's release: a folder a subtask with pictures and a text file of the same stem, two lines of question and
    answer; in some of them pictures are in `images` and texts in `questions_answers_YN`.

    Args:
        root: the folder of the subtasks.
        subtasks: their names.
    Raises:
        ValueError: a folder without texts, a picture that is missing, lines of another form.
    """
    questions = []
    for subtask in subtasks:
        folder = Path(root) / subtask
        texts = folder / "questions_answers_YN" if (folder / "questions_answers_YN").is_dir() else folder
        pictures = folder / "images" if (folder / "images").is_dir() else folder
        by_stem = {path.stem: path for path in sorted(pictures.glob("*")) if path.suffix.lower() in IMAGE_SUFFIXES}
        files = sorted(texts.glob("*.txt"))
        if not files:
            raise ValueError(f"mme: expected texts *.txt in {texts}, got none")
        for path in files:
            if path.stem not in by_stem:
                raise ValueError(f"mme: expected a picture {path.stem} in {pictures}, got none")
            for number, line in enumerate(_lines(path), start=1):
                text, tab, answer = line.rstrip().rpartition("\t")
                if not tab or not text.strip():
                    raise ValueError(f"mme: {path}: expected question and answer with a tab between, got {line!r}")
                right = _yes_or_no(answer, path, number)
                questions.append(
                    YesNoQuestion(subtask, f"{path.stem}/{number}", by_stem[path.stem], text.strip(), right)
                )
    return questions


def _lines(path: Path) -> list[str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"mme: {path} cannot be read ({error})") from None
    if len(lines) != 2:
        raise ValueError(f"mme: {path}: expected two questions, got {len(lines)}")
    return lines


def _yes_or_no(value: object, path: Path, number: int) -> Literal["yes", "no"]:
    text = str(value).strip().lower()
    if text == "yes" or text == "no":
        return text
    raise ValueError(f"{path}: expected yes or no as the right answer, got {value!r} in row {number}")


def _existing(image: Path, path: Path) -> Path:
    if not image.is_file():
        raise ValueError(f"{path}: expected the picture {image}, got no file")
    return image
