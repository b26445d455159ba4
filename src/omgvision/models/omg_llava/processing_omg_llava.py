"""The processor: conversations with pictures and with what is pointed at in them, as the model takes them.

Letters: B conversations, S their tokens, I pictures, N prompts of a picture, P points of a prompt.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerBase
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.processing_utils import ProcessorMixin
from transformers.utils.chat_template_utils import render_jinja_template

from .answers_omg_llava import IMAGE, MARK, REGION, SPECIAL_TOKENS
from .merging_omg_llava import IGNORED
from .messages_omg_llava import MessageReading, flat_images, is_conversation, pieces_of, without_oldest_turn
from .prompts_omg_llava import Prompt, place_prompts, prompt_tensors
from .square_omg_llava import Square
from .tokens_omg_llava import prepare_tokenizer, token_ids

Overflow = Literal["error", "cut", "drop_oldest"]


class OmgLlavaProcessor(ProcessorMixin):
    """Everything that `OmgLlavaForConditionalGeneration` takes, from what people have.

    Messages are transformers' (``{"role": …, "content": …}``). Their content is a text, or a list of parts: ``text``,
    ``image`` and the prompts ``point``, ``points``, ``box`` and ``mask``, such as ``{"type": "point", "point":
    (x, y)}``. A picture comes to the front of its message, as in training.

    Args:
        image_processor: `OmgSegImageProcessor` that makes a square of the network's size.
        tokenizer: Of the language model, with the tokens of :func:`prepare_tokenizer`.
        chat_template: None = the original's.

    Raises:
        ValueError: A tokenizer without the tokens.
    """

    def __init__(
        self, image_processor: Any, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None
    ) -> None:
        vocabulary = tokenizer.get_vocab()
        missing = [token for token in SPECIAL_TOKENS if token not in vocabulary]
        if missing:
            raise ValueError(
                f"tokenizer: expected the tokens {' '.join(SPECIAL_TOKENS)}, got none of {' '.join(missing)}; "
                "call prepare_tokenizer(tokenizer) and resize the embeddings of the model"
            )
        if chat_template is None:
            chat_template = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = IMAGE
        self.image_token_id = vocabulary[IMAGE]
        self._prompt_ids = {vocabulary[MARK], vocabulary[REGION]}

    @property
    def model_input_names(self) -> list[str]:
        prompts = ["input_points", "input_point_labels", "input_boxes", "input_masks", "prompt_slots"]
        return ["input_ids", "attention_mask", "pixel_values", *prompts]

    # --- in --------------------------------------------------------------------------------------------------------

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        prompts: Sequence[Sequence[Prompt]] | None = None,
        padding: bool | str = True,
        return_tensors: str = "pt",
    ) -> BatchFeature:
        """Texts that are written as the model reads them, such as :meth:`apply_chat_template` gives.

        Args:
            images: I pictures, one for each image token of the texts.
            text: B texts.
            prompts: For each picture those that the marks and regions of its text stand for, in their order.
            padding: Shorter texts are filled up in any case, on the tokenizer's side.
            return_tensors: "pt".

        Returns:
            ``input_ids`` and ``attention_mask`` [B, S]; where given ``pixel_values`` [I, 3, H, W] and the prompts as
            `OmgLlavaForConditionalGeneration.forward` takes them.

        Raises:
            ValueError: Another number of pictures than of image tokens, of prompts than of placeholders, or prompts
                outside of their picture.
        """
        if text is None:
            raise ValueError("text: expected what is asked, got none")
        texts = [text] if isinstance(text, str) else list(text)
        pieces = [[(each, False)] for each in texts]
        pictures = [] if images is None else flat_images(images)
        return self._batch(pieces, pictures, prompts or [[] for _ in pictures], begin=True)

    def apply_chat_template(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool = False,
        return_dict: bool = False,
        return_labels: bool = False,
        max_length: int | None = None,
        overflow: Overflow = "error",
        return_tensors: str = "pt",
        processor_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """One conversation or several as text, or as the model's input.

        Each answer is tokenised apart from what is before it, as in the original's training.

        Args:
            conversation: Messages, or a list of conversations.
            chat_template: Instead of the processor's; training needs one that marks its answers with ``generation``.
            add_generation_prompt: Ask for an answer.
            continue_final_message: The last message is the beginning of the answer.
            tokenize: Return tokens instead of text.
            return_dict: With the pictures and prompts; otherwise the ids alone.
            return_labels: Also ``labels`` [B, S]: the answers with their end; -100 elsewhere.
            max_length: Most tokens of a conversation, a picture counted as one.
            overflow: What to do with a longer one: complain, cut its end, or drop its oldest turns.
            return_tensors, processor_kwargs: As transformers' pipelines give them; tensors come in any case.
            **kwargs: For the template.

        Raises:
            ValueError: As :meth:`__call__`; a part of unknown type; a conversation longer than ``max_length``.
        """
        conversations = [conversation] if is_conversation(conversation) else list(conversation)
        template = self._resolve_chat_template(chat_template)
        options = {
            **self.tokenizer.special_tokens_map,
            **kwargs,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
        }
        readings = [
            self._read(messages, template, options, max_length if overflow == "drop_oldest" else None)
            for messages in conversations
        ]
        if not tokenize:
            texts = ["".join(text for text, _ in reading.pieces) for reading in readings]
            return texts[0] if is_conversation(conversation) else texts
        pictures = [picture for reading in readings for picture in reading.images]
        prompts = [reading.prompts for reading in readings if reading.images]
        for index, reading in enumerate(readings):
            if reading.prompts and not reading.images:
                raise ValueError(f"prompts: expected a picture in conversation {index}, got none")
        batch = self._batch(
            [reading.pieces for reading in readings],
            pictures,
            prompts,
            labels=return_labels,
            max_length=max_length,
            overflow=overflow,
        )
        return batch if return_dict else batch["input_ids"]

    def encode_conversation(
        self, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool = False
    ) -> tuple[list[int], list[int]]:
        """Ids of one conversation, a picture counted as one, and its labels (-100 but for the answers)."""
        options = {
            **self.tokenizer.special_tokens_map,
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": False,
        }
        return self._tokenize(self._read(messages, self._resolve_chat_template(None), options, None).pieces)

    def encode_text(self, text: str) -> list[int]:
        """Ids of a piece of a conversation that is written as the model reads it."""
        return self._tokenize([(text, False)])[0]

    def place_prompts(self, prompts: Sequence[Prompt], *, size: tuple[int, int]) -> dict[str, Tensor]:
        """Prompts on one picture of this (height, width) as the model takes them; nothing without any.

        Raises:
            ValueError: A prompt outside of the picture or of another form.
        """
        square = self.square(size)
        return prompt_tensors([place_prompts(prompts, square)], network=square.network) if prompts else {}

    def _read(
        self, messages: Sequence[Mapping[str, Any]], template: str, options: Mapping[str, Any], limit: int | None
    ) -> "MessageReading":
        """A conversation as pieces of text; beyond ``limit`` tokens without its oldest turns."""
        while True:
            reading = MessageReading()
            flat = [{**message, "content": reading.take(message.get("content"))} for message in messages]
            [text], [spans] = render_jinja_template(
                conversations=[flat], chat_template=template, return_assistant_tokens_mask=True, **options
            )
            reading.pieces = list(pieces_of(text, spans))
            shorter = None if limit is None else without_oldest_turn(messages)
            if limit is None or shorter is None or len(self._tokenize(reading.pieces)[0]) <= limit:
                return reading
            messages = shorter

    def _tokenize(self, pieces: Sequence[tuple[str, bool]], *, begin: bool = False) -> tuple[list[int], list[int]]:
        """Ids and labels; what is an answer and what surrounds the picture are tokenised each on its own."""
        ids: list[int] = []
        labels: list[int] = []
        for text, is_answer in pieces:
            for part in re.split(f"({re.escape(IMAGE)})", text):
                if not part:
                    continue
                if part == IMAGE:
                    found = [self.image_token_id]
                else:
                    start = begin and not ids and not part.startswith(self.tokenizer.bos_token or part)
                    found = self.tokenizer(part, add_special_tokens=start)["input_ids"]
                ids += found
                labels += found if is_answer else [IGNORED] * len(found)
        return ids, labels

    def _batch(
        self,
        texts: Sequence[Sequence[tuple[str, bool]]],
        pictures: Sequence[Any],
        prompts: Sequence[Sequence[Prompt]],
        *,
        begin: bool = False,
        labels: bool = False,
        max_length: int | None = None,
        overflow: Overflow = "error",
    ) -> BatchFeature:
        rows = [self._tokenize(pieces, begin=begin) for pieces in texts]
        longest = max(len(ids) for ids, _ in rows)
        if max_length is not None and longest > max_length:
            if overflow != "cut":
                raise ValueError(
                    f"conversation: expected at most {max_length} tokens, got {longest}; shorten it, start a new one, "
                    "or ask for overflow='drop_oldest'"
                )
            rows = [(ids[:max_length], kept[:max_length]) for ids, kept in rows]
        data = self._padded(rows, labels=labels)
        images = [row for row, (ids, _) in enumerate(rows) for each in ids if each == self.image_token_id]
        if len(images) != len(pictures):
            raise ValueError(
                f"images: expected one for each of {len(images)} image tokens ({IMAGE}), got {len(pictures)}"
            )
        if len(prompts) != len(pictures):
            raise ValueError(f"prompts: expected one list for each of {len(pictures)} pictures, got {len(prompts)}")
        placeholders = [sum(each in self._prompt_ids for each in ids) for ids, _ in rows]
        if overflow == "cut":
            prompts = [given[: placeholders[row]] for row, given in zip(images, prompts, strict=True)]
        for row, count in enumerate(placeholders):
            given = sum(len(prompts[index]) for index, at in enumerate(images) if at == row)
            if count != given:
                where = "" if row in images else ", which has no picture"
                raise ValueError(
                    f"prompts: expected one for each of {count} placeholders ({MARK}, {REGION}) in conversation "
                    f"{row}{where}, got {given}"
                )
        if pictures:
            data |= self._picture_data(pictures, prompts)
        return BatchFeature(data=data)

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]], *, labels: bool) -> dict[str, Tensor]:
        longest = max(len(ids) for ids, _ in rows)

        def table(lists: Sequence[list[int]], filler: int) -> Tensor:
            left = self.tokenizer.padding_side == "left"
            sides = [(longest - len(each), 0) if left else (0, longest - len(each)) for each in lists]
            return torch.stack(
                [F.pad(torch.tensor(each), side, value=filler) for each, side in zip(lists, sides, strict=True)]
            )

        filler = self.tokenizer.pad_token_id
        data = {
            "input_ids": table([ids for ids, _ in rows], 0 if filler is None else filler),
            "attention_mask": table([[1] * len(ids) for ids, _ in rows], 0),
        }
        return data | ({"labels": table([kept for _, kept in rows], IGNORED)} if labels else {})

    def _picture_data(self, pictures: Sequence[Any], prompts: Sequence[Sequence[Prompt]]) -> dict[str, Tensor]:
        tensors = self.image_processor.to_tensors(list(pictures))
        squares = [self.square((picture.shape[1], picture.shape[2])) for picture in tensors]
        fitted = [self._fit(picture, square) for square, picture in zip(squares, tensors, strict=True)]
        data = {"pixel_values": self.image_processor(fitted, return_tensors="pt")["pixel_values"]}
        if any(prompts):
            placed = [place_prompts(given, square) for given, square in zip(prompts, squares, strict=True)]
            data |= prompt_tensors(placed, network=squares[0].network)
        return data

    def _fit(self, picture: Tensor, square: Square) -> Tensor:
        """A picture on its square of the network's size, in whole grey levels where it came in them."""

        def resize(part: Tensor, size: tuple[int, int]) -> Tensor:
            plain = {"do_rescale": False, "do_normalize": False, "do_pad": False, "return_tensors": "pt"}
            found = self.image_processor(part, size={"height": size[0], "width": size[1]}, **plain)
            return found["pixel_values"][0].to(part.dtype)

        # Pillow rounds between rows and columns, torch only at the end.
        if self.image_processor.resample == PILImageResampling.BILINEAR and not picture.is_floating_point():
            return square.fit(picture.float(), self._color, resize=resize).round()
        return square.fit(picture, self._color, resize=resize)

    @property
    def _color(self) -> Tensor:
        """Around the picture: the mean colour, as whole grey levels [3]."""
        factor = self.image_processor.rescale_factor if self.image_processor.do_rescale else 1
        return torch.tensor([int(mean / factor) for mean in self.image_processor.image_mean])

    def square(self, size: tuple[int, int]) -> Square:
        """Where a picture of this (height, width) lies on the network input."""
        return Square(size[0], size[1], int(self.image_processor.size["height"]))

    def place_masks(self, masks: Any) -> Tensor:
        """Ground truth masks [N, H, W] of a picture (not zero inside) → ``mask_labels`` [N, network, network] bool."""
        planes = torch.as_tensor(np.asarray(masks))
        return self.square((planes.shape[1], planes.shape[2])).masks(planes)

    # --- out -------------------------------------------------------------------------------------------------------

    def post_process_masks(self, mask_logits: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Masks [N, h, w] of one picture's answer → bool [N, height, width] in its own frame."""
        return self.square(size).restore(mask_logits) > 0


__all__ = [
    "OmgLlavaProcessor",
    "prepare_tokenizer",
    "token_ids",
]
