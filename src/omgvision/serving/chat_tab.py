"""The tab Chat: a picture with what is pointed at, a conversation, coloured words over the matching masks."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ..chat import Answer
from ..errors import UserError
from ..models.omg_llava.prompts_omg_llava import Prompt
from ..visualization import Color
from .chatter import MISSING, Chatter, Turn
from .page import Corner, click_on, read_upload, shown_errors
from .pictures import Limits
from .pointing import Pointed, read_pointed


def add_missing_chat_tab() -> None:
    """Says what is missing."""
    gr.Markdown(f"### There is no chat model yet\n\nThis server has {MISSING}.", elem_id="chat-missing")


def add_chat_tab(chatter: Chatter, *, limits: Limits) -> None:
    """Its parts, into the tab that is open."""
    with gr.Row():
        with gr.Column():
            picture = gr.Image(
                type="filepath",
                image_mode=None,
                label="Picture (click on it to point)",
                sources=["upload", "clipboard"],
                elem_id="chat-picture",
            )
            pointer = gr.Radio(
                ["point on it", "box: two corners"], value="point on it", label="A click on the picture is a"
            )
            pointed = gr.Textbox(
                label="Pointed at (x,y or x0,y0,x1,y1 in a line)", lines=2, elem_id="chat-pointed", value=""
            )
            with gr.Accordion("Paint a region", open=False):
                canvas = gr.ImageEditor(
                    type="pil",
                    label="Brush",
                    sources=(),
                    transforms=(),
                    brush=gr.Brush(colors=["#e0407f"], color_mode="fixed"),
                    layers=False,
                    elem_id="chat-canvas",
                )
        with gr.Column():
            conversation = gr.Chatbot(label="Conversation", height=320, buttons=["copy"], elem_id="conversation")
            question = gr.Textbox(label="Question", placeholder="What is here?", elem_id="question")
            with gr.Row():
                send = gr.Button("Ask", variant="primary", elem_id="ask")
                reset = gr.Button("New conversation", elem_id="reset")
            drop_oldest = gr.Checkbox(False, label="Let the oldest turns go where it grows too long")
            words = gr.HighlightedText(
                label="Last answer", show_legend=False, show_inline_category=False, elem_id="words"
            )
            overlay = gr.Image(
                type="pil",
                format="png",
                label="What it points at",
                interactive=False,
                buttons=["download", "fullscreen"],
                elem_id="chat-overlay",
            )
    corner = gr.State(None)
    turns = gr.State([])  # this visitor's conversation

    @shown_errors
    def ask(
        path: str | None, question: str, pointed: str, canvas: Any, drop_oldest: bool, turns: list[Turn]
    ) -> tuple[list[Turn], list[dict[str, str]], Any, Image.Image | None, str, str, Any]:
        """Ask about a picture.

        Args:
            path: the picture.
            question: what you want to know.
            pointed: lines of x,y (a point) or x0,y0,x1,y1 (a box).
            canvas: the picture with a painted region; None = nothing is painted.
            drop_oldest: forget the oldest turns where the conversation grows longer than the model can read.
        """
        image = read_upload(path, limits=limits)
        prompts = _prompts(image, read_pointed(pointed), canvas)
        answer = chatter.ask(question, image=image, history=turns, prompts=prompts, drop_oldest=drop_oldest)
        turns = [*turns, Turn(question, answer.text, tuple(prompts))]
        shown = answer.overlay() if image is not None and answer.phrases else None
        # What was pointed at belongs to the question that was asked.
        return turns, _messages(turns), _words(answer), shown, "", "", _blank(image) if canvas else gr.skip()

    @shown_errors
    def clicked(pointer: str, pointed: str, corner: Corner, event: gr.SelectData) -> tuple[str, Corner]:
        return click_on(pointer, pointed, corner, event.index)

    @shown_errors
    def unpainted(path: str | None) -> Any:
        return _blank(read_upload(path, limits=limits))

    said = [turns, conversation, words, overlay, question, pointed]
    for event, name in ((send.click, "chat"), (question.submit, None)):
        event(
            ask,
            [picture, question, pointed, canvas, drop_oldest, turns],
            [*said, canvas],
            api_name=name,
            api_visibility="public" if name else "private",
        )
    picture.select(clicked, [pointer, pointed, corner], [pointed, corner], api_visibility="private")
    for event in (reset.click, conversation.clear, picture.input):
        event(_emptied, None, [*said, corner], api_visibility="private")
        # Apart, for it takes its time with a picture: what is clicked meanwhile stays.
        event(unpainted, [picture], canvas, api_visibility="private")


def _emptied() -> list[Any]:
    return [[], [], None, None, "", "", None]


def _prompts(image: Image.Image | None, pointed: Pointed, canvas: Any) -> list[Prompt]:
    if not all(pointed.labels):
        raise UserError("pointed at: a question knows points on things only, leave out those beside them (x,y,0)")
    prompts: list[Prompt] = [{"point": point} for point in pointed.points]
    prompts += [{"box": box} for box in pointed.boxes]
    region = _painted(image, canvas)
    return prompts if region is None else [*prompts, {"mask": region}]


def _painted(image: Image.Image | None, canvas: Any) -> np.ndarray | None:
    """The region bool [H, W] under the brush, if anything was painted."""
    if image is None or not canvas:
        return None
    region = np.zeros((image.height, image.width), dtype=bool)
    for layer in canvas["layers"] or ():
        region |= np.asarray(layer.convert("RGBA").resize(image.size, Image.Resampling.NEAREST))[..., 3] > 0
    return region if region.any() else None


def _blank(image: Image.Image | None) -> Any:
    return None if image is None else {"background": image, "layers": [], "composite": None}


def _messages(turns: list[Turn]) -> list[dict[str, str]]:
    messages = []
    for turn in turns:
        messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
    return messages


def _words(answer: Answer) -> Any:
    """The answer in pieces, those with a mask in its colour."""
    names = {color: str(number) for number, color in enumerate(answer.colors, start=1)}
    pieces: list[tuple[str, str | float | None]] = [
        (text, None if color is None else names[color]) for text, color in answer.colored_text()
    ]
    return gr.HighlightedText(value=pieces, color_map={name: _css(color) for color, name in names.items()})


def _css(color: Color) -> str:
    red, green, blue = color
    return f"#{red:02x}{green:02x}{blue:02x}"
