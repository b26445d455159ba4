"""Cityscapes' instance-level AP and AP50, equal to cityscapesScripts': its own precision-recall curve, not COCO's.

Letters: H×W pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from omgvision.evaluation.cityscapes_labels import CITYSCAPES_LABELS, MAX_ID, label_of
from omgvision.evaluation.metric import PerSample

OVERLAPS = np.arange(0.5, 1.0, 0.05)
"""IoU that a match has to exceed, with the rounding errors of the official script."""
MIN_PIXELS = 100
"""Smaller ground-truth objects neither count nor hurt."""
CLASSES = tuple(label for label in CITYSCAPES_LABELS if label.is_thing and label.evaluated)
_UNEVALUATED = [label.id for label in CITYSCAPES_LABELS if not label.evaluated]


@dataclass(frozen=True)
class _Truth:
    """A region of the ground truth: an object, or a group of objects that nobody told apart."""

    pixels: int
    is_group: bool

    @property
    def counts(self) -> bool:
        return not self.is_group and self.pixels >= MIN_PIXELS


@dataclass(frozen=True)
class _Guess:
    """A predicted object; `shared` are the pixels that it has in common with each region of its class."""

    confidence: float
    pixels: int
    void: int
    shared: dict[int, int]


@dataclass(frozen=True)
class _Objects:
    """Of one class in one image."""

    truths: dict[int, _Truth] = field(default_factory=dict)
    guesses: list[_Guess] = field(default_factory=list)


class CityscapesInstances(PerSample[dict[str, _Objects]]):
    """Keeps the sizes and overlaps of every image, by class name."""

    def update(
        self, sample_id: str, instances: np.ndarray, predictions: Iterable[tuple[int, float, np.ndarray]]
    ) -> None:
        """Adds an image.

        Args:
            instances: [H, W], the `instanceIds` of the ground truth.
            predictions: Id of the label (no train id), confidence, bool [H, W] of each object. Other classes than the
                eight of objects and empty masks are left out.

        Raises:
            ValueError: Another size, an id that is none, a confidence that is no number.
        """
        ids, counts = np.unique(instances, return_counts=True)
        record = {label.name: _Objects() for label in CLASSES}
        for identity, pixels in zip(ids.tolist(), counts.tolist(), strict=True):
            label = label_of(identity)
            if label in CLASSES:
                record[label.name].truths[identity] = _Truth(pixels, is_group=identity < 1000)
        for identity, confidence, mask in predictions:
            if not 0 <= identity <= MAX_ID:
                raise ValueError(f"label: expected an id 0 to {MAX_ID} (no train id), got {identity}")
            if math.isnan(confidence):
                raise ValueError(f"confidence: expected a number, got nan for {CITYSCAPES_LABELS[identity].name}")
            if mask.shape != instances.shape:
                raise ValueError(f"mask: expected the size of the ground truth {instances.shape}, got {mask.shape}")
            label = CITYSCAPES_LABELS[identity]
            if label not in CLASSES or not mask.any():
                continue
            values, counts = np.unique(instances[mask], return_counts=True)
            objects = record[label.name]
            shared = dict(zip(values.tolist(), counts.tolist(), strict=True))
            guess = _Guess(
                confidence=confidence,
                pixels=int(counts.sum()),
                void=int(counts[np.isin(values, _UNEVALUATED)].sum()),
                shared={region: shared[region] for region in objects.truths if region in shared},
            )
            objects.guesses.append(guess)
        self.add(sample_id, record)

    def per_class(self) -> dict[str, np.ndarray]:
        """Class name → AP at each of `OVERLAPS`; NaN for a class without ground truth."""
        images = self.ordered()
        return {
            label.name: np.array([_average_precision([image[label.name] for image in images], o) for o in OVERLAPS])
            for label in CLASSES
        }

    def compute(self) -> dict[str, float]:
        """`AP` and `AP50`, means over the classes that have ground truth; NaN without any."""
        rows = [precisions for precisions in self.per_class().values() if not np.isnan(precisions).any()]
        if not rows:
            return {"AP": float("nan"), "AP50": float("nan")}
        return {"AP": float(np.mean(rows)), "AP50": float(np.mean(rows, axis=0)[0])}


def _average_precision(images: list[_Objects], overlap: float) -> float:
    """Area under the precision-recall curve; NaN without ground truth, 0 without predictions."""
    scored: list[tuple[float, bool]] = []
    missed = 0
    for image in images:
        found, missed_here = _judge(image, overlap)
        scored += found
        missed += missed_here
    if not any(truth.counts for image in images for truth in image.truths.values()):
        return float("nan")
    if not any(image.guesses for image in images) or not scored:
        return 0.0
    scores, right = np.array([score for score, _ in scored]), np.array([hit for _, hit in scored])
    order = np.argsort(scores)
    scores, right = scores[order], right[order]
    # One point a distinct score: everything from there upwards is accepted.
    _, starts = np.unique(scores, return_index=True)
    rejected = np.concatenate([[0], np.cumsum(right)])[starts]
    hits = right.sum() - rejected
    precision = np.append(hits / (scores.size - starts), 1.0)
    recall = np.append(hits / (right.sum() + missed), 0.0)
    # Each point stands for half of the way to both of its neighbours.
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (around[:-2] - around[2:]) / 2))


def _judge(image: _Objects, overlap: float) -> tuple[list[tuple[float, bool]], int]:
    """Confidence and rightness of the predictions that count, and the number of missed objects."""

    def matches(region: int, guess: _Guess) -> bool:
        shared = guess.shared.get(region, 0)
        return shared / (image.truths[region].pixels + guess.pixels - shared) > overlap

    scored: list[tuple[float, bool]] = []
    missed = 0
    for region, truth in image.truths.items():
        if not truth.counts:
            continue
        confidences = sorted(guess.confidence for guess in image.guesses if matches(region, guess))
        if confidences:
            # The most confident one is right, what else covers the object is surplus.
            scored += [(confidence, False) for confidence in confidences[:-1]]
            scored.append((confidences[-1], True))
        else:
            missed += 1
    for guess in image.guesses:
        if any(matches(region, guess) for region in guess.shared):
            continue
        # Mostly over nothing that counts: neither right nor wrong. A small group is forgiven twice, as officially.
        forgiven = guess.void
        for region, shared in guess.shared.items():
            truth = image.truths[region]
            forgiven += shared * (truth.is_group + (truth.pixels < MIN_PIXELS))
        if forgiven / guess.pixels <= overlap:
            scored.append((guess.confidence, False))
    return scored, missed
