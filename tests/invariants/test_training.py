"""What a training step changes and what it must leave alone."""

import pytest
import torch
from torch import Tensor

from omgvision.models.omg_seg.modeling_omg_seg import OmgSegForUniversalSegmentation
from tests.models import random_model, random_pixels

FROZEN = ("model.backbone.", "clip_head.")
PIXELS = random_pixels(2, 3, 64, 64)


def targets() -> dict[str, list[Tensor]]:
    """Two rectangles on the first picture, one on the second."""
    masks = [torch.zeros(2, 64, 64), torch.zeros(1, 64, 64)]
    masks[0][0, :32], masks[0][1, 32:, :40], masks[1][0, 10:50, 10:50] = 1, 1, 1
    return {"mask_labels": masks, "class_labels": [torch.tensor([0, 3]), torch.tensor([-1])]}


def step(model: OmgSegForUniversalSegmentation, **named) -> tuple[set[str], dict[str, Tensor]]:
    """One step of plain gradient descent; the names of what it changed, and the losses."""
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(0)
    output = model(PIXELS, **(targets() | named))
    output.loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    return changed, output.loss_dict


def test_a_frozen_backbone_stays_frozen():
    model = random_model()
    changed, _ = step(model)
    assert not {name for name in changed if name.startswith(FROZEN)}
    for module in (model.model.backbone, model.clip_head):
        assert module is not None
        assert not any(part.training for part in module.modules())
        assert all(parameter.grad is None for parameter in module.parameters())
    assert model.training
    assert model.model.mask_decoder.training
    assert any(name.startswith("model.pixel_decoder.") for name in changed)


def test_everything_else_learns_from_objects():
    """Apart from the prompts' parameters, which such a batch does not use."""
    changed, _ = step(random_model())
    expected = {
        name
        for name, parameter in random_model().named_parameters()
        if not name.startswith(FROZEN)
        and "prompt_encoder" not in name
        # The softmax does not feel what is added to all keys alike.
        and not name.endswith("k_proj.bias")
    }
    assert expected - changed == set()
    assert not {name for name in changed if "prompt_encoder" in name}


def test_everything_of_prompts_learns_from_prompts():
    points = torch.tensor([[[[20.0, 10], [50, 40]], [[10, 50], [9, 9]]], [[[30.0, 30], [60, 60]], [[5, 5], [0, 0]]]])
    labels = torch.tensor([[[1, 0], [1, -10]], [[1, 0], [-10, -10]]])
    changed, losses = step(
        random_model(point_refinement=True),
        class_labels=None,
        input_points=points,
        input_point_labels=labels,
        prompt_mask=torch.tensor([[True, True], [True, False]]),
        previous_mask_logits=random_pixels(2, 2, 16, 16),
    )
    encoder = {name for name, _ in random_model(point_refinement=True).named_parameters() if "prompt_encoder" in name}
    assert encoder <= changed
    assert not {"model.query_features", "model.query_positions"} & changed
    assert all(losses[name] == 0 for name in losses if name.endswith("loss_cls"))


def test_a_thawed_backbone_learns():
    model = random_model(freeze_backbone=False)
    changed, _ = step(model)
    assert model.model.backbone.training
    backbone = {name for name in model.state_dict() if name.startswith("model.backbone.")}
    assert backbone <= changed
    # Nothing asks the CLIP head in this loss; the next test does.
    assert not {name for name in changed if name.startswith("clip_head.")}


def test_region_and_dense_losses():
    model = random_model(freeze_backbone=False, region_loss_weight=1.0, dense_loss_weight=0.5)
    changed, losses = step(model)
    assert {"loss_region", "loss_dense"} <= losses.keys()
    assert {name for name in model.state_dict() if name.startswith("clip_head.")} <= changed


def test_losses_of_a_picture_without_objects():
    """Every query is void then; the mask losses are zero but in the graph."""
    nothing = {"mask_labels": [torch.zeros(0, 64, 64)] * 2, "class_labels": [torch.zeros(0, dtype=torch.long)] * 2}
    _, losses = step(random_model(), **nothing)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    assert losses["loss_cls"] > 0


def test_one_picture_of_a_batch_without_objects():
    some = targets()
    some["mask_labels"][1], some["class_labels"][1] = torch.zeros(0, 64, 64), torch.zeros(0, dtype=torch.long)
    _, losses = step(random_model(), **some)
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_mask"] > 0


def test_more_objects_than_queries():
    many = {"mask_labels": [(random_pixels(9, 64, 64) > 0).float()] * 2, "class_labels": [torch.arange(9) % 5] * 2}
    _, losses = step(random_model(), **many)
    assert all(loss.isfinite() for loss in losses.values())


def test_class_labels_are_needed():
    with pytest.raises(ValueError, match="class_labels: expected one tensor for each of mask_labels, got None"):
        random_model()(PIXELS, mask_labels=targets()["mask_labels"])


def test_masks_at_any_resolution():
    """Targets are compared at points, so they need not have the size of the predictions."""
    losses = []
    for size in (64, 128):
        full = targets()
        full["mask_labels"] = [
            torch.nn.functional.interpolate(masks[None], size=(size, size), mode="nearest")[0]
            for masks in full["mask_labels"]
        ]
        losses.append(step(random_model(), **full)[1])
    for name, loss in losses[0].items():
        torch.testing.assert_close(loss, losses[1][name], rtol=0.1, atol=0.05)


def test_normalizers_can_come_from_outside():
    """Where a step has several batches the losses are divided by the sums over all of them."""
    model = random_model()
    own = model.loss_normalizers(**targets(), canvas=(64, 64))
    assert {name: float(count) for name, count in own.items() if name != "pixels"} == {
        "masks": 3.0,
        "regions": 2.0,
        "classes": pytest.approx(2 + 0.1 * 9),
    }
    _, plain = step(random_model(region_loss_weight=1.0))
    doubled = {name: 2 * count for name, count in own.items()}
    _, halved = step(random_model(region_loss_weight=1.0), normalizers=doubled)
    for name, loss in plain.items():
        torch.testing.assert_close(halved[name], loss / 2)


def test_the_dense_loss_is_divided_by_the_expected_number_of_labelled_pixels():
    """The first rectangle and the second, which is on 20 columns of 8 rows, cover 128 + 80 of the 256 cells."""
    counts = random_model().loss_normalizers(**targets(), canvas=(64, 64))
    assert float(counts["pixels"]) == 1024 * (128 + 80) / 256
    _, losses = step(random_model(dense_loss_weight=1.0), normalizers=counts)
    _, plain = step(random_model(dense_loss_weight=1.0))
    torch.testing.assert_close(losses["loss_dense"], plain["loss_dense"], rtol=0.1, atol=0)


def test_learning_makes_the_loss_smaller():
    model = random_model(freeze_backbone=False).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for index in range(12):
        torch.manual_seed(index)
        loss = model(PIXELS, **targets()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3])
