"""Makes docs/pictures: what the bundled weights find in the demo's photographs and in short videos, a sheet a task.

python examples/gallery.py
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from demo import PHOTOGRAPHS, TASKS
from pan import panned
from PIL import Image

import omgvision as omg
from omgvision.data import SyntheticVideo
from omgvision.evaluation.card_numbers import evenly
from omgvision.evaluation.evaluate import picture

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
CELL, GAP, COLUMNS = (380, 300), 8, 3
FRAMES, SHOWN = 26, 6
"""Of a video; how many of them a row of its sheet shows, evenly spread."""
PANNED = ("cat", "coffee", "raccoon", "photographer", "dandelions")
RENDERED_SEEDS = (1_000_101, 1_000_102, 1_000_103, 1_000_104)
"""Training renders smaller ones."""


def sheet(pictures: Sequence[Image.Image], *, columns: int, cell: tuple[int, int]) -> Image.Image:
    """The pictures in a grid, each scaled to fit its cell."""
    rows = -(-len(pictures) // columns)
    width, height = cell
    page = Image.new("RGB", (columns * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for index, image in enumerate(pictures):
        scale = min(width / image.width, height / image.height)
        size = (round(image.width * scale), round(image.height * scale))
        left, top = index % columns * (width + GAP), index // columns * (height + GAP)
        corner = (left + (width - size[0]) // 2, top + (height - size[1]) // 2)
        page.paste(image.resize(size, Image.Resampling.LANCZOS), corner)
    return page


def photographs(model: omg.Predictor) -> None:
    for task, run in TASKS.items():
        shown = [run(model, photo).overlay() for photo in PHOTOGRAPHS]
        save(sheet(shown, columns=COLUMNS, cell=CELL), PICTURES / f"{task}.jpg")


def videos(model: omg.Predictor) -> None:
    """A camera over photographs, and rendered videos: tracked by themselves, and from a click or masks on frame 0."""
    tracked, clicked = [], []
    for photo in (photo for photo in PHOTOGRAPHS if photo.name in PANNED):
        frames = list(panned(Image.open(photo.path).convert("RGB"), frames=FRAMES, seed=3))
        tracked += overlays(model.track(frames, task="panoptic", classes=photo.words))
        middle = (frames[0].width / 2, frames[0].height / 2)
        clicked += overlays(model.track(frames, points=[middle]))
    rendered, followed = [], []
    for seed in RENDERED_SEEDS:
        video = SyntheticVideo(seed=seed, size=(240, 320))
        samples = [video.frame(2 * index) for index in range(FRAMES)]
        frames = [picture(sample) for sample in samples]
        things = [name for name, thing in zip(video.names, video.things, strict=True) if thing]
        rendered += overlays(model.track(frames, task="panoptic", classes=video.names, things=things))
        first = samples[0]
        masks = [
            mask.numpy()
            for mask, label in zip(first.masks, first.labels.tolist(), strict=True)
            if video.things[label] and mask.any()
        ]
        followed += overlays(model.track(frames, masks=masks))
    pages = {"panned": tracked, "panned_click": clicked, "rendered": rendered, "rendered_masks": followed}
    for name, shown in pages.items():
        save(sheet(shown, columns=SHOWN, cell=(300, 225)), PICTURES / "videos" / f"{name}.jpg")


def overlays(results: Iterable[omg.Result]) -> list[Image.Image]:
    """Of `SHOWN` of the results, spread evenly."""
    return [result.overlay() for result in evenly(list(results), SHOWN)]


def save(page: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, quality=85, optimize=True)
    print(path)


def main() -> None:
    model = omg.load()
    photographs(model)
    videos(model)


if __name__ == "__main__":
    main()
