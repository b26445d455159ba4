"""The model card of the bundled chat weights, written from the measured results alone.

python -m omgvision.training.chat_card --results docs/results/llava_nano.json --out FOLDER/README.md
"""

from collections.abc import Sequence
from typing import Any

from omgvision.training.card import write_card

HEADER = """---
license: cc-by-nc-sa-4.0
pipeline_tag: image-text-to-text
library_name: transformers
tags: [visual-question-answering, image-captioning, referring-segmentation]
---

"""

TEXT = """# omg-llava-nano

A small model that talks about pictures and marks what it speaks of: {parameters:.0f}M parameters, {megabytes:.0f} MB,
packed. It is the bundled segmenter under SmolLM2-135M-Instruct, made by `omg train llava_nano`: {training}. It is a
demonstration of all tasks on a laptop, learned from a few hundred photographs: it is often wrong, and unfit for use on
people, for decisions, or wherever it matters what is true.

| part | from | licence |
| --- | --- | --- |
| segmenter (frozen) | omg-seg-nano as it was before its last run, see its card | CC BY-NC-SA 4.0 |
| language model | SmolLM2-135M-Instruct in Q4_1, its blocks unchanged, with fewer words | Apache-2.0 |
| projections, mask decoder, adapters | trained here | CC BY-NC-SA 4.0 |

Seen in training: the train parts of coco_mini (281 photographs with objects, 70 with everything, people's captions of
50 of them), CamVid and DAVIS 2016, and rendered scenes. All conversations are made from their annotations.

## Held-out numbers

{table}

Answers to questions made of the annotations of val photographs of coco_mini, written by the model itself, one question
a conversation. A trivial answer does not read the question: its mask is the best of the whole picture, an ellipse in
the middle and the largest object that omg-seg-nano finds; its words are those that are right most often on these very
questions. Captions with masks are measured as in GLaMM, but that a phrase is right if its noun is (the original asks
BERT).

## What it says

{examples}

Measured by `python -m omgvision.evaluation.chat_numbers`; this page is `python -m omgvision.training.chat_card`.
"""


def card(results: dict[str, Any]) -> str:
    """The page for the content of a result file (`omgvision.evaluation.chat_numbers`)."""
    lines = [
        "| what | questions | metric | omg-llava-nano | trivial | that is |",
        "| --- | ---: | --- | ---: | ---: | --- |",
    ]
    for row in results["rows"]:
        lines.append(
            f"| {row['what']} | {row['questions']} | {row['metric']} | {row['value']:.3f} | {row['trivial']:.3f} | "
            f"{row['trivial_is']} |"
        )
    runs = results["training"]
    if not runs:
        raise ValueError("results: no training run in this file; measure with --run RUN")
    examples = ["| asked | answered | right |", "| --- | --- | --- |"]
    for one in results["examples"]:
        cells = (one[name].replace("|", "\\|").replace("\n", " ") for name in ("question", "answer", "truth"))
        examples.append("| " + " | ".join(f"`{cell}`" for cell in cells) + " |")
    return HEADER + TEXT.format(
        parameters=results["parameters"] / 1e6,
        megabytes=results["megabytes"],
        training=" + ".join(f"{run['steps']:,}" for run in runs)
        + " steps in "
        + " + ".join(f"{run['minutes']:.0f}" for run in runs)
        + " minutes on two CPU cores at most",
        table="\n".join(lines),
        examples="\n".join(examples),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    write_card(card, arguments)


if __name__ == "__main__":
    main()
