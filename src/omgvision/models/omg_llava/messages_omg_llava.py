"""Messages of a conversation: their text, and the pictures and prompts that are part of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers.image_utils import load_image

from .answers_omg_llava import IMAGE
from .prompts_omg_llava import PLACEHOLDERS, Prompt


@dataclass
class MessageReading:
    """What the messages of a conversation hold."""

    pieces: list[tuple[str, bool]] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)

    def take(self, content: Any) -> str:
        """The content of a message as text; pictures and prompts are put aside in their order."""
        if content is None or isinstance(content, str):
            return content or ""
        front, text = "", ""
        for part in content:
            kind = part.get("type")
            if kind == "text":
                text += part["text"]
            elif kind in ("image", "image_url"):
                front += f"{IMAGE}\n"
                self.images.append(_picture(part))
            elif kind in PLACEHOLDERS:
                text += PLACEHOLDERS[kind]
                self.prompts.append({key: value for key, value in part.items() if key != "type"})
            else:
                raise ValueError(
                    f"content: expected parts of type text, image, {', '.join(PLACEHOLDERS)}, got {kind!r}"
                )
        return front + text


def _picture(part: Mapping[str, Any]) -> Any:
    for key in ("image", "url", "path", "base64"):
        if key in part:
            return load_image(part[key]) if isinstance(part[key], str) else part[key]
    if "image_url" in part:
        link = part["image_url"]
        return load_image(link["url"] if isinstance(link, Mapping) else link)
    raise ValueError("content: expected image, url, path or base64 in the part of type image, got none of them")


def is_conversation(conversation: Sequence[Any]) -> bool:
    return bool(conversation) and isinstance(conversation[0], Mapping)


def without_oldest_turn(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]] | None:
    """Without the first question and its answer, whose picture moves to the next question; None if that is the last."""
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if len(users) < 2:
        return None
    first, second = users[:2]
    content, follower = messages[first]["content"], messages[second]["content"]
    images = [] if isinstance(content, str) else [part for part in content if part["type"] in ("image", "image_url")]
    if isinstance(follower, str):
        follower = [{"type": "text", "text": follower}]
    return [*messages[:first], {**messages[second], "content": [*images, *follower]}, *messages[second + 1 :]]


def pieces_of(text: str, answers: Any) -> Iterator[tuple[str, bool]]:
    """The text in parts; second, whether a part is an answer. ``answers``: their first and last character + 1."""
    last = 0
    for start, end in answers:
        yield text[last:start], False
        yield text[start:end], True
        last = end
    yield text[last:], False


def flat_images(images: Any) -> list[Any]:
    if isinstance(images, str):
        return [load_image(images)]
    if not isinstance(images, list | tuple):
        return [images]
    return [each for image in images for each in flat_images(image)]


__all__ = ["MessageReading", "flat_images", "is_conversation", "pieces_of", "without_oldest_turn"]
