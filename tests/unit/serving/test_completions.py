# ruff: noqa: E402  (imports follow the guard for the extra)
"""OpenAI's chat: what its clients send, several visitors at once, those who leave, and conversations that grow long."""

import asyncio
import json
import threading
import time
from typing import Any

import pytest

import omgvision

testing = pytest.importorskip("fastapi.testclient", reason="omg serve needs the extra serve")
httpx = pytest.importorskip("httpx", reason="omg serve is tested with httpx")

from omgvision.chat import Conversation
from omgvision.serving.chatter import Chatter
from omgvision.serving.routes import create_api
from omgvision.serving.segmenter import Segmenter
from tests.golden_llava import never_ending, processor, random_llava, text_config
from tests.unit.serving.test_http import LIMITS, chatter, data_url, line_of, messages

PATH = "/v1/chat/completions"
PATIENCE = 60


@pytest.fixture(scope="module")
def segmenter(tiny_model_dir):
    return Segmenter(omgvision.load(tiny_model_dir, device="cpu"), limits=LIMITS)


def user(text: str | None = "Hello") -> dict[str, Any]:
    return {"role": "user", "content": text}


def spoken(talker: Chatter) -> list[str]:
    """What the model was told in the conversation that is in memory: a line a message."""
    [conversation] = talker._kept.values()
    return [f"{message['role']}: {message['content']}" for message in conversation._messages]


# --- what clients send -----------------------------------------------------------------------------------------------


def test_null_is_as_if_it_was_left_out(segmenter):
    talker, _ = chatter("Hi.<|im_end|>", "Yes.<|im_end|>")
    fields = ("max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stream", "drop_oldest", "model")
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS)) as client:
        answer = client.post(PATH, json={"messages": [user()], **dict.fromkeys(fields)})
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == "Hi."
        silent = [user(), {"role": "assistant", "content": None}, user("Are you there?")]
        assert client.post(PATH, json={"messages": silent}).status_code == 200


def test_messages_of_one_speaker_are_one(segmenter, photo):
    talker, _ = chatter("Yes.<|im_end|>")
    first, *_ = messages(photo, "Look.")
    first["prompts"] = [{"point": [30, 30]}]
    said = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        user("Here is a picture."),
        first,
        user("What is it?"),
    ]
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS)) as client:
        answer = client.post(PATH, json={"messages": said})
    assert answer.status_code == 200, answer.text
    assert spoken(talker) == [
        "system: Be brief.\nBe kind.",
        "user: <image>\nThere are some marks: Mark 1 <mark>.\nHere is a picture.\nLook.\nWhat is it?",
        "assistant: Yes.",
    ]


def test_only_users_show_and_point(segmenter, photo):
    talker, _ = chatter("Never.")
    picture = messages(photo, "See.")[0]["content"]
    prompts = [{"point": [3, 3]}]
    cases = [
        ([{"role": "system", "content": picture}, user()], "got a picture in one of the system"),
        ([{"role": "developer", "content": "See <image>."}, user()], "got <image> in one of the system"),
        ([user(), {"role": "assistant", "content": picture}, user()], "got a picture in one of the assistant"),
        ([user(), {"role": "assistant", "content": "A <mark>."}, user()], "got <mark> in one of the assistant"),
        ([user(), {"role": "assistant", "content": "A <region>."}, user()], "got <region> in one of the assistant"),
        ([user(), {"role": "assistant", "content": "I.", "prompts": prompts}, user()], "got prompts in one of the ass"),
        ([user("A <region>?")], "one for each of 1 placeholders"),
        ([user("A <region>?"), {"role": "assistant", "content": "I."}, user()], "one for each of 1 placeholders"),
        ([user("<image> What?")], "expected no <image>"),
        ([user(None)], "expected some words"),
    ]
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS), raise_server_exceptions=False) as client:
        for said, says in cases:
            for stream in (False, True):
                answer = client.post(PATH, json={"messages": said, "stream": stream})
                assert answer.status_code == 400, (said, answer.text)
                assert says in line_of(answer)


# --- long conversations ----------------------------------------------------------------------------------------------


def test_answers_fit_what_the_model_can_read(segmenter):
    """Whatever length is asked for; a conversation that leaves too little room names what its sender can do."""
    model = never_ending(random_llava(text_config(max_position_embeddings=200)))
    talker = Chatter(model, processor(128), name="tiny-chat", limits=LIMITS)
    with testing.TestClient(create_api(segmenter, talker, limits=LIMITS)) as client:
        answer = client.post(PATH, json={"messages": [user()], "max_tokens": 5000})
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["finish_reason"] == "length"

        said = [user("What is the first thing that comes to your mind?"), {"role": "assistant", "content": "A cat."}]
        body = {"messages": [*said * 8, user("And now?")], "max_tokens": 70}
        line = line_of(answer := client.post(PATH, json=body))
        assert answer.status_code == 400
        assert "longer than the model can read" in line and "(drop_oldest)" in line
        assert "max_new_tokens" not in line and "reset" not in line
        assert client.post(PATH, json={**body, "drop_oldest": True}).status_code == 200
        longest = {"messages": [user("word " * 300)], "drop_oldest": True}
        line = line_of(answer := client.post(PATH, json=longest))
        assert answer.status_code == 400 and "drop_oldest" not in line


# --- several at once -------------------------------------------------------------------------------------------------


def connected(app: Any) -> Any:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", timeout=PATIENCE)


def test_two_at_once_are_answered_as_each_alone(segmenter, photo):
    def talker() -> Chatter:
        return Chatter(never_ending(random_llava()), processor(128), name="tiny-chat", limits=LIMITS)

    questions = [
        {"messages": messages(photo, "What is here?"), "max_tokens": 8},
        {"messages": messages(photo.rotate(180), "Who is it?"), "max_tokens": 8, "stream": True},
        {"messages": [user("What is 1 + 1?")], "max_tokens": 8},
    ]

    def words(answer: Any) -> str:
        if not answer.headers["content-type"].startswith("text/event-stream"):
            return answer.json()["choices"][0]["message"]["content"]
        events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
        return "".join(json.loads(each)["choices"][0]["delta"].get("content", "") for each in events[:-1])

    async def ask(*, at_once: bool) -> list[str]:
        async with connected(create_api(segmenter, talker(), limits=LIMITS)) as client:
            if at_once:
                found = await asyncio.gather(*(client.post(PATH, json=body) for body in questions * 2))
            else:
                found = [await client.post(PATH, json=body) for body in questions]
            return [words(answer) for answer in found]

    alone, together = asyncio.run(ask(at_once=False)), asyncio.run(ask(at_once=True))
    assert len(set(alone)) == len(questions)
    assert together == alone * 2


def test_the_server_answers_while_many_wait(segmenter, photo, monkeypatch):
    """And refuses those who would wait too long."""
    talker, _ = chatter(*["Yes.<|im_end|>"] * 50)
    go_on, ask = threading.Event(), Conversation.ask

    def held(*args: Any, **kwargs: Any) -> Any:
        assert go_on.wait(PATIENCE)
        return ask(*args, **kwargs)

    monkeypatch.setattr(Conversation, "ask", held)

    async def visit() -> list[Any]:
        async with connected(create_api(segmenter, talker, limits=LIMITS)) as client:
            body = {"messages": [user()], "max_tokens": 8}
            asked = [
                asyncio.create_task(client.post(PATH, json={**body, "stream": number % 2 == 0})) for number in range(50)
            ]
            try:
                while sum(each.done() for each in asked) < 50 - 1 - LIMITS.waiting:
                    await asyncio.sleep(0.05)
                for path in ("/health", "/v1/models"):
                    answer = await asyncio.wait_for(client.get(path), 10)
                    assert answer.status_code == 200
                segments = {"image": data_url(photo), "task": "panoptic"}
                assert (await asyncio.wait_for(client.post("/v1/segment", json=segments), PATIENCE)).status_code == 200
            finally:
                go_on.set()
            return await asyncio.gather(*asked)

    found = asyncio.run(asyncio.wait_for(visit(), 2 * PATIENCE))
    refused = [answer for answer in found if answer.status_code != 200]
    assert len(refused) == 50 - 1 - LIMITS.waiting
    for answer in refused:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
        assert "try again" in line_of(answer)


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_ends_where_its_reader_leaves(segmenter, stream):
    talker, script = chatter("word " * 400 + "<|im_end|>", "Here.<|im_end|>")
    app = create_api(segmenter, talker, limits=LIMITS)
    body = json.dumps({"messages": [user()], "stream": stream, "max_tokens": 1024}).encode()
    coming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop()
        while script.step < 3:
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "path": PATH,
        "raw_path": PATH.encode(),
        "root_path": "",
        "query_string": b"",
        "scheme": "http",
        "headers": [(b"content-type", b"application/json")],
    }
    asyncio.run(asyncio.wait_for(app(scope, receive, send), PATIENCE))
    deadline = time.monotonic() + PATIENCE
    while talker._turns._line and time.monotonic() < deadline:
        time.sleep(0.01)
    assert script.step < 200
    # The conversation is as if nothing was asked, and the next visitor is answered.
    assert talker.ask("Is anybody here?").text == "Here."
