"""Makes docs/pictures: for each task, one sheet of the demo's photographs with what the bundled weights find in them.

python examples/gallery.py
"""

from collections.abc import Sequence
from pathlib import Path

from demo import PHOTOGRAPHS, TASKS
from PIL import Image

import omgvision as omg

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
COLUMNS, CELL, GAP = 3, (380, 300), 8


def sheet(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures in a grid, each scaled to fit its cell."""
    rows = -(-len(pictures) // COLUMNS)
    width, height = CELL
    page = Image.new("RGB", (COLUMNS * (width + GAP) - GAP, rows * (height + GAP) - GAP), "white")
    for index, picture in enumerate(pictures):
        scale = min(width / picture.width, height / picture.height)
        size = (round(picture.width * scale), round(picture.height * scale))
        left, top = index % COLUMNS * (width + GAP), index // COLUMNS * (height + GAP)
        corner = (left + (width - size[0]) // 2, top + (height - size[1]) // 2)
        page.paste(picture.resize(size, Image.Resampling.LANCZOS), corner)
    return page


def main() -> None:
    model = omg.load()
    PICTURES.mkdir(parents=True, exist_ok=True)
    for task, run in TASKS.items():
        path = PICTURES / f"{task}.jpg"
        sheet([run(model, photo).overlay() for photo in PHOTOGRAPHS]).save(path, quality=85, optimize=True)
        print(path)


if __name__ == "__main__":
    main()
