# ruff: noqa: E402  (imports follow the guard for the extra)
"""Plain HTTP: what is answered, what is refused and how, and that visitors do not see each other."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import omgvision

testing = pytest.importorskip("fastapi.testclient", reason="omg serve needs the extra serve")

from omgvision.chat import Conversation
from omgvision.serving.chatter import Chatter, Turn
from omgvision.serving.pictures import Limits
from omgvision.serving.routes import create_api
from omgvision.serving.segmenter import Segmenter
from tests.golden_llava import processor, random_llava
from tests.unit.test_chat import Scripted

LIMITS = Limits(upload_bytes=100_000, pixels=20_000, side=1000, kept=2, waiting=8)


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


@pytest.fixture(scope="module")
def predictor(tiny_model_dir):
    return omgvision.load(tiny_model_dir, device="cpu")


@pytest.fixture(scope="module")
def segmenter(predictor):
    return Segmenter(predictor, limits=LIMITS)


@pytest.fixture(scope="module")
def client(segmenter):
    with testing.TestClient(create_api(segmenter, limits=LIMITS)) as found:
        yield found


def chatter(*answers: str) -> tuple[Chatter, Scripted]:
    model = random_llava()
    model.generation_config.eos_token_id = [2, 400]
    model.generation_config.pad_token_id = 2
    return Chatter(model, processor(128), name="tiny-chat", limits=LIMITS), Scripted(model, *answers)


def line_of(response) -> str:
    """The one line that an error is."""
    message = response.json()["error"]["message"]
    assert message and "\n" not in message
    return message


def test_health_models_and_openapi(client):
    assert client.get("/health").json() == {"status": "ok"}
    assert [each["id"] for each in client.get("/v1/models").json()["data"]] == ["tiny"]
    described = client.get("/openapi.json").json()
    assert {"/v1/segment", "/v1/chat/completions", "/v1/models", "/health"} <= set(described["paths"])
    body = described["paths"]["/v1/segment"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}


@pytest.mark.parametrize("task", ["panoptic", "instance", "semantic", "everything"])
def test_data_urls_answer_as_the_predictor(client, predictor, photo, task):
    answer = client.post("/v1/segment", json={"image": data_url(photo), "task": task})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    result = predictor.segment(photo, task=task)
    assert (found["task"], found["model"], found["width"], found["height"]) == (task, "tiny", 90, 60)
    assert [each["label"] for each in found["segments"]] == result.labels
    for each, segment in zip(found["segments"], result, strict=True):
        mask = coco_mask.decode({"size": each["mask"]["size"], "counts": each["mask"]["counts"].encode()})
        assert np.array_equal(mask.astype(bool), segment.mask)


def test_uploads_and_words(client, photo):
    form = {"task": "semantic", "classes": "dog, sky", "things": "dog"}
    answer = client.post("/v1/segment", files={"image": ("a.png", png(photo))}, data=form)
    assert answer.status_code == 200, answer.text
    assert answer.json()["categories"] == [{"name": "dog", "is_thing": True}, {"name": "sky", "is_thing": False}]
    answer = client.post("/v1/segment", files={"image": ("a.png", png(photo))}, data={"classes": '["one word"]'})
    assert [each["name"] for each in answer.json()["categories"]] == ["one word"]


def test_points_boxes_and_masks(client, predictor, photo):
    region = Image.new("L", photo.size)
    region.paste(255, (20, 15, 50, 45))
    asked = {"points": [[30, 30], [80, 50]], "labels": [1, 0], "boxes": [[20, 15, 50, 45]], "masks": [data_url(region)]}
    found = client.post("/v1/segment", json={"image": data_url(photo), **asked}).json()
    expected = predictor.click(photo, asked["points"], labels=[1, 0], boxes=asked["boxes"], masks=[region])
    assert [each["area"] for each in found["segments"]] == [segment.area for segment in expected]
    form = {"points": "[[30, 30], [80, 50]]", "labels": "[1, 0]", "boxes": "[[20, 15, 50, 45]]"}
    again = client.post("/v1/segment", files={"image": ("a.png", png(photo))}, data=form).json()
    assert again["segments"] == found["segments"][:2]


def test_visitors_do_not_see_each_other_and_little_is_kept(segmenter, predictor, photo):
    first = segmenter.click(photo, points=[(30, 30)])
    segmenter.click(photo, boxes=[(0, 0, 40, 40)])
    again = segmenter.click(photo, points=[(30, 30)])
    assert len(again) == 1 and np.array_equal(again.masks, first.masks)
    for shade in range(4):
        segmenter.click(Image.new("RGB", (32, 32), (shade, 0, 0)), points=[(3, 3)])
    assert segmenter.encoded_pictures == LIMITS.kept


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"image": "/etc/passwd"}, 400, "data URL"),
        ({"image": "http://127.0.0.1/a.png"}, 400, "data URL"),
        ({"image": "file:///etc/passwd"}, 400, "data URL"),
        ({"image": "data:image/png;base64,%%"}, 400, "base64"),
        ({"image": "data:image/png;base64,"}, 400, "empty"),
        ({"image": "data:image/png;base64,AAAA"}, 400, "not an image"),
        ({}, 422, "image"),
        ({"image": "x", "task": "dance"}, 422, "task"),
        ({"image": "x", "points": [[1]]}, 422, "points"),
    ],
)
def test_what_cannot_be_used_is_one_line(client, body, status, says):
    answer = client.post("/v1/segment", json=body)
    assert answer.status_code == status
    assert says in line_of(answer)


def test_more_that_cannot_be_used(client, photo):
    picture = data_url(photo)
    for body, says in [
        ({"classes": "no such list"}, "bundled lists"),
        ({"classes": ["dog", "dog"]}, "dog"),
        ({"threshold": 3}, "threshold"),
        ({"points": [[900, 3]]}, "outside"),
        ({"boxes": [[5, 5, 1, 1]]}, "inverted"),
        ({"points": [[3, 3]], "task": "panoptic"}, "leave task"),
        ({"masks": [data_url(Image.new("L", (5, 5), 255))]}, "shape"),
    ]:
        answer = client.post("/v1/segment", json={"image": picture, **body})
        assert answer.status_code == 400, body
        assert says in line_of(answer)
    assert client.post("/v1/segment", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/v1/segment", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert "image" in line_of(client.post("/v1/segment", files={"other": ("a.png", b"x")}))
    assert client.get("/v1/nothing").status_code in (404, 405)


def test_limits(client):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (220, 200, 3), dtype=np.uint8))
    assert "MB" in line_of(client.post("/v1/segment", json={"image": data_url(noise)}))
    wide = client.post("/v1/segment", json={"image": data_url(Image.new("RGB", (1000, 30)))})
    assert wide.status_code == 400 and "megapixels" in line_of(wide)
    thin = client.post("/v1/segment", json={"image": data_url(Image.new("RGB", (1001, 2)))})
    assert thin.status_code == 400 and "at most 1000 pixels on its longer side, got 1001x2" in line_of(thin)
    too_much = b" " * (LIMITS.body_bytes + 1)
    whole = client.post("/v1/segment", content=too_much, headers={"content-type": "application/json"})
    pieces = (too_much[start : start + 65536] for start in range(0, len(too_much), 65536))
    streamed = client.post("/v1/segment", content=pieces, headers={"content-type": "application/json"})
    for answer in (whole, streamed):
        assert answer.status_code == 413
        assert "too large" in line_of(answer)


def test_without_a_chat_model_it_says_how_to_get_one(client):
    answer = client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hello"}]})
    assert answer.status_code == 503
    assert "--chat-model" in line_of(answer)


def messages(photo, *texts: str) -> list[dict]:
    """Question, answer, question, …; the first with the picture."""
    first = [{"type": "text", "text": texts[0]}, {"type": "image_url", "image_url": {"url": data_url(photo)}}]
    said: list[dict] = [{"role": "user", "content": first}]
    said += [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts[1:], start=1)]
    return said


def test_chat_in_words_and_masks(segmenter, photo, monkeypatch):
    talker, _ = chatter("<p> A cat </p> [SEG] sits.<|im_end|>", "Because.<|im_end|>", "Yes.<|im_end|>")
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS)) as client:
        assert [each["kind"] for each in client.get("/v1/models").json()["data"]] == ["segment", "chat"]
        body = {"model": "tiny-chat", "messages": messages(photo, "What is here?")}
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.status_code == 200, answer.text
        choice = answer.json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("A cat sits.", "stop")
        [phrase] = choice["message"]["phrases"]
        assert (phrase["text"], phrase["mask"]["size"]) == ("A cat", [60, 90])
        # The follow-up goes on with the conversation in memory: the picture is not seen again.
        with monkeypatch.context() as patch:
            patch.setattr(Conversation, "__init__", lambda *_, **__: pytest.fail("begun anew"))
            body["messages"] = messages(photo, "What is here?", "A cat sits.", "Why?")
            answer = client.post("/v1/chat/completions", json=body).json()
        assert answer["choices"][0]["message"]["content"] == "Because."
        # Another history is another conversation.
        body["messages"] = messages(photo, "What is here?", "A dog.", "Sure?")
        answer = client.post("/v1/chat/completions", json=body)
        assert answer.json()["choices"][0]["message"]["content"] == "Yes."
    assert talker.kept_conversations == LIMITS.kept


def test_chat_streams(segmenter, photo):
    talker, _ = chatter("<p> A cat </p> [SEG] sits.<|im_end|>")
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS)) as client:
        body = {"messages": messages(photo, "What is here?"), "stream": True}
        body["messages"][0]["prompts"] = [{"point": [30, 30]}]
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    events = [json.loads(line)["choices"][0] for line in lines[:-1]]
    assert "".join(event["delta"].get("content", "") for event in events) == "A cat sits."
    assert sum("mask" in event["delta"] for event in events) == 1
    assert events[-1]["finish_reason"] == "stop"
    assert [phrase["text"] for phrase in events[-1]["delta"]["phrases"]] == ["A cat"]


def test_chat_refuses_in_one_line(segmenter, photo):
    talker, _ = chatter("Never.")
    picture = messages(photo, "Hello")[0]
    pointed = {"role": "user", "content": "This?", "prompts": [{"point": [3, 3]}]}
    cases = [
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 400, "in turns"),
        ({"messages": [picture], "model": "gpt"}, 404, "tiny-chat"),
        ({"messages": [picture], "n": 2}, 422, "n"),
        ({"messages": [picture, {"role": "assistant", "content": "Hi"}, picture]}, 400, "at most one picture"),
        ({"messages": [pointed]}, 400, "without"),
        ({"messages": [{**picture, "prompts": [{"point": [999, 3]}]}]}, 400, "inside the picture"),
        ({"messages": [{**picture, "prompts": [{"point": [999, 3]}]}], "stream": True}, 400, "inside the picture"),
        ({"messages": [{**picture, "prompts": [{}]}]}, 400, "one of point"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "words"),
    ]
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS), raise_server_exceptions=False) as client:
        for body, status, says in cases:
            answer = client.post("/v1/chat/completions", json=body)
            assert answer.status_code == status, (body, answer.text)
            assert says in line_of(answer)


def test_a_recalled_turn_is_as_one_that_was_held(photo):
    talker, script = chatter("Because.<|im_end|>")
    talker.ask("Why?", image=photo, history=[Turn("What is at this place?", "A cat.", ({"point": (20, 30)},))])
    assert script.read[0] > 20  # picture, first question, its answer, second question
    assert talker.kept_conversations == 1
