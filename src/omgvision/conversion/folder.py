"""From checkpoint files to a ``from_pretrained`` folder: what ``omg convert`` does."""

import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection, PreTrainedModel

from ..errors import UserError
from ..models.omg_seg.backbone_omg_seg import ClipConvNextBackbone
from ..models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from ..models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from ..models.omg_seg.processing_omg_seg import OmgSegProcessor
from ..models.omg_seg.vocabulary_omg_seg import build_clip_tokenizer
from .checkpoint import read_checkpoint
from .omg_seg import read_omg_seg
from .open_clip import has_image_tower, has_text_tower, leftovers, read_image_tower, read_text_tower
from .report import ConversionReport

logger = logging.getLogger(__name__)

REPORT_NAME = "conversion_report.json"


def convert_checkpoint(
    sources: Sequence[str | Path], output: str | Path, *, config: Mapping[str, Any] | None = None
) -> ConversionReport:
    """Converts checkpoint files to a folder that ``from_pretrained`` takes.

    * An original OMG-Seg checkpoint, with the OpenCLIP file of its backbone where it has no ``backbone.*`` of its own
      (the text tower comes from there too, or from a file of the original's text class), becomes an
      ``OmgSegForUniversalSegmentation`` with its processor, for ``omg.load(output)``.
    * An OpenCLIP file alone becomes a ``ClipConvNextBackbone`` (its ``from_pretrained`` takes the folder), its CLIP
      head ``clip_head.safetensors`` and its text tower the subfolder ``text_model`` (weights and tokenizer).
    * A file of the original's text class alone becomes a ``CLIPTextModelWithProjection`` with its tokenizer.

    The folder appears whole or not at all, with the report in ``conversion_report.json``.

    Args:
        sources: Files, in any order; what each one is shows in its keys.
        output: Folder to make; it may exist if it is empty.
        config: Fields of OmgSegConfig to set where no shape tells them; see :func:`convert_omg_seg`.

    Raises:
        UserError: a file that cannot be read or converted, weights that are missing, or an ``output`` that has content
            or cannot be written.
    """
    output = Path(output)
    check_is_new(output)
    report = ConversionReport()
    omg_seg: dict[str, Tensor] = {}
    companion: dict[str, Tensor] = {}
    for path in map(Path, sources):
        state, left_out = read_checkpoint(path)
        report.ignored |= left_out
        target = omg_seg if _is_omg_seg(state, path) else companion
        if twice := sorted(state.keys() & target.keys()):
            raise UserError(f"{path}: expected each part once, got {twice[0]} in two files; leave one of them out")
        target |= state
    if not omg_seg and not companion:
        raise UserError("expected at least one checkpoint file to convert, got none")
    with new_folder(output) as folder:
        if omg_seg:
            report = report.merge(_write_omg_seg(omg_seg, companion, folder, config))
        else:
            report = report.merge(_write_towers(companion, folder, config))
        (folder / REPORT_NAME).write_text(report.to_json() + "\n", encoding="utf-8")
    if report.unexpected:
        logger.warning("%d keys of the sources are not in the result, see %s", len(report.unexpected), REPORT_NAME)
    return report


def _is_omg_seg(state: Mapping[str, Tensor], path: Path) -> bool:
    if any(key.startswith("panoptic_head.") for key in state):
        return True
    if has_image_tower(state) or has_text_tower(state):
        return False
    raise UserError(
        f"{path}: expected keys of OMG-Seg (panoptic_head.*), an OpenCLIP ConvNeXt (visual.trunk.*) or a text tower, "
        f"got {len(state)} others ({', '.join(list(state)[:3])} …)"
    )


def _write_omg_seg(
    state: Mapping[str, Tensor], companion: Mapping[str, Tensor], folder: Path, config: Mapping[str, Any] | None
) -> ConversionReport:
    omg_config, converted, report = read_omg_seg(state, config, companion)
    with torch.device("meta"):
        model = OmgSegForUniversalSegmentation(omg_config)
    save_model(model, converted, folder)
    OmgSegProcessor(OmgSegImageProcessor(), build_clip_tokenizer()).save_pretrained(folder)
    return report


def _write_towers(state: Mapping[str, Tensor], folder: Path, config: Mapping[str, Any] | None) -> ConversionReport:
    overrides = dict(config or {})
    backbone_overrides, text_overrides = overrides.pop("backbone_config", None), overrides.pop("text_config", None)
    if overrides:
        raise UserError(
            f"config: expected backbone_config or text_config for a CLIP checkpoint alone, got {next(iter(overrides))}"
        )
    report, text_folder = ConversionReport(), folder
    if has_image_tower(state):
        tower, report = read_image_tower(state, backbone_overrides)
        with torch.device("meta"):
            backbone = ClipConvNextBackbone(tower.config)
        save_model(backbone, tower.state, folder)
        if tower.clip_head:
            save_file(
                {key: each.contiguous() for key, each in tower.clip_head.items()}, folder / "clip_head.safetensors"
            )
        text_folder = folder / "text_model"
    if not has_text_tower(state):
        return report.merge(leftovers(key for key in state if not key.startswith("visual.")))
    text_config, text_state, text_report = read_text_tower(state, text_overrides)
    with torch.device("meta"):
        text_model = CLIPTextModelWithProjection(text_config)
    save_model(text_model, text_state, text_folder)
    build_clip_tokenizer().save_pretrained(text_folder)
    return report.merge(text_report)


def save_model(model: PreTrainedModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Writes ``state`` as the weights of ``model``, which lies on the meta device and takes over the tensors.

    Raises:
        UserError: a name of ``model`` is missing in ``state`` or has another shape there.
    """
    expected = model.state_dict()
    missing = [name for name in expected if name not in state]
    if missing:
        raise UserError(
            f"{type(model).__name__}: expected {len(expected)} weights, got {len(expected) - len(missing)}; missing: "
            f"{', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}; give the file that holds them as well"
        )
    for name, tensor in state.items():
        if name in expected and expected[name].shape != tensor.shape:
            raise UserError(
                f"{name}: expected the shape {list(expected[name].shape)}, got {list(tensor.shape)}; "
                "set the field that differs in the config"
            )
    model.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    model.save_pretrained(folder)


def check_is_new(output: Path) -> None:
    """Raises UserError if ``output`` is there and not an empty folder."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"{output}: expected a new or empty folder to write to, got one with content; choose another")


@contextmanager
def new_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output`` that becomes ``output`` when all went well and is removed otherwise.

    Raises:
        UserError: ``output`` has content or cannot be written.
    """
    check_is_new(output)
    temporary = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
        yield temporary
        for path in (temporary, *temporary.rglob("*")):  # mkdtemp and safetensors make them private
            path.chmod(0o755 if path.is_dir() else 0o644)
        if output.exists():
            output.rmdir()
        temporary.rename(output)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UserError(f"{output}: cannot be written ({reason}); choose another folder or make room") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)  # gone already when all went well
