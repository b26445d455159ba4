"""`omg serve`: a page in the browser, and plain HTTP."""

from typing import Annotated

import typer

from . import options


def serve(
    model: options.Model = None,
    chat_model: Annotated[
        str | None,
        typer.Option(
            "--chat-model",
            metavar="MODEL",
            help="OMG-LLaVA: a folder of omg convert or a Hub id; by default the bundled.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 7860,
    max_upload: Annotated[float, typer.Option(metavar="MB", min=0.1, help="Largest picture that is taken.")] = 20,
    backbone: options.Backbone = None,
    device: options.Device = None,
) -> int:
    """Open a page in the browser to segment and chat, and plain HTTP for programs.

    [bold]omg serve[/bold], then http://127.0.0.1:7860; OpenAPI is at /docs. No password, no encryption: put a proxy
    before it where strangers can reach it.
    """
    from omgvision.errors import UserError

    options.quiet_libraries()
    try:
        import uvicorn

        from omgvision.hub import BUNDLED_CHAT, has_bundled_chat
        from omgvision.serving.app import create_app, load_chatter, load_segmenter
        from omgvision.serving.pictures import Limits
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"gradio", "fastapi", "uvicorn", "multipart", "python_multipart"}:
            raise
        raise UserError(f"omg serve needs {error.name}: pip install 'omgvision[serve]'") from None
    limits = Limits(upload_bytes=round(max_upload * 2**20))
    if chat_model is None and has_bundled_chat():
        chat_model = BUNDLED_CHAT
    chatter = None if chat_model is None else load_chatter(chat_model, limits=limits, device=device)
    segmenter = load_segmenter(model, limits=limits, device=device, backbone=backbone)
    app = create_app(segmenter, chatter, limits=limits)
    print(f"omg: http://{host}:{port} (OpenAPI: /docs; leave with Ctrl-C)", flush=True)
    # Open pages keep a connection each: they must not hold the process up.
    uvicorn.run(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=3)
    return 0
