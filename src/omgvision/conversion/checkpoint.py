"""Reads checkpoint files without running anything that they may carry.

A pickle is a program. PyTorch's restricted unpickler (``weights_only=True``) runs only the steps that make tensors and
refuses every other name; it alone reads pickles here. Training checkpoints of mmengine name a few more classes (loss
histories and the NumPy arrays inside): for exactly those an empty stand-in is put in their place, so that the weights
beside them can be read. The named code itself is neither imported nor called.
"""

import json
import logging
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import UserError
from .reading import unwrap

logger = logging.getLogger(__name__)

BARE_TENSOR = "tensor"
"""Name of a tensor that is all that a file holds, such as the original's class embeddings."""

_ZIP, _PICKLE = b"PK", b"\x80"
_INERT_PREFIXES = ("mmengine.", "numpy.dtypes.")
_INERT_NAMES = {"numpy.ndarray", "numpy.dtype"} | {
    f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")
}


class _Inert:
    """Stands where a checkpoint names a class that carries no weights; takes whatever it is given and keeps nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> "_Inert":
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def load_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Weights of a ``.safetensors`` file or a PyTorch checkpoint (``.pth``, ``.pt``, ``.bin``), on the CPU.

    A state dict under "state_dict" is unwrapped. Weights are mapped from the file where its format allows it, so memory
    is taken as they are used and the file must stay until then. The content decides about the format, not the name.

    Raises:
        UserError: no such file, not a checkpoint, a truncated one, one without tensors, or a pickle that names anything
            but tensors (it could run code).
    """
    tensors, left_out = read_checkpoint(path)
    if left_out:
        logger.info("%s: left out, as they are no weights: %s", path, ", ".join(left_out))
    return tensors


def read_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As :func:`load_checkpoint`; second, the names of all else in the file with the reason why it is left out.

    A file of one tensor alone is a dict with that under :data:`BARE_TENSOR`.
    """
    path = Path(path)
    content = _read(path)
    if isinstance(content, Tensor):
        return {BARE_TENSOR: content}, {}
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: expected a checkpoint that holds a dict of tensors, got a {type(content).__name__}")
    tensors = unwrap(content)
    if not tensors:
        raise UserError(f"{path}: expected a checkpoint that holds tensors, got {len(content)} entries without any")
    entries = dict(content)
    inner = entries.pop("state_dict", None)
    if isinstance(inner, Mapping):
        entries |= {f"state_dict.{key}": value for key, value in inner.items()}
        left_out = [key for key, value in entries.items() if not key.startswith("state_dict.") or not _is_tensor(value)]
    else:
        left_out = [str(key) for key, value in entries.items() if not _is_tensor(value)]
    return tensors, dict.fromkeys(left_out, "not a weight of the model")


def read_shapes(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """As :func:`read_checkpoint`, without the numbers: tensors are on the meta device.

    Takes a list of keys as well, where the file itself is not at hand: a ``.json`` with an object of names and shapes,
    or with one shape for a file of one tensor.
    """
    if Path(path).suffix == ".json":
        return _read_key_list(Path(path)), {}
    tensors, left_out = read_checkpoint(path)
    return {key: tensor.to("meta") for key, tensor in tensors.items()}, left_out


def _read_key_list(path: Path) -> dict[str, Tensor]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: expected a list of keys, got: {error.strerror}") from error
    except ValueError:
        content = None
    shapes = {BARE_TENSOR: content} if isinstance(content, list) else content
    if not isinstance(shapes, dict) or not shapes or not all(map(_is_shape, shapes.values())):
        raise UserError(f'{path}: expected names and shapes as JSON, {{"name": [3, 4], …}}, got something else')
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def _is_shape(value: object) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise UserError(f"{path}: expected a checkpoint file, got: {error.strerror}") from error
    if not head:
        raise UserError(f"{path}: expected a checkpoint file, got an empty one; download it again")
    if head.startswith(_ZIP):
        return _read_torch(path, mmap=True, stand_ins=_stand_ins(path))
    if head.startswith(_PICKLE):
        return _read_torch(path, mmap=False, stand_ins=[])
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        if path.suffix == ".safetensors":
            raise UserError(f"{path}: the file is damaged or truncated ({error}); download it again") from error
        raise UserError(
            f"{path}: expected a PyTorch checkpoint (.pth, .pt, .bin) or .safetensors, got another kind of file"
        ) from error


def _stand_ins(path: Path) -> list[tuple[type, str]]:
    """Stand-ins for the harmless names in the pickle of ``path``, found without running it.

    Raises:
        UserError: another name is in it, or it cannot be read.
    """
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
    except pickle.UnpicklingError as error:
        raise _refusal(path, "holds Python objects") from error
    except Exception as error:  # a damaged archive can fail in any way
        raise _damaged(path, error) from error
    refused = sorted(name for name in names if name not in _INERT_NAMES and not name.startswith(_INERT_PREFIXES))
    if refused:
        raise _refusal(path, f"asks for {', '.join(refused[:3])}")
    return [(_Inert, name) for name in names]


def _read_torch(path: Path, *, mmap: bool, stand_ins: list[tuple[type, str]]) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):  # pyright: ignore[reportArgumentType]
            warnings.simplefilter("ignore")  # about pickle protocols, where the error below says all
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise _refusal(path, "holds Python objects") from error
    except Exception as error:  # as above
        raise _damaged(path, error) from error


def _refusal(path: Path, what: str) -> UserError:
    return UserError(
        f"{path}: refused, because its pickle {what} and could run code; expected tensors only, "
        "such as a .safetensors file or torch.save of a state dict"
    )


def _damaged(path: Path, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"{path}: not a checkpoint, or a damaged or truncated one ({reason}); download it again")
