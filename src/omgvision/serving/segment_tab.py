"""The tab Segment: a picture, a task, words, clicks and boxes; overlay, table, files."""

from typing import Any, Literal

import gradio as gr

from ..errors import UserError
from ..reading import TASKS
from ..results import Result
from .downloads import Downloads
from .page import Corner, click_on, read_upload, shown_errors
from .pictures import Limits
from .pointing import Pointed, read_pointed, without_last
from .routes import split_words
from .segmenter import Segmenter

POINTED = "what I point at"
HEADERS = ["id", "label", "score", "area %", "x", "y", "width", "height"]


def add_segment_tab(segmenter: Segmenter, downloads: Downloads, *, limits: Limits) -> None:
    """Its parts, into the tab that is open."""
    with gr.Row():
        with gr.Column():
            picture = gr.Image(
                type="filepath",
                image_mode=None,
                label="Picture (click on it to point)",
                sources=["upload", "clipboard"],
                elem_id="picture",
            )
            task = gr.Dropdown([*TASKS, POINTED], value="panoptic", label="Task", elem_id="task")
            classes = gr.Textbox(
                label="Words",
                placeholder="person, sofa, sky; or a list: coco, ade20k; empty: the model's own",
                elem_id="classes",
            )
            threshold = gr.Slider(0, 1, value=0, step=0.05, label="Lowest score (0: as the task has it)")
            pointer = gr.Radio(
                ["point on it", "point beside it", "box: two corners"],
                value="point on it",
                label="A click on the picture is a",
                elem_id="pointer",
            )
            pointed = gr.Textbox(
                label="Pointed at (x,y or x,y,0 or x0,y0,x1,y1 in a line)", lines=3, elem_id="pointed", value=""
            )
            with gr.Row():
                undo = gr.Button("Take back", elem_id="undo")
                clear = gr.Button("Clear", elem_id="clear")
                run = gr.Button("Segment", variant="primary", elem_id="run")
        with gr.Column():
            overlay = gr.Image(
                type="pil",
                format="png",
                label="Segments",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="overlay",
            )
            summary = gr.Markdown(elem_id="summary")
            table = gr.Dataframe(headers=HEADERS, label="Segments", interactive=False, elem_id="table")
            files = gr.Files(label="Downloads", interactive=False, elem_id="files")
    corner = gr.State(None)  # the first corner of a box, until the second comes
    outputs = [overlay, summary, table, files]

    @shown_errors
    def answer(image: str | None, task: str, classes: str, threshold: float, pointed: str) -> list[Any]:
        """Segment a picture.

        Args:
            image: the picture.
            task: panoptic, instance, semantic, everything, or "what I point at".
            classes: words separated by commas, or the name of a list; empty = the model's own.
            threshold: lowest score; 0 = as the task has it.
            pointed: lines of x,y (on the object), x,y,0 (beside it), x0,y0,x1,y1 (box).
        """
        result = _result(segmenter, image, task, classes, threshold, read_pointed(pointed), limits)
        return [result.overlay(), _summary(result), _rows(result), downloads.write(result)]

    @shown_errors
    def clicked(image: str | None, pointer: str, pointed: str, corner: Corner, event: gr.SelectData) -> list[Any]:
        pointed, corner = click_on(pointer, pointed, corner, event.index)
        if corner is not None:
            return [
                pointed,
                corner,
                POINTED,
                gr.skip(),
                f"First corner {corner}: now the opposite one.",
                *[gr.skip()] * 2,
            ]
        return [pointed, None, POINTED, *answer(image, POINTED, "", 0.0, pointed)]

    @shown_errors
    def taken_back(image: str | None, pointed: str) -> list[Any]:
        pointed = without_last(pointed)
        shown = answer(image, POINTED, "", 0.0, pointed) if pointed else [None, "", None, None]
        return [pointed, None, *shown]

    run.click(answer, [picture, task, classes, threshold, pointed], outputs, api_name="segment")
    picture.select(
        clicked,
        [picture, pointer, pointed, corner],
        [pointed, corner, task, *outputs],
        api_visibility="private",
    )
    undo.click(taken_back, [picture, pointed], [pointed, corner, *outputs], api_visibility="private")
    for event in (clear.click, picture.input):
        event(_emptied, None, [pointed, corner, *outputs], api_visibility="private")


def _emptied() -> list[Any]:
    return ["", None, None, "", None, None]


def _result(
    segmenter: Segmenter,
    path: str | None,
    task: str,
    classes: str,
    threshold: float,
    pointed: Pointed,
    limits: Limits,
) -> Result:
    image = read_upload(path, limits=limits)
    if image is None:
        raise UserError("there is no picture yet: upload one")
    if task == POINTED:
        return segmenter.click(
            image, points=pointed.points or None, labels=pointed.labels or None, boxes=pointed.boxes or None
        )
    # An unknown task is refused by the predictor.
    known: Literal["panoptic", "instance", "semantic", "everything"] = task  # type: ignore[assignment]
    return segmenter.segment(image, task=known, classes=split_words(classes), threshold=threshold or None)


def _summary(result: Result) -> str:
    many = len(result)
    return f"{many} segment{'' if many == 1 else 's'} in {result.width}×{result.height} pixels, by {result.model_name}"


def _rows(result: Result) -> list[list[Any]]:
    pixels = result.width * result.height
    return [
        [
            segment.id,
            segment.label,
            None if segment.score is None else round(segment.score, 3),
            round(100 * segment.area / pixels, 2),
            *segment.bbox,
        ]
        for segment in result
    ]
