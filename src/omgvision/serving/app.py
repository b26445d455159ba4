"""The server: the page in the browser over plain HTTP, in one FastAPI application."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from gradio.themes import Default

from ..hub import load
from .chat_tab import add_chat_tab, add_missing_chat_tab
from .chatter import Chatter
from .downloads import Downloads
from .pictures import Limits
from .routes import create_api
from .segment_tab import add_segment_tab
from .segmenter import Segmenter

_FONTS = ["system-ui", "sans-serif"]  # names only: nothing is fetched from elsewhere


def create_app(segmenter: Segmenter, chatter: Chatter | None = None, *, limits: Limits | None = None) -> FastAPI:
    """The application, ready for uvicorn.

    Args:
        segmenter: Answers the tab Segment and `/v1/segment`.
        chatter: Answers the tab Chat and `/v1/chat/completions`; None = both say what is missing.
        limits: What a request may cost.
    """
    limits = limits or Limits()
    folder = Path(tempfile.mkdtemp(prefix="omg-serve-"))
    # Gradio reads this when a page is built: uploads and results of all visitors stay in this folder.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return gr.mount_gradio_app(
        create_api(segmenter, chatter, limits=limits),
        build_page(segmenter, chatter, folder=folder, limits=limits),
        path="/",
        max_file_size=limits.upload_bytes,
        ssr_mode=False,
        show_error=False,
        theme=Default(font=_FONTS, font_mono=["monospace"]),
        footer_links=["api"],
    )


def build_page(segmenter: Segmenter, chatter: Chatter | None, *, folder: Path, limits: Limits) -> gr.Blocks:
    """The two tabs; files to fetch are written below `folder`."""
    # Files that nobody has asked for in a day are deleted.
    page = gr.Blocks(title="omgvision", analytics_enabled=False, delete_cache=(3600, 86400))
    with page:
        gr.Markdown("# omgvision")
        with gr.Tab("Segment"):
            add_segment_tab(segmenter, Downloads(folder), limits=limits)
        with gr.Tab("Chat"):
            if chatter is None:
                add_missing_chat_tab()
            else:
                add_chat_tab(chatter, limits=limits)
    return page.queue(max_size=64)


def load_segmenter(
    model: str | None, *, limits: Limits, device: str | None = None, backbone: str | None = None
) -> Segmenter:
    """See `omgvision.load`."""
    return Segmenter(load(model, device=device, backbone=backbone), limits=limits)


def load_chatter(name: str, *, limits: Limits, device: str | None = None) -> Chatter:
    """See `omgvision.load`."""
    predictor = load(name, device=device)
    return Chatter(*predictor.chat_model, name=predictor.name, limits=limits)
