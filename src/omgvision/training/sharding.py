"""What a process holds of a run's tensors, and how the whole comes together: the one file that knows how runs spread.

Alone and under DDP every process holds every tensor whole. FSDP2 leaves each of them a slice of every parameter, as
DTensors. DeepSpeed's ZeRO slices the optimizer's state (stage 2) and the parameters as well (stage 3).

A launch file decides which (`training/accelerate/`). The arithmetic stays the same under all of them: parameters and
sums over processes are float32, and the forward pass runs under autocast.
"""

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.modeling_layers import GradientCheckpointingLayer

State = dict[str, Tensor]

AUTOCAST = {"bf16": "bfloat16", "fp16": "float16"}


def mixed_precision(precision: str) -> str:
    """What accelerate is told: nothing under DeepSpeed, where it would turn the parameters themselves."""
    deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    return "no" if deepspeed or precision == "fp32" else precision


class Sharding:
    """How the parameters of an objective and the state of its optimizer lie in the processes of a run.

    `prepare` must come before anything else. What gathers or scatters (`full`, `assign`, …) is called by all processes
    together.

    Args:
        accelerator: As the launch file made it.
        objective: Whole. FSDP2 and ZeRO change it in place, so that its parameters are always what this process holds.
    """

    def __init__(self, accelerator: Accelerator, objective: nn.Module):
        self.accelerator, self.objective = accelerator, objective
        self.deepspeed = accelerator.distributed_type == DistributedType.DEEPSPEED
        stage = self._deepspeed_settings()["zero_optimization"]["stage"] if self.deepspeed else 0
        self.slices_parameters = accelerator.is_fsdp2 or stage == 3
        # A sliced model cannot be called piece by piece or saved: evaluation and export get a whole one beside it.
        self.replica: nn.Module | None = None

    def _deepspeed_settings(self) -> dict[str, Any]:
        plugin = self.accelerator.state.deepspeed_plugin
        assert plugin is not None
        return plugin.deepspeed_config

    def prepare(
        self, optimizer: torch.optim.Optimizer, *, precision: str, clip_norm: float
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The model to call in the loop, and its optimizer."""
        accelerator, model = self.accelerator, self.objective
        if self.slices_parameters and accelerator.is_main_process:
            self.replica = copy.deepcopy(self.objective).cpu().eval()
        if accelerator.is_fsdp2:
            layers = {type(layer) for layer in model.modules() if isinstance(layer, GradientCheckpointingLayer)}
            plugin = accelerator.state.fsdp_plugin
            assert plugin is not None
            plugin.transformer_cls_names_to_wrap = sorted(layer.__name__ for layer in layers)
            plugin.mixed_precision_policy = None
            model = EveryParameter(self.objective)
        if self.deepspeed:
            settings = self._deepspeed_settings()
            settings["gradient_clipping"] = clip_norm
            # DeepSpeed counts samples by it; the batches come ready from the loop.
            settings["train_micro_batch_size_per_gpu"] = 1
            # Small parameters would stay whole, and their averages could not be put in their place.
            settings["zero_optimization"]["stage3_param_persistence_threshold"] = 0
            if precision in AUTOCAST:
                settings["torch_autocast"] = {"enabled": True, "dtype": AUTOCAST[precision]}
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        return self.model, self.optimizer

    def local(self) -> list[Tensor]:
        """What this process holds of each trainable parameter, in the order of `named_parameters`; no copies."""
        return [self._local(parameter) for parameter in self.objective.parameters() if parameter.requires_grad]

    def _local(self, parameter: Tensor) -> Tensor:
        if isinstance(parameter, DTensor):
            return parameter.to_local().detach()
        if self.deepspeed and self.slices_parameters:
            return parameter.ds_tensor  # type: ignore[attr-defined]
        return parameter.detach()

    def _whole(self, parameters: list[nn.Parameter], *, changed: bool = False) -> AbstractContextManager[None]:
        """ZeRO-3's parameters are whole within this context; changes that the main process makes are kept."""
        if not (self.deepspeed and self.slices_parameters):
            return nullcontext()
        import deepspeed  # type: ignore[import-not-found]

        return deepspeed.zero.GatheredParameters(parameters, modifier_rank=0 if changed else None)

    def full(self) -> State:
        """All parameters and buffers, whole, on the CPU of the main process; empty in the others."""
        state: State = {}
        parameters = dict(self.objective.named_parameters(remove_duplicate=False))
        for name, tensor in self.objective.state_dict(keep_vars=True).items():
            with self._whole([parameters[name]] if name in parameters else []):
                whole = gathered(tensor)
                if self.accelerator.is_main_process:
                    state[name] = whole.detach().to("cpu", copy=True)
        return state

    @torch.no_grad()
    def assign(self, state: Mapping[str, Tensor]) -> None:
        """Writes whole tensors, given in every process, into parameters and buffers."""
        parameters = dict(self.objective.named_parameters(remove_duplicate=False))
        for name, tensor in self.objective.state_dict(keep_vars=True).items():
            if name not in state:
                continue
            with self._whole([parameters[name]] if name in parameters else [], changed=True):
                part = slice_like(state[name], tensor)
                if isinstance(tensor, DTensor) and isinstance(part, DTensor):
                    tensor.to_local().copy_(part.to_local())
                else:
                    tensor.copy_(part)

    def optimizer_state(self) -> dict[str, Any]:
        """The optimizer's state, whole, on the CPU; None of it under DeepSpeed, which writes its own files."""
        if self.deepspeed:
            return {}
        state = self.optimizer.state_dict()
        return {**state, "state": {index: self._full_entries(entry) for index, entry in state["state"].items()}}

    def _full_entries(self, entry: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: (value.full_tensor() if isinstance(value, DTensor) else value).cpu() for name, value in entry.items()
        }

    def load_optimizer_state(self, state: dict[str, Any]) -> None:
        """Takes what `optimizer_state` gave, in every process."""
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        sliced = {
            index: {name: slice_like(value, parameters[index]) for name, value in entry.items()}
            for index, entry in state["state"].items()
        }
        self.optimizer.load_state_dict({**state, "state": sliced})

    def save_slices(self, folder: Path) -> None:
        """Writes what only DeepSpeed can."""
        if self.deepspeed:
            self.model.save_checkpoint(str(folder), tag="deepspeed")  # type: ignore[operator]

    def load_slices(self, folder: Path) -> None:
        """Reads it again."""
        if self.deepspeed:
            self.model.load_checkpoint(str(folder), tag="deepspeed")  # type: ignore[operator]

    @contextmanager
    def whole_objective(self) -> Iterator[nn.Module | None]:
        """The objective as it stands, in evaluation mode, to call as one likes; None in processes other than the main.

        Whoever enters must do so in all processes.
        """
        if self.slices_parameters:
            state = self.full()
            if self.replica is not None:
                self.replica.load_state_dict(state)
                self.replica.to(self.accelerator.device)
            yield self.replica
            if self.replica is not None:
                self.replica.cpu()
        elif self.accelerator.is_main_process:
            self.objective.eval()
            yield self.objective
            self.objective.train()
        else:
            yield None


class EveryParameter(nn.Module):
    """Lets every loss reach every parameter that FSDP2 keeps together with the whole model.

    FSDP2 sums the gradients of such parameters in one piece and takes those that have one; a process whose batch has
    no prompt, say, would bring a smaller piece than the others.
    """

    def __init__(self, objective: nn.Module):
        super().__init__()
        self.objective = objective

    def forward(self, *arguments: Any) -> dict[str, Tensor]:
        losses = self.objective(*arguments)
        unused = [p.flatten()[:1].sum() for p in self.parameters() if p.requires_grad and not isinstance(p, DTensor)]
        return losses | {"loss": losses["loss"] + 0 * torch.stack(unused).sum()} if unused else losses


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor, of which a process may hold a slice; called by all processes."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def slice_like(whole: Tensor, parameter: Tensor) -> Tensor:
    """This process's slice of a tensor of the parameter's shape; scalars and whole parameters stay as they are."""
    if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:
        return whole
    on_device = whole.to(parameter.device)
    return distribute_tensor(on_device, parameter.device_mesh, parameter.placements, src_data_rank=None)
