"""`POST /v1/chat/completions`: OpenAI's chat, with masks beside the words."""

import asyncio
import json
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from PIL import Image
from starlette.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from ..chat import Answer
from ..errors import UserError
from ..models.omg_llava.answers_omg_llava import QUESTION_TOKENS
from ..models.omg_llava.prompts_omg_llava import Prompt
from ..run_lengths import RunLengthMask
from .chatter import MISSING, Chatter, Turn
from .pictures import Limits, read_data_url
from .schemas import (
    AnswerMessage,
    ChatRequest,
    ChatResponse,
    Choice,
    GroundedWords,
    ImagePart,
    Message,
    Part,
    PointedAt,
    TextPart,
)
from .turns import Gone

logger = logging.getLogger(__name__)


def add_chat(app: FastAPI, chatter: Chatter | None, *, limits: Limits, responses: dict[int | str, Any]) -> None:
    """The route; without a chat model it says what is missing."""

    @app.post("/v1/chat/completions", tags=["chat"], response_model=ChatResponse, responses=responses)
    async def complete(request: Request, wanted: ChatRequest) -> Any:
        """Answer about a picture, in words and masks.

        The picture is a data URL in a user's message. With `stream` the words come as server-sent events, masks as
        `delta.mask` when they are made, all `phrases` with the last event.
        """
        if chatter is None:
            raise HTTPException(503, MISSING)
        if wanted.model not in (None, chatter.name):
            raise HTTPException(404, f"there is no chat model {wanted.model!r}: expected {chatter.name!r}")
        asked = await run_in_threadpool(_Asked.read, wanted, limits)
        said = _Answering(chatter, asked)
        identity, created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())
        watching = asyncio.create_task(said.watch(request))
        try:
            if wanted.stream:
                chunk = {"id": identity, "object": "chat.completion.chunk", "created": created, "model": chatter.name}
                # What cannot be asked is an error of the request, not of the stream.
                return _Events(said, first=await said.next(), chunk=chunk)
            answer = await said.last()
        except Gone:
            return Response(status_code=499)  # which nobody reads
        finally:
            watching.cancel()
        return ChatResponse(
            id=identity,
            created=created,
            model=chatter.name,
            choices=[
                Choice(
                    message=AnswerMessage(
                        content=answer.text,
                        phrases=[GroundedWords.model_validate(each) for each in answer.to_dict()["phrases"]],
                    ),
                    finish_reason=_reason(answer),
                )
            ],
        )


def _reason(answer: Answer) -> Any:
    return "stop" if answer.complete else "length"


# ------------------------------------------------------------------------------------------------------------- requests


@dataclass(frozen=True)
class _Asked:
    """A request, checked; `arguments` of `Chatter.ask`."""

    arguments: dict[str, Any]

    @classmethod
    def read(cls, request: ChatRequest, limits: Limits) -> "_Asked":
        messages = _joined(request.messages)
        _check(messages)
        system = _text(messages.pop(0)) if messages[0].role == "system" else None
        roles = [message.role for message in messages]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            raise UserError(
                "messages: expected user and assistant in turns, the user last, after at most one system message, got"
                f" {', '.join(message.role for message in request.messages)}"
            )
        image = _image(messages, limits)
        spoken = [
            (_text(message), tuple(_prompt(each, image, limits) for each in message.prompts)) for message in messages
        ]
        history = [
            Turn(question, answer, prompts)
            for (question, prompts), (answer, _) in zip(spoken[0:-1:2], spoken[1::2], strict=True)
        ]
        question, prompts = spoken[-1]
        return cls(
            {
                "question": question,
                "image": image,
                "system": system,
                "history": history,
                "prompts": prompts,
                "max_new_tokens": request.max_completion_tokens or request.max_tokens,
                "temperature": request.temperature or 0.0,
                "top_p": request.top_p or 1.0,
                "drop_oldest": bool(request.drop_oldest),
            }
        )


def _joined(messages: Sequence[Message]) -> list[Message]:
    """Messages of one speaker in a row as one; a developer speaks as the system does."""
    found = []
    for role, group in groupby(messages, key=_speaker):
        several = list(group)
        parts = [part for message in several for part in _parts(message)]
        found.append(Message(role=role, content=parts, prompts=[each for one in several for each in one.prompts]))
    return found


def _speaker(message: Message) -> Literal["system", "user", "assistant"]:
    return "system" if message.role == "developer" else message.role


def _parts(message: Message) -> list[Part]:
    if isinstance(message.content, str):
        return [TextPart(type="text", text=message.content)]
    return message.content or []


def _text(message: Message) -> str:
    return "\n".join(part.text for part in _parts(message) if isinstance(part, TextPart))


def _urls(message: Message) -> list[str]:
    return [part.image_url.url for part in _parts(message) if isinstance(part, ImagePart)]


def _check(messages: list[Message]) -> None:
    """Only a user shows pictures and points at things."""
    for message in messages:
        text = _text(message)
        found = [token for token in QUESTION_TOKENS if token in text]
        found += ["a picture"] * bool(_urls(message)) + ["prompts"] * bool(message.prompts)
        if found and message.role != "user":
            raise UserError(
                "messages: expected pictures and what is pointed at in messages of the user, got"
                f" {', '.join(found)} in one of the {message.role}"
            )


def _image(messages: list[Message], limits: Limits) -> Image.Image | None:
    urls = [url for message in messages for url in _urls(message)]
    if len(urls) > 1:
        raise UserError(f"messages: expected at most one picture in a conversation, got {len(urls)}")
    return read_data_url(urls[0], limits=limits) if urls else None


def _prompt(pointed: PointedAt, image: Image.Image | None, limits: Limits) -> Prompt:
    given = pointed.model_dump(exclude_none=True)
    if len(set(given) - {"labels"}) != 1 or ("labels" in given and "points" not in given):
        raise UserError(
            f"prompts: expected one of point, points (with labels), box and mask, got {', '.join(given) or 'none'}"
        )
    if pointed.mask is None:
        return given
    if image is None:
        raise UserError("prompts: expected a conversation about a picture, got one without")
    region = np.asarray(read_data_url(pointed.mask, limits=limits, what="mask")).max(axis=2) > 0
    return {"mask": region}


# ------------------------------------------------------------------------------------------------------------ streaming


class _Answering:
    """An answer that a thread of its own makes; what it says is heard in the event loop, which waits for nobody.

    Attributes:
        gone: Set when nobody listens any more.
    """

    def __init__(self, chatter: Chatter, asked: _Asked) -> None:
        self.gone = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._said: asyncio.Queue[dict[str, Any] | Answer | Exception] = asyncio.Queue()
        threading.Thread(target=self._answer, args=(chatter, asked), daemon=True).start()

    async def next(self) -> dict[str, Any] | Answer:
        """The next words or mask; last of all the answer. Raises what went wrong."""
        item = await self._said.get()
        if isinstance(item, Exception):
            raise item
        return item

    async def last(self) -> Answer:
        """The whole answer."""
        try:
            while not isinstance(item := await self.next(), Answer):
                pass
            return item
        finally:
            self.gone.set()

    async def watch(self, request: Request) -> None:
        """Sees the client go."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self.gone.set()
        self._said.put_nowait(Gone())

    def _answer(self, chatter: Chatter, asked: _Asked) -> None:
        try:
            answer = chatter.ask(
                **asked.arguments,
                on_text=lambda text: self._say({"content": text}),
                on_mask=lambda mask: self._say({"mask": RunLengthMask.encode(mask).to_coco()}),
                gone=self.gone,
            )
            self._say(answer)
        except Gone:
            pass
        except Exception as error:
            self._say(error)

    def _say(self, item: dict[str, Any] | Answer | Exception) -> None:
        self._loop.call_soon_threadsafe(self._said.put_nowait, item)


class _Events(StreamingResponse):
    """Server-sent events of an answer, which ends where nobody reads them any more.

    Args:
        first: What `said` said first.
        chunk: The fields that all events share.
    """

    def __init__(self, said: _Answering, *, first: dict[str, Any] | Answer, chunk: dict[str, Any]) -> None:
        super().__init__(self._events(first), media_type="text/event-stream")
        self._said, self._chunk = said, chunk

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._said.gone.set()

    async def _events(self, item: dict[str, Any] | Answer) -> AsyncIterator[str]:
        yield self._event({"role": "assistant", "content": ""})
        try:
            while not isinstance(item, Answer):
                yield self._event(item)
                item = await self._said.next()
            yield self._event({"phrases": item.to_dict()["phrases"]}, reason=_reason(item))
        except Exception as error:
            logger.error("an answer broke off", exc_info=error)
            yield _data(
                {"error": {"message": "the answer broke off: the server's log says why", "type": "server_error"}}
            )
        yield "data: [DONE]\n\n"

    def _event(self, delta: dict[str, Any], *, reason: str | None = None) -> str:
        return _data({**self._chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


def _data(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
