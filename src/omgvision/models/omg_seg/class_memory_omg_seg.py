"""What the places of a video were taken for in the frames before: classes do not flicker where nothing changes.

Letters: C width, K classes, h×w the stride-4 grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .clips_omg_seg import QueryPrediction
from .postprocessing_omg_seg import PastClasses

PAST_WEIGHT = 0.5
"""Share of the past in the class scores of a place that looks as it did before, at most."""

ALIKE, ALIKE_RANGE = 0.9, 0.05
"""Cosine of the mask features of a place in two frames at which the past has half of that share, and the width of the
sigmoid around it. Chosen on a train drive of CamVid, whose frames are a second apart: their median cosine is 0.93."""

CLASS_LIMIT = 128
"""Classes that are remembered, those with the highest score somewhere; of a large vocabulary few are in a picture."""


class ClassMemory:
    """The class scores of the frame before, in which those of earlier ones fade, and what that frame looked like.

    Holds at most `CLASS_LIMIT` + C floats for each cell of the grid, however long the video is.
    """

    def __init__(self) -> None:
        self._classes: Tensor | None = None
        self._scores: Tensor | None = None
        self._features: Tensor | None = None

    @torch.no_grad()
    def recall(self, prediction: QueryPrediction, *, mask_features: Tensor) -> PastClasses | None:
        """What the past says about a frame, which is remembered with it for the next one.

        Args:
            prediction: of the frame, with mask logits [Q,h,w].
            mask_features: [C,h,w] of the frame.

        Returns:
            None for the first frame.
        """
        probabilities = prediction.class_logits.float().softmax(-1)[:, :-1].T  # [K,Q]
        masks = prediction.mask_logits.float().sigmoid()
        features = F.normalize(mask_features.float(), dim=0)
        past = self._past(features)
        classes = _strongest(probabilities @ masks.flatten(1).amax(1))
        if past is not None:
            classes = torch.cat((classes, past.classes)).unique()
        scores = torch.einsum("kq,qhw->khw", probabilities[classes], masks)
        if past is not None:
            rows = torch.searchsorted(classes, past.classes)
            scores = (scores * (1 - past.weight)).index_add(0, rows, past.scores * past.weight)
        kept = _strongest(scores.flatten(1).amax(1))
        self._classes, self._scores, self._features = classes[kept], scores[kept], features
        return past

    def _past(self, features: Tensor) -> PastClasses | None:
        if self._classes is None or self._scores is None or self._features is None:
            return None
        alike = ((features * self._features).sum(0) - ALIKE) / ALIKE_RANGE
        return PastClasses(classes=self._classes, scores=self._scores, weight=PAST_WEIGHT * alike.sigmoid())


def _strongest(scores: Tensor) -> Tensor:
    """Indices of the `CLASS_LIMIT` largest of [n], ascending."""
    return scores.topk(min(CLASS_LIMIT, len(scores))).indices.sort().values
