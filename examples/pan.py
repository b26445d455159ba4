"""Makes a clip to try tracking on: a camera pans, zooms and rolls over a photograph.

`python examples/pan.py examples/images/cat.jpg examples/videos/cat.mp4` made the one that is here.
"""

import argparse
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from omgvision.data.camera import draw_camera
from omgvision.video_encoding import Mp4Writer


def panned(photograph: Image.Image, *, frames: int, seed: int) -> Iterator[Image.Image]:
    """What the camera sees, three fifths of the photograph's height and width; `seed` draws its way."""
    size = (photograph.height * 3 // 5, photograph.width * 3 // 5)
    generator = np.random.default_rng(seed)
    camera = draw_camera(
        size, (photograph.height, photograph.width), generator, pan=0.3, speed=0.03 * min(size), zoom=0.3, roll=0.04
    )
    return (Image.fromarray(camera.pixels(photograph, frame)) for frame in range(frames))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photograph", type=Path)
    parser.add_argument("video", type=Path)
    parser.add_argument("--frames", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0, help="draws the way of the camera")
    options = parser.parse_args()
    photograph = Image.open(options.photograph).convert("RGB")
    options.video.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(12)
    writer = Mp4Writer(options.video, rate=rate, sound=None)
    for index, frame in enumerate(panned(photograph, frames=options.frames, seed=options.seed)):
        writer.write(frame, time=float(index / rate))
    writer.close()


if __name__ == "__main__":
    main()
