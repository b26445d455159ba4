"""Metrics of pictures and words equal to the official tools: through the classes and through `omg score`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from omg_cli.main import run
from omgvision.evaluation import caption_tools
from omgvision.evaluation.captions import NAMES, Captions
from omgvision.evaluation.grounded_captions import GroundedCaptions
from omgvision.evaluation.multiple_choice import CircularAccuracy, match_option
from omgvision.evaluation.phrase_similarity import ignore_phrases, jaccard
from omgvision.evaluation.referring import Protocol, ReferringIoU
from omgvision.evaluation.scores import referring as referring_scores
from tests import golden

EXACT = 1e-9
LISA = 1e-5  # recorded in float32


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def omg_score(capsys: pytest.CaptureFixture[str], tmp_path: Path, *words: object) -> dict[str, float | None]:
    """All numbers of the report; the headline is the last line printed."""
    report = tmp_path / "report.json"
    assert run(["score", *map(str, words), "--out", str(report)]) == 0, capsys.readouterr().err
    numbers = read(report)
    headline = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert headline == {name: value for name, value in numbers.items() if "/" not in name}
    return numbers


def decode(runs: Any) -> np.ndarray:
    return coco_mask.decode(runs).astype(bool)


def referring(samples: list[dict[str, Any]], protocol: Protocol, *, ignore: bool = False) -> ReferringIoU:
    metric = ReferringIoU(protocol)
    for sample in samples:
        metric.update(
            str(sample["id"]),
            decode(sample["pred"]),
            decode(sample["gt"]),
            ignore=decode(sample["ignore"]) if ignore and sample["ignore"] is not None else None,
            no_target=sample["gt_no_target"],
            predicted_no_target=sample["pred_no_target"],
            source=sample["source"],
        )
    return metric


GRES = {"gIoU": "gIoU", "cIoU": "cIoU", "Pr@0.7": "Pr@0.7", "Pr@0.8": "Pr@0.8", "Pr@0.9": "Pr@0.9"}
GRES_FRACTIONS = {"N-acc": "N_acc", "T-acc": "T_acc"}


def test_referring_gres(capsys, tmp_path: Path):
    folder = golden.metrics("referring")
    expected = read(folder / "expected.json")["gres"]["result"]
    path = folder / "samples.json"
    numbers = omg_score(capsys, tmp_path, "referring", "--gt", path, "--pred", path, "--protocol", "gres")
    for source, recorded in expected.items():
        suffix = "" if source == "full" else f"/{source}"
        for ours, theirs in GRES.items():
            assert numbers[f"{ours}{suffix}"] == pytest.approx(recorded[theirs] / 100, abs=EXACT), (source, ours)
        for ours, theirs in GRES_FRACTIONS.items():
            if theirs in recorded:
                assert numbers[f"{ours}{suffix}"] == pytest.approx(recorded[theirs], abs=EXACT), (source, ours)

    # The class, in shares and from the last to the first.
    samples = read(path)["samples"][::-1]
    shares = [referring(samples[start::3], "gres") for start in range(3)]
    shares[0].merge(shares[2])
    shares[0].merge(shares[1])
    shares[0].merge(shares[2])
    assert shares[0].compute() == {name: value for name, value in numbers.items() if "/" not in name}
    assert shares[0].per_source()["refcoco"]["cIoU"] == numbers["cIoU/refcoco"]


@pytest.mark.parametrize(("key", "ignore"), [("without_ignore", False), ("with_ignore_255", True)])
def test_referring_lisa(capsys, tmp_path: Path, key: str, ignore: bool):
    folder = golden.metrics("referring")
    expected = read(folder / "expected.json")["lisa"][key]
    path = folder / "samples.json"
    flags = ["--ignore"] if ignore else []
    numbers = omg_score(capsys, tmp_path, "referring", "--gt", path, "--pred", path, "--protocol", "lisa", *flags)
    metric = referring(read(path)["samples"], "lisa", ignore=ignore)
    for name in ("gIoU", "cIoU"):
        assert numbers[name] == pytest.approx(expected[name], abs=LISA)
        assert metric.compute()[name] == numbers[name]


@pytest.mark.slow
def test_referring_in_several_processes(monkeypatch: pytest.MonkeyPatch):
    path = golden.metrics("referring") / "samples.json"
    alone = referring_scores.score(path, path, protocol="gres")
    monkeypatch.setattr(referring_scores, "SAMPLES_A_PROCESS", 37)
    assert referring_scores.score(path, path, protocol="gres", workers=4) == alone


def recorded_tokens(folder: Path) -> dict[str, str]:
    """Caption → the official tokeniser's words."""
    expected = read(folder / "expected.json")
    tokens = {}
    of_image: dict[str, list[str]] = {}
    for entry in read(folder / "references.json")["annotations"]:
        of_image.setdefault(str(entry["image_id"]), []).append(entry["caption"])
    for image, texts in of_image.items():
        tokens |= zip(texts, expected["ptb_tokenized_references"][image], strict=True)
    for entry in read(folder / "predictions.json"):
        tokens[entry["caption"]] = expected["ptb_tokenized_predictions"][str(entry["image_id"])][0]
    return tokens


def captions(folder: Path, tokens: dict[str, str]) -> Captions:
    """The recorded captions, the last image first."""
    references: dict[int, list[str]] = {}
    for entry in read(folder / "references.json")["annotations"]:
        references.setdefault(entry["image_id"], []).append(entry["caption"])
    shares = [Captions(lambda texts: [tokens[text] for text in texts]) for _ in range(2)]
    for index, entry in enumerate(read(folder / "predictions.json")[::-1]):
        shares[index % 2].update(str(entry["image_id"]), entry["caption"], references[entry["image_id"]])
    shares[1].merge(shares[0])
    return shares[1]


def test_captions_from_recorded_words():
    folder = golden.metrics("captions")
    expected = read(folder / "expected.json")
    numbers, of_image = captions(folder, recorded_tokens(folder)).compute_all()
    for name in NAMES:
        if name != "METEOR":
            assert numbers[name] == pytest.approx(expected["scores"][name], abs=EXACT), name
            found = {image: row[name] for image, row in of_image.items()}
            recorded = {image: row[name] for image, row in expected["per_image"].items()}
            assert found == pytest.approx(recorded, abs=EXACT), name


def test_the_tokeniser_without_java_agrees_on_all_recorded_captions():
    tokens = recorded_tokens(golden.metrics("captions"))
    assert caption_tools.tokenise_without_java(list(tokens)) == list(tokens.values())


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_tools.shutil, "which", lambda name: None)


@pytest.fixture
def java() -> None:
    try:
        caption_tools.check_tools()
    except caption_tools.ToolsMissing as error:
        pytest.skip(str(error))


def check_captions(numbers: dict[str, float | None], recorded: dict[str, float], *, suffix: str = "") -> None:
    for name in NAMES:
        if name != "METEOR":
            assert numbers[name + suffix] == pytest.approx(recorded[name], abs=EXACT), name


@pytest.mark.usefixtures("no_java")
def test_captions_without_java(capsys, tmp_path: Path):
    folder = golden.metrics("captions")
    words = "captions", "--gt", folder / "references.json", "--pred", folder / "predictions.json"
    numbers = omg_score(capsys, tmp_path, *words)
    check_captions(numbers, read(folder / "expected.json")["scores"])
    assert numbers["METEOR"] is None
    assert run(["score", *map(str, words)]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith("omg: METEOR and the official tokeniser: expected ")
    assert warning.count("\n") == 1


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_captions_with_java(capsys, tmp_path: Path):
    folder = golden.metrics("captions")
    expected = read(folder / "expected.json")
    numbers = omg_score(
        capsys, tmp_path, "captions", "--gt", folder / "references.json", "--pred", folder / "predictions.json"
    )
    check_captions(numbers, expected["scores"])
    assert numbers["METEOR"] == pytest.approx(expected["scores"]["METEOR"], abs=1e-6)
    for image, recorded in expected["per_image"].items():
        check_captions(numbers, recorded, suffix=f"/{image}")
        assert numbers[f"METEOR/{image}"] == pytest.approx(recorded["METEOR"], abs=1e-6)


SIMILARITIES = {
    "any": (ignore_phrases, "similarity_always_1"),
    "jaccard": (jaccard, "similarity_token_jaccard"),
}


def check_grounded(numbers: dict[str, Any], recorded: dict[str, Any]) -> None:
    for name, value in recorded["mask"].items():
        assert numbers[name] == pytest.approx(value, abs=EXACT), name
    check_captions(numbers, recorded["caption"])
    assert numbers["mIoU"] == pytest.approx(recorded["mIoU"], abs=EXACT)
    assert numbers["Recall"] == pytest.approx(recorded["recall"], abs=EXACT)


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_grounded_captions(capsys, tmp_path: Path, similarity: str):
    folder = golden.metrics("gcg")
    function, key = SIMILARITIES[similarity]
    recorded = read(folder / "expected.json")[key]
    numbers = omg_score(
        capsys, tmp_path, "gcg", "--gt", folder, "--pred", folder / "predictions", "--similarity", similarity
    )
    check_grounded(numbers, recorded)

    masks = read(folder / "val_gcg_coco_mask_gt.json")
    shares = [GroundedCaptions(masks, caption_tools.tokenise_without_java, similarity=function) for _ in range(2)]
    for index, entry in enumerate(read(folder / "val_gcg_coco_caption_gt.json")["annotations"][::-1]):
        (answer,) = read(folder / "predictions" / f"{entry['image_id']}.json").values()
        shares[index % 2].update(
            entry["image_id"],
            answer["caption"],
            answer["phrases"],
            answer["pred_masks"],
            references=[entry["caption"]],
            labels=entry["labels"],
        )
    shares[0].merge(shares[1])
    shares[0].merge(shares[1])
    found = shares[0].compute()
    assert {name: value for name, value in found.items() if name != "METEOR"} == {
        name: value for name, value in numbers.items() if name != "METEOR"
    }
    records = shares[0].ordered()
    assert sum(shares[0].count_found(record) for record in records) == recorded["true_positives"]
    assert sum(len(record.labels) for record in records) == recorded["gt_phrases"]


@pytest.mark.slow
@pytest.mark.usefixtures("java")
def test_grounded_captions_with_java(capsys, tmp_path: Path):
    folder = golden.metrics("gcg")
    recorded = read(folder / "expected.json")["similarity_token_jaccard"]
    numbers = omg_score(
        capsys, tmp_path, "gcg", "--gt", folder, "--pred", folder / "predictions", "--similarity", "jaccard"
    )
    check_grounded(numbers, recorded)
    assert numbers["METEOR"] == pytest.approx(recorded["caption"]["METEOR"], abs=1e-6)


def test_options_are_matched():
    for case in read(golden.metrics("mmbench") / "expected.json")["can_infer"]:
        assert match_option(case["answer"], case["choices"]) == (case["can_infer"] or None), case


def test_circular_evaluation(capsys, tmp_path: Path):
    expected = read(golden.metrics("mmbench") / "expected.json")["circular"]
    rows = expected["rows"]
    shares = [CircularAccuracy(), CircularAccuracy()]
    for index, row in enumerate(rows[::-1]):
        shares[index % 2].update(
            str(row["index"]),
            row["prediction"],
            choices={letter: row[letter] for letter in "ABCD" if row[letter] is not None},
            right=row["answer"],
            question=str(row["g_index"]),
            split=row["split"],
            categories=(row["l2-category"], row["category"]),
        )
    shares[0].merge(shares[1])
    shares[0].merge(shares[1])
    assert shares[0].known() == {question: bool(hit) for question, hit in expected["hit_per_question"].items()}

    # As tables: the benchmark's, with a picture as in MMBench's own, and a json list.
    columns = ["index", "question", "A", "B", "C", "D", "answer", "category", "l2-category", "split", "image"]
    lines = ["\t".join(columns)] + [
        "\t".join("" if row.get(column) is None else str(row[column]) for column in columns[:-1]) + "\t" + "x" * 200_000
        for row in rows
    ]
    (tmp_path / "gt.tsv").write_text("\n".join(lines))
    (tmp_path / "pred.json").write_text(
        json.dumps([{"index": row["index"], "prediction": row["prediction"]} for row in rows])
    )
    numbers = omg_score(
        capsys, tmp_path, "multiple-choice", "--gt", tmp_path / "gt.tsv", "--pred", tmp_path / "pred.json"
    )
    for split, recorded in expected["report"].items():
        for category, value in recorded.items():
            name = f"Overall_{split}" + ("" if category == "Overall" else f"/{category}")
            assert numbers[name] == value, name
    assert shares[0].compute() == {name: value for name, value in numbers.items() if "/" not in name}
