"""Grounded captions from GranD-f's files."""

from pathlib import Path
from typing import Any, Literal

from omgvision.evaluation.grounded_captions import GroundedCaptions, Similarity
from omgvision.evaluation.phrase_similarity import BertSimilarity, exact, ignore_phrases, jaccard
from omgvision.evaluation.scores.captions import best_captions, read_references, warn_without_tools
from omgvision.evaluation.scores.files import complete, read_json

SimilarityName = Literal["bert", "jaccard", "exact", "any"]


def score(
    ground_truth: Path, predictions: Path, *, split: str = "val", similarity: SimilarityName = "bert"
) -> dict[str, float]:
    """What `GroundedCaptions.compute` says.

    Args:
        ground_truth: Folder with `val_gcg_coco_caption_gt.json` and `val_gcg_coco_mask_gt.json`.
        predictions: Folder with `<image id>.json`: `caption`, `phrases` and `pred_masks` (run lengths), perhaps below
            the name of the picture.
        split: Whose files, `val` or `test`.
        similarity: Whether a phrase is the right one: `bert` is the official way, `any` takes all.

    Raises:
        ValueError: A file that is missing or broken, an image without prediction, a mask of another size, no BERT.
    """
    captions_path, masks_path = (ground_truth / f"{split}_gcg_coco_{kind}_gt.json" for kind in ("caption", "mask"))
    captions = read_json(captions_path, keys={"images": list, "annotations": list})
    masks = read_json(masks_path, keys={"images": list, "annotations": list, "categories": list})
    references = read_references(captions_path, captions)
    with complete(captions_path):
        labels: dict[Any, list[str]] = {}
        for entry in captions["annotations"]:
            labels.setdefault(entry["image_id"], list(entry["labels"]))
    alike = _similarity(similarity)
    best = best_captions()
    with complete(masks_path):
        metric = GroundedCaptions(masks, best.tokenise, similarity=alike, meteor=best.meteor)
    for identity, texts in references.items():
        path = predictions / f"{identity}.json"
        content = read_json(path)
        with complete(path):
            answer = content if "caption" in content else next(iter(content.values()), {})
            metric.update(
                str(identity),
                str(answer["caption"]),
                list(map(str, answer["phrases"])),
                answer["pred_masks"],
                references=texts,
                labels=labels[identity],
            )
    warn_without_tools()
    return metric.compute()


def _similarity(name: SimilarityName) -> Similarity:
    if name == "bert":
        return BertSimilarity()
    return {"jaccard": jaccard, "exact": exact, "any": ignore_phrases}[name]
