"""The model of the benchmarks of words, and how it is asked: anew for every question, the likeliest words."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from omgvision.chat import Answer, Conversation
from omgvision.errors import UserError
from omgvision.llava import load_llava
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from omgvision.models.omg_llava.prompts_omg_llava import Prompt

DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class AskSettings:
    """How the original was asked.

    Attributes:
        questions: What is asked, tried one after the other where there are several; {} stands for what a sample brings.
        max_new_tokens: Tokens of an answer at most.
    """

    questions: tuple[str, ...]
    max_new_tokens: int


@dataclass(frozen=True)
class Speaker:
    """OMG-LLaVA and its processor, in evaluation mode.

    Attributes:
        name: What the weights are called.
    """

    model: OmgLlavaForConditionalGeneration
    processor: OmgLlavaProcessor
    name: str

    @property
    def device(self) -> torch.device:
        return self.model.device

    def look(self, picture: Image.Image) -> Conversation:
        """A conversation about a picture, which is seen once."""
        return Conversation(self.model, self.processor, image=picture)


def load_speaker(folder: str | Path, *, device: str | None = None, dtype: str | None = None) -> Speaker:
    """From a folder written by `omg convert`, `omg train` or `save_pretrained`.

    Raises:
        UserError: No such folder, another model, an unknown device or dtype.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    model, processor = load_llava(folder, dtype=DTYPES[dtype or "float32"])
    try:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        target = torch.device(device or found or "cpu")
        model = model.to(target)  # pyright: ignore[reportArgumentType]  (transformers' wrapper hides torch's overloads)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use the device {device}: {str(error).splitlines()[0]}") from None
    return Speaker(model, processor, Path(folder).resolve().name)


def ask(conversation: Conversation, question: str, settings: AskSettings, *, prompts: Sequence[Prompt] = ()) -> Answer:
    """The answer to a question, as if nothing had been said before."""
    conversation.reset()
    return conversation.ask(question, prompts=prompts, max_new_tokens=settings.max_new_tokens)
