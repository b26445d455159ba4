"""Grounded conversation generation (GLaMM): a caption whose phrases come with masks.

Letters: P predicted masks, G true masks.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from omgvision.evaluation.average_precision import AveragePrecision
from omgvision.evaluation.captions import Captions, Meteor, Tokenise
from omgvision.evaluation.metric import PerSample
from omgvision.evaluation.run_lengths import compressed_all

Similarity = Callable[[str, str], float]
"""How alike two phrases are, 0 to 1."""

IOU_THRESHOLD = 0.5
SIMILARITY_THRESHOLD = 0.5


@dataclass(frozen=True)
class Answer:
    """What is kept of a picture.

    Attributes:
        caption, references: What was predicted and the true ones.
        phrases, labels: The same of the masks.
        masks: Predicted run lengths.
        ious: [P, G].
    """

    caption: str
    references: Sequence[str]
    phrases: Sequence[str]
    labels: Sequence[str]
    masks: list[dict[str, Any]]
    ious: np.ndarray

    @property
    def mean_iou(self) -> float:
        """Mean over the pairs of masks that overlap, best first, each mask once; 0 without any."""
        ious = self.ious.copy()
        paired = []
        while ious.size and ious.max() > 0:
            row, column = divmod(int(ious.argmax()), ious.shape[1])
            paired.append(float(ious[row, column]))
            ious[row], ious[:, column] = 0, 0
        return math.fsum(paired) / len(paired) if paired else 0.0


class GroundedCaptions(PerSample[Answer]):
    """Keeps, of every picture, what it was told to have, and how its masks overlap with the true ones.

    Args:
        masks: COCO instances json of the true masks, one category with id 1.
        tokenise, meteor: As in `Captions`.
        similarity: Tells whether a phrase is the right one (see `phrase_similarity`).
    """

    def __init__(
        self,
        masks: Mapping[str, Any],
        tokenise: Tokenise,
        *,
        similarity: Similarity,
        meteor: Meteor | None = None,
    ):
        super().__init__()
        self.masks, self.tokenise, self.meteor, self.similarity = masks, tokenise, meteor, similarity
        self._images = {str(image["id"]): image for image in masks["images"]}
        self._truth: dict[str, list[Any]] = {}
        for annotation in masks["annotations"]:
            self._truth.setdefault(str(annotation["image_id"]), []).append(annotation["segmentation"])

    def update(
        self,
        sample_id: str,
        caption: str,
        phrases: Sequence[str],
        masks: Sequence[Any],
        *,
        references: Sequence[str],
        labels: Sequence[str],
    ) -> None:
        """Adds a picture.

        Args:
            sample_id: Its id in the true masks' json.
            caption, phrases, masks: What was predicted; run lengths, in the order of the phrases.
            references: True captions.
            labels: True phrases, in the order of the true masks.

        Raises:
            ValueError: An unknown picture, a mask of another size or one that does not decode.
        """
        if sample_id not in self._images:
            raise ValueError(f"image id: expected an image of the ground truth, got {sample_id}")
        size = (self._images[sample_id]["height"], self._images[sample_id]["width"])
        try:
            found, true = (compressed_all(given, size=size) for given in (masks, self._truth.get(sample_id, [])))
        except ValueError as error:
            raise ValueError(f"{error} (image {sample_id})") from None
        self.add(sample_id, Answer(caption, references, phrases, labels, found, overlaps(found, true)))

    def compute(self) -> dict[str, float]:
        """`AP`, `AP50`, … of masks without scores, `mIoU`, `Recall`, and the numbers of `Captions`.

        AP is over all pictures of the ground truth that were added. mIoU is the mean over pictures of the mean over
        masks paired greedily; Recall is over phrases.
        """
        identities = sorted(self.records)
        precision = AveragePrecision(self.masks, images=[self._images[one]["id"] for one in identities])
        captions = Captions(self.tokenise, meteor=self.meteor)
        for identity in identities:
            record = self.records[identity]
            precision.update(identity, [{"category_id": 1, "score": 1.0, "segmentation": one} for one in record.masks])
            captions.update(identity, record.caption, record.references)
        records = self.ordered()
        numbers = {
            **(precision.compute() if records else {"AP": math.nan, "AP50": math.nan}),
            "mIoU": _ratio(math.fsum(record.mean_iou for record in records), len(records)),
            "Recall": _ratio(
                sum(self.count_found(record) for record in records), sum(len(record.labels) for record in records)
            ),
        }
        return numbers | captions.compute()

    def count_found(self, answer: Answer) -> int:
        """True phrases that have their mask: pairs [G, P] from the best IoU on; as in GLaMM the first that is below a
        threshold ends it.

        Where a mask of the pair has no phrase GLaMM's evaluation runs into an error, and the picture counts as one
        where nothing was found.
        """
        ious, phrases, labels = answer.ious.T.copy(), answer.phrases, answer.labels
        count = 0
        while ious.size:
            row, column = divmod(int(ious.argmax()), ious.shape[1])
            if ious[row, column] < IOU_THRESHOLD:
                break
            if row >= len(labels) or column >= len(phrases):
                return 0
            if self.similarity(labels[row], phrases[column]) < SIMILARITY_THRESHOLD:
                break
            count += 1
            ious[row], ious[:, column] = 0, 0
        return count


def overlaps(masks: Sequence[dict[str, Any]], true: Sequence[dict[str, Any]]) -> np.ndarray:
    """IoU [P, G] of pycocotools' masks."""
    tools: Any = coco_mask
    return np.asarray(tools.iou(masks, true, [0] * len(true))) if masks and true else np.zeros((len(masks), len(true)))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
