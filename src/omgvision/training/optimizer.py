"""AdamW's parameter groups, the course of the learning rate, and the averaged weights."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from omgvision.training.recipe import OptimizerSettings

DECAYED_MODULES = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
UNDECAYED_NAMES = ("query_features", "query_positions", "level_embed")
"""The original's query_feat, query_embed and level_embed."""


def parameter_groups(model: nn.Module, settings: OptimizerSettings) -> list[dict]:
    """Trainable parameters by learning rate and weight decay.

    Modules called `backbone` and `text_model` have their own multiple of the learning rate; `settings.decayed` says
    what decays.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            parts = module_name.split(".")
            factor = 1.0
            if "backbone" in parts:
                factor = settings.backbone_factor
            elif "text_model" in parts:
                factor = settings.text_factor
            if settings.decayed == "original":
                decays = not isinstance(module, NORMS) and name not in UNDECAYED_NAMES
            else:
                decays = isinstance(module, DECAYED_MODULES) and parameter.ndim > 1 and not name.endswith("bias")
            groups.setdefault((factor, settings.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {
            "params": params,
            "lr": settings.learning_rate * factor,
            "peak": settings.learning_rate * factor,
            "weight_decay": decay,
        }
        for (factor, decay), params in groups.items()
    ]


def build_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over `parameter_groups`; each group's peak rate is kept under `peak`."""
    return torch.optim.AdamW(parameter_groups(model, settings), betas=settings.betas, fused=True)


def learning_rate_factor(settings: OptimizerSettings, *, step: int, share: float) -> float:
    """Multiple of the peak rate at optimizer step `step` (from 0), `share` of the run being done (0 to 1)."""
    warm = 1.0
    if step < settings.warmup_steps:
        warm = 0.001 + 0.999 * step / settings.warmup_steps
    if settings.schedule == "steps":
        return warm * 0.1 ** sum(share >= milestone for milestone in settings.milestones)
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return warm * (settings.final_factor + (1 - settings.final_factor) * cosine)


def set_learning_rate(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets every group to `factor` times its peak rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


class AveragedWeights:
    """Exponential moving average of trainable parameters, in float32.

    The decay at update n is min(decay, (1 + n) / (10 + n)), so that a short run is not dominated by its first weights.

    Args:
        tensors: What this process holds of the parameters (`Sharding.local`).
        decay: Of a long run; 0 keeps the parameters themselves.
    """

    def __init__(self, tensors: Sequence[Tensor], decay: float):
        self.decay = decay
        self.updates = 0
        self.values = [tensor.float().clone() for tensor in tensors]

    @torch.no_grad()
    def update(self, tensors: Sequence[Tensor]) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for value, tensor in zip(self.values, tensors, strict=True):
            value.lerp_(tensor.float(), 1 - decay)

    @contextmanager
    def applied(self, tensors: Sequence[Tensor]) -> Iterator[None]:
        """Within the context the parameters carry their averages."""
        self._swap(tensors)
        try:
            yield
        finally:
            self._swap(tensors)

    @torch.no_grad()
    def _swap(self, tensors: Sequence[Tensor]) -> None:
        for value, tensor in zip(self.values, tensors, strict=True):
            kept = tensor.clone()
            tensor.copy_(value)
            value.copy_(kept)
