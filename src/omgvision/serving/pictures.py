"""Pictures that strangers send: bounded, and never a path or an address of this machine."""

import base64
import binascii
import hashlib
import io
from dataclasses import dataclass

from PIL import Image

from ..errors import UserError
from ..inputs import load_image


@dataclass(frozen=True)
class Limits:
    """What a request may cost.

    Attributes:
        upload_bytes: Of a picture as it is sent.
        pixels: Of a picture when it is decoded.
        side: Longer side of a picture, in pixels.
        kept: Pictures that stay encoded, and conversations that stay in memory, for the next question.
        answer_tokens: Longest answer of the chat model.
        waiting: Questions that wait for their turn; more are refused.
    """

    upload_bytes: int = 20 * 2**20
    pixels: int = 40_000_000
    side: int = 16_384
    kept: int = 8
    answer_tokens: int = 1024
    waiting: int = 16

    @property
    def body_bytes(self) -> int:
        """Of a whole request: a picture as base64, and room for what goes with it."""
        return self.upload_bytes * 4 // 3 + 2**20


def read_picture(data: bytes, *, limits: Limits, what: str = "image") -> Image.Image:
    """Decode a picture that was sent: RGB, 8 bits, upright.

    Raises:
        UserError: it is empty, no picture, damaged, or larger than `limits` allow.
    """
    if not data:
        raise UserError(f"{what}: it is empty (0 bytes), expected JPEG, PNG, WebP or the like")
    if len(data) > limits.upload_bytes:
        raise UserError(f"{what}: expected at most {limits.upload_bytes / 2**20:g} MB, got {len(data) / 2**20:.1f} MB")
    try:
        image = Image.open(io.BytesIO(data))
    except Exception:  # Pillow's decoders raise almost anything on damaged data
        raise UserError(f"{what}: it is not an image, expected JPEG, PNG, WebP or the like") from None
    if image.width * image.height > limits.pixels:  # before it is decoded
        raise UserError(
            f"{what}: expected at most {limits.pixels / 1e6:g} megapixels, got {image.width}x{image.height} pixels"
        )
    if max(image.size) > limits.side:
        raise UserError(
            f"{what}: expected at most {limits.side} pixels on its longer side, got {image.width}x{image.height} pixels"
        )
    return load_image(image)


def read_data_url(url: str, *, limits: Limits, what: str = "image") -> Image.Image:
    """Decode "data:image/png;base64,…". Addresses and paths are refused: the server reads nothing by itself.

    Raises:
        UserError: it is no such text; or as of `read_picture`.
    """
    head, comma, body = url.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise UserError(f"{what}: expected a data URL (data:image/png;base64,…), got {url[:40]!r}")
    try:
        data = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise UserError(f"{what}: its data URL is no valid base64") from None
    return read_picture(data, limits=limits, what=what)


def fingerprint(image: Image.Image) -> str:
    """The same for equal pixels only."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()
