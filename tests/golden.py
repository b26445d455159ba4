"""The recorded truth of the original OMG-Seg, as tests read it.

The files in `fixtures/omg_seg` were produced by running the original classes on small random models. Tests name a file
without its suffix: `load("tiny_io_a_image")["decoder.mask.4"]`.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy
from safetensors.torch import load_file
from torch import Tensor

FIXTURES = Path(__file__).parent / "fixtures" / "omg_seg"
METRICS = FIXTURES.parent / "metrics", Path(__file__).parents[2] / "shared" / "golden" / "metrics"
"""Inputs of the official evaluation tools and the numbers that they print: in the repository, but for DAVIS' masks
(their licence is non-commercial), or beside it, all of them."""


def metrics(name: str) -> Path:
    """The folder of recorded metrics called `name`; the test is skipped where it is not at hand."""
    for folder in METRICS:
        if (folder / name).is_dir():
            return folder / name
    pytest.skip(f"no recorded metrics {name} in {METRICS[0]} or {METRICS[1]}")


def path(name: str) -> Path:
    """The file called `name`, suffix included."""
    return FIXTURES / name


def load(name: str) -> dict[str, Tensor]:
    """The tensors of `name`.safetensors under their recorded names (booleans are uint8, floats are float32)."""
    return load_file(path(f"{name}.safetensors"))


def arrays(name: str) -> dict[str, np.ndarray]:
    """`load` as numpy arrays."""
    return safetensors_numpy.load_file(path(f"{name}.safetensors"))


@cache
def _text(name: str) -> str:
    return path(f"{name}.json").read_text(encoding="utf-8")


def read_json(name: str) -> Any:
    """The content of `name`.json, a fresh copy at each call."""
    return json.loads(_text(name))
