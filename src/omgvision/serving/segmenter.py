"""A predictor that many people share: one question at a time, and nothing of one person shows up at another."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from PIL import Image

from ..predictor import Predictor
from ..reading import SegmentTask
from ..results import Result
from ..session import ImageSession
from .pictures import Limits, fingerprint
from .turns import Turns


class Segmenter:
    """Answers about pictures. What was clicked lives with who clicked: every question names all of its prompts.

    Attributes:
        predictor: used by one after the other.
        name: of the weights.
    """

    def __init__(self, predictor: Predictor, *, limits: Limits) -> None:
        self.predictor = predictor
        self.name = predictor.name
        self.limits = limits
        self._turns = Turns(waiting=limits.waiting)
        self._encoded: OrderedDict[str, ImageSession] = OrderedDict()

    def segment(
        self,
        image: Image.Image,
        *,
        task: SegmentTask = "panoptic",
        classes: Sequence[str] | str | None = None,
        things: Sequence[str] | None = None,
        threshold: float | None = None,
    ) -> Result:
        """See `Predictor.segment`, and `Turns.turn`."""
        with self._turns.turn():
            return self.predictor.segment(image, task=task, classes=classes, things=things, threshold=threshold)

    def click(
        self,
        image: Image.Image,
        *,
        points: Sequence[Any] | None = None,
        labels: Sequence[Any] | None = None,
        boxes: Sequence[Any] | None = None,
        masks: Sequence[Any] | None = None,
    ) -> Result:
        """See `ImageSession.click`, and `Turns.turn`. The last pictures stay encoded: further clicks come quickly."""
        with self._turns.turn():
            session = self._session(image)
            try:
                return session.click(points, labels=labels, boxes=boxes, masks=masks)
            finally:
                session.reset()

    @property
    def encoded_pictures(self) -> int:
        """How many pictures are held encoded."""
        return len(self._encoded)

    def _session(self, image: Image.Image) -> ImageSession:
        key = fingerprint(image)
        session = self._encoded.pop(key, None) or self.predictor.open(image)
        self._encoded[key] = session
        while len(self._encoded) > self.limits.kept:
            self._encoded.popitem(last=False)
        return session
