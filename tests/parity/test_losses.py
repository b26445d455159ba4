"""Matching, losses and gradients against the original (golden cases g1 to g4).

What is recorded of a training step, each for a batch of two and five predictions:

| case | batch | recorded |
|---|---|---|
| g1 `image` | pictures, object queries | points, costs, assignments, losses, gradients |
| g2 `image_whole_map` | the same, whole maps instead of points | costs, assignments, losses, gradients |
| g3 `video` | clips of two frames, object queries | points, costs, assignments, losses, gradients |
| g4 `sam` | pictures, noised point prompts | points, losses, gradients |

Of a gradient there are the norm and the sum of each of 173 parameters. No step of several batches is recorded: a joint
step is held against the sum of its cases, as far as they add up (losses and sums of gradients do; norms only where one
case alone has a gradient).

The random points of the record are fed in, so that nothing here depends on a random generator, but for the one test
that draws them anew from the recorded seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from omgvision.conversion import to_original_omg_seg
from omgvision.models.omg_seg.loss_omg_seg import object_losses
from omgvision.models.omg_seg.matcher_omg_seg import Assignment, LossWeights, Predictions, assign, match, pairwise_costs
from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from omgvision.models.omg_seg.outputs_omg_seg import OmgSegOutput
from omgvision.models.omg_seg.points_omg_seg import PointSource, RandomPoints, sample_points, sample_shared_points
from tests.closeness import assert_close
from tests.golden import load, read_json
from tests.models import golden_model

WEIGHTS = LossWeights(cls=2.0, mask=5.0, dice=5.0, iou=2.0, void=0.1)
LAYERS = 5
POINTS = 112


class RecordedPoints:
    """The points that the original drew."""

    def __init__(self, recorded: dict[str, Tensor]):
        self.recorded = recorded

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        return self.recorded[f"layer{layer}.match_points.img{image}"][0].to(device)

    def loss(self, layer: int, logits: Tensor) -> Tensor:
        return self.recorded[f"layer{layer}.loss_points_final"].to(logits.device)


class PixelCenters:
    """Every pixel of the mask once: sampling there reads the whole map, as the original's `matching_whole_map`."""

    def matching(self, layer: int, image: int, device: torch.device) -> Tensor:
        raise NotImplementedError("the whole-map costs are computed in the test")

    def loss(self, layer: int, logits: Tensor) -> Tensor:
        height, width = logits.shape[-2:]
        y, x = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
        return torch.cartesian_prod(y, x).flip(-1).expand(len(logits), -1, -1)


@dataclass
class Targets:
    """Ground truth of a batch of two pictures or clips."""

    masks: list[Tensor]
    labels: list[Tensor]


def targets(recorded: dict[str, Tensor]) -> Targets:
    masks = [recorded[f"gt.masks.img{image}"] for image in range(2)]
    return Targets(
        [mask if mask.dim() == 4 else mask[:, None] for mask in masks],
        [recorded[f"gt.labels.img{image}"] for image in range(2)],
    )


def predictions(output: OmgSegOutput) -> Predictions:
    assert output.auxiliary_logits is not None
    layers = [*output.auxiliary_logits, output]
    masks = torch.stack([layer["masks_queries_logits"] for layer in layers])
    return Predictions(
        torch.stack([layer["class_queries_logits"] for layer in layers]),
        torch.stack([layer["iou_logits"] for layer in layers]),
        masks if masks.dim() == 6 else masks[:, :, :, None],
    )


def recorded_assignment(recorded: dict[str, Tensor], layer: int, image: int) -> Assignment:
    """The original's list (0 = background, else mask number + 1) as ours."""
    indices = recorded[f"layer{layer}.assigned_gt_inds.img{image}"]
    queries = torch.where(indices > 0)[0]
    return queries, indices[queries] - 1


def assert_assigned(found: Sequence[Sequence[Assignment]], recorded: dict[str, Tensor]) -> None:
    assert len(found) == LAYERS
    for layer, per_image in enumerate(found):
        for image, (queries, masks) in enumerate(per_image):
            expected_queries, expected_masks = recorded_assignment(recorded, layer, image)
            assert torch.equal(queries, expected_queries), (layer, image)
            assert torch.equal(masks, expected_masks), (layer, image)


def assert_losses(found: dict[str, Tensor], case: str) -> None:
    """Each loss of each layer within 1e-5. What the original adds with factor zero we do not compute."""
    expected = {key: value for key, value in read_json("tiny_losses")["losses"][case].items() if "__" not in key}
    assert expected.pop("loss_zero") == 0.0
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name].detach(), torch.tensor(value), rtol=1e-5, name=name)


def gradients_of(model: OmgSegForUniversalSegmentation, loss: Tensor) -> dict[str, Tensor]:
    """Of every parameter under its original name."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    ours = {
        name: torch.zeros_like(parameters[name]) if gradient is None else gradient
        for name, gradient in zip(parameters, gradients, strict=True)
    }
    return to_original_omg_seg(ours, model.config)


def within_rounding(recorded: dict[str, Tensor]) -> Tensor:
    """The recorded input, moved by its own rounding.

    The recorded clip lies on a kink of the network, and on some processors falls to the other side of it than on the
    one that recorded it: losses are the same to 1e-7, gradients differ by up to 6e-4.
    """
    noise = torch.randn(recorded["input"].shape, generator=torch.Generator().manual_seed(0))
    return recorded["input"] * (1 + 2e-7 * noise)


def assert_gradients_at(inputs: Sequence[Tensor], check: Callable[[Tensor], None]) -> None:
    """That `check` holds at one of the inputs, which are the same to rounding."""
    for number, pixels in enumerate(inputs, start=1):
        try:
            return check(pixels)
        except AssertionError:
            if number == len(inputs):
                raise


def assert_gradients(model: OmgSegForUniversalSegmentation, loss: Tensor, case: str) -> None:
    """Norm and sum of the gradient of every parameter of the original."""
    theirs = gradients_of(model, loss)
    expected = read_json("tiny_losses")["grad_norm_and_sum"][case]
    assert expected.pop("__params_without_grad__") == []
    for name, (norm, total) in expected.items():
        gradient = theirs[name]
        # The sum cancels: where it is far below the norm it holds rounding noise of the norm's size.
        noise = 1e-4 * max(norm, 1e-3)
        assert abs(gradient.norm().item() - norm) <= noise, (name, gradient.norm().item(), norm)
        assert abs(gradient.sum().item() - total) <= noise * gradient.numel() ** 0.5, (
            name,
            gradient.sum().item(),
            total,
        )
    unused = {name for name, gradient in theirs.items() if gradient.abs().max() > 0} - expected.keys()
    assert not unused, "gradients where the original has none"


@cache
def objects(case: str) -> OmgSegOutput:
    """Model output of the case with gradients."""
    return golden_model()(load(case)["input"], output_auxiliary=True)


OBJECT_CASES = [("image", "tiny_io_g1_loss_image"), ("video", "tiny_io_g3_loss_video")]


@pytest.mark.parametrize("file", [file for _, file in OBJECT_CASES])
def test_matching_costs(file):
    recorded = load(file)
    predicted, truth, points = predictions(objects(file)), targets(recorded), RecordedPoints(recorded)
    for layer in range(LAYERS):
        for image in range(2):
            at = points.matching(layer, image, torch.device("cpu"))[None]
            costs = pairwise_costs(
                predicted.class_logits[layer : layer + 1, image],
                sample_shared_points(predicted.mask_logits[layer, image].flatten(1, 2)[None], at),
                sample_shared_points(truth.masks[image].flatten(1, 2)[None].float(), at),
                truth.labels[image],
                WEIGHTS,
            )
            assert_close(costs[0].detach(), recorded[f"layer{layer}.cost.img{image}"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("file", [file for _, file in OBJECT_CASES])
def test_assignments(file):
    recorded, truth = load(file), targets(load(file))
    found = match(predictions(objects(file)), truth.masks, truth.labels, WEIGHTS, RecordedPoints(recorded))
    assert_assigned(found, recorded)


@pytest.mark.parametrize(("case", "file"), OBJECT_CASES)
def test_losses_and_gradients(case, file):
    recorded = load(file)
    model, truth = golden_model(), targets(recorded)

    def check(pixels: Tensor) -> None:
        output = model(pixels, mask_labels=truth.masks, class_labels=truth.labels, loss_points=RecordedPoints(recorded))
        assert_losses(output.loss_dict, case)
        total = read_json("tiny_losses")["losses"][case]["__total__"]
        assert_close(output.loss.detach(), torch.tensor(total), rtol=1e-5)
        assert_gradients(model, output.loss, case)

    assert_gradients_at((recorded["input"], within_rounding(recorded)), check)


def test_whole_map():
    """The original can compare whole maps instead of points.

    Its matching costs are means over the pixels then, but its loss still divides the cross-entropy by the number of
    points: hence the factor.
    """
    file, case = "tiny_io_g2_loss_image_wholemap", "image_whole_map"
    recorded, output = load(file), golden_model()(load(file)["input"], output_auxiliary=True)
    predicted, truth = predictions(output), targets(load(file))
    by_image = []
    for image in range(2):
        costs = pairwise_costs(
            predicted.class_logits[:, image],
            predicted.mask_logits[:, image].flatten(2),
            truth.masks[image].flatten(1).expand(LAYERS, -1, -1),
            truth.labels[image],
            WEIGHTS,
        )
        for layer in range(LAYERS):
            assert_close(costs[layer].detach(), recorded[f"layer{layer}.cost.img{image}"], atol=1e-4, rtol=1e-5)
        by_image.append(assign(costs))
    assignments = list(zip(*by_image, strict=True))
    assert_assigned(assignments, recorded)

    losses = object_losses(predicted, truth.masks, truth.labels, assignments, WEIGHTS, PixelCenters())
    pixels = truth.masks[0][0].numel()
    losses = {name: loss * (pixels / POINTS if name.endswith("loss_mask") else 1) for name, loss in losses.items()}
    assert_losses(losses, case)
    assert_gradients(golden_model(), torch.stack(list(losses.values())).sum(), case)


def prompt_step(model: OmgSegForUniversalSegmentation) -> Any:
    """Output of a training batch of noised points: prompt i against mask i."""
    recorded = load("tiny_io_g4_loss_sam")
    low, size = recorded["noised_query_bbox_logit"].sigmoid().chunk(2, dim=-1)
    boxes = torch.cat((low - size / 2, low + size / 2), dim=-1) * torch.tensor([120.0, 90.0, 120.0, 90.0])
    pixel_mask = torch.zeros(2, 96, 128)
    pixel_mask[:, :90, :120] = 1
    return model(
        recorded["input"],
        pixel_mask,
        input_boxes=boxes,
        mask_labels=targets(recorded).masks,
        loss_points=RecordedPoints(recorded),
    )


def test_prompt_losses():
    """The sums are divided by the prompts of one picture."""
    model = golden_model(box_prompt_index=0)
    output = prompt_step(model)
    assert_losses(output.loss_dict, "sam")
    assert_gradients(model, output.loss, "sam")


@pytest.mark.parametrize(("case", "file"), OBJECT_CASES)
def test_counts_of_the_labels_are_the_normalizers_of_the_original(case, file):
    """What a trainer sums over the batches of a step gives, for a step of one batch, the recorded losses."""
    recorded = load(file)
    model, truth = golden_model(), targets(recorded)
    counts = model.loss_normalizers(truth.masks, truth.labels, canvas=(96, 128))
    output = model(
        recorded["input"],
        mask_labels=truth.masks,
        class_labels=truth.labels,
        loss_points=RecordedPoints(recorded),
        normalizers=counts,
    )
    assert_losses(output.loss_dict, case)


def test_a_joint_step_of_pictures_clips_and_prompts():
    """Losses and gradients of three batches accumulate to the sums of the recorded ones."""
    model = golden_model(box_prompt_index=0)
    (_, picture), (_, clip) = OBJECT_CASES

    def check(clip_pixels: Tensor) -> None:
        outputs = [prompt_step(model)]
        for file, pixels in ((picture, load(picture)["input"]), (clip, clip_pixels)):
            recorded = load(file)
            truth = targets(recorded)
            outputs.append(
                model(
                    pixels,
                    mask_labels=truth.masks,
                    class_labels=truth.labels,
                    loss_points=RecordedPoints(recorded),
                )
            )
        assert_joint_step(model, outputs)

    assert_gradients_at((load(clip)["input"], within_rounding(load(clip))), check)


def assert_joint_step(model: OmgSegForUniversalSegmentation, outputs: Sequence[OmgSegOutput]) -> None:
    """The sum of the recorded losses, and the gradients of all three."""
    cases = ("sam", *[case for case, _ in OBJECT_CASES])
    losses = [output.loss for output in outputs if output.loss is not None]
    loss = torch.stack(losses).sum()
    totals = [read_json("tiny_losses")["losses"][case]["__total__"] for case in cases]
    assert_close(loss.detach(), torch.tensor(sum(totals)), rtol=1e-5)
    gradients = gradients_of(model, loss)
    recorded_gradients = [read_json("tiny_losses")["grad_norm_and_sum"][case] for case in cases]
    for name, gradient in gradients.items():
        parts = [recorded[name] for recorded in recorded_gradients if name in recorded]
        noise = 1e-4 * max(1e-3, sum(norm for norm, _ in parts))
        assert abs(gradient.sum().item() - sum(total for _, total in parts)) <= noise * gradient.numel() ** 0.5, name
        norms = [norm for norm, _ in parts if norm > 0]
        if len(norms) == 1:
            assert abs(gradient.norm().item() - norms[0]) <= noise, name


@pytest.mark.parametrize(("case", "file"), OBJECT_CASES)
def test_points_from_the_recorded_seed(case, file):
    """With the recorded seed and the original's order of draws RandomPoints chooses the original's points.

    The order is layer by layer, matching points of each picture and then the points of the losses. Training draws the
    matching points of all layers first, so that a whole picture is matched at once; the distribution is the same.
    """
    recorded = load(file)
    predicted = predictions(objects(file))
    source: PointSource = RandomPoints(POINTS, oversample=3.0, importance=0.75)
    with torch.random.fork_rng():
        torch.manual_seed(read_json("tiny_losses")["meta"][case]["torch_seed"])
        for layer in range(LAYERS):
            matched = []
            for image in range(2):
                points = source.matching(layer, image, torch.device("cpu"))
                assert torch.equal(points, recorded[f"layer{layer}.match_points.img{image}"][0])
                queries, _ = recorded_assignment(recorded, layer, image)
                matched.append(predicted.mask_logits[layer, image, queries])
            logits = torch.cat(matched).flatten(1, 2).detach()
            chosen, expected = source.loss(layer, logits), recorded[f"layer{layer}.loss_points_final"]
            # Points of equal uncertainty may come in another order, so the uncertainties are compared.
            assert_close(
                sample_points(logits, chosen).abs().sort(dim=1).values,
                sample_points(logits, expected).abs().sort(dim=1).values,
                atol=1e-3,
                rtol=0,
            )
            assert torch.equal(chosen[:, -28:], recorded[f"layer{layer}.loss_points_random"])
