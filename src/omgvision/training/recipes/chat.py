"""Fine-tuning OMG-LLaVA on conversations of one's own."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from omgvision.data.conversation_batches import ConversationSource
from omgvision.data.datasets.conversations.own import OwnConversations
from omgvision.training.recipe import OptimizerSettings, Stage
from omgvision.training.recipes.llava import LlavaRecipe
from omgvision.training.recipes.llava_mix import Mix, Part

BUNDLED = Path(__file__).parents[2] / "weights" / "omg-llava-nano"


@dataclass(frozen=True)
class ChatRecipe(LlavaRecipe):
    """A recipe on a json of conversations (docs/chat_training.md). `data` is the json.

    Attributes:
        start: Folder of any OMG-LLaVA model.
        images: What names of pictures and masks are relative to; None is the folder of the json.
        val: Another json to measure on; None holds a part of `data` back.
        holdout: Every so many-th conversation is held back, where `val` is not given; 0: none.
    """

    images: Path | None = None
    val: Path | None = None
    holdout: int = 10


def chat_finetune() -> ChatRecipe:
    """Adapters on your own conversations: `omg train chat_finetune data=JSON start=FOLDER out=RUN`; start is bundled.

    `weights/` is a folder for `omg.load` and `omg chat`. The language model is held in bfloat16 where there is a GPU:
    of the published 7B model that is 15 GB, and adapters of rank 64 with their gradients and moments 3 GB more, by
    count; it has not been run on such a GPU. Embeddings and head stay as they are: the model knows its tokens.
    """
    precision = "bf16" if torch.accelerator.is_available() else "fp32"
    return ChatRecipe(
        name="omg-llava-finetuned",
        data=Path("conversations.json"),
        out=Path("runs/chat"),
        start=BUNDLED,
        steps=0,
        epochs=3.0,
        stages=(Stage(size=(1024, 1024), batch_size=1, share=1.0),),
        accumulation=8,
        optimizer=OptimizerSettings(learning_rate=2e-4, weight_decay=0.0, clip_norm=1.0, final_factor=0.0),
        ema_decay=0.0,
        precision=precision,
        frozen=precision,
        gradient_checkpointing=torch.accelerator.is_available(),
        rank=64,
        alpha=64,
        embeddings="none",
        checkpoint_every=200,
        evaluate_every=200,
        log_every=10,
    )


def conversations(recipe: ChatRecipe) -> Mix:
    """The json, as a mix of one, and what `val` or `holdout` says to hold back."""
    data = opened_json(recipe.data, recipe.images, recipe.strict)
    if recipe.val is not None:
        measured = opened_json(recipe.val, recipe.images, recipe.strict)
        return Mix((ConversationSource(data),), (Part(measured, range(min(recipe.validate, len(measured)))),))
    held = range(recipe.holdout - 1, len(data), recipe.holdout) if recipe.holdout else ()
    if not held:
        return Mix((ConversationSource(data),))
    kept = Part(data, sorted({*range(len(data))} - {*held}))
    return Mix((ConversationSource(kept),), (Part(data, held[: recipe.validate]),))


@cache
def opened_json(path: Path, images: Path | None, strict: bool) -> OwnConversations:
    return OwnConversations(path, images=images, strict=strict)
