"""`POST /v1/chat/completions`: OpenAI's chat, with masks beside the words."""

import json
import logging
import queue
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from PIL import Image

from ..chat import Answer
from ..errors import UserError
from ..models.omg_llava.prompts_omg_llava import Prompt
from ..run_lengths import RunLengthMask
from .chatter import MISSING, Chatter, Turn
from .pictures import Limits, read_data_url
from .schemas import AnswerMessage, ChatRequest, ChatResponse, Choice, GroundedWords, ImagePart, Message, PointedAt

logger = logging.getLogger(__name__)


def add_chat(app: FastAPI, chatter: Chatter | None, *, limits: Limits, responses: dict[int | str, Any]) -> None:
    """The route; without a chat model it says what is missing."""

    @app.post("/v1/chat/completions", tags=["chat"], response_model=ChatResponse, responses=responses)
    def complete(request: ChatRequest) -> Any:
        """Answer about a picture, in words and masks.

        The picture is a data URL in a user's message. With `stream` the words come as server-sent events, masks as
        `delta.mask` when they are made, all `phrases` with the last event.
        """
        if chatter is None:
            raise HTTPException(503, MISSING)
        if request.model not in (None, chatter.name):
            raise HTTPException(404, f"there is no chat model {request.model!r}: expected {chatter.name!r}")
        asked = _Asked.read(request, limits)
        identity = f"chatcmpl-{uuid.uuid4().hex}"
        if request.stream:
            return StreamingResponse(_Stream(chatter, asked, identity).events(), media_type="text/event-stream")
        answer = chatter.ask(**asked.arguments)
        return ChatResponse(
            id=identity,
            created=int(time.time()),
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
        messages = list(request.messages)
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
                "temperature": request.temperature,
                "top_p": request.top_p,
            }
        )


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text for part in message.content if not isinstance(part, ImagePart))


def _image(messages: list[Message], limits: Limits) -> Image.Image | None:
    urls = [
        (message.role, part.image_url.url)
        for message in messages
        if not isinstance(message.content, str)
        for part in message.content
        if isinstance(part, ImagePart)
    ]
    if len(urls) > 1:
        raise UserError(f"messages: expected at most one picture in a conversation, got {len(urls)}")
    if urls and urls[0][0] != "user":
        raise UserError(f"messages: expected the picture in a message of the user, got it from {urls[0][0]}")
    return read_data_url(urls[0][1], limits=limits) if urls else None


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


class _Gone(Exception):
    """Nobody listens any more."""


class _Stream:
    """An answer as server-sent events, while it is made in a thread of its own."""

    def __init__(self, chatter: Chatter, asked: _Asked, identity: str) -> None:
        self._chatter, self._asked, self._identity = chatter, asked, identity
        self._created = int(time.time())
        self._queue: queue.Queue[dict[str, Any] | Answer | Exception] = queue.Queue()
        self._gone = threading.Event()
        threading.Thread(target=self._answer, daemon=True).start()
        self._first = self._queue.get()
        if isinstance(self._first, Exception):  # what cannot be asked is an error of the request, not of the stream
            raise self._first

    def events(self) -> Iterator[str]:
        item = self._first
        try:
            yield self._event({"role": "assistant", "content": ""})
            while not isinstance(item, Answer | Exception):
                yield self._event(item)
                item = self._queue.get()
            if isinstance(item, Exception):
                logger.error("an answer broke off", exc_info=item)
                yield _data(
                    {"error": {"message": "the answer broke off: the server's log says why", "type": "server_error"}}
                )
            else:
                yield self._event({"phrases": item.to_dict()["phrases"]}, reason=_reason(item))
            yield "data: [DONE]\n\n"
        finally:
            self._gone.set()

    def _answer(self) -> None:
        try:
            self._queue.put(
                self._chatter.ask(
                    **self._asked.arguments,
                    on_text=lambda text: self._say({"content": text}),
                    on_mask=lambda mask: self._say({"mask": RunLengthMask.encode(mask).to_coco()}),
                )
            )
        except _Gone:
            pass
        except Exception as error:
            self._queue.put(error)

    def _say(self, delta: dict[str, Any]) -> None:
        if self._gone.is_set():
            raise _Gone
        self._queue.put(delta)

    def _event(self, delta: dict[str, Any], *, reason: str | None = None) -> str:
        return _data(
            {
                "id": self._identity,
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._chatter.name,
                "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
            }
        )


def _data(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
