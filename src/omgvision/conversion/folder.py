"""From checkpoint files to a ``from_pretrained`` folder: what ``omg convert`` does."""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModelWithProjection, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

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

Reader = Callable[[Path], tuple[dict[str, Tensor], dict[str, str]]]
"""Of a file: weights by name, and what else is in it with the reason why it is left out."""


@dataclass(frozen=True)
class Part:
    """A model on the meta device, the weights that fit it, and what reads its input."""

    model: PreTrainedModel
    state: Mapping[str, Tensor]
    processor: ProcessorMixin | PreTrainedTokenizerBase | None = None

    def __str__(self) -> str:
        parameters = sum(tensor.numel() for tensor in self.model.parameters())
        return f"{type(self.model).__name__}, {parameters / 1e6:,.1f} million parameters"


@dataclass
class Conversion:
    """What becomes of checkpoint files: the content of a folder that is not written yet.

    Attributes:
        report: What becomes of every key.
        parts: Models, by folder below the one to make.
        tensors, texts: Files beside them, by name.
    """

    report: ConversionReport = field(default_factory=ConversionReport)
    parts: dict[str, Part] = field(default_factory=dict)
    tensors: dict[str, Mapping[str, Tensor]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def add(
        self,
        model: PreTrainedModel,
        state: Mapping[str, Tensor],
        processor: ProcessorMixin | PreTrainedTokenizerBase | None = None,
        *,
        folder: str = ".",
    ) -> None:
        """Adds a part.

        Raises:
            UserError: ``state`` does not fit ``model``.
        """
        check_fits(model, state)
        self.parts[folder] = Part(model, state, processor)

    def write(self, output: Path) -> None:
        """Writes the folder, whole or not at all.

        Raises:
            UserError: ``output`` has content or cannot be written.
        """
        with new_folder(output) as folder:
            for name, part in self.parts.items():
                save_model(part.model, part.state, folder / name)
                if part.processor is not None:
                    part.processor.save_pretrained(folder / name)
            for name, tensors in self.tensors.items():
                (folder / name).parent.mkdir(exist_ok=True)
                # tensors cut out of another share its memory, which safetensors refuses
                save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, folder / name)
            for name, text in self.texts.items():
                (folder / name).write_text(text, encoding="utf-8")
            (folder / REPORT_NAME).write_text(self.report.to_json() + "\n", encoding="utf-8")
        if self.report.unexpected:
            logger.warning(
                "%d keys of the sources are not in the result, see %s", len(self.report.unexpected), REPORT_NAME
            )


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
    conversion = read_conversion(sources, config)
    conversion.write(output)
    return conversion.report


def read_conversion(
    sources: Sequence[str | Path], config: Mapping[str, Any] | None = None, *, read: Reader = read_checkpoint
) -> Conversion:
    """What :func:`convert_checkpoint` would write; with ``read=read_shapes`` from names and shapes alone."""
    left_out: dict[str, str] = {}
    omg_seg: dict[str, Tensor] = {}
    companion: dict[str, Tensor] = {}
    for path in map(Path, sources):
        state, no_weights = read(path)
        left_out |= no_weights
        target = omg_seg if _is_omg_seg(state, path) else companion
        if twice := sorted(state.keys() & target.keys()):
            raise UserError(f"{path}: expected each part once, got {twice[0]} in two files; leave one of them out")
        target |= state
    if not omg_seg and not companion:
        raise UserError("expected at least one checkpoint file to convert, got none")
    conversion = _read_omg_seg(omg_seg, companion, config) if omg_seg else _read_towers(companion, config)
    conversion.report.ignored |= left_out
    return conversion


def _is_omg_seg(state: Mapping[str, Tensor], path: Path) -> bool:
    if any(key.startswith("panoptic_head.") for key in state):
        return True
    if has_image_tower(state) or has_text_tower(state):
        return False
    raise UserError(
        f"{path}: expected keys of OMG-Seg (panoptic_head.*), an OpenCLIP ConvNeXt (visual.trunk.*) or a text tower, "
        f"got {len(state)} others ({', '.join(list(state)[:3])} …)"
    )


def _read_omg_seg(
    state: Mapping[str, Tensor], companion: Mapping[str, Tensor], config: Mapping[str, Any] | None
) -> Conversion:
    omg_config, converted, report = read_omg_seg(state, config, companion)
    with torch.device("meta"):
        model = OmgSegForUniversalSegmentation(omg_config)
    conversion = Conversion(report)
    conversion.add(model, converted, OmgSegProcessor(OmgSegImageProcessor(), build_clip_tokenizer()))
    return conversion


def _read_towers(state: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> Conversion:
    overrides = dict(config or {})
    backbone_overrides, text_overrides = overrides.pop("backbone_config", None), overrides.pop("text_config", None)
    if overrides:
        raise UserError(
            f"config: expected backbone_config or text_config for a CLIP checkpoint alone, got {next(iter(overrides))}"
        )
    conversion, text_folder = Conversion(), "."
    if has_image_tower(state):
        tower, conversion.report = read_image_tower(state, backbone_overrides)
        with torch.device("meta"):
            backbone = ClipConvNextBackbone(tower.config)
        conversion.add(backbone, tower.state)
        if tower.clip_head:
            conversion.tensors["clip_head.safetensors"] = tower.clip_head
        text_folder = "text_model"
    if not has_text_tower(state):
        rest = leftovers(key for key in state if not key.startswith("visual."))
        conversion.report = conversion.report.merge(rest)
        return conversion
    text_config, text_state, text_report = read_text_tower(state, text_overrides)
    with torch.device("meta"):
        text_model = CLIPTextModelWithProjection(text_config)
    conversion.add(text_model, text_state, build_clip_tokenizer(), folder=text_folder)
    conversion.report = conversion.report.merge(text_report)
    return conversion


def save_model(model: PreTrainedModel, state: Mapping[str, Tensor], folder: Path) -> None:
    """Writes ``state`` as the weights of ``model``, which lies on the meta device and takes over the tensors.

    Raises:
        UserError: a name of ``model`` is missing in ``state`` or has another shape there.
    """
    check_fits(model, state)
    model.load_state_dict({name: tensor.contiguous() for name, tensor in state.items()}, assign=True)
    model.save_pretrained(folder)


def check_fits(model: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Raises UserError if a name of ``model`` is missing in ``state`` or has another shape there."""
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
