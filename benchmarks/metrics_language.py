"""How fast BLEU, ROUGE-L and CIDEr are beside pycocoevalcap: the same words, one process, one run.

    pip install -e '.[captions]'
    python -m benchmarks.metrics language            # a minute
    python -m benchmarks.metrics language --quick    # seconds: shows that it runs, measures nothing

METEOR and the official tokeniser are the same Java programs for both, and left out. Repeats of the two alternate; the
fastest of each counts, in seconds of processor time. The numbers have to be equal.
"""

import argparse
import contextlib
import importlib
import io
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omgvision.evaluation.captions import Captions
from omgvision.evaluation.machine import cpu_name
from omgvision.output_files import write_json

HERE = Path(__file__).resolve().parent
REFERENCES = 5

Numbers = dict[str, float]
Texts = dict[str, list[str]]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images: shows that it runs, measures nothing")
    parser.add_argument("--out", type=Path, help="json file; benchmarks/results/metrics_language.json unless --quick")
    arguments = parser.parse_args(words)
    report = measure(images=50, repeats=1) if arguments.quick else measure(images=5000, repeats=3)
    print(f"ours {report['ours_s']:.2f} s  official {report['official_s']:.2f} s  {report['ratio']:.1f} ×")
    out = arguments.out or (None if arguments.quick else HERE / "results" / "metrics_language.json")
    if out is not None:
        write_json(out, report)
        print(f"written: {out}")


def measure(*, images: int, repeats: int) -> dict[str, Any]:
    """Seconds of both, and where they were measured."""
    candidates, references = sentences(images)
    runs = {"ours_s": lambda: score(candidates, references), "official_s": lambda: official(candidates, references)}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    found: dict[str, Numbers] = {}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name], elapsed = timed(run)
            seconds[name].append(elapsed)
    for name, value in found["official_s"].items():
        assert abs(found["ours_s"][name] - value) < 1e-9, f"{name}: {found['ours_s'][name]} here, {value} officially"
    best = {name: min(values) for name, values in seconds.items()}
    return {
        "metric": f"BLEU, ROUGE-L, CIDEr of {images} images with {REFERENCES} references",
        **{name: round(value, 3) for name, value in best.items()},
        "ratio": round(best["official_s"] / best["ours_s"], 2),
        "numbers": found["official_s"],
        "repeats": repeats,
        "machine": {"cpus": os.cpu_count(), "processor": cpu_name(), "system": platform.platform()},
        "versions": {"python": platform.python_version(), "numpy": np.__version__},
    }


def timed(run: Callable[[], Numbers]) -> tuple[Numbers, float]:
    started = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        numbers = run()
    return numbers, time.process_time() - started


def sentences(images: int) -> tuple[Texts, Texts]:
    """Made-up captions of 8 to 14 words; a few words are as frequent as "a" and "the", most are rare."""
    generator = np.random.default_rng(0)
    likelihood = 1 / np.arange(1, 5001)
    words = generator.choice(5000, size=(images, REFERENCES + 1, 14), p=likelihood / likelihood.sum())
    # References of an image share words with each other and with the candidate.
    words = np.where(generator.random(words.shape) < 0.5, words[:, :1], words)
    lengths = generator.integers(8, 15, size=words.shape[:2])
    texts = [
        [" ".join(f"w{word}" for word in row[:length]) for row, length in zip(of_image, of_lengths, strict=True)]
        for of_image, of_lengths in zip(words, lengths, strict=True)
    ]
    names = [str(number) for number in range(images)]
    return (
        {name: of_image[:1] for name, of_image in zip(names, texts, strict=True)},
        {name: of_image[1:] for name, of_image in zip(names, texts, strict=True)},
    )


def score(candidates: Texts, references: Texts) -> Numbers:
    metric = Captions(list)
    for name, (candidate,) in candidates.items():
        metric.update(name, candidate, references[name])
    return metric.compute()


def official(candidates: Texts, references: Texts) -> Numbers:
    # Not imported above: it is no requirement of the project.
    parts: dict[str, Any] = {
        name: getattr(importlib.import_module(f"pycocoevalcap.{name.lower()}.{name.lower()}"), name)
        for name in ("Bleu", "Rouge", "Cider")
    }
    bleu, _ = parts["Bleu"](4).compute_score(references, candidates, verbose=0)
    numbers = {f"Bleu_{order}": value for order, value in enumerate(bleu, start=1)}
    numbers["ROUGE_L"], _ = parts["Rouge"]().compute_score(references, candidates)
    numbers["CIDEr"], _ = parts["Cider"]().compute_score(references, candidates)
    return {name: float(value) for name, value in numbers.items()}


if __name__ == "__main__":
    main()
