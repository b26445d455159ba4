"""What the places of a video were taken for in the frame before: classes do not flicker where nothing changes.

Letters: Q queries, C width, h×w the stride-4 grid.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .clips_omg_seg import QueryPrediction
from .postprocessing_omg_seg import PastQueries

PAST_SHARE = 0.5
"""Share of the frame before in the class scores of a place that looks as it did then, at most."""

ALIKE, ALIKE_RANGE = 0.9, 0.05
"""Cosine of the mask features of a place in two frames at which the one before has half of that share, and the width of
the sigmoid around it. Chosen on a train drive of CamVid with a frame a second: half of its cosines are over 0.93."""


class ClassMemory:
    """The last frame of a video: `recall` what it says about the next one, then `remember` that."""

    def __init__(self) -> None:
        self._before: tuple[QueryPrediction, Tensor] | None = None

    @torch.no_grad()
    def recall(self, mask_features: Tensor) -> PastQueries | None:
        """What the last frame says about one with these mask features [C,h,w]; None before the first frame."""
        if self._before is None:
            return None
        prediction, features = self._before
        cosine = F.cosine_similarity(mask_features.float(), features.float(), dim=0)
        share = PAST_SHARE * ((cosine - ALIKE) / ALIKE_RANGE).sigmoid()
        return PastQueries(
            class_logits=prediction.class_logits,
            mask_logits=prediction.mask_logits,
            weight=share / (1 - share),
        )

    def remember(self, prediction: QueryPrediction, *, mask_features: Tensor) -> None:
        """A frame's queries, with mask logits [Q,h,w], and its mask features [C,h,w]."""
        self._before = (prediction, mask_features)
