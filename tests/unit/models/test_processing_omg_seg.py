"""Prompts in pixels of the picture become prompts of the network input; words become embeddings."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor
from omgvision.models.omg_seg.processing_omg_seg import PADDING_LABEL, OmgSegProcessor
from omgvision.models.omg_seg.vocabulary_omg_seg import TEMPLATES, build_clip_tokenizer

SIZE = {"longest_edge": 128, "shortest_edge": 64}
processor = OmgSegProcessor(OmgSegImageProcessor(size=SIZE), build_clip_tokenizer())
WIDE, TALL = np.zeros((40, 60, 3), np.uint8), np.zeros((100, 20, 3), np.uint8)  # become 64x96 and 128x26


def test_pictures_alone_bring_no_prompts():
    inputs = processor([WIDE, TALL])
    assert set(inputs) == {"pixel_values", "pixel_mask"}
    assert torch.equal(
        inputs["pixel_values"], processor.image_processor([WIDE, TALL], return_tensors="pt")["pixel_values"]
    )


def test_ragged_prompts_are_padded():
    region = np.zeros((40, 60))
    region[10:20, 30:60] = 1
    inputs = processor(
        [WIDE, TALL],
        input_points=[[[(30, 20)], [(0, 0), (60, 40)]], [[(10, 50)]]],
        input_point_labels=[[[1], [1, 0]], [[0]]],
        input_boxes=[[], [(0, 0, 10, 50), (-5, 40, 30, 120)]],
        input_masks=[[region], []],
    )
    factors = {"wide": (96 / 60, 64 / 40), "tall": (26 / 20, 128 / 100)}
    points, labels = inputs["input_points"], inputs["input_point_labels"]
    assert points.shape == (2, 2, 2, 2) and labels.tolist() == [
        [[1, PADDING_LABEL], [1, 0]],
        [[0, PADDING_LABEL], [PADDING_LABEL, PADDING_LABEL]],
    ]
    torch.testing.assert_close(points[0, 0, 0], torch.tensor([30 * factors["wide"][0], 20 * factors["wide"][1]]))
    torch.testing.assert_close(points[0, 1], torch.tensor([[0.0, 0.0], [96.0, 64.0]]))
    torch.testing.assert_close(points[1, 0, 0], torch.tensor([10 * factors["tall"][0], 50 * factors["tall"][1]]))
    boxes = inputs["input_boxes"]
    assert boxes.shape == (2, 2, 4) and not boxes[0].any()
    torch.testing.assert_close(boxes[1], torch.tensor([[0.0, 0.0, 13.0, 64.0], [0.0, 51.2, 26.0, 128.0]]))
    masks = inputs["input_masks"]
    assert masks.shape == (2, 1, *inputs["pixel_values"].shape[2:]) and masks.dtype == torch.bool
    assert masks[0, 0].sum() == 16 * 48 and masks[0, 0, 16:32, 48:96].all() and not masks[1].any()
    assert inputs["prompt_mask"].tolist() == [[True, True, False, False, True], [True, False, True, True, False]]


def test_labels_are_positive_when_left_out():
    inputs = processor(WIDE, input_points=[[[(1, 2), (3, 4)]]])
    assert inputs["input_point_labels"].tolist() == [[[1, 1]]] and inputs["prompt_mask"].tolist() == [[True]]


def test_arrays_and_tensors_are_prompts_too():
    listed = processor(WIDE, input_points=[[[(1, 2)], [(3, 4)]]], input_boxes=[[(1, 2, 3, 4)]])
    array = processor(WIDE, input_points=np.array([[[[1, 2]], [[3, 4]]]]), input_boxes=torch.tensor([[[1, 2, 3, 4]]]))
    for name in listed:
        assert torch.equal(listed[name], array[name])


def test_no_prompt_at_all_is_an_empty_axis():
    inputs = processor([WIDE, TALL], input_points=[[], []], input_boxes=[[], []], input_masks=[[], []])
    assert inputs["input_points"].shape[:2] == inputs["input_boxes"].shape[:2] == inputs["prompt_mask"].shape == (2, 0)
    assert inputs["input_masks"].shape == (2, 0, *inputs["pixel_values"].shape[2:])


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 200), width=st.integers(1, 200), x=st.floats(0, 1, width=32), y=st.floats(0, 1, width=32))
def test_points_keep_their_relative_place(height: int, width: int, x: float, y: float):
    inputs = processor(np.zeros((height, width, 3), np.uint8), input_points=[[[(x * width, y * height)]]])
    rows, columns = inputs["pixel_mask"][0].any(1).sum(), inputs["pixel_mask"][0].any(0).sum()
    expected = torch.stack([x * columns, y * rows])
    torch.testing.assert_close(inputs["input_points"][0, 0, 0], expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"input_points": [[[(61, 5)]]]}, "inside the picture of 60x40 pixels, got (61, 5) for picture 0"),
        ({"input_points": [[[(5, -1)]]]}, "got (5, -1)"),
        ({"input_points": [[[(5, float("nan"))]]]}, "list of (x, y)"),
        ({"input_points": [[[(5, 5, 5)]]]}, "list of (x, y)"),
        ({"input_points": [[[]]]}, "at least one"),
        ({"input_points": [[], []]}, "one list a picture (1), got 2"),
        ({"input_points": [[[(1, 1)]]], "input_point_labels": [[[2]]]}, "expected 1 or 0"),
        ({"input_points": [[[(1, 1)]]], "input_point_labels": [[[1, 1]]]}, "expected 1 or 0"),
        ({"input_points": [[[(1, 1)]]], "input_point_labels": [[]]}, "expected 1 lists"),
        ({"input_point_labels": [[[1]]]}, "expected input_points"),
        ({"input_boxes": [[(5, 5, 3, 8)]]}, "x1 < x2 and y1 < y2"),
        ({"input_boxes": [[(5, 5, 5, 8)]]}, "x1 < x2 and y1 < y2"),
        ({"input_boxes": [[(70, 5, 80, 8)]]}, "on the picture of 60x40"),
        ({"input_boxes": [[(1, 2, 3)]]}, "list of (x1, y1, x2, y2)"),
        ({"input_masks": [[np.ones((3, 3))]]}, "expected masks [40, 60]"),
    ],
)
def test_bad_prompts_are_one_line(prompts: dict, message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        processor(WIDE, **prompts)
    assert "\n" not in str(caught.value)


class Tower(nn.Module):
    """A stand-in for a model with a text tower."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.text_model = nn.Embedding(49408, 8)
        self.texts = 0

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        assert attention_mask is not None
        self.texts += len(input_ids)
        return (self.text_model(input_ids) * attention_mask[..., None]).sum(1)


def test_vocabulary_is_remembered_until_the_weights_change():
    model = Tower()
    own = OmgSegProcessor(processor.image_processor, processor.tokenizer)
    with torch.inference_mode():
        first = own.encode_vocabulary(["cat", "dog,puppy"], model=model)
    assert first.shape == (2, 2, 8) and not first.requires_grad and not first.is_inference()
    assert torch.equal(own.encode_vocabulary(["cat", "dog,puppy"], model=model), first)
    assert model.texts == 3 * len(TEMPLATES)
    with torch.no_grad():
        model.text_model.weight.mul_(torch.rand_like(model.text_model.weight))
    assert not torch.equal(own.encode_vocabulary(["cat", "dog,puppy"], model=model), first)


def test_saved_and_loaded(tmp_path: Path):
    from transformers import AutoImageProcessor

    from omgvision.models.omg_seg.configuration_omg_seg import OmgSegConfig

    AutoImageProcessor.register(
        OmgSegConfig,
        image_processor_classes={"pil": OmgSegImageProcessor, "torchvision": OmgSegImageProcessor},
        exist_ok=True,
    )
    processor.save_pretrained(tmp_path)
    loaded = OmgSegProcessor.from_pretrained(tmp_path)
    assert dict(loaded.image_processor.size) == SIZE
    text = "a photo of a tea-pot, isn't it?"
    assert loaded.tokenizer(text)["input_ids"] == processor.tokenizer(text)["input_ids"]
    assert torch.equal(loaded(WIDE)["pixel_values"], processor(WIDE)["pixel_values"])
