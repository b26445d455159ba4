"""YouTube-VIS 2019 and 2021, OVIS, and whatever has their layout: one json and a folder of frames for each video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from torch import Tensor

from ..class_lists import ClassListName, plain_names
from ..clips import FrameSampling
from ..sample import layers_from_masks
from .coco import decode_segmentation
from .reading import Findings, Listing, read_annotations
from .video import PAIRS, Video, VideoFrames, VideoReader

_api: Any = coco_mask  # its type stubs know only some of the inputs that it takes


class YouTubeVis(VideoReader):
    """Videos with their objects as tracks, which may overlap. Crowd tracks are dropped.

    What is not annotated is background, not void. Videos without an object are left out, so are frames whose file is
    missing.
    """

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        sampling: FrameSampling = PAIRS,
        strict: bool = False,
        name: str = "youtube-vis",
    ) -> None:
        """Reads the json and checks that its parts fit each other and that the frames are there.

        Args:
            annotations: the json, in which an annotation has one segmentation (or null) a frame.
            images: folder to which the json's file names are relative.
            sampling: which frames make a clip.
            strict: raise where something is wrong.
            name: the dataset's short name.
        Raises:
            ValueError: not such a json, nothing is left, or there is a fault and `strict`.
        """
        annotations, listing = Path(annotations), Listing(images, what="images")
        content = read_annotations(
            annotations,
            keys={
                "videos": ("id", "file_names", "height", "width"),
                "annotations": ("video_id", "category_id", "segmentations"),
                "categories": ("id", "name"),
            },
        )
        findings = Findings(name)
        category_ids = tuple(int(entry["id"]) for entry in content["categories"])
        label_of = {category: label for label, category in enumerate(category_ids)}
        videos = {video["id"]: video for video in content["videos"]}
        tracks: dict[int, list[_Track]] = {video_id: [] for video_id in videos}
        for entry in content["annotations"]:
            if entry.get("iscrowd", 0):
                continue
            told = f"track {entry.get('id')}"
            if entry["video_id"] not in videos:
                findings.skip("tracks of a video that the json lacks", f"{told} of video {entry['video_id']}")
            elif entry["category_id"] not in label_of:
                findings.skip("tracks of an unknown category", f"{told} has category id {entry['category_id']}")
            else:
                track = _track(entry, videos[entry["video_id"]], label_of[entry["category_id"]], findings)
                if track is not None:
                    tracks[entry["video_id"]].append(track)
        super().__init__(
            [
                video
                for video_id, entry in videos.items()
                if (video := _video(entry, tracks[video_id], annotations, listing, findings)) is not None
            ],
            name=name,
            names=_plain_names([entry["name"] for entry in content["categories"]]),
            things=(True,) * len(category_ids),
            category_ids=category_ids,
            sampling=sampling,
            findings=findings,
            strict=strict,
        )


class YouTubeVisFrames(VideoFrames):
    """Frames of such videos, each an image of its own; frames without an object are left out."""

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        every: int = 1,
        strict: bool = False,
        name: str = "youtube-vis",
    ) -> None:
        """As `YouTubeVis`; `every` takes only every n-th frame of a video."""
        reader = YouTubeVis(annotations, images=images, sampling=FrameSampling(1), strict=strict, name=name)
        super().__init__(reader, every=every)


@dataclass(frozen=True)
class _Track:
    """An object through its video.

    Attributes:
        told: what to call it in a message.
        label: its class.
        runs: for each frame, COCO's compressed run lengths or, where it is not seen, None. Compressed, because the
            lists of numbers that the official files hold would take ten times the memory.
    """

    told: str
    label: int
    runs: Sequence[bytes | None]


@dataclass(frozen=True)
class _TrackVideo(Video):
    """A video with a track for each object.

    Attributes:
        source: the json, for messages.
        tracks: in the order of `labels`.
    """

    source: Path
    tracks: Sequence[_Track]

    def layers(self, frame: int) -> Tensor:
        height, width = self.size
        nothing = np.zeros((height, width), dtype=bool)
        masks = [nothing] * len(self.tracks)
        for number, track in enumerate(self.tracks):
            runs = track.runs[frame]
            if runs is None:
                continue
            try:
                masks[number] = decode_segmentation({"size": [height, width], "counts": runs}, height, width)
            except ValueError as error:
                told = f"{self.source}: {track.told} in {self.files[frame]}"
                raise ValueError(f"annotations: {told}: {error}") from error
        return layers_from_masks(masks, height, width)

    def occupied(self, frame: int) -> bool:
        return any(track.runs[frame] is not None for track in self.tracks)


def _track(entry: dict[str, Any], video: dict[str, Any], label: int, findings: Findings) -> _Track | None:
    """None, and a finding, where the track cannot be used."""
    told = f"track {entry.get('id')}"
    if not isinstance(entry["segmentations"], list):
        findings.skip("tracks without a list of masks", f"{told} has {entry['segmentations']!r:.40}")
        return None
    masks, frames = len(entry["segmentations"]), len(video["file_names"])
    if masks != frames:
        findings.skip(
            "tracks of another length than their video", f"{told} has {masks} masks, its video {frames} frames"
        )
        return None
    runs: list[bytes | None] = []
    for frame, segmentation in enumerate(entry["segmentations"]):
        try:
            runs.append(_run_lengths(segmentation, video["height"], video["width"]))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            findings.skip("tracks with a mask that cannot be used", f"{told}, frame {frame}: {error}")
            return None
    if not any(runs):
        findings.skip("tracks that are empty in every frame", told)
        return None
    return _Track(told, label, tuple(runs))


def _run_lengths(segmentation: list[list[float]] | dict[str, Any] | None, height: int, width: int) -> bytes | None:
    """COCO polygons (list) or run lengths (dict, compressed or not) → compressed; None where no pixel is set.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: not a segmentation, or of another size.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, list):
        polygons = [polygon for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            raise ValueError("polygons of less than three corners")
        runs = _api.merge(_api.frPyObjects(polygons, height, width))
    else:
        if tuple(segmentation["size"]) != (height, width):
            raise ValueError(f"a mask of {tuple(segmentation['size'])} (height, width), its video is {(height, width)}")
        counts = segmentation["counts"]
        if not isinstance(counts, list):
            runs = {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}
        elif sum(counts) != height * width:
            raise ValueError(f"run lengths over {sum(counts)} pixels, its video has {height * width}")
        else:
            runs = _api.frPyObjects(segmentation, height, width)
    return runs["counts"] if _api.area(runs) else None


def _video(
    entry: dict[str, Any], tracks: list[_Track], source: Path, images: Listing, findings: Findings
) -> _TrackVideo | None:
    """None, and findings, where nothing remains."""
    files: list[str] = entry["file_names"]
    name = f"video {entry['id']}"
    if not tracks:
        findings.note("videos without an object", name)
        return None
    kept = [frame for frame, file in enumerate(files) if file in images]
    if len(kept) < len(files):
        for frame in sorted(set(range(len(files))) - set(kept)):
            findings.skip("frames that are missing", images.folder / files[frame])
        files = [files[frame] for frame in kept]
        tracks = [_Track(track.told, track.label, tuple(track.runs[frame] for frame in kept)) for track in tracks]
    return _TrackVideo(
        name=name,
        images=images.folder,
        files=files,
        size=(entry["height"], entry["width"]),
        labels=tuple(track.label for track in tracks),
        source=source,
        tracks=tracks,
    )


def _plain_names(official_names: Sequence[str]) -> tuple[str, ...]:
    """The bundled lists' words for their spellings ("giant_panda"); other names stay as they are."""
    names = tuple(official_names)
    bundled: tuple[ClassListName, ...] = ("youtube_vis_2019", "youtube_vis_2021", "ovis")
    for class_list in bundled:
        names = plain_names(names, class_list)
    return names
