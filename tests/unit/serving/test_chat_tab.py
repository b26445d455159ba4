"""The tab Chat by its API, with a tiny model that says what it is told."""

import threading
import time
from pathlib import Path

import pytest

import omgvision

pytest.importorskip("gradio", reason="omg serve needs the extra serve")
uvicorn = pytest.importorskip("uvicorn", reason="omg serve needs the extra serve")
gradio_client = pytest.importorskip("gradio_client", reason="omg serve needs the extra serve")


@pytest.fixture(scope="module")
def address(tiny_model_dir):
    """Of a server in this process."""
    from omgvision.serving.app import create_app
    from omgvision.serving.pictures import Limits
    from omgvision.serving.segmenter import Segmenter
    from tests.unit.serving.test_http import chatter

    talker, _ = chatter("<p> A cat </p> [SEG] sits.<|im_end|>", "Because.<|im_end|>", "Hello.<|im_end|>")
    app = create_app(Segmenter(omgvision.load(tiny_model_dir, device="cpu"), limits=Limits()), talker)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in range(600):
        if server.started:
            break
        time.sleep(0.1)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    yield f"http://{host}:{port}"
    server.should_exit = True
    thread.join(timeout=30)


def test_two_visitors_talk_of_their_own(address, photo, tmp_path):
    photo.save(tmp_path / "a.png")
    picture = gradio_client.handle_file(str(tmp_path / "a.png"))
    first, second = (gradio_client.Client(address, verbose=False) for _ in range(2))
    said, words, overlay, *_ = first.predict(picture, "What is here?", "30,30", None, api_name="/chat")
    assert [message["role"] for message in said] == ["user", "assistant"]
    assert [(each["token"], each["class_or_confidence"]) for each in words["value"]] == [
        ("A cat", "1"),
        (" sits.", None),
    ]
    assert Path(overlay).is_file()
    said, *_ = first.predict(picture, "Why?", "", None, api_name="/chat")
    assert len(said) == 4
    said, *_ = second.predict(picture, "Hello?", "", None, api_name="/chat")
    assert len(said) == 2
    with pytest.raises(Exception, match="some words"):
        second.predict(picture, " ", "", None, api_name="/chat")
