"""Every data set of the published recipes in the layout that it is distributed in, with all its classes and one small
picture or video each; and a small CLIP to start from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from safetensors.torch import save_file
from transformers import CLIPTextModelWithProjection

import omgvision as omg
from omgvision.data.class_lists import ClassListName, load_class_list
from omgvision.models.omg_seg.backbone_omg_seg import LinearClipHead
from tests.models import small_text_config

HEIGHT, WIDTH = 64, 96
FRAMES = 3
LEFT, RIGHT = 300, 70_000
"""Ids of the two segments of a panoptic picture."""
THING = np.pad(np.ones((30, 30), dtype=np.uint8), ((10, HEIGHT - 40), (10, WIDTH - 40)))
"""The mask of an object [H, W]."""


def write_picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_map(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def write_halves(path: Path) -> None:
    """The left half is segment `LEFT`, the right half `RIGHT`, coded as R + 256 G + 65536 B."""
    ids = np.full((HEIGHT, WIDTH), LEFT)
    ids[:, WIDTH // 2 :] = RIGHT
    write_map(path, np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8))


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def run_lengths() -> dict[str, Any]:
    runs: Any = coco_mask.encode(np.asfortranarray(THING))
    return {"size": runs["size"], "counts": runs["counts"].decode()}


def categories(classes: ClassListName) -> list[dict[str, Any]]:
    known = load_class_list(classes)
    entries = zip(known.category_ids, known.official_names, known.things, strict=True)
    return [{"id": category, "name": name, "isthing": int(thing)} for category, name, thing in entries]


def halves_of(classes: ClassListName) -> list[dict[str, int]]:
    """The segments of `write_halves`: the list's first thing and its first stuff."""
    known = load_class_list(classes)
    thing, stuff = (known.category_ids[known.things.index(countable)] for countable in (True, False))
    return [{"id": LEFT, "category_id": thing, "iscrowd": 0}, {"id": RIGHT, "category_id": stuff, "iscrowd": 0}]


def photograph(image_id: int | str, file_name: str) -> dict[str, Any]:
    return {"id": image_id, "file_name": file_name, "height": HEIGHT, "width": WIDTH}


def write_panoptic(annotations: Path, *, images: Path, image_id: int | str, stem: str, classes: ClassListName) -> None:
    """A json of one photograph, its PNG folder beside it, and the photograph."""
    annotation = {"image_id": image_id, "file_name": f"{stem}.png", "segments_info": halves_of(classes)}
    content = {
        "images": [photograph(image_id, f"{stem}.jpg")],
        "annotations": [annotation],
        "categories": categories(classes),
    }
    write_json(annotations, content)
    write_halves(annotations.with_suffix("") / f"{stem}.png")
    write_picture(images / f"{stem}.jpg")


def write_coco(root: Path) -> None:
    folder = root / "coco"
    for part in ("train2017", "val2017"):
        annotations = folder / "annotations" / f"panoptic_{part}.json"
        write_panoptic(annotations, images=folder / part, image_id=7, stem="000000000007", classes="coco")
    thing = {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": run_lengths()}
    content = {
        "images": [photograph(7, "000000000007.jpg")],
        "annotations": [thing],
        "categories": categories("coco-things"),
    }
    write_json(folder / "annotations" / "instances_val2017.json", content)


def write_ade20k(root: Path) -> None:
    folder = root / "ADEChallengeData2016"
    stem = "ADE_train_00000001"
    images = folder / "images" / "training"
    write_panoptic(folder / "ade20k_panoptic_train.json", images=images, image_id=stem, stem=stem, classes="ade20k")


def write_cityscapes(root: Path) -> None:
    """Without the official panoptic files: from the numbers of objects, a road (7) and a car (26)."""
    folder = root / "cityscapes"
    stem = "ulm_000000_000019"
    write_picture(folder / "leftImg8bit" / "train" / "ulm" / f"{stem}_leftImg8bit.png")
    ids = np.where(THING == 1, 26_000, 7).astype(np.uint16)
    write_map(folder / "gtFine" / "train" / "ulm" / f"{stem}_gtFine_instanceIds.png", ids)


def write_youtube_vis(root: Path, classes: ClassListName) -> None:
    folder = root / classes / "train"
    files = [f"a/{frame:05d}.jpg" for frame in range(FRAMES)]
    video = {"id": 1, "height": HEIGHT, "width": WIDTH, "file_names": files}
    track = {"id": 1, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": [run_lengths()] * FRAMES}
    content = {"videos": [video], "annotations": [track], "categories": categories(classes)}
    write_json(folder / "instances.json", content)
    for file in files:
        write_picture(folder / "JPEGImages" / file)


def write_vipseg(root: Path) -> None:
    folder = root / "VIPSeg_720P"
    stems = [f"{frame:08d}" for frame in range(FRAMES)]
    segments = halves_of("vipseg")
    annotations = [{"image_id": stem, "file_name": f"{stem}.png", "segments_info": segments} for stem in stems]
    content = {
        "videos": [{"video_id": "12_ab", "images": [photograph(stem, f"{stem}.png") for stem in stems]}],
        "annotations": [{"video_id": "12_ab", "annotations": annotations}],
        "categories": categories("vipseg"),
    }
    write_json(folder / "panoptic_gt_VIPSeg_train.json", content)
    for stem in stems:
        write_picture(folder / "images" / "12_ab" / f"{stem}.jpg")
        write_halves(folder / "panomasksRGB" / "12_ab" / f"{stem}.png")


def write_objects365(root: Path) -> None:
    """A box, and in a second file its mask."""
    folder = root / "objects365"
    file = "patch8/objects365_v2_00420917.jpg"
    content = {
        "images": [photograph(420917, f"images/v2/{file}")],
        "annotations": [{"id": 1, "image_id": 420917, "category_id": 1, "bbox": [10, 10, 30, 30], "iscrowd": 0}],
        "categories": categories("objects365"),
    }
    write_json(folder / "zhiyuan_objv2_train.json", content)
    write_json(folder / "masks.json", [{"id": 1, "segmentation": run_lengths()}])
    write_picture(folder / "train" / file)


def write_all(root: Path) -> Path:
    """All of them; returns the folder."""
    for write in (write_coco, write_ade20k, write_cityscapes, write_vipseg, write_objects365):
        write(root)
    for classes in ("youtube_vis_2019", "youtube_vis_2021"):
        write_youtube_vis(root, classes)
    return root


def write_clip(folder: Path) -> Path:
    """As `omg convert` writes it for an OpenCLIP file; returns the folder."""
    torch.manual_seed(0)
    config = omg.ClipConvNextConfig(hidden_sizes=(8, 16, 16, 32), depths=(1, 1, 1, 1))
    omg.ClipConvNextBackbone(config).save_pretrained(folder)
    save_file(LinearClipHead(32, 16, layer_norm_eps=1e-6).state_dict(), folder / "clip_head.safetensors")
    CLIPTextModelWithProjection(small_text_config()).save_pretrained(folder / "text_model")
    return folder
