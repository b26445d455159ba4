"""Captions: the parts of BLEU, ROUGE-L and CIDEr by hand, tokenisers, shares of processes."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from omgvision.evaluation import caption_tools
from omgvision.evaluation.captions import NAMES, Captions
from omgvision.evaluation.phrase_similarity import BertSimilarity, exact, ignore_phrases, jaccard

CAPTIONS = {
    "a": ("a dog runs", ["a dog runs", "the dog is running"]),
    "b": ("two cats on a sofa", ["two cats sleep on the sofa"]),
    "c": ("", ["a red bus in the street"]),
    "d": ("a bus", ["a red bus", "a bus stands there"]),
}


def score(names: str) -> Captions:
    metric = Captions(list)
    for name in names:
        metric.update(name, *CAPTIONS[name])
    return metric


def test_a_perfect_caption():
    numbers, of_image = score("abd").compute_all()
    perfect = of_image["a"]
    assert [perfect[f"Bleu_{order}"] for order in (1, 2, 3)] == pytest.approx([1, 1, 1])
    assert perfect["ROUGE_L"] == pytest.approx(1)
    assert 0 < numbers["CIDEr"] < perfect["CIDEr"]
    assert math.isnan(numbers["METEOR"])


def test_bleu_by_hand():
    # Of five words four are right, of four pairs one; the reference has one word more.
    values = score("b").compute_all()[1]["b"]
    penalty = math.exp(1 - 6 / 5)
    assert values["Bleu_1"] == pytest.approx(4 / 5 * penalty, abs=1e-8)
    assert values["Bleu_2"] == pytest.approx(math.sqrt(4 / 5 * 1 / 4) * penalty, abs=1e-8)


def test_rouge_by_hand():
    # two cats … on … sofa: four in order, of five words and of six
    precision, recall = 4 / 5, 4 / 6
    expected = 2.44 * precision * recall / (recall + 1.44 * precision)
    assert score("b").compute()["ROUGE_L"] == pytest.approx(expected)


def test_cider_of_disjoint_pictures():
    # Nobody else has these words: all of a picture's n-grams weigh the same.
    metric = Captions(list)
    metric.update("x", "a b c d e", ["a b c d e"])
    metric.update("y", "v w x y z", ["p q r s t"])
    of_image = metric.compute_all()[1]
    assert of_image["x"]["CIDEr"] == pytest.approx(10)
    assert of_image["y"]["CIDEr"] == 0


def test_an_empty_caption_scores_nothing():
    values = score("abcd").compute_all()[1]["c"]
    assert [values[name] for name in NAMES if name != "METEOR"] == pytest.approx([0] * 6, abs=1e-6)


def test_meteor_gets_words():
    def meteor(candidates, references):
        assert (candidates, references) == (["A DOG RUNS"], [["A DOG RUNS", "THE DOG IS RUNNING"]])
        return 0.25, [0.5]

    metric = Captions(lambda texts: [text.upper() for text in texts], meteor=meteor)
    metric.update("a", *CAPTIONS["a"])
    numbers, of_image = metric.compute_all()
    assert (numbers["METEOR"], of_image["a"]["METEOR"]) == (0.25, 0.5)


def test_shares_repeats_and_any_order():
    left = score("db")
    left.merge(score("cab"))
    left.update("a", "something else", ["and more"])
    found, expected = left.compute_all(), score("abcd").compute_all()
    assert repr(found) == repr(expected)  # NaN of METEOR included


def test_no_pictures_and_no_references():
    assert all(map(math.isnan, Captions(list).compute().values()))
    with pytest.raises(ValueError, match=r"references: expected at least one, got none \(a\)"):
        Captions(list).update("a", "a dog", [])


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man, and his dog!", "a man and his dog"),
        ("It isn't the dog's ball...", "it is n't the dog 's ball"),
        ("a black-and-white cat - asleep", "a black-and-white cat asleep"),
        ("one can’t, he cannot (see “it”) — 2.5 m", "one ca n't he can not -lrb- see it -rrb- 2.5 m"),
        ("", ""),
    ],
)
def test_words_without_java(caption: str, words: str):
    assert caption_tools.tokenise_without_java([caption]) == [words]


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pycocoevalcap and Java stand-ins: `java` is a script of this folder that the test writes."""

    if sys.platform == "win32":
        pytest.skip("the stand-ins are shell scripts")

    class Package:
        submodule_search_locations = [str(tmp_path)]

    java = tmp_path / "java"
    monkeypatch.setattr(caption_tools.importlib.util, "find_spec", lambda name: Package)
    monkeypatch.setattr(caption_tools.shutil, "which", lambda name: str(java))
    return java


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_the_official_tokeniser_gets_one_line_for_each_caption(tools: Path):
    write_script(tools, "tr 'A-Z' 'a-z'")
    assert caption_tools.tokenise(["A dog .", "Two\nlines , é", ""]) == ["a dog", "two lines é", ""]
    assert caption_tools.tokenise([]) == []


def test_meteor_talks_to_java(tools: Path):
    write_script(
        tools,
        'read -r one; echo "s:$one"; read -r two; echo "s:$two"; read -r all; '
        '[ "$all" = "EVAL ||| s:$one ||| s:$two" ] && printf "0.1\\n0.2\\n0.15\\n"',
    )
    assert caption_tools.meteor(["a dog", "a ||| cat"], [["dog"], ["cat", "cats"]]) == (0.15, [0.1, 0.2])


@pytest.mark.parametrize("call", [lambda: caption_tools.tokenise(["a"]), lambda: caption_tools.meteor(["a"], [["b"]])])
def test_java_that_fails(tools: Path, call):
    write_script(tools, "exit 1")
    with pytest.raises(ValueError, match=r"(tokeniser|METEOR): expected"):
        call()


def test_tools_that_are_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_tools.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(caption_tools.ToolsMissing, match=r"expected pycocoevalcap, got none: pip install"):
        caption_tools.check_tools()


def test_a_java_program_is_never_a_shell_command(tools: Path, monkeypatch: pytest.MonkeyPatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append((command, options)) or Done)
    assert caption_tools.tokenise(["a; rm -rf b"]) == ["a"]
    ((command, options),) = commands
    assert isinstance(command, list) and "shell" not in options
    assert options["input"] == "a; rm -rf b\n"


class Done:
    returncode, stdout, stderr = 0, "a\n", ""


def test_phrases():
    assert exact("A  Dog", "a dog") == 1 and exact("a dog", "dog") == 0
    assert jaccard("the big dog", "a dog") == pytest.approx(1 / 4)
    assert jaccard("", "") == 0
    assert ignore_phrases("a", "b") == 1


def test_bert(tmp_path: Path):
    from transformers import BertConfig, BertModel, BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "dog", "cat"]))
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = BertConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertModel(config).save_pretrained(tmp_path)
    similarity = BertSimilarity(str(tmp_path))
    assert similarity("a dog", "a dog") == pytest.approx(1, abs=1e-6)
    assert -1 <= similarity("a dog", "cat") < 1
    with pytest.raises(ValueError, match=r"similarity: expected the weights of .*nothing on this machine, got none"):
        BertSimilarity(str(tmp_path / "nothing"))
