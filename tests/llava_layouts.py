"""Every data set of OMG-LLaVA's training in the layout that it is distributed in, with one small picture each."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from omgvision.training.recipes import llava_mix

HEIGHT, WIDTH = 64, 96
SQUARE = [10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 10.0, 40.0]
"""A polygon."""


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_map(path: Path, values: tuple[int, int]) -> None:
    """The left half has the first value, the right half the second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH), values[0], dtype=np.uint8)
    pixels[:, WIDTH // 2 :] = values[1]
    Image.fromarray(pixels).save(path)


def run_lengths() -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[10:40, 10:40] = 1
    runs: Any = coco_mask.encode(mask)
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]


def write_llava(root: Path) -> None:
    seen = {"id": "0", "image": "coco/1.jpg", "conversations": talk("<image>\nWhat is it?", "A wall.")}
    for base, name, images in (
        ("LLaVA-Pretrain", "blip_laion_cc_sbu_558k.json", "LLaVA-Pretrain/images"),
        ("LLaVA-Instruct-150K", "llava_v1_5_mix665k.json", "llava_images"),
    ):
        write_json(root / "llava_data" / base / name, [seen, {**seen, "id": "1"}])
        write_picture(root / "llava_data" / images / "coco" / "1.jpg")


def write_grounded(root: Path) -> None:
    folder = root / "glamm_data" / "annotations"
    grounded = {
        "file_name": "1.jpg",
        "image_id": 1,
        "height": HEIGHT,
        "width": WIDTH,
        "caption": "A dog runs.",
        "groundings": {"A dog": {"token_positives": [0, 5], "rle_masks": [run_lengths()]}},
    }
    write_json(folder / "GranDf_HA_GCG_train.json", [grounded])
    write_json(folder / "OpenPsgGCG_train.json", [{**grounded, "file_name": "train2017/1.jpg"}])
    refs = [{"sentence": "a dog", "bbox": [10, 10, 30, 30], "segmentation": [SQUARE]}]
    entry = {"img_file_name": "1.jpg", "caption": "A dog runs.", "refs": refs}
    write_json(folder / "RefCOCOg_GCG_train.json", [{"7": entry}])
    photograph = {"id": 1, "file_name": "1.jpg", "caption": "A dog runs here.", "height": HEIGHT, "width": WIDTH}
    annotation = {
        "image_id": 1,
        "bbox": [10, 10, 30, 30],
        "area": 900,
        "tokens_positive": [[0, 5]],
        "sam_mask": run_lengths(),
    }
    write_json(folder / "flickr_mergedGT_GCG_train.json", {"images": [photograph], "annotations": [annotation]})
    for images in ("grandf/train", "flickr30k/Flickr30K", "coco2014/train2014", "coco2017/train2017"):
        write_picture(root / "glamm_data" / "images" / images / "1.jpg")


def write_semantic(root: Path) -> None:
    ade = root / "semantic_seg" / "ADEChallengeData2016"
    write_picture(ade / "images" / "training" / "1.jpg")
    write_map(ade / "annotations" / "training" / "1.png", (1, 2))
    stuff = root / "semantic_seg" / "coco_stuff" / "stuffthingmaps_trainval2017" / "train2017"
    write_map(stuff / "1.png", (17, 170))  # a dog, and a wall of bricks, whose name has a dash


def write_referring(root: Path) -> None:
    for name in ("refcoco", "refcoco+", "refcocog", "refclef"):
        folder = root / "ref_seg" / name
        photograph = {"id": 1, "file_name": "1.jpg", "height": HEIGHT, "width": WIDTH}
        write_json(
            folder / "instances.json",
            {"images": [photograph], "annotations": [{"id": 5, "segmentation": [SQUARE]}]},
        )
        ref = {"ref_id": 3, "image_id": 1, "ann_id": 5, "split": "train", "sentences": [{"sent": "the Dog"}]}
        (folder / f"refs({'umd' if name == 'refcocog' else 'unc'}).p").write_bytes(pickle.dumps([ref]))
    write_picture(root / "ref_seg" / "saiapr_tc-12" / "1.jpg")


def write_regions(root: Path) -> None:
    folder = root / "region_caption" / "osprey"
    entry = {"file_name": "1.jpg", "annotation": [{"segmentation": [SQUARE]}]}
    write_json(folder / "osprey_detail_description.json", [{**entry, "description": ["A <region1> dog."]}])
    write_json(folder / "osprey_conversation.json", [{**entry, "conversations": talk("What is <region1>?", "A dog.")}])


def write_points(root: Path) -> None:
    for ingredient in llava_mix.POINTS:
        entry = {"image": "some/where/1.jpg", "points": [[20, 20]], "conversations": talk("Mark 1?", "A dog.")}
        write_json(root / ingredient.names[0], [entry])
    # This one is in Visual Genome's second folder alone.
    write_picture(root / f"{llava_mix.VISUAL_GENOME}_2" / "1.jpg")
    (root / llava_mix.VISUAL_GENOME).mkdir(parents=True)


def write_all(root: Path) -> Path:
    """All of them; returns the folder."""
    for write in (write_llava, write_grounded, write_semantic, write_referring, write_regions, write_points):
        write(root)
    return root
