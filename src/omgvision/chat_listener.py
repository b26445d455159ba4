"""An answer while it is made: words, phrases and masks as they come."""

from collections.abc import Callable

import numpy as np
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from .models.omg_llava.answers_omg_llava import parse_answer

TextListener = Callable[[str], None]
"""Is given the words of an answer as they come, without tags."""

PhraseListener = Callable[[int | None], None]
"""Is told before the words of a phrase which mask (from 0) will be theirs; None when they end."""

MaskListener = Callable[[np.ndarray], None]
"""Is given the masks bool [H, W] of an answer as they come."""


class AnswerListener(BaseStreamer):
    """Follows a generation.

    Args:
        decode: Token ids of an answer → text with its tags.
        decode_mask: Hidden state of a [SEG] [1, E] → mask logits [H, W]; None where there is no picture.
        segment_token_id: Of [SEG].

    Attributes:
        ids: Tokens of the answer so far.
        logits: Mask logits [H, W] of its [SEG] so far.
    """

    def __init__(
        self,
        *,
        decode: Callable[[list[int]], str],
        decode_mask: Callable[[Tensor], Tensor | None],
        segment_token_id: int,
        on_text: TextListener | None = None,
        on_phrase: PhraseListener | None = None,
        on_mask: MaskListener | None = None,
    ) -> None:
        self.ids: list[int] = []
        self.logits: list[Tensor] = []
        self._decode, self._decode_mask, self._segment = decode, decode_mask, segment_token_id
        self._on_text, self._on_phrase, self._on_mask = on_text, on_phrase, on_mask
        self._has_prompt = False
        self._said = 0
        self._phrase: int | None = None

    def put(self, value: Tensor) -> None:
        """Tokens of the generation; the first are the prompt's."""
        if not self._has_prompt:
            self._has_prompt = True
            return
        self.ids += value.flatten().tolist()
        if self._on_text is not None or self._on_phrase is not None:
            tagged = self._decode(self.ids)
            # A character may take several tokens; a replacement character stands for the first of them.
            if not tagged.endswith("\ufffd"):
                self._hear(tagged)

    def _hear(self, tagged: str) -> None:
        parsed = parse_answer(tagged)
        text, coming = parsed.text, self.ids.count(self._segment)
        phrases = [(one.start, one.end, coming if one.mask is None else one.mask) for one in parsed.phrases]
        if parsed.open is not None:
            phrases.append((parsed.open, len(text), coming))
        while self._said < len(text):
            around = [(end, number) for start, end, number in phrases if start <= self._said < end]
            later = [start for start, _, _ in phrases if start > self._said]
            end, number = around[0] if around else (min([*later, len(text)]), None)
            if number != self._phrase and self._on_phrase is not None:
                self._on_phrase(number)
            if self._on_text is not None:
                self._on_text(text[self._said : end])
            self._phrase, self._said = number, end

    def end(self) -> None:
        """Says what was held back: of a character that broke off no more will come."""
        self._hear(self._decode(self.ids))

    def observe(self, states: Tensor) -> None:
        """The state [1, E] that follows the token chosen last; of a [SEG] it becomes a mask at once."""
        if self.ids and self.ids[-1] == self._segment:
            logits = self._decode_mask(states)
            if logits is not None:
                self.logits.append(logits)
                if self._on_mask is not None:
                    self._on_mask((logits > 0).numpy())


__all__ = ["AnswerListener", "MaskListener", "PhraseListener", "TextListener"]
