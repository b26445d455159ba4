"""Referring segmentation: one mask for a sentence; the sentence may mean nothing in the picture.

Letters: H×W pixels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from omgvision.evaluation.metric import PerSample

Protocol = Literal["lisa", "gres"]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""IoU at which precision is counted."""


@dataclass(frozen=True)
class _Answer:
    shared: int
    union: int
    no_target: bool
    answered_no_target: bool
    unanswered: bool
    source: str


class ReferringIoU(PerSample[_Answer]):
    """Keeps intersection and union of every sentence's mask.

    gIoU is the mean IoU over sentences, cIoU the ratio of all intersections to all unions, Pr@X the share of sentences
    whose IoU is X or more. Sentences without a target are where protocols differ:

    - `lisa` (RefCOCO, RefCOCO+, RefCOCOg, ReasonSeg; LISA, GLaMM, OMG-LLaVA): IoU 1 if both masks are empty. A sentence
      that got no mask at all, because the answer has no [SEG], has IoU 0 and is left out of cIoU, as in OMG-LLaVA's own
      evaluation; `count_missed` says how many there are.
    - `gres` (gRefCOCO; ReLA's `ReferEvaluator`): there the model says apart from its mask whether there is a target. If
      it says no, its mask does not count: rightly, IoU 1 and nothing for cIoU; wrongly, IoU 0 and the union of both
      masks. Pr@X is over sentences with a target. No mask at all says that there is no target.

    Args:
        protocol: See above.
    """

    def __init__(self, protocol: Protocol = "lisa"):
        super().__init__()
        self.protocol = protocol

    def update(
        self,
        sample_id: str,
        prediction: np.ndarray | None,
        target: np.ndarray,
        *,
        ignore: np.ndarray | None = None,
        no_target: bool | None = None,
        predicted_no_target: bool | None = None,
        source: str = "",
    ) -> None:
        """Adds a sentence.

        Args:
            prediction, target: Bool [H, W]. Of several referred objects, the union. No prediction at all is None.
            ignore: Bool [H, W], pixels that count for nothing (255 in ReasonSeg's label maps).
            no_target, predicted_no_target: Whether the sentence means nothing, and whether the model said so (`gres`);
                None = whether the mask is empty.
            source: Data set of the sentence, for `per_source`.

        Raises:
            ValueError: Masks of different sizes.
        """
        unanswered = prediction is None
        prediction = np.zeros_like(target) if prediction is None else prediction
        for what, mask in (("prediction", prediction), ("ignore", ignore)):
            if mask is not None and mask.shape != target.shape:
                raise ValueError(f"{what}: expected the target's size {target.shape}, got {mask.shape} ({sample_id})")
        if ignore is not None:
            prediction, target = prediction & ~ignore, target & ~ignore
        record = _Answer(
            shared=int(np.count_nonzero(prediction & target)),
            union=int(np.count_nonzero(prediction | target)),
            no_target=not target.any() if no_target is None else no_target,
            answered_no_target=not prediction.any() if predicted_no_target is None else predicted_no_target,
            unanswered=unanswered,
            source=source,
        )
        self.add(sample_id, record)

    def compute(self) -> dict[str, float]:
        """`gIoU`, `cIoU`, `Pr@0.5` … `Pr@0.9`; with `gres` also `N-acc` and `T-acc`.

        N-acc is the share of sentences without target that the model recognised, T-acc that of sentences with one. Both
        are 0 if all sentences have a target, as ReLA says it.
        """
        return self._reduce(self.ordered())

    def count_missed(self) -> int:
        """Sentences that got no mask at all."""
        return sum(record.unanswered for record in self.records.values())

    def per_source(self) -> dict[str, dict[str, float]]:
        """Source → the same numbers over its sentences."""
        records = self.ordered()
        sources = sorted({record.source for record in records})
        return {source: self._reduce([one for one in records if one.source == source]) for source in sources}

    def _reduce(self, records: list[_Answer]) -> dict[str, float]:
        return _reduce_gres(records) if self.protocol == "gres" else _reduce_lisa(records)


def _reduce_lisa(records: list[_Answer]) -> dict[str, float]:
    shared, union = _columns(records)
    answered = np.array([not record.unanswered for record in records], dtype=bool)
    # LISA's own small numbers keep 0/0 away; they show in the sixth digit of small objects.
    ious = answered * np.where(union == 0, 1.0, shared / (union + 1e-5))
    exact = answered * np.where(union == 0, 1.0, shared / np.maximum(union, 1))
    return {
        "gIoU": _ratio(ious.sum(), len(records)),
        "cIoU": _ratio(shared[answered].sum(), union[answered].sum() + 1e-10) if answered.any() else float("nan"),
        **_precisions(exact),
    }


def _reduce_gres(records: list[_Answer]) -> dict[str, float]:
    shared, union = _columns(records)
    absent = np.array([record.no_target for record in records], dtype=bool)
    denied = np.array([record.answered_no_target for record in records], dtype=bool)
    shared = np.where(absent | denied, 0, shared)
    union = np.where(absent & denied, 0, union)
    ious = np.where(absent, denied, shared / np.maximum(union, 1))
    return {
        "gIoU": _ratio(ious.sum(), len(records)),
        "cIoU": _ratio(shared.sum(), union.sum()),
        **_precisions(ious[~absent]),
        "N-acc": _ratio((absent & denied).sum(), absent.sum()) if absent.any() or not records else 0.0,
        "T-acc": _ratio((~absent & ~denied).sum(), (~absent).sum()) if absent.any() or not records else 0.0,
    }


def _columns(records: list[_Answer]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([record.shared for record in records], dtype=np.int64),
        np.array([record.union for record in records], dtype=np.int64),
    )


def _precisions(ious: np.ndarray) -> dict[str, float]:
    return {f"Pr@{threshold}": _ratio((ious >= threshold).sum(), len(ious)) for threshold in THRESHOLDS}


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
