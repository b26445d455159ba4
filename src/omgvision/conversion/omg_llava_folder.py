"""From the original's OMG-LLaVA files to a ``from_pretrained`` folder: what ``omg convert`` does with them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from ..errors import UserError
from ..models.omg_llava.answers_omg_llava import SEGMENT
from ..models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from ..models.omg_llava.modeling_omg_llava import OmgLlavaForConditionalGeneration
from ..models.omg_llava.processing_omg_llava import OmgLlavaProcessor, prepare_tokenizer, token_ids
from ..models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from .checkpoint import BARE_TENSOR, read_checkpoint
from .folder import Conversion, Reader, check_is_new
from .omg_llava import LORA_SCALE, read_omg_llava, split_adapter
from .report import ConversionReport

ADAPTER_FOLDER = "adapter"
CLIP_MEAN, CLIP_STD = (0.4814, 0.4578, 0.4082), (0.2686, 0.2613, 0.2757)
"""As the original rounds them."""

_BICUBIC = 3
_INTERNLM2 = "model.tok_embeddings.weight"


def is_llava(sources: Sequence[Path]) -> bool:
    """Whether these are parts of OMG-LLaVA: the folder of a language model is among them."""
    return any(source.is_dir() for source in sources)


def convert_llava(
    sources: Sequence[str | Path],
    output: str | Path,
    *,
    config: Mapping[str, Any] | None = None,
    merge_lora: bool = False,
) -> ConversionReport:
    """Joins the original's files to a folder for ``OmgLlavaForConditionalGeneration`` and its processor.

    Args:
        sources: In any order: a trained file (pretrain, finetune, refseg, gcg), the OMG-Seg file, the OpenCLIP file
            where that has no backbone, the class embeddings (one tensor), and the folder of InternLM2 with its
            config.json and tokenizer. Its weights are read from there, unless they are among the files.
        output: Folder to make. Adapters that are not merged are in its subfolder ``adapter``, for
            ``model.load_adapter``.
        config: Fields of OmgLlavaConfig that no shape tells, see :func:`convert_omg_llava`.
        merge_lora: Add the adapters to the weights.

    Raises:
        UserError: a part that is missing, there twice, or does not fit the others; an ``output`` that has content.
    """
    output = Path(output)
    check_is_new(output)
    conversion = read_llava_conversion(sources, output, config, merge_lora=merge_lora)
    conversion.write(output)
    return conversion.report


def read_llava_conversion(
    sources: Sequence[str | Path],
    output: Path,
    config: Mapping[str, Any] | None = None,
    *,
    merge_lora: bool = False,
    read: Reader = read_checkpoint,
) -> Conversion:
    """What :func:`convert_llava` would write; with ``read=read_shapes`` from names and shapes alone."""
    parts = _read_parts([Path(source) for source in sources], read)
    overrides = {"text_config": parts.text_config, **(config or {})}
    llava, state, report = read_omg_llava(
        parts.finetuned, parts.encoder, parts.llm, parts.class_embeddings, overrides, merge=merge_lora
    )
    report.ignored |= parts.left_out
    tokenizer = _tokenizer(parts.llm_folder, llava)
    weights, adapter = split_adapter(state)
    with torch.device("meta"):
        model = OmgLlavaForConditionalGeneration(llava)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.get_vocab()["<|im_end|>"]],
        pad_token_id=tokenizer.pad_token_id,
    )
    images = OmgSegImageProcessor(
        size={"height": llava.image_size, "width": llava.image_size},
        resample=_BICUBIC,
        do_rescale=True,
        image_mean=list(CLIP_MEAN),
        image_std=list(CLIP_STD),
    )
    conversion = Conversion(report)
    conversion.add(model, weights, OmgLlavaProcessor(images, tokenizer))
    if adapter:
        _add_adapter(adapter, conversion, base=output)
    return conversion


class _Parts:
    """What the sources hold, by what shows in their keys."""

    def __init__(self) -> None:
        self.finetuned: dict[str, Tensor] = {}
        self.encoder: dict[str, Tensor] = {}
        self.llm: dict[str, Tensor] = {}
        self.classes: list[Tensor] = []
        self.folders: list[Path] = []
        self.text_config: dict[str, Any] = {}
        self.left_out: dict[str, str] = {}

    @property
    def llm_folder(self) -> Path:
        return self.folders[0]

    @property
    def class_embeddings(self) -> Tensor:
        return self.classes[0]


def _read_parts(sources: Sequence[Path], read: Reader) -> _Parts:
    parts = _Parts()
    for source in sources:
        if source.is_dir():
            parts.folders.append(source)
            continue
        state, left_out = read(source)
        parts.left_out |= left_out
        if BARE_TENSOR in state:
            parts.classes.append(state[BARE_TENSOR])
        elif any(key.startswith("projector.") for key in state):
            if parts.finetuned:
                raise UserError(f"{source}: expected one trained file of OMG-LLaVA, got a second; leave one out")
            parts.finetuned = state
        elif _INTERNLM2 in state:
            parts.llm |= state
        else:
            parts.encoder |= state
    found = {
        "the trained file (projector.*)": len(parts.finetuned) > 0,
        "the OMG-Seg file (panoptic_head.*)": any(key.startswith("panoptic_head.") for key in parts.encoder),
        "the class embeddings (one tensor)": len(parts.classes) == 1,
        "the folder of the language model": len(parts.folders) == 1,
    }
    missing = [part for part, is_there in found.items() if not is_there]
    if missing:
        raise UserError(f"OMG-LLaVA: expected {', '.join(found)}, each once; check {', '.join(missing)}")
    parts.text_config = _read_json(parts.llm_folder / "config.json")
    if parts.llm:
        return parts
    files = sorted(parts.llm_folder.glob("*.safetensors")) or sorted(parts.llm_folder.glob("pytorch_model*.bin"))
    if not files:
        raise UserError(f"{parts.llm_folder}: expected *.safetensors or pytorch_model*.bin, got none")
    for file in files:
        state, left_out = read(file)
        parts.llm |= state
        parts.left_out |= left_out
    return parts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected the configuration of the language model, got: {error}") from None


def _tokenizer(folder: Path, config: OmgLlavaConfig) -> PreTrainedTokenizerBase:
    """The language model's tokenizer with our tokens, whose ids must be the rows that were trained."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{folder}: expected a tokenizer that needs no code of its own (tokenizer.json), got: {error}; if you "
            "trust its code, AutoTokenizer.from_pretrained(folder, trust_remote_code=True).save_pretrained(folder) does"
        ) from None
    prepare_tokenizer(tokenizer)
    found = token_ids(tokenizer)["segment_token_id"]
    if found != config.segment_token_id:
        raise UserError(
            f"{folder}: expected a tokenizer of {config.segment_token_id} tokens, so that {SEGMENT} is the next, "
            f"got {found}; give the folder of the language model that was trained with"
        )
    return tokenizer


def _add_adapter(adapter: Mapping[str, Tensor], conversion: Conversion, *, base: Path) -> None:
    """As peft writes it."""
    suffix = ".lora_A.weight"
    modules = [key.removesuffix(suffix) for key in adapter if key.endswith(suffix)]
    rank = adapter[f"{modules[0]}{suffix}"].shape[0]
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": rank,
        "lora_alpha": LORA_SCALE * rank,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": modules,
    }
    named = {f"base_model.model.{key}": tensor for key, tensor in adapter.items()}
    conversion.tensors[f"{ADAPTER_FOLDER}/adapter_model.safetensors"] = named
    conversion.texts[f"{ADAPTER_FOLDER}/adapter_config.json"] = json.dumps(fields, indent=2) + "\n"


__all__ = ["ADAPTER_FOLDER", "convert_llava", "is_llava", "read_llava_conversion"]
