"""Whatever is done to a picture is done to its masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from omgvision.data import ORIGINAL_AUGMENTATION, Augmentation, Clip, Sample, SyntheticScenes
from omgvision.data.sample import layers_from_masks
from omgvision.data.transforms import (
    IMAGE_MEAN,
    Crops,
    colour_jitter,
    copy_paste,
    horizontal_flip,
    large_scale_jitter,
    normalise,
    resize,
    resize_to_longest_edge,
)

GREY = 40


def painted(sample: Sample) -> Sample:
    """The sample with a picture made of its own masks: segment n has the brightness 60 (n + 1), nothing is 40."""
    image = torch.full((3, *sample.size), GREY, dtype=torch.uint8)
    for number, mask in enumerate(sample.masks):
        image[:, mask] = 60 * (number + 1)
    return replace(sample, image=image)


@pytest.fixture
def blocks() -> Sample:
    """80×120 with three blocks apart from each other."""
    masks = np.zeros((3, 80, 120), dtype=bool)
    masks[0, 10:40, 10:50] = True
    masks[1, 50:75, 20:60] = True
    masks[2, 15:70, 75:110] = True
    return painted(
        Sample(
            image=torch.zeros((3, 80, 120), dtype=torch.uint8),
            segment_layers=layers_from_masks(list(masks), 80, 120),
            labels=torch.tensor([0, 1, 0]),
            names=("box", "wall"),
            things=(True, False),
            sample_id="blocks",
            dataset="test",
        )
    )


def wrong_pixels(sample: Sample) -> int:
    """Pixels whose brightness is not that of their segment, but for those beside an edge, which bilinear mixes."""
    expected = torch.full(sample.size, float(GREY))
    for number, mask in enumerate(sample.masks):
        expected[mask] = 60 * (number + 1)
    padded = torch.nn.functional.pad(expected[None, None], (2, 2, 2, 2), mode="replicate")[0, 0]
    around = padded.unfold(0, 5, 1).unfold(1, 5, 1)
    inside = (around == expected[:, :, None, None]).flatten(2).all(2)
    assert inside.float().mean() > 0.5
    return int(((sample.image[0].float() - expected).abs() > 2)[inside].sum())


@pytest.mark.parametrize("seed", range(12))
def test_scale_jitter_keeps_masks_on_the_picture(blocks: Sample, seed: int) -> None:
    (moved,) = large_scale_jitter(
        [blocks], np.random.default_rng(seed), size=(96, 96), scale=(0.5, 2.5), aspect=1.3, antialias=False
    )
    # Padding is mean colour (124 in red), 84 away from the grey of nothing: it is compared apart.
    padding = (moved.image == torch.tensor(IMAGE_MEAN).round().to(torch.uint8).view(3, 1, 1)).all(0)
    assert not (moved.masks & padding).any()
    inside = replace(moved, image=torch.where(padding, GREY, moved.image))
    assert moved.size == (96, 96)
    assert wrong_pixels(inside) == 0


def test_flip_and_resize_keep_masks_on_the_picture(blocks: Sample) -> None:
    assert wrong_pixels(horizontal_flip(blocks)) == 0
    assert torch.equal(horizontal_flip(horizontal_flip(blocks)).masks, blocks.masks)
    for antialias in (False, True):
        assert wrong_pixels(resize(blocks, size=(61, 47), antialias=antialias)) == 0
        assert wrong_pixels(resize(blocks, size=(200, 331), antialias=antialias)) == 0
    twice = resize(blocks, size=(160, 240))
    assert torch.equal(twice.masks, blocks.masks.repeat_interleave(2, 1).repeat_interleave(2, 2))


@pytest.mark.parametrize(("longest", "size"), [(60, (40, 60)), (240, (160, 240)), (1, (1, 1))])
def test_longest_edge(blocks: Sample, longest: int, size: tuple[int, int]) -> None:
    assert resize_to_longest_edge(blocks, longest_edge=longest).size == size


@pytest.mark.parametrize("options", [{"scale": (1.5, 1.5)}, {"scale": (1.0, 1.0), "longest_edge": 120}])
def test_crop_of_the_same_scale_copies_pixels(blocks: Sample, options: dict) -> None:
    """The picture is 120 pixels wide; 80 of them fit."""
    (cropped,) = large_scale_jitter([blocks], np.random.default_rng(0), size=(80, 80), **options)
    starts = [start for start in range(41) if torch.equal(cropped.image, blocks.image[:, :, start : start + 80])]
    assert len(starts) >= 1
    assert torch.equal(cropped.masks, blocks.masks[:, :, starts[0] : starts[0] + 80])


def test_neutral_colour_jitter_changes_nothing() -> None:
    sample = SyntheticScenes(seed=0, size=(64, 64), length=1)[0]
    (same,) = colour_jitter([sample], np.random.default_rng(0), brightness=0, contrast=0, saturation=0, hue=0)
    assert int((same.image.int() - sample.image.int()).abs().max()) <= 1


def test_grey_has_no_colour_and_keeps_luma() -> None:
    sample = SyntheticScenes(seed=0, size=(64, 64), length=1)[0]
    options = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    (grey,) = colour_jitter([sample], np.random.default_rng(0), **options, grey_probability=1)
    luma = torch.tensordot(torch.tensor([0.299, 0.587, 0.114]), sample.image.float(), dims=1)
    assert int((grey.image.int() - grey.image.int()[:1]).abs().max()) <= 1
    assert float((grey.image[0] - luma).abs().max()) < 1.5


def test_augmentation_is_deterministic_and_drops_what_vanished() -> None:
    scenes, augmentation = SyntheticScenes(seed=5, size=(128, 160), length=8), Augmentation(size=(96, 64), min_area=25)
    for index in range(8):
        first = augmentation(scenes[index], np.random.default_rng(index))
        again = augmentation(scenes[index], np.random.default_rng(index))
        assert torch.equal(first.image, again.image)
        assert torch.equal(first.masks, again.masks)
        assert first.size == (96, 64)
        assert first.masks.shape == (len(first.labels), 96, 64)
        assert bool((first.areas() >= 25).all())


def test_crop_is_drawn_again_when_it_holds_nothing() -> None:
    image = torch.zeros((3, 200, 200), dtype=torch.uint8)
    mask = np.zeros((200, 200), dtype=bool)
    mask[90:110, 90:110] = True
    sample = Sample(image, layers_from_masks([mask], 200, 200), torch.tensor([0]), ("a",), (True,), "0", "test")
    once = Augmentation(size=(64, 64), scale=(2.0, 3.0), attempts=1)
    often = replace(once, attempts=12)
    found = [
        sum(len(augmentation(sample, np.random.default_rng(seed)).labels) for seed in range(40))
        for augmentation in (once, often)
    ]
    assert found[0] < 35
    assert found[1] >= 38


def test_pasted_objects_hide_what_is_beneath(blocks: Sample) -> None:
    donor = painted(replace(blocks, segment_layers=blocks.segment_layers.flip(-1)))
    donor = replace(donor, image=255 - donor.image)
    for seed in range(8):
        mixed = copy_paste(blocks, donor, np.random.default_rng(seed), max_part=1.0)
        masks, pasted = mixed.masks, len(mixed.labels) - 3
        assert pasted in (0, 1, 2), "the donor's wall is never pasted"
        assert int(masks.sum(0).max()) <= 1
        for number in range(3, len(mixed.labels)):
            assert torch.equal(mixed.image[:, masks[number]], donor.image[:, masks[number]])
        for number in range(3):
            assert torch.equal(mixed.image[:, masks[number]], blocks.image[:, masks[number]])


def test_pasting_needs_one_size(blocks: Sample) -> None:
    with pytest.raises(ValueError, match="donor"):
        copy_paste(blocks, resize(blocks, size=(40, 40)), np.random.default_rng(0))


def test_overlapping_masks_survive_layers_and_transforms() -> None:
    generator = np.random.default_rng(0)
    masks = generator.random((6, 20, 30)) < 0.5
    layers = layers_from_masks(list(masks), 20, 30)
    sample = Sample(
        torch.zeros((3, 20, 30), dtype=torch.uint8), layers, torch.arange(6), tuple("abcdef"), (True,) * 6, "0", "test"
    )
    assert torch.equal(sample.masks, torch.from_numpy(masks))
    assert sample.areas().tolist() == masks.sum((1, 2)).tolist()
    median = int(np.median(masks.sum((1, 2)))) + 1
    large = sample.with_areas_of_at_least(median)
    keep: Tensor = torch.from_numpy(masks.sum((1, 2)) >= median)
    assert torch.equal(large.masks, torch.from_numpy(masks)[keep])
    assert torch.equal(large.labels, torch.arange(6)[keep])


def test_normalise_is_the_models() -> None:
    image = torch.tensor([124, 116, 104], dtype=torch.uint8).view(3, 1, 1)
    expected = [(124 - 123.675) / 58.395, (116 - 116.28) / 57.12, (104 - 103.53) / 57.375]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def drawn_scales(augmentation: Augmentation, sample: Sample, number: int) -> np.ndarray:
    """Factors over the fitting scale, read off a segment that covers the whole picture and always fits."""
    areas = [int(augmentation(sample, np.random.default_rng(seed)).areas()[0]) for seed in range(number)]
    fitting = min(augmentation.size[0] / sample.size[0], augmentation.size[1] / sample.size[1])
    return np.sqrt(np.array(areas) / (sample.size[0] * sample.size[1])) / fitting


def filled(height: int, width: int, *, rows: int | None = None) -> Sample:
    """A picture of one segment, the first `rows` of it."""
    mask = np.zeros((height, width), dtype=bool)
    mask[:rows] = True
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Sample(image, layers_from_masks([mask], height, width), torch.tensor([0]), ("a",), (True,), "0", "test")


def test_original_scale_is_uniform_and_ours_log_uniform() -> None:
    uniform = replace(ORIGINAL_AUGMENTATION, size=(64, 96), scale=(0.1, 1.0))
    scales = drawn_scales(uniform, filled(64, 96), 400)
    assert (scales.min() > 0.09, scales.max() < 1.01) == (True, True)
    assert scales.mean() == pytest.approx(0.55, abs=0.04)
    log_uniform = drawn_scales(replace(uniform, scale_law="log-uniform"), filled(64, 96), 400)
    assert np.log(log_uniform).mean() == pytest.approx(np.log(0.1) / 2, abs=0.1)


@pytest.mark.parametrize("height_width", [(480, 640), (375, 1242), (720, 720), (1024, 2048), (50, 60)])
def test_original_recipe_at_its_size(height_width: tuple[int, int]) -> None:
    """Crops of at most 1280×736, keeping the aspect ratio, at the corner of the canvas, scaled by 0.8 to 2."""
    height, width = height_width
    fitting = min(736 / height, 1280 / width)
    sample = filled(height, width)
    for seed in range(6):
        crop = ORIGINAL_AUGMENTATION(sample, np.random.default_rng(seed))
        assert crop.areas().tolist() == [crop.size[0] * crop.size[1]], "no padding within the sample"
        for length, limit, side in zip(crop.size, (736, 1280), height_width, strict=True):
            assert 0.8 * fitting * side - 1 <= length <= min(limit, round(2 * fitting * side))
        if crop.size[0] < 736 and crop.size[1] < 1280:
            assert crop.size[0] / crop.size[1] == pytest.approx(height / width, rel=0.01)


def test_original_takes_crops_without_segments() -> None:
    sample = filled(64, 96, rows=3)
    assert ORIGINAL_AUGMENTATION.attempts == 1
    found = [
        len(replace(ORIGINAL_AUGMENTATION, size=(64, 96), scale=(2.0, 2.0))(sample, np.random.default_rng(seed)).labels)
        for seed in range(40)
    ]
    assert {0, 1} == set(found)


def moving(sample: Sample, crops: Crops, *, frames: int = 4, seed: int = 0, **changes) -> Clip:
    """A still clip under an augmentation at twice its size, without flip and colours unless asked for."""
    neutral = {"flip_probability": 0.0, "colour_probability": 0.0, "antialias": False, "min_area": 1} | changes
    augmentation = Augmentation(size=(80, 120), scale=(2.0, 2.0), aspect=1.0, crops=crops, **neutral)
    return augmentation.clip(Clip((sample,) * frames), np.random.default_rng(seed))


def test_shared_crop_is_the_same_in_all_frames(blocks: Sample) -> None:
    clip = moving(blocks, "shared", flip_probability=0.5, colour_probability=1.0)
    assert all(torch.equal(frame.image, clip.frames[0].image) for frame in clip.frames)
    assert all(torch.equal(frame.masks, clip.frames[0].masks) for frame in clip.frames)
    image = moving(blocks, "shared", frames=1).frames[0]
    assert torch.equal(image.image, moving(blocks, "shared").frames[2].image), "a picture is a clip of one frame"


def test_colours_are_shared_by_frames_that_differ(blocks: Sample) -> None:
    dark = replace(blocks, image=blocks.image // 2)
    bright, dim = colour_jitter([blocks, dark], np.random.default_rng(3))
    pairs = {
        (before, after)
        for old, new in ((blocks, bright), (dark, dim))
        for before, after in zip(old.image[0].flatten().tolist(), new.image[0].flatten().tolist(), strict=True)
    }
    assert len(pairs) == len({before for before, _ in pairs}), "one grey level becomes one level, in whichever frame"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("crops", ["independent", "moving"])
def test_each_frame_of_a_moving_clip_is_a_true_picture(blocks: Sample, crops: Crops, seed: int) -> None:
    clip = moving(blocks, crops, seed=seed)
    shades = [shade for shade in (60, 120, 180) if any(bool((frame.image == shade).any()) for frame in clip.frames)]
    for frame in clip.frames:
        assert frame.size == (80, 120)
        for shade, mask in zip(shades, frame.masks, strict=True):
            inside = torch.nn.functional.avg_pool2d(mask[None].float(), 5, stride=1, padding=2)[0] > 0.999
            assert not ((frame.image[:, inside].int() - shade).abs() > 2).any()
    assert any(not torch.equal(frame.image, clip.frames[0].image) for frame in clip.frames[1:])


def test_independent_crops_share_scale_and_flip() -> None:
    columns = torch.arange(120, dtype=torch.uint8).expand(3, 80, 120)
    sample = replace(filled(80, 120), image=columns)
    flips = set()
    for seed in range(8):
        clip = moving(sample, "independent", seed=seed, flip_probability=0.5)
        slopes = [(frame.image[0, 0, -1].int() - frame.image[0, 0, 0].int()) / 119 for frame in clip.frames]
        assert all(abs(abs(slope) - 0.5) < 0.02 for slope in slopes), "twice the size: half a level a pixel"
        assert len({bool(slope > 0) for slope in slopes}) == 1
        assert len({int(frame.image[0, 0].min()) for frame in clip.frames}) > 1
        flips.add(bool(slopes[0] > 0))
    assert flips == {True, False}


def test_moving_crop_glides_in_even_steps() -> None:
    columns = torch.arange(240, dtype=torch.uint8).expand(3, 160, 240)
    sample = replace(filled(160, 240), image=columns)
    travelled = []
    for seed in range(20):
        clip = moving(sample, "moving", frames=6, seed=seed)
        centres = np.array([float(frame.image[0, 0].float().mean()) for frame in clip.frames])
        extents = np.array([float(frame.image[0, 0, -1].int() - frame.image[0, 0, 0].int()) for frame in clip.frames])
        assert np.abs(np.diff(centres, 2)).max() < 2.5, "no jumps"
        assert extents.max() / extents.min() < 1.27, "no more than the zoom"
        travelled.append(abs(centres[-1] - centres[0]))
    assert 10 < max(travelled) < 60
    assert np.mean(travelled) > 5


def test_frames_stay_of_one_size_where_a_zoom_changes_the_padding() -> None:
    augmentation = replace(ORIGINAL_AUGMENTATION, size=(64, 96), scale=(0.2, 0.9), crops="moving")
    for seed in range(6):
        clip = augmentation.clip(Clip((filled(40, 60),) * 3), np.random.default_rng(seed))
        assert len({frame.size for frame in clip.frames}) == 1
