"""Conversations about a picture: it is seen once, answers come in words and masks, and follow-ups continue the cache.

Letters: N masks of an answer, H×W the picture.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import DynamicCache
from transformers.generation.streamers import BaseStreamer

from . import visualization
from .errors import UserError
from .inputs import ImageSource, load_image
from .models.omg_llava.answers_omg_llava import IMAGE, MARK, REGION, parse_answer
from .models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from .models.omg_llava.outputs_omg_llava import OmgLlavaImages
from .models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from .models.omg_llava.prompts_omg_llava import PLACEHOLDERS, Prompt
from .results import RunLengthMask

TextListener = Callable[[str], None]
"""Is given the words of an answer as they come, without tags."""

MaskListener = Callable[[np.ndarray], None]
"""Is given the masks bool [H, W] of an answer as they come."""


@dataclass(frozen=True, eq=False)
class GroundedPhrase:
    """What an answer points at.

    Attributes:
        text: The words; "" for a mask without any.
        start, end: Where they are in the answer's text.
        mask: bool [H, W].
        score: Mean probability of the mask's pixels; 0 for an empty mask.
    """

    text: str
    start: int
    end: int
    mask: np.ndarray
    score: float

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height in pixels; zeros for an empty mask."""
        return RunLengthMask.encode(self.mask).box


@dataclass(frozen=True, eq=False)
class Answer:
    """What the model said and what it pointed at.

    Attributes:
        text: Without tags.
        tagged: As the model wrote it.
        phrases: What has a mask, in the order of the masks.
        complete: False if the answer was cut at its limit.
        image: The picture; None in a conversation without one.
    """

    text: str
    tagged: str
    phrases: list[GroundedPhrase]
    complete: bool
    image: Image.Image | None = field(default=None, repr=False)

    @property
    def masks(self) -> list[np.ndarray]:
        """bool [H, W] each."""
        return [phrase.mask for phrase in self.phrases]

    @property
    def boxes(self) -> list[tuple[int, int, int, int]]:
        """x, y, width, height in pixels of each mask."""
        return [phrase.box for phrase in self.phrases]

    @property
    def scores(self) -> list[float]:
        return [phrase.score for phrase in self.phrases]

    @property
    def colors(self) -> list[visualization.Color]:
        """Of each mask in the overlay, and of its words beside it."""
        return [visualization.identity_color(number) for number in range(1, len(self.phrases) + 1)]

    def colored_text(self) -> list[tuple[str, visualization.Color | None]]:
        """The text in pieces, those that have a mask with its colour."""
        pieces: list[tuple[str, visualization.Color | None]] = []
        last = 0
        for phrase, color in zip(self.phrases, self.colors, strict=True):
            if phrase.text and phrase.start >= last:
                pieces += [(self.text[last : phrase.start], None), (phrase.text, color)]
                last = phrase.end
        pieces.append((self.text[last:], None))
        return [piece for piece in pieces if piece[0]]

    def overlay(self) -> Image.Image:
        """The picture with the masks and their words.

        Raises:
            UserError: There is no picture.
        """
        if self.image is None:
            raise UserError("overlay: expected a conversation about a picture, got one without")
        return visualization.draw_segments(
            self.image, self.masks, colors=self.colors, labels=[phrase.text for phrase in self.phrases]
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; masks as COCO's run lengths."""
        return {
            "text": self.text,
            "complete": self.complete,
            "phrases": [
                {
                    "text": phrase.text,
                    "start": phrase.start,
                    "end": phrase.end,
                    "score": round(phrase.score, 6),
                    "box": list(phrase.box),
                    "mask": RunLengthMask.encode(phrase.mask).to_coco(),
                }
                for phrase in self.phrases
            ],
        }

    def save(self, folder: str | Path) -> None:
        """Writes ``answer.json`` and, where there is a picture, ``overlay.png``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False)
        (folder / "answer.json").write_text(text + "\n", encoding="utf-8")
        if self.image is not None:
            self.overlay().save(folder / "overlay.png")


class _Listener(BaseStreamer):
    """Follows a generation: words and masks as they come."""

    def __init__(
        self, conversation: "Conversation", on_text: TextListener | None, on_mask: MaskListener | None
    ) -> None:
        self.conversation = conversation
        self.on_text, self.on_mask = on_text, on_mask
        self.ids: list[int] = []
        self.logits: list[Tensor] = []
        self._has_prompt = False
        self._said = ""

    def put(self, value: Tensor) -> None:
        if not self._has_prompt:
            self._has_prompt = True
            return
        self.ids += value.flatten().tolist()
        if self.on_text is not None:
            self._say(self.on_text)

    def _say(self, on_text: TextListener) -> None:
        tagged = self.conversation.decode(self.ids)
        text = parse_answer(tagged).text
        # A character may take several tokens; a replacement character stands for the first of them.
        if not tagged.endswith("\ufffd") and len(text) > len(self._said):
            on_text(text[len(self._said) :])
            self._said = text

    def end(self) -> None:
        pass

    def observe(self, states: Tensor) -> None:
        """The state that follows the token chosen last; of a [SEG] it becomes a mask at once."""
        if self.ids and self.ids[-1] == self.conversation.model.config.segment_token_id:
            logits = self.conversation.mask_logits(states)
            if logits is not None:
                self.logits.append(logits)
                if self.on_mask is not None:
                    self.on_mask((logits > 0).numpy())


class Conversation:
    """Questions and answers about one picture, or about none.

    The picture is seen when the conversation begins; each question continues the cache of what was read before.

    Args:
        model, processor: OMG-LLaVA.
        image: Anything that :func:`load_image` takes; None for a conversation without picture.
        system: What the model is told before everything else.

    Attributes:
        turns: Questions as they were asked, and their answers.
    """

    def __init__(
        self,
        model: OmgLlavaForConditionalGeneration,
        processor: OmgLlavaProcessor,
        *,
        image: ImageSource | None = None,
        system: str | None = None,
    ) -> None:
        self.model, self.processor = model, processor
        self.image = None if image is None else load_image(image)
        self.system = system
        self.turns: list[tuple[str, Answer]] = []
        self._images: OmgLlavaImages | None = None
        if self.image is not None:
            pixels = processor(self.image, IMAGE)["pixel_values"]
            with torch.no_grad():
                self._images = model.encode_images(pixels.to(model.device))
        self.reset()

    def reset(self) -> None:
        """Forgets everything but the picture."""
        self.turns.clear()
        self._messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        self._prompts: list[Prompt] = []
        self._ids: list[int] = []
        self._cache = self._new_cache()

    def ask(
        self,
        question: str,
        *,
        prompts: Sequence[Prompt] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 50,
        drop_oldest: bool = False,
        on_text: TextListener | None = None,
        on_mask: MaskListener | None = None,
    ) -> Answer:
        """Asks, with all that was said before in mind.

        Args:
            question: With ``<mark>`` or ``<region>`` for each of the prompts; where it has none, they are listed in a
                line before it, as in training.
            prompts: What is pointed at, in pixels of the picture.
            max_new_tokens: Most tokens of the answer.
            temperature: 0 = the likeliest words; more is livelier.
            top_p, top_k: With a temperature, how far from the likeliest word the answer may stray.
            drop_oldest: Forget the oldest turns where the conversation grows longer than the model can read.
            on_text, on_mask: Hear the answer as it comes.

        Raises:
            UserError: An empty question, prompts without a picture or other than the placeholders, or a conversation
                that is too long.
        """
        text = self._worded(question, prompts)
        self._prompts += prompts
        try:
            ids = self._next_ids(text)
            while drop_oldest and self._excess(ids, max_new_tokens) > 0 and self.turns:
                self._drop_oldest()
                ids = self._next_ids(text)
            if (excess := self._excess(ids, max_new_tokens)) > 0:
                raise UserError(
                    f"conversation: {excess} tokens longer than the model can read; start a new one (reset), allow a "
                    "shorter answer (max_new_tokens), or let the oldest turns go (drop_oldest=True)"
                )
            listener = self._generate(
                ids,
                _Listener(self, on_text, on_mask),
                max_new_tokens=max_new_tokens,
                **({"temperature": temperature, "top_p": top_p, "top_k": top_k} if temperature > 0 else {}),
            )
        except BaseException:
            # What was not answered was not asked; and the cache may know tokens of it.
            del self._prompts[len(self._prompts) - len(prompts) :]
            self._cache = self._new_cache()
            raise
        answer = self._answer(listener)
        self._messages += [self._user(text), {"role": "assistant", "content": answer.tagged}]
        self._ids = [*ids, *listener.ids] if answer.complete else [*ids, *listener.ids, self._end]
        self.turns.append((question, answer))
        return answer

    def recall(self, question: str, answer: str, *, prompts: Sequence[Prompt] = ()) -> None:
        """Takes a turn as said: a conversation that was held elsewhere goes on here.

        Args:
            question, prompts: As of `ask`.
            answer: What was answered, with or without tags; its masks are not made again.

        Raises:
            UserError: As of `ask`.
        """
        text = self._worded(question, prompts)
        self._prompts += prompts
        self._messages += [self._user(text), {"role": "assistant", "content": answer}]
        self._ids, self._cache = [], self._new_cache()  # all is read with the next question
        self.turns.append((question, Answer(parse_answer(answer).text, answer, [], True, self.image)))

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens of an answer as text, tags included."""
        text = str(self.processor.tokenizer.decode(list(ids), skip_special_tokens=False))
        return text.removesuffix("<|im_end|>").removesuffix(str(self.processor.tokenizer.eos_token))

    def mask_logits(self, states: Tensor) -> Tensor | None:
        """Hidden state of a [SEG] [1, E] → mask logits [H, W] of the picture, if there is one."""
        if self._images is None or self.image is None:
            return None
        picture = torch.zeros(1, dtype=torch.long, device=states.device)
        with torch.no_grad():
            [logits] = self.model.model.decode_masks(states, picture, self._images)
        size = (self.image.height, self.image.width)
        return self.processor.square(size).restore(logits.float().cpu())[0]

    # --- of one turn -----------------------------------------------------------------------------------------------

    @property
    def _end(self) -> int:
        return self.processor.tokenizer.get_vocab()["<|im_end|>"]

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.model.language_model.config)

    def _worded(self, question: str, prompts: Sequence[Prompt]) -> str:
        """The question with a placeholder for each prompt."""
        if not question.strip():
            raise UserError("question: expected some words, got none")
        if prompts and self.image is None:
            raise UserError("prompts: expected a conversation about a picture, got one without")
        placeholders = question.count(MARK) + question.count(REGION)
        if prompts and not placeholders:
            return f"{_listed(prompts)}{question}"
        if placeholders != len(prompts):
            raise UserError(
                f"prompts: expected one for each of {placeholders} placeholders ({MARK}, {REGION}), got {len(prompts)}"
            )
        return question

    def _user(self, text: str) -> dict[str, str]:
        """The message; the first one brings the picture."""
        is_first = self.image is not None and not any(message["role"] == "user" for message in self._messages)
        return {"role": "user", "content": f"{IMAGE}\n{text}" if is_first else text}

    def _next_ids(self, text: str) -> list[int]:
        """The whole conversation with a new question; what was generated stays as it was generated."""
        messages = [*self._messages, self._user(text)]
        if not self._ids:
            return self.processor.encode_conversation(messages, add_generation_prompt=True)[0]
        before = self.processor.apply_chat_template(self._messages).rstrip()
        whole = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return [*self._ids, *self.processor.encode_text(whole[len(before) :])]

    def _excess(self, ids: Sequence[int], max_new_tokens: int) -> int:
        """Tokens beyond what the language model can read."""
        tokens = () if self._images is None or self._images.tokens is None else self._images.tokens
        length = len(ids) + sum(len(visual) - 1 for visual in tokens) + max_new_tokens
        return length - int(self.model.model.language_model.config.max_position_embeddings)

    def _drop_oldest(self) -> None:
        start = 1 if self.system is not None else 0
        oldest = self._messages[start]["content"]
        del self._messages[start : start + 2], self.turns[0]
        del self._prompts[: oldest.count(MARK) + oldest.count(REGION)]
        if self.image is not None and len(self._messages) > start:
            self._messages[start]["content"] = f"{IMAGE}\n{self._messages[start]['content']}"
        self._ids, self._cache = [], self._new_cache()

    def _generate(self, ids: Sequence[int], listener: "_Listener", **options: Any) -> "_Listener":
        placed: dict[str, Tensor] = {}
        if self.image is not None:
            placed = self.processor.place_prompts(self._prompts, size=(self.image.height, self.image.width))
        device = self.model.device
        self.model.generate(
            torch.tensor([list(ids)], device=device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
            images=self._images,
            past_key_values=self._cache,
            streamer=listener,
            state_observer=listener.observe,
            do_sample="temperature" in options,
            **{name: tensor.to(device) for name, tensor in placed.items()},
            **options,
        )
        return listener

    def _answer(self, listener: "_Listener") -> Answer:
        ends = {self._end, self.processor.tokenizer.eos_token_id}
        complete = bool(listener.ids) and listener.ids[-1] in ends
        tagged = self.decode(listener.ids)
        parsed = parse_answer(tagged)
        by_mask = {phrase.mask: phrase for phrase in parsed.phrases}
        phrases = []
        for number, logits in enumerate(listener.logits):
            mask = logits > 0
            score = float(logits.sigmoid()[mask].mean()) if mask.any() else 0.0
            phrase = by_mask.get(number)
            words = ("", 0, 0) if phrase is None else (phrase.text, phrase.start, phrase.end)
            phrases.append(GroundedPhrase(*words, mask=mask.numpy(), score=score))
        return Answer(parsed.text, tagged, phrases, complete, self.image)


def _listed(prompts: Sequence[Prompt]) -> str:
    """A first line that names what is pointed at, in the order in which the placeholders take the prompts."""
    marks = [f"Mark {number} {MARK}" for number, prompt in enumerate(prompts, 1) if PLACEHOLDERS[_kind(prompt)] == MARK]
    if len(marks) == len(prompts):
        return f"There are some marks: {', '.join(marks)}.\n"
    if not marks:
        regions = [f"region{number} {REGION}" for number in range(1, len(prompts) + 1)]
        return f"There are some regions: {', '.join(regions)}.\n"
    raise UserError(
        f"prompts: expected {MARK} and {REGION} in the question where both points and regions are given, got neither"
    )


def _kind(prompt: Prompt) -> str:
    kinds = [kind for kind in PLACEHOLDERS if kind in prompt]
    if len(kinds) != 1:
        raise UserError(f"prompts: expected one of {', '.join(PLACEHOLDERS)}, got {sorted(prompt)}")
    return kinds[0]


__all__ = ["Answer", "Conversation", "GroundedPhrase"]
