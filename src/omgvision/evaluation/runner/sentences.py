"""Sentences that mean something in a picture: RefCOCO, RefCOCO+, RefCOCOg, gRefCOCO, ReasonSeg."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from omgvision.answer import Answer
from omgvision.chat import Conversation
from omgvision.data.datasets.referring import Referred
from omgvision.evaluation import referring
from omgvision.evaluation.referring import ReferringIoU
from omgvision.evaluation.runner.files import write_list
from omgvision.evaluation.runner.speaker import AskSettings, Speaker, ask
from omgvision.evaluation.runner.task import Graded, Outcome, Panel, Records, Task, decoded, defined, run_lengths
from omgvision.evaluation.scores import referring as referring_scores


@dataclass(frozen=True)
class SentenceSettings(AskSettings):
    """How sentences are asked and graded.

    Attributes:
        whole_sentence: What is asked instead where the sample is a whole sentence; None = the same.
        masks: Which of an answer's masks count: the first, or the union of all where several objects may be meant.
        protocol: See `ReferringIoU`.
        ignore: Some pixels do not count.
    """

    whole_sentence: str | None = None
    masks: Literal["first", "all"] = "first"
    protocol: referring.Protocol = "lisa"
    ignore: bool = False


class ReferredSamples(Protocol):
    """`RefCoco` or `ReasonSeg`."""

    def __len__(self) -> int: ...

    def by_image(self) -> list[list[int]]: ...

    def __getitem__(self, index: int, /) -> Referred: ...


class ReferringSentences(Task):
    """gIoU and cIoU. A sample is a picture with all its sentences: it is seen once."""

    quality = "gIoU"

    def __init__(self, samples: ReferredSamples, *, speaker: Speaker, settings: SentenceSettings):
        self.samples, self.speaker, self.settings = samples, speaker, settings
        self.groups = {f"{number:06d}": group for number, group in enumerate(samples.by_image())}
        self.sample_ids = list(self.groups)

    def name(self, sample_id: str, record: Mapping[str, Any]) -> str:
        return record["name"]

    def predict(self, sample_id: str, out: Path) -> Outcome:
        del out
        conversation: Conversation | None = None
        name, sentences = "", []
        metric = ReferringIoU(self.settings.protocol)
        for index in self.groups[sample_id]:
            sample = self.samples[index]
            conversation = conversation or self.speaker.look(_picture(sample))
            answer = ask(conversation, self._question(sample), self.settings)
            mask, target = self._mask(answer), sample.mask.numpy()
            ignore = sample.ignore.numpy() if self.settings.ignore else None
            metric.update(sample.sample_id, mask, target, ignore=ignore)
            name = sample.file_name
            sentences.append(
                {
                    "id": sample.sample_id,
                    "sentence": sample.sentence,
                    "answer": answer.tagged,
                    "gt": run_lengths(target),
                    "pred": None if mask is None else run_lengths(mask),
                    **({"ignore": run_lengths(ignore)} if ignore is not None else {}),
                }
            )
        return Outcome({"name": name, "sentences": sentences}, defined(metric.compute()["gIoU"]))

    def _question(self, sample: Referred) -> str:
        whole = self.settings.whole_sentence
        return (whole if sample.is_sentence and whole else self.settings.questions[0]).format(sample.sentence)

    def _mask(self, answer: Answer) -> np.ndarray | None:
        if not answer.masks:
            return None
        return answer.masks[0] if self.settings.masks == "first" else np.any(answer.masks, axis=0)

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        truth, predictions = out / "ground_truth.json", out / "predictions.json"
        for path, keys in ((truth, ("id", "sentence", "gt", "ignore")), (predictions, ("id", "answer", "pred"))):
            sentences = (one for sample_id in sample_ids for one in records[sample_id]["sentences"])
            entries = ({key: one[key] for key in keys if key in one} for one in sentences)
            write_list(path, entries, around=('{"samples": ', "}"))
        settings = self.settings
        numbers = referring_scores.score(
            truth, predictions, protocol=settings.protocol, ignore=settings.ignore, workers=workers
        )
        words = ["referring", "--gt", str(truth), "--pred", str(predictions), "--protocol", settings.protocol]
        return Graded(
            numbers, [*words, *(["--ignore"] if settings.ignore else [])], note=self._note(sample_ids, records)
        )

    def _note(self, sample_ids: Sequence[str], records: Records) -> str:
        sentences = [one["pred"] is None for sample_id in sample_ids for one in records[sample_id]["sentences"]]
        if self.settings.protocol == "gres":
            return f"{sum(sentences)} of {len(sentences)} sentences got no mask, which says that nothing is meant."
        return (
            f"{sum(sentences)} of {len(sentences)} sentences got no mask. As in the original's evaluation they count 0"
            " in gIoU and are left out of cIoU."
        )

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        """The worst sentence of the picture."""
        del out
        iou, one = min(((_iou(one, self.settings), one) for one in record["sentences"]), key=lambda pair: pair[0])
        guess = [] if one["pred"] is None else [(decoded(one["pred"]), 0)]
        picture = _picture(self.samples[self.groups[sample_id][0]])
        return Panel(picture, [(decoded(one["gt"]), 0)], guess, titles=(one["sentence"], f"IoU: {100 * iou:.1f}"))


def _iou(one: Mapping[str, Any], settings: SentenceSettings) -> float:
    metric = ReferringIoU(settings.protocol)
    ignore = decoded(one["ignore"]) if "ignore" in one else None
    metric.update("", None if one["pred"] is None else decoded(one["pred"]), decoded(one["gt"]), ignore=ignore)
    return metric.compute()["gIoU"]


def _picture(sample: Referred) -> Image.Image:
    return Image.fromarray(sample.image.permute(1, 2, 0).numpy())
