"""Faulty files of sentences, captions and questions: one line and exit code 2."""

import json
from pathlib import Path
from typing import Any

import pytest

from omgvision.evaluation import caption_tools
from tests.scoring import Score, last_line, refused
from tests.unit.evaluation.runner import word_layouts

RUNS = {"size": [2, 3], "counts": [1, 2, 3]}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def sentence(**changes: Any) -> dict[str, Any]:
    return {"samples": [{"id": 1, "gt": RUNS, "pred": RUNS, **changes}]}


def test_referring(score: Score, tmp_path: Path):
    truth, guess = write(tmp_path / "gt.json", sentence()), write(tmp_path / "pred.json", sentence())
    assert last_line(score("referring", truth, guess))["gIoU"] == pytest.approx(1, abs=1e-5)
    write(guess, {"samples": [*sentence()["samples"], *sentence(id=2)["samples"]]})
    code, _, err = score("referring", truth, guess)
    assert (code, err) == (0, f"omg: {guess}: left out 1 samples that gt.json lacks\n")


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ("{", sentence(), "gt.json: expected a json file"),
        ([], sentence(), "gt.json: expected a dictionary with samples, got a list"),
        ({"samples": []}, sentence(), "gt.json: expected samples, got none"),
        ({"samples": [{"id": 1}]}, sentence(), "gt.json: expected every entry to have 'gt'"),
        (sentence(gt=None), sentence(), "gt.json: segmentation: expected a size of height and width, got None"),
        (sentence(ignore={"size": [9, 9], "counts": []}), sentence(), "expected the size of the image [2, 3]"),
        (sentence(), sentence(id=2), "pred.json: expected a prediction for every sample, got none for 1"),
        (sentence(), {"samples": [{"pred": RUNS}]}, "pred.json: expected every entry to have 'id'"),
        (sentence(), {"samples": [{"id": 1}]}, "pred.json: expected every entry to have 'pred'"),
        (sentence(), sentence(pred={**RUNS, "size": [3, 2]}), "expected the size of the image [2, 3], got [3, 2]"),
        (
            sentence(),
            sentence(pred={**RUNS, "counts": [1, 9]}),
            "pred.json: segmentation: expected runs over 6 pixels, got 10",
        ),
    ],
)
def test_referring_files(score: Score, tmp_path: Path, truth: Any, guess: Any, message: str):
    paths = write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", guess)
    assert message in refused(score("referring", *paths, "--ignore"))


def test_referring_folders(score: Score, tmp_path: Path):
    guess = write(tmp_path / "pred.json", sentence())
    word_layouts.ref_seg(tmp_path, count=1)
    word_layouts.reason_seg(tmp_path)
    for folder in ("ref_seg/refcoco", "ReasonSeg"):
        assert "train" in refused(score("referring", tmp_path / folder, guess, "--split", "train"))
        assert "expected a prediction for every sample" in refused(score("referring", tmp_path / folder, guess))
    assert "expected a json file, got no file" in refused(score("referring", tmp_path / "none", guess))


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_tools.shutil, "which", lambda name: None)


REFERENCES = {
    "images": [{"id": 1}, {"id": 2}],
    "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": "a cat"}],
}
CAPTIONS = [{"image_id": 1, "caption": "a dog"}, {"image_id": 2, "caption": ""}]


@pytest.mark.usefixtures("no_java")
def test_captions(score: Score, tmp_path: Path):
    result = score("captions", write(tmp_path / "gt.json", REFERENCES), write(tmp_path / "pred.json", CAPTIONS))
    numbers = last_line(result)
    assert numbers["ROUGE_L"] == pytest.approx(0.5)
    assert numbers["METEOR"] is None
    assert result[2].startswith("omg: METEOR and the official tokeniser: expected ")
    assert result[2].count("\n") == 1


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ({}, CAPTIONS, "gt.json: expected a list 'images'"),
        ({"images": [], "annotations": []}, CAPTIONS, "gt.json: expected images, got none"),
        ({**REFERENCES, "annotations": []}, CAPTIONS, "gt.json: expected captions of every image, got none of 1"),
        ({**REFERENCES, "annotations": [{}]}, CAPTIONS, "gt.json: expected every entry to have 'image_id'"),
        (REFERENCES, {}, "pred.json: expected a list of captions, got a dict"),
        (REFERENCES, CAPTIONS[:1], "pred.json: expected a caption for every image, got none for 2"),
        (REFERENCES, CAPTIONS + CAPTIONS, "expected one caption for each image, got two for 1"),
        (REFERENCES, [{"image_id": 3, "caption": ""}], "pred.json: image_id: expected an image of"),
        (REFERENCES, [{"image_id": 1}], "pred.json: expected every entry to have 'caption'"),
        (REFERENCES, [1], "pred.json: expected entries of the official form"),
    ],
)
def test_caption_files(score: Score, tmp_path: Path, truth: Any, guess: Any, message: str):
    paths = write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", guess)
    assert message in refused(score("captions", *paths))


@pytest.fixture
def grounded(tmp_path: Path) -> Path:
    """Two images; the prediction of the second is the content itself, without the picture's name."""
    images = [{"id": name, "height": 2, "width": 3} for name in ("a", "b")]
    annotations = [{"image_id": name, "caption": "a dog", "labels": ["dog"]} for name in ("a", "b")]
    write(tmp_path / "val_gcg_coco_caption_gt.json", {"images": images, "annotations": annotations})
    masks = [
        {"id": number, "image_id": name, "category_id": 1, "segmentation": RUNS, "area": 2, "iscrowd": 0}
        | {"bbox": [0, 0, 2, 2]}
        for number, name in enumerate(("a", "b"), start=1)
    ]
    write(
        tmp_path / "val_gcg_coco_mask_gt.json",
        {"images": images, "annotations": masks, "categories": [{"id": 1, "name": "object"}]},
    )
    answer = {"caption": "a dog", "phrases": ["dog"], "pred_masks": [RUNS]}
    write(tmp_path / "pred" / "a.json", {"a.jpg": answer})
    write(tmp_path / "pred" / "b.json", answer)
    return tmp_path


def grounded_of(score: Score, folder: Path, *options: object) -> tuple[int, str, str]:
    return score("gcg", folder, folder / "pred", *(options or ("--similarity", "exact")))


@pytest.mark.usefixtures("no_java")
def test_grounded_captions(score: Score, grounded: Path):
    numbers = last_line(grounded_of(score, grounded))
    assert (numbers["mIoU"], numbers["Recall"], numbers["AP50"]) == pytest.approx((1, 1, 1))
    assert "val_gcg" not in json.dumps(numbers)
    write(grounded / "pred" / "c.json", {})
    code, _, err = grounded_of(score, grounded)
    assert code == 0
    assert err.startswith(f"omg: {grounded / 'pred'}: left out 1 images that val_gcg_coco_caption_gt.json lacks\n")
    assert "expected a json file, got no file" in refused(grounded_of(score, grounded, "--split", "test"))


def test_bert_that_is_not_here(score: Score, grounded: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HOME", str(grounded / "nothing"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(grounded / "nothing"))
    message = refused(score("gcg", grounded, grounded / "pred"))
    assert "similarity: expected the weights of bert-base-uncased on this machine, got none" in message


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("pred/a.json", None, "a.json: expected a json file, got no file"),
        ("pred/a.json", {}, "a.json: expected every entry to have 'caption'"),
        ("pred/a.json", [], "a.json: expected entries of the official form"),
        ("pred/a.json", {"caption": "a dog", "phrases": []}, "a.json: expected every entry to have 'pred_masks'"),
        (
            "pred/a.json",
            {"caption": "", "phrases": [], "pred_masks": [{"size": [2, 3], "counts": "!"}]},
            "a.json: segmentation: expected compressed run lengths",
        ),
        (
            "pred/a.json",
            {"caption": "", "phrases": [], "pred_masks": [{"size": [9, 3], "counts": []}]},
            "a.json: segmentation",
        ),
        ("val_gcg_coco_caption_gt.json", {"images": []}, "expected a list 'annotations'"),
        (
            "val_gcg_coco_caption_gt.json",
            {"images": [{"id": "a"}], "annotations": [{"image_id": "a", "caption": ""}]},
            "expected every entry to have 'labels'",
        ),
        (
            "val_gcg_coco_caption_gt.json",
            {"images": [{"id": "c"}], "annotations": [{"image_id": "c", "caption": "", "labels": []}]},
            "val_gcg_coco_mask_gt.json: expected the masks of every image, got none of c",
        ),
        ("val_gcg_coco_mask_gt.json", {"images": [], "annotations": []}, "expected a list 'categories'"),
        (
            "val_gcg_coco_mask_gt.json",
            {"images": [], "annotations": [], "categories": []},
            "val_gcg_coco_mask_gt.json: expected the masks of every image, got none of a",
        ),
    ],
)
def test_grounded_caption_files(score: Score, grounded: Path, file: str, content: Any, message: str):
    if content is None:
        (grounded / file).unlink()
    else:
        write(grounded / file, content)
    assert message in refused(grounded_of(score, grounded))


@pytest.mark.usefixtures("no_java")
def test_a_true_mask_that_does_not_decode(score: Score, grounded: Path):
    path = grounded / "val_gcg_coco_mask_gt.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["segmentation"]["counts"] = [1000]
    write(path, content)
    assert f"{path}: segmentation: expected runs over 6 pixels, got 1000" in refused(grounded_of(score, grounded))


QUESTIONS = "index\tA\tB\tanswer\n1\tcat\tdog\tA\n1000001\tdog\tcat\tB\n"
ANSWERS = "index\tprediction\n1\tcat\n1000001\tB\n7\tA\n"


def test_multiple_choice(score: Score, tmp_path: Path):
    truth, guess = write(tmp_path / "gt.tsv", QUESTIONS), write(tmp_path / "pred.tsv", ANSWERS)
    assert last_line(score("multiple-choice", truth, guess)) == {"Overall": 1}
    write(guess, ANSWERS.replace("\tB", "\t"))  # an empty answer is wrong
    assert last_line(score("multiple-choice", truth, guess)) == {"Overall": 0}


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ("", ANSWERS, "gt.tsv: expected rows, got none"),
        (
            QUESTIONS.replace("answer", "solution"),
            ANSWERS,
            "expected index, answer in every row, got no answer in row 1",
        ),
        (QUESTIONS.replace("\tA\n", "\tcat\n"), ANSWERS, "expected the letter of the right option, got 'cat'"),
        ("index\tanswer\n1\tA\n", ANSWERS, "choices: expected options A, B, …, got none"),
        (QUESTIONS.replace("\n1\t", "\none\t"), ANSWERS, "gt.tsv: expected numbers as index, got 'one'"),
        (QUESTIONS, ANSWERS.replace("1000001", "5"), "expected a prediction for every question, got none for 1000001"),
        (QUESTIONS, ANSWERS.replace("prediction", "reply"), "expected answers in a column prediction, got none"),
        (QUESTIONS, "\0", "pred.tsv: expected "),
    ],
)
def test_multiple_choice_files(score: Score, tmp_path: Path, truth: str, guess: str, message: str):
    paths = write(tmp_path / "gt.tsv", truth), write(tmp_path / "pred.tsv", guess)
    assert message in refused(score("multiple-choice", *paths))


def test_a_broken_spreadsheet(score: Score, tmp_path: Path):
    (tmp_path / "pred.xlsx").write_bytes(b"PK\x03\x04\xff\xfe")
    message = refused(score("multiple-choice", write(tmp_path / "gt.tsv", QUESTIONS), tmp_path / "pred.xlsx"))
    assert "pred.xlsx: expected a spreadsheet (xlsx), got something else" in message


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


PROBES = lines({"question_id": 1, "label": "yes"}, {"question_id": 2, "label": "no"})


def test_pope(score: Score, tmp_path: Path):
    truth = write(tmp_path / "gt.json", PROBES)
    in_order = write(tmp_path / "a.json", lines({"answer": "Yes."}, {"answer": "No \u2028 dog"}))
    by_id = write(tmp_path / "b.json", lines({"question_id": 2, "text": "No"}, {"question_id": 1, "text": "Yes"}))
    for guess in (in_order, by_id):
        assert last_line(score("pope", truth, guess)) == {
            "accuracy": 1,
            "precision": 1,
            "recall": 1,
            "F1": 1,
            "yes_ratio": 0.5,
        }


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        ("", "", "gt.json: expected rows, got none"),
        (PROBES, "{", "expected a json list or one json object a line, got neither"),
        (PROBES, "[1]", "expected rows that are json objects"),
        (PROBES, lines({"answer": "yes"}), "expected answers with question_id, or 2 in the order of the questions"),
        (PROBES, lines({"question_id": 1, "answer": "yes"}), "expected an answer to every question, got none to 2"),
        (PROBES, lines({"label": 1}, {"label": 2}), "expected an answer (or text) in every row, got label"),
        (PROBES.replace('"no"', '"maybe"'), lines({"answer": ""}, {"answer": ""}), "expected labels yes or no"),
        (lines({"question_id": 1}), PROBES, "expected label in every row, got no label in row 1"),
    ],
)
def test_pope_files(score: Score, tmp_path: Path, truth: str, guess: str, message: str):
    paths = write(tmp_path / "gt.json", truth), write(tmp_path / "pred.json", guess)
    assert message in refused(score("pope", *paths))


EXISTENCE = "1.jpg\tIs there a dog?\tYes\n1.jpg\tIs there a cat?\tNo\n"
REPLIES = "1.jpg\tIs there a cat?\tNo\tyes\n1.jpg\tIs there a dog?\tYes\tYes, there is.\n"


def test_mme(score: Score, tmp_path: Path):
    write(tmp_path / "gt" / "existence.txt", EXISTENCE)
    write(tmp_path / "pred" / "existence.txt", REPLIES)
    report = tmp_path / "report.json"
    result = score("mme", tmp_path / "gt", tmp_path / "pred", "--out", report)
    assert last_line(result) == {"perception": None, "cognition": None}
    numbers = json.loads(report.read_text())
    assert (numbers["accuracy/existence"], numbers["accuracy_plus/existence"]) == (0.5, 0)
    assert numbers["score/existence"] == 50


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        (None, REPLIES, "gt: expected a folder with existence.txt"),
        (EXISTENCE, None, "existence.txt: expected a text file with 4 columns, got no file"),
        (EXISTENCE, EXISTENCE, "expected 4 columns separated by tabs, got 3 in row 1"),
        (EXISTENCE, REPLIES.split("\n")[0], "got none to 'Is there a dog?'"),
        (EXISTENCE, REPLIES.replace("\tYes\t", "\tNo\t"), "expected Yes as the right answer"),
        (EXISTENCE.split("\n")[0], REPLIES, "expected two questions about each picture, got 1 in all"),
        (
            EXISTENCE.replace("No", "Never"),
            REPLIES.replace("\tNo", "\tNever"),
            "right: expected yes or no, got 'never'",
        ),
    ],
)
def test_mme_files(score: Score, tmp_path: Path, truth: str | None, guess: str | None, message: str):
    for name, content in (("gt", truth), ("pred", guess)):
        if content is not None:
            write(tmp_path / name / "existence.txt", content)
    assert message in refused(score("mme", tmp_path / "gt", tmp_path / "pred"))


def test_a_folder_of_pope(score: Score, tmp_path: Path):
    for kind, answers in (("random", ("yes", "no")), ("popular", ("yes", "yes"))):
        write(tmp_path / "gt" / f"coco_pope_{kind}.json", PROBES)
        rows = [{"question_id": number, "answer": answer} for number, answer in enumerate(answers, start=1)]
        write(tmp_path / "pred" / f"coco_pope_{kind}.json", lines(*rows))
    result = score("pope", tmp_path / "gt", tmp_path / "pred", "--out", tmp_path / "report.json")
    assert last_line(result)["accuracy"] == 0.75
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert (numbers["accuracy/random"], numbers["accuracy/popular"]) == (1, 0.5)
    (tmp_path / "pred" / "coco_pope_popular.json").unlink()
    assert "coco_pope_popular.json: expected a table, got no file" in refused(
        score("pope", tmp_path / "gt", tmp_path / "pred")
    )
    assert "expected lists coco_pope_*.json, got none" in refused(score("pope", tmp_path, tmp_path / "pred"))
