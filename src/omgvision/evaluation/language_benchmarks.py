"""The benchmarks of sentences and answers: what was published, for models of type omg_llava.

`omg score` grades the files of all of them. Numbers are those of OMG-LLaVA (Zhang et al., NeurIPS 2024), read in the
paper: with InternLM2-7B; referring segmentation fine-tuned with the decoder unfrozen, GCG fine-tuned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

MODEL_TYPE = "omg_llava"


@dataclass(frozen=True)
class LanguageBenchmark:
    """A data set of words.

    Attributes:
        title: For people.
        metric: As in `omg score METRIC`.
        published: Split and number → value, as a fraction (of MME: points).
    """

    title: str
    metric: str
    published: Mapping[str, float] = field(default_factory=dict)


LANGUAGE_BENCHMARKS: Mapping[str, LanguageBenchmark] = {
    "refcoco": LanguageBenchmark(
        "RefCOCO (unc)", "referring", {"val cIoU": 0.780, "testA cIoU": 0.803, "testB cIoU": 0.741}
    ),
    "refcoco+": LanguageBenchmark(
        "RefCOCO+ (unc)", "referring", {"val cIoU": 0.691, "testA cIoU": 0.731, "testB cIoU": 0.630}
    ),
    "refcocog": LanguageBenchmark("RefCOCOg (umd)", "referring", {"val cIoU": 0.729, "test cIoU": 0.729}),
    "grefcoco": LanguageBenchmark("gRefCOCO", "referring"),
    "reasonseg": LanguageBenchmark("ReasonSeg", "referring"),
    "gcg": LanguageBenchmark(
        "grounded captions of GranD-f",
        "gcg",
        {
            "val METEOR": 0.149,
            "val CIDEr": 0.412,
            "val AP50": 0.299,
            "val mIoU": 0.655,
            "test METEOR": 0.145,
            "test CIDEr": 0.385,
            "test AP50": 0.286,
            "test mIoU": 0.647,
        },
    ),
    "region-caption": LanguageBenchmark("region captions of RefCOCOg", "captions", {"METEOR": 0.153}),
    "mmbench": LanguageBenchmark("MMBench", "multiple-choice", {"Overall": 0.479}),
    "pope": LanguageBenchmark("POPE", "pope", {"accuracy": 0.800}),
    "mme": LanguageBenchmark("MME", "mme", {"perception": 1177, "cognition": 235}),
}
"""Name → what OMG-LLaVA models are measured on."""
