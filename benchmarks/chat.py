"""What a conversation costs: first word, first mask, tokens a second, memory, what decoding adds to the language model.

A small OMG-LLaVA with random weights (or ``--model``) answers a given number of tokens, whatever they are, several
times in one run:

* ``first_turn``: seconds until the picture is seen, from there to the first token, and from a [SEG] to its mask;
* ``follow_up``: seconds to the first token of a later question over the same cache;
* ``decoding``: seconds a token in the conversation beside the same language model with the same cache length alone,
  through transformers' own ``generate``; the runs alternate, medians are compared;
* ``seen``: how often the segmenter encoded a picture in all turns.

    python -m benchmarks.chat           # a quarter of an hour on two quiet cores
    python -m benchmarks.chat --quick   # tiny, seconds: shows that it runs, measures nothing
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.generation.streamers import BaseStreamer

from benchmarks import make_tables
from benchmarks.segment import machine, resident_bytes
from omgvision import OmgLlavaConfig, OmgLlavaForConditionalGeneration, OmgLlavaProcessor, OmgSegConfig
from omgvision.chat import Conversation
from omgvision.llava import load_llava
from omgvision.models.omg_llava.processing_omg_llava import prepare_tokenizer, token_ids
from omgvision.models.omg_seg.configuration_omg_seg import ClipConvNextConfig
from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.output_files import write_json

HERE = Path(__file__).resolve().parent
QUESTION = "What is here?"


@dataclass(frozen=True)
class Setup:
    """What is measured.

    Attributes:
        side: Of the square network input.
        width, layers: Of the language model.
        tokens: Of each answer.
        turns: Of the conversation.
        repeats: Runs of each kind.
    """

    side: int = 512
    width: int = 512
    layers: int = 8
    tokens: int = 64
    turns: int = 4
    repeats: int = 7


def quick_setup() -> Setup:
    return Setup(side=128, width=64, layers=2, tokens=6, turns=2, repeats=2)


def build(setup: Setup) -> tuple[OmgLlavaForConditionalGeneration, OmgLlavaProcessor]:
    """Random weights of these sizes, a tokenizer of single bytes."""
    tokenizer = byte_tokenizer()
    vision = OmgSegConfig(
        backbone_config=ClipConvNextConfig(hidden_sizes=[48, 96, 192, 384], depths=[2, 2, 4, 2]),
        embedding_dim=64,
        hidden_size=128,
        num_queries=50,
        encoder_layers=2,
        encoder_ffn_dim=256,
        decoder_layers=6,
        decoder_ffn_dim=256,
        num_classes=20,
        num_prototypes=1,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=setup.width,
        intermediate_size=3 * setup.width,
        num_hidden_layers=setup.layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=8192,
    )
    torch.manual_seed(0)
    fields: dict[str, Any] = {"image_size": setup.side, **token_ids(tokenizer)}
    config = OmgLlavaConfig(vision_config=vision, text_config=text, **fields)
    model = OmgLlavaForConditionalGeneration(config).eval()
    model.model.vision_tower.class_embeddings.normal_()
    images = OmgSegImageProcessor(size={"height": setup.side, "width": setup.side}, resample=3)
    return model, OmgLlavaProcessor(images, tokenizer)


def byte_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    prepare_tokenizer(tokenizer)
    return tokenizer


class Ticks(BaseStreamer):
    """When the tokens of a generation came; the first tick is the prompt's."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, value: Tensor) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to do."""


class Watched:
    """A model that never ends an answer early, says [SEG] third, and counts how often it sees a picture."""

    def __init__(self, model: OmgLlavaForConditionalGeneration) -> None:
        self.model, self.seen, self._step = model, 0, 0
        model.generation_config.eos_token_id = None
        model.generation_config.no_repeat_ngram_size = None  # words are forced here; the language model alone has none
        encode = model.model.vision_tower.encode

        def counted(*arguments: Any, **options: Any) -> Any:
            self.seen += 1
            return encode(*arguments, **options)

        model.model.vision_tower.encode = counted
        model.model.language_model.register_forward_pre_hook(self._read, with_kwargs=True)
        model.lm_head.register_forward_hook(self._choose)

    def _read(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        given = options["input_ids"] if options.get("inputs_embeds") is None else options["inputs_embeds"]
        self._step = 0 if given.shape[1] > 1 else self._step + 1

    def _choose(self, module: Any, arguments: Any, logits: Tensor) -> Tensor:
        """A letter, whatever the weights say, so that all runs are of one length and all but one token words."""
        forced = torch.full_like(logits, -1e4)
        forced[..., self.model.config.segment_token_id if self._step == 2 else 65] = 0
        return forced


def measure(setup: Setup, model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor) -> dict[str, Any]:
    """All numbers; times are medians of the repeats, in seconds."""
    watched = Watched(model)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8))
    alone = language_model_alone(model)
    times: dict[str, list[float]] = {name: [] for name in ("picture", "word", "mask", "follow", "chat", "alone")}
    gc.collect()
    before = resident_bytes("VmRSS")
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")  # the peak starts again from what is resident now
    talk(setup, model, processor, picture)  # warms up
    peak = resident_bytes("VmHWM") - before
    seen = 0
    for repeat in range(setup.repeats):
        watched.seen = 0
        found = talk(setup, model, processor, picture)
        seen = max(seen, watched.seen)
        for name in ("picture", "word", "mask", "follow"):
            times[name].append(found[name])
        # Which of the two is first changes from run to run, so that what the machine does meanwhile falls on both.
        for name in ("chat", "alone") if repeat % 2 else ("alone", "chat"):
            if name == "chat":
                times[name].append(chat_pace(setup, model, processor, length=found["length"]))
            else:
                times[name].append(alone_pace(setup, alone, length=found["length"]))
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = [ours / theirs for ours, theirs in zip(times["chat"], times["alone"], strict=True)]
    return {
        "first_turn": {name: median[name] for name in ("picture", "word", "mask")},
        "follow_up": {"word": median["follow"]},
        "decoding": {"chat": median["chat"], "alone": median["alone"], "overhead": statistics.median(ratios)},
        "turns": setup.turns,
        "seen": seen,
        "peak_bytes_above_weights": max(peak, 0),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "side": int(model.config.image_size),
    }


def talk(
    setup: Setup, model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor, picture: Image.Image
) -> dict[str, Any]:
    """A conversation as people have it: when its picture was seen, its first words and its first mask came."""
    start = time.perf_counter()
    conversation = Conversation(model, processor, image=picture)
    found: dict[str, Any] = {"picture": time.perf_counter() - start}
    first: dict[str, float] = {}

    def note(name: str) -> Any:
        return lambda _: first.setdefault(name, time.perf_counter())

    decode, mask = conversation.mask_logits, [0.0]

    def timed(states: Tensor) -> Tensor | None:
        began = time.perf_counter()
        logits = decode(states)
        mask[0] = time.perf_counter() - began
        return logits

    conversation.mask_logits = timed
    for turn in range(setup.turns):
        first.clear()
        start = time.perf_counter()
        conversation.ask(QUESTION, max_new_tokens=setup.tokens, on_text=note("word"))
        if turn == 0:
            found["word"], found["mask"] = first["word"] - start, mask[0]
    found["follow"] = first["word"] - start
    found["length"] = conversation._cache.get_seq_length()  # what a late answer has behind it
    return found


def chat_pace(
    setup: Setup, model: OmgLlavaForConditionalGeneration, processor: OmgLlavaProcessor, *, length: int
) -> float:
    """Seconds a token of an answer that is heard while it comes, after a question of this many tokens."""
    times: list[float] = []
    conversation = Conversation(model, processor)
    conversation.ask("A" * length, max_new_tokens=setup.tokens, on_text=lambda _: times.append(time.perf_counter()))
    return (times[-1] - times[0]) / (setup.tokens - 1)


def alone_pace(setup: Setup, language_model: Any, *, length: int) -> float:
    """The same of the language model by itself."""
    ticks = Ticks()
    with torch.no_grad():
        language_model.generate(
            torch.full((1, length), 65),
            attention_mask=torch.ones(1, length, dtype=torch.long),
            max_new_tokens=setup.tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            streamer=ticks,
        )
    # The first tick is the prompt.
    return (ticks.times[-1] - ticks.times[1]) / (setup.tokens - 1)


def language_model_alone(model: OmgLlavaForConditionalGeneration) -> Any:
    """transformers' causal language model over the very same weights."""
    with torch.device("meta"):
        alone = AutoModelForCausalLM.from_config(model.model.language_model.config)
    alone.model = model.model.language_model
    alone.lm_head = model.lm_head
    return alone.eval()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="What a conversation costs.")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; measures nothing")
    parser.add_argument("--model", help="a folder of OMG-LLaVA instead of random weights")
    parser.add_argument("--output", type=Path, help="JSON file; benchmarks/results/chat.json unless --quick")
    options = parser.parse_args(arguments)
    setup = quick_setup() if options.quick else Setup()
    model, processor = build(setup) if options.model is None else load_llava(options.model)
    command = " ".join(
        ["python -m benchmarks.chat", *(f"--model {options.model}" for _ in range(options.model is not None))]
    )
    report = {
        "command": command,
        "model": "Random weights" if options.model is None else Path(options.model).resolve().name,
        "machine": machine(),
        "repeats": setup.repeats,
        "tokens": setup.tokens,
        **measure(setup, model, processor),
    }
    output = options.output or (None if options.quick else HERE / "results" / "chat.json")
    if output is not None:
        write_json(output, report)
    print(make_tables.chat(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
