"""Captions into words, and METEOR: the Java programs of pycocoevalcap, and a tokeniser that needs no Java."""

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

TOKENISER = Path("tokenizer", "stanford-corenlp-3.4.1.jar")
METEOR = Path("meteor", "meteor-1.5.jar")

PUNCTUATION = frozenset(
    ["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", ".", "?", "!", ",", ":", "-", "--", "...", ";"]
)
"""Tokens that do not count as words."""

WORD = re.compile(r"\w+(?=n't\b)|n't\b|'(?:s|m|d|ll|re|ve)\b|\d+(?:[.,:/]\d+)+|\w+(?:[-/&]\w+)*|\S")

BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
"""What the official tokeniser makes of them. In small letters they are not among its punctuation: they count."""

TYPOGRAPHY = str.maketrans("‘’“”–—", "''``--")


class ToolsMissing(ValueError):
    """Java or pycocoevalcap is not installed."""


def check_tools() -> None:
    """Looks whether `tokenise` and `meteor` can run.

    Raises:
        ToolsMissing: If not.
    """
    _java(TOKENISER)
    _java(METEOR)


def tokenise(captions: Sequence[str]) -> list[str]:
    """Words of each caption in small letters, joined by spaces: Stanford's Penn Treebank tokeniser, no punctuation.

    Raises:
        ToolsMissing: No Java or no pycocoevalcap.
        ValueError: Java failed.
    """
    if not captions:
        return []
    command = [*_java(TOKENISER, "-cp"), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"]
    text = "\n".join(" ".join(caption.splitlines()) for caption in captions)
    done = subprocess.run(command, input=text + "\n", capture_output=True, encoding="utf-8", check=False)
    lines = done.stdout.split("\n")
    if done.returncode or len(lines) <= len(captions):
        raise ValueError(f"tokeniser: expected {len(captions)} lines, got {len(lines) - 1} ({done.stderr[-200:]})")
    return [_words(line.split(" ")) for line in lines[: len(captions)]]


def tokenise_without_java(captions: Sequence[str]) -> list[str]:
    """Nearly what `tokenise` returns: the same for plain English, not for abbreviations with dots and slang."""
    texts = (caption.lower().translate(TYPOGRAPHY).replace("cannot", "can not") for caption in captions)
    tokens: list[list[str]] = list(map(WORD.findall, texts))
    return [_words(BRACKETS.get(token, token) for token in row) for row in tokens]


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR 1.5 for English, as pycocoevalcap calls it.

    Args:
        candidates: A caption for each picture, tokenised.
        references: The references of each picture, tokenised.

    Returns:
        Of all pictures together, and of each.

    Raises:
        ToolsMissing: No Java or no pycocoevalcap.
        ValueError: Java failed.
    """
    command = [*_java(METEOR, "-Xmx2G", "-jar"), "-", "-", "-stdio", "-l", "en", "-norm"]
    try:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8"
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            statistics = []
            for candidate, of_picture in zip(candidates, references, strict=True):
                # The bars separate fields.
                plain = candidate.replace("|||", "").replace("  ", " ")
                process.stdin.write(" ||| ".join(["SCORE", *of_picture, plain]) + "\n")
                process.stdin.flush()
                statistics.append(process.stdout.readline().strip())
            process.stdin.write(" ||| ".join(["EVAL", *statistics]) + "\n")
            process.stdin.flush()
            scores = [process.stdout.readline().strip() for _ in range(len(statistics) + 1)]
    except BrokenPipeError:
        scores = [""]
    if "" in scores:
        raise ValueError("METEOR: expected scores, got none: Java ended (it needs 2 GB of memory)")
    return float(scores[-1]), list(map(float, scores[:-1]))


def _java(jar: Path, *options: str) -> list[str]:
    """The beginning of a command, up to the jar."""
    remedy = "pip install 'omgvision[captions]', and a Java runtime from 8 on"
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        raise ToolsMissing(f"METEOR and the official tokeniser: expected pycocoevalcap, got none: {remedy}")
    java = shutil.which("java")
    if java is None:
        raise ToolsMissing(f"METEOR and the official tokeniser: expected java on the path, got none: {remedy}")
    path = Path(package.submodule_search_locations[0]) / jar
    return [java, "-Dfile.encoding=UTF-8", *options, str(path)]


def _words(tokens: Iterable[str]) -> str:
    return " ".join(token for token in tokens if token and token not in PUNCTUATION)
