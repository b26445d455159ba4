"""The stages of OMG-LLaVA's training: their numbers, and what learns in each.

Zhang et al., 2024, "OMG-LLaVA"; the numbers are those of the published configurations. What joins these stages with
their data sets is not here yet: `data.conversation_batches` and the readers are what it takes.
"""

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.training.recipe import OptimizerSettings, Recipe, Stage

WARMUP_SHARE = 0.03
"""Of the run, in which the learning rate rises."""


@dataclass(frozen=True)
class LlavaRecipe(Recipe):
    """A stage of OMG-LLaVA.

    Attributes:
        start: Folder of the model to go on from.
        max_length: Most tokens of a conversation; a picture counts as one.
        rank, alpha, dropout: Of the adapters on every matrix of the language model and its head; rank 0 = no adapters,
            and the language model stays as it is.
        own_mask_decoder: [SEG] is decoded by a trained copy of the mask decoder.
        projection_weight: Of the loss that makes both projections inverse to each other.
    """

    start: Path = Path("omg-llava")
    max_length: int = 1692
    rank: int = 512
    alpha: int = 256
    dropout: float = 0.05
    own_mask_decoder: bool = False
    projection_weight: float = 0.0

    def with_steps(self, samples_per_epoch: int, *, processes: int) -> "LlavaRecipe":
        """As of `Recipe`; where the steps follow from epochs, those of the warm-up follow from them."""
        counted = super().with_steps(samples_per_epoch, processes=processes)
        assert isinstance(counted, LlavaRecipe)
        if self.epochs is None:
            return counted
        warmup = math.ceil(WARMUP_SHARE * counted.steps)
        return replace(counted, optimizer=replace(counted.optimizer, warmup_steps=warmup))


def pretrain() -> LlavaRecipe:
    """The first stage: both projections, on captions; the segmenter and the language model stay as they are."""
    return LlavaRecipe(
        name="omg-llava-pretrain",
        data=Path("data"),
        out=Path("runs/llava_pretrain"),
        steps=0,
        epochs=1.0,
        stages=(Stage(size=(1024, 1024), batch_size=16, share=1.0),),
        accumulation=2,
        optimizer=OptimizerSettings(learning_rate=1e-3, weight_decay=0.0, clip_norm=1.0, final_factor=0.0),
        ema_decay=0.0,
        precision="bf16",
        gradient_checkpointing=True,
        max_length=1792,
        rank=0,
        projection_weight=10.0,
    )


def finetune() -> LlavaRecipe:
    """The second stage: also adapters, embeddings and the head of the language model, on all kinds of conversations."""
    base = pretrain()
    return replace(
        base,
        name="omg-llava",
        out=Path("runs/llava"),
        stages=(Stage(size=(1024, 1024), batch_size=8, share=1.0),),
        optimizer=replace(base.optimizer, learning_rate=2e-4),
        checkpoint_every=2000,
        max_length=1692,
        rank=512,
        projection_weight=0.0,
    )


def refseg() -> LlavaRecipe:
    """Referring segmentation alone, from the second stage, with a mask decoder of its own."""
    return replace(finetune(), name="omg-llava-refseg", out=Path("runs/llava_refseg"), own_mask_decoder=True)


def gcg() -> LlavaRecipe:
    """Grounded captions alone, from the second stage, with a mask decoder of its own."""
    return replace(finetune(), name="omg-llava-gcg", out=Path("runs/llava_gcg"), own_mask_decoder=True)


def choose_trained(model: OmgLlavaForConditionalGeneration, recipe: LlavaRecipe) -> None:
    """Makes learn what learns in this stage, and nothing else; puts the adapters in, where there are some.

    Raises:
        ValueError: The model has a mask decoder of its own and the recipe none, or the other way round; adapters are
            asked for and peft is not installed.
    """
    inner = model.model
    own = inner.mask_decoder is not None
    if own != recipe.own_mask_decoder:
        has = {True: "a mask decoder of its own", False: "none of its own"}
        raise ValueError(
            f"own_mask_decoder: expected a model with {has[recipe.own_mask_decoder]}, got one with {has[own]}"
        )
    model.config.projection_loss_weight = recipe.projection_weight
    model.requires_grad_(False)
    if recipe.rank:
        try:
            from peft import LoraConfig
        except ImportError as error:
            raise ValueError(
                "rank: expected the package peft for adapters, which is not installed; pip install 'omgvision[train]'"
            ) from error
        targets = [
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and name.startswith(("model.language_model.", "lm_head"))
        ]
        model.add_adapter(
            LoraConfig(
                r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout, target_modules=targets, bias="none"
            )
        )
        # Beside its adapter the head itself learns too, as the embeddings do: they have rows for new tokens.
        model.get_input_embeddings().requires_grad_(True)
        model.lm_head.requires_grad_(True)
    inner.projector.requires_grad_(True)
    inner.text_to_vision.requires_grad_(True)
    if inner.mask_decoder is not None:
        inner.mask_decoder.requires_grad_(True)
        inner.mask_decoder.level_embed.requires_grad_(False)  # it tells the frozen memories apart


def without_adapters(model: OmgLlavaForConditionalGeneration) -> OmgLlavaForConditionalGeneration:
    """A new model with the adapters added to their matrices and all else that was trained: what is to be saved.

    (`save_pretrained` of a model with adapters writes the adapters alone, without projections, embeddings and head.)
    """
    from peft.tuners.lora import Linear

    merged = copy.deepcopy(model)
    for name, module in list(merged.named_modules()):
        if isinstance(module, Linear):
            module.merge()
            merged.set_submodule(name, module.get_base_layer())
    plain = OmgLlavaForConditionalGeneration(copy.deepcopy(model.config))
    plain.load_state_dict(merged.state_dict())
    plain.generation_config = model.generation_config
    return plain.eval()
