"""Generation of answers with masks: transformers' ``generate`` over merged sequences.

Letters: B conversations, S tokens of the prompt (one for a picture), M tokens with all of the picture's, R answers
(B times the sequences of each), A their tokens, E width of the language model, N masks, h×w the stride-4 grid.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.generation.configuration_utils import GenerationConfig, GenerationMode
from transformers.generation.logits_process import LogitsProcessor, LogitsProcessorList, SuppressTokensLogitsProcessor
from transformers.generation.utils import GenerationMixin
from transformers.modeling_utils import PreTrainedModel

from .configuration_omg_llava import OmgLlavaConfig
from .grounding_omg_llava import visual_prompts
from .merging_omg_llava import NO_IMAGE, MergedInputs
from .outputs_omg_llava import OmgLlavaImages

StateObserver = Callable[[Tensor], None]
"""Is given the last hidden state [B, E] of every step of a generation as it is computed."""


def _both(first: StateObserver, second: StateObserver | None) -> StateObserver:
    if second is None:
        return first

    def observe(states: Tensor) -> None:
        first(states)
        second(states)

    return observe


class QuestionTokensProcessor(SuppressTokensLogitsProcessor):
    """Keeps answers free of tokens that stand for a picture or something in it, which they do not bring along.

    A class of its own, so that ``suppress_tokens`` of a user is obeyed beside it.
    """


class OmgLlavaGenerationMixin(PreTrainedModel, GenerationMixin):
    """What `OmgLlavaForConditionalGeneration` adds to transformers' generation."""

    config: OmgLlavaConfig
    model: Any
    lm_head: Any

    def prepare_inputs_for_generation(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        input_ids: Tensor,
        prompt_embeds: Tensor | None = None,
        past_key_values: Cache | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """The tokens of a step; where they are part of the prompt, ``prompt_embeds`` [B, M, E] says what they are."""
        inputs = super().prepare_inputs_for_generation(  # pyright: ignore[reportAttributeAccessIssue]
            input_ids, past_key_values=past_key_values, **kwargs
        )
        if prompt_embeds is not None:
            start = 0 if past_key_values is None else past_key_values.get_seq_length()
            known = prompt_embeds[:, start : start + inputs["input_ids"].shape[1]]
            if known.shape[1]:
                written = self.get_input_embeddings()(inputs["input_ids"][:, known.shape[1] :])
                inputs["inputs_embeds"] = torch.cat((known, written), dim=1)
                inputs["input_ids"] = None
        return inputs

    @torch.no_grad()
    def generate(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        images: OmgLlavaImages | None = None,
        input_points: Tensor | None = None,
        input_point_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        prompt_slots: Tensor | None = None,
        output_masks: bool = False,
        state_observer: StateObserver | None = None,
        logits_processor: Sequence[LogitsProcessor] | None = None,
        **kwargs,
    ) -> Any:
        """Answers conversations, with every option of transformers' ``generate``.

        The sequences that are returned begin with ``input_ids`` as they were given. ``max_length`` counts all tokens
        of a picture; ``max_new_tokens`` does not. Tokens of pictures, marks and regions are not answered.

        Args:
            inputs, input_ids: [B, S]; one of them. With ``past_key_values`` of an earlier call that kept its cache,
                the whole conversation again, and what the cache knows is not read again.
            attention_mask, pixel_values, images, input_points, …, prompt_slots: As of :meth:`forward`. Padding may
                be on either side.
            output_masks: Return a dict-like result with ``mask_logits``, one tensor [N, h, w] for each sequence, the
                masks of its [SEG] tokens in their order. A [SEG] that is the very last token has no mask.
            state_observer: Is given the last hidden state [rows, E] of every step as it is computed, the prompt's
                first; each belongs to the token that was chosen last.
            logits_processor, **kwargs: Of transformers' ``generate``.

        Returns:
            As transformers' ``generate``.

        Raises:
            ValueError: Tokens that do not fit pictures or prompts.
        """
        input_ids = inputs if input_ids is None else input_ids
        if input_ids is None:
            raise ValueError("input_ids: expected the tokens of conversations, got none")
        if pixel_values is not None:
            if images is not None:
                raise ValueError("pixel_values, images: expected one of them, got both")
            images = self.model.encode_images(pixel_values.to(self.device))
        input_ids = input_ids.to(self.device)
        merged = self.model.merge_inputs(
            input_ids,
            None if attention_mask is None else attention_mask.to(self.device),
            images=images,
            prompts=visual_prompts(input_points, input_point_labels, input_boxes, input_masks, prompt_slots),
            padding_side="left",
        )
        unsaid = (self.config.image_token_id, self.config.mark_token_id, self.config.region_token_id)
        processors = LogitsProcessorList([*(logits_processor or ()), QuestionTokensProcessor(unsaid)])
        states: list[Tensor] = []
        stepwise = self._is_stepwise(generation_config, kwargs)
        if output_masks:
            kwargs["return_dict_in_generate"] = True
            if stepwise:
                state_observer = _both(states.append, state_observer)
        result = super().generate(  # pyright: ignore[reportAttributeAccessIssue]
            self._known_tokens(merged.token_ids),
            generation_config,
            prompt_embeds=merged.inputs_embeds,
            attention_mask=merged.attention_mask,
            state_observer=state_observer,
            logits_processor=processors,
            **kwargs,
        )
        sequences = result if isinstance(result, Tensor) else result.sequences
        answers = sequences[:, merged.token_ids.shape[1] :]
        copies = len(answers) // len(input_ids)
        returned = torch.cat((input_ids.repeat_interleave(copies, dim=0), answers), dim=1)
        if isinstance(result, Tensor):
            return returned
        result["sequences"] = returned
        if output_masks:
            # One state for every answer token but the last, whatever came before.
            table = (
                torch.stack(states[len(states) + 1 - answers.shape[1] :], dim=1)
                if stepwise and answers.shape[1] > 1
                else self._answer_states(merged, answers, copies)
            )
            result["mask_logits"] = self._answer_masks(answers, table, merged, images, copies)
        return result

    def _is_stepwise(self, generation_config: GenerationConfig | None, options: Mapping[str, Any]) -> bool:
        """Whether each step of the generation adds one token to each sequence for good."""
        config = copy.deepcopy(self.generation_config if generation_config is None else generation_config)
        config.update(**{name: value for name, value in options.items() if name in vars(config)})
        mode = config.get_generation_mode(options.get("assistant_model"))
        return mode in (GenerationMode.GREEDY_SEARCH, GenerationMode.SAMPLE)

    def _known_tokens(self, token_ids: Tensor) -> Tensor:
        """Tokens without a row in the head would be out of the range of scores: the region's stands for them."""
        rows = self.lm_head.out_features
        stand_in = self.config.region_token_id if self.config.region_token_id < rows else 0
        return token_ids.masked_fill(token_ids >= rows, stand_in)

    def _answer_states(self, merged: MergedInputs, answers: Tensor, copies: int) -> Tensor:
        """Reads finished answers [R, A] once more: their hidden states [R, A, E]."""
        embeds = torch.cat(
            (merged.inputs_embeds.repeat_interleave(copies, dim=0), self.get_input_embeddings()(answers)), dim=1
        )
        mask = torch.cat((merged.attention_mask.repeat_interleave(copies, dim=0), torch.ones_like(answers)), dim=1)
        positions = (mask.cumsum(1) - 1).clamp_min(0)
        read = self.model(inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False)
        return read.last_hidden_state[:, -answers.shape[1] :]

    def _answer_masks(
        self, answers: Tensor, states: Tensor, merged: MergedInputs, images: OmgLlavaImages | None, copies: int
    ) -> tuple[Tensor, ...]:
        """Mask logits [N, h, w] of each answer; ``states`` [R, at least A - 1, E] follow the tokens of the answers."""
        side = self.config.image_size // 4
        pictures = merged.image_index.repeat_interleave(copies, dim=0)
        wanted = (answers[:, :-1] == self.config.segment_token_id) & (pictures != NO_IMAGE)[:, None]
        rows, columns = wanted.nonzero(as_tuple=True)
        masks = states.new_zeros(0, side, side)
        if len(rows) and images is not None:
            masks = self.model.decode_masks(states[rows, columns], pictures[rows], images)[-1]
        return tuple(masks.split(wanted.sum(1).tolist()))


__all__ = ["OmgLlavaGenerationMixin", "StateObserver"]
