"""The held-out numbers of `omg-llava-nano`: answers that it writes itself, beside the best trivial ones.

    python -m omgvision.evaluation.chat_numbers --data shared/data --weights FOLDER --out docs/results/llava_nano.json

Questions are made of the annotations of val photographs, the same ones at every call. A conversation holds one
question, so that no answer helps another. Trivial answers do not read the question: masks are the whole picture, an
ellipse in its middle, or the largest object that the bundled segmenter finds, whichever is best; words are those that
are right most often on these very questions, so that no constant answer could do better.
"""

import argparse
import json
import logging
import math
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from omgvision.answer import Answer, GroundedPhrase
from omgvision.chat import Conversation
from omgvision.data.conversation_makers import MAKERS, Made, Scene
from omgvision.data.conversation_words import CAPTION_QUESTIONS
from omgvision.data.conversations import Turn
from omgvision.data.datasets import CocoInstances, CocoPanoptic
from omgvision.data.datasets.captions import read_captions
from omgvision.data.mixture import SampleDataset
from omgvision.data.sample import Sample
from omgvision.evaluation.caption_tools import ToolsMissing, check_tools, meteor, tokenise_without_java
from omgvision.evaluation.captions import Captions, Meteor
from omgvision.evaluation.card_numbers import training_of
from omgvision.evaluation.evaluate import picture
from omgvision.evaluation.grounded_captions import GroundedCaptions
from omgvision.evaluation.machine import machine
from omgvision.evaluation.pope import ObjectProbing
from omgvision.evaluation.referring import ReferringIoU
from omgvision.evaluation.runner.journal import Journal
from omgvision.hub import load
from omgvision.llava import load_llava
from omgvision.models.omg_llava.answers_omg_llava import parse_answer
from omgvision.output_files import write_json
from omgvision.run_lengths import RunLengthMask

logger = logging.getLogger(__name__)

LONGEST_ANSWER = 80
"""Tokens."""

MASKED = ("referring", "semantic")
WORDED = ("region", "count", "colour", "position")
OTHERS = ("presence", "grounded_caption", "caption")

TITLES = {
    "referring": "one object, by its class, place, size or colour",
    "semantic": "all of a class",
    "region": "what is at a point, in a box, in a mask: the right noun",
    "count": "how many: the right number",
    "colour": "which colour: the right word",
    "position": "where: the right part of the picture",
    "presence": "is there …: yes or no",
    "grounded_caption": "a caption with masks",
    "caption": "captions of people",
}


@dataclass(frozen=True)
class Question:
    """A question about a picture, with its right answer.

    Attributes:
        task: one of `MAKERS`.
        sample: the picture.
        made: question, answer, masks and prompts.
        references: sentences of people, for captions.
    """

    task: str
    sample: Sample
    made: Made
    references: Sequence[str] = ()


Answerer = Callable[[Question], Answer]


def questions(data: Path, *, limit: int | None, seed: int = 0) -> list[Question]:
    """One question of each kind about each val photograph, as far as it allows.

    Args:
        data: Folder with `coco_mini`.
        limit: At most so many photographs of each annotation; None = all.
        seed: Of what is asked.
    """
    coco = data / "coco_mini"
    parts: Mapping[str, SampleDataset] = {
        "instances": CocoInstances(coco / "instances_val.json", images=coco / "images"),
        "panoptic": CocoPanoptic(coco / "panoptic_val.json", images=coco / "images"),
    }
    captions = read_captions(coco / "captions.json")
    asked = []
    for number, part in enumerate(parts.values()):
        count = len(part) if limit is None else min(limit, len(part))
        for index in np.linspace(0, len(part) - 1, count).astype(int).tolist():
            sample = part[index]
            scene = Scene(sample)
            for place, (task, maker) in enumerate(MAKERS.items()):
                # Stuff is only in the panoptic annotation, and people wrote about the others.
                if task == "caption" or (task == "grounded_caption" and number == 0):
                    continue
                made = maker(scene, np.random.default_rng((seed, number, index, place)))
                if made is not None:
                    asked.append(Question(task, sample, made))
            written = captions.get(sample.sample_id, [])
            if written:
                asked.append(Question("caption", sample, Made(Turn(CAPTION_QUESTIONS[0], written[0])), written))
    return asked


class Asked:
    """Answers of a model; a picture is looked at once for all questions about it."""

    def __init__(self, folder: Path):
        self.model, self.processor = load_llava(folder)
        self._conversation: tuple[Sample, Conversation] | None = None

    def __call__(self, question: Question) -> Answer:
        if self._conversation is None or self._conversation[0] is not question.sample:
            conversation = Conversation(self.model, self.processor, image=picture(question.sample))
            self._conversation = question.sample, conversation
        conversation = self._conversation[1]
        conversation.reset()
        made = question.made
        return conversation.ask(made.turn.question, prompts=made.prompts, max_new_tokens=LONGEST_ANSWER)


def answers_of(answerer: Answerer, asked: Sequence[Question], journal: Journal, *, weights: str) -> list[Answer]:
    """The answers, each written as it comes: a call that was interrupted is gone on with.

    Args:
        weights: what tells them from others; answers of others are not taken.
    """
    answers = []
    for number, question in enumerate(asked):
        name = f"{weights}, {number}: {question.made.turn.question}"
        if name not in journal:
            answer = answerer(question)
            journal.append(name, {**answer.to_dict(), "tagged": answer.tagged}, None)
        answers.append(_read(journal[name]))
        if number % 50 == 49:
            logger.info("%d of %d questions", number + 1, len(asked))
    return answers


def _read(record: Mapping[str, Any]) -> Answer:
    phrases = [
        GroundedPhrase(
            phrase["text"],
            phrase["start"],
            phrase["end"],
            RunLengthMask.from_coco(phrase["mask"]).decode(),
            phrase["score"],
        )
        for phrase in record["phrases"]
    ]
    return Answer(record["text"], record["tagged"], phrases, record["complete"])


def largest_objects(asked: Sequence[Question]) -> list[np.ndarray]:
    """Bool [H, W] for each question: the largest object that `omg-seg-nano` finds in its picture; all of it if none."""
    segmenter = load()
    found: dict[int, np.ndarray] = {}
    for question in asked:
        sample = question.sample
        if id(sample) not in found:
            objects = segmenter.segment(picture(sample), task="instance")
            largest = max(objects, key=lambda segment: segment.area, default=None)
            found[id(sample)] = np.ones(sample.size, dtype=bool) if largest is None else largest.mask
    return [found[id(question.sample)] for question in asked]


@dataclass(frozen=True)
class Pair:
    """A question, what was answered, and the largest object of the picture, bool [H, W]."""

    question: Question
    answer: Answer
    largest: np.ndarray


Pairs = Sequence[Pair]


def measure(pairs: Pairs, *, meteor: Meteor | None = None) -> list[dict[str, Any]]:
    """A row for each metric of each kind of question: its value, that of the best trivial answer, and which that is."""
    rows = []
    for task in (*MASKED, *WORDED, *OTHERS):
        chosen = [pair for pair in pairs if pair.question.task == task]
        if not chosen:
            continue
        if task in MASKED:
            found = masks_of(chosen)
        elif task in WORDED:
            found = words_of(chosen)
        elif task == "presence":
            found = presence_of(chosen)
        elif task == "grounded_caption":
            found = grounded_of(chosen, meteor)
        else:
            found = captions_of(chosen)
        rows += [{"task": task, "what": TITLES[task], "questions": len(chosen), **row} for row in found]
    return rows


def trivial_masks(pair: Pair) -> dict[str, np.ndarray]:
    shape = pair.largest.shape
    return {
        "the whole picture": np.ones(shape, dtype=bool),
        "an ellipse in the middle": ellipse(shape),
        "the largest object found": pair.largest,
    }


def masks_of(pairs: Pairs) -> list[dict[str, Any]]:
    """IoU of the first mask of an answer, beside that of the best trivial one."""
    found = ReferringIoU("lisa")
    trivial = {name: ReferringIoU("lisa") for name in trivial_masks(pairs[0])}
    for number, pair in enumerate(pairs):
        truth = pair.question.made.masks[0].numpy()
        found.update(str(number), pair.answer.masks[0] if pair.answer.masks else None, truth)
        for name, mask in trivial_masks(pair).items():
            trivial[name].update(str(number), mask, truth)
    values = {name: metric.compute() for name, metric in trivial.items()}
    rows = []
    for metric in ("cIoU", "gIoU"):
        best = max(values, key=lambda name: values[name][metric])
        rows.append(row(metric, found.compute()[metric], values[best][metric], best))
    rows.append(row("answers with a mask", 1 - found.count_missed() / len(pairs), 1.0, "always one"))
    return rows


def ellipse(shape: Sequence[int]) -> np.ndarray:
    """Bool [H, W], an ellipse of half the picture's height and width in its middle."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    across, down = (x + 0.5) / shape[1] - 0.5, (y + 0.5) / shape[0] - 0.5
    return across**2 + down**2 <= 0.25**2


def words_of(pairs: Pairs) -> list[dict[str, Any]]:
    """How often an answer names what is right."""
    right = [key_of(pair.answer.text, pair.question) for pair in pairs]
    truth = [key_of(pair.question.made.turn.answer, pair.question) for pair in pairs]
    (constant, often), *_ = Counter(truth).most_common(1)
    accuracy = float(np.mean([one == other for one, other in zip(right, truth, strict=True)]))
    return [row("accuracy", accuracy, often / len(pairs), f"always “{constant}”")]


def key_of(text: str, question: Question) -> str:
    """What of an answer is compared: its words without article and full stop; of a region, the noun alone."""
    said = re.sub(r"^(a|an|the|some) ", "", text.strip().rstrip(".").lower())
    if question.task != "region":
        return said
    colours = {colour for colour in Scene(question.sample).colours if colour}
    first, _, rest = said.partition(" ")
    return rest if rest and first in colours else said


def presence_of(pairs: Pairs) -> list[dict[str, Any]]:
    """As POPE asks for objects; the trivial answer is yes or no, whichever is more often right."""
    found = ObjectProbing()
    there = [pair.question.made.turn.answer.startswith("Yes") for pair in pairs]
    for number, (pair, present) in enumerate(zip(pairs, there, strict=True)):
        found.update(str(number), pair.answer.text, present=present)
    numbers, share = found.compute(), float(np.mean(there))
    return [
        row("accuracy", numbers["accuracy"], max(share, 1 - share), f"always “{'yes' if share >= 0.5 else 'no'}”"),
        row("F1", numbers["F1"], 2 * share / (1 + share), "always “yes”"),
    ]


def grounded_of(pairs: Pairs, meteor: Meteor | None) -> list[dict[str, Any]]:
    """Of captions with masks, as grounded conversation generation is measured; a phrase is right if its noun is.

    The trivial answer is a trivial mask as what is named most often.
    """
    nouns = Counter(noun_of(phrase) for pair in pairs for phrase in phrases_of(pair.question))
    constant = nouns.most_common(1)[0][0]
    found = grounded_captions(pairs, meteor)
    trivial = {f"{name} as “{constant}”": grounded_captions(pairs, meteor) for name in trivial_masks(pairs[0])}
    for number, pair in enumerate(pairs):
        truth = pair.question.made.turn.answer
        told = {"references": [parse_answer(truth).text], "labels": phrases_of(pair.question)}
        phrases = pair.answer.phrases
        masks = [encoded(phrase.mask) for phrase in phrases]
        found.update(str(number), pair.answer.text, [phrase.text for phrase in phrases], masks, **told)
        for constant_metric, mask in zip(trivial.values(), trivial_masks(pair).values(), strict=True):
            constant_metric.update(str(number), f"A {constant}.", [constant], [encoded(mask)], **told)
    numbers = found.compute()
    values = {name: metric.compute() for name, metric in trivial.items()}
    rows = []
    for metric in ("AP50", "mIoU", "Recall", "METEOR", "CIDEr"):
        best = max(values, key=lambda name: values[name][metric])
        if not math.isnan(values[best][metric]):  # METEOR where there is no Java
            rows.append(row(metric, numbers[metric], values[best][metric], best))
    return rows


def grounded_captions(pairs: Pairs, meteor: Meteor | None) -> GroundedCaptions:
    """The metric for the true masks of these questions, which are numbered."""
    images, annotations = [], []
    for number, pair in enumerate(pairs):
        height, width = pair.question.sample.size
        images.append({"id": number, "height": height, "width": width})
        for mask in pair.question.made.masks:
            true = encoded(mask.numpy())
            annotation = {"image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": true}
            annotations.append(annotation | {"id": len(annotations) + 1, "area": int(mask.sum()), "bbox": []})
    masks = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    return GroundedCaptions(masks, tokenise_without_java, similarity=same_noun, meteor=meteor)


def same_noun(first: str, second: str) -> float:
    return float(noun_of(first) == noun_of(second))


def encoded(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run lengths of a bool mask [H, W]."""
    return RunLengthMask.encode(mask).to_coco()


def phrases_of(question: Question) -> list[str]:
    return [phrase.text for phrase in parse_answer(question.made.turn.answer).phrases]


def noun_of(phrase: str) -> str:
    """The last word, in the singular as far as a final s tells."""
    return phrase.lower().split()[-1].removesuffix("s") if phrase.split() else ""


def captions_of(pairs: Pairs) -> list[dict[str, Any]]:
    """Against what people wrote; the trivial one is the sentence of them that is best for all pictures."""
    found = Captions(tokenise_without_java)
    for number, pair in enumerate(pairs):
        found.update(str(number), pair.answer.text, pair.question.references)
    numbers = found.compute()
    best: dict[str, tuple[float, str]] = {}
    for sentence in {pair.question.references[0] for pair in pairs}:
        constant = Captions(tokenise_without_java)
        for number, pair in enumerate(pairs):
            others = [one for one in pair.question.references if one != sentence]
            constant.update(str(number), sentence, others or pair.question.references)
        for metric, value in constant.compute().items():
            best[metric] = max(best.get(metric, (-1.0, "")), (value, sentence))
    return [row(metric, numbers[metric], *best[metric]) for metric in ("CIDEr", "ROUGE_L")]


def row(metric: str, value: float, trivial: float, trivial_is: str) -> dict[str, Any]:
    value = 0.0 if math.isnan(value) else value  # no answer had what is measured
    return {"metric": metric, "value": round(value, 4), "trivial": round(trivial, 4), "trivial_is": trivial_is}


def meteor_where_java_is() -> Meteor | None:
    try:
        check_tools()
    except ToolsMissing as error:
        logger.warning("%s", error)
        return None
    return meteor


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure omg-llava-nano on val photographs.")
    parser.add_argument("--data", type=Path, required=True, help="folder with coco_mini")
    parser.add_argument("--weights", type=Path, required=True, help="folder of the model")
    parser.add_argument(
        "--run", type=Path, action="append", help="folder of a training run, for steps and minutes; one after another"
    )
    parser.add_argument("--earlier", type=Path, help="result file of the weights that the first run started from")
    parser.add_argument("--limit", type=int, help="at most so many photographs of each annotation")
    parser.add_argument("--out", type=Path, required=True, help="result file; answers so far are beside it")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    asked, answerer = questions(options.data, limit=options.limit), Asked(options.weights)
    # What takes long comes last, so that nothing else can fail after it but the metrics.
    earlier = [] if options.earlier is None else json.loads(options.earlier.read_text(encoding="utf-8"))["training"]
    training = [*earlier, *map(training_of, options.run or ())]
    largest, scorer = largest_objects(asked), meteor_where_java_is()
    files = {path.name: path.stat() for path in sorted(options.weights.iterdir())}
    weights = max(str(file.st_mtime_ns) for name, file in files.items() if name.endswith(".safetensors"))
    journal = Journal(options.out.with_suffix(".answers"), writer="answers")
    answers = answers_of(answerer, asked, journal, weights=weights)
    pairs = [Pair(*each) for each in zip(asked, answers, largest, strict=True)]
    result = {
        "rows": measure(pairs, meteor=scorer),
        "parameters": sum(parameter.numel() for parameter in answerer.model.parameters()),
        "megabytes": round(sum(file.st_size for file in files.values()) / 1e6, 1),
        "training": training,
        "machine": machine(),
        "examples": [
            {
                "picture": question.sample.sample_id,
                "question": question.made.turn.question,
                "answer": answer.tagged,
                "truth": question.made.turn.answer,
            }
            for question, answer in list(zip(asked, answers, strict=True))[:: max(1, len(asked) // 24)]
        ],
    }
    write_json(options.out, result)
    shutil.rmtree(journal.folder)


if __name__ == "__main__":
    main()
