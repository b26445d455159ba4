"""Everything that can be segmented, as upright 8-bit RGB pictures: files, folders, patterns, addresses, arrays."""

import contextlib
import glob
import http.client
import io
import logging
import os
import urllib.error
import urllib.parse
import urllib.request
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

logger = logging.getLogger(__name__)

ImageSource = str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor
"""One picture, or a folder, pattern or list file name that stands for several."""

# Container formats that people keep photographs in; whatever Pillow can decode is accepted when it is named outright.
IMAGE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga"}
    | {".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 178_956_970
"""Largest picture that is decoded: Pillow's own limit against decompression bombs (0.5 GB as RGB)."""
URL_TIMEOUT_SECONDS = 30.0
URL_MAX_BYTES = 200 * 1024 * 1024
_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, eq=False)
class NamedImage:
    """A decoded picture and the name its results are filed under (unique within its source)."""

    name: str
    image: Image.Image


@dataclass(frozen=True)
class _Entry:
    name: str
    read: Callable[[], Image.Image]


class ImageList:
    """The pictures of a source, decoded one at a time when they are asked for.

    Attributes:
        single: the source names exactly one picture (a file, an address, an array), as opposed to a folder,
            a pattern or a list, which may also hold just one.
    """

    def __init__(self, entries: Sequence[_Entry], *, single: bool) -> None:
        self._entries = _with_unique_names(entries)
        self.single = single

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> NamedImage:
        entry = self._entries[index]
        return NamedImage(name=entry.name, image=entry.read())

    def __iter__(self) -> Iterator[NamedImage]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        return [entry.name for entry in self._entries]


def load_images(source: ImageSource | Iterable[ImageSource]) -> ImageList:
    """Find the pictures that `source` stands for, without decoding them yet.

    Args:
        source: a path; a folder (its pictures in the order of their names, sub-folders left out); a pattern such as
            `"shots/**/*.jpg"`; an http(s) address; a PIL image; an array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4];
            a tensor [H, W], [1, H, W], [3, H, W] or [4, H, W]; or a list of these. Integers of 8 bits are taken as they
            are, unsigned 16 bits are scaled by 255/65535, floats must lie in [0, 1]. Colours are red, green, blue.

    Returns:
        A list that decodes on access. Missing files, empty folders and patterns without a match are reported at once,
        undecodable pictures when they are read; both as `UserError`.
    """
    if isinstance(source, str | os.PathLike):
        return _from_text(os.fspath(source))
    if isinstance(source, Image.Image | np.ndarray | torch.Tensor):
        return ImageList([_from_object(source)], single=True)
    if isinstance(source, Iterable):
        entries: list[_Entry] = []
        for item in source:
            if isinstance(item, str | os.PathLike):
                entries.extend(_from_text(os.fspath(item))._entries)
            else:
                entries.append(_from_object(item))
        if not entries:
            raise UserError("the list of images is empty: expected at least one path, address, PIL image or array")
        return ImageList(entries, single=False)
    raise UserError(_unknown(source))


def load_image(source: ImageSource) -> Image.Image:
    """Decode exactly one picture: RGB, 8 bits, upright. See `load_images` for what `source` may be."""
    images = load_images(source)
    if not images.single:
        raise UserError(f"expected one image, got the {len(images)} images of {source!r}: name a single file")
    return images[0].image


# --------------------------------------------------------------------------------------------- where pictures come from


def _from_text(text: str) -> ImageList:
    if not text.strip():
        raise UserError("the image path is empty: expected a file, a folder, a pattern or an http(s) address")
    if "://" in text:
        scheme = text.split("://", 1)[0].lower()
        if scheme not in {"http", "https"}:
            raise UserError(f"cannot read {text}: expected an http or https address, got {scheme}://")
        return ImageList([_Entry(_url_name(text), lambda: _read_url(text))], single=True)
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return _from_folder(path)
        if path.exists():
            return ImageList([_Entry(path.stem, lambda: _read_file(path))], single=True)
    except OSError as error:  # e.g. a name longer than the file system allows, or a folder that may not be entered
        raise UserError(f"cannot read {_shorten(text)}: {_reason(error)}") from None
    if _GLOB_CHARACTERS & set(text):
        return _from_pattern(text)
    raise UserError(f"{_shorten(text)} does not exist: expected an image, a folder, a pattern or an http(s) address")


def _from_folder(folder: Path) -> ImageList:
    try:
        paths = sorted(
            path
            for path in folder.iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {_reason(error)}") from None
    if not paths:
        raise UserError(
            f"the folder {folder} holds no images: expected files such as .jpg, .png, .tif or .webp"
            f" (for sub-folders give a pattern: '{folder}/**/*.jpg')"
        )
    return ImageList([_file_entry(path) for path in paths], single=False)


def _from_pattern(pattern: str) -> ImageList:
    matches = (Path(match) for match in glob.glob(str(Path(pattern).expanduser()), recursive=True))
    paths = sorted(path for path in matches if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise UserError(f"no image matches the pattern {pattern!r}: expected at least one file such as .jpg or .png")
    return ImageList([_file_entry(path) for path in paths], single=False)


def _file_entry(path: Path) -> _Entry:
    return _Entry(path.stem, lambda: _read_file(path))


def _from_object(value: object) -> _Entry:
    if isinstance(value, Image.Image):
        return _Entry("image", lambda: _read_pil(value))
    if isinstance(value, torch.Tensor):
        return _Entry("image", lambda: Image.fromarray(_tensor_to_rgb(value)))
    if isinstance(value, np.ndarray):
        return _Entry("image", lambda: Image.fromarray(_array_to_rgb(value)))
    raise UserError(_unknown(value))


def _unknown(value: object) -> str:
    return (
        f"cannot read an image from {type(value).__name__}: expected a path, folder, pattern, http(s) address,"
        " PIL image, array [H, W, 3] or tensor [3, H, W]"
    )


def _with_unique_names(entries: Sequence[_Entry]) -> list[_Entry]:
    """Number the names that occur twice, so that results of `a/x.jpg` and `b/x.png` do not overwrite each other."""
    # Names are compared without case: Windows and macOS keep `A.png` and `a.png` in one file.
    wanted = {entry.name.lower() for entry in entries}
    used: set[str] = set()
    unique = []
    for entry in entries:
        name, number = entry.name, 1
        while name.lower() in used or (number > 1 and name.lower() in wanted):
            number += 1
            name = f"{entry.name}-{number}"
        used.add(name.lower())
        unique.append(_Entry(name, entry.read))
    return unique


# ------------------------------------------------------------------------------------------------------------- decoding


def _read_file(path: Path) -> Image.Image:
    try:
        if path.is_dir():
            raise UserError(f"cannot read {path}: it is a folder, expected an image file")
        if path.stat().st_size == 0:
            raise UserError(f"cannot read {path}: the file is empty (0 bytes), expected an image")
        with path.open("rb") as stream:
            return _decode(stream, str(path))
    except OSError as error:
        raise UserError(f"cannot read {path}: {_reason(error)}") from None


def _url_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    stem = Path(urllib.parse.unquote(parts.path)).stem
    return stem or parts.hostname or "image"


def _read_url(url: str) -> Image.Image:
    request = urllib.request.Request(url, headers={"User-Agent": "omgvision (+https://pypi.org/project/omgvision)"})
    try:
        with urllib.request.urlopen(request, timeout=URL_TIMEOUT_SECONDS) as response:
            data = response.read(URL_MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise UserError(f"cannot download {url}: the server answered {error.code} {error.reason}") from None
    except urllib.error.URLError as error:
        reason = error.reason if isinstance(error.reason, str) else _reason(error.reason)
        raise UserError(f"cannot download {url}: {reason}; check the address and the connection") from None
    except TimeoutError:
        raise UserError(f"cannot download {url}: no answer within {URL_TIMEOUT_SECONDS:.0f} seconds") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"cannot download {url}: {_reason(error)}") from None
    if len(data) > URL_MAX_BYTES:
        raise UserError(f"cannot download {url}: more than {URL_MAX_BYTES // 2**20} MB, expected one image")
    if not data:
        raise UserError(f"cannot download {url}: the answer is empty (0 bytes), expected an image")
    return _decode(io.BytesIO(data), url)


def _decode(stream: BinaryIO, what: str) -> Image.Image:
    with _decoder_errors(what), warnings.catch_warnings():
        # Pillow warns at half of the size that it refuses; the refusal is the limit that is documented here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with Image.open(stream) as image:
            _check_size(image, what)
            frames = _frame_count(image)
            image.load()
            if frames > 1:
                logger.warning("%s holds %d frames: only the first is used", what, frames)
            return _to_rgb(image, what)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _decoder_errors(what: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"cannot read {what}: it is not an image, expected JPEG, PNG, TIFF, WebP or the like") from None
    except Image.DecompressionBombError:
        raise UserError(f"cannot read {what}: larger than the limit of {MAX_PIXELS // 10**6} megapixels") from None
    except MemoryError:
        raise UserError(f"cannot read {what}: not enough memory to decode it") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged data
        raise UserError(f"cannot read {what}: the file is damaged or truncated ({_reason(error)})") from None


def _read_pil(image: Image.Image) -> Image.Image:
    # `Image.open` is lazy: what the caller holds may still be undecoded, and damaged.
    with _decoder_errors("the PIL image"):
        image.load()
        return _to_rgb(image, "the PIL image")
    raise AssertionError("unreachable")


def _frame_count(image: Image.Image) -> int:
    # Counting the frames of a damaged animation can fail although its first frame is sound.
    with contextlib.suppress(Exception):
        return image.n_frames  # type: ignore[attr-defined]  only the multi-frame formats have it
    return 1


def _check_size(image: Image.Image, what: str) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UserError(f"cannot read {what}: it has no pixels ({width}x{height})")
    if width * height > MAX_PIXELS:
        raise UserError(f"cannot read {what}: {width}x{height} is over the limit of {MAX_PIXELS // 10**6} megapixels")


def _to_rgb(image: Image.Image, what: str) -> Image.Image:
    """Upright, 8 bits, RGB; transparency is laid on white."""
    _check_size(image, what)
    with contextlib.suppress(Exception):  # a damaged EXIF block must not cost the picture
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_array_to_rgb(np.asarray(image), what=what))
    if image.mode in {"RGBA", "LA", "PA", "RGBa", "La"} or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _tensor_to_rgb(tensor: torch.Tensor) -> np.ndarray:
    shape = list(tensor.shape)
    if tensor.ndim == 3 and shape[0] in {1, 3, 4}:
        array = tensor.detach().permute(1, 2, 0)
    elif tensor.ndim == 2:
        array = tensor.detach()
    else:
        raise UserError(
            f"cannot read an image from a tensor of shape {shape}: expected [3, H, W], [1, H, W], [4, H, W] or [H, W]"
            " (for a batch give a list)"
        )
    if array.dtype == torch.bfloat16:
        array = array.float()
    return _array_to_rgb(array.cpu().numpy(), what=f"the tensor of shape {shape}")


def _array_to_rgb(array: np.ndarray, *, what: str | None = None) -> np.ndarray:
    """[H, W], [H, W, 1], [H, W, 3] or [H, W, 4] of any number type -> uint8 [H, W, 3]."""
    shape = list(array.shape)
    what = what or f"the array of shape {shape}"
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in {1, 3, 4}:
        hint = " (transpose it: channels come last)" if array.ndim == 3 and array.shape[0] in {1, 3, 4} else ""
        raise UserError(f"cannot read an image from {what}: expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]{hint}")
    if array.shape[0] < 1 or array.shape[1] < 1:
        raise UserError(f"cannot read an image from {what}: it has no pixels")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise UserError(f"cannot read an image from {what}: larger than the limit of {MAX_PIXELS // 10**6} megapixels")
    pixels = _to_uint8(array, what)
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        alpha = pixels[:, :, 3:].astype(np.float32) / 255
        on_white = pixels[:, :, :3] * alpha + 255 * (1 - alpha)
        return np.rint(on_white).astype(np.uint8)
    return np.ascontiguousarray(pixels)


def _to_uint8(array: np.ndarray, what: str) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "uif":
        raise UserError(f"cannot read an image from {what}: expected numbers, got {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"cannot read an image from {what}: it holds NaN or infinite values")
    low, high = array.min(), array.max()
    if array.dtype.kind == "f":
        if low < 0 or high > 1:
            raise UserError(
                f"cannot read an image from {what}: floats must lie in [0, 1], got {low:.4g} to {high:.4g}"
                " (scale them, or convert to uint8)"
            )
        return np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    if low < 0 or high > 65535:
        raise UserError(f"cannot read an image from {what}: integers must lie in [0, 65535], got {low} to {high}")
    if array.dtype == np.uint16 or high > 255:
        if high < 4096:
            logger.warning(
                "%s has 16 bits but no value above %d: it will look dark unless its values are stretched", what, high
            )
        return np.rint(array.astype(np.float32) * (255 / 65535)).astype(np.uint8)
    return array.astype(np.uint8)


def _reason(error: object) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def _shorten(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"
