"""Trained weights as a folder that `omgvision.load` and transformers read."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from omgvision.data.class_lists import load_class_list
from omgvision.errors import UserError
from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.processing_omg_seg import OmgSegProcessor
from omgvision.models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
from omgvision.training.objective import SegmentationObjective
from omgvision.training.recipe import Recipe

WEIGHTS = "weights"
"""Folder in a run's folder."""


def processor_for(image_size: int) -> OmgSegProcessor:
    """Scales pictures so that their longest side has `image_size` pixels."""
    size = {"longest_edge": image_size, "shortest_edge": image_size}
    return OmgSegProcessor(OmgSegImageProcessor(size=size), build_clip_tokenizer())


def export_weights(
    model: OmgSegForUniversalSegmentation,
    folder: Path,
    *,
    names: Sequence[str],
    things: Sequence[bool],
    processor: OmgSegProcessor,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Writes configuration, safetensors, processor and tokenizer; an earlier folder is replaced when all is written.

    Args:
        model: Stays as it is, in training or evaluation mode and its own precision.
        folder: To be written.
        names, things: The vocabulary stored with the weights.
        processor: Saved beside the weights; `processor_for` makes the usual one.
        dtype: Of the stored weights.
    """
    copy = _copy_of(model)
    with torch.inference_mode():
        copy.set_vocabulary(names, processor=processor, things=things)
    return _write(copy, folder, processor=processor, dtype=dtype)


def export_same_vocabulary(
    model: OmgSegForUniversalSegmentation,
    folder: Path,
    *,
    processor: OmgSegProcessor,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """As `export_weights`, of a model whose classes and text tower did not change: their embeddings are kept.

    Encoded anew, by a text tower that was rounded since, they would differ in their last bits.
    """
    return _write(_copy_of(model), folder, processor=processor, dtype=dtype)


def _copy_of(model: OmgSegForUniversalSegmentation) -> OmgSegForUniversalSegmentation:
    copy = OmgSegForUniversalSegmentation(model.config)
    copy.load_state_dict(model.state_dict())
    return copy.eval()


def _write(
    copy: OmgSegForUniversalSegmentation, folder: Path, *, processor: OmgSegProcessor, dtype: torch.dtype
) -> Path:
    nn.Module.to(copy, dtype)  # transformers' own `to` is typed for devices alone
    with written_whole(folder) as partial:
        copy.save_pretrained(partial)
        processor.save_pretrained(partial)
    return folder


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when all is written; others may read its files then.

    Raises:
        UserError: It cannot be written; nothing of it is left, and an earlier folder is as it was.
    """
    partial, earlier = (folder.with_name(f"{folder.name}{suffix}") for suffix in (".partial", ".old"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        yield partial
        for path in partial.iterdir():  # safetensors makes its files private
            path.chmod(0o644)
        if folder.exists():  # and is removed only when the new one is in its place
            shutil.rmtree(earlier, ignore_errors=True)
            folder.rename(earlier)
        partial.rename(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
        if isinstance(error, OSError | SafetensorError):
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
            raise UserError(
                f"{folder}: cannot be written ({reason}); the run is saved: make room and continue with --resume"
            ) from error
        raise
    shutil.rmtree(earlier, ignore_errors=True)


def export_with_coco(objective: SegmentationObjective, recipe: Recipe) -> Path:
    """A run's weights with COCO's 133 classes as their vocabulary."""
    classes = load_class_list("coco")
    return export_weights(
        objective.model,
        recipe.out / WEIGHTS,
        names=classes.names,
        things=classes.things,
        processor=processor_for(recipe.image_size),
    )
