"""Captions from COCO's files."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omgvision.evaluation import caption_tools
from omgvision.evaluation.captions import Captions
from omgvision.evaluation.scores.files import complete, read_json

logger = logging.getLogger(__name__)


def score(ground_truth: Path, predictions: Path) -> dict[str, float]:
    """BLEU, METEOR, ROUGE-L, CIDEr. Without Java or pycocoevalcap no METEOR, and a tokeniser that is nearly the same.

    Args:
        ground_truth: COCO captions json; all its images count.
        predictions: Json list of `{"image_id": …, "caption": …}`.

    Returns:
        What `Captions.compute` says, and `CIDEr/139` … of every image.

    Raises:
        ValueError: A file that is missing or broken, an image without caption or with several, one that is unknown.
    """
    truth = read_json(ground_truth, keys={"images": list, "annotations": list})
    answers = read_json(predictions)
    if not isinstance(answers, list):
        raise ValueError(f"{predictions}: expected a list of captions, got a {type(answers).__name__}")
    references = read_references(ground_truth, truth)
    captions: dict[Any, str] = {}
    with complete(predictions):
        for entry in answers:
            if entry["image_id"] not in references:
                raise ValueError(f"image_id: expected an image of {ground_truth}, got {entry['image_id']}")
            if entry["image_id"] in captions:
                raise ValueError(f"image_id: expected one caption for each image, got two for {entry['image_id']}")
            captions[entry["image_id"]] = str(entry["caption"])
    metric = best_captions()
    for identity, texts in references.items():
        if identity not in captions:
            raise ValueError(f"{predictions}: expected a caption for every image, got none for {identity}")
        metric.update(str(identity), captions[identity], texts)
    warn_without_tools()
    numbers, rows = metric.compute_all()
    return numbers | {f"{name}/{identity}": value for identity, row in rows.items() for name, value in row.items()}


def read_references(path: Path, truth: Mapping[str, Any]) -> dict[Any, list[str]]:
    """Image id → its captions.

    Args:
        path: Where the content comes from, for messages.
        truth: Content of a COCO captions json.

    Raises:
        ValueError: No images, an image without captions.
    """
    with complete(path):
        references: dict[Any, list[str]] = {entry["id"]: [] for entry in truth["images"]}
        for entry in truth["annotations"]:
            if entry["image_id"] in references:
                references[entry["image_id"]].append(str(entry["caption"]))
    if not references:
        raise ValueError(f"{path}: expected images, got none")
    for identity, texts in references.items():
        if not texts:
            raise ValueError(f"{path}: expected captions of every image, got none of {identity}")
    return references


def best_captions() -> Captions:
    """The official tokeniser and METEOR, or without Java our tokeniser alone."""
    try:
        caption_tools.check_tools()
    except caption_tools.ToolsMissing:
        return Captions(caption_tools.tokenise_without_java)
    return Captions(caption_tools.tokenise, meteor=caption_tools.meteor)


def warn_without_tools() -> None:
    """Says what `best_captions` went without, when the files are known to be good."""
    try:
        caption_tools.check_tools()
    except caption_tools.ToolsMissing as error:
        logger.warning("%s. No METEOR; the other numbers may differ in rare words", error)
