"""DAVIS 2017 and 2016, and whatever has their layout: videos with objects of no class, in folders of frames and PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..clips import FrameSampling
from .reading import Findings
from .video import PAIRS, VideoReader
from .video_folders import find_video, read_video_names

_RESOLUTION = "480p"


class Davis(VideoReader):
    """Videos with objects of no class: label -1. Value n of a label map is object n of the video, 255 is void.

    Layout: `JPEGImages/480p/<video>/*.jpg` and `Annotations/480p/<video>/*.png`, or both without the `480p`; and
    `ImageSets/2017/train.txt`. Frames without a label map are left out.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | None = None,
        single_object: bool = False,
        sampling: FrameSampling = PAIRS,
        strict: bool = False,
        name: str = "davis",
    ) -> None:
        """Lists the videos and checks that frames and label maps fit each other.

        Args:
            root: the folder with `JPEGImages` and `Annotations`.
            split: a file under `ImageSets` without its suffix ("2017/train"); None takes every annotated video.
            single_object: every value but 0 is one and the same object, as in DAVIS 2016, whose maps have 0 and 255.
            sampling: which frames make a clip.
            strict: raise where something is wrong.
            name: the dataset's short name.
        Raises:
            ValueError: no such folder or split, nothing is left, or there is a fault and `strict`.
        """
        root = Path(root)
        images, annotations = root / "JPEGImages", root / "Annotations"
        if (annotations / _RESOLUTION).is_dir():
            images, annotations = images / _RESOLUTION, annotations / _RESOLUTION
        for folder in (images, annotations):
            if not folder.is_dir():
                raise ValueError(f"davis: no such folder: {folder}; expected JPEGImages and Annotations in {root}")
        if split is None:
            videos = sorted(path.name for path in annotations.iterdir() if path.is_dir())
        else:
            videos = read_video_names(root / "ImageSets" / f"{split}.txt")
        table = np.arange(256, dtype=np.int16)
        table[255] = 0
        if single_object:
            table[1:] = 1
        findings = Findings(name)
        found = [
            find_video(
                video,
                images=images,
                frames=video,
                root=annotations,
                maps=video,
                table=table,
                labels=(-1,) * int(table.max()),
                findings=findings,
            )
            for video in videos
        ]
        super().__init__(
            [video for video in found if video is not None],
            name=name,
            names=(),
            things=(),
            category_ids=(),
            sampling=sampling,
            findings=findings,
            strict=strict,
        )
