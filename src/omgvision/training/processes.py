"""Which processes train together."""

from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: the first one evaluates and saves alone."""


def on_cpu() -> bool:
    """Whether training runs on the CPU: there is nothing else, or `ACCELERATE_USE_CPU` says so."""
    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def joined() -> PartialState:
    """The processes that were started together.

    accelerate lets those on CPUs find each other only when it is told in its first call that they are on CPUs;
    otherwise each of them trains for itself.
    """
    return PartialState(cpu=on_cpu(), timeout=PATIENCE)
