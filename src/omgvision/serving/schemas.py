"""What goes over HTTP, as OpenAPI describes it."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

XY = Annotated[list[float], Field(min_length=2, max_length=2)]
Box = Annotated[list[float], Field(min_length=4, max_length=4)]


class SegmentRequest(BaseModel):
    """A picture and what is wanted of it; `points`, `boxes` and `masks` instead of a task segment what they show."""

    image: str = Field(description="The picture as a data URL: data:image/jpeg;base64,…")
    task: Literal["panoptic", "instance", "semantic", "everything"] | None = Field(
        None, description="What to look for; panoptic unless something is pointed at."
    )
    classes: list[str] | str | None = Field(
        None, description="Words of your choice, or the name of a bundled list (coco, ade20k, …); else the model's own."
    )
    things: list[str] | None = Field(None, description="Which of the classes are countable.")
    threshold: float | None = Field(None, description="Leave out segments of lower score, 0 to 1.")
    points: list[XY] | list[list[XY]] | None = Field(
        None, description="[[x, y], …] of one object, or [[[x, y], …], …] of several, in pixels of the picture."
    )
    labels: list[int] | list[list[int]] | None = Field(
        None, description="1 on the object, 0 beside it; nested as the points."
    )
    boxes: list[Box] | None = Field(None, description="[[x0, y0, x1, y1], …], one an object.")
    masks: list[str] | None = Field(
        None, description="Regions as data URLs of pictures of the same size, not black inside; one an object."
    )


class RunLengths(BaseModel):
    """A mask in COCO's compressed form: `pycocotools.mask.decode` reads it."""

    size: list[int] = Field(description="[height, width]")
    counts: str


class SegmentFound(BaseModel):
    """One segment."""

    id: int
    label: str
    label_id: int | None
    is_thing: bool
    score: float | None
    area: int = Field(description="Pixels.")
    bbox: list[int] = Field(description="x, y, width, height in pixels.")
    mask: RunLengths


class CategoryOfResult(BaseModel):
    """A class of the vocabulary; its place in the list is its id."""

    name: str
    is_thing: bool


class SegmentResponse(BaseModel):
    """What was found."""

    model: str
    task: str
    width: int
    height: int
    categories: list[CategoryOfResult]
    segments: list[SegmentFound]


class ImageUrl(BaseModel):
    """Where a picture is: in the text itself."""

    url: str = Field(description="data:image/jpeg;base64,…")


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ImagePart(BaseModel):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class PointedAt(BaseModel):
    """One prompt; exactly one of point, points, box and mask. In pixels of the picture."""

    point: XY | None = None
    points: list[XY] | None = None
    labels: list[int] | None = Field(None, description="Of points: 1 on the object, 0 beside it.")
    box: Box | None = None
    mask: str | None = Field(None, description="A data URL of a picture of the same size, not black inside.")


class Message(BaseModel):
    """A message of OpenAI's form, with `prompts` besides for what the user points at."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part] | None = None
    prompts: list[PointedAt] = Field(default_factory=list)


class ChatRequest(BaseModel):
    """OpenAI's chat completions, as far as they apply here; null is as if a field was left out."""

    model: str | None = Field(None, description="The chat model of GET /v1/models.")
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, description="The answer is shorter where the model can read no more.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The same, and goes before it.")
    temperature: float | None = Field(0.0, ge=0, le=2, description="0 = the likeliest words.")
    top_p: float | None = Field(1.0, gt=0, le=1)
    n: Literal[1] | None = 1
    stream: bool | None = False
    drop_oldest: bool | None = Field(
        False, description="Forget the oldest turns where the conversation is longer than the model can read."
    )


class GroundedWords(BaseModel):
    """Words of the answer and their mask."""

    text: str
    start: int
    end: int
    score: float
    box: list[int] = Field(description="x, y, width, height in pixels.")
    mask: RunLengths


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    phrases: list[GroundedWords]


class Choice(BaseModel):
    index: int = 0
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]


class ChatResponse(BaseModel):
    """OpenAI's answer, with the masks beside its words."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "omgvision"
    kind: Literal["segment", "chat"]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class ErrorBody(BaseModel):
    """One line about what went wrong."""

    error: dict[str, Any] = Field(examples=[{"message": "image: it is empty", "type": "invalid_request_error"}])
