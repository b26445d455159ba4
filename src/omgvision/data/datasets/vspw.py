"""VSPW: videos with a class for every pixel, in folders of frames and of PNG."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..class_lists import ClassList, load_class_list
from ..clips import FrameSampling
from .reading import Findings
from .video import PAIRS, VideoReader
from .video_folders import NO_VALUE, find_video, read_video_names

VOID = (0, 254, 255)
"""Values of no class: 0 is "others"; the official evaluation reads 255 and, from it, 254 likewise."""


class Vspw(VideoReader):
    """Videos with the regions of 124 classes, one segment a class, countable or not.

    Layout: `data/<video>/origin/*.jpg`, `data/<video>/mask/*.png`, `train.txt`, `val.txt`.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str,
        sampling: FrameSampling = PAIRS,
        strict: bool = False,
        name: str = "vspw",
    ) -> None:
        """Lists the videos of a split and checks that frames and label maps fit each other.

        Args:
            root: the folder with `data` and the split files.
            split: "train", "val", or another `<split>.txt`, one video a line.
            sampling: which frames make a clip.
            strict: raise where something is wrong.
            name: the dataset's short name.
        Raises:
            ValueError: no such split, `label_num_dic_final.json` numbers other classes, nothing is left, or there is
                a fault and `strict`.
        """
        root = Path(root)
        classes = load_class_list("vspw")
        _check_numbers(root / "label_num_dic_final.json", classes)
        table = np.full(256, NO_VALUE, dtype=np.int16)
        table[list(VOID)] = 0
        table[list(classes.category_ids)] = np.arange(1, len(classes.names) + 1)
        findings = Findings(name)
        found = [
            find_video(
                video,
                images=root / "data",
                frames=f"{video}/origin",
                root=root / "data",
                maps=f"{video}/mask",
                table=table,
                labels=range(len(classes.names)),
                findings=findings,
            )
            for video in read_video_names(root / f"{split}.txt")
        ]
        super().__init__(
            [video for video in found if video is not None],
            name=name,
            names=classes.names,
            things=classes.things,
            category_ids=classes.category_ids,
            sampling=sampling,
            findings=findings,
            strict=strict,
        )


def _check_numbers(path: Path, classes: ClassList) -> None:
    """The data set's own file of class numbers, where it is there, must be that of the bundled list."""
    if not path.is_file():
        return
    try:
        numbers = {official: int(number) for official, number in json.loads(path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"classes: {path} is not a json object of class numbers ({error})") from error
    for official, number in zip(classes.official_names, classes.category_ids, strict=True):
        if numbers.get(official) != number:
            raise ValueError(f"classes: {path}: expected {official!r} to be {number}, got {numbers.get(official)}")
