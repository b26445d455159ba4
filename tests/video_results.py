"""Results of a short video with three tracks, for the tests of what is written about videos."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from omgvision.results import Category, FrameStamp, Result, SegmentLabel

HEIGHT, WIDTH, FRAMES = 48, 64, 5
CATEGORIES = (Category("car", True), Category("person, child", True), Category("sky", False))
CAR, PERSON, SKY = 3, 300, 7
LABELS = {CAR: SegmentLabel(0, 0.8), PERSON: SegmentLabel(1, 0.6), SKY: SegmentLabel(2, 0.9)}


def track_map(index: int) -> np.ndarray:
    """Sky above; a car that moves; a person that is absent from frame 2: int [H, W]."""
    ids = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    ids[:16] = SKY
    ids[30:40, 4 * index : 4 * index + 12] = CAR
    if index != 2:
        ids[20:30, 40:46] = PERSON
    return ids


def picture(index: int) -> Image.Image:
    return Image.fromarray(np.full((HEIGHT, WIDTH, 3), 40 * index, dtype=np.uint8))


def video_results(*, names: bool = False) -> Iterator[Result]:
    """Panoptic results of the frames; with `names`, of files 00007.jpg, 00008.jpg, …"""
    for index in range(FRAMES):
        stamp = FrameStamp(index, index / 10, f"{index + 7:05d}" if names else "")
        yield Result.from_label_map(
            track_map(index), LABELS, task="panoptic", image=picture(index), categories=CATEGORIES, frame=stamp
        )
