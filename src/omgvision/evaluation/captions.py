"""Captions: BLEU-1 to 4, METEOR, ROUGE-L and CIDEr, as pycocoevalcap computes them."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

from omgvision.evaluation.metric import PerSample

Tokenise = Callable[[Sequence[str]], list[str]]
"""Captions → their words, joined by single spaces."""

Meteor = Callable[[Sequence[str], Sequence[Sequence[str]]], tuple[float, list[float]]]
"""Tokenised captions and the references of each → METEOR of all, and of each."""

Ngram = tuple[str, ...]

LONGEST = 4
"""Words in an n-gram."""

NAMES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "METEOR", "ROUGE_L", "CIDEr")

ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0


class Captions(PerSample[tuple[str, tuple[str, ...]]]):
    """Keeps every picture's caption and references; they are tokenised all at once in the end.

    Args:
        tokenise: `caption_tools.tokenise` is the official one.
        meteor: `caption_tools.meteor`; None = METEOR is not computed.
    """

    def __init__(self, tokenise: Tokenise, *, meteor: Meteor | None = None):
        super().__init__()
        self.tokenise, self.meteor = tokenise, meteor

    def update(self, sample_id: str, caption: str, references: Sequence[str]) -> None:
        """Adds a picture.

        Raises:
            ValueError: No references.
        """
        if not references:
            raise ValueError(f"references: expected at least one, got none ({sample_id})")
        self.add(sample_id, (caption, tuple(references)))

    def compute(self) -> dict[str, float]:
        """The numbers of `NAMES` over all pictures; NaN without pictures, METEOR also if it is not computed.

        They are fractions but for CIDEr, which may reach 10.
        """
        return self.compute_all()[0]

    def compute_all(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """What `compute` returns, and for each picture's id the same numbers of it alone."""
        identities = sorted(self.records)
        if not identities:
            return dict.fromkeys(NAMES, math.nan), {}
        captions = [self.records[identity][0] for identity in identities]
        counts = [len(self.records[identity][1]) for identity in identities]
        texts = self.tokenise(captions + [text for one in identities for text in self.records[one][1]])
        candidates, rest = texts[: len(captions)], iter(texts[len(captions) :])
        references = [[next(rest) for _ in range(count)] for count in counts]

        ours, theirs = list(map(_ngrams, candidates)), [list(map(_ngrams, one)) for one in references]
        matches = list(map(_match, ours, theirs))
        columns = {"ROUGE_L": list(map(_rouge, candidates, references)), "CIDEr": _cider(ours, theirs)}
        numbers = {name: math.fsum(values) / len(values) for name, values in columns.items()}
        bleu = list(map(_bleu, matches))
        for order, value in enumerate(_bleu(_Match.total(matches))):
            numbers[f"Bleu_{order + 1}"], columns[f"Bleu_{order + 1}"] = value, [row[order] for row in bleu]
        numbers["METEOR"], columns["METEOR"] = (
            (math.nan, [math.nan] * len(captions)) if self.meteor is None else self.meteor(candidates, references)
        )
        rows = {one: {name: columns[name][at] for name in NAMES} for at, one in enumerate(identities)}
        return {name: float(numbers[name]) for name in NAMES}, rows


@dataclass(frozen=True)
class _Ngrams:
    """Runs of one to four words and how often each occurs, and how many words there are."""

    counts: Counter[Ngram]
    length: int


def _ngrams(text: str) -> _Ngrams:
    words = text.split()
    shifted = [words[start:] for start in range(LONGEST)]
    return _Ngrams(
        Counter(chain.from_iterable(zip(*shifted[:order], strict=False) for order in range(1, LONGEST + 1))), len(words)
    )


@dataclass(frozen=True)
class _Match:
    """What BLEU needs: n-grams of a caption, those that a reference has too, its length and the closest reference's."""

    guessed: tuple[int, ...]
    right: tuple[int, ...]
    length: int
    closest: int

    @staticmethod
    def total(matches: "Sequence[_Match]") -> "_Match":
        return _Match(
            guessed=tuple(map(sum, zip(*(one.guessed for one in matches), strict=True))),
            right=tuple(map(sum, zip(*(one.right for one in matches), strict=True))),
            length=sum(one.length for one in matches),
            closest=sum(one.closest for one in matches),
        )


def _match(candidate: _Ngrams, references: Sequence[_Ngrams]) -> _Match:
    right = [0] * LONGEST
    for ngram, count in candidate.counts.items():
        most = max(reference.counts.get(ngram, 0) for reference in references)
        right[len(ngram) - 1] += min(count, most)
    return _Match(
        guessed=tuple(max(0, candidate.length - order) for order in range(LONGEST)),
        right=tuple(right),
        length=candidate.length,
        # The shorter one of two that are equally close.
        closest=min((abs(one.length - candidate.length), one.length) for one in references)[1],
    )


def _bleu(match: _Match) -> list[float]:
    """BLEU-1 to 4. The small numbers are the official ones: they keep 0/0 away and show in a short caption's BLEU."""
    ratio = (match.length + 1e-15) / (match.closest + 1e-9)
    penalty = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, values = 1.0, []
    for order in range(LONGEST):
        product *= (match.right[order] + 1e-15) / (match.guessed[order] + 1e-9)
        values.append(product ** (1 / (order + 1)) * penalty)
    return values


def _rouge(candidate: str, references: Sequence[str]) -> float:
    """ROUGE-L: best precision and best recall of the longest common subsequence over the references."""
    words = candidate.split(" ")
    common = [(_common(words, reference.split(" ")), len(reference.split(" "))) for reference in references]
    precision = max(length for length, _ in common) / len(words)
    recall = max(length / size for length, size in common)
    if not precision or not recall:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit for each word of `first` (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everything = (1 << len(first)) - 1
    row = everything
    for word in second:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & everything
    return len(first) - row.bit_count()


@dataclass(frozen=True)
class _Vector:
    """tf-idf of a caption's n-grams, its norm for each order, and how many pairs of words there are."""

    weights: dict[Ngram, float]
    norms: tuple[float, ...]
    pairs: int


def _cider(candidates: Sequence[_Ngrams], references: Sequence[Sequence[_Ngrams]]) -> list[float]:
    """CIDEr-D of each picture; how rare an n-gram is, the references of all pictures say."""
    pictures: Counter[Ngram] = Counter()
    for of_picture in references:
        pictures.update(set().union(*(one.counts for one in of_picture)))
    # A word that no reference has is as rare as one that a single picture has.
    commonest = math.log(len(references))
    rarity = {ngram: commonest - math.log(count) for ngram, count in pictures.items()}

    def vector(ngrams: _Ngrams) -> _Vector:
        weights = {ngram: count * rarity.get(ngram, commonest) for ngram, count in ngrams.counts.items()}
        squares = [0.0] * LONGEST
        for ngram, weight in weights.items():
            squares[len(ngram) - 1] += weight * weight
        return _Vector(weights, tuple(map(math.sqrt, squares)), pairs=max(0, ngrams.length - 1))

    scores = []
    for candidate, of_picture in zip(candidates, references, strict=True):
        ours = vector(candidate)
        similarities = [_similarity(ours, vector(one)) for one in of_picture]
        scores.append(10 * sum(similarities) / len(similarities))
    return scores


def _similarity(ours: _Vector, theirs: _Vector) -> float:
    """Mean over the orders of the clipped cosine, less for captions of different lengths."""
    products = [0.0] * LONGEST
    for ngram, weight in ours.weights.items():
        other = theirs.weights.get(ngram)
        if other is not None:
            products[len(ngram) - 1] += min(weight, other) * other
    norms = [one * other for one, other in zip(ours.norms, theirs.norms, strict=True)]
    cosines = [product / norm if norm else product for product, norm in zip(products, norms, strict=True)]
    return sum(cosines) / LONGEST * math.exp(-((ours.pairs - theirs.pairs) ** 2) / (2 * CIDER_SIGMA**2))
