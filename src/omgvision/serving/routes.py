"""Plain HTTP: segmenting, chat in OpenAI's style, models, health; errors as one line of JSON."""

import json
import logging
import time
from typing import Any, get_args

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import UserError
from ..reading import SegmentTask
from ..results import Result
from ..run_lengths import RunLengthMask
from ..vocabulary import CLASS_LISTS
from .chatter import Chatter
from .completions import add_chat
from .pictures import Limits, read_data_url, read_picture
from .schemas import (
    CategoryOfResult,
    ErrorBody,
    Health,
    ModelEntry,
    ModelList,
    RunLengths,
    SegmentFound,
    SegmentRequest,
    SegmentResponse,
)
from .segmenter import Segmenter
from .turns import Busy

logger = logging.getLogger(__name__)

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorBody, "description": "Something in the request cannot be used; the message says what."},
    413: {"model": ErrorBody, "description": "The request is too large."},
    422: {"model": ErrorBody, "description": "A field is missing or of another form."},
    503: {"model": ErrorBody, "description": "Too many questions wait (see Retry-After), or there is no chat model."},
}
_JSON_FIELDS = ("points", "labels", "boxes", "masks")


def create_api(segmenter: Segmenter, chatter: Chatter | None = None, *, limits: Limits) -> FastAPI:
    """Everything but the page in the browser.

    Args:
        segmenter: Answers `/v1/segment`.
        chatter: Answers `/v1/chat/completions`; None = it says what is missing.
        limits: What a request may cost.
    """
    app = FastAPI(
        title="omgvision",
        description="Segmentation of pictures, and chat about them. Errors are one line of JSON.",
        version="1",
    )
    started = int(time.time())

    # What takes no time asks for no thread: those may all be taken by who waits for an answer.
    @app.get("/health", tags=["server"])
    async def health() -> Health:
        """Whether the server answers."""
        return Health()

    @app.get("/v1/models", tags=["server"])
    async def models() -> ModelList:
        """What is loaded."""
        entries = [ModelEntry(id=segmenter.name, created=started, kind="segment")]
        if chatter is not None:
            entries.append(ModelEntry(id=chatter.name, created=started, kind="chat"))
        return ModelList(data=entries)

    @app.post("/v1/segment", tags=["segment"], responses=ERRORS, openapi_extra={"requestBody": _segment_body()})
    async def segment(request: Request) -> SegmentResponse:
        """Segment a picture: by task, by words, or what points, boxes and masks show.

        The picture comes as `image` of a multipart form (then lists are JSON texts, and `classes` and `things` may be
        words separated by commas), or as a data URL in JSON.
        """
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "multipart/form-data":
            wanted, data = await _read_form(request)
            found = await run_in_threadpool(_segment, segmenter, wanted, limits, data)
        elif kind == "application/json":
            wanted = SegmentRequest.model_validate(await _read_json(request))
            found = await run_in_threadpool(_segment, segmenter, wanted, limits, None)
        else:
            raise HTTPException(415, f"expected multipart/form-data or application/json, got {kind or 'no type'}")
        return _segment_response(found)

    add_chat(app, chatter, limits=limits, responses=ERRORS)
    _add_errors(app)
    app.add_middleware(BodyLimit, most=limits.body_bytes)
    return app


# -------------------------------------------------------------------------------------------------------------- segment


async def _read_form(request: Request) -> tuple[SegmentRequest, bytes]:
    async with request.form(max_files=1, max_fields=16) as form:
        picture = form.get("image")
        if not isinstance(picture, UploadFile):
            raise UserError("image: expected a file in the form, got none")
        data = await picture.read()
        fields: dict[str, Any] = {"image": ""}
        for name, value in form.items():
            if name == "image" or not isinstance(value, str) or not value.strip():
                continue
            if name in _JSON_FIELDS:
                fields[name] = _json_field(name, value)
            elif name in ("classes", "things"):
                words = _json_field(name, value) if value.lstrip().startswith("[") else split_words(value)
                fields[name] = [words] if name == "things" and isinstance(words, str) else words
            else:
                fields[name] = value
    return SegmentRequest.model_validate(fields), data


def split_words(text: str) -> list[str] | str | None:
    """ "person, sofa/couch" → names, a single word without comma → the name of a bundled list if it is one."""
    if not text.strip():
        return None
    return text.strip() if text.strip() in CLASS_LISTS else [name.strip() for name in text.split(",")]


def _json_field(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UserError(f"{name}: expected JSON such as [[10, 20]], got {text[:40]!r}") from None


async def _read_json(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError:
        raise UserError("the body is no valid JSON") from None


def _segment(segmenter: Segmenter, wanted: SegmentRequest, limits: Limits, data: bytes | None) -> Result:
    image = read_data_url(wanted.image, limits=limits) if data is None else read_picture(data, limits=limits)
    if wanted.points or wanted.boxes or wanted.masks:
        if wanted.task is not None or wanted.classes is not None or wanted.things or wanted.threshold is not None:
            raise UserError("points, boxes and masks say what to segment: leave task, classes, things, threshold out")
        regions = [read_data_url(url, limits=limits, what="mask") for url in wanted.masks or ()]
        return segmenter.click(
            image, points=wanted.points, labels=wanted.labels, boxes=wanted.boxes, masks=regions or None
        )
    return segmenter.segment(
        image,
        task=wanted.task or "panoptic",
        classes=wanted.classes,
        things=wanted.things,
        threshold=wanted.threshold,
    )


def _segment_response(result: Result) -> SegmentResponse:
    segments = [
        SegmentFound(
            id=segment.id,
            label=segment.label,
            label_id=segment.label_id,
            is_thing=segment.is_thing,
            score=None if segment.score is None else round(segment.score, 6),
            area=segment.area,
            bbox=list(segment.bbox),
            mask=RunLengths(**RunLengthMask.encode(segment.mask).to_coco()),
        )
        for segment in result
    ]
    return SegmentResponse(
        model=result.model_name,
        task=result.task,
        width=result.width,
        height=result.height,
        categories=[CategoryOfResult(name=each.name, is_thing=each.is_thing) for each in result.categories],
        segments=segments,
    )


def _segment_body() -> dict[str, Any]:
    """The two forms of the request, for OpenAPI."""
    schema = SegmentRequest.model_json_schema()
    text = {"type": "string"}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "format": "binary", "description": "The picture."},
            "task": {"type": "string", "enum": list(get_args(SegmentTask))},
            "threshold": {"type": "number"},
            "classes": text | {"description": "Words separated by commas, a JSON list, or the name of a bundled list."},
            "things": text | {"description": "As classes: which of them are countable."},
            **{name: text | {"description": "As in JSON."} for name in _JSON_FIELDS},
        },
    }
    return {
        "required": True,
        "content": {"application/json": {"schema": schema}, "multipart/form-data": {"schema": form}},
    }


# --------------------------------------------------------------------------------------------------------------- errors


def error_response(status: int, message: str) -> JSONResponse:
    """One line, in OpenAI's form."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": " ".join(message.split()), "type": kind}}, status_code=status)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def users(request: Request, error: UserError) -> Response:
        return error_response(400, str(error))

    @app.exception_handler(Busy)
    async def busy(request: Request, error: Busy) -> Response:
        response = error_response(503, str(error))
        response.headers["Retry-After"] = "10"
        return response

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def form(request: Request, error: RequestValidationError | ValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return error_response(422, f"{place or 'body'}: {first['msg']}")

    @app.exception_handler(StarletteHTTPException)
    async def http(request: Request, error: StarletteHTTPException) -> Response:
        return error_response(error.status_code, str(error.detail))

    @app.exception_handler(Exception)
    async def ours(request: Request, error: Exception) -> Response:
        logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(500, "this is a bug in omgvision: the server's log has the details")


class BodyLimit:
    """Refuses requests of more than `most` bytes, before they are held in memory or on disk."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self.app, self.most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        line = f"the request is too large: expected at most {self.most / 2**20:.0f} MB"
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self.most:
            await error_response(413, line)(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self.most:  # a body that comes in pieces declares no length
                raise HTTPException(413, line)
            return message

        await self.app(scope, counted, send)
