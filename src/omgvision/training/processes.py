"""The processes that torchrun or `accelerate launch` started together."""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PATIENCE = timedelta(hours=2)
"""How long processes that train wait for each other: the first one evaluates and saves alone."""

LONGEST_WAIT = timedelta(days=7)
"""The same for processes that only share out work: the last one may have much left."""


def on_cpu() -> bool:
    """Whether training runs on the CPU: there is nothing else, or `ACCELERATE_USE_CPU` says so."""
    return not torch.accelerator.is_available() or parse_flag_from_env("ACCELERATE_USE_CPU")


def joined() -> PartialState:
    """The processes that train one model.

    accelerate lets those on CPUs find each other only when it is told in its first call that they are on CPUs;
    otherwise each of them trains for itself.
    """
    return PartialState(cpu=on_cpu(), timeout=PATIENCE)


@dataclass(frozen=True)
class Processes:
    """This process among all that share out work.

    Attributes:
        rank, count: Its number, from 0, and how many there are.
        local_rank: Its number on this machine: which accelerator is its own.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    def wait(self) -> None:
        """Until all have come here. On the processors' side: accelerators would give up after minutes."""
        if self.count > 1:
            _state().wait_for_everyone()


def launched_processes() -> Processes:
    """What the launcher's environment says; one process without."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Processes()
    state = _state()
    return Processes(state.process_index, state.num_processes, state.local_process_index)


def _state() -> PartialState:
    return PartialState(cpu=True, timeout=LONGEST_WAIT)
