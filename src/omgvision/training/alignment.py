"""Projections that begin where they should end: what the segmenter sees of a dog, near the language model's word "dog".

A picture's tokens are brought to the embeddings of the names of what they show, without one step through the language
model; a few minutes instead of the hours that the same takes by its loss.

Letters: I pictures, T tokens, Q object queries, C their width, E width of the language model.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omgvision.data.conversation_words import spoken
from omgvision.data.sample import Sample
from omgvision.models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from omgvision.models.omg_llava.processing_omg_llava import OmgLlavaProcessor
from omgvision.models.omg_llava.projector_omg_llava import (
    TextToVision,
    VisionToText,
    ownership,
    perception_prior,
    pixel_tokens,
)

logger = logging.getLogger(__name__)

CLEAR = 0.5
"""Share of a cell that is of one object, and IoU of a query's mask with one: less shows no single thing."""

BATCH = 256


class Shown(NamedTuple):
    """What tokens show.

    Attributes:
        inputs: [T, …] of a projection.
        targets: [T, E], the embeddings of their names.
    """

    inputs: Tensor
    targets: Tensor


def align(
    model: OmgLlavaForConditionalGeneration,
    processor: OmgLlavaProcessor,
    samples: Iterable[Sample],
    *,
    steps: int,
    learning_rate: float = 5e-4,
    seed: int = 0,
) -> dict[str, float]:
    """Trains both projections in place; nothing else of the model changes.

    Args:
        model, processor: OMG-LLaVA.
        samples: Pictures with named segments.
        steps: Of AdamW, on 256 pixel tokens and 256 object queries each.
        seed: Of their choice.

    Returns:
        The share of what the embeddings differ by that is explained in the end, of `pixels` and of `queries`; and of
        queries, what comes `back` from the language model's space.
    """
    pixels, queries = collected(model, processor, samples)
    inner = model.model
    generator = torch.Generator().manual_seed(seed)
    begin(inner.projector, inner.text_to_vision, pixels, queries, generator)
    parameters = [*inner.projector.parameters(), *inner.text_to_vision.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    width = pixels.inputs.shape[1] - queries.inputs.shape[1]
    explained: dict[str, float] = dict.fromkeys(("pixels", "queries", "back"), 0.0)
    for step in range(steps):
        cells, objects = drawn(pixels, generator), drawn(queries, generator)
        projected = inner.projector.project_queries(objects.inputs)
        errors = {
            "pixels": unexplained(
                inner.projector.project_pixels(cells.inputs[:, :width], cells.inputs[:, width:]), cells.targets
            ),
            "queries": unexplained(projected, objects.targets),
            "back": unexplained(inner.text_to_vision(projected), objects.inputs),
        }
        torch.stack(list(errors.values())).sum().backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        for name, error in errors.items():
            explained[name] = 0.95 * explained[name] + 0.05 * (1 - error.item())
        if step % 100 == 99:
            logger.info("aligned in %d steps: %s", step + 1, {name: round(part, 3) for name, part in explained.items()})
    return explained


@torch.no_grad()
def begin(
    projector: VisionToText, back: TextToVision, pixels: Shown, queries: Shown, generator: torch.Generator
) -> None:
    """Random weights that suit what goes in and what should come out.

    A backbone's last features are tens of times as large as embeddings: without this, steps of one size fit neither.
    """
    begin_layer(projector.pixel_mlp[0], generator, takes=pixels.inputs)
    begin_layer(projector.pixel_mlp[2], generator, gives=pixels.targets)
    begin_layer(projector.query_proj, generator, takes=queries.inputs)
    begin_layer(projector.query_mlp[0], generator)
    begin_layer(projector.query_mlp[2], generator, gives=queries.targets)
    begin_layer(back[0], generator, takes=queries.targets)
    begin_layer(back[2], generator, gives=queries.inputs)


def begin_layer(
    layer: nn.Module, generator: torch.Generator, *, takes: Tensor | None = None, gives: Tensor | None = None
) -> None:
    """Numbers of mean 0 and variance 1, or of the mean and variance of `takes`, become those of `gives`, or 0 and 1."""
    assert isinstance(layer, nn.Linear)
    weight = torch.randn(layer.weight.shape, generator=generator) * layer.in_features**-0.5
    bias = torch.zeros(layer.out_features)
    if takes is not None:
        weight = weight / takes.std(0).clamp_min(1e-4)
        bias = -weight @ takes.mean(0)
    if gives is not None:
        weight, bias = gives.std() * weight, gives.std() * bias + gives.mean(0)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


def drawn(shown: Shown, generator: torch.Generator) -> Shown:
    chosen = torch.randint(len(shown.inputs), (BATCH,), generator=generator)
    return Shown(shown.inputs[chosen], shown.targets[chosen])


def unexplained(found: Tensor, wanted: Tensor) -> Tensor:
    """Squared error as a share of the variance of what is wanted."""
    return (found - wanted).square().mean() / (wanted - wanted.mean(0)).square().mean()


PLACES = (("left", "middle", "right"), ("top", "middle", "bottom"))
"""Words of columns and of rows."""
PLACE_SHARE = 0.5
"""Of the size of these words' embeddings, so that what is there stays louder than where."""


@torch.no_grad()
def align_places(model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor) -> None:
    """Columns begin as the words left, middle and right, rows as top, middle and bottom, and what lies between them."""
    places = model.model.places
    assert places is not None
    for embeddings, names in zip((places.columns, places.rows), PLACES, strict=True):
        anchors = torch.stack([embedding_of(name, model, processor) for name in names])
        between = F.interpolate(anchors.T[None], size=len(embeddings), mode="linear", align_corners=False)[0].T
        embeddings.copy_(PLACE_SHARE * between)


@torch.no_grad()
def collected(
    model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor, samples: Iterable[Sample]
) -> tuple[Shown, Shown]:
    """Pixel tokens (with their prior) and object queries of pictures, with the embeddings of what they show."""
    known: dict[str, Tensor] = {}
    found: tuple[list[Tensor], ...] = ([], [], [], [])
    tower, block, side = model.model.vision_tower, model.config.pixel_shuffle, model.config.image_size
    for sample in samples:
        names = [spoken(sample.names[label]) if label >= 0 else None for label in sample.labels.tolist()]
        masks = processor.place_masks(sample.masks)
        square = processor(sample.image, "<image>")["pixel_values"]
        encoded = tower.encode(square)
        seen = tower(encoder_outputs=encoded)
        queries = torch.cat((seen.query_features, tower.model.query_positions[None]), dim=-1)
        cells = model.config.grid_size
        claims = ownership(seen.class_queries_logits, seen.masks_queries_logits, canvas=side, cells=cells)
        prior, _ = perception_prior(claims, queries)
        tokens = torch.cat((pixel_tokens(encoded.clip_features[:, 0], block=block), prior), dim=-1)[0]
        shares = F.adaptive_avg_pool2d(masks[None].float(), cells)[0].flatten(1).T
        likeness = overlaps(seen.masks_queries_logits[0] > 0, masks)
        for inputs, fits, (kept, targets) in (
            (tokens, shares, found[:2]),
            (queries[0], likeness, found[2:]),
        ):
            share, which = fits.max(1) if fits.shape[1] else (torch.zeros(0), torch.zeros(0))
            for place in (share >= CLEAR).nonzero()[:, 0].tolist():
                name = names[int(which[place])]
                if name is not None:
                    kept.append(inputs[place])
                    targets.append(known.setdefault(name, embedding_of(name, model, processor)))
    return Shown(torch.stack(found[0]), torch.stack(found[1])), Shown(torch.stack(found[2]), torch.stack(found[3]))


def overlaps(found: Tensor, masks: Tensor) -> Tensor:
    """IoU of each of Q masks [Q, h, w] with each of N [N, H, W]: [Q, N]."""
    small = F.interpolate(masks[None].float(), size=found.shape[-2:], mode="nearest")[0].flatten(1)
    flat = found.flatten(1).float()
    common = flat @ small.T
    return common / (flat.sum(1)[:, None] + small.sum(1)[None] - common).clamp_min(1)


def embedding_of(name: str, model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor) -> Tensor:
    """The mean embedding [E] of a name's pieces, as it stands within a sentence."""
    ids: Sequence[int] = processor.encode_text(f" {name}")
    return model.get_input_embeddings()(torch.tensor(ids)).mean(0)
