"""OMG-LLaVA: a language model that reads what OMG-Seg sees, and answers in words and masks.

Letters: B conversations, S tokens of the prompt (one for a picture), M tokens with all of the picture's, I pictures,
H×W the square network input, Q object queries, C their width, E width of the language model, N masks or prompts,
h×w the stride-4 grid.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForUniversalSegmentation, GenerationConfig
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .configuration_omg_llava import OmgLlavaConfig
from .generation_omg_llava import OmgLlavaGenerationMixin, StateObserver
from .grounding_omg_llava import LossPoints, VisualPrompts, visual_prompts
from .head_omg_llava import LogitScaling
from .loss_omg_llava import grounding_losses, projection_loss
from .merging_omg_llava import NO_IMAGE, MergedInputs, merge
from .outputs_omg_llava import OmgLlavaImages, OmgLlavaModelOutput, OmgLlavaOutput
from .packing_omg_llava import find_packed, unpack_state
from .projector_omg_llava import Places, TextToVision, VisionToText
from .vision_omg_llava import OmgLlavaVisionMixin


class OmgLlavaPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by the OMG-LLaVA models."""

    config: OmgLlavaConfig
    base_model_prefix = "model"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement = ["past_key_values"]
    # Which pixels a query looks at and which queries are kept hangs on comparisons that half precision turns over.
    _keep_in_fp32_modules_strict = ["vision_tower", "mask_decoder"]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any = None, *model_args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """As transformers'; weights that lie packed in the folder or repository are unpacked."""
        name = pretrained_model_name_or_path
        whole: Any = super().from_pretrained
        packed = None if name is None else find_packed(name, kwargs)
        if packed is None:
            return whole(name, *model_args, config=config, **kwargs)
        if not isinstance(config, OmgLlavaConfig):
            config = OmgLlavaConfig.from_pretrained(str(name if config is None else config))
        state = unpack_state(load_file(packed))
        loaded = whole(None, *model_args, config=config, state_dict=state, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.can_generate():
            model.generation_config = GenerationConfig.from_pretrained(str(name))
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VisionToText):
            init.normal_(module.separator, std=self.config.initializer_range)
        elif isinstance(module, Places):
            init.zeros_(module.rows)
            init.zeros_(module.columns)
        elif isinstance(self, OmgLlavaModel) and self.mask_decoder is not None and module is self.mask_decoder:
            frozen = dict(self.vision_tower.model.mask_decoder.named_parameters())
            for name, parameter in module.named_parameters():
                init.copy_(parameter, frozen[name])


class OmgLlavaModel(OmgLlavaPreTrainedModel, OmgLlavaVisionMixin):
    """The segmenter, the projections and the language model without its head."""

    def __init__(self, config: OmgLlavaConfig):
        super().__init__(config)
        # With its classes: how sure the segmenter is of an object decides what the language model hears of it.
        self.vision_tower = AutoModelForUniversalSegmentation.from_config(config.vision_config)
        self.language_model = AutoModel.from_config(config.text_config)
        queries = 2 * self.vision_tower.config.hidden_size
        pixels = self.vision_tower.model.backbone.channels[-1] * config.pixel_shuffle**2
        width = self.language_model.config.hidden_size
        self.projector = VisionToText(pixels, queries, width)
        self.text_to_vision = TextToVision(width, queries)
        self.places = None
        if config.place_embeddings:
            self.places = Places(config.grid_size, width)
        self.mask_decoder = None
        if config.own_mask_decoder:
            self.mask_decoder = copy.deepcopy(self.vision_tower.model.mask_decoder)
        self._freeze()
        self.post_init()

    def _freeze(self) -> None:
        self.vision_tower.requires_grad_(False)
        if self.mask_decoder is not None:
            # The memories are the frozen ones, and so is what tells them apart.
            self.mask_decoder.level_embed.requires_grad_(False)

    def train(self, mode: bool = True):
        """The segmenter stays frozen and in evaluation mode."""
        super().train(mode)
        self.vision_tower.eval()
        # from_pretrained makes parameters anew, which learn; it ends with a call of this.
        self._freeze()
        return self

    # --- reading ---------------------------------------------------------------------------------------------------

    def merge_inputs(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        images: OmgLlavaImages | None = None,
        prompts: VisualPrompts | None = None,
        padding_side: Literal["left", "right"] = "right",
    ) -> MergedInputs:
        """Text, pictures and prompts as one sequence of embeddings; see :func:`merge`."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        if prompts is not None and images is None:
            raise ValueError("prompts: expected a picture that they are on, got none")
        prompt_tokens = self.encode_prompts(prompts, images) if prompts is not None and images is not None else ()
        return merge(
            input_ids,
            attention_mask,
            labels,
            embed=self.get_input_embeddings(),
            image_tokens=() if images is None or images.tokens is None else images.tokens,
            prompt_tokens=prompt_tokens,
            image_token_id=self.config.image_token_id,
            prompt_token_ids=(self.config.mark_token_id, self.config.region_token_id),
            padding_side=padding_side,
        )

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        images: OmgLlavaImages | None = None,
        prompts: VisualPrompts | None = None,
        **kwargs,
    ) -> OmgLlavaModelOutput:
        """Sees, merges and reads; arguments as of :meth:`OmgLlavaForConditionalGeneration.forward`.

        A cache that holds something is continued with text alone.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("input_ids, inputs_embeds: expected one of them, got both or neither")
        if pixel_values is not None and images is not None:
            raise ValueError("pixel_values, images: expected one of them, got both")
        if pixel_values is not None:
            images = self.encode_images(pixel_values)
        merged = None
        if input_ids is not None:
            if past_key_values is not None and past_key_values.get_seq_length():
                inputs_embeds = self.get_input_embeddings()(input_ids)
            else:
                merged = self.merge_inputs(input_ids, attention_mask, labels, images=images, prompts=prompts)
                inputs_embeds, attention_mask = merged.inputs_embeds, merged.attention_mask
                position_ids = merged.position_ids
        read = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs,
        )
        return OmgLlavaModelOutput(
            last_hidden_state=read.last_hidden_state,
            past_key_values=read.past_key_values,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
            images=images,
            merged=merged,
        )


class OmgLlavaForConditionalGeneration(OmgLlavaPreTrainedModel, OmgLlavaGenerationMixin):
    """OMG-LLaVA with the head of its language model: answers with masks, and the losses that train it."""

    def __init__(self, config: OmgLlavaConfig):
        super().__init__(config)
        self.model = OmgLlavaModel(config)
        text = self.model.language_model.config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=config.head_bias)
        self.logit_scaling = LogitScaling.of(text)
        # Where the two are one: language models have different names for their embedding.
        embedding = self.get_input_embeddings()
        [name] = [name for name, module in self.named_modules() if module is embedding]
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        self.post_init()

    def encode_images(self, pixel_values: Tensor) -> OmgLlavaImages:
        """Sees pictures once for many questions; see :meth:`OmgLlavaModel.encode_images`."""
        return self.model.encode_images(pixel_values)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        mask_labels: Sequence[Tensor] | None = None,
        images: OmgLlavaImages | None = None,
        input_points: Tensor | None = None,
        input_point_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        prompt_slots: Tensor | None = None,
        output_masks: bool = False,
        logits_to_keep: int | Tensor = 0,
        state_observer: StateObserver | None = None,
        loss_points: LossPoints | None = None,
        normalizers: Mapping[str, Tensor] | None = None,
        **kwargs,
    ) -> OmgLlavaOutput:
        """Reads conversations about pictures; with labels, computes the losses.

        Args:
            input_ids: [B, S] with one image token for each picture and one mark or region token for each prompt.
            pixel_values: [I, 3, H, W] for the conversations with an image token, in their order.
            attention_mask: [B, S], 0 on padding.
            position_ids: [B, M]; only where embeddings are given or a cache is continued.
            inputs_embeds: [B, M, E] instead of ``input_ids``.
            labels: [B, S], -100 where there is no loss.
            mask_labels: B tensors [n, H, W] (0 or 1, on the network input), one for each [SEG] of the labels.
            images: From :meth:`encode_images`, instead of ``pixel_values``.
            input_points, input_point_labels, input_boxes, input_masks, prompt_slots: See :class:`VisualPrompts`.
            output_masks: Decode the [SEG] tokens of ``input_ids``; with labels those of the labels always are.
            logits_to_keep: How many logits from the end to compute; 0 = all.
            state_observer: Is given the last hidden state of this call.
            loss_points: Where the mask losses look; None = random points as configured.
            normalizers: What the losses are divided by where a step has several batches: the number of labelled
                ``tokens`` and of ``masks`` of all of them. None = those of this batch.

        Raises:
            ValueError: Tokens that do not fit pictures, prompts or masks.
        """
        prompts = visual_prompts(input_points, input_point_labels, input_boxes, input_masks, prompt_slots)
        read = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            images=images,
            prompts=prompts,
            **kwargs,
        )
        states, merged = read.last_hidden_state, read.merged
        if state_observer is not None:
            state_observer(states[:, -1])
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.logit_scaling(self.lm_head(states[:, kept].to(self.lm_head.weight.dtype)))
        output = OmgLlavaOutput(
            logits=logits,
            past_key_values=read.past_key_values,
            hidden_states=read.hidden_states,
            attentions=read.attentions,
            images=read.images,
        )
        if merged is None:
            return output
        output.labels = merged.labels
        if (output_masks or labels is not None) and read.images is not None:
            self._decode_segments(output, states, merged, read.images)
        if labels is not None:
            self._add_losses(output, merged, mask_labels, loss_points, normalizers)
        return output

    def _decode_segments(
        self, output: OmgLlavaOutput, states: Tensor, merged: MergedInputs, images: OmgLlavaImages
    ) -> None:
        """Fills in the masks of the [SEG] tokens: of the labels if there are any, otherwise of the text."""
        tokens = merged.token_ids if merged.labels is None else merged.labels
        pictured = (merged.image_index != NO_IMAGE)[:, None]
        rows, columns = ((tokens == self.config.segment_token_id) & pictured).nonzero(as_tuple=True)
        output.mask_rows = rows
        if len(rows):
            layers = self.model.decode_masks(
                states[rows, columns],
                merged.image_index[rows],
                images,
                output_auxiliary=merged.labels is not None,
            )
            output.mask_logits, output.auxiliary_mask_logits = layers[-1], layers[:-1]

    def _add_losses(
        self,
        output: OmgLlavaOutput,
        merged: MergedInputs,
        mask_labels: Sequence[Tensor] | None,
        points: LossPoints | None,
        normalizers: Mapping[str, Tensor] | None,
    ) -> None:
        text = self.loss_function(
            logits=output.logits,
            labels=merged.labels,
            vocab_size=self.lm_head.out_features,
            num_items_in_batch=None if normalizers is None else normalizers["tokens"],
        )
        losses = {"loss_text": text, "loss_mask": text.new_zeros(()), "loss_dice": text.new_zeros(())}
        total = None if normalizers is None else normalizers["masks"]
        losses |= grounding_losses(output, mask_labels, config=self.config, points=points, total=total)
        if self.config.projection_loss_weight and output.images is not None:
            loss = projection_loss(output.images, self.model.projector, self.model.text_to_vision)
            losses["loss_projection"] = self.config.projection_loss_weight * loss
        output.loss_dict = losses
        output.loss = torch.stack(list(losses.values())).sum()


__all__ = [
    "OmgLlavaForConditionalGeneration",
    "OmgLlavaModel",
    "OmgLlavaPreTrainedModel",
]
