"""What the original's tools make of answers: pairing of masks, overlays, orders of samples; and where ours differ."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import maximum_filter, minimum_filter
from torch.nn import functional as F

from omgvision import visualization
from omgvision.chat_prompts import pointed_at
from omgvision.data.conversation_batches import ConversationMixture, ConversationSource
from omgvision.data.conversations import Conversation, Outline
from omgvision.evaluation.caption_tools import tokenise_without_java
from omgvision.evaluation.grounded_captions import GroundedCaptions
from omgvision.evaluation.referring import ReferringIoU
from omgvision.models.omg_llava.square_omg_llava import Square
from omgvision.run_lengths import RunLengthMask
from tests.golden_llava import load, read_json

TOOLS: dict[str, Any] = read_json("data_and_tools")


def coded(masks: torch.Tensor) -> list[dict[str, Any]]:
    return [RunLengthMask.encode(mask.bool().numpy()).to_coco() for mask in masks]


# --- grounded captions -----------------------------------------------------------------------------------------------


def test_masks_of_grounded_captions():
    """Run lengths of the recorded answers decode to the recorded masks."""
    tensors = load("data_and_tools")
    for number, case in enumerate(TOOLS["gcg_postprocess"]):
        masks = tensors[f"gcg.pred_masks{number}"]
        assert coded(masks) == case["result"]["pred_masks"]


def grounded(pred: torch.Tensor, true: torch.Tensor, similarities: list[list[float]] | None = None) -> dict[str, float]:
    """Mean IoU and recall of one picture; phrases are called by their numbers."""
    height, width = true.shape[1:]
    masks = [
        {"id": number, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [0, 0, 1, 1], "area": 1}
        | {"segmentation": code}
        for number, code in enumerate(coded(true), 1)
    ]
    metric = GroundedCaptions(
        {
            "images": [{"id": 1, "height": height, "width": width}],
            "annotations": masks,
            "categories": [{"id": 1, "name": "object"}],
        },
        tokenise_without_java,
        similarity=lambda label, phrase: 1.0 if similarities is None else similarities[int(label)][int(phrase)],
    )
    metric.update(
        "1",
        "a thing",
        [str(number) for number in range(len(pred))],
        coded(pred),
        references=["a thing"],
        labels=[str(number) for number in range(len(true))],
    )
    return metric.compute()


def test_mean_iou_of_grounded_captions():
    tensors = load("data_and_tools")
    pred, true = tensors["gcg.miou_pred"], tensors["gcg.miou_gt"]
    tools: Any = coco_mask
    ious = tools.iou(coded(pred), coded(true), [0] * len(true))
    np.testing.assert_allclose(ious, TOOLS["gcg_iou_matrix"], atol=1e-6)
    assert grounded(pred, true)["mIoU"] == pytest.approx(TOOLS["gcg_miou"], abs=1e-6)
    assert grounded(pred[:0], true)["mIoU"] == TOOLS["gcg_miou_no_pred"] == 0


def test_best_matches_of_grounded_captions():
    """True phrases that are found; the first pair that fails a threshold ends the search, as in the original."""
    tensors = load("data_and_tools")
    for case, pred, true in (
        ("gcg_best_matches", "gcg.miou_pred", "gcg.miou_gt"),
        ("gcg_best_matches_2", "gcg.match2_pred", "gcg.match2_gt"),
    ):
        recorded = TOOLS[case]
        found = grounded(tensors[pred], tensors[true], recorded["text_sims"])
        assert found["Recall"] == pytest.approx(len(recorded["matches"]) / len(recorded["text_sims"]))


# --- referring -------------------------------------------------------------------------------------------------------


def test_referring_metric():
    tensors, recorded = load("data_and_tools"), TOOLS["refcoco_metric"]
    metric = ReferringIoU()
    for number, counts in enumerate(recorded["per_mask"]):
        pred, true = (tensors[f"refcoco.{kind}{number}"].numpy() == 1 for kind in ("pred", "gt"))
        assert (np.count_nonzero(pred & true), np.count_nonzero(pred | true)) == (
            counts["intersection"][1],
            counts["union"][1],
        )
        metric.update(str(number), pred, true)
    found = metric.compute()
    assert found["cIoU"] == pytest.approx(recorded["cIoU"], abs=1e-6)
    assert found["gIoU"] == pytest.approx(recorded["gIoU"], abs=1e-6)


# --- pointing and showing --------------------------------------------------------------------------------------------


def test_what_is_pointed_at():
    """The page's list of six numbers a prompt: the third says a point (1) or the first corner of a box (2)."""
    recorded = TOOLS["parse_visual_prompts"]
    points = [each[:2] for each in recorded["i"] if each[2] == 1]
    boxes = [[*each[:2], *each[3:5]] for each in recorded["i"] if each[2] == 2]
    assert (points, boxes) == (recorded["o"]["points"], recorded["o"]["boxes"])
    prompts = pointed_at(Image.new("RGB", (80, 80)), points=[points], boxes=boxes)
    assert prompts == [{"point": tuple(points[0])}, {"box": tuple(boxes[0])}]


def test_overlay():
    """Where one mask lies, both mix half and half; the original darkens the rest and adds the colours of overlapping
    masks (which wraps around), ours leaves the rest alone and shows the mask on top."""
    tensors, colors = load("data_and_tools"), TOOLS["show_colors"]
    rows = slice(2, 14)
    picture = tensors["show.image"].numpy()[rows]
    logits = F.interpolate(tensors["show.mask_logits"], size=(16, 16), mode="bilinear")[:, 0, rows]
    restored = Square(12, 16, 16).restore(tensors["show.mask_logits"][:, 0])
    torch.testing.assert_close(restored, logits)  # the same pixels of the picture
    masks = (logits > 0).numpy()
    summed = (masks[..., None] * np.array(colors)[:, None, None]).sum(0)
    assert (np.abs(tensors["show.out"].numpy() - (picture * 0.5 + summed * 0.5)) <= 1).all()
    # Eight times as large, so that there is something between the contours, which the original does not draw.
    picture, masks = (np.repeat(np.repeat(each, 8, axis), 8, axis + 1) for each, axis in ((picture, 0), (masks, 1)))
    drawn = np.asarray(
        visualization.draw_segments(Image.fromarray(picture), masks, colors=[tuple(color) for color in colors])
    )
    on_top = np.where(masks.any(0), len(masks) - masks[::-1].argmax(0), 0)
    plain = minimum_filter(on_top, 9) == maximum_filter(on_top, 9)
    outside, inside = plain & (on_top == 0), plain & (on_top > 0)
    assert inside.any() and not np.array_equal(on_top, np.minimum(masks.sum(0), 1))
    assert np.array_equal(drawn[outside], picture[outside])
    expected = picture * 0.5 + np.array([(0, 0, 0), *colors])[on_top] * 0.5
    assert (np.abs(drawn - expected)[inside] <= 1.5).all()


# --- orders of samples -----------------------------------------------------------------------------------------------


class Lengths:
    """Conversations of which only the lengths matter."""

    name = "lengths"

    def __init__(self, lengths: list[int]):
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def outline(self, index: int, /) -> Outline:
        return Outline(characters=abs(self.lengths[index]), pictured=self.lengths[index] > 0)

    def draw(self, index: int, generator: np.random.Generator, /) -> Conversation:
        raise AssertionError("no conversation is drawn")


def order(lengths: list[int], batch: int, *, epoch: int = 0) -> list[list[int]]:
    mixture = ConversationMixture([ConversationSource(Lengths(lengths))], collate=lambda _: pytest.fail("collated"))
    steps = len(lengths) // batch
    return [
        [index for _, index in mixture.items(step, samples=batch)] for step in range(epoch * steps, (epoch + 1) * steps)
    ]


def test_conversations_of_alike_length():
    """Both take every conversation once and keep those with a picture (positive lengths) apart where they can; the
    original sorts 8 batches' worth at a time, with the longest first, ours whole blocks: less padding."""
    recorded = TOOLS["length_grouped"]
    lengths, size = recorded["lengths"], recorded["group_batch_size"]
    theirs = [recorded["indices"][start : start + size] for start in range(0, len(lengths), size)]
    ours = order(lengths, size)
    for batches in (theirs, ours):
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))

    def mixed(batches: list[list[int]]) -> int:
        return sum(len({lengths[index] > 0 for index in batch}) > 1 for batch in batches)

    def padding(batches: list[list[int]]) -> int:
        return sum(
            max(abs(lengths[index]) for index in batch) * size - sum(abs(lengths[index]) for index in batch)
            for batch in batches
        )

    assert mixed(ours) <= mixed(theirs) == 1
    assert padding(ours) < padding(theirs)


def test_datasets_are_shuffled_anew_each_epoch():
    """The original shuffles once with numpy's seed 42, and its sampler's lengths ignore that; ours are of what is
    drawn, in another order each epoch."""
    generator = np.random.RandomState(42)
    once = np.arange(20)
    generator.shuffle(once)
    assert once.tolist() == TOOLS["combine_shuffle_20"]
    first, second = (order([1] * 20, 1, epoch=epoch) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == [[index] for index in range(20)] and first != second
    lengths = [3, 9, 4, 8, 1, 7]
    assert {tuple(sorted(lengths[index] for index in batch)) for batch in order(lengths, 2)} == {(1, 3), (4, 7), (8, 9)}
