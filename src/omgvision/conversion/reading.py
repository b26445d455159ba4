"""Helpers that read sizes off the shapes of a foreign state dict."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig

from ..errors import UserError


def unwrap(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a state dict that may lie under "state_dict" (mmengine, OpenCLIP's training) or carry the
    "module." of a data-parallel wrapper on every key."""
    state = checkpoint.get("state_dict", checkpoint)
    if not isinstance(state, Mapping):
        raise UserError(f'state_dict: expected names and tensors under "state_dict", got {type(state).__name__}')
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def shape(state: Mapping[str, Tensor], key: str, *, kind: str, ndim: int) -> tuple[int, ...]:
    """Shape of ``key``.

    Raises:
        UserError: ``key`` is not there or has another number of dimensions, so this is not a checkpoint of ``kind``.
    """
    if key not in state:
        some = ", ".join(list(state)[:3]) or "none"
        raise UserError(f"not {kind}: expected the key {key}, got {len(state)} keys ({some} …)")
    found = tuple(state[key].shape)
    if len(found) != ndim:
        raise UserError(f"not {kind}: expected {ndim} dimensions of {key}, got the shape {list(found)}")
    return found


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of modules in the list whose keys start with ``prefix`` (which ends in a dot)."""
    pattern = re.compile(re.escape(prefix) + r"(\d+)\.")
    return 1 + max((int(match[1]) for key in state if (match := pattern.match(key))), default=-1)


def checked_fields(
    overrides: Mapping[str, Any], config_class: type[PreTrainedConfig], found: Mapping[str, Any]
) -> dict[str, Any]:
    """``overrides`` as keyword arguments of ``config_class``; a whole config.json is as good as a few fields.

    Raises:
        UserError: a name that is no field of ``config_class``, or a value that contradicts the shapes (``found``).
    """
    fields = dict(overrides)
    model_type = fields.pop("model_type", config_class.model_type)
    if model_type != config_class.model_type:
        raise UserError(f"config: expected the model_type {config_class.model_type}, got {model_type}")
    known = {each.name for each in dataclasses.fields(config_class)} | config_class().to_dict().keys()
    for name, value in fields.items():
        if name not in known:
            raise UserError(f"config: {config_class.__name__} has no field {name}; take one of its field names")
        if name in found and found[name] != (list(value) if isinstance(value, tuple) else value):
            raise UserError(
                f"config: {name} is {found[name]} by the shapes of the checkpoint, got {value}; leave it out"
            )
    return fields
