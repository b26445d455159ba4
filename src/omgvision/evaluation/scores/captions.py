"""Captions from COCO's files."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from omgvision.evaluation import caption_tools
from omgvision.evaluation.captions import Captions
from omgvision.evaluation.scores.files import complete, identity, read_json, text

logger = logging.getLogger(__name__)


def score(ground_truth: Path, predictions: Path, *, only: Collection[str] | None = None) -> dict[str, float]:
    """BLEU, METEOR, ROUGE-L, CIDEr. Without Java or pycocoevalcap no METEOR, and a tokeniser that is nearly the same.

    Args:
        ground_truth: COCO captions json; all its images count.
        predictions: Json list of `{"image_id": …, "caption": …}`.
        only: Ids of the images that count, as text; None = all.

    Returns:
        What `Captions.compute` says, and `CIDEr/139` … of every image.

    Raises:
        ValueError: A file that is missing or broken, an image without caption or with several, one that is unknown.
    """
    truth = read_json(ground_truth, keys={"images": list, "annotations": list})
    answers = read_json(predictions)
    if not isinstance(answers, list):
        raise ValueError(f"{predictions}: expected a list of captions, got a {type(answers).__name__}")
    references = read_references(ground_truth, truth, only=only)
    captions: dict[str | int, str] = {}
    with complete(predictions):
        for entry in answers:
            if (image := identity(entry, "image_id")) not in references:
                raise ValueError(f"image_id: expected an image of {ground_truth}, got {image}")
            if image in captions:
                raise ValueError(f"image_id: expected one caption for each image, got two for {image}")
            captions[image] = text(entry, "caption")
    metric = best_captions()
    for image, texts in references.items():
        if image not in captions:
            raise ValueError(f"{predictions}: expected a caption for every image, got none for {image}")
        metric.update(str(image), captions[image], texts)
    warn_without_tools()
    numbers, rows = metric.compute_all()
    return numbers | {f"{name}/{image}": value for image, row in rows.items() for name, value in row.items()}


def read_references(
    path: Path, truth: Mapping[str, Any], *, only: Collection[str] | None = None
) -> dict[str | int, list[str]]:
    """Image id → its captions.

    Args:
        path: Where the content comes from, for messages.
        truth: Content of a COCO captions json.
        only: Ids of the images that count, as text; None = all.

    Raises:
        ValueError: No images, an image without captions.
    """
    with complete(path):
        identities = [identity(entry, "id") for entry in truth["images"]]
        references: dict[str | int, list[str]] = {one: [] for one in identities if only is None or str(one) in only}
        for entry in truth["annotations"]:
            if identity(entry, "image_id") in references:
                references[entry["image_id"]].append(text(entry, "caption"))
    if not references:
        raise ValueError(f"{path}: expected images, got none")
    for image, texts in references.items():
        if not texts:
            raise ValueError(f"{path}: expected captions of every image, got none of {image}")
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
