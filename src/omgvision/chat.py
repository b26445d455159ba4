"""Conversations about a picture: it is seen once, answers come in words and masks, and follow-ups continue the cache.

Letters: N masks of an answer, H×W the picture.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig

from .answer import Answer, GroundedPhrase, save_turns
from .chat_listener import AnswerListener, MaskListener, PhraseListener, TextListener
from .chat_prompts import placeholder, pointed_at, worded
from .chat_tasks import ChatTask, task_question
from .errors import TooLongError, UserError
from .inputs import ImageSource, load_image
from .models.omg_llava.answers_omg_llava import (
    IMAGE,
    MARK,
    QUESTION_TOKENS,
    REGION,
    parse_answer,
    without_question_tokens,
)
from .models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from .models.omg_llava.outputs_omg_llava import OmgLlavaImages
from .models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from .models.omg_llava.prompts_omg_llava import Prompt
from .models.omg_llava.tokens_omg_llava import TURN_TOKENS

Message = dict[str, str]
"""Role and content."""

MAX_NEW_TOKENS, ENOUGH_TOKENS = 512, 64
"""Longest answer where nothing is said, and how short it may become where the model can read no more."""


class Conversation:
    """Questions and answers about one picture, or about none.

    The picture is seen when the conversation begins; each question continues the cache of what was read before.

    Args:
        model, processor: OMG-LLaVA.
        image: Anything that :func:`load_image` takes; None for a conversation without picture.
        system: What the model is told before everything else.

    Attributes:
        turns: Questions as they were asked, and their answers; also those that the model no longer has in mind.

    Raises:
        UserError: No such picture, or a ``system`` with tokens of questions.
    """

    def __init__(
        self,
        model: OmgLlavaForConditionalGeneration,
        processor: OmgLlavaProcessor,
        *,
        image: ImageSource | None = None,
        system: str | None = None,
    ) -> None:
        if found := [token for token in QUESTION_TOKENS if token in (system or "")]:
            raise UserError(f"system: expected words alone, got {' '.join(found)}, which belongs in questions")
        self.model, self.processor = model, processor
        self.image = None if image is None else load_image(image)
        self.system = system
        vocabulary = processor.tokenizer.get_vocab()
        begin, self._end = (vocabulary[token] for token in TURN_TOKENS)
        self._positions = _positions(model.model.language_model.config)
        # A model that begins the next turn by itself has said what it wanted to say.
        self._ends = {self._end, begin}
        if processor.tokenizer.eos_token_id is not None:
            self._ends.add(processor.tokenizer.eos_token_id)
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
        question: str = "",
        *,
        task: ChatTask | None = None,
        options: Sequence[str] = (),
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
        prompts: Sequence[Prompt] = (),
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 50,
        drop_oldest: bool = False,
        shorten: bool = False,
        on_text: TextListener | None = None,
        on_phrase: PhraseListener | None = None,
        on_mask: MaskListener | None = None,
    ) -> Answer:
        """Asks, with all that was said before in mind.

        Args:
            question: With ``<mark>`` or ``<region>`` for each thing that is pointed at (see `worded`); where it has
                none, they are listed in a line before it, as in training.
            task: Ask in the words that the published weights know, see `task_question`.
            options: Of task "choice".
            points, labels, boxes, masks: What is pointed at, as of `ImageSession.click`.
            prompts: More of it, as the processor takes it.
            max_new_tokens: Most tokens of the answer; None = 512, or as many as the model can still read, if that is
                at least 64.
            temperature: 0 = the likeliest words; more is livelier.
            top_p, top_k: With a temperature, how far from the likeliest word the answer may stray.
            drop_oldest: Let the model forget the oldest turns where the conversation grows longer than it can read.
            shorten: Take ``max_new_tokens`` as the most: the answer may be shorter, as with None.
            on_text, on_phrase, on_mask: Hear the answer as it comes.

        Raises:
            UserError: An empty question, prompts without a picture or other than the placeholders, a task that does not
                fit, an option outside of its range, or a conversation that is too long.
        """
        _check_sampling(max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k)
        pointed = [*prompts, *self._pointed(points=points, labels=labels, boxes=boxes, masks=masks)]
        if task is not None:
            question = self._task_question(task, question, pointed, options)
        elif options:
            raise UserError("options: expected task='choice' with them, got no task")
        text, pointed = self._worded(question, pointed)
        listener = AnswerListener(
            decode=self.decode,
            decode_mask=self.mask_logits,
            segment_token_id=self.model.config.segment_token_id,
            on_text=on_text,
            on_phrase=on_phrase,
            on_mask=on_mask,
        )
        wanted = MAX_NEW_TOKENS if max_new_tokens is None else max_new_tokens
        needed = min(wanted, ENOUGH_TOKENS) if shorten or max_new_tokens is None else wanted
        forgotten, ids = self._fitting(text, needed, drop_oldest=drop_oldest)
        messages, prompts = self._without_oldest(forgotten)
        prompts += pointed
        if forgotten:
            self._cache = self._new_cache()
        sampling = {"temperature": temperature, "top_p": top_p, "top_k": top_k} if temperature > 0 else {}
        try:
            self._generate(ids, prompts, listener, max_new_tokens=min(wanted, self._room(ids)), **sampling)
        except BaseException:
            # What was not answered was not asked, but the cache may know tokens of it.
            self._cache = self._new_cache()
            raise
        answer = self._answer(listener)
        self._messages = [*messages, *self._turn(messages, text, without_question_tokens(answer.tagged))]
        self._prompts = prompts
        self._ids = [*ids, *self._without_end(listener.ids), self._end]
        self.turns.append((question, answer))
        return answer

    def recall(self, question: str, answer: str, *, prompts: Sequence[Prompt] = ()) -> None:
        """Takes a turn as said: a conversation that was held elsewhere goes on here.

        Args:
            question, prompts: As of `ask`.
            answer: What was answered, with or without tags; its masks are not made again, and tokens of questions
                are left out.

        Raises:
            UserError: As of `ask`.
        """
        text, pointed = self._worded(question, prompts)
        answer = without_question_tokens(answer)
        self._prompts += pointed
        self._messages += self._turn(self._messages, text, answer)
        self._ids, self._cache = [], self._new_cache()  # all is read with the next question
        self.turns.append((question, Answer(parse_answer(answer).text, answer, [], True, self.image)))

    def save(self, folder: str | Path) -> list[Path]:
        """Writes all turns: as `Answer.save` for one, with turn-1., turn-2., … before the names for several.

        Returns:
            The written files. Either all are written or none.

        Raises:
            UserError: Nothing was said yet; the folder cannot be made or written to.
        """
        return save_turns(self.turns, folder)

    def decode(self, ids: Sequence[int]) -> str:
        """Tokens of an answer as text, tags included."""
        return str(self.processor.tokenizer.decode(self._without_end(ids), skip_special_tokens=False))

    def _without_end(self, ids: Sequence[int]) -> list[int]:
        return list(ids[:-1] if ids and ids[-1] in self._ends else ids)

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

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.model.language_model.config)

    def _pointed(self, **given: Sequence[Any] | None) -> list[Prompt]:
        if all(each is None for each in given.values()):
            return []
        if self.image is None:
            raise UserError("prompts: expected a conversation about a picture, got one without")
        return pointed_at(self.image, **given)

    def _task_question(self, task: ChatTask, words: str, prompts: Sequence[Prompt], options: Sequence[str]) -> str:
        if self.image is None and task not in ("vqa", "choice"):
            raise UserError(f"task {task}: expected a conversation about a picture, got one without")
        return task_question(task, words, placeholders=[placeholder(each) for each in prompts], options=options)

    def _worded(self, question: str, prompts: Sequence[Prompt]) -> tuple[str, list[Prompt]]:
        """The question with a placeholder for each prompt, and the prompts in their order."""
        if not question.strip():
            raise UserError("question: expected some words, got none")
        if IMAGE in question:
            raise UserError(f"question: expected no {IMAGE}, the picture of the conversation comes by itself")
        if prompts and self.image is None:
            raise UserError("prompts: expected a conversation about a picture, got one without")
        return worded(question, prompts)

    def _turn(self, before: Sequence[Message], question: str, answer: str) -> list[Message]:
        """A question and its answer after other messages; the first question brings the picture."""
        return [self._asked(before, question), {"role": "assistant", "content": answer}]

    def _asked(self, before: Sequence[Message], question: str) -> Message:
        is_first = not any(message["role"] == "user" for message in before)
        return {"role": "user", "content": self._pictured(question) if is_first else question}

    def _pictured(self, question: str) -> str:
        return question if self.image is None else f"{IMAGE}\n{question}"

    def _without_oldest(self, turns: int) -> tuple[list[Message], list[Prompt]]:
        """The messages without so many turns, and what is pointed at in them; the picture stays."""
        start = 0 if self.system is None else 1
        first = start + 2 * turns
        kept = self._messages[first:]
        if turns and kept:
            kept[0] = {"role": "user", "content": self._pictured(kept[0]["content"])}
        gone = sum(
            message["content"].count(token) for message in self._messages[start:first] for token in (MARK, REGION)
        )
        return [*self._messages[:start], *kept], self._prompts[gone:]

    def _next_ids(self, question: str, *, without: int) -> list[int]:
        """The conversation with a new question, without so many of its oldest turns; what was generated stays as it was
        generated, unless something before it goes."""
        before, _ = self._without_oldest(without)
        messages = [*before, self._asked(before, question)]
        if without or not self._ids:
            return self.processor.encode_conversation(messages, add_generation_prompt=True)[0]
        known = self.processor.apply_chat_template(before).rstrip()
        whole = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        return [*self._ids, *self.processor.encode_text(whole[len(known) :])]

    def _fitting(self, question: str, needed: int, *, drop_oldest: bool) -> tuple[int, list[int]]:
        """How many of the oldest turns have to go for a new question, and the tokens with it. Changes nothing.

        Raises:
            UserError: Even so the model cannot read it and answer in as many tokens as needed.
        """
        most = len(self._messages) // 2 if drop_oldest else 0
        missing = 0
        for turns in range(most + 1):
            ids = self._next_ids(question, without=turns)
            missing = needed - self._room(ids)
            if missing <= 0:
                return turns, ids
        raise TooLongError(
            f"conversation: {missing} tokens longer than the model can read; shorten the question, allow a shorter "
            "answer (max_new_tokens, in the shell --max-new-tokens), let the oldest turns go (drop_oldest=True, "
            "--drop-oldest), or start a new conversation (reset(), /reset)",
            missing=missing,
        )

    def _room(self, ids: Sequence[int]) -> int:
        """Tokens of an answer for which the language model has positions after these."""
        tokens = () if self._images is None or self._images.tokens is None else self._images.tokens
        length = len(ids) + sum(len(visual) - 1 for visual in tokens)
        return self._positions - length

    def _generate(
        self, ids: Sequence[int], prompts: Sequence[Prompt], listener: AnswerListener, **options: Any
    ) -> None:
        placed: dict[str, Tensor] = {}
        if self.image is not None:
            placed = self.processor.place_prompts(prompts, size=(self.image.height, self.image.width))
        device = self.model.device
        self.model.generate(
            torch.tensor([list(ids)], device=device),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long, device=device),
            images=self._images,
            past_key_values=self._cache,
            streamer=listener,
            state_observer=listener.observe,
            do_sample="temperature" in options,
            eos_token_id=sorted(self._ends),
            **{name: tensor.to(device) for name, tensor in placed.items()},
            **options,
        )

    def _answer(self, listener: AnswerListener) -> Answer:
        complete = bool(listener.ids) and listener.ids[-1] in self._ends
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


def _positions(text_config: PreTrainedConfig) -> int:
    """How many tokens a language model has positions for; without bound where it needs none, as BLOOM."""
    name = "max_position_embeddings"
    found = text_config.to_dict().get(text_config.attribute_map.get(name, name))
    return sys.maxsize if found is None else int(found)


def _check_sampling(max_new_tokens: int | None, *, temperature: float, top_p: float, top_k: int) -> None:
    if max_new_tokens is not None and max_new_tokens < 1:
        raise UserError(f"max_new_tokens: expected at least 1, got {max_new_tokens}")
    if temperature < 0:
        raise UserError(f"temperature: expected 0 (the likeliest words) or more, got {temperature}")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p: expected more than 0 and at most 1, got {top_p}")
    if top_k < 0:
        raise UserError(f"top_k: expected 0 (no limit) or more, got {top_k}")


__all__ = ["Answer", "Conversation", "GroundedPhrase", "MaskListener", "PhraseListener", "TextListener"]
