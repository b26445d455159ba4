"""Benchmarks of two or three small pictures, in the layouts of the real ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from omgvision.data.class_lists import ClassListName, load_class_list
from omgvision.evaluation.panoptic_files import write_ids
from omgvision.evaluation.runner.task import run_lengths

SIZE = (48, 64)
CITY = "frankfurt_{:06d}_000019"


def picture(number: int) -> Image.Image:
    """Two coloured boxes on noise, other ones for each number."""
    pixels = np.random.default_rng(number).integers(60, 120, (*SIZE, 3))
    for mask, colour in zip(masks(number), ((220, 40, 40), (40, 60, 220)), strict=True):
        pixels[mask] = colour
    return Image.fromarray(pixels.astype(np.uint8))


def masks(number: int) -> list[np.ndarray]:
    """The boxes."""
    left, right = np.zeros(SIZE, dtype=bool), np.zeros(SIZE, dtype=bool)
    left[8:40, 4 + number : 28], right[12:36, 34 : 58 - number] = True, True
    return [left, right]


def labels(number: int, values: tuple[int, int, int]) -> np.ndarray:
    """Values of the background, the left and the right box: uint8 [H, W]."""
    maps = np.full(SIZE, values[0], dtype=np.uint8)
    for mask, value in zip(masks(number), values[1:], strict=True):
        maps[mask] = value
    return maps


def save(image: Image.Image | np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path)


def dump(content: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def categories(name: ClassListName) -> list[dict[str, Any]]:
    listed = load_class_list(name)
    rows = zip(listed.category_ids, listed.official_names, listed.things, strict=True)
    return [{"id": number, "name": official, "isthing": int(thing)} for number, official, thing in rows]


def coco_mini(root: Path, *, count: int = 3) -> Path:
    """coco_mini: instances and panoptic, person and car on sky."""
    folder = root / "coco_mini"
    images, panoptic, instances = [], [], []
    for number in range(1, count + 1):
        save(picture(number), folder / "images" / f"{number:03d}.png")
        images.append({"id": number, "file_name": f"{number:03d}.png", "height": SIZE[0], "width": SIZE[1]})
        (folder / "panoptic_val").mkdir(exist_ok=True)
        write_ids(labels(number, (3, 1, 2)).astype(np.uint32), folder / "panoptic_val" / f"{number:03d}.png")
        segments = [{"id": one, "category_id": category} for one, category in ((1, 1), (2, 3), (3, 187))]
        panoptic.append({"image_id": number, "file_name": f"{number:03d}.png", "segments_info": segments})
        for category, mask in zip((1, 3), masks(number), strict=True):
            rows, columns = np.nonzero(mask)
            box = [int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]
            one = {"id": len(instances) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            instances.append({**one, "segmentation": run_lengths(mask), "area": int(mask.sum()), "bbox": box})
    dump({"images": images, "annotations": panoptic, "categories": categories("coco")}, folder / "panoptic_val.json")
    things = [one for one in categories("coco") if one["isthing"]]
    dump({"images": images, "annotations": instances, "categories": things}, folder / "instances_val.json")
    return folder


def camvid(root: Path) -> Path:
    for number in (1, 2):
        save(picture(number), root / "camvid" / "images" / "val" / f"a_{number}.jpg")
        save(labels(number, (0, 8, 11)), root / "camvid" / "labels" / "val" / f"a_{number}.png")
    return root / "camvid"


def ade20k(root: Path) -> Path:
    folder = root / "ADEChallengeData2016"
    for number in (1, 2):
        name = f"ADE_val_{number:08d}"
        save(picture(number), folder / "images" / "validation" / f"{name}.jpg")
        save(labels(number, (0, 13, 150)), folder / "annotations" / "validation" / f"{name}.png")
    return folder


def cityscapes(root: Path) -> Path:
    """Road, a car and a person."""
    folder = root / "cityscapes"
    for number in (1, 2):
        name = CITY.format(number)
        save(picture(number), folder / "leftImg8bit" / "val" / "frankfurt" / f"{name}_leftImg8bit.png")
        truth = folder / "gtFine" / "val" / "frankfurt"
        save(labels(number, (7, 26, 24)), truth / f"{name}_gtFine_labelIds.png")
        table = np.arange(256, dtype=np.uint16)
        table[[26, 24]] = 26000, 24000
        save(table[labels(number, (7, 26, 24))], truth / f"{name}_gtFine_instanceIds.png")
    return folder


def vipseg(root: Path) -> Path:
    folder = root / "VIPSeg"
    videos, annotations = [], []
    for name in ("v1", "v2"):
        images, frames = [], []
        for number in range(8):
            save(picture(number), folder / "images" / name / f"{number}.jpg")
            (folder / "panomasksRGB" / name).mkdir(parents=True, exist_ok=True)
            write_ids(labels(number, (3, 1, 2)).astype(np.uint32), folder / "panomasksRGB" / name / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
            segments = [{"id": one, "category_id": category} for one, category in ((1, 61), (2, 2), (3, 0))]
            frames.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
        videos.append({"video_id": name, "images": images})
        annotations.append({"video_id": name, "annotations": frames})
    content = {"videos": videos, "annotations": annotations, "categories": categories("vipseg")}
    dump(content, folder / "panoptic_gt_VIPSeg_val.json")
    return folder


def ovis(root: Path, *, annotated: bool = True) -> Path:
    folder = root / "ovis"
    videos, tracks = [], []
    for video in (1, 2):
        files = [f"v{video}/{number}.jpg" for number in range(3)]
        for number, file in enumerate(files):
            save(picture(number), folder / "valid" / file)
        videos.append({"id": video, "file_names": files, "height": SIZE[0], "width": SIZE[1], "length": 3})
        for place, category in enumerate((1, 2)):
            runs = [run_lengths(masks(number)[place]) for number in range(3)]
            one = {"id": len(tracks) + 1, "video_id": video, "category_id": category, "iscrowd": 0}
            tracks.append({**one, "segmentations": runs, "areas": [int(masks(n)[place].sum()) for n in range(3)]})
    content = {"videos": videos, "annotations": tracks if annotated else None, "categories": categories("ovis")}
    dump(content, folder / "annotations_valid.json")
    return folder


def vspw(root: Path) -> Path:
    folder = root / "VSPW_480p"
    for name in ("v1", "v2"):
        for number in range(3):
            save(picture(number), folder / "data" / name / "origin" / f"{number}.jpg")
            save(labels(number, (1, 3, 255)), folder / "data" / name / "mask" / f"{number}.png")
    (folder / "val.txt").write_text("v1\nv2\n", encoding="utf-8")
    return folder


def davis(root: Path) -> Path:
    folder = root / "DAVIS"
    for name in ("dog", "cat"):
        for number in range(4):
            save(picture(number), folder / "JPEGImages" / "480p" / name / f"{number:05d}.jpg")
            save(labels(number, (0, 1, 2)), folder / "Annotations" / "480p" / name / f"{number:05d}.png")
    (folder / "ImageSets" / "2017").mkdir(parents=True)
    (folder / "ImageSets" / "2017" / "val.txt").write_text("dog\ncat\n", encoding="utf-8")
    return folder
