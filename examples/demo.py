"""Every task on real photographs, with the weights that come with the package.

    make demo                                          # or: python examples/demo.py
    python examples/demo.py --output somewhere/else

Writes one overlay for each photograph and task and `index.html`, which shows them side by side. Needs no network.
"""

import argparse
import html
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import omgvision as omg

IMAGES = Path(__file__).resolve().parent / "images"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Photograph:
    """A photograph, words to look for in it, a place to click and a box to draw (x0, y0, x1, y1; pixels)."""

    name: str
    words: tuple[str, ...]
    click: tuple[float, float]
    box: Box

    @property
    def path(self) -> Path:
        return IMAGES / f"{self.name}.jpg"


PHOTOGRAPHS = (
    Photograph("cat", words=("cat", "blanket"), click=(240, 90), box=(10, 0, 370, 299)),
    Photograph("coffee", words=("cup", "spoon", "table"), click=(230, 170), box=(170, 15, 420, 310)),
    Photograph("astronaut", words=("person", "flag", "wall"), click=(110, 350), box=(20, 5, 370, 511)),
    Photograph("admiral", words=("person", "flag", "sky"), click=(150, 450), box=(30, 20, 500, 599)),
    Photograph("photographer", words=("person", "grass", "sky"), click=(100, 300), box=(0, 60, 320, 511)),
    Photograph("raccoon", words=("animal", "grass"), click=(450, 100), box=(0, 0, 600, 400)),
    Photograph("rocket", words=("sky", "tower", "ground"), click=(322, 280), box=(300, 120, 345, 405)),
    Photograph("dandelions", words=("flower", "grass", "sky"), click=(185, 125), box=(80, 25, 285, 360)),
    Photograph("stairs", words=("person", "stairs", "sky"), click=(435, 310), box=(395, 240, 511, 375)),
)

TASKS: dict[str, Callable[[omg.Predictor, Photograph], omg.Result]] = {
    "panoptic": lambda model, photo: model.segment(photo.path, task="panoptic"),
    "instance": lambda model, photo: model.segment(photo.path, task="instance"),
    "semantic": lambda model, photo: model.segment(photo.path, task="semantic"),
    "words": lambda model, photo: model.segment(photo.path, task="panoptic", classes=photo.words),
    "click": lambda model, photo: model.click(photo.path, points=[photo.click]),
    "box": lambda model, photo: model.click(photo.path, boxes=[photo.box]),
    "everything": lambda model, photo: model.segment(photo.path, task="everything"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Every task on real photographs with the bundled weights.")
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for the overlays")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    options.output.mkdir(parents=True, exist_ok=True)

    model = omg.load()
    start = time.perf_counter()
    for photo in PHOTOGRAPHS:
        for task, run in TASKS.items():
            result = run(model, photo)
            result.overlay().save(options.output / f"{photo.name}.{task}.jpg", quality=90)
            print(f"{photo.name:>13}  {task:<10}  {', '.join(dict.fromkeys(result.labels)) or 'nothing found'}")
    seconds = time.perf_counter() - start
    page = options.output / "index.html"
    page.write_text(contact_sheet(), encoding="utf-8")
    count = len(PHOTOGRAPHS) * len(TASKS)
    print(f"\n{count} results in {seconds:.0f} s. Open {page} in a browser, or the pictures beside it.")


def contact_sheet() -> str:
    """A page with a row for each photograph and a column for each task."""
    head = "".join(f"<th>{html.escape(task)}</th>" for task in TASKS)
    rows = "".join(
        f"<tr><th>{photo.name}</th>"
        + "".join(f'<td><img src="{photo.name}.{task}.jpg"></td>' for task in TASKS)
        + "</tr>"
        for photo in PHOTOGRAPHS
    )
    style = "body{font:14px sans-serif}img{width:320px}td,th{padding:4px;vertical-align:top}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>omgvision demo</title>'
        f"<style>{style}</style><table><tr><th></th>{head}</tr>{rows}</table></html>\n"
    )


if __name__ == "__main__":
    main()
