"""Questions with answers of a word: MMBench and its like, POPE, MME. A sample is a picture with all its questions."""

import json
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omgvision.chat import Conversation
from omgvision.data.datasets.questions import ChoiceQuestion, ChoiceQuestions, YesNoQuestion
from omgvision.evaluation.mme import read_answer
from omgvision.evaluation.multiple_choice import CircularAccuracy
from omgvision.evaluation.pope import says_yes
from omgvision.evaluation.runner.speaker import AskSettings, Speaker, ask
from omgvision.evaluation.runner.task import Graded, Outcome, Panel, Records, Task, read_picture
from omgvision.evaluation.scores import mme, multiple_choice, pope
from omgvision.output_files import write_text
from omgvision.spreadsheets import write_sheet

_CHINESE = re.compile(r"[\u4e00-\u9fff]")


class ChoicePictures(Task):
    """Circular accuracy. A sample is a question with all rotations of its options.

    The settings have two questions: for texts in Latin letters and for those in Chinese.
    """

    quality = "Overall"

    def __init__(self, questions: ChoiceQuestions, *, speaker: Speaker, settings: AskSettings):
        self.table, self.speaker, self.settings = questions, speaker, settings
        self.groups: dict[str, list[ChoiceQuestion]] = {}
        for one in questions:
            self.groups.setdefault(str(one.question), []).append(one)
        self.sample_ids = list(self.groups)
        self.has_answers = all(one.answer is not None for one in questions)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        del out
        answers, seen = [], None
        conversation: Conversation | None = None
        metric = CircularAccuracy("letters")
        for one in self.groups[sample_id]:
            picture = self.table.picture(one.index)
            if conversation is None or picture != seen:  # rotations share the picture
                conversation, seen = self.speaker.look(picture), picture
            answer = ask(conversation, self._worded(one), self.settings).text
            answers.append({"index": one.index, "prediction": answer})
            if one.answer is not None:
                metric.update(str(one.index), answer, choices=one.options, right=one.answer, question=sample_id)
        return Outcome({"answers": answers}, metric.compute()["Overall"] if self.has_answers else None)

    def _worded(self, one: ChoiceQuestion) -> str:
        options = "".join(f"{letter}. {text}\n" for letter, text in one.options.items())
        text = f"{one.hint}\n{one.text}\n{options}" if one.hint else f"{one.text}\n{options}"
        latin, chinese = self.settings.questions
        return (chinese if _CHINESE.search(text) else latin).replace("{}", text)

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del workers
        path = out / "answers.xlsx"
        columns = list(dict.fromkeys(key for one in self.table for key in one.row))
        rows: list[list[str | int | None]] = [[*columns, "prediction"]]
        asked: list[str] = []
        for sample_id in sample_ids:
            answers = {one["index"]: one["prediction"] for one in records[sample_id]["answers"]}
            for one in self.groups[sample_id]:
                cells = [one.index if key == "index" else one.row.get(key) for key in columns]
                rows.append([*cells, answers[one.index]])
                asked.append(str(one.index))
        write_sheet(path, rows)
        if not self.has_answers:
            return Graded({}, note=f"The right answers are not public: {path} is for the benchmark's server.")
        numbers = multiple_choice.score(
            self.table.path, path, matching="letters", only=None if self.only(sample_ids) is None else set(asked)
        )
        words = ("multiple-choice", "--gt", str(self.table.path), "--pred", str(path), "--matching", "letters")
        note = "Answers are read as the original does it: the first letters A to D of each."
        return Graded(numbers, words, note=note)

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del out
        one, answer = self.groups[sample_id][0], record["answers"][0]["prediction"]
        titles = f"{one.text} {one.answer}: {one.options.get(one.answer or '', '')}", answer
        return Panel(self.table.picture(one.index), titles=titles)


class YesNoPictures(Task):
    """What POPE and MME have in common."""

    quality = "accuracy"

    def __init__(self, questions: Sequence[YesNoQuestion], *, speaker: Speaker, settings: AskSettings):
        self.speaker, self.settings = speaker, settings
        self.groups: dict[str, list[YesNoQuestion]] = {}
        for one in questions:
            self.groups.setdefault(f"{one.group}/{one.image.name}", []).append(one)
        self.sample_ids = list(self.groups)

    @abstractmethod
    def is_right(self, question: YesNoQuestion, answer: str) -> bool:
        """As the benchmark reads answers."""

    def predict(self, sample_id: str, out: Path) -> Outcome:
        del out
        questions = self.groups[sample_id]
        conversation = self.speaker.look(read_picture(questions[0].image))
        worded = (self.settings.questions[0].replace("{}", one.text) for one in questions)
        answers = [ask(conversation, question, self.settings).text for question in worded]
        right = [self.is_right(one, answer) for one, answer in zip(questions, answers, strict=True)]
        return Outcome({"answers": answers}, sum(right) / len(right))

    def answered(self, sample_ids: Sequence[str], records: Records) -> Iterator[tuple[YesNoQuestion, str]]:
        """All questions with what the model said."""
        for sample_id in sample_ids:
            yield from zip(self.groups[sample_id], records[sample_id]["answers"], strict=True)

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        """The first question that got a wrong answer."""
        del out
        pairs = list(zip(self.groups[sample_id], record["answers"], strict=True))
        question, answer = next((pair for pair in pairs if not self.is_right(*pair)), pairs[0])
        return Panel(read_picture(question.image), titles=(f"{question.text} {question.answer}", answer))


class PopePictures(YesNoPictures):
    """Accuracy, precision, recall and F1 over the three lists of POPE, and of each."""

    def __init__(self, lists: Path, questions: Sequence[YesNoQuestion], *, speaker: Speaker, settings: AskSettings):
        super().__init__(questions, speaker=speaker, settings=settings)
        self.lists = lists

    def is_right(self, question: YesNoQuestion, answer: str) -> bool:
        return says_yes(answer) == (question.answer == "yes")

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del workers
        folder = out / "pope"
        lines: dict[str, list[str]] = {}
        asked = set()
        for question, answer in self.answered(sample_ids, records):
            identity = int(question.identity) if question.identity.isdecimal() else question.identity
            row = {"question_id": identity, "question": question.text, "answer": answer}
            lines.setdefault(question.group, []).append(json.dumps(row, ensure_ascii=False) + "\n")
            asked.add(f"{question.group}/{question.identity}")
        for group, texts in lines.items():
            write_text(folder / f"coco_pope_{group}.json", "".join(texts))
        numbers = pope.score(self.lists, folder, only=None if self.only(sample_ids) is None else asked)
        return Graded(numbers, ("pope", "--gt", str(self.lists), "--pred", str(folder)))


class MmePictures(YesNoPictures):
    """Perception and cognition of MME."""

    def is_right(self, question: YesNoQuestion, answer: str) -> bool:
        return read_answer(answer) == question.answer

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del workers
        folder = out / "mme"
        lines: dict[str, list[str]] = {}
        for question, answer in self.answered(sample_ids, records):
            # The answer in one line, as the official files have it.
            cells = (question.image.name, question.text, question.answer.capitalize(), " ".join(answer.split()))
            lines.setdefault(question.group, []).append("\t".join(cells) + "\n")
        for subtask, texts in lines.items():
            write_text(folder / f"{subtask}.txt", "".join(texts))
        # These files have the right answers too.
        numbers = mme.score(folder, folder)
        note = "Perception (of 2000) and cognition (of 800) are points."
        return Graded(numbers, ("mme", "--gt", str(folder), "--pred", str(folder)), note=note)
