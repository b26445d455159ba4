"""How much of a batch of conversations is filled up: batches in drawn order, sorted by length, and packed.

    python benchmarks/conversation_padding.py --data shared/data --out benchmarks/results/conversation_padding.json

Lengths are those of the conversations that `omg train llava_nano` draws, and of people's captions alone, with the
tokens of a picture. `sorted` is what `ConversationMixture` does where lengths are known before conversations are drawn
(blocks of 50 steps); `packed` puts conversations one after the other into rows of the largest length, first fit.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from omgvision.data.conversation_batches import ConversationMixture
from omgvision.data.datasets.captions import read_captions
from omgvision.output_files import write_json
from omgvision.training.recipes import llava_nano

PICTURE = 45
"""Tokens of a picture: 36 cells, a separator, and the objects that are kept (43 to 48 in four pictures of a batch)."""

BATCH, BLOCK = 8, 50


def drawn_lengths(source: ConversationMixture, *, image_token: int, count: int) -> list[int]:
    """Tokens of the first conversations of a run."""
    lengths = []
    for step in range(count // BATCH):
        batch = source.batch(step, batch_size=BATCH)
        pictures = (batch.inputs["input_ids"] == image_token).any(1)
        lengths += (batch.inputs["attention_mask"].sum(1) + (PICTURE - 1) * pictures).tolist()
    return lengths


def padded(lengths: Sequence[int], *, ordered: bool) -> float:
    """Share of the batches that is filled up."""
    rows = np.array(lengths[: len(lengths) // BATCH * BATCH])
    if ordered:
        blocks = [np.sort(rows[start : start + BATCH * BLOCK]) for start in range(0, len(rows), BATCH * BLOCK)]
        rows = np.concatenate(blocks)
    batches = rows.reshape(-1, BATCH)
    return 1 - batches.sum() / (batches.max(1) * BATCH).sum()


def packed(lengths: Sequence[int]) -> float:
    """Share of rows of the largest length that stays empty, first fit."""
    size, free = max(lengths), []
    for length in lengths:
        place = next((index for index, room in enumerate(free) if room >= length), None)
        if place is None:
            free.append(size - length)
        else:
            free[place] -= length
    return sum(free) / (size * len(free))


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure padding and packing of conversations.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    recipe = replace(llava_nano.llava_nano(), data=options.data)
    processor = llava_nano.processor_of(recipe)
    captions = read_captions(options.data / "coco_mini" / "captions.json")
    told = [len(processor.encode_text(one)) + PICTURE + 20 for each in captions.values() for one in each]
    np.random.default_rng(0).shuffle(told)
    made = drawn_lengths(llava_nano.source(recipe), image_token=processor.image_token_id, count=options.count)
    result = {}
    for name, lengths in (
        ("made conversations", made),
        ("captions", told),
    ):
        result[name] = {
            "conversations": len(lengths),
            "mean tokens": round(float(np.mean(lengths)), 1),
            "longest": max(lengths),
            "drawn order": round(padded(lengths, ordered=False), 3),
            "sorted": round(padded(lengths, ordered=True), 3),
            "packed": round(packed(lengths), 3),
        }
    write_json(options.out, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
