"""The stages of OMG-LLaVA's training: their numbers, what learns in each, and on what.

Zhang et al., 2024, "OMG-LLaVA"; the numbers are those of the published configurations, the data sets are in
`training/recipes/llava_mix.py`. None of these runs has been made here: their data and GPUs were not at hand. Their
steps are tested on small folders in the real layouts.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from omgvision.conversion.folder import save_model
from omgvision.data.conversation_batches import ConversationBatch, ConversationMixture, collate_conversations
from omgvision.data.conversations import Conversation
from omgvision.errors import UserError
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from omgvision.training.conversation_probe import ConversationProbe
from omgvision.training.export import WEIGHTS, written_whole
from omgvision.training.llava_adapters import Embeddings, add_adapters, learn_in_float32, merged_state, train_rows
from omgvision.training.llava_objective import ConversationObjective
from omgvision.training.llava_start import (
    give_own_decoder,
    joined_parts,
    joined_processor,
    started_from_folder,
)
from omgvision.training.recipe import OptimizerSettings, Recipe, Stage
from omgvision.training.recipes import llava_mix
from omgvision.training.recipes.llava_mix import Ingredient, Mix

WARMUP_SHARE = 0.03
"""Of the run, in which the learning rate rises."""

NEW_TOKENS = ("[SEG]", "<p>", "</p>")
"""Those that answers hold; the others are replaced by what they stand for."""


@dataclass(frozen=True)
class LlavaRecipe(Recipe):
    """A stage of OMG-LLaVA. `data` is the folder of all data sets, in the layout of `llava_mix`.

    The size of the stages is of no effect: pictures are as large as the model's network input.

    Attributes:
        start: Folder of the model to go on from; None joins `segmenter` and `llm`.
        segmenter: As `omg.load` takes it; None is the bundled one.
        llm: Folder or Hub id of any causal language model of Hugging Face, or of InternLM2.
        image_size: Side of the network input of a model that is joined.
        datasets: Of the mix, those to take; none named: all.
        max_length: Most tokens of a conversation; a picture counts as one.
        rank, alpha, dropout: Of the adapters on every matrix of the language model and its head; rank 0 = no adapters,
            and the language model stays as it is.
        embeddings: Rows of the embedding and of the head that learn beside adapters: `all`, those of the `new` tokens
            of answers, or `none`.
        frozen: Precision in which the language model is held. What learns is float32 in any case.
        own_mask_decoder: [SEG] is decoded by a trained copy of the mask decoder.
        projection_weight: Of the loss that makes both projections inverse to each other.
        validate: Conversations that are held back and measured every `evaluate_every` steps; none where that is 0.
    """

    start: Path | None = None
    segmenter: str | None = None
    llm: str | None = None
    image_size: int = 1024
    datasets: tuple[str, ...] = ()
    max_length: int = 1692
    rank: int = 512
    alpha: int = 256
    dropout: float = 0.05
    embeddings: Embeddings = "all"
    frozen: Literal["fp32", "bf16"] = "fp32"
    own_mask_decoder: bool = False
    projection_weight: float = 0.0
    validate: int = 64

    def with_steps(self, samples_per_epoch: int, *, processes: int) -> "LlavaRecipe":
        """As of `Recipe`; where the steps follow from epochs, those of the warm-up follow from them."""
        counted = super().with_steps(samples_per_epoch, processes=processes)
        assert isinstance(counted, LlavaRecipe)
        if self.epochs is None:
            return counted
        warmup = math.ceil(WARMUP_SHARE * counted.steps)
        return replace(counted, optimizer=replace(counted.optimizer, warmup_steps=warmup))


def pretrain() -> LlavaRecipe:
    """OMG-LLaVA's first stage: both projections, on captions.

    `omg train llava_pretrain segmenter=SEGMENTER llm=LANGUAGE_MODEL data=DATA out=RUN`; the segmenter and the language
    model stay as they are.
    """
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
    """OMG-LLaVA's second stage: also adapters, embeddings and head of the language model, on all conversations.

    `omg train llava_finetune start=runs/llava_pretrain/weights data=DATA out=RUN`.
    """
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
    """OMG-LLaVA for referring segmentation alone, with a mask decoder of its own: start= the second stage's weights."""
    return replace(finetune(), name="omg-llava-refseg", out=Path("runs/llava_refseg"), own_mask_decoder=True)


def gcg() -> LlavaRecipe:
    """OMG-LLaVA for grounded captions alone, with a mask decoder of its own: start= the second stage's weights."""
    return replace(finetune(), name="omg-llava-gcg", out=Path("runs/llava_gcg"), own_mask_decoder=True)


# --- model ---


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
        add_adapters(model, rank=recipe.rank, alpha=recipe.alpha, dropout=recipe.dropout)
        if recipe.embeddings == "all":
            # Beside its adapter the head itself learns too, as the embeddings do: they have rows for new tokens.
            model.get_input_embeddings().requires_grad_(True)
            model.lm_head.requires_grad_(True)
    inner.projector.requires_grad_(True)
    inner.text_to_vision.requires_grad_(True)
    if inner.places is not None:
        inner.places.requires_grad_(True)
    if inner.mask_decoder is not None:
        inner.mask_decoder.requires_grad_(True)
        inner.mask_decoder.level_embed.requires_grad_(False)  # it tells the frozen memories apart


def started(recipe: LlavaRecipe) -> OmgLlavaForConditionalGeneration:
    """The model that a recipe goes on from.

    Raises:
        UserError: It names neither a model nor the parts of one, or there are none.
    """
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[recipe.frozen]
    if recipe.start is not None:
        return started_from_folder(recipe.start, dtype=dtype)
    return joined_parts(recipe.segmenter, language_model_of(recipe), image_size=recipe.image_size, dtype=dtype)


def language_model_of(recipe: LlavaRecipe) -> str:
    if recipe.llm is None:
        raise UserError(
            "start: expected the folder of an OMG-LLaVA model (start=FOLDER), or a language model to join with a "
            "segmenter (llm=FOLDER segmenter=FOLDER), got neither"
        )
    return recipe.llm


def processor_of(recipe: LlavaRecipe) -> OmgLlavaProcessor:
    """That of the model of `started`, for training: what is shorter is filled up behind its end."""
    if recipe.start is not None:
        try:
            processor = OmgLlavaProcessor.from_pretrained(recipe.start)
        except (OSError, ValueError) as error:
            raise UserError(f"{recipe.start}: expected the processor of OMG-LLaVA, got: {error}") from error
    else:
        processor = joined_processor(recipe.segmenter, language_model_of(recipe), image_size=recipe.image_size)
    processor.tokenizer.padding_side = "right"
    return processor


def objective(recipe: LlavaRecipe) -> ConversationObjective:
    """The model with what learns in this stage."""
    model = started(recipe)
    if recipe.own_mask_decoder:
        give_own_decoder(model)
    choose_trained(model, recipe)
    if recipe.rank and recipe.embeddings == "new":
        vocabulary = processor_of(recipe).tokenizer.get_vocab()
        train_rows(model, [vocabulary[token] for token in NEW_TOKENS])
    learn_in_float32(model)
    return ConversationObjective(model)


# --- data ---


def source(recipe: LlavaRecipe, *, mix: Callable[[Any], Mix]) -> ConversationMixture:
    """The conversations of a mix, but for what is held back."""
    return ConversationMixture(mix(recipe).sources, collate=collate_for(recipe), seed=recipe.seed, strict=recipe.strict)


def collate_for(recipe: LlavaRecipe) -> Callable[[Sequence[Conversation]], ConversationBatch]:
    return partial(collate_conversations, processor=processor_of(recipe), max_length=recipe.max_length)


def probe(recipe: LlavaRecipe, *, mix: Callable[[Any], Mix]) -> ConversationProbe:
    """Loss, accuracy of words and quality of masks on what is held back."""
    return ConversationProbe(
        mix(recipe).held,
        collate=collate_for(recipe),
        batch_size=recipe.stages[0].batch_size,
        seed=recipe.seed,
    )


def published_mix(recipe: LlavaRecipe, *, ingredients: Sequence[Ingredient]) -> Mix:
    """The data sets of a stage; conversations are held back only where they are measured."""
    opened = llava_mix.opened(ingredients, recipe.data, chosen=recipe.datasets, strict=recipe.strict)
    return opened.holding_back(recipe.validate) if recipe.evaluate_every else opened


# --- result ---


def export(objective: ConversationObjective, recipe: LlavaRecipe) -> Path:
    """The folder of a model for `omg.load` and `omg chat`: adapters added to their matrices, and the processor."""
    folder = recipe.out / WEIGHTS
    with torch.device("meta"):
        plain = OmgLlavaForConditionalGeneration(copy.deepcopy(objective.model.config))
    plain.generation_config = objective.model.generation_config
    with written_whole(folder) as partial_folder:
        save_model(plain, merged_state(objective.model), partial_folder)
        processor_of(recipe).save_pretrained(partial_folder)
    return folder
