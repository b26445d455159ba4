"""Pictures in, results out: shapes, inputs of every kind, and transformers' conventions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import SizeDict

from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor, resized_size
from omgvision.models.omg_seg.outputs_omg_seg import OmgSegOutput
from omgvision.models.omg_seg.postprocessing_omg_seg import MaskSizes, panoptic, semantic

SMALL = {"longest_edge": 128, "shortest_edge": 64}
processor = OmgSegImageProcessor(size=SMALL)


def picture(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(height=st.integers(1, 6000), width=st.integers(1, 6000), long=st.integers(32, 2000), short=st.integers(32, 2000))
def test_sizes_stay_within_the_edges(height: int, width: int, long: int, short: int):
    long, short = max(long, short), min(long, short)
    rows, columns = resized_size((height, width), SizeDict(longest_edge=long, shortest_edge=short))
    assert min(rows, columns) >= 1 and max(rows, columns) <= long
    assert min(rows, columns) <= short
    assert max(rows, columns) == long or min(rows, columns) == short  # it touches one of them
    assert resized_size((width, height), SizeDict(longest_edge=long, shortest_edge=short)) == (columns, rows)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ({"longest_edge": 100}, (50, 100)),
        ({"shortest_edge": 100}, (100, 200)),
        ({"longest_edge": 100, "shortest_edge": 20}, (20, 40)),
        ({"height": 7, "width": 9}, (7, 9)),
    ],
)
def test_ways_to_give_a_size(size: dict, expected: tuple[int, int]):
    assert resized_size((200, 400), SizeDict(**size)) == expected
    mask = OmgSegImageProcessor()(picture(200, 400), size=size, return_tensors="pt")["pixel_mask"][0]
    assert (mask.any(1).sum(), mask.any(0).sum()) == expected


def test_a_size_that_says_nothing():
    with pytest.raises(ValueError, match="size: expected longest_edge"):
        resized_size((20, 40), SizeDict(max_height=3, max_width=3))


@settings(max_examples=25, deadline=None)
@given(sides=st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=1, max_size=4))
def test_a_batch_is_its_pictures_on_one_canvas(sides: list[tuple[int, int]]):
    pictures = [picture(*side, seed=index) for index, side in enumerate(sides)]
    batch = processor(pictures, return_tensors="pt")
    pixels, mask = batch["pixel_values"], batch["pixel_mask"]
    assert pixels.dtype == torch.float32 and mask.dtype == torch.bool and pixels.shape[2:] == mask.shape[1:]
    assert pixels.shape[2] % 32 == pixels.shape[3] % 32 == 0
    for index, single in enumerate(pictures):
        alone = processor(single, return_tensors="pt")
        height, width = alone["pixel_mask"].shape[1:]
        assert torch.equal(pixels[index, :, :height, :width], alone["pixel_values"][0])
        assert torch.equal(mask[index, :height, :width], alone["pixel_mask"][0])
        assert not pixels[index][:, ~mask[index]].any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 5000), (5000, 1), (3, 2), (31, 33)])
def test_extreme_pictures(height: int, width: int):
    batch = OmgSegImageProcessor()(picture(height, width), return_tensors="pt")
    assert batch["pixel_values"].isfinite().all()
    assert max(batch["pixel_values"].shape[2:]) <= 1344 and min(batch["pixel_values"].shape[2:]) >= 32
    assert batch["pixel_mask"].any()


def test_inputs_of_every_kind_agree():
    array = picture(40, 50)
    expected = processor(array, return_tensors="pt")["pixel_values"]
    tensor = torch.from_numpy(array)
    alike: list[Any] = [
        Image.fromarray(array),
        [Image.fromarray(array)],
        [[array]],
        array[None],
        array.transpose(2, 0, 1),
        tensor.permute(2, 0, 1),
        [tensor],
        array[:, ::-1][:, ::-1],
        np.concatenate([array, array[..., :1]], 2),
    ]
    for same in alike:
        assert torch.equal(processor(same, return_tensors="pt")["pixel_values"], expected)
    grey = array[..., 0]
    expected = processor(np.stack([grey] * 3, 2), return_tensors="pt")["pixel_values"]
    for same in (grey, [grey], grey[..., None], Image.fromarray(grey)):
        assert torch.equal(processor(same, return_tensors="pt")["pixel_values"], expected)


def test_where_both_ends_could_be_channels():
    array = picture(3, 3)
    last = processor(array, return_tensors="pt")["pixel_values"]
    assert torch.equal(
        processor(torch.from_numpy(array.transpose(2, 0, 1).copy()), return_tensors="pt")["pixel_values"], last
    )
    first = processor(array.transpose(2, 0, 1), input_data_format="channels_first", return_tensors="pt")["pixel_values"]
    assert torch.equal(first, last)


@pytest.mark.parametrize(
    "bad", ["a.png", np.zeros((2, 2, 5), np.uint8), np.zeros((0, 4, 3), np.uint8), torch.zeros(7), []]
)
def test_what_is_no_picture(bad: Any):
    with pytest.raises((ValueError, OSError)):
        processor(bad, return_tensors="pt")


def test_floats_are_levels_and_not_rounded():
    array = np.full((64, 64, 3), 100.25, np.float64)
    pixels = processor(array, return_tensors="pt")["pixel_values"][0, :, 0, 0]
    torch.testing.assert_close(
        pixels * torch.tensor(processor.image_std) + torch.tensor(processor.image_mean), torch.full((3,), 100.25)
    )


def test_rescaling_and_normalising_are_optional():
    array = picture(64, 64)
    raw = processor(array, do_normalize=False, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(raw.permute(1, 2, 0), torch.from_numpy(array).float())
    unit = processor(array, do_normalize=False, do_rescale=True, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(unit, raw / 255)


def test_padding_is_optional_and_can_be_fixed():
    assert processor(picture(40, 50), do_pad=False, return_tensors="pt")["pixel_values"].shape[2:] == (64, 80)
    fixed = {"height": 160, "width": 192}
    assert processor(picture(40, 50), pad_size=fixed, return_tensors="pt")["pixel_values"].shape[2:] == (160, 192)
    with pytest.raises(ValueError, match="one size"):
        processor([picture(40, 50), picture(50, 40)], do_pad=False)
    with pytest.raises(ValueError, match="pad_size: expected at least 64x80"):
        processor(picture(40, 50), pad_size={"height": 32, "width": 192})


def test_unknown_arguments_are_refused():
    with pytest.raises((TypeError, ValueError)):
        processor(picture(4, 4), siez=SMALL)


def test_it_is_saved_and_loaded(tmp_path: Path):
    OmgSegImageProcessor(size=SMALL, size_divisor=64, resample=Image.Resampling.BICUBIC).save_pretrained(tmp_path)
    loaded = OmgSegImageProcessor.from_pretrained(tmp_path)
    assert dict(loaded.size) == SMALL and loaded.size_divisor == 64 and loaded.resample == Image.Resampling.BICUBIC
    assert loaded(picture(40, 50), return_tensors="pt")["pixel_values"].shape[2:] == (64, 128)


# ------------------------------------------------------------------------------------------------------- results out

THINGS = torch.tensor([True, True, False, False])


def outputs(**changes: Any) -> Any:
    # Any, for every field of the output may be None to the type checker.
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(2 * 10, 1, 4, 4, generator=generator) * 5
    masks = torch.nn.functional.interpolate(coarse, size=(16, 24), mode="bilinear").view(2, 10, 16, 24)
    values: dict[str, Any] = {
        "class_queries_logits": torch.randn(2, 10, 5, generator=generator) * 3,
        "masks_queries_logits": masks,
        "iou_logits": torch.randn(2, 10, generator=generator),
        "image_sizes": torch.tensor([[64, 90], [50, 96]]),
        "canvas_size": torch.tensor([64, 96]),
        "thing_mask": THINGS,
    }
    return OmgSegOutput(**(values | changes))


def test_panoptic_in_transformers_form():
    output = outputs()
    results = processor.post_process_panoptic_segmentation(
        output, overlap_mask_area_threshold=0.1, target_sizes=[(128, 180), (30, 40)]
    )
    for index, (result, target) in enumerate(zip(results, [(128, 180), (30, 40)], strict=True)):
        segmentation, segments = result["segmentation"], result["segments_info"]
        assert segmentation.shape == target and segmentation.dtype == torch.int32
        assert {segment["id"] for segment in segments} == set(segmentation.unique().tolist()) - {0}
        assert segments and all(segment["is_thing"] == (segment["label_id"] < 2) for segment in segments)
        height, width = output.image_sizes[index].tolist()
        plain, infos = panoptic(
            output.class_queries_logits[index],
            mask_logits=output.masks_queries_logits[index],
            thing_mask=THINGS,
            sizes=MaskSizes(canvas=(64, 96), image=(height, width), target=target),
            overlap_threshold=0.1,
        )
        assert torch.equal(plain, segmentation) and [info.area for info in infos] == [s["area"] for s in segments]


def test_classes_to_fuse_can_be_named():
    def repeated(**arguments):
        result = processor.post_process_panoptic_segmentation(outputs(), overlap_mask_area_threshold=0.0, **arguments)
        labels = [segment["label_id"] for image in result for segment in image["segments_info"]]
        return {
            label
            for image in result
            for label in {s["label_id"] for s in image["segments_info"]}
            if [s["label_id"] for s in image["segments_info"]].count(label) > 1
        }, labels

    assert repeated()[0] <= {0, 1}
    assert len(repeated(label_ids_to_fuse=set())[1]) > len(repeated()[1])
    assert not repeated(label_ids_to_fuse={0, 1, 2, 3})[0]


def test_semantic_maps():
    output = outputs()
    maps = processor.post_process_semantic_segmentation(output)
    assert [tuple(each.shape) for each in maps] == [(64, 90), (50, 96)]
    sizes = MaskSizes(canvas=(64, 96), image=(50, 96), target=(50, 96))
    expected = semantic(output.class_queries_logits[1], mask_logits=output.masks_queries_logits[1], sizes=sizes)
    assert torch.equal(maps[1], expected)


def test_fused_logits_are_preferred():
    fused = torch.full((2, 10, 5), -10.0)
    fused[..., 3] = 10
    maps = processor.post_process_semantic_segmentation(outputs(fused_class_logits=fused))
    assert all((each == 3).all() for each in maps)


def test_instances_in_transformers_form():
    maps = processor.post_process_instance_segmentation(outputs(), threshold=0.1)
    binary = processor.post_process_instance_segmentation(outputs(), threshold=0.1, return_binary_maps=True)
    for result, whole in zip(maps, binary, strict=True):
        segments = result["segments_info"]
        assert segments == whole["segments_info"] and len(whole["segmentation"]) == len(segments) > 1
        assert all(segment["label_id"] < 2 and segment["score"] >= 0.1 for segment in segments)
        for segment, mask in zip(segments, whole["segmentation"], strict=True):
            shown = result["segmentation"] == segment["id"]
            assert not (shown & ~mask).any()  # only better ones cover it
        best = whole["segmentation"][0]
        assert (result["segmentation"][best] == 0).all() and (result["segmentation"] >= 0).sum() == whole[
            "segmentation"
        ].any(0).sum()


def test_proposals_and_prompts():
    found = processor.post_process_proposals(outputs(), max_proposals=3, target_sizes=[(20, 30), (40, 50)])
    assert [each.masks.shape[1:] for each in found] == [(20, 30), (40, 50)] and all(len(e.scores) <= 3 for e in found)
    real = torch.ones(2, 10, dtype=torch.bool)
    real[1, 4:] = False
    masks = processor.post_process_prompts(outputs(prompt_mask=real))
    assert [tuple(each.shape) for each in masks] == [(10, 64, 90), (4, 50, 96)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masks_queries_logits": None}, "masks_queries_logits"),
        ({"thing_mask": None}, "thing_mask"),
        ({"class_queries_logits": torch.zeros(2, 10, 1)}, "set_vocabulary"),
        ({"masks_queries_logits": torch.zeros(2, 10, 3, 16, 24)}, "of pictures"),
    ],
)
def test_outputs_that_do_not_fit(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        processor.post_process_panoptic_segmentation(outputs(**changes))


def test_target_sizes_that_do_not_fit():
    with pytest.raises(ValueError, match="target_sizes: expected one a picture"):
        processor.post_process_semantic_segmentation(outputs(), target_sizes=[(3, 3)])
