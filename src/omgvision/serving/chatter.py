"""A chat model that many people share: who asks brings the conversation along, the last few stay in memory."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from PIL import Image

from ..chat import Answer, Conversation, MaskListener, TextListener
from ..errors import TooLongError, UserError
from ..models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from ..models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from ..models.omg_llava.prompts_omg_llava import Prompt
from .pictures import Limits, fingerprint
from .turns import Gone, Turns

_Said = TypeVar("_Said")
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
        self._turns = Turns(waiting=limits.waiting)
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
        drop_oldest: bool = False,
        on_text: TextListener | None = None,
        on_mask: MaskListener | None = None,
        gone: threading.Event | None = None,
    ) -> Answer:
        """Asks with `history` in mind; see `Conversation.ask`.

        A conversation that is still in memory goes on where it was: its picture is not seen again.

        Args:
            max_new_tokens: The answer is shorter where the model can read no more.
            gone: Set when nobody waits for the answer any more: it is not begun, or broken off.

        Raises:
            UserError: As of `Conversation.ask`.
            Busy, Gone: As of `Turns.turn`.
        """
        gone = gone or threading.Event()
        if image is not None:
            self._check(image, [*(prompt for turn in history for prompt in turn.prompts), *prompts])
        with self._turns.turn(gone=gone):
            seen = "" if image is None else fingerprint(image)
            # Taken out, for it goes on: whoever brings the same history later gets one of their own.
            conversation = self._kept.pop(_key(seen, system, history), None)
            if conversation is None:
                conversation = Conversation(self._model, self._processor, image=image, system=system)
                for turn in history:
                    conversation.recall(turn.question, turn.answer, prompts=turn.prompts)
            said = list(history)
            try:
                answer = conversation.ask(
                    question,
                    prompts=prompts,
                    max_new_tokens=None if max_new_tokens is None else min(max_new_tokens, self.limits.answer_tokens),
                    temperature=temperature,
                    top_p=top_p,
                    drop_oldest=drop_oldest,
                    shorten=True,
                    on_text=_while_wanted(on_text, gone),
                    on_mask=_while_wanted(on_mask, gone),
                )
                said.append(Turn(question, answer.text, tuple(prompts)))
            except TooLongError as error:
                remedy = "" if drop_oldest else ", start a new conversation, or let the oldest turns go (drop_oldest)"
                raise UserError(
                    f"conversation: {error.missing} tokens longer than the model can read; shorten the question{remedy}"
                ) from None
            finally:
                # What was not answered was not asked: the conversation is what it was.
                self._kept[_key(seen, system, said)] = conversation
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


def _while_wanted(listener: Callable[[_Said], None] | None, gone: threading.Event) -> Callable[[_Said], None]:
    """Passes on what comes; raises `Gone` when nobody waits for it."""

    def hear(said: _Said) -> None:
        if gone.is_set():
            raise Gone
        if listener is not None:
            listener(said)

    return hear


def _key(seen: str, system: str | None, history: Sequence[Turn]) -> str:
    turns = [(turn.question, turn.answer, [_plain(prompt) for prompt in turn.prompts]) for turn in history]
    return repr((seen, system, turns))


def _plain(prompt: Prompt) -> list[tuple[str, object]]:
    """The same for equal prompts only."""
    return [(kind, np.asarray(value).tobytes() if kind == "mask" else value) for kind, value in sorted(prompt.items())]
