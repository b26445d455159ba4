"""VIPSeg in its 720P layout: one json a split, folders of frames and of RGB-coded PNG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..class_lists import plain_names
from ..clips import FrameSampling
from .reading import Findings, Listing, read_annotations, read_label_map
from .video import PAIRS, Video, VideoReader


class VipSeg(VideoReader):
    """Videos with every pixel's segment. A segment's id is the same in all frames of its video.

    Objects come first, by ascending id, then stuff, by class and one segment a class: the order in which the original
    gives them to the loss (its ids carry class and number; these here are what the dataset's own converter drew).
    Crowd segments are dropped, and pixels whose id the json does not have: they belong to nothing.

    Source of the layout: `create_panoptic_video_labels.py` of VIPSeg-Dataset.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path | None = None,
        segmentations: str | Path | None = None,
        sampling: FrameSampling = PAIRS,
        strict: bool = False,
        name: str = "vipseg",
    ) -> None:
        """Reads the json and checks that its parts fit each other and that the files are there.

        Args:
            annotations: `panoptic_gt_VIPSeg_train.json` or that of another split.
            images: folder of the videos' frames; by default `images` beside the json.
            segmentations: folder of the videos' PNG files; by default `panomasksRGB` beside the json.
            sampling: which frames make a clip.
            strict: raise where something is wrong.
            name: the dataset's short name.
        Raises:
            ValueError: not such a json, nothing is left, or there is a fault and `strict`.
        """
        annotations = Path(annotations)
        content = read_annotations(
            annotations,
            keys={
                "videos": ("video_id", "images"),
                "annotations": ("video_id", "annotations"),
                "categories": ("id", "name", "isthing"),
            },
        )
        findings = Findings(name)
        category_ids = tuple(int(entry["id"]) for entry in content["categories"])
        official_names = tuple(entry["name"] for entry in content["categories"])
        things = tuple(bool(entry["isthing"]) for entry in content["categories"])
        label_of = {category: label for label, category in enumerate(category_ids)}
        layout = _Layout(
            Listing(images or annotations.parent / "images", what="images"),
            Listing(segmentations or annotations.parent / "panomasksRGB", what="segmentations"),
            label_of,
            things,
            findings,
        )
        annotated = {entry["video_id"]: entry["annotations"] for entry in content["annotations"]}
        videos: list[Video] = []
        for entry in content["videos"]:
            try:
                video = layout.video(entry["video_id"], entry["images"], annotated.pop(entry["video_id"], []))
            except KeyError as error:
                raise ValueError(
                    f"annotations: {annotations}: an entry of {entry['video_id']} lacks {error}"
                ) from error
            if video is not None:
                videos.append(video)
        for video_id in annotated:
            findings.skip("annotated videos that the json lacks", video_id)
        super().__init__(
            videos,
            name=name,
            names=plain_names(official_names, "vipseg"),
            things=things,
            category_ids=category_ids,
            sampling=sampling,
            findings=findings,
            strict=strict,
        )


@dataclass(frozen=True)
class _PanopticVideo(Video):
    """A video whose label maps have the ids of segments.

    Attributes:
        segmentations: folder that `maps` are relative to.
        maps: the PNG file of each frame.
        ids: int32 [M], ascending, the ids of the video's segments.
        numbers: int16 [M], the object of each, one-based.
    """

    segmentations: Path
    maps: Sequence[str]
    ids: np.ndarray
    numbers: np.ndarray

    def layers(self, frame: int) -> Tensor:
        path = self.segmentations / self.maps[frame]
        coded = read_label_map(path, size=self.size)
        if coded.ndim != 3:
            raise ValueError(f"segmentations: {path} is not an RGB file, ids are coded as R + 256 G + 65536 B")
        values = coded[..., :3].astype(np.int32) @ np.array([1, 256, 65536], dtype=np.int32)
        place = np.searchsorted(self.ids, values).clip(max=len(self.ids) - 1)
        return torch.from_numpy(np.where(self.ids[place] == values, self.numbers[place], np.int16(0))[None])


@dataclass(frozen=True)
class _Layout:
    """Where the files are and what the categories mean; what does not fit becomes a finding."""

    images: Listing
    segmentations: Listing
    label_of: dict[int, int]
    things: tuple[bool, ...]
    findings: Findings

    def video(
        self, name: str, images: list[dict[str, Any]], annotations: list[dict[str, Any]]
    ) -> _PanopticVideo | None:
        """A video of its entries in the json; None, and a finding, where it cannot be used.

        Raises:
            KeyError: an entry lacks something.
        """
        sizes = {(entry["height"], entry["width"]) for entry in images}
        if len(sizes) != 1:
            self.findings.skip("videos whose frames are not of one size", f"{name} with {sorted(sizes)}")
            return None
        annotation_of = {entry["image_id"]: entry for entry in annotations}
        files: list[str] = []
        maps: list[str] = []
        label_of_segment: dict[int, int] = {}
        for entry in images:
            annotation = annotation_of.pop(entry["id"], None)
            if annotation is None:
                self.findings.skip("frames without an annotation", f"{name}/{entry['file_name']}")
                continue
            file = f"{name}/{Path(entry['file_name']).stem}.jpg"  # the json has the masks' names
            map_file = f"{name}/{annotation['file_name']}"
            if file not in self.images:
                self.findings.skip("frames that are missing", self.images.folder / file)
                continue
            if map_file not in self.segmentations:
                self.findings.skip("label maps that are missing", self.segmentations.folder / map_file)
                continue
            files.append(file)
            maps.append(map_file)
            self._collect(annotation, label_of_segment, where=map_file)
        for image_id in annotation_of:
            self.findings.skip("annotations of a frame that the json lacks", f"{name}/{image_id}")
        if not label_of_segment:
            self.findings.note("videos without an object", name)
            return None
        objects = [segment for segment, label in sorted(label_of_segment.items()) if self.things[label]]
        stuff = sorted({label for label in label_of_segment.values() if not self.things[label]})
        number_of_object = {segment: number for number, segment in enumerate(objects, start=1)}
        number_of_stuff = {label: number for number, label in enumerate(stuff, start=len(objects) + 1)}
        number_of = {
            segment: number_of_object[segment] if self.things[label] else number_of_stuff[label]
            for segment, label in sorted(label_of_segment.items())
        }
        return _PanopticVideo(
            name=name,
            images=self.images.folder,
            files=tuple(files),
            size=next(iter(sizes)),
            labels=(*(label_of_segment[segment] for segment in objects), *stuff),
            segmentations=self.segmentations.folder,
            maps=tuple(maps),
            ids=np.array(list(number_of), dtype=np.int32),
            numbers=np.array(list(number_of.values()), dtype=np.int16),
        )

    def _collect(self, annotation: dict[str, Any], label_of_segment: dict[int, int], *, where: str) -> None:
        """Adds the segments of a frame."""
        for segment in annotation["segments_info"]:
            if segment.get("iscrowd", 0):
                continue
            label = self.label_of.get(segment["category_id"])
            if label is None:
                told = f"{where} has category id {segment['category_id']}"
                self.findings.skip("segments of an unknown category", told)
            elif label_of_segment.setdefault(segment["id"], label) != label:
                self.findings.skip("segments whose class changes (the first is kept)", f"id {segment['id']} in {where}")
