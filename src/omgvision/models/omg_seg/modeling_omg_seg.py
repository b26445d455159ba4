"""OMG-Seg: one encoder-decoder for every segmentation task.

Letters: B pictures or clips, T frames (1 for a picture), H×W the padded network input, h×w its stride-4 grid,
Q queries (objects or prompts), C width, K classes, P prototypes a class, D CLIP space.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoBackbone, CLIPTextModelWithProjection
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from .backbone_omg_seg import LinearClipHead, MlpClipHead
from .classifier_omg_seg import Classifier, class_logits, fuse_with_clip, mask_pool, resize_through_canvas
from .configuration_omg_seg import ClipConvNextConfig, OmgSegConfig
from .loss_omg_seg import (
    count_targets,
    dense_class_loss,
    label_maps,
    object_losses,
    prompt_losses,
)
from .mask_decoder_omg_seg import AttentionRegion, MaskDecoder, OmgSegDecoderOutput, mlp
from .matcher_omg_seg import LossWeights, Predictions, match
from .outputs_omg_seg import OmgSegEncoderOutput, OmgSegModelOutput, OmgSegOutput
from .pixel_decoder_omg_seg import PixelDecoder, SamplingOffsets, SamplingWeights
from .points_omg_seg import PointSource, RandomPoints
from .prompt_encoder_omg_seg import PromptEncoder, PromptQueries, place_grid

STRIDES = (4, 8, 16, 32)

DENSE_LOSS_PIXELS = 1024
"""Pixels of each picture that the auxiliary dense loss looks at."""


class OmgSegPreTrainedModel(PreTrainedModel):
    """Loading, saving and initialisation shared by the OMG-Seg models."""

    config: OmgSegConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _no_split_modules = ["PixelDecoderLayer", "MaskDecoderLayer", "ConvNextBlock"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Backbone and text tower are models of their own with their own initialisation.
        if isinstance(module, PreTrainedModel) and not isinstance(module, OmgSegPreTrainedModel):
            return
        # transformers passes over modules without parameters of their own, so each start hangs on a class with some.
        if isinstance(module, SamplingOffsets):
            init.zeros_(module.weight)
            init.copy_(module.bias, module.initial_bias())
        elif isinstance(module, SamplingWeights):
            init.zeros_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm | nn.GroupNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, PixelDecoder):
            init.normal_(module.level_encoding)
        elif isinstance(module, MaskDecoder):
            init.normal_(module.level_embed)
        elif isinstance(module, PromptEncoder):
            init.normal_(module.mask_token)
            init.normal_(module.prompt_embed)
            if module.place_embed is not None:
                init.normal_(module.place_embed.weight)
        elif isinstance(module, OmgSegModel):
            init.normal_(module.query_features)
            init.normal_(module.query_positions)
        elif isinstance(module, OmgSegForUniversalSegmentation):
            init.zeros_(module.class_embeddings)
            init.zeros_(module.thing_mask)
            init.ones_(module.seen_mask)


class OmgSegModel(OmgSegPreTrainedModel):
    """Everything below the vocabulary: pixels → memories and mask features, queries → masks."""

    def __init__(self, config: OmgSegConfig):
        super().__init__(config)
        self.backbone = AutoBackbone.from_config(config.backbone_config)
        self.pixel_decoder = PixelDecoder(
            self.backbone.channels,
            config.hidden_size,
            heads=config.num_attention_heads,
            layers=config.encoder_layers,
            points=config.num_sampling_points,
            ffn_dim=config.encoder_ffn_dim,
            groups=config.group_norm_groups,
        )
        self.mask_decoder = MaskDecoder(
            config.hidden_size,
            heads=config.num_attention_heads,
            layers=config.decoder_layers,
            ffn_dim=config.decoder_ffn_dim,
            levels=config.num_feature_levels,
        )
        self.query_features = nn.Parameter(torch.empty(config.num_queries, config.hidden_size))
        self.query_positions = nn.Parameter(torch.empty(config.num_queries, config.hidden_size))
        self.prompt_encoder = (
            PromptEncoder(
                config.hidden_size,
                box_prompt_index=config.box_prompt_index,
                point_refinement=config.point_refinement,
                query_stride=config.query_stride,
            )
            if config.prompt_queries
            else None
        )
        if config.freeze_backbone:
            self.backbone.requires_grad_(False)
        self.post_init()

    def train(self, mode: bool = True):
        """A frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.config.freeze_backbone:
            self.backbone.eval()
        return self

    def encode(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> OmgSegEncoderOutput:
        """Encodes pictures or clips.

        Args:
            pixel_values: [B, 3, H, W] or [B, T, 3, H, W], normalised.
            pixel_mask: [B, H, W], 1 on real pixels, 0 on the padding at the right and bottom; None = no padding.

        Raises:
            ValueError: For another number of dimensions or a side below 32 pixels.
        """
        if pixel_values.dim() not in (4, 5):
            raise ValueError(f"pixel_values: expected [B, 3, H, W] or [B, T, 3, H, W], got {tuple(pixel_values.shape)}")
        clips = pixel_values if pixel_values.dim() == 5 else pixel_values[:, None]
        batch, frames, _, height, width = clips.shape
        if min(height, width) < STRIDES[-1]:
            raise ValueError(f"pixel_values: expected sides of at least {STRIDES[-1]} pixels, got {height}x{width}")
        features = self._backbone_features(clips.flatten(0, 1))
        mask_features, memories, shapes = self.pixel_decoder(features)
        if pixel_mask is None:
            image_sizes = torch.tensor([[height, width]] * batch, device=pixel_values.device)
        else:
            real = pixel_mask.bool()
            image_sizes = torch.stack((real.any(2).sum(1), real.any(1).sum(1)), dim=1)
        return OmgSegEncoderOutput(
            mask_features=mask_features.unflatten(0, (batch, frames)).transpose(1, 2),
            memories=tuple(memory.reshape(batch, -1, memory.shape[-1]) for memory in memories),
            memory_shapes=tuple(shapes),
            clip_features=features[-1].unflatten(0, (batch, frames)),
            image_sizes=image_sizes,
            canvas_size=torch.tensor((height, width)),
        )

    def _backbone_features(self, pixel_values: Tensor) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze_backbone):
            features = self.backbone(pixel_values).feature_maps
        features = list(features)[-len(STRIDES) :]
        sizes = [(pixel_values.shape[-2] // stride, pixel_values.shape[-1] // stride) for stride in STRIDES]
        if all(feature.shape[-2:] == features[0].shape[-2:] for feature in features):
            # Plain transformers keep one resolution; give them the pyramid that the pixel decoder expects.
            features = [
                F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
                for feature, size in zip(features, sizes, strict=True)
            ]
        return features

    def decode(
        self,
        queries: Tensor,
        query_positions: Tensor,
        encoder_outputs: OmgSegEncoderOutput,
        *,
        decoder: MaskDecoder | None = None,
        self_allowed: Tensor | None = None,
        region: AttentionRegion | None = None,
        first_mask_logits: Tensor | None = None,
        mask_prior: Tensor | None = None,
        output_auxiliary: bool = False,
    ) -> OmgSegDecoderOutput:
        """Queries of any origin → masks.

        Args:
            queries, query_positions: [B, Q, C].
            encoder_outputs: From :meth:`encode`.
            decoder: A decoder of one's own (OMG-LLaVA's trained copy); None = the model's.
            self_allowed: [Q, Q] bool, which queries see each other; None = all.
            region: Limits where queries look.
            first_mask_logits: [B, Q, T, h, w] that the first layer looks at; NaN = predict.
            mask_prior: [B, Q, T, h, w] logits added to every prediction.
            output_auxiliary: Return the predictions of every layer.
        """
        assert encoder_outputs.memories is not None and encoder_outputs.memory_shapes is not None
        assert encoder_outputs.mask_features is not None
        return (decoder or self.mask_decoder)(
            queries,
            query_positions,
            encoder_outputs.memories,
            encoder_outputs.memory_shapes,
            encoder_outputs.mask_features,
            self_allowed=self_allowed,
            region=region,
            first_mask_logits=first_mask_logits,
            mask_prior=mask_prior,
            output_auxiliary=output_auxiliary,
        )

    def decode_objects(
        self, encoder_outputs: OmgSegEncoderOutput, *, output_auxiliary: bool = False
    ) -> OmgSegDecoderOutput:
        """Decodes the learned object queries, and after them those of the places of a grid, where there are some."""
        assert encoder_outputs.mask_features is not None
        batch = encoder_outputs.mask_features.shape[0]
        features = self.query_features.expand(batch, -1, -1)
        positions = self.query_positions.expand(batch, -1, -1)
        prior = None
        if self.config.query_stride:
            assert self.prompt_encoder is not None
            assert encoder_outputs.image_sizes is not None and encoder_outputs.canvas_size is not None
            height, width = encoder_outputs.canvas_size.tolist()
            places = self.prompt_encoder.places(
                image_sizes=encoder_outputs.image_sizes,
                canvas_size=(height, width),
                mask_features=encoder_outputs.mask_features,
            )
            assert places.mask_prior is not None
            prior = F.pad(places.mask_prior, (0, 0, 0, 0, 0, 0, features.shape[1], 0))
            features = torch.cat((features, places.features), dim=1)
            positions = torch.cat((positions, places.positions), dim=1)
        return self.decode(features, positions, encoder_outputs, mask_prior=prior, output_auxiliary=output_auxiliary)

    def count_object_queries(self, canvas: tuple[int, int]) -> int:
        """How many object queries there are for a network input of (H, W) pixels."""
        stride = self.config.query_stride
        return self.config.num_queries + (math.prod(place_grid(canvas, stride)) if stride else 0)

    def decode_prompts(
        self, prompts: PromptQueries, encoder_outputs: OmgSegEncoderOutput, *, output_auxiliary: bool = False
    ) -> OmgSegDecoderOutput:
        """Decodes prompt queries, each on its own: it sees no other query."""
        count = prompts.features.shape[1]
        return self.decode(
            prompts.features,
            prompts.positions,
            encoder_outputs,
            self_allowed=torch.eye(count, dtype=torch.bool, device=prompts.features.device),
            region=prompts.region,
            first_mask_logits=prompts.first_mask_logits,
            mask_prior=prompts.mask_prior,
            output_auxiliary=output_auxiliary,
        )

    @can_return_tuple
    def forward(self, pixel_values: Tensor, pixel_mask: Tensor | None = None, **kwargs) -> OmgSegModelOutput:
        """Encodes the pictures and decodes the object queries; see :meth:`encode` for the shapes."""
        encoded = self.encode(pixel_values, pixel_mask)
        decoded = self.decode_objects(encoded)
        assert decoded.layer_mask_logits is not None
        masks = decoded.layer_mask_logits[-1]
        return OmgSegModelOutput(
            query_features=decoded.query_features,
            masks_queries_logits=masks if pixel_values.dim() == 5 else masks[:, :, 0],
            mask_features=encoded.mask_features,
            encoder_outputs=encoded,
            decoder_outputs=decoded,
        )


class OmgSegForUniversalSegmentation(OmgSegPreTrainedModel):
    """OMG-Seg with its vocabulary: masks, classes of a run-time vocabulary, prompts, losses."""

    def __init__(self, config: OmgSegConfig):
        super().__init__(config)
        self.model = OmgSegModel(config)
        self.classifier = Classifier(config.hidden_size, config.embedding_dim)
        self.iou_head = mlp(config.hidden_size, config.hidden_size, 1)
        self.clip_head = self._build_clip_head(config)
        text_config = config.text_tower
        self.text_model = None if text_config is None else CLIPTextModelWithProjection(text_config)
        shape = (config.num_classes, config.num_prototypes, config.embedding_dim)
        self.class_embeddings: Tensor
        self.thing_mask: Tensor
        self.seen_mask: Tensor
        self.register_buffer("class_embeddings", torch.zeros(shape))
        self.register_buffer("thing_mask", torch.zeros(config.num_classes, dtype=torch.bool))
        self.register_buffer("seen_mask", torch.ones(config.num_classes, dtype=torch.bool))
        if config.freeze_backbone and self.clip_head is not None:
            self.clip_head.requires_grad_(False)
        self.post_init()

    def _build_clip_head(self, config: OmgSegConfig) -> nn.Module | None:
        if config.clip_head is None:
            return None
        channels = self.model.backbone.channels[-1]
        backbone = config.backbone_config
        eps = backbone.layer_norm_eps if isinstance(backbone, ClipConvNextConfig) else 1e-6
        head = MlpClipHead if config.clip_head == "mlp" else LinearClipHead
        return head(channels, config.embedding_dim, layer_norm_eps=eps)

    # --- vocabulary ------------------------------------------------------------------------------------------------

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Token ids [N, S] → text embeddings [N, D], not normalised.

        Raises:
            ValueError: When the model has no text tower.
        """
        if self.text_model is None:
            raise ValueError(
                "text tower: this model has none, so it cannot encode class names; convert it together with the "
                "OpenCLIP file (omg convert OMG_SEG.pth OPEN_CLIP.bin OUT) or call set_class_embeddings"
            )
        return self.text_model(input_ids=input_ids, attention_mask=attention_mask).text_embeds

    def set_class_embeddings(
        self,
        embeddings: Tensor,
        thing_mask: Tensor,
        seen_mask: Tensor | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        """Makes a vocabulary the model's own; it is saved with the weights.

        Args:
            embeddings: [K, P, D] unit norm; classes with fewer synonyms repeat one.
            thing_mask: [K] bool, countable classes.
            seen_mask: [K] bool, classes of the training vocabulary (CLIP fusion); None = all.
            names: K names for ``config.id2label``.

        Raises:
            ValueError: When a shape does not fit.
        """
        if embeddings.dim() != 3 or embeddings.shape[2] != self.config.embedding_dim:
            raise ValueError(
                f"embeddings: expected [classes, prototypes, {self.config.embedding_dim}], "
                f"got {tuple(embeddings.shape)}"
            )
        classes, prototypes, _ = embeddings.shape
        if seen_mask is None:
            seen_mask = torch.ones(classes, dtype=torch.bool)
        for label, mask in (("thing_mask", thing_mask), ("seen_mask", seen_mask)):
            if tuple(mask.shape) != (classes,):
                raise ValueError(f"{label}: expected one flag for each of {classes} classes, got {tuple(mask.shape)}")
        if names is not None and len(names) != classes:
            raise ValueError(f"names: expected one for each of {classes} classes, got {len(names)}")
        device, dtype = self.class_embeddings.device, self.class_embeddings.dtype
        self.class_embeddings = embeddings.detach().to(device, dtype)
        self.thing_mask = thing_mask.to(device, torch.bool)
        self.seen_mask = seen_mask.to(device, torch.bool)
        self.config.num_classes, self.config.num_prototypes = classes, prototypes
        labels = list(names) if names is not None else [f"class {index}" for index in range(classes)]
        self.config.id2label = dict(enumerate(labels))
        self.config.label2id = {name: index for index, name in enumerate(labels)}

    def set_vocabulary(
        self,
        names: Sequence[str],
        *,
        processor,
        things: Sequence[bool] | None = None,
        seen_mask: Tensor | None = None,
    ) -> None:
        """Encodes class names with the text tower and makes them the model's vocabulary.

        Args:
            names: Class names; synonyms separated by commas become prototypes of one class.
            processor: ``OmgSegProcessor``.
            things: One flag a name, countable or not; None = all are.
            seen_mask: [K] bool, see :meth:`set_class_embeddings`.
        """
        embeddings = processor.encode_vocabulary(names, model=self)
        flags = torch.ones(len(names), dtype=torch.bool) if things is None else torch.tensor(list(things))
        self.set_class_embeddings(embeddings, flags, seen_mask, names)

    # --- prediction ------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True):
        """A frozen CLIP head stays in evaluation mode, as the backbone does."""
        super().train(mode)
        if self.config.freeze_backbone and self.clip_head is not None:
            self.clip_head.eval()
        return self

    def encode(self, pixel_values: Tensor, pixel_mask: Tensor | None = None) -> OmgSegEncoderOutput:
        """Encodes once for many calls of :meth:`forward`; see :meth:`OmgSegModel.encode`."""
        return self.model.encode(pixel_values, pixel_mask)

    @can_return_tuple
    def forward(
        self,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        input_points: Tensor | None = None,
        input_point_labels: Tensor | None = None,
        input_boxes: Tensor | None = None,
        input_masks: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        previous_mask_logits: Tensor | None = None,
        mask_labels: Sequence[Tensor] | None = None,
        class_labels: Sequence[Tensor] | None = None,
        class_embeddings: Tensor | None = None,
        thing_mask: Tensor | None = None,
        seen_mask: Tensor | None = None,
        clip_fusion: bool | None = None,
        encoder_outputs: OmgSegEncoderOutput | None = None,
        output_auxiliary: bool = False,
        loss_points: PointSource | None = None,
        generators: Sequence[torch.Generator] | None = None,
        normalizers: Mapping[str, Tensor] | None = None,
        **kwargs,
    ) -> OmgSegOutput:
        """Segments pictures or clips, by object queries or, when prompts are given, by one query a prompt.

        Args:
            pixel_values: [B, 3, H, W] or [B, T, 3, H, W], normalised; or ``encoder_outputs``.
            pixel_mask: [B, H, W], 1 on real pixels. Prompts are relative to the unpadded size. As in the original, the
                attention itself does not know the padding.
            input_points: [B, N, P, 2], N prompts of P points, xy pixels of the network input. All prompts of a clip are
                on its first frame, and each query predicts its object in all frames.
            input_point_labels: [B, N, P], 1 positive, 0 negative, -10 padding; None = all positive.
            input_boxes: [B, N, 4] xyxy pixels of the network input.
            input_masks: [B, N, H, W], regions: the query looks at the region alone.
            prompt_mask: [B, Q] bool, which prompts (points, boxes, masks in this order) are real; None = all.
            previous_mask_logits: [B, N, h, w] of the point prompts, from an earlier call, for refinement; NaN where a
                prompt has none.
            mask_labels: B tensors [n, H, W] or [n, T, H, W] for the losses; with prompts, mask i belongs to prompt i.
            class_labels: B tensors [n], -1 for a mask without class. Not needed with prompts.
            class_embeddings: [K, P, D] unit norm instead of the stored vocabulary; differentiable.
            thing_mask, seen_mask: [K] bool of those classes.
            clip_fusion: Also compute ``fused_class_logits``.
            encoder_outputs: From :meth:`encode`, instead of pixels.
            output_auxiliary: Return the predictions of every layer.
            loss_points: Where the losses look; None = random points as configured.
            generators: One for each picture, on its device: what the losses draw for it does not depend on the others
                of the batch then. None = torch's own.
            normalizers: What the losses are divided by where a step has several batches: the sums of their
                :meth:`loss_normalizers`, or with prompts their number as ``prompts``. What is missing is, as in the
                original, the count of this batch.

        Raises:
            ValueError: When neither pixels nor encoded pictures are given, the vocabulary is empty, or prompts or CLIP
                fusion are asked of a model without.
        """
        if encoder_outputs is None:
            if pixel_values is None:
                raise ValueError("pixel_values: expected a picture or encoder_outputs, got neither")
            encoder_outputs = self.encode(pixel_values, pixel_mask)
        is_clip = pixel_values is not None and pixel_values.dim() == 5
        assert encoder_outputs.mask_features is not None
        frames = encoder_outputs.mask_features.shape[2]
        is_clip = is_clip or frames > 1

        has_prompts = any(prompt is not None for prompt in (input_points, input_boxes, input_masks))
        wants_loss = mask_labels is not None
        if has_prompts:
            prompts = self._encode_prompts(
                encoder_outputs, input_points, input_point_labels, input_boxes, input_masks, previous_mask_logits
            )
            decoded = self.model.decode_prompts(
                prompts, encoder_outputs, output_auxiliary=output_auxiliary or wants_loss
            )
        else:
            decoded = self.model.decode_objects(encoder_outputs, output_auxiliary=output_auxiliary or wants_loss)
        assert decoded.layer_query_features is not None and decoded.layer_mask_logits is not None

        vocabulary = self.class_embeddings if class_embeddings is None else class_embeddings
        if class_embeddings is None:
            thing_mask, seen_mask = self.thing_mask, self.seen_mask
        class_layers = [
            self._classify(features, masks, encoder_outputs, vocabulary)
            for features, masks in zip(decoded.layer_query_features, decoded.layer_mask_logits, strict=True)
        ]
        iou_layers = [self.iou_head(features)[..., 0] for features in decoded.layer_query_features]
        mask_layers = decoded.layer_mask_logits

        output = OmgSegOutput(
            class_queries_logits=class_layers[-1],
            masks_queries_logits=mask_layers[-1] if is_clip else mask_layers[-1][:, :, 0],
            iou_logits=iou_layers[-1],
            query_features=decoded.query_features,
            mask_features=encoder_outputs.mask_features,
            image_sizes=encoder_outputs.image_sizes,
            canvas_size=encoder_outputs.canvas_size,
            thing_mask=thing_mask,
            prompt_mask=prompt_mask,
            encoder_outputs=encoder_outputs,
        )
        if output_auxiliary:
            output.auxiliary_logits = [
                {
                    "class_queries_logits": classes,
                    "masks_queries_logits": masks if is_clip else masks[:, :, 0],
                    "iou_logits": ious,
                }
                for classes, masks, ious in zip(class_layers[:-1], mask_layers[:-1], iou_layers[:-1], strict=True)
            ]
        if clip_fusion:
            output.fused_class_logits = self._fuse(
                class_layers[-1], mask_layers[-1], encoder_outputs, vocabulary, seen_mask
            )
        if mask_labels is not None:
            predictions = Predictions(torch.stack(class_layers), torch.stack(iou_layers), mask_layers)
            output.loss_dict = self._losses(
                predictions,
                encoder_outputs,
                vocabulary,
                [masks if masks.dim() == 4 else masks[:, None] for masks in mask_labels],
                class_labels,
                prompt_mask,
                has_prompts,
                loss_points,
                generators,
                normalizers,
            )
            output.loss = torch.stack(list(output.loss_dict.values())).sum()
        return output

    def _encode_prompts(
        self,
        encoded: OmgSegEncoderOutput,
        points: Tensor | None,
        labels: Tensor | None,
        boxes: Tensor | None,
        masks: Tensor | None,
        previous: Tensor | None,
    ) -> PromptQueries:
        if self.model.prompt_encoder is None:
            raise ValueError(
                "prompts: this model was trained without prompt queries (config.prompt_queries is False); "
                "use a checkpoint with them"
            )
        assert encoded.image_sizes is not None and encoded.canvas_size is not None
        assert encoded.mask_features is not None
        height, width = encoded.canvas_size.tolist()
        return self.model.prompt_encoder(
            image_sizes=encoded.image_sizes,
            canvas_size=(height, width),
            mask_features=encoded.mask_features,
            points=points,
            labels=labels,
            boxes=boxes,
            masks=masks,
            previous_mask_logits=previous,
        )

    def _classify(
        self, features: Tensor, mask_logits: Tensor, encoded: OmgSegEncoderOutput, vocabulary: Tensor
    ) -> Tensor:
        embeddings = self.classifier(features, mask_logits, encoded.mask_features)
        return class_logits(embeddings, vocabulary, self.config.logit_scale)

    def _fuse(
        self,
        query_logits: Tensor,
        mask_logits: Tensor,
        encoded: OmgSegEncoderOutput,
        vocabulary: Tensor,
        seen_mask: Tensor | None,
    ) -> Tensor:
        if self.clip_head is None:
            raise ValueError(
                "clip_fusion: expected a model with a CLIP head, got one without (config.clip_head is None)"
            )
        if not len(vocabulary):
            raise ValueError("clip_fusion: the vocabulary is empty; call set_vocabulary or set_class_embeddings first")
        assert encoded.clip_features is not None and encoded.canvas_size is not None
        features = encoded.clip_features.transpose(1, 2)
        height, width = encoded.canvas_size.tolist()
        small = resize_through_canvas(mask_logits, (height, width), (features.shape[-2], features.shape[-1]))
        pooled, count = mask_pool(features, small.to(features.dtype))
        clip = class_logits(self.clip_head(pooled), vocabulary, self.config.logit_scale)[..., :-1]
        # A mask without a pixel on CLIP's grid has no CLIP opinion.
        visible = (count > 0).to(clip.dtype)
        if seen_mask is None:
            seen_mask = torch.ones(len(vocabulary), dtype=torch.bool, device=clip.device)
        return fuse_with_clip(
            query_logits,
            clip,
            seen_mask,
            self.config.fusion_alpha * visible,
            self.config.fusion_beta * visible,
        )

    # --- losses ----------------------------------------------------------------------------------------------------

    def loss_normalizers(
        self, mask_labels: Sequence[Tensor], class_labels: Sequence[Tensor], *, canvas: tuple[int, int]
    ) -> dict[str, Tensor]:
        """What the losses of object queries count, from labels alone; sums over batches are ``forward``'s normalizers.

        Args:
            mask_labels, class_labels: As of :meth:`forward`.
            canvas: (H, W) of the network input.

        Returns:
            Float64 scalars, see :func:`count_targets`.
        """
        return count_targets(
            [masks if masks.dim() == 4 else masks[:, None] for masks in mask_labels],
            class_labels,
            queries=self.model.count_object_queries(canvas),
            void=self.config.void_weight,
            grid=(canvas[0] // STRIDES[0], canvas[1] // STRIDES[0]),
            pixels=DENSE_LOSS_PIXELS,
        )

    def _losses(
        self,
        predictions: Predictions,
        encoded: OmgSegEncoderOutput,
        vocabulary: Tensor,
        mask_labels: Sequence[Tensor],
        class_labels: Sequence[Tensor] | None,
        prompt_mask: Tensor | None,
        has_prompts: bool,
        points: PointSource | None,
        generators: Sequence[torch.Generator] | None,
        normalizers: Mapping[str, Tensor] | None,
    ) -> dict[str, Tensor]:
        config = self.config
        weights = LossWeights(
            cls=config.class_weight,
            mask=config.mask_weight,
            dice=config.dice_weight,
            iou=config.iou_weight,
            void=config.void_weight,
        )
        queries = predictions.class_logits.shape[2]
        if points is None:
            points = RandomPoints(
                config.num_loss_points,
                config.oversample_ratio,
                config.importance_sample_ratio,
                generators=generators,
                masks=[min(len(masks), queries) for masks in mask_labels],
            )
        if has_prompts:
            if prompt_mask is None:
                prompt_mask = torch.ones(len(mask_labels), queries, dtype=torch.bool, device=vocabulary.device)
            return prompt_losses(
                predictions.mask_logits, mask_labels, prompt_mask, weights, points, normalizers=normalizers
            )
        if class_labels is None:
            raise ValueError("class_labels: expected one tensor for each of mask_labels, got None")
        assignments = match(predictions, mask_labels, class_labels, weights, points)
        losses = object_losses(
            predictions, mask_labels, class_labels, assignments, weights, points, normalizers=normalizers
        )
        if config.dense_loss_weight:
            total = (normalizers or {}).get("pixels")
            losses["loss_dense"] = config.dense_loss_weight * self._dense_loss(
                encoded, vocabulary, mask_labels, class_labels, generators, total
            )
        if config.region_loss_weight:
            total = (normalizers or {}).get("regions")
            losses["loss_region"] = config.region_loss_weight * self._region_loss(
                encoded, vocabulary, mask_labels, class_labels, total
            )
        return losses

    def _dense_loss(
        self,
        encoded: OmgSegEncoderOutput,
        vocabulary: Tensor,
        mask_labels: Sequence[Tensor],
        class_labels: Sequence[Tensor],
        generators: Sequence[torch.Generator] | None,
        total: Tensor | None,
    ) -> Tensor:
        """Classifies random pixels of the mask features by themselves: a short way for gradients into the features."""
        assert encoded.mask_features is not None
        pixels = encoded.mask_features.flatten(2).transpose(1, 2)
        images, cells, width = pixels.shape
        shape = (encoded.mask_features.shape[-2], encoded.mask_features.shape[-1])
        labels = label_maps(mask_labels, class_labels, shape).flatten(1)
        drawn = [
            torch.randint(cells, (DENSE_LOSS_PIXELS,), generator=generator, device=pixels.device)
            for generator in generators or [None] * images
        ]
        chosen = torch.stack(drawn)
        embeddings = self.classifier.classify_pixels(pixels.gather(1, chosen[..., None].expand(-1, -1, width)))
        logits = class_logits(embeddings, vocabulary, self.config.logit_scale)
        return dense_class_loss(logits, labels.gather(1, chosen), total=total)

    def _region_loss(
        self,
        encoded: OmgSegEncoderOutput,
        vocabulary: Tensor,
        mask_labels: Sequence[Tensor],
        class_labels: Sequence[Tensor],
        total: Tensor | None,
    ) -> Tensor:
        """Classifies the ground-truth regions with the CLIP head: supervision of backbone and head without matching."""
        if self.clip_head is None:
            raise ValueError("region_loss_weight: expected a model with a CLIP head, got one without")
        assert encoded.clip_features is not None
        pooled = []
        for features, masks in zip(encoded.clip_features, mask_labels, strict=True):
            share = F.interpolate(masks.to(features.dtype), size=features.shape[-2:], mode="area").flatten(1)
            plane = features.transpose(0, 1).flatten(1)
            pooled.append(share @ plane.T / share.sum(1, keepdim=True).clamp_min(1e-4))
        logits = class_logits(self.clip_head(torch.cat(pooled))[None], vocabulary, self.config.logit_scale)
        return dense_class_loss(logits[..., :-1], torch.cat(list(class_labels))[None], total=total)


__all__ = [
    "OmgSegEncoderOutput",
    "OmgSegForUniversalSegmentation",
    "OmgSegModel",
    "OmgSegModelOutput",
    "OmgSegOutput",
    "OmgSegPreTrainedModel",
]
