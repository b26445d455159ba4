"""What OMG-LLaVA models are measured on: where the data lie, what the original was asked, what was published.

Numbers are those of OMG-LLaVA (Zhang et al., NeurIPS 2024), read in the paper. Its
authors say nothing of the noise between two runs. Questions are those that the published weights were trained with and
measured by; the further ones of grounded captions and those for ReasonSeg, gRefCOCO's whole sentences, POPE, MME and
COCO captions, which the original did not publish, are ours or the benchmarks' own words.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from omgvision.data.datasets.captions import read_captioned, read_regions
from omgvision.data.datasets.questions import ChoiceQuestions, read_mme, read_pope
from omgvision.data.datasets.referring import ReasonSeg, RefCoco
from omgvision.evaluation.benchmark import Published, Row, first_of
from omgvision.evaluation.benchmarks import backbone_of
from omgvision.evaluation.mme import COGNITION, PERCEPTION
from omgvision.evaluation.runner.described import DescribedPictures, GroundedPictures
from omgvision.evaluation.runner.questions import ChoicePictures, MmePictures, PopePictures
from omgvision.evaluation.runner.sentences import ReferringSentences, SentenceSettings
from omgvision.evaluation.runner.speaker import AskSettings, Speaker
from omgvision.evaluation.runner.task import Task
from omgvision.evaluation.scores.grounded_captions import Split
from omgvision.models.omg_llava.configuration_omg_llava import OmgLlavaConfig
from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig

MODEL_TYPE = OmgLlavaConfig.model_type

LANGUAGE_MODELS: Mapping[tuple[int, int], str] = {
    (4096, 32): "InternLM2-7B",
    (3584, 28): "Qwen2-7B",
    (3072, 32): "Phi3-3.8B",
}
"""Channels and layers → the language models that numbers were published with."""


class LanguageBenchmark(Row[Speaker, OmgLlavaConfig, Any]):
    """What OMG-LLaVA models are measured on."""

    def original_of(self, config: OmgLlavaConfig) -> str | None:
        """The language model, if it is a published one behind the published encoder."""
        vision, text = config.vision_config, config.get_text_config()
        if not isinstance(vision, OmgSegConfig) or backbone_of(vision) != "ConvNeXt-L":
            return None
        return LANGUAGE_MODELS.get((text.hidden_size, text.num_hidden_layers))

    def published_for(self, config: OmgLlavaConfig) -> list[dict[str, Any]]:
        """With its own language model, else with InternLM2-7B, else with any."""
        for language_model in (self.original_of(config), "InternLM2-7B", ""):
            found = [asdict(one) for one in self.published if one.model.startswith(f"OMG-LLaVA {language_model}")]
            if found:
                return found
        return []


def _published(values: Mapping[str, float], model: str, *, table: str, confirmed: bool = True) -> tuple[Published, ...]:
    source = f"OMG-LLaVA paper, {table}"
    return tuple(
        Published(number, value, f"OMG-LLaVA {model}", confirmed=confirmed, source=source)
        for number, value in values.items()
    )


_MIXED, _FROZEN, _TRAINED = (
    f"InternLM2-7B, {how}" for how in ("all tasks", "fine-tuned, decoder frozen", "fine-tuned, decoder trained")
)
_TRAIN_2014 = (
    "train2014",
    "images/train2014",
    "images/mscoco/images/train2014",
    "../train2014",
    "../coco/train2014",
    "../coco2014/train2014",
    "../images/coco2014/train2014",
)
_VAL_2014 = tuple(name.replace("train2014", "val2014") for name in _TRAIN_2014)
_SENTENCES = ("ref_seg", "refer_seg", "refcoco", ".")
_SEGMENT = "Please segment {} in this image."
_GROUNDED = (
    "Could you please give me a detailed description of the image? Please respond with interleaved segmentation masks "
    "for the corresponding parts of the answer.",
    "Describe the image in detail, and put a segmentation mask after every part of the answer that names something.",
    "What does this picture show? Please answer in full, with interleaved segmentation masks for what you name.",
    "Give me a thorough description of the photo. Each thing that you name should come with its segmentation mask.",
    "Please explain what can be seen here, with a segmentation mask for each of the phrases.",
    "Tell me all about this image and interleave the segmentation masks of the things in it.",
)
_REGION = "Can you provide me with a detailed description of the region in the picture marked by region1 <mark>?"
_CHOICE = (
    "{}Answer with the option's letter from the given choices directly.",
    "{}请只用选项的字母回答。",
)


def _referring(root: Path, speaker: Speaker, settings: SentenceSettings, *, name: str, split: str) -> Task:
    samples = RefCoco(root / name, images=first_of(root, _TRAIN_2014), split=split, name=name)
    return ReferringSentences(samples, speaker=speaker, settings=settings)


def _reason_seg(root: Path, speaker: Speaker, settings: SentenceSettings, *, split: str) -> Task:
    return ReferringSentences(ReasonSeg(root, split=split), speaker=speaker, settings=settings)


_GRANDF_FILES = ("annotations/val_test", "annotations/gcg_val_test", "val_test", ".")
_GRANDF_IMAGES = (
    "GranDf_HA_images/val_test",
    "images/GranDf_HA_images/val_test",
    "images/grandf/val_test",
    "images/val_test",
    "images",
    "../GranDf_HA_images/val_test",
)


def _grounded(root: Path, speaker: Speaker, settings: AskSettings, *, split: Split) -> Task:
    captions = first_of(root, tuple(f"{folder}/{split}_gcg_coco_caption_gt.json" for folder in _GRANDF_FILES))
    images = first_of(root, _GRANDF_IMAGES)
    return GroundedPictures(captions.parent, split=split, images=images, speaker=speaker, settings=settings)


_GROUNDED_PUBLISHED: Mapping[Split, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "val": ((0.138, 0.362, 0.269, 0.646), (0.149, 0.412, 0.299, 0.655)),
    "test": ((0.135, 0.331, 0.261, 0.628), (0.145, 0.385, 0.286, 0.647)),
}
"""METEOR, CIDEr, AP50 and mIoU: of all tasks together, and fine-tuned."""


_REFCOCOG_REGIONS = tuple(
    f"{folder}finetune_refcocog_val_with_mask.json" for folder in ("", "refcocog/", "mdetr_annotations/")
)
_REFCOCOG_CAPTIONS = tuple(name.replace("with_mask", "captions") for name in _REFCOCOG_REGIONS)
_VG_REGIONS = ("test_caption.json", "annotations/test_caption.json")
_VG_IMAGES = ("images", "VG_100K", "vg_image")


def _refcocog_regions(root: Path, speaker: Speaker, settings: AskSettings) -> Task:
    captions = first_of(root, _REFCOCOG_CAPTIONS)
    regions = read_regions(first_of(root, _REFCOCOG_REGIONS), images=first_of(root, _TRAIN_2014), captions=captions)
    return DescribedPictures(regions, captions, speaker=speaker, settings=settings)


def _vg_regions(root: Path, speaker: Speaker, settings: AskSettings) -> Task:
    captions = first_of(root, _VG_REGIONS)
    regions = read_regions(captions, images=first_of(root, _VG_IMAGES), captions=captions)
    return DescribedPictures(regions, captions, speaker=speaker, settings=settings)


def _coco_captions(root: Path, speaker: Speaker, settings: AskSettings) -> Task:
    captions = root / "annotations" / "captions_val2017.json"
    pictures = read_captioned(captions, images=root / "val2017")
    return DescribedPictures(pictures, captions, speaker=speaker, settings=settings)


def _choices(root: Path, speaker: Speaker, settings: AskSettings, *, tables: tuple[str, ...]) -> Task:
    return ChoicePictures(ChoiceQuestions(first_of(root, tables)), speaker=speaker, settings=settings)


_POPE_LISTS = tuple(f"coco_pope_{kind}.json" for kind in ("random", "popular", "adversarial"))


def _pope(root: Path, speaker: Speaker, settings: AskSettings) -> Task:
    images = first_of(root, _VAL_2014)
    questions = [one for name in _POPE_LISTS for one in read_pope(root / name, images=images)]
    return PopePictures(root, questions, speaker=speaker, settings=settings)


def _mme(root: Path, speaker: Speaker, settings: AskSettings) -> Task:
    return MmePictures(read_mme(root, subtasks=PERCEPTION + COGNITION), speaker=speaker, settings=settings)


def _refcoco_rows(
    name: str,
    title: str,
    file: str,
    ciou: Mapping[str, tuple[float, float, float]],
    *,
    of_others: Mapping[str, float] = MappingProxyType({}),
) -> list[Any]:
    """Rows of the splits, with cIoU as published: all tasks; fine-tuned with the decoder frozen; and trained.

    `of_others` is of other language models. Their table does not say of which split: taken for val.
    """
    return [
        LanguageBenchmark(
            f"{name}-{split}",
            f"{title} {split}",
            folders=_SENTENCES,
            layout=(f"{name}/{file}", f"{name}/instances.json", _TRAIN_2014),
            settings=SentenceSettings(questions=(_SEGMENT,), max_new_tokens=100),
            task=partial(_referring, name=name, split=split),
            published=(
                *(
                    one
                    for model, value in zip((_MIXED, _FROZEN, _TRAINED), values, strict=True)
                    for one in _published({"cIoU": value}, model, table="table of referring segmentation")
                ),
                *(_of_language_models("cIoU", of_others, confirmed=False) if split == "val" else ()),
            ),
        )
        for split, values in ciou.items()
    ]


def _choice_row(name: str, title: str, tables: tuple[str, ...], published: tuple[Published, ...] = ()) -> Any:
    return LanguageBenchmark(
        name,
        title,
        folders=("LMUData", "mmbench", "MMBench"),
        layout=(tables,),
        settings=AskSettings(questions=_CHOICE, max_new_tokens=100),
        task=partial(_choices, tables=tables),
        published=published,
    )


def _of_language_models(
    number: str, values: Mapping[str, float], *, llava_alone: float | None = None, confirmed: bool = True
) -> tuple[Published, ...]:
    """Co-trained models with each language model, and one that was trained on LLaVA's data alone.

    Which language model the latter has the paper does not say: taken for that of its other tables.
    """
    table = "table of language models"
    co_trained = tuple(
        one
        for model, value in values.items()
        for one in _published({number: value}, f"{model}, all tasks", table=table, confirmed=confirmed)
    )
    if llava_alone is None:
        return co_trained
    return co_trained + _published(
        {number: llava_alone}, "InternLM2-7B, LLaVA's data alone", table=table, confirmed=False
    )


_ROWS: tuple[LanguageBenchmark, ...] = (
    *_refcoco_rows(
        "refcoco",
        "RefCOCO (unc)",
        "refs(unc).p",
        {"val": (0.756, 0.772, 0.780), "testA": (0.777, 0.798, 0.803), "testB": (0.712, 0.741, 0.741)},
        of_others={"Qwen2-7B": 0.767, "Phi3-3.8B": 0.765},
    ),
    *_refcoco_rows(
        "refcoco+",
        "RefCOCO+ (unc)",
        "refs(unc).p",
        {"val": (0.656, 0.687, 0.691), "testA": (0.697, 0.730, 0.731), "testB": (0.589, 0.616, 0.630)},
        of_others={"Qwen2-7B": 0.691},
    ),
    *_refcoco_rows(
        "refcocog",
        "RefCOCOg (umd)",
        "refs(umd).p",
        {"val": (0.707, 0.717, 0.729), "test": (0.702, 0.719, 0.729)},
    ),
    *(
        LanguageBenchmark(
            f"grefcoco-{split}",
            f"gRefCOCO {split}",
            folders=_SENTENCES,
            layout=("grefcoco/grefs(unc).json", "grefcoco/instances.json", _TRAIN_2014),
            settings=SentenceSettings(questions=(_SEGMENT,), max_new_tokens=100, masks="all", protocol="gres"),
            task=partial(_referring, name="grefcoco", split=split),
        )
        for split in ("val", "testA", "testB")
    ),
    *(
        LanguageBenchmark(
            f"reasonseg-{split}",
            f"ReasonSeg {split}",
            folders=("ReasonSeg", "reason_seg/ReasonSeg", "reasonseg"),
            layout=(split,),
            settings=SentenceSettings(
                questions=(_SEGMENT,),
                max_new_tokens=100,
                whole_sentence="{} Please segment it in this image.",
                ignore=True,
            ),
            task=partial(_reason_seg, split=split),
        )
        for split in ("val", "test")
    ),
    *(
        LanguageBenchmark(
            f"gcg-{split}",
            f"grounded captions, GranD-f {split}",
            folders=("GranDf", "grandf", "glamm_data"),
            layout=(
                tuple(f"{folder}/{split}_gcg_coco_caption_gt.json" for folder in _GRANDF_FILES),
                tuple(f"{folder}/{split}_gcg_coco_mask_gt.json" for folder in _GRANDF_FILES),
                _GRANDF_IMAGES,
            ),
            settings=AskSettings(questions=_GROUNDED, max_new_tokens=100),
            task=partial(_grounded, split=split),
            published=tuple(
                one
                for model, values in ((_MIXED, mixed), ("InternLM2-7B, fine-tuned", tuned))
                for one in _published(
                    dict(zip(("METEOR", "CIDEr", "AP50", "mIoU"), values, strict=True)),
                    model,
                    table="table of grounded captions",
                )
            ),
        )
        for split, (mixed, tuned) in _GROUNDED_PUBLISHED.items()
    ),
    LanguageBenchmark(
        "region-caption-refcocog",
        "region captions of RefCOCOg val",
        folders=("region_caption", "region_caption/refcocog", "RefCoco_Reg", "refcocog"),
        layout=(_REFCOCOG_REGIONS, _REFCOCOG_CAPTIONS, _TRAIN_2014),
        settings=AskSettings(questions=(_REGION,), max_new_tokens=300),
        task=_refcocog_regions,
        published=_published({"METEOR": 0.153}, "InternLM2-7B", table="table of region captions"),
    ),
    LanguageBenchmark(
        "region-caption-vg",
        "region captions of Visual Genome test",
        folders=("visual_genome", "vg", "region_caption/vg"),
        layout=(_VG_REGIONS, _VG_IMAGES),
        settings=AskSettings(questions=(_REGION,), max_new_tokens=300),
        task=_vg_regions,
    ),
    LanguageBenchmark(
        "coco-captions",
        "captions of COCO val2017",
        folders=("coco", "COCO"),
        layout=("annotations/captions_val2017.json", "val2017"),
        settings=AskSettings(questions=("Give a short description of the image.",), max_new_tokens=100),
        task=_coco_captions,
    ),
    _choice_row(
        "mmbench-dev",
        "MMBench dev, English",
        ("MMBench_DEV_EN.tsv", "mmbench_dev_en_20231003.tsv", "mmbench_dev_20230712.tsv"),
        _of_language_models(
            "Overall", {"InternLM2-7B": 0.479, "Qwen2-7B": 0.628, "Phi3-3.8B": 0.596}, llava_alone=0.675
        ),
    ),
    _choice_row("mmbench-dev-cn", "MMBench dev, Chinese", ("MMBench_DEV_CN.tsv", "mmbench_dev_cn_20231003.tsv")),
    _choice_row(
        "mmbench-test",
        "MMBench test, English",
        ("MMBench_TEST_EN.tsv", "mmbench_test_en_20231003.tsv", "mmbench_test_20230712.tsv"),
    ),
    _choice_row(
        "seed-bench",
        "SEED-Bench, pictures",
        ("SEEDBench_IMG.tsv",),
        # The paper's text says 46.5 of InternLM2-7B, its table 56.5.
        _of_language_models(
            "Overall",
            {"InternLM2-7B": 0.565, "Qwen2-7B": 0.607, "Phi3-3.8B": 0.606},
            llava_alone=0.689,
            confirmed=False,
        ),
    ),
    _choice_row(
        "ai2d",
        "AI2D test",
        ("AI2D_TEST.tsv",),
        _of_language_models(
            "Overall", {"InternLM2-7B": 0.429, "Qwen2-7B": 0.526, "Phi3-3.8B": 0.569}, llava_alone=0.617
        ),
    ),
    _choice_row("mmstar", "MMStar", ("MMStar.tsv",), _of_language_models("Overall", {"Qwen2-7B": 0.372})),
    _choice_row(
        "scienceqa",
        "ScienceQA test, with pictures",
        ("ScienceQA_TEST.tsv",),
        # The paper does not say of which split.
        _of_language_models("Overall", {"Qwen2-7B": 0.664}, confirmed=False),
    ),
    LanguageBenchmark(
        "pope",
        "POPE: random, popular and adversarial",
        folders=("POPE", "pope", "POPE/output/coco"),
        layout=(*_POPE_LISTS, _VAL_2014),
        settings=AskSettings(questions=("{}",), max_new_tokens=100),
        task=_pope,
        # The paper does not say which of POPE's numbers it is.
        published=_of_language_models(
            "accuracy",
            {"InternLM2-7B": 0.800, "Qwen2-7B": 0.843, "Phi3-3.8B": 0.867},
            llava_alone=0.897,
            confirmed=False,
        ),
    ),
    LanguageBenchmark(
        "mme",
        "MME",
        folders=("MME_Benchmark_release_version", "MME", "mme"),
        layout=PERCEPTION + COGNITION,
        settings=AskSettings(questions=("{}",), max_new_tokens=100),
        task=_mme,
        published=(
            *_of_language_models(
                "perception", {"InternLM2-7B": 1177, "Qwen2-7B": 1215.7, "Phi3-3.8B": 1291.6}, llava_alone=1448
            ),
            *_of_language_models(
                "cognition", {"InternLM2-7B": 235, "Qwen2-7B": 251.1, "Phi3-3.8B": 265}, llava_alone=282
            ),
        ),
    ),
)

LANGUAGE_BENCHMARKS: Mapping[str, LanguageBenchmark] = {row.name: row for row in _ROWS}
"""Name → what OMG-LLaVA models are measured on."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    group: tuple(name for name in LANGUAGE_BENCHMARKS if name.startswith(f"{group}-"))
    for group in ("refcoco", "refcoco+", "refcocog", "grefcoco", "reasonseg", "gcg", "region-caption", "mmbench")
}
"""Name → the parts that it stands for."""

GRADED_BY: Mapping[str, str] = {
    **dict.fromkeys(("refcoco", "refcoco+", "refcocog", "grefcoco", "reasonseg"), "referring"),
    "gcg": "gcg",
    **dict.fromkeys(("region-caption", "coco-captions"), "captions"),
    **dict.fromkeys(("mmbench", "seed-bench", "ai2d", "mmstar", "scienceqa"), "multiple-choice"),
    "pope": "pope",
    "mme": "mme",
}
"""Group, or benchmark without one → the metric of `omg score` that grades its files."""
