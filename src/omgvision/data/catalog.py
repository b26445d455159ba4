"""From a path to the reader of what lies there: a json, or a folder in one of the layouts that people have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .clips import FrameSampling
from .datasets.ade20k import Ade20kPanoptic, Ade20kSemantic
from .datasets.cityscapes import CityscapesPanoptic, cityscapes_panoptic
from .datasets.coco import CocoInstances, CocoPanoptic
from .datasets.davis import Davis
from .datasets.lvis import Lvis
from .datasets.mask_folder import MaskFolder
from .datasets.objects365 import Objects365
from .datasets.pascal_voc import PascalVoc
from .datasets.reading import IMAGE_SUFFIXES, ImageReader, image_size, read_label_map
from .datasets.segment_anything import SegmentAnything
from .datasets.video import VideoReader
from .datasets.vipseg import VipSeg
from .datasets.vspw import Vspw
from .datasets.youtube_vis import YouTubeVis

Reader = ImageReader | VideoReader

LAYOUTS = (
    "a json: COCO panoptic, COCO instances, LVIS, Objects365 with masks, YouTube-VIS (2019, 2021, OVIS), VIPSeg",
    "ADE20K: images/training and annotations/training",
    "Cityscapes: leftImg8bit and gtFine",
    "Pascal VOC: JPEGImages, SegmentationClass and ImageSets/Segmentation",
    "SA-1B: sa_*.jpg with sa_*.json",
    "DAVIS: JPEGImages and Annotations",
    "VIPSeg: images, panomasksRGB and panoptic_gt_VIPSeg_*.json",
    "VSPW: data/*/origin and data/*/mask",
    "folders of images and of masks (images with masks, labels or instances beside it), PNG of the same stems",
)
"""What `open_dataset` understands, for people."""

_MASK_FOLDERS = ("masks", "labels", "instances", "annotations")


@dataclass(frozen=True)
class _Request:
    """The arguments of `open_dataset`."""

    path: Path
    images: Path | None
    masks: Path | None
    classes: Sequence[str] | None
    split: str | None
    instances: bool
    sampling: FrameSampling
    strict: bool


def open_dataset(
    path: str | Path,
    *,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    classes: Sequence[str] | None = None,
    split: str | None = None,
    instances: bool = False,
    sampling: FrameSampling = FrameSampling(),  # noqa: B008 - immutable
    strict: bool = False,
) -> Reader:
    """Looks at what lies at `path` and gives its reader: of images (`[index]` → `Sample`) or of videos (`clip`).

    Args:
        path: a json or the root folder of a dataset (`LAYOUTS`), or a folder of images if `masks` is given.
        images: folder of the images of a json; by default the folder near the json that has the first of them.
        masks: for a folder of images, the folder of PNG masks; for an Objects365 json, the json of its masks.
        classes: for folders of masks, the class of each value; by default from `classes.json` beside the images:
            {"classes": [...], "things": [...], "void": 255, "split_things": true}, or just the list of classes.
        split: "train", "val" …, where a layout has parts; by default "train". DAVIS: "2017/train".
        instances: the masks number the objects of one class (as they do in a folder called instances).
        sampling: of videos, which frames make a clip.
        strict: what would be left out as faulty raises instead.
    Raises:
        ValueError: nothing there, nothing that is understood, an argument that is missing, or what the reader raises.
    """
    request = _Request(
        path=Path(path),
        images=None if images is None else Path(images),
        masks=None if masks is None else Path(masks),
        classes=classes,
        split=split,
        instances=instances,
        sampling=sampling,
        strict=strict,
    )
    if request.path.is_file():
        return _open_json(request)
    if not request.path.is_dir():
        raise ValueError(f"{request.path} does not exist: expected a json file or a folder")
    if request.masks is not None:
        return _open_mask_folder(request, images=request.path, masks=request.masks)
    for matches, reader in _FOLDERS:
        root = matches(request.path)
        if root is not None:
            return reader(request, root)
    pair = _find_masks(request)
    if pair is not None:
        return _open_mask_folder(request, images=pair[0], masks=pair[1])
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in request.path.iterdir()):
        raise ValueError(
            f"{request.path} is a folder of images: give that of their masks as well (masks=…, in the shell --masks)"
        )
    jsons = sorted(path.name for path in chain(request.path.glob("*.json"), request.path.glob("annotations/*.json")))
    hint = f"; there are json files in it, give one of them: {', '.join(jsons[:4])}" if jsons else ""
    raise ValueError(f"{request.path} has no layout that is known{hint}. Known are: {'; '.join(LAYOUTS)}")


# ----------------------------------------------------------------------------------------------------------- json files


def _open_json(request: _Request) -> Reader:
    path = request.path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise ValueError(f"{path} is not a JSON file: expected {LAYOUTS[0]}; or a folder") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no json object: expected images or videos, annotations and categories")
    first = _first_entry(content, "annotations")
    if "videos" in content:
        video = _first_entry(content, "videos")
        if "video_id" in video and "annotations" in first:
            return VipSeg(path, images=request.images, sampling=request.sampling, strict=request.strict)
        images = _images_of(request, _first_files(content["videos"], "file_names"))
        return YouTubeVis(path, images=images, sampling=request.sampling, strict=request.strict)
    image = _first_entry(content, "images")
    if path.name.startswith("cityscapes_panoptic_"):
        split = path.stem.removeprefix("cityscapes_panoptic_").removesuffix("_trainId")
        train_ids = path.stem.endswith("_trainId")
        return CityscapesPanoptic(path.parent.parent, split=split, train_ids=train_ids, strict=request.strict)
    if "coco_url" in image and "file_name" not in image:
        names = ["/".join(str(entry["coco_url"]).split("/")[-2:]) for entry in content["images"][:20]]
        images = _images_of(request, [*names, *(name.rpartition("/")[2] for name in names)])
        return Lvis(path, images=images, strict=request.strict)
    files = _first_files(content.get("images", []), "file_name")
    if "objects365_v" in str(image.get("file_name")):
        parts = [name.split("/") for name in files]
        images = _images_of(request, ["/".join(part[-depth:]) for part in parts for depth in (len(part), 2, 1)])
        return Objects365(path, images=images, masks=request.masks, strict=request.strict)
    images = _images_of(request, files)
    if "segments_info" in first:
        words = "ade20k" if path.name.startswith("ade20k_") else "coco"
        return CocoPanoptic(path, images=images, segmentations=request.masks, words=words, strict=request.strict)
    return CocoInstances(path, images=images, masks=request.masks, strict=request.strict)


def _first_entry(content: dict[str, Any], key: str) -> dict[str, Any]:
    entries = content.get(key)
    return entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}


def _first_files(entries: Any, key: str) -> list[str]:
    """Some file names of a json's images or videos."""
    found = [entry[key] for entry in entries[:20] if isinstance(entry, dict) and entry.get(key)]
    return [str(name[0] if isinstance(name, list) else name) for name in found]


def _images_of(request: _Request, files: Sequence[str]) -> Path:
    """The folder that was given, or the one near the json that has one of the files."""
    if request.images is not None:
        return request.images
    near = request.path.parent
    usual = (near / "images", near / "JPEGImages", near)
    for folder in chain(usual, near.glob("*"), near.glob("*/*"), (near.parent,), near.parent.glob("*")):
        if folder.is_dir() and any((folder / file).is_file() for file in files):
            return folder
    raise ValueError(
        f"images: {request.path} names {files[0] if files else 'no image'}, which is not in {usual[0]} nor elsewhere"
        " near the json: give the folder of its images (images=…, in the shell --images)"
    )


# -------------------------------------------------------------------------------------------------------------- folders


def _ade20k(root: Path) -> Path | None:
    for folder in (root, root / "ADEChallengeData2016"):
        if any((folder / "images" / part).is_dir() for part in ("training", "validation")):
            return folder
    return None


def _open_ade20k(request: _Request, root: Path) -> Reader:
    split = _choice(request, {"train": root / "images" / "training", "val": root / "images" / "validation"})
    name = "train" if split == "train" else "val"
    if (root / f"ade20k_panoptic_{name}.json").is_file():
        return Ade20kPanoptic(root, split=name, strict=request.strict)
    return Ade20kSemantic(root, split=name, strict=request.strict)


def _cityscapes(root: Path) -> Path | None:
    return root if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir() else None


def _open_cityscapes(request: _Request, root: Path) -> Reader:
    parts = {path.name: path for path in sorted((root / "leftImg8bit").iterdir()) if path.is_dir()}
    return cityscapes_panoptic(root, split=_choice(request, parts), strict=request.strict)


def _pascal_voc(root: Path) -> Path | None:
    for folder in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (folder / "SegmentationClass").is_dir() and (folder / "ImageSets" / "Segmentation").is_dir():
            return folder
    return None


def _open_pascal_voc(request: _Request, root: Path) -> Reader:
    parts = {path.stem: path for path in sorted((root / "ImageSets" / "Segmentation").glob("*.txt"))}
    kind = "instance" if (root / "SegmentationObject").is_dir() else "semantic"
    return PascalVoc(root, split=_choice(request, parts), kind=kind, strict=request.strict)


def _segment_anything(root: Path) -> Path | None:
    return root if any(chain(root.glob("sa_*.json"), root.glob("*/sa_*.json"))) else None


def _open_segment_anything(request: _Request, root: Path) -> Reader:
    return SegmentAnything(root, strict=request.strict)


def _davis(root: Path) -> Path | None:
    return root if (root / "JPEGImages").is_dir() and (root / "Annotations").is_dir() else None


def _open_davis(request: _Request, root: Path) -> Reader:
    sets = root / "ImageSets"
    parts = {str(path.relative_to(sets).with_suffix("")): path for path in sorted(sets.glob("*/*.txt"))}
    split = _choice(request, parts) if parts or request.split else None
    single = _has_one_object(root / "Annotations")
    return Davis(root, split=split, single_object=single, sampling=request.sampling, strict=request.strict)


def _has_one_object(annotations: Path) -> bool:
    """Whether the first label map is of DAVIS 2016, which has 255 for its one object; in 2017 that is void."""
    first = next(chain(annotations.glob("*/*.png"), annotations.glob("*/*/*.png")), None)
    if first is None:
        return False
    values = np.unique(read_label_map(first, size=image_size(first)))
    return values.tolist() == [0, 255]


def _vipseg(root: Path) -> Path | None:
    return root if (root / "panomasksRGB").is_dir() else None


def _open_vipseg(request: _Request, root: Path) -> Reader:
    stem = "panoptic_gt_VIPSeg_"
    parts = {path.stem.removeprefix(stem): path for path in sorted(root.glob(f"{stem}*.json"))}
    return VipSeg(parts[_choice(request, parts)], sampling=request.sampling, strict=request.strict)


def _vspw(root: Path) -> Path | None:
    return root if any((root / "data").glob("*/mask")) else None


def _open_vspw(request: _Request, root: Path) -> Reader:
    parts = {path.stem: path for path in sorted(root.glob("*.txt"))}
    return Vspw(root, split=_choice(request, parts), sampling=request.sampling, strict=request.strict)


_FOLDERS: tuple[tuple[Callable[[Path], Path | None], Callable[[_Request, Path], Reader]], ...] = (
    (_ade20k, _open_ade20k),
    (_cityscapes, _open_cityscapes),
    (_pascal_voc, _open_pascal_voc),
    (_davis, _open_davis),
    (_vipseg, _open_vipseg),
    (_vspw, _open_vspw),
    (_segment_anything, _open_segment_anything),
)


def _choice(request: _Request, parts: dict[str, Path]) -> str:
    """The part that was asked for; without one that of training, or the only one."""
    parts = {name: path for name, path in parts.items() if path.exists()}
    if request.split is not None:
        chosen = [name for name in parts if request.split in (name, name.rpartition("/")[2])]
    else:
        chosen = [name for name in parts if name.rpartition("/")[2] == "train"] or (
            list(parts) if len(parts) == 1 else []
        )
    if not chosen:
        raise ValueError(
            f"split: expected one of {', '.join(parts) or 'none'} of {request.path}, got {request.split or 'none'}"
            " (split=…, in the shell --split)"
        )
    return chosen[-1]


# ----------------------------------------------------------------------------------------------------- folders of masks


def _find_masks(request: _Request) -> tuple[Path, Path] | None:
    """The folders of images and masks in a root, or of their part."""
    images = request.images or request.path / "images"
    masks = next((request.path / name for name in _MASK_FOLDERS if (request.path / name).is_dir()), None)
    if masks is None or not images.is_dir():
        return None
    if any(path.suffix.lower() in IMAGE_SUFFIXES for path in images.iterdir()):
        if request.split is not None:
            raise ValueError(f"split: {images} has no parts, got {request.split!r}")
        return images, masks
    part = _choice(request, {path.name: path for path in sorted(images.iterdir()) if path.is_dir()})
    return images / part, masks / part


def _open_mask_folder(request: _Request, *, images: Path, masks: Path) -> MaskFolder:
    numbered = request.instances or "instances" in (masks.name, masks.parent.name)
    classes, settings = request.classes, {}
    if classes is None:
        settings = _read_settings(request.path, images)
        classes = settings.pop("classes")
    return MaskFolder(
        images,
        masks=masks,
        classes=list(classes),
        kind="instance" if numbered else "semantic",
        strict=request.strict,
        name=request.path.name if request.path != images else images.parent.name,
        **settings,
    )


def _read_settings(root: Path, images: Path) -> dict[str, Any]:
    """What `classes.json` says, as arguments of `MaskFolder`."""
    folders = dict.fromkeys((root, images.parent, images.parent.parent))
    path = next((folder / "classes.json" for folder in folders if (folder / "classes.json").is_file()), None)
    if path is None:
        raise ValueError(
            f"classes: the masks of {root} need names for their values: give them (classes=[…], in the shell"
            f" --classes), or a list of them in {root / 'classes.json'}"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"classes: {path} is not json ({error})") from None
    content = {"classes": content} if isinstance(content, list) else content
    lists = (content.get("classes"), content.get("things", [])) if isinstance(content, dict) else (None,)
    if not isinstance(content, dict) or not all(map(_is_names, lists)):
        raise ValueError(f"classes: {path}: expected a list of names, or an object with the lists classes and things")
    void, split_things = content.get("void"), content.get("split_things", False)
    if not (void is None or type(void) is int) or not isinstance(split_things, bool):
        raise ValueError(f"classes: {path}: expected a number or null as void and true or false as split_things")
    return {
        "classes": content["classes"],
        "things": content.get("things", []),
        "void": void,
        "split_things": split_things,
    }


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
