"""Class names as people write them, ready for the model.

Letters: K classes, P prototypes a class, D width of the CLIP space.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from .data.class_lists import ClassListName, load_class_list
from .errors import UserError
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.processing_omg_seg import OmgSegProcessor
from .models.omg_seg.vocabulary_omg_seg import check_names, split_synonyms
from .results import Category

CLASS_LISTS: tuple[ClassListName, ...] = get_args(ClassListName)


@dataclass(frozen=True)
class Vocabulary:
    """Class names ready for the model: `embeddings` [K, P, D] of unit norm, `thing_mask` and `seen_mask` [K] bool."""

    categories: tuple[Category, ...]
    embeddings: Tensor
    thing_mask: Tensor
    seen_mask: Tensor


def stored_names(model: OmgSegForUniversalSegmentation) -> list[str]:
    """Names of the vocabulary that is stored with the weights."""
    labels = sorted((int(index), name) for index, name in (model.config.id2label or {}).items())
    return [name for _, name in labels[: model.config.num_classes]]


def read_vocabulary(
    model: OmgSegForUniversalSegmentation,
    processor: OmgSegProcessor,
    classes: Sequence[str] | str | None,
    *,
    things: Sequence[str] | None,
    model_name: str,
) -> Vocabulary:
    """Class names → what the model compares with.

    Args:
        model, processor: encode the names.
        classes, things: see `Predictor.segment`.
        model_name: for messages.

    Raises:
        UserError: no names, empty or repeated names, an unknown list, `things` that are not among the names, or a model
            without a text tower.
    """
    stored = stored_names(model)
    if classes is None:
        if things is not None:
            raise UserError("things belongs to classes: give both, or neither for the model's own vocabulary")
        if not model.config.num_classes:
            raise UserError(
                f"{model_name} has no vocabulary of its own: give classes, for example classes=['person', 'sky']"
                " or classes='coco' (on the command line --classes)"
            )
        flags = model.thing_mask.tolist()
        categories = tuple(Category(name, thing) for name, thing in zip(stored, flags, strict=True))
        return Vocabulary(categories, model.class_embeddings, model.thing_mask, model.seen_mask)
    names = _checked_names(classes)
    countable = _things_of(names, things)
    if isinstance(classes, str) and things is None:
        countable = load_class_list(_list_name(classes)).things
    if model.text_model is None:
        raise UserError(
            f"{model_name} has no text tower and cannot read class names: convert it together with OpenCLIP weights"
            " (omg convert), or leave classes out"
        )
    embeddings = processor.encode_vocabulary(names, model=model).to(model.device, model.dtype)
    known = {synonym for name in stored for synonym in split_synonyms(name)}
    seen = [any(synonym in known for synonym in split_synonyms(name)) for name in names]
    return Vocabulary(
        categories=tuple(Category(name, thing) for name, thing in zip(names, countable, strict=True)),
        embeddings=embeddings,
        thing_mask=torch.tensor(countable, dtype=torch.bool, device=model.device),
        seen_mask=torch.tensor(seen, dtype=torch.bool, device=model.device),
    )


def _list_name(name: str) -> ClassListName:
    for known in CLASS_LISTS:
        if name == known:
            return known
    raise UserError(
        f"classes={name!r}: expected a list of names, as in ['person', 'sky'], or one of the bundled lists"
        f" {', '.join(CLASS_LISTS)}"
    )


def _checked_names(classes: Sequence[str] | str) -> list[str]:
    if isinstance(classes, str):
        return list(load_class_list(_list_name(classes)).names)
    names = list(classes)
    for position, name in enumerate(names, start=1):
        if not isinstance(name, str):
            raise UserError(f"class {position} is {name!r}: expected a name (text), got {type(name).__name__}")
    try:
        check_names(names)
    except ValueError as error:
        raise UserError(str(error)) from None
    return [name.strip() for name in names]


def _things_of(names: Sequence[str], things: Sequence[str] | None) -> tuple[bool, ...]:
    """Which names are countable."""
    if things is not None:
        wanted = {",".join(split_synonyms(thing)) for thing in things}
        flags = tuple(",".join(split_synonyms(name)) in wanted for name in names)
        known = {",".join(split_synonyms(name)) for name in names}
        for thing in things:
            if ",".join(split_synonyms(thing)) not in known:
                raise UserError(f"things names {thing!r}, which is not among the classes")
        return flags
    things_known: set[str] = set()
    stuff_known: set[str] = set()
    for listed in (load_class_list("coco"), load_class_list("camvid")):
        for spelled, official, thing in zip(listed.names, listed.official_names, listed.things, strict=True):
            (things_known if thing else stuff_known).update([*split_synonyms(spelled), *split_synonyms(official)])
    # A synonym that some list counts is a thing: "fence" or "table" differ from list to list.
    return tuple(
        not any(synonym in stuff_known and synonym not in things_known for synonym in split_synonyms(name))
        for name in names
    )
