"""The image processor against the original's preprocessing (OpenCV), golden preproc."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.image_utils import SizeDict

from omgvision.models.omg_seg.image_processing_omg_seg import OmgSegImageProcessor, resized_size
from tests.golden import load, path, read_json

RECORDED = load("preproc")
FACTS = read_json("preproc")
STD = torch.tensor([58.395, 57.12, 57.375]).view(3, 1, 1)
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(3, 1, 1)
PICTURES = {"chelsea": "preproc_chelsea.png", "rocket": "preproc_rocket.jpg"}
# JPEG decoders differ by one or two levels; shrinking and growing add the one of the resize.
LEVELS = {"chelsea": 1, "rocket": 3}


def processed(name: str, scale: str) -> tuple[Tensor, Tensor]:
    long, short = (int(edge) for edge in scale.split("x"))
    with Image.open(path(PICTURES[name])) as picture:
        inputs = OmgSegImageProcessor()(
            picture, size={"longest_edge": long, "shortest_edge": short}, return_tensors="pt"
        )
    return inputs["pixel_values"][0], inputs["pixel_mask"][0]


@pytest.mark.parametrize("case", sorted(FACTS["rescale_size_wh"]))
def test_sizes(case: str):
    picture, scale = case.split(".")
    width, height = (int(side) for side in picture.removeprefix("wh").split("x"))
    long, short = (int(edge) for edge in scale.removeprefix("scale").split("x"))
    size = resized_size((height, width), SizeDict(longest_edge=long, shortest_edge=short))
    assert size[::-1] == tuple(FACTS["rescale_size_wh"][case])


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("scale", ["256x160", "1024x1024"])
def test_shapes_and_padding(name: str, scale: str):
    facts = FACTS["cases"][f"{name}.{scale}"]
    pixels, mask = processed(name, scale)
    assert list(pixels.shape[1:]) == facts["batch_input_shape"]
    height, width = facts["img_shape"]
    assert mask[:height, :width].all() and mask.sum() == height * width
    assert not pixels[:, ~mask].any()


@pytest.mark.parametrize("name", PICTURES)
def test_whole_picture_shrunk(name: str):
    pixels, _ = processed(name, "256x160")
    difference = (pixels - RECORDED[f"{name}.256x160.tensor"]).mul(STD).abs()
    assert difference.max() <= LEVELS[name] + 1e-3
    resized = RECORDED[f"{name}.256x160.resized_bgr_uint8"].flip(0)
    levels = (pixels * STD + MEAN)[:, : resized.shape[1], : resized.shape[2]]
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)  # whole grey levels, as OpenCV's
    assert (levels - resized).abs().max() <= LEVELS[name] + 1e-3


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("crop", ["tensor_crop_y300_x300_64", "tensor_bottom_right_40"])
def test_crops_of_the_picture_enlarged(name: str, crop: str):
    pixels, _ = processed(name, "1024x1024")
    ours = pixels[:, 300:364, 300:364] if "crop" in crop else pixels[:, -40:, -40:]
    assert (ours - RECORDED[f"{name}.1024x1024.{crop}"]).mul(STD).abs().max() <= LEVELS[name] + 1e-3


def test_png_without_resizing_is_exact():
    with Image.open(path(PICTURES["chelsea"])) as picture:
        rgb = np.array(picture.convert("RGB"))
    crop = rgb[100:132, 100:132]
    assert (crop[..., ::-1] == RECORDED["chelsea.decoded_bgr_crop_y100_x100_32"].numpy()).all()
    pixels = OmgSegImageProcessor()(crop, do_resize=False, return_tensors="pt")["pixel_values"][0]
    expected = (torch.from_numpy(crop.copy()).permute(2, 0, 1) - MEAN) / STD
    assert torch.equal(pixels, expected)


def test_pillow_resampling_is_pillow():
    with Image.open(path(PICTURES["chelsea"])) as picture:
        rgb = picture.convert("RGB")
    size = {"height": 96, "width": 128}
    processor = OmgSegImageProcessor(resample=Image.Resampling.BICUBIC, size=size, do_normalize=False)
    pixels = processor(rgb, return_tensors="pt")["pixel_values"][0]
    expected = np.array(rgb.resize((128, 96), Image.Resampling.BICUBIC))
    assert (pixels.permute(1, 2, 0).numpy() == expected).all()
