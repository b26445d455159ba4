"""`load`: from a name to a ready model.

A name is a bundled model's, a `from_pretrained` folder, an original checkpoint file, or an id on the Hugging Face
Hub: of such a folder ("user/model"), or of a checkpoint file in a repository ("LXT/OMG_Seg/omg_seg_convl.pth").
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from .conversion.checkpoint import load_checkpoint
from .conversion.folder import convert_checkpoint
from .errors import UserError
from .llava import ChatModel, Quantization, load_llava, segmenter_processor
from .models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from .models.omg_seg.configuration_omg_seg import OmgSegConfig
from .models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from .models.omg_seg.processing_omg_seg import OmgSegProcessor
from .predictor import Predictor

logger = logging.getLogger(__name__)

BUNDLED = "omg-seg-nano"
BUNDLED_CHAT = "omg-llava-nano"
CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")
OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
PRETRAINED_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

DtypeName = Literal["auto", "float32", "bfloat16", "float16"]
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Published:
    """Weights that load by name: their repository (or name), the file in it, and what people should know of them."""

    repository: str
    file: str
    size: str
    licence: str
    summary: str


PUBLISHED = (
    Published(
        repository="LXT/OMG_Seg",
        file="omg_seg_convl.pth",
        size="221M parameters and the text tower",
        licence="S-Lab License 1.0 (non-commercial); CLIP: MIT",
        summary="the original OMG-Seg with ConvNeXt-L (its paper reports 53.8 PQ on COCO): all tasks, words, clicks;"
        " converted on first use",
    ),
)

# The published checkpoints hold no backbone: channels of its last stage → OpenCLIP weights it was trained on.
OPEN_CLIP_OF_WIDTH = {
    1536: "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup",
    3072: "laion/CLIP-convnext_xxlarge-laion2B-s34B-b82K-augreg-soup",
}
_WIDTH_KEY = "panoptic_head.pixel_decoder.input_convs.0.conv.weight"


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: DtypeName | torch.dtype | None = None,
    backbone: str | os.PathLike[str] | None = None,
    adapter: str | os.PathLike[str] | None = None,
    quantization: Quantization | None = None,
) -> Predictor:
    """Load a model, ready for pictures.

    Args:
        name_or_path: None or "omg-seg-nano" = the bundled weights, whose `chat` uses those of "omg-llava-nano"; a
            folder of OMG-Seg or OMG-LLaVA written by `save_pretrained` or `omg convert`; an original OMG-Seg checkpoint
            (.pth); a Hub id of either ("user/model", "LXT/OMG_Seg", "user/repository/file.pth"). Original checkpoints
            are converted once and kept in the Hugging Face cache. OMG-LLaVA segments, clicks and tracks with the
            segmenter inside of it.
        device: "cpu", "cuda", "cuda:1", "mps", …; None = an accelerator if there is one.
        dtype: "float32", "bfloat16", "float16" or torch's; None = float32. Of OMG-LLaVA the language model's; its
            segmenter stays in float32.
        backbone: OpenCLIP weights for an original checkpoint without backbone: a file or a Hub id. None = for
            checkpoints from the Hub those that they were trained on.
        adapter: Folder of a peft adapter of OMG-LLaVA; None = the one in the model's own folder, if there is one.
        quantization: "4bit" or "8bit" for the language model of OMG-LLaVA; needs a GPU and bitsandbytes.

    Raises:
        UserError: nothing of that name, no connection, weights that are damaged or of another model, an adapter of
            another model, an unknown device.
    """
    target, precision = _device(device), _dtype(dtype)
    name = BUNDLED if name_or_path is None else os.fspath(name_or_path)
    if not name.strip():
        raise UserError("the model name is empty: expected a folder, a checkpoint file or a Hub id")
    folder, label = _find(name, backbone)
    if _model_type(folder) == OmgLlavaConfig.model_type:
        with _no_progress_bar():
            chat = load_llava(
                folder,
                adapter=None if adapter is None else Path(adapter),
                dtype=precision,
                device=target,
                quantization=quantization,
            )
        tower: Any = chat.model.model.vision_tower
        return Predictor(tower, segmenter_processor(chat.processor), name=label, load_chat=lambda: chat)
    for argument, value in (("adapter", adapter), ("quantization", quantization)):
        if value is not None:
            raise UserError(f"{argument} belongs to models that chat (OMG-LLaVA), {label} is a segmenter: leave it out")
    model, processor = _from_folder(folder, label=label, dtype=precision)
    try:
        model = model.to(target)  # pyright: ignore[reportArgumentType]  (transformers' wrapper hides torch's overloads)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"cannot use the device {target}: {str(error).splitlines()[0]}") from None
    load_chat = functools.partial(_bundled_chat, target, precision) if folder == bundled_folder() else None
    return Predictor(model, processor, name=label, load_chat=load_chat)


def _bundled_chat(device: torch.device, dtype: torch.dtype) -> ChatModel:
    """What the bundled segmenter chats with: weights of their own."""
    folder, _ = _find(BUNDLED_CHAT, None)
    with _no_progress_bar():
        return load_llava(folder, dtype=dtype, device=device)


def bundled_folder(name: str = BUNDLED) -> Path:
    """Where bundled weights lie; the folder is missing in a source tree without them."""
    return Path(str(files("omgvision"))) / "weights" / name


def has_bundled_chat() -> bool:
    """Whether this installation has the bundled weights that chat."""
    return (bundled_folder(BUNDLED_CHAT) / "config.json").is_file()


def bundled_entries() -> list[Published]:
    """The bundled weights, their size as it is on this disk; those that chat where they are."""
    entries = [
        Published(
            repository=BUNDLED,
            file="model.safetensors",
            size=_bundled_size(BUNDLED),
            licence="CC BY-NC-SA 4.0",
            summary="small and quick, trained on a few hundred photographs: a demonstration of all tasks",
        )
    ]
    if has_bundled_chat():
        entries.append(
            Published(
                repository=BUNDLED_CHAT,
                file="model.packed.safetensors",
                size=_bundled_size(BUNDLED_CHAT),
                licence="CC BY-NC-SA 4.0; its language model Apache-2.0",
                summary="talks about what the former segments: a demonstration of omg chat",
            )
        )
    return entries


def _bundled_size(name: str) -> str:
    weights = list(bundled_folder(name).glob("*.safetensors"))
    size = sum(file.stat().st_size for file in weights)
    return f"bundled, {size / 1e6:.0f} MB" if weights else "missing in this installation"


# ------------------------------------------------------------------------------------------------------ finding weights


def _find(name: str, backbone: str | os.PathLike[str] | None) -> tuple[Path, str]:
    """A `from_pretrained` folder for a name, and what to call it."""
    path = Path(name).expanduser()
    if name in (BUNDLED, BUNDLED_CHAT) and not path.is_dir():
        folder = bundled_folder(name)
        if not (folder / "config.json").is_file():
            if name == BUNDLED:
                raise UserError(f"this installation has no bundled weights ({folder} is missing): name a model")
            raise UserError(
                f"this installation has no bundled weights that chat ({folder} is missing): name a model that does"
                " (omg.load(FOLDER), --model FOLDER), such as `omg convert` makes from the published OMG-LLaVA files"
            )
        _refuse_backbone(backbone)
        return folder, name
    if path.is_dir():
        _refuse_backbone(backbone)
        return path, path.resolve().name
    if path.is_file():
        sources = [path] if backbone is None else [path, _backbone_file(backbone)]
        return _converted(sources), path.stem
    if path.suffix in CHECKPOINT_SUFFIXES and name.count("/") == 2 and not name.startswith((".", "/", "~")):
        repository, file = name.rsplit("/", 1)
        return _published(repository, file, backbone), name
    if HUB_ID.fullmatch(name) and path.suffix not in CHECKPOINT_SUFFIXES:
        for known in PUBLISHED:
            if name == known.repository:
                return _published(name, known.file, backbone), name
        _refuse_backbone(backbone)
        return _hub_folder(name), name
    raise UserError(
        f"there is no model {name}: expected {BUNDLED!r}, a folder, a checkpoint file or a Hub id such as 'LXT/OMG_Seg'"
    )


def _refuse_backbone(backbone: object) -> None:
    if backbone is not None:
        raise UserError("backbone belongs to original checkpoints (.pth): leave it out, this model has its own")


def _published(repository: str, file: str, backbone: str | os.PathLike[str] | None) -> Path:
    checkpoint = _hub_file(repository, (file,))
    if backbone is not None:
        return _converted([checkpoint, _backbone_file(backbone)])
    weights = load_checkpoint(checkpoint)
    if any(key.startswith("backbone.") for key in weights):
        return _converted([checkpoint])
    width = weights[_WIDTH_KEY].shape[1] if _WIDTH_KEY in weights else None
    if width not in OPEN_CLIP_OF_WIDTH:
        raise UserError(
            f"{repository}/{file} holds no backbone and has none of the published sizes: give OpenCLIP weights as"
            " backbone"
        )
    return _converted([checkpoint, _hub_file(OPEN_CLIP_OF_WIDTH[width], OPEN_CLIP_FILES)])


def _backbone_file(backbone: str | os.PathLike[str]) -> Path:
    name = os.fspath(backbone)
    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        for file in OPEN_CLIP_FILES:
            if (path / file).is_file():
                return path / file
        raise UserError(f"backbone {name}: the folder holds neither {' nor '.join(OPEN_CLIP_FILES)}")
    if HUB_ID.fullmatch(name) and path.suffix not in CHECKPOINT_SUFFIXES:
        return _hub_file(name, OPEN_CLIP_FILES)
    raise UserError(f"backbone {name} does not exist: expected an OpenCLIP file or a Hub id such as 'laion/CLIP-…'")


def _hub_file(repository: str, names: Sequence[str]) -> Path:
    """The first of `names` that a repository has."""
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError as error:  # before EntryNotFoundError, which it is one of
            raise _unreachable(repository, error) from None
        except EntryNotFoundError:
            continue
        except (HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, OSError) as error:
            raise _unreachable(repository, error) from None
    raise UserError(f"the Hub repository {repository} holds no {' or '.join(names)}: look at its files on the Hub")


def _hub_folder(repository: str) -> Path:
    try:
        folder = Path(snapshot_download(repository, allow_patterns=list(PRETRAINED_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise _unreachable(repository, error) from None
    if not (folder / "config.json").is_file():
        raise UserError(
            f"the Hub repository {repository} has no config.json: to use an original checkpoint in it, name the file:"
            f" '{repository}/file.pth'"
        )
    return folder


def _unreachable(repository: str, error: Exception) -> UserError:
    if isinstance(error, GatedRepoError):
        return UserError(f"the Hub repository {repository} asks for permission: request it there, then `hf auth login`")
    if isinstance(error, RepositoryNotFoundError):
        return UserError(f"there is no model {repository}: neither a local folder or file nor a public Hub repository")
    if isinstance(error, HFValidationError):
        return UserError(f"{repository} is no valid Hub id: expected 'user/model', or a folder or file that exists")
    return UserError(
        f"cannot reach the Hub for {repository}, and it is not in the cache: check the connection, or give a local"
        " folder"
    )


def _converted(sources: Sequence[Path]) -> Path:
    """The `from_pretrained` folder made of original checkpoint files, converted at most once."""
    identity = hashlib.sha256()
    for source in sources:
        real = source.resolve()
        state = real.stat()
        identity.update(f"{real}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    folder = Path(constants.HF_HOME) / "omgvision" / "converted" / identity.hexdigest()[:24]
    if not (folder / "config.json").is_file():
        logger.info("converting %s to %s", ", ".join(map(str, sources)), folder)
        convert_checkpoint(sources, folder)
    return folder


# ----------------------------------------------------------------------------------------------------- building models


def _model_type(folder: Path) -> object:
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise UserError(
            f"{folder} has no config.json: expected a folder written by save_pretrained or `omg convert`"
            " (an original .pth is named itself)"
        )
    try:
        return json.loads(config_file.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{config_file} is damaged: expected the JSON of a model configuration") from None


def _from_folder(
    folder: Path, *, label: str, dtype: torch.dtype
) -> tuple[OmgSegForUniversalSegmentation, OmgSegProcessor]:
    model_type = _model_type(folder)
    if model_type != OmgSegConfig.model_type:
        raise UserError(
            f"{label} is a model of type {model_type}: expected {OmgSegConfig.model_type} or"
            f" {OmgLlavaConfig.model_type}"
        )
    try:
        with _no_progress_bar():
            loaded: Any = OmgSegForUniversalSegmentation.from_pretrained(
                folder,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported below, in one line
            )
        model, info = loaded  # a pair because of output_loading_info
        processor = OmgSegProcessor.from_pretrained(folder)
    except SafetensorError as error:
        raise UserError(f"the weights in {folder} are damaged or truncated ({error}): get them again") from None
    except OSError as error:
        raise UserError(f"cannot load {label}: {str(error).splitlines()[0]}") from None
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{label} does not fit this version of omgvision: {str(error).splitlines()[0]}") from error
    wrong = [*info["missing_keys"], *info["unexpected_keys"], *(key for key, *_ in info["mismatched_keys"])]
    if wrong:
        raise UserError(
            f"the weights in {folder} do not fit its config.json: {len(wrong)} missing or left over, such as"
            f" {sorted(wrong)[0]}"
        )
    return model, processor


@contextlib.contextmanager
def _no_progress_bar() -> Iterator[None]:
    """transformers draws one even for weights that load in a blink."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _device(device: str | torch.device | None) -> torch.device:
    if device is not None:
        try:
            return torch.device(device)
        except RuntimeError:
            raise UserError(f"unknown device {device!r}: expected cpu, cuda, cuda:0, mps, …") from None
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


def _dtype(dtype: DtypeName | torch.dtype | None) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    name = "float32" if dtype is None or dtype == "auto" else dtype
    if name not in _DTYPES:
        raise UserError(f"unknown dtype {dtype!r}: expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]
