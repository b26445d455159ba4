"""What language models do to the logits that their head gives, beyond multiplying with its matrix."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers.configuration_utils import PreTrainedConfig


@dataclass(frozen=True)
class LogitScaling:
    """Logits of any shape → logits of the same shape.

    Attributes:
        scale: They are multiplied by it.
        cap: Then they are bent to stay between minus and plus this; None = they are left as they are.
    """

    scale: float = 1.0
    cap: float | None = None

    @classmethod
    def of(cls, text_config: PreTrainedConfig) -> "LogitScaling":
        """That of a language model: Cohere's multiplies, Granite's divides, Gemma's has a cap."""
        fields = text_config.to_dict()
        scale = (fields.get("logit_scale") or 1.0) / (fields.get("logits_scaling") or 1.0)
        return cls(scale, fields.get("final_logit_softcapping"))

    def __call__(self, logits: Tensor) -> Tensor:
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


__all__ = ["LogitScaling"]
