"""Benchmarks of words: pictures, questions and answers to files, numbers and a report, on a few small pictures."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import LlamaConfig

from omg_cli.main import run
from omgvision import OmgLlavaConfig, OmgSegConfig, UserError
from omgvision.evaluation import caption_tools
from omgvision.evaluation.language_benchmarks import GRADED_BY, GROUPS, LANGUAGE_BENCHMARKS, LANGUAGE_MODELS
from omgvision.evaluation.runner.described import clean_caption, clean_region_caption, phrases_of
from omgvision.evaluation.runner.run import evaluate_language
from omgvision.evaluation.runner.speaker import Speaker
from omgvision.training.processes import Processes
from tests.golden_llava import processor, random_llava, read_json, tokenizer
from tests.scoring import last_line, refused

from . import word_layouts

SIDE = 128
MASKED = "Sure: <p> A red box </p> [SEG] on noise.<|im_end|>"
WORDLESS = "No mask.<|im_end|>"


class Talker:
    """Makes a model answer what it is told to, whatever it is asked; masks are its own, other ones for each picture."""

    def __init__(self) -> None:
        self.model = random_llava()
        self.model.generation_config.eos_token_id = [2, 400]
        self.model.generation_config.pad_token_id = 2
        self.speaker = Speaker(self.model, processor(SIDE), "tiny")
        self.say(MASKED)
        self.asked = 0
        self.model.lm_head.register_forward_hook(self._force)
        self.model.model.language_model.register_forward_pre_hook(self._begin, with_kwargs=True)

    def say(self, *answers: str) -> None:
        """One after the other, the last for ever."""
        self.answers = [tokenizer()(answer, add_special_tokens=False)["input_ids"] for answer in answers]
        self.turn, self.step = -1, 0

    def _begin(self, module: Any, arguments: Any, options: dict[str, Any]) -> None:
        if options["inputs_embeds"].shape[1] > 1:
            self.turn, self.step = min(self.turn + 1, len(self.answers) - 1), 0
            self.asked += 1

    def _force(self, module: Any, arguments: Any, logits: Tensor) -> Tensor:
        forced = torch.full_like(logits, -1e4)
        forced[..., self.answers[self.turn][self.step]] = 0
        self.step += 1
        return forced


@dataclass(frozen=True)
class Waiting(Processes):
    """A process that lets others do all their work when it waits for the first time."""

    others: list[Callable[[], object]] = field(default_factory=list)

    def wait(self) -> None:
        while self.others:
            self.others.pop()()


@pytest.fixture(scope="module")
def _talker() -> Talker:
    return Talker()


@pytest.fixture
def talker(_talker: Talker) -> Talker:
    _talker.say(MASKED)
    _talker.asked = 0
    return _talker


@pytest.fixture(autouse=True)
def _no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_tools.shutil, "which", lambda name: None)


LAYOUTS = {
    "refcoco-val": word_layouts.ref_seg,
    "refcoco+-testA": word_layouts.ref_seg,
    "refcocog-test": word_layouts.ref_seg,
    "grefcoco-val": word_layouts.ref_seg,
    "reasonseg-test": word_layouts.reason_seg,
    "gcg-val": word_layouts.grand_f,
    "gcg-test": word_layouts.grand_f,
    "region-caption-refcocog": word_layouts.region_captions,
    "region-caption-vg": word_layouts.region_captions,
    "coco-captions": word_layouts.coco_captions,
    "mmbench-dev": word_layouts.mmbench,
    "pope": word_layouts.pope,
    "mme": word_layouts.mme,
}


OFFICIAL = {name: f"ref_seg/{name}" for name in ("refcoco", "refcoco+", "refcocog", "grefcoco")}
OFFICIAL["reasonseg"] = "ReasonSeg"
"""Group → folder of the ground truth as it is distributed."""


def evaluate(name: str, talker: Talker, root: Any, *, out: str = "run", **options: Any) -> dict[str, Any]:
    report = evaluate_language(LANGUAGE_BENCHMARKS[name], root, talker.speaker, out=root / out, **options)
    assert report is not None
    return report


@pytest.mark.parametrize("name", LAYOUTS)
def test_omg_score_says_the_same_of_the_files(name, talker, tmp_path, capsys):
    LAYOUTS[name](tmp_path)
    if name in ("mmbench-dev", "pope", "mme"):
        talker.say("A yes<|im_end|>", "B no<|im_end|>", "A yes<|im_end|>")
    report = evaluate(name, talker, tmp_path)
    assert report["samples"] == report["samples_in_all"] == len(report["per_sample"]["values"]) >= 2
    assert Image.open(tmp_path / "run" / "worst.png").width > 100
    assert (tmp_path / "run" / "report.md").read_text().startswith(f"# {LANGUAGE_BENCHMARKS[name].title}: tiny")
    words = report["check"].split(" ")
    assert words[:2] == ["omg", "score"]
    code = run(words[1:])
    captured = capsys.readouterr()
    scored = last_line((code, captured.out, captured.err))
    assert scored == report["numbers"]
    group = next((group for group, names in GROUPS.items() if name in names), name)
    assert words[2] == GRADED_BY[group]
    if words[2] == "referring":
        # Pictures of train2014 are not needed for the masks.
        shutil.rmtree(tmp_path / "ref_seg" / "train2014", ignore_errors=True)
        words[words.index("--gt") + 1] = str(tmp_path / OFFICIAL[group])
        code = run([*words[1:], "--split", name.rpartition("-")[2]])
        captured = capsys.readouterr()
        assert last_line((code, captured.out, captured.err)) == report["numbers"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_two_processes_are_one(name, talker, tmp_path):
    LAYOUTS[name](tmp_path)
    one = evaluate(name, talker, tmp_path, out="one")
    other = partial(evaluate_language, LANGUAGE_BENCHMARKS[name], tmp_path, talker.speaker, processes=Waiting(1, 2, 1))
    two = evaluate(
        name, talker, tmp_path, out="two", processes=Waiting(0, 2, 0, [partial(other, out=tmp_path / "two")])
    )
    assert (two["numbers"], two["per_sample"]) == (one["numbers"], one["per_sample"])
    assert two["environment"]["processes"] == 2
    assert len(list((tmp_path / "two" / "samples").iterdir())) == 2


def test_limit_and_resume(talker, tmp_path):
    for name, make in {"gcg-val": word_layouts.grand_f, "pope": word_layouts.pope, "mme": word_layouts.mme}.items():
        make(tmp_path)
        part = evaluate(name, talker, tmp_path, out=f"{name} part", limit=1)
        assert (part["samples"], part["check"]) == (1, None)
        asked = talker.asked
        assert evaluate(name, talker, tmp_path, out=f"{name} part", limit=1, resume=True) == part
        assert talker.asked == asked


def test_a_sentence_without_mask_counts_as_in_the_original(talker, tmp_path):
    word_layouts.ref_seg(tmp_path, count=1)
    masked = evaluate("refcoco-val", talker, tmp_path)
    talker.say(MASKED, MASKED, WORDLESS)
    partly = evaluate("refcoco-val", talker, tmp_path, out="partly")
    assert partly["note"].startswith("1 of 3 sentences got no mask.")
    samples = json.loads((tmp_path / "partly" / "predictions" / "predictions.json").read_text())["samples"]
    assert [one["pred"] is None for one in samples] == [False, False, True]
    assert partly["numbers"]["gIoU"] < masked["numbers"]["gIoU"]
    # Both sentences of the red box have the same mask, so cIoU is its IoU.
    assert partly["numbers"]["gIoU"] * 3 / 2 == pytest.approx(partly["numbers"]["cIoU"], abs=1e-4)
    talker.say(WORDLESS)
    assert evaluate("refcoco-val", talker, tmp_path, out="none")["numbers"] | {"cIoU": 0} == dict.fromkeys(
        masked["numbers"], 0
    )


def test_nothing_meant_and_no_mask(talker, tmp_path):
    word_layouts.ref_seg(tmp_path, count=2)
    talker.say(WORDLESS)
    numbers = evaluate("grefcoco-val", talker, tmp_path)["numbers"]
    assert (numbers["N-acc"], numbers["T-acc"], numbers["gIoU"]) == (1, 0, pytest.approx(1 / 3))


def test_questions(talker, tmp_path, monkeypatch):
    asked: list[tuple[str, int]] = []
    from omgvision.chat import Conversation

    original = Conversation.ask

    def ask(self, question, *, max_new_tokens, **options):
        asked.append((question, max_new_tokens))
        return original(self, question, max_new_tokens=max_new_tokens, **options)

    monkeypatch.setattr(Conversation, "ask", ask)

    def questions(name: str, make: Any) -> list[tuple[str, int]]:
        make(tmp_path)
        asked.clear()
        evaluate(name, talker, tmp_path, out=f"of {name}", limit=1)
        return list(asked)

    segment = "Please segment {} in this image."
    wanted = [(segment.format(text), 100) for text in ("red box", "the left one", "blue box")]
    assert questions("refcoco-testB", word_layouts.ref_seg) == wanted
    found = questions("reasonseg-val", word_layouts.reason_seg)
    assert found == [("What is warmer in colour? Please segment it in this image.", 100)]
    region = "Can you provide me with a detailed description of the region in the picture marked by region1 <mark>?"
    assert questions("region-caption-refcocog", word_layouts.region_captions) == [(region, 300)]
    talker.say("A<|im_end|>")
    letters = "Answer with the option's letter from the given choices directly."
    assert questions("mmbench-dev", word_layouts.mmbench) == [
        (f"Look.\nWhich colour?\nA. red\nB. green\n{letters}", 100),
        (f"Look.\nWhich colour?\nA. green\nB. red\n{letters}", 100),
    ]
    assert questions("mme", word_layouts.mme)[0] == ("Is there a box? Please answer yes or no.", 100)
    # Grounded captions: until an answer has a mask.
    talker.say(WORDLESS, WORDLESS, MASKED)
    found = questions("gcg-val", word_layouts.grand_f)
    assert [one for one, _ in found] == list(LANGUAGE_BENCHMARKS["gcg-val"].settings.questions[:3])
    talker.say(WORDLESS)
    assert len(questions("gcg-test", word_layouts.grand_f)) == 6
    written = json.loads((tmp_path / "of gcg-test" / "predictions" / "grounded" / "sa_1.json").read_text())
    assert written == {"image_id": "sa_1", "caption": "No mask.", "phrases": [], "pred_masks": []}


def test_answers_that_are_not_public(talker, tmp_path):
    word_layouts.mmbench(tmp_path)
    talker.say("A<|im_end|>")
    report = evaluate("mmbench-test", talker, tmp_path)
    assert (report["numbers"], report["check"]) == ({}, None)
    assert "answers.xlsx is for the benchmark's server" in report["note"]


def test_captions_are_cleaned_as_the_original_does_it():
    recorded = read_json("data_and_tools")
    for case in recorded["gcg_postprocess"]:
        assert clean_caption(case["text"]) == case["result"]["caption"]
        assert phrases_of(case["text"]) == case["result"]["phrases"]
    for case in recorded["region_caption_clean"]:
        assert clean_region_caption(case["i"]) == case["o"]


def test_published_numbers(talker):
    config = talker.model.config
    rows = {name: row.published_for(config) for name, row in LANGUAGE_BENCHMARKS.items()}
    assert all(row.original_of(config) is None for row in LANGUAGE_BENCHMARKS.values())
    assert [one["value"] for one in rows["refcoco-val"]] == [0.756, 0.772, 0.780]
    assert [one["value"] for one in rows["mme"]] == [1177, 1448, 235, 282]
    assert [(one["number"], one["value"]) for one in rows["gcg-test"]][4:] == [
        ("METEOR", 0.145),
        ("CIDEr", 0.385),
        ("AP50", 0.286),
        ("mIoU", 0.647),
    ]
    assert {name for name, found in rows.items() if not found} == {
        "grefcoco-val",
        "grefcoco-testA",
        "grefcoco-testB",
        "reasonseg-val",
        "reasonseg-test",
        "region-caption-vg",
        "coco-captions",
        "mmbench-dev-cn",
        "mmbench-test",
    }
    for found in rows.values():
        assert all(0 < one["value"] < (2000 if one["number"] in ("perception", "cognition") else 1) for one in found)
        assert all(one["noise"] is None for one in found)


def test_published_with_other_language_models():
    def values(language_model: str) -> dict[str, list[float]]:
        width, layers = next(sides for sides, name in LANGUAGE_MODELS.items() if name == language_model)
        text = LlamaConfig(hidden_size=width, num_hidden_layers=layers)
        config = OmgLlavaConfig(vision_config=OmgSegConfig(), text_config=text)
        assert LANGUAGE_BENCHMARKS["mme"].original_of(config) == language_model
        return {
            name: [one["value"] for one in row.published_for(config) if language_model in one["model"]]
            for name, row in LANGUAGE_BENCHMARKS.items()
        }

    published = {"mme": [1215.7, 251.1], "mmbench-dev": [0.628], "seed-bench": [0.607], "pope": [0.843]}
    published |= {"ai2d": [0.526], "mmstar": [0.372], "scienceqa": [0.664]}
    published |= {"refcoco-val": [0.767], "refcoco+-val": [0.691]}
    assert {name: found for name, found in values("Qwen2-7B").items() if found} == published
    published = {"mme": [1291.6, 265], "mmbench-dev": [0.596], "seed-bench": [0.606], "pope": [0.867]}
    published |= {"ai2d": [0.569], "refcoco-val": [0.765]}
    assert {name: found for name, found in values("Phi3-3.8B").items() if found} == published
    ours = values("InternLM2-7B")
    assert {name: ours[name] for name in ("mmbench-dev", "seed-bench", "pope", "ai2d")} == {
        "mmbench-dev": [0.479, 0.675],
        "seed-bench": [0.565, 0.689],
        "pope": [0.800, 0.897],
        "ai2d": [0.429, 0.617],
    }


@pytest.mark.parametrize("name", LANGUAGE_BENCHMARKS)
def test_data_that_are_not_there(name, talker, tmp_path):
    with pytest.raises(UserError, match=rf"^{name.replace('+', '.')}: expected .*give the folder of"):
        evaluate(name, talker, tmp_path)
    assert not (tmp_path / "run").exists()


def test_the_shell(talker, tmp_path, capsys):
    talker.model.save_pretrained(tmp_path / "model")
    talker.speaker.processor.save_pretrained(tmp_path / "model")
    word_layouts.coco_captions(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        code = run(["evaluate", *map(str, words), "--out", str(tmp_path / "out"), "--device", "cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    model = ("--model", tmp_path / "model", "--data", tmp_path)
    code, out, err = call("coco-captions", *model, "--limit", 1)
    assert (code, out.startswith("captions of COCO val2017: 1 of 2 samples, model\n")) == (0, True), err
    assert "type omg_llava" in refused(call("camvid", *model))
    assert "--size 64,32" in refused(call("coco-captions", *model, "--size", "64,32"))
    assert "at least one benchmark, got none of 3" in refused(call("refcoco", *model))
    assert "expected one of float32" in refused(call("coco-captions", *model, "--dtype", "int8"))
    assert "omg score gcg" in refused(call("gcg", "--data", tmp_path))
