"""What learns in OMG-LLaVA, and what was learned as weights that load without adapters."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration

if TYPE_CHECKING:
    from peft.tuners.lora import Linear

Embeddings = Literal["all", "new", "none"]


def add_adapters(model: OmgLlavaForConditionalGeneration, *, rank: int, alpha: int, dropout: float) -> None:
    """Puts adapters on every matrix of the language model, and on its head, unless that is the embedding too.

    Raises:
        ValueError: peft is not installed.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ValueError(
            "rank: expected the package peft for adapters, which is not installed; pip install 'omgvision[train]'"
        ) from error
    adapted = (
        ("model.language_model.", "lm_head") if not model.config.tie_word_embeddings else ("model.language_model.",)
    )
    targets = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(adapted)
    ]
    model.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, bias="none"))


def train_rows(model: OmgLlavaForConditionalGeneration, rows: list[int]) -> None:
    """Lets these rows of the embedding learn, and of the head, and no other; AdamW without decay leaves the rest."""
    matrices = {id(matrix): matrix for matrix in (model.get_input_embeddings().weight, model.lm_head.weight)}
    for matrix in matrices.values():
        assert isinstance(matrix, nn.Parameter)
        chosen = torch.zeros(len(matrix), 1)
        chosen[rows] = 1
        matrix.requires_grad_(True)
        matrix.register_hook(lambda gradient, chosen=chosen: gradient * chosen.to(gradient))


def learn_in_float32(model: nn.Module) -> None:
    """What learns is held in float32, whatever the rest is: the steps of bfloat16 are too large for small changes."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, "Linear"]]:
    """Names and modules of the matrices that have adapters."""
    from peft.tuners.lora import Linear

    for name, module in model.named_modules():
        if isinstance(module, Linear):
            yield name, module


def merged_state(model: OmgLlavaForConditionalGeneration) -> dict[str, Tensor]:
    """The model's weights with the adapters added to their matrices, under the names of a model without adapters."""
    adapted = dict(adapted_layers(model))
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        place, is_adapted, _ = name.partition(".base_layer.")
        plain = name.replace(".base_layer.", ".")
        if is_adapted and name.endswith(".weight"):
            module = adapted[place]
            delta = sum((module.get_delta_weight(adapter).float() for adapter in module.active_adapters), 0.0)
            tensor = (tensor.float() + delta).to(tensor.dtype)
        state[plain] = tensor.detach()
    return state


def without_adapters(model: OmgLlavaForConditionalGeneration) -> OmgLlavaForConditionalGeneration:
    """A new model with the adapters added to their matrices and all else that was trained: what is to be saved.

    (`save_pretrained` of a model with adapters writes the adapters alone, without projections, embeddings and head.)
    """
    plain = OmgLlavaForConditionalGeneration(copy.deepcopy(model.config))
    plain.load_state_dict(merged_state(model), assign=True)
    plain.tie_weights()
    plain.generation_config = model.generation_config
    return plain.eval()
