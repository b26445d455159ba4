"""Pictures and regions that are described: COCO captions, region captions, grounded captions with masks (GranD-f)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omgvision.answer import Answer
from omgvision.data.datasets.captions import Pictured
from omgvision.evaluation import caption_tools
from omgvision.evaluation.captions import Captions
from omgvision.evaluation.grounded_captions import GroundedCaptions
from omgvision.evaluation.phrase_similarity import bert_is_here, ignore_phrases
from omgvision.evaluation.run_lengths import compressed_all
from omgvision.evaluation.runner.files import write_list
from omgvision.evaluation.runner.speaker import AskSettings, Speaker, ask
from omgvision.evaluation.runner.task import (
    Graded,
    Numbers,
    Outcome,
    Panel,
    Records,
    Task,
    decoded,
    read_picture,
    run_lengths,
)
from omgvision.evaluation.scores import captions as caption_scores
from omgvision.evaluation.scores import grounded_captions as grounded_scores
from omgvision.evaluation.scores.files import complete, read_json
from omgvision.output_files import write_json

_TAGS = re.compile(r"<[^<>]*>|\[SEG\]")
_PHRASES = re.compile(r"<p>(.*?)</p>")


def clean_caption(tagged: str) -> str:
    """The words of an answer: no line breaks, tags and [SEG], single spaces, no quotes around it."""
    return " ".join(_TAGS.sub("", tagged.replace("\n", "")).split()).strip("' ")


def clean_region_caption(tagged: str) -> str:
    """The same without what the answer calls the region ("Region1: a dog" → "a dog")."""
    return clean_caption(re.sub(r"[Rr]egion1|:", "", _TAGS.sub("", tagged)))


def phrases_of(tagged: str) -> list[str]:
    """The words that an answer marks, with a mask or without, in their order."""
    return [phrase.strip() for phrase in _PHRASES.findall(re.sub(" +", " ", tagged.replace("\n", "")))]


class DescribedPictures(Task):
    """METEOR, CIDEr and the other numbers of captions, of whole pictures or of regions."""

    quality = "ROUGE_L"

    def __init__(self, pictures: Mapping[str, Pictured], captions: Path, *, speaker: Speaker, settings: AskSettings):
        """Args:
        pictures: Identity → picture or region.
        captions: Json of the true captions, of all these pictures.
        """
        self.pictures, self.captions, self.speaker, self.settings = pictures, captions, speaker, settings
        self.sample_ids = list(pictures)
        for identity, one in pictures.items():
            if not one.texts:
                raise ValueError(f"{captions}: expected captions of every picture, got none of {identity}")

    def name(self, sample_id: str, record: Mapping[str, Any]) -> str:
        return f"{sample_id}, {self.pictures[sample_id].file.name}"

    def predict(self, sample_id: str, out: Path) -> Outcome:
        del out
        one = self.pictures[sample_id]
        prompts = [] if one.region is None else [one.prompt]
        answer = ask(
            self.speaker.look(read_picture(one.file)), self.settings.questions[0], self.settings, prompts=prompts
        )
        clean = clean_caption if one.region is None else clean_region_caption
        caption = clean(answer.tagged)
        metric = Captions(caption_tools.tokenise_without_java)
        metric.update(sample_id, caption, one.texts)
        return Outcome({"image_id": one.identity, "caption": caption}, metric.compute()["ROUGE_L"])

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del workers
        predictions = out / "captions.json"
        write_list(predictions, (records[sample_id] for sample_id in sample_ids))
        numbers = caption_scores.score(self.captions, predictions, only=self.only(sample_ids))
        words = ("captions", "--gt", str(self.captions), "--pred", str(predictions))
        return Graded(_headline(numbers), words, note=_without_java())

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        del out
        one = self.pictures[sample_id]
        image, masks = read_picture(one.file), []
        if one.region is not None and "mask" in (prompt := one.prompt):
            masks = [(prompt["mask"], 0)]
        return Panel(image, masks, masks, titles=(one.texts[0], record["caption"]))


def _headline(numbers: Numbers) -> Numbers:
    """Without the numbers of single pictures, which are thousands."""
    return {name: value for name, value in numbers.items() if "/" not in name}


def _without_java() -> str:
    try:
        caption_tools.check_tools()
    except caption_tools.ToolsMissing as error:
        return f"{error}. No METEOR; the other numbers may differ in rare words."
    return ""


class GroundedPictures(Task):
    """AP50, mIoU, recall, METEOR and CIDEr of captions whose phrases have masks. One file a picture, as GLaMM's."""

    quality = "mIoU"

    def __init__(
        self, annotations: Path, *, split: grounded_scores.Split, images: Path, speaker: Speaker, settings: AskSettings
    ):
        self.annotations, self.images = annotations, images
        self.split: grounded_scores.Split = split
        self.speaker, self.settings = speaker, settings
        captions_path, masks_path = grounded_scores.paths_of(annotations, split)
        captions = read_json(captions_path, keys={"images": list, "annotations": list})
        masks = read_json(masks_path, keys={"images": list, "annotations": list, "categories": list})
        with complete(captions_path):
            self.files = {str(entry["id"]): str(entry["file_name"]) for entry in captions["images"]}
        with complete(masks_path):
            self.categories = masks["categories"]
            self.entries = {str(entry["id"]): entry for entry in masks["images"]}
            self.masks: dict[str, list[dict[str, Any]]] = {identity: [] for identity in self.entries}
            for one in masks["annotations"]:
                self.masks[str(one["image_id"])].append(one)
        lacking = next((identity for identity in self.files if identity not in self.entries), None)
        if lacking is not None:
            raise ValueError(f"{masks_path}: expected the masks of every picture, got none of {lacking}")
        self.sample_ids = list(self.files)

    def predict(self, sample_id: str, out: Path) -> Outcome:
        conversation = self.speaker.look(read_picture(self.images / self.files[sample_id]))
        answer: Answer | None = None
        for question in self.settings.questions:
            answer = ask(conversation, question, self.settings)
            if answer.masks:
                break
        assert answer is not None
        content = {
            "image_id": self.entries[sample_id]["id"],
            "caption": clean_caption(answer.tagged),
            "phrases": phrases_of(answer.tagged),
            "pred_masks": [run_lengths(mask) for mask in answer.masks],
        }
        write_json(self._path(sample_id, out), content)
        truth = {
            "images": [self.entries[sample_id]],
            "annotations": self.masks[sample_id],
            "categories": self.categories,
        }
        metric = GroundedCaptions(truth, caption_tools.tokenise_without_java, similarity=ignore_phrases)
        with complete(grounded_scores.paths_of(self.annotations, self.split)[1]):
            metric.update(
                sample_id, "", content["phrases"], content["pred_masks"], references=["-"], labels=content["phrases"]
            )
        return Outcome({"caption": content["caption"]}, metric.records[sample_id].mean_iou)

    def grade(self, sample_ids: Sequence[str], records: Records, out: Path, *, workers: int) -> Graded:
        del records
        folder = self._path("", out).parent
        similarity: grounded_scores.SimilarityName = "bert" if bert_is_here() else "jaccard"
        numbers = grounded_scores.score(
            self.annotations,
            folder,
            split=self.split,
            similarity=similarity,
            only=self.only(sample_ids),
            workers=workers,
        )
        words = ("gcg", "--gt", str(self.annotations), "--pred", str(folder), "--split", self.split)
        note = (
            ""
            if similarity == "bert"
            else "Recall compares phrases by the words that they share: the official way needs bert-base-uncased on"
            " this machine (hf download bert-base-uncased, then the command below with --similarity bert)."
        )
        notes = (note, _without_java())
        return Graded(numbers, (*words, "--similarity", similarity), note=" ".join(filter(None, notes)))

    def panel(self, sample_id: str, record: Mapping[str, Any], out: Path) -> Panel:
        entry = self.entries[sample_id]
        with complete(self._path(sample_id, out)):
            found = read_json(self._path(sample_id, out))["pred_masks"]
            guess = [(decoded(one), number) for number, one in enumerate(found)]
        segments = [one["segmentation"] for one in self.masks[sample_id]]
        true = compressed_all(segments, size=(entry["height"], entry["width"]))
        truth = [(decoded({**one, "counts": one["counts"].decode("ascii")}), number) for number, one in enumerate(true)]
        titles = self.files[sample_id], record["caption"]
        return Panel(read_picture(self.images / self.files[sample_id]), truth, guess, titles=titles)

    def _path(self, sample_id: str, out: Path) -> Path:
        return out / "grounded" / f"{sample_id}.json"
