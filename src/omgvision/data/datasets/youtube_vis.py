"""YouTube-VIS videos (one json, folders of frames), frame by frame as images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..sample import Sample, layers_from_masks
from .coco import decode_segmentation
from .reading import check_files_exist, read_annotations, read_rgb


class YouTubeVisFrames:
    """Frames of annotated videos, each an image of its own; frames without an object are left out."""

    def __init__(
        self,
        annotations: str | Path,
        *,
        images: str | Path,
        every: int = 1,
        name: str = "youtube-vis",
    ) -> None:
        """Reads the json and checks that every frame is there and every category known.

        Args:
            annotations: the json, in which an annotation has one segmentation (or null) a frame.
            images: folder to which the json's file names are relative.
            every: take only every n-th frame of a video.
            name: the dataset's short name.
        Raises:
            ValueError: a file is missing, ids do not fit, lengths differ.
        """
        if every < 1:
            raise ValueError(f"every: expected 1 or more, got {every}")
        annotations = Path(annotations)
        content = read_annotations(
            annotations,
            keys={
                "videos": ("id", "file_names", "height", "width"),
                "annotations": ("video_id", "category_id", "segmentations"),
                "categories": ("id", "name"),
            },
        )
        self.name = name
        self.names: tuple[str, ...] = tuple(entry["name"] for entry in content["categories"])
        self.things = (True,) * len(self.names)
        self.category_ids: tuple[int, ...] = tuple(entry["id"] for entry in content["categories"])
        self._label_of = {category: label for label, category in enumerate(self.category_ids)}
        self._images = Path(images)
        videos = {video["id"]: video for video in content["videos"]}
        tracks: dict[int, list[dict[str, Any]]] = {video_id: [] for video_id in videos}
        for track in content["annotations"]:
            if track["video_id"] not in videos:
                raise ValueError(f"annotations: {annotations} annotates video {track['video_id']}, which it lacks")
            if track["category_id"] not in self._label_of:
                raise ValueError(
                    f"annotations: track {track.get('id')} has category id {track['category_id']}, "
                    "which is not among the categories"
                )
            frames = len(videos[track["video_id"]]["file_names"])
            if len(track["segmentations"]) != frames:
                masks = len(track["segmentations"])
                raise ValueError(f"annotations: track {track.get('id')} has {masks} masks, its video {frames} frames")
            if not track.get("iscrowd", 0):
                tracks[track["video_id"]].append(track)
        self._items = [
            (video, frame, [track for track in tracks[video_id] if track["segmentations"][frame]])
            for video_id, video in videos.items()
            for frame in range(0, len(video["file_names"]), every)
            if any(track["segmentations"][frame] for track in tracks[video_id])
        ]
        check_files_exist(self._images, [video["file_names"][frame] for video, frame, _ in self._items], what="images")

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> Sample:
        video, frame, tracks = self._items[index]
        height, width = video["height"], video["width"]
        masks = [decode_segmentation(track["segmentations"][frame], height, width) for track in tracks]
        file_name = video["file_names"][frame]
        return Sample(
            image=read_rgb(self._images / file_name, size=(height, width)),
            segment_layers=layers_from_masks(masks, height, width),
            labels=torch.tensor([self._label_of[track["category_id"]] for track in tracks], dtype=torch.int64),
            names=self.names,
            things=self.things,
            sample_id=str(Path(file_name).with_suffix("")),
            dataset=self.name,
        ).with_areas_of_at_least(1)
