"""The published 7B layout of OMG-LLaVA at its full width: files of the right shapes are converted, loaded and asked.

The published files were not at hand. Their names, shapes and types are known (`tests/fixtures/omg_llava`); here files
of them hold random weights, with one of the 32 layers of the language model, so that it fits into 10 GB of memory. The
segmenter, the projections, embedding, head and adapters are whole, and the picture has 1024 pixels a side.

    python -m benchmarks.llava_7b_layout           # minutes, 10 GB of memory, 10 GB on the disk
    python -m benchmarks.llava_7b_layout --quick   # a language model of width 64, small pictures: shows that it runs
"""

import argparse
import gc
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from benchmarks.chat import QUESTION, Watched
from benchmarks.segment import machine, resident_bytes
from omgvision.chat import Conversation
from omgvision.conversion.internlm2 import CHAT_7B
from omgvision.conversion.omg_llava_folder import convert_llava
from omgvision.llava import load_llava
from omgvision.output_files import write_json

HERE = Path(__file__).resolve().parent
KEYS = HERE.parent / "tests" / "fixtures" / "omg_llava" / "state_keys.json"
FINETUNE = "omg_llava_7b_finetune_8gpus.pth (require_omg_decoder=False)"
ENCODER = (
    'omg_seg_convl.pth["state_dict"]',
    "visual encoder backbone (from open_clip convnext_large_d_320 / laion2b_s29b_b131k_ft_soup; not in any OMG file)",
)
LLM = "internlm2-chat-7b (base LLM)"
CLASSES = (133, 5, 768)
LAYERS, OF_LAYERS = 1, 32
TOKENS = 4
"""Of the answer, whose third is [SEG]."""


@dataclass(frozen=True)
class Setup:
    """What is built.

    Attributes:
        side: Of the network input.
        width, words, heads: Of the language model; as many keys and values as a quarter of the heads.
        rank: Of the adapters.
    """

    side: int = 1024
    width: int = 4096
    words: int = 92544
    heads: int = 32
    rank: int = 512

    def shape(self, name: str, published: Sequence[int]) -> list[int]:
        """Of a tensor; the segmenter is always whole."""
        if name.startswith(("panoptic_head.", "backbone.")):
            return list(published)
        sizes = {4096: self.width}
        if not name.startswith("projector"):
            sizes |= {6144: 3 * self.width // 2, 14336: 7 * self.width // 2}  # queries, keys, values; between layers
            sizes |= {92544: self.words, 92548: self.words + 4}
        if ".lora_" in name:
            sizes[512] = self.rank
        return [sizes.get(size, size) for size in published]


def quick_setup() -> Setup:
    return Setup(side=128, width=64, words=600, heads=4, rank=8)


def tensors(setup: Setup, *lists: str) -> dict[str, Tensor]:
    """Random weights under the names of these lists, without the layers of the language model that are left out."""
    recorded = json.loads(KEYS.read_text(encoding="utf-8"))
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (shape, kind) in [entry for each in lists for entry in recorded[each].items()]:
        layer = re.search(r"\bmodel\.layers\.(\d+)\.", name)
        if layer is None or int(layer[1]) < LAYERS:
            weights = torch.empty(setup.shape(name, shape), dtype=getattr(torch, kind))
            found[name] = weights.normal_(0, 0.02, generator=generator)
    return found


def write_sources(setup: Setup, folder: Path) -> list[Path]:
    """The files that `omg convert` takes."""
    language = folder / "internlm2"
    language.mkdir()
    torch.save({"state_dict": tensors(setup, FINETUNE)}, folder / "finetuned.pth")
    torch.save({"state_dict": tensors(setup, *ENCODER)}, folder / "encoder.pth")
    classes = torch.randn(CLASSES, generator=torch.Generator().manual_seed(0))
    torch.save(classes / classes.norm(dim=-1, keepdim=True), folder / "classes.pth")
    save_file(tensors(setup, LLM), language / "model.safetensors")
    heads = {"num_attention_heads": setup.heads, "num_key_value_heads": setup.heads // 4}
    (language / "config.json").write_text(json.dumps({**CHAT_7B, **heads, "model_type": "internlm2"}))
    write_tokenizer(language, words=setup.words)
    return [folder / "finetuned.pth", folder / "encoder.pth", folder / "classes.pth", language]


def write_tokenizer(folder: Path, *, words: int) -> None:
    """One of single bytes, and of so many words that nobody says."""
    special = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    unsaid = [f"word {number}" for number in range(words - len(alphabet) - len(special))]
    vocabulary = {word: number for number, word in enumerate([*special, *alphabet, *unsaid])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        additional_special_tokens=special[2:],
    ).save_pretrained(folder)


def measure(setup: Setup, folder: Path) -> dict[str, Any]:
    """Seconds of each step, and the most memory of all."""
    sources = write_sources(setup, folder)
    gc.collect()
    seconds: dict[str, float] = {}
    start = time.perf_counter()

    def took(step: str) -> None:
        nonlocal start
        seconds[step] = time.perf_counter() - start
        start = time.perf_counter()

    report = convert_llava(sources, folder / "llava", config={"image_size": setup.side}, merge_lora=True)
    gc.collect()
    took("convert")
    model, processor = load_llava(folder / "llava")
    took("load")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    conversation = Conversation(model, processor, image=picture)
    took("see the picture")
    Watched(model)
    answer = conversation.ask(QUESTION, max_new_tokens=TOKENS)
    took("answer")
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "missing": report.missing,
        "unexpected": report.unexpected,
        "masks": [list(mask.shape) for mask in answer.masks],
        "seconds": {step: round(each, 2) for step, each in seconds.items()},
        "peak_gigabytes": round(resident_bytes("VmHWM") / 1e9, 2),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Files of the published 7B shapes, converted, loaded and asked.")
    parser.add_argument("--quick", action="store_true", help="a small language model and pictures: shows that it runs")
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/llava_7b_layout.json unless --quick")
    options = parser.parse_args(arguments)
    setup = quick_setup() if options.quick else Setup()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(setup, Path(folder))
    report = {
        "command": "python -m benchmarks.llava_7b_layout",
        "machine": machine(),
        "layers": [LAYERS, OF_LAYERS],
        **asdict(setup),
        **found,
    }
    output = options.output or (None if options.quick else HERE / "results" / "llava_7b_layout.json")
    if output is not None:
        write_json(output, report)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
