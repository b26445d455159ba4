"""A chat model that many people share: who asks brings the conversation along, the last few stay in memory."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..chat import Answer, Conversation, MaskListener, TextListener
from ..errors import UserError
from ..models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from ..models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from ..models.omg_llava.prompts_omg_llava import Prompt
from .pictures import Limits, fingerprint

MISSING = (
    "no chat model: start the server with `omg serve --chat-model FOLDER`; `omg convert` makes such a folder from the"
    " published OMG-LLaVA weights"
)


@dataclass(frozen=True)
class Turn:
    """What was asked and answered before.

    Attributes:
        question: As it was asked.
        answer: Its words; tags may stay in.
        prompts: What was pointed at.
    """

    question: str
    answer: str
    prompts: tuple[Prompt, ...] = ()


class Chatter:
    """Answers about pictures, in words and masks.

    Args:
        name: Of the weights.
    """

    def __init__(
        self, model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor, *, name: str, limits: Limits
    ) -> None:
        self.name = name
        self.limits = limits
        self._model, self._processor = model, processor
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Conversation] = OrderedDict()

    def ask(
        self,
        question: str,
        *,
        image: Image.Image | None = None,
        system: str | None = None,
        history: Sequence[Turn] = (),
        prompts: Sequence[Prompt] = (),
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        on_text: TextListener | None = None,
        on_mask: MaskListener | None = None,
    ) -> Answer:
        """Asks with `history` in mind; see `Conversation.ask`.

        A conversation that is still in memory goes on where it was: its picture is not seen again.
        """
        if image is not None:
            self._check(image, [*(prompt for turn in history for prompt in turn.prompts), *prompts])
        with self._lock:
            seen = "" if image is None else fingerprint(image)
            # Taken out while it is used: whoever brings the same history meanwhile gets one of their own.
            conversation = self._kept.pop(_key(seen, system, history), None)
            if conversation is None:
                conversation = Conversation(self._model, self._processor, image=image, system=system)
                for turn in history:
                    conversation.recall(turn.question, turn.answer, prompts=turn.prompts)
            answer = conversation.ask(
                question,
                prompts=prompts,
                max_new_tokens=None if max_new_tokens is None else min(max_new_tokens, self.limits.answer_tokens),
                temperature=temperature,
                top_p=top_p,
                on_text=on_text,
                on_mask=on_mask,
            )
            now = Turn(question, answer.text, tuple(prompts))
            self._kept[_key(seen, system, [*history, now])] = conversation
            while len(self._kept) > self.limits.kept:
                self._kept.popitem(last=False)
            return answer

    def _check(self, image: Image.Image, prompts: Sequence[Prompt]) -> None:
        try:
            if prompts:
                self._processor.place_prompts(prompts, size=(image.height, image.width))
        except ValueError as error:  # the model's own words about what does not fit
            raise UserError(str(error)) from None

    @property
    def kept_conversations(self) -> int:
        """How many conversations are held in memory."""
        return len(self._kept)


def _key(seen: str, system: str | None, history: Sequence[Turn]) -> str:
    turns = [(turn.question, turn.answer, [_plain(prompt) for prompt in turn.prompts]) for turn in history]
    return repr((seen, system, turns))


def _plain(prompt: Prompt) -> list[tuple[str, object]]:
    """The same for equal prompts only."""
    return [(kind, np.asarray(value).tobytes() if kind == "mask" else value) for kind, value in sorted(prompt.items())]
