"""Grounded captions from GranD-f's files."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from omgvision.evaluation.grounded_captions import Answer, GroundedCaptions, Similarity, overlaps
from omgvision.evaluation.phrase_similarity import BertSimilarity, exact, ignore_phrases, jaccard
from omgvision.evaluation.run_lengths import compressed_all
from omgvision.evaluation.scores.captions import best_captions, read_references, warn_without_tools
from omgvision.evaluation.scores.files import (
    complete,
    entries,
    identity,
    integer,
    number,
    read_json,
    text,
    warn_of_surplus,
)
from omgvision.evaluation.scores.gather import spread

SimilarityName = Literal["bert", "jaccard", "exact", "any"]
Split = Literal["val", "test"]


@dataclass(frozen=True)
class _Picture:
    name: str
    size: tuple[int, int]
    segmentations: list[Any]
    references: list[str]
    labels: list[str]


def paths_of(ground_truth: Path, split: Split) -> tuple[Path, Path]:
    """The jsons of captions and of masks."""
    captions, masks = (ground_truth / f"{split}_gcg_coco_{kind}_gt.json" for kind in ("caption", "mask"))
    return captions, masks


def score(
    ground_truth: Path,
    predictions: Path,
    *,
    split: Split = "val",
    similarity: SimilarityName = "bert",
    only: Collection[str] | None = None,
    workers: int = 1,
) -> dict[str, float]:
    """What `GroundedCaptions.compute` says.

    Args:
        ground_truth: Folder with `val_gcg_coco_caption_gt.json` and `val_gcg_coco_mask_gt.json`.
        predictions: Folder with `<image id>.json`: `caption`, `phrases` and `pred_masks` (run lengths), perhaps below
            the name of the picture.
        split: Whose files, `val` or `test`.
        similarity: Whether a phrase is the right one: `bert` is the official way, `any` takes all.
        only: Ids of the images that count, as text; None = all.
        workers: Processes.

    Raises:
        ValueError: A file that is missing or broken, an image without prediction, a mask of another size, no BERT.
    """
    captions_path, masks_path = paths_of(ground_truth, split)
    captions = read_json(captions_path, keys={"images": list, "annotations": list})
    masks = read_json(masks_path, keys={"images": list, "annotations": list, "categories": list})
    references = read_references(captions_path, captions, only=only)
    with complete(captions_path):
        labels: dict[str | int, list[str]] = {}
        for entry in captions["annotations"]:
            labels.setdefault(identity(entry, "image_id"), _texts(entry, "labels"))
    alike = _similarity(similarity)
    best = best_captions()
    with complete(masks_path):
        _check(masks)
        metric = GroundedCaptions(masks, best.tokenise, similarity=alike, meteor=best.meteor)
        sizes = {str(entry["id"]): (entry["height"], entry["width"]) for entry in masks["images"]}
        true: dict[str, list[Any]] = {}
        for entry in masks["annotations"]:
            true.setdefault(str(entry["image_id"]), []).append(entry["segmentation"])
    pictures = []
    for image, texts in references.items():
        name = str(image)
        if name not in sizes:
            raise ValueError(f"{masks_path}: expected the masks of every image, got none of {name}")
        pictures.append(_Picture(name, sizes[name], true.get(name, []), texts, labels[image]))
    read = partial(_read, folder=predictions, masks_path=masks_path)
    for picture, answer in zip(pictures, spread(read, pictures, workers=workers, title="images"), strict=True):
        metric.add(picture.name, answer)
    with complete(masks_path):
        numbers = metric.compute()
    known = {str(entry["id"]) for entry in captions["images"]}
    warn_of_surplus(predictions, {path.stem for path in predictions.glob("*.json")} - known, "images", captions_path)
    warn_without_tools()
    return numbers


def _read(picture: _Picture, *, folder: Path, masks_path: Path) -> Answer:
    with complete(masks_path):
        true = compressed_all(picture.segmentations, size=picture.size)
    path = folder / f"{picture.name}.json"
    content = read_json(path)
    with complete(path):
        answer = content if "caption" in content else next(iter(content.values()), {})
        caption, phrases = text(answer, "caption"), _texts(answer, "phrases")
        masks = compressed_all(entries(answer, "pred_masks"), size=picture.size)
    return Answer(caption, picture.references, phrases, picture.labels, masks, overlaps(masks, true))


def _check(masks: Mapping[str, Any]) -> None:
    """What AP reads besides the segmentations; for the inside of `complete`."""
    for key, reader, names in (
        ("images", identity, ("id",)),
        ("images", integer, ("height", "width")),
        ("annotations", identity, ("id", "image_id")),
        ("annotations", number, ("area",)),
        ("annotations", integer, ("category_id",)),
        ("categories", integer, ("id",)),
    ):
        for entry in masks[key]:
            for name in names:
                reader(entry, name)
    for entry in masks["annotations"]:
        if entry.get("iscrowd", 0) not in (0, 1):
            raise ValueError(f"iscrowd: expected 0 or 1, got {entry['iscrowd']!r}")


def _texts(entry: Mapping[str, Any], key: str) -> list[str]:
    if not isinstance(entry[key], list) or not all(isinstance(one, str) for one in entry[key]):
        raise ValueError(f"expected a list of texts as {key}, got {str(entry[key])[:60]}")
    return entry[key]


def _similarity(name: SimilarityName) -> Similarity:
    if name == "bert":
        return BertSimilarity()
    return {"jaccard": jaccard, "exact": exact, "any": ignore_phrases}[name]
