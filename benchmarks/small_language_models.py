"""Why `omg-llava-nano` stands on a published language model: captions of val photographs, read by that model as it is
and by one of ten million parameters that has seen the train captions alone.

    python -m benchmarks.small_language_models --data ../shared/data

Loss is in nats a character, so that vocabularies do not matter; no model sees a picture. The small model is stopped at
the epoch that is best on the val captions, which favours it. Cost: seconds of one thread for a training step of four
conversations of 236 tokens through each.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from omgvision.data import CocoInstances
from omgvision.data.datasets.captions import read_captions
from omgvision.output_files import write_json
from omgvision.training.recipes import llava_nano

RESULTS = Path(__file__).parent / "results" / "small_language_models.json"
QUESTION = "<|im_start|>user\nDescribe the photograph in one sentence.<|im_end|>\n<|im_start|>assistant\n"
CONVERSATIONS, TOKENS = 4, 236


def captions_of(data: Path, part: str) -> list[str]:
    coco = data / "coco_mini"
    dataset = CocoInstances(coco / f"instances_{part}.json", images=coco / "images")
    photographs = {dataset[index].sample_id for index in range(len(dataset))}
    told = read_captions(coco / "captions.json")
    return [caption for sample, captions in sorted(told.items()) if sample in photographs for caption in captions]


def loss_of(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, caption: str, *, question: str) -> Tensor:
    """Nats of a caption and its end."""
    before, after = tokenizer(question)["input_ids"], tokenizer(f"{caption}<|im_end|>")["input_ids"]
    ids = torch.tensor([[*before, *after]])
    labels = ids.clone()
    labels[:, : max(len(before), 1)] = -100
    return model(input_ids=ids, labels=labels, use_cache=False).loss * (labels[:, 1:] != -100).sum()


@torch.no_grad()
def nats_a_character(model, tokenizer, captions: Sequence[str], *, question: str) -> float:
    model.eval()
    total = sum(float(loss_of(model, tokenizer, caption, question=question)) for caption in captions)
    return total / sum(map(len, captions))


def step_seconds(model: LlamaForCausalLM) -> float:
    """Processor time of a forward pass and of the gradients that reach the embeddings."""
    inputs = torch.randn(CONVERSATIONS, TOKENS, model.config.hidden_size, requires_grad=True)
    times = []
    for _ in range(3):
        start = time.process_time()
        model.model(inputs_embeds=inputs, use_cache=False).last_hidden_state.sum().backward()
        times.append(time.process_time() - start)
    return sorted(times)[1]


def small_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, special_tokens=special, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def small_model(words: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=words,
            hidden_size=320,
            intermediate_size=864,
            num_hidden_layers=8,
            num_attention_heads=5,
            num_key_value_heads=5,
            tie_word_embeddings=True,
        )
    )


def trained(model, tokenizer, captions: Sequence[str], held: Sequence[str], *, epochs: int) -> float:
    """The best loss on held-out captions after any epoch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    best = float("inf")
    for epoch in range(epochs):
        model.train()
        order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(epoch)).tolist()
        for start in range(0, len(order), 16):
            chosen = [f"<|im_start|>{captions[index]}<|im_end|>" for index in order[start : start + 16]]
            batch = tokenizer(chosen, padding=True, return_tensors="pt", return_token_type_ids=False)
            labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
            model(**batch, labels=labels, use_cache=False).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        best = min(best, nats_a_character(model, tokenizer, held, question="<|im_start|>"))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare small language models on captions.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seen, held = captions_of(options.data, "train"), captions_of(options.data, "val")
    recipe = replace(llava_nano.llava_nano(), data=options.data)
    published = llava_nano.language_model(recipe)
    large = LlamaForCausalLM(published.config)
    large.model.load_state_dict(published.state())
    large.tie_weights()
    large.requires_grad_(False)
    tokenizer = small_tokenizer(seen)
    small = small_model(len(tokenizer))
    result = {
        "captions": {"train": len(seen), "val": len(held)},
        "SmolLM2-135M, fewer words, untrained here": {
            "parameters": sum(p.numel() for p in large.parameters()),
            "nats a character": round(nats_a_character(large, published.tokenizer, held, question=QUESTION), 4),
            "seconds a step": round(step_seconds(large), 2),
        },
        "Llama from scratch": {
            "parameters": sum(p.numel() for p in small.parameters()),
            "seconds a step": round(step_seconds(small), 2),
            "nats a character": round(trained(small, tokenizer, seen, held, epochs=options.epochs), 4),
        },
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
